//! `policy`: looking into policy files and importing them.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, value_parser};
use ddas_formats::{Policy, SearchSpace, Snapshot, import_authors_policy, policy_svg};
use serde::Serialize;

use crate::options::search_space;
use crate::report;

/// Shows, checks, plots and imports policy files.
#[derive(Subcommand)]
pub(crate) enum Arguments {
    /// Shows the total probability over time and the strongest operations of each snapshot.
    Show(Show),
    /// Checks policy files; a bad one is named with its field, and the exit status is 1.
    Check(Check),
    /// Draws total probability and operation probabilities over the snapshots, as SVG.
    Plot(Plot),
    /// Converts a policy that the method's authors published (a pickled .npy; read, never executed).
    Import(Import),
}

#[derive(Args)]
pub(crate) struct Show {
    /// The policy file.
    file: PathBuf,
    /// Operations to show of each snapshot.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u32).range(1..))]
    top: u32,
    /// Print as JSON, with every operation of every snapshot.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct Check {
    /// The policy files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Plot {
    /// The policy file.
    file: PathBuf,
    /// The SVG file to write.
    #[arg(short, long, value_name = "FILE.svg")]
    out: PathBuf,
}

#[derive(Args)]
pub(crate) struct Import {
    /// The authors' file: a dict of `dis_ps`, `w0s_mt` and `tps`.
    file: PathBuf,
    /// The policy file to write.
    #[arg(short, long, value_name = "FILE.json")]
    out: PathBuf,
    /// Search space whose operations the columns stand for [default: released52-as-run for 52 columns].
    #[arg(long, value_name = "NAME", value_parser = search_space)]
    search_space: Option<SearchSpace>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments {
        Arguments::Show(show) => show.run(),
        Arguments::Check(check) => check.run(),
        Arguments::Plot(plot) => plot.run(),
        Arguments::Import(import) => import.run(),
    }
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
}

impl Show {
    fn run(self) -> anyhow::Result<()> {
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
        let mut text = format!(
            "search space       {}, {} operations, {} draws per sample\nsnapshots          {}\nsmoothing window   {}\ndigest             {digest}\n",
            space.name(),
            space.len(),
            space.draws_per_sample(),
            policy.snapshots().len(),
            policy.smoothing_window(),
        );
        let totals: Vec<f64> = policy
            .snapshots()
            .iter()
            .map(Snapshot::total_probability)
            .collect();
        text.push_str(&format!("total probability  {}\n", sparkline(&totals)));
        let (low, high) = totals
            .iter()
            .fold((1f64, 0f64), |(low, high), &p| (low.min(p), high.max(p)));
        text.push_str(&format!(
            "                   lowest {low:.3}, highest {high:.3} (bars: 0 to 1)\n\n"
        ));
        text.push_str("snapshot  total  strongest operations\n");
        for (number, snapshot) in policy.snapshots().iter().enumerate() {
            let strongest: Vec<String> = ranked(snapshot)
                .into_iter()
                .take(self.top as usize)
                .map(|k| {
                    format!(
                        "{} {:.3}",
                        space.entries()[k].label(),
                        snapshot.operation_probabilities()[k]
                    )
                })
                .collect();
            text.push_str(&format!(
                "{number:>8}  {:.3}  {}\n",
                snapshot.total_probability(),
                strongest.join(", ")
            ));
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

impl Check {
    fn run(self) -> anyhow::Result<()> {
        for file in &self.files {
            let policy = Policy::read(file)?;
            report::print_line(&format!(
                "{}: sound: {} snapshots of {} operations ({}), digest {:016x}",
                file.display(),
                policy.snapshots().len(),
                policy.search_space().len(),
                policy.search_space().name(),
                policy.digest()
            ))?;
        }
        Ok(())
    }
}

impl Plot {
    fn run(self) -> anyhow::Result<()> {
        report::check_output(&self.out, &self.file)?;
        let policy = Policy::read(&self.file)?;
        let svg =
            policy_svg(&policy).with_context(|| format!("drawing {}", self.file.display()))?;
        fs::write(&self.out, &svg).with_context(|| format!("writing {}", self.out.display()))?;
        report::print_line(&format!(
            "{}: {}",
            self.out.display(),
            report::bytes(svg.len() as u64)
        ))
    }
}

impl Import {
    fn run(self) -> anyhow::Result<()> {
        report::check_output(&self.out, &self.file)?;
        let policy = import_authors_policy(&self.file, self.search_space)?;
        policy.write(&self.out)?;
        report::print_line(&format!(
            "{}: {} snapshots of {} operations ({}), digest {:016x}",
            self.out.display(),
            policy.snapshots().len(),
            policy.search_space().len(),
            policy.search_space().name(),
            policy.digest()
        ))
    }
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
