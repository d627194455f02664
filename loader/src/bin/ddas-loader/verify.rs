//! `verify`: whether a dataset is what was packed.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, value_parser};
use ddas_formats::Dataset;

use crate::options::default_threads;
use crate::progress::Meter;
use crate::report;

/// Reads a whole dataset: every key, checksum and label, the content hash, and decodes every image.
///
/// Prints the bad samples; exit status 1 when there is any.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The packed dataset.
    dataset: PathBuf,
    /// Threads that decode [default: all cores].
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    threads: Option<u32>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let dataset = Dataset::open(&arguments.dataset)?;
    let threads = arguments
        .threads
        .map_or_else(default_threads, |threads| threads as usize);
    let meter = Meter::new("verifying", "reads and decodes");
    let steps = 2 * dataset.len();
    let verdict = ddas_loader::verify(&dataset, threads, &|done| meter.set(done, steps, ""));
    drop(meter);
    let verdict = verdict?;
    let stored = &verdict.stored;
    for (what, total, samples) in [
        ("damaged", stored.damaged, &stored.damaged_samples),
        (
            "does not decode",
            verdict.undecodable,
            &verdict.undecodable_samples,
        ),
    ] {
        for sample in samples {
            report::print_line(&format!(
                "sample {}: {what}: {}",
                sample.index, sample.reason
            ))?;
        }
        if total > samples.len() as u64 {
            report::print_line(&format!(
                "and {}: {what}",
                report::counted(total - samples.len() as u64, "more sample", "more samples")
            ))?;
        }
    }
    if verdict.is_sound() {
        return report::print_line(&format!(
            "{}: {} sound, content hash {}",
            arguments.dataset.display(),
            match stored.samples {
                1 => "its one sample is".to_owned(),
                all => format!("all {all} samples are"),
            },
            dataset.manifest().content_hash
        ));
    }
    let mut problems = Vec::new();
    if stored.damaged > 0 {
        problems.push(format!(
            "{} of {} {} damaged",
            stored.damaged,
            report::counted(stored.samples, "sample", "samples"),
            if stored.damaged == 1 { "is" } else { "are" },
        ));
    }
    if verdict.undecodable > 0 {
        problems.push(format!(
            "{} of {} {} not decode",
            verdict.undecodable,
            report::counted(stored.samples, "sample", "samples"),
            if verdict.undecodable == 1 {
                "does"
            } else {
                "do"
            },
        ));
    }
    if !stored.content_hash_matches {
        problems.push("the content hash is not that of the manifest".to_owned());
    }
    // A damaged sample is counted in no class.
    if !stored.class_counts_match && stored.damaged == 0 {
        problems.push("the numbers of samples per class are not those of the manifest".to_owned());
    }
    bail!(
        "{}: {}; pack the source again",
        arguments.dataset.display(),
        problems.join("; ")
    )
}
