//! `compare`.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use ddas_formats::Policy;
use ddas_search::{Agreement, RankCorrelation, agreement};

use crate::args::CompareArgs;
use crate::output::print;

pub(crate) fn compare(args: &CompareArgs) -> Result<()> {
    let policies = args
        .policies
        .iter()
        .map(|path| Ok(Policy::read(path)?))
        .collect::<Result<Vec<_>>>()?;
    let mut pairs = Vec::new();
    for second in 1..policies.len() {
        for first in 0..second {
            let found = agreement(&policies[first], &policies[second], args.top);
            pairs.push((first, second, found));
        }
    }
    pairs.sort_by_key(|(first, second, _)| (*first, *second));
    let text = match args.json {
        true => json(args, &pairs)?,
        false => text(args, &policies, &pairs),
    };
    print(&text)?;
    match args.min_rho {
        Some(wanted) => judge(args, &pairs, wanted),
        None => Ok(()),
    }
}

/// A failure when any pair agrees less than it was wanted to.
fn judge(args: &CompareArgs, pairs: &[(usize, usize, Agreement)], wanted: f64) -> Result<()> {
    for (first, second, found) in pairs {
        if found.rank.rho.is_none_or(|rho| rho < wanted) {
            bail!(
                "{} and {} agree by a rho of {}, less than {wanted}",
                args.policies[*first].display(),
                args.policies[*second].display(),
                optional(found.rank.rho, 3)
            );
        }
    }
    Ok(())
}

fn json(args: &CompareArgs, pairs: &[(usize, usize, Agreement)]) -> Result<String> {
    let pairs = pairs
        .iter()
        .map(|(first, second, found)| {
            let mut value = serde_json::to_value(found)?;
            value["first"] = args.policies[*first].display().to_string().into();
            value["second"] = args.policies[*second].display().to_string().into();
            Ok(value)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(serde_json::to_string_pretty(&pairs)? + "\n")
}

fn text(args: &CompareArgs, policies: &[Policy], pairs: &[(usize, usize, Agreement)]) -> String {
    let mut text = String::new();
    for (number, (policy, path)) in policies.iter().zip(&args.policies).enumerate() {
        let snapshots = policy.snapshots();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{}  {}: {}, {} epochs, total probability {:.3} to {:.3}",
            number + 1,
            path.display(),
            policy.search_space().name(),
            snapshots.len(),
            snapshots[0].total_probability(),
            snapshots[snapshots.len() - 1].total_probability(),
        );
    }
    for (first, second, found) in pairs {
        let _ = writeln!(text, "\n{} and {}", first + 1, second + 1);
        let [ours, theirs] = found.total_probability;
        let everywhere = found
            .largest_total_difference
            .map_or(String::new(), |most| {
                format!("; at most {most:.3} apart in any epoch")
            });
        let _ = writeln!(
            text,
            "  total probability at the end: {ours:.3} and {theirs:.3}, difference {:+.3}{everywhere}",
            theirs - ours
        );
        let _ = writeln!(
            text,
            "  Spearman's rho of operations: {}",
            rank(&found.rank)
        );
        let _ = writeln!(
            text,
            "  Spearman's rho of names, arguments aside: {}",
            rank(&found.names_rank)
        );
        let by_chance = (found.top * found.top) as f64 / found.rank.count.max(1) as f64;
        let _ = writeln!(
            text,
            "  strongest {}: {} in common ({by_chance:.1} by chance)",
            found.top, found.top_common
        );
        let _ = writeln!(
            text,
            "  distance of the distributions: {:.3} (0 the same, 1 nothing in common)",
            found.distance
        );
        if found.only_first + found.only_second > 0 {
            let _ = writeln!(
                text,
                "  not compared: {} operations of {} alone, {} of {} alone",
                found.only_first,
                first + 1,
                found.only_second,
                second + 1
            );
        }
        if args.operations {
            text += &operations(found, first + 1, second + 1);
        }
    }
    text
}

/// The common operations, those first that the first policy makes most of.
fn operations(found: &Agreement, first: usize, second: usize) -> String {
    let mut sorted: Vec<_> = found.operations.iter().collect();
    sorted.sort_by(|a, b| a.ranks[0].total_cmp(&b.ranks[0]));
    let width = sorted
        .iter()
        .map(|one| one.label.chars().count())
        .chain([9])
        .max()
        .unwrap_or_default();
    let mut text = format!(
        "  {:width$}  {:>10}  {:>10}  {:>7}  {:>7}\n",
        "operation",
        format!("uniform x{first}"),
        format!("uniform x{second}"),
        format!("rank {first}"),
        format!("rank {second}"),
    );
    for one in sorted {
        let _ = writeln!(
            text,
            "  {:width$}  {:>10.3}  {:>10.3}  {:>7}  {:>7}",
            one.label, one.weights[0], one.weights[1], one.ranks[0], one.ranks[1]
        );
    }
    text
}

fn rank(found: &RankCorrelation) -> String {
    match (found.rho, found.chance) {
        (Some(rho), Some(chance)) => format!(
            "{rho:.3} over {} (as high by chance: {:.2}%)",
            found.count,
            100.0 * chance
        ),
        _ => format!("none over {}: nothing to rank", found.count),
    }
}

fn optional(value: Option<f64>, digits: usize) -> String {
    value.map_or("none".to_owned(), |value| format!("{value:.digits$}"))
}
