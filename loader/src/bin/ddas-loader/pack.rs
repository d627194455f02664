//! `pack`: from a source to a dataset.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum, value_parser};
use ddas_formats::{PackOptions, PackProgress, PackSummary, Split, pack_cifar, pack_image_folder};
use ddas_loader::check_image;

use crate::options::default_threads;
use crate::progress::Meter;
use crate::report;

/// Packs images into a dataset: an LMDB folder that every other subcommand reads.
#[derive(Subcommand)]
pub(crate) enum Arguments {
    /// Packs class folders: each folder of SRC is a class, its files are the samples.
    ImageFolder(ImageFolder),
    /// Packs CIFAR-10 or CIFAR-100, binary or python version (pickles are read, never executed).
    Cifar(Cifar),
}

#[derive(Args)]
pub(crate) struct ImageFolder {
    /// Folder of class folders, or a .tar of one.
    source: PathBuf,
    /// The dataset to write (by custom NAME.lmdb).
    out: PathBuf,
    /// Folder inside SRC whose folders are the classes [default: SRC itself].
    #[arg(long, value_name = "FOLDER")]
    root: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(crate) struct Cifar {
    /// The unpacked folder, or the .tar or .tar.gz as it is distributed.
    source: PathBuf,
    /// The dataset to write (by custom NAME.lmdb).
    out: PathBuf,
    /// Which part to pack.
    #[arg(long, value_enum)]
    split: SplitName,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitName {
    /// The 50,000 training images.
    Train,
    /// The 10,000 test images.
    Test,
}

#[derive(Args)]
struct Common {
    /// Threads that read and check files [default: all cores].
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Pack only N samples, taken at equal distances over the source [default: all].
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Replace OUT if it exists; without this an existing OUT is refused.
    #[arg(long)]
    overwrite: bool,
    /// Leave files out that are no sound image, and list them at the end; without this the first one ends the packing.
    #[arg(long)]
    allow_bad: bool,
}

impl Common {
    fn pack(
        &self,
        out: &std::path::Path,
        pack: impl FnOnce(&PackOptions<'_>) -> ddas_formats::Result<PackSummary>,
    ) -> anyhow::Result<()> {
        let meter = Meter::new("packing", "images");
        let progress = |progress: PackProgress| {
            meter.set(
                progress.done,
                progress.total,
                &report::bytes(progress.bytes),
            );
        };
        let options = PackOptions {
            jobs: self.jobs.map_or_else(default_threads, |jobs| jobs as usize),
            limit: self.limit,
            overwrite: self.overwrite,
            allow_bad: self.allow_bad,
            check: &check_image,
            progress: &progress,
        };
        let outcome = pack(&options);
        drop(meter);
        let summary = outcome.with_context(|| format!("packing {} failed", out.display()))?;
        summarise(out, &summary)
    }
}

fn summarise(out: &std::path::Path, summary: &PackSummary) -> anyhow::Result<()> {
    let seconds = summary.seconds.max(1e-9);
    report::print_line(&format!(
        "{}: {} samples in {} classes, {}, in {:.1} s ({:.0} images/s, {:.1} MB/s)",
        out.display(),
        summary.samples,
        summary.classes,
        report::bytes(summary.bytes),
        summary.seconds,
        summary.samples as f64 / seconds,
        summary.bytes as f64 / 1e6 / seconds,
    ))?;
    for note in &summary.notes {
        report::print_line(note)?;
    }
    if summary.ignored > 0 {
        report::print_line(&format!(
            "{} files were ignored: no images by their names",
            summary.ignored
        ))?;
    }
    if !summary.skipped.is_empty() {
        report::print_line(&format!("{} files left out:", summary.skipped.len()))?;
    }
    for bad in summary.skipped.iter().take(MOST_LISTED) {
        report::print_line(&format!("  {}: {}", bad.path, bad.reason))?;
    }
    if summary.skipped.len() > MOST_LISTED {
        report::print_line(&format!(
            "  and {} more",
            summary.skipped.len() - MOST_LISTED
        ))?;
    }
    Ok(())
}

const MOST_LISTED: usize = 20;

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments {
        Arguments::ImageFolder(ImageFolder {
            source,
            out,
            root,
            common,
        }) => common.pack(&out, |options| {
            pack_image_folder(&source, root.as_deref(), &out, options)
        }),
        Arguments::Cifar(Cifar {
            source,
            out,
            split,
            common,
        }) => {
            let split = match split {
                SplitName::Train => Split::Train,
                SplitName::Test => Split::Test,
            };
            common.pack(&out, |options| pack_cifar(&source, split, &out, options))
        }
    }
}
