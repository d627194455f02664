//! `policy show`.

use std::path::PathBuf;

use clap::{Args, value_parser};
use ddas_formats::{Entry, Policy, Snapshot};
use serde::Serialize;

use crate::report;

#[derive(Args)]
pub(crate) struct Show {
    /// The policy file.
    file: PathBuf,
    /// Operations to show of each snapshot [default: 4, or 40 rows of a single snapshot].
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// Print as JSON, with every operation of every snapshot.
    #[arg(long)]
    json: bool,
}

/// The strongest first; equal ones in the order of the search space.
fn ranked(snapshot: &Snapshot) -> Vec<usize> {
    let probabilities = snapshot.operation_probabilities();
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    order
}

#[derive(Serialize)]
struct Shown {
    search_space: String,
    operations: usize,
    draws_per_sample: u32,
    smoothing_window: u32,
    digest: String,
    snapshots: Vec<ShownSnapshot>,
}

#[derive(Serialize)]
struct ShownSnapshot {
    snapshot: usize,
    total_probability: f64,
    /// Strongest first.
    operations: Vec<ShownOperation>,
}

#[derive(Serialize)]
struct ShownOperation {
    operation: String,
    probability: f64,
    /// As it stands in the file, for entries that are more than an operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<Entry>,
}

impl Show {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let policy = Policy::read(&self.file)?;
        let space = policy.search_space();
        let digest = format!("{:016x}", policy.digest());
        if self.json {
            let snapshot = |(number, snapshot): (usize, &Snapshot)| ShownSnapshot {
                snapshot: number,
                total_probability: snapshot.total_probability(),
                operations: ranked(snapshot)
                    .into_iter()
                    .map(|k| ShownOperation {
                        operation: space.entries()[k].label(),
                        probability: snapshot.operation_probabilities()[k],
                        entry: match &space.entries()[k] {
                            entry if entry.operation().is_some() => None,
                            entry => Some(entry.clone()),
                        },
                    })
                    .collect(),
            };
            return report::print_json(&Shown {
                search_space: space.name().to_owned(),
                operations: space.len(),
                draws_per_sample: space.draws_per_sample(),
                smoothing_window: policy.smoothing_window(),
                digest,
                snapshots: policy
                    .snapshots()
                    .iter()
                    .enumerate()
                    .map(snapshot)
                    .collect(),
            });
        }
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let mut text = format!(
            "search space       {}, {} operation{}, {} draw{} per sample\nsnapshots          {}\nsmoothing window   {}\ndigest             {digest}\n",
            space.name(),
            space.len(),
            plural(space.len()),
            space.draws_per_sample(),
            plural(space.draws_per_sample() as usize),
            policy.snapshots().len(),
            policy.smoothing_window(),
        );
        let totals: Vec<f64> = policy
            .snapshots()
            .iter()
            .map(Snapshot::total_probability)
            .collect();
        if let [only] = totals[..] {
            text.push_str(&format!("total probability  {only:.3}\n\n"));
        } else {
            text.push_str(&format!("total probability  {}\n", sparkline(&totals)));
            let (low, high) = totals
                .iter()
                .fold((1f64, 0f64), |(low, high), &p| (low.min(p), high.max(p)));
            text.push_str(&format!(
                "                   lowest {low:.3}, highest {high:.3} (bars: 0 to 1)\n\n"
            ));
        }
        match policy.snapshots() {
            [only] => text += &single(&policy, only, self.top.unwrap_or(40) as usize),
            _ => text += &over_time(&policy, self.top.unwrap_or(4) as usize),
        }
        report::print(&text)
    }
}

/// At most 80 bars of probabilities; longer rows are thinned out evenly.
fn sparkline(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let width = values.len().min(80);
    (0..width)
        .map(|x| BARS[((values[x * values.len() / width] * 8.0) as usize).min(7)])
        .collect()
}

/// A line for each snapshot with its strongest operations.
fn over_time(policy: &Policy, top: usize) -> String {
    let entries = policy.search_space().entries();
    let mut text = String::from("snapshot  total  strongest operations\n");
    for (number, snapshot) in policy.snapshots().iter().enumerate() {
        let strongest: Vec<String> = ranked(snapshot)
            .into_iter()
            .take(top)
            .map(|k| {
                let label = match &entries[k] {
                    sequence @ Entry::Sequence(_) => format!("[{}]", sequence.label()),
                    entry => entry.label(),
                };
                format!("{label} {:.3}", snapshot.operation_probabilities()[k])
            })
            .collect();
        text.push_str(&format!(
            "{number:>8}  {:.3}  {}\n",
            snapshot.total_probability(),
            strongest.join(", ")
        ));
    }
    text
}

/// A line for each operation: by entry where they fit, and by kind what they come to.
fn single(policy: &Policy, snapshot: &Snapshot, top: usize) -> String {
    let entries = policy.search_space().entries();
    let mut text = String::from("probability  operation\n");
    let order = ranked(snapshot);
    for &k in order.iter().take(top) {
        text.push_str(&format!(
            "{:>11.4}  {}\n",
            snapshot.operation_probabilities()[k],
            entries[k].label()
        ));
    }
    if order.len() > top {
        text.push_str(&format!("             and {} more\n", order.len() - top));
    }
    let mut rows = policy.applications(0);
    if rows.len() < entries.len()
        || entries
            .iter()
            .any(|entry| matches!(entry, Entry::Sequence(_)))
    {
        let rounded = |probability: f64| (probability * 1e9).round();
        rows.sort_by(|a, b| rounded(b.per_draw).total_cmp(&rounded(a.per_draw)));
        text.push_str("\n   per draw  entries  applied, on average\n");
        for row in rows {
            text.push_str(&format!(
                "{:>11.4}  {:>7}  {}\n",
                row.per_draw, row.entries, row.label
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparkline_spans_zero_to_one_and_thins_long_rows() {
        assert_eq!(sparkline(&[0.0, 0.5, 1.0]), "▁▅█");
        assert_eq!(sparkline(&[0.3; 1000]).chars().count(), 80);
    }
}
