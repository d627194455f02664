//! `pack`: from a source to a dataset.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum, value_parser};
use ddas_formats::{
    ImageHeader, PackOptions, PackProgress, PackSummary, ShardLabels, Split, Transform,
    expand_shards, pack_cifar, pack_image_folder, pack_webdataset, read_class_names,
};
use ddas_loader::{Shrink, check_image, index_image};
use ddas_runtime::ChromaSubsampling;

use crate::options::default_threads;
use crate::progress::Meter;
use crate::report;
use crate::serve::stop_on_signals;

/// Packs images into a dataset: an LMDB folder that every other subcommand reads.
#[derive(Subcommand)]
pub(crate) enum Arguments {
    /// Packs class folders: each folder of SRC is a class, its files are the samples.
    ImageFolder(ImageFolder),
    /// Packs CIFAR-10 or CIFAR-100, binary or python version (pickles are read, never executed).
    Cifar(Cifar),
    /// Packs WebDataset shards: files of one name up to the first dot are a sample.
    Webdataset(WebDataset),
}

#[derive(Args)]
pub(crate) struct WebDataset {
    /// The .tar or .tar.gz shards, in this order; shard-{000..012}.tar counts, {a,b}.tar lists.
    #[arg(required = true, value_name = "SHARD")]
    shards: Vec<String>,
    /// The dataset to write (by custom NAME.lmdb).
    out: PathBuf,
    /// Class names, one a line: the number in a sample's `cls` is a line, from 0 [default: numbers are their own names,
    /// names in `txt` are sorted].
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// Take the label from this field of the member `json`, a number or a class name [default: the number in `cls`, or
    /// where no sample has one, the name in `txt`].
    #[arg(long, value_name = "FIELD")]
    label_field: Option<String>,
    #[command(flatten)]
    resize: Resize,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(crate) struct ImageFolder {
    /// Folder of class folders, or a .tar of one.
    source: PathBuf,
    /// The dataset to write (by custom NAME.lmdb).
    out: PathBuf,
    /// Folder inside SRC whose folders are the classes [default: SRC, or what a lone folder in it holds; where that is only
    /// train, test, val or the like with the same classes in each, all of them together].
    #[arg(long, value_name = "FOLDER")]
    root: Option<String>,
    #[command(flatten)]
    resize: Resize,
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

/// Making images smaller.
#[derive(Args)]
struct Resize {
    /// Store images with a shorter side of PX pixels: decoded, resized (Pillow's antialiased bilinear filter) and encoded
    /// again, JPEG as JPEG, PNG as PNG. Smaller ones keep their bytes [default: all keep them].
    #[arg(long, value_name = "PX", value_parser = value_parser!(u32).range(1..=16384))]
    resize_shorter: Option<u32>,
    /// Quality of the JPEGs that --resize-shorter writes.
    #[arg(long, value_name = "1-100", default_value_t = Shrink::QUALITY, value_parser = value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Colour of the JPEGs that --resize-shorter writes: 420 keeps one value for four pixels, 444 all.
    #[arg(long, value_enum, default_value = "420")]
    subsampling: Subsampling,
}

#[derive(Clone, Copy, ValueEnum)]
enum Subsampling {
    /// One colour for four pixels, as in most photographs.
    #[value(name = "420")]
    Quarter,
    /// A colour for each pixel.
    #[value(name = "444")]
    Full,
}

impl Resize {
    fn shrink(&self) -> Option<Shrink> {
        self.resize_shorter.map(|shorter| Shrink {
            shorter,
            quality: self.quality,
            subsampling: match self.subsampling {
                Subsampling::Quarter => ChromaSubsampling::Quarter,
                Subsampling::Full => ChromaSubsampling::Full,
            },
        })
    }
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
    /// Go on with a packing of the same SRC and flags that was killed or stopped (SIGINT, SIGTERM); the result is that of a
    /// packing in one go. Without this, what it left is removed.
    #[arg(long)]
    resume: bool,
}

impl Common {
    fn pack(
        &self,
        out: &std::path::Path,
        shrink: Option<Shrink>,
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
        let stop = stop_on_signals()?;
        let apply = |header: &ImageHeader, bytes| match &shrink {
            Some(shrink) => shrink.apply(header, bytes),
            None => Ok(bytes),
        };
        let options = PackOptions {
            jobs: self.jobs.map_or_else(default_threads, |jobs| jobs as usize),
            limit: self.limit,
            overwrite: self.overwrite,
            allow_bad: self.allow_bad,
            check: &check_image,
            transform: shrink.as_ref().map(|shrink| Transform {
                name: shrink.name(),
                apply: &apply,
            }),
            index: &index_image,
            resume: self.resume,
            stop: Some(&stop),
            progress: &progress,
        };
        let outcome = pack(&options);
        drop(meter);
        let summary = match outcome {
            // It says all there is to say.
            Err(stopped @ ddas_formats::Error::Stopped { .. }) => return Err(stopped.into()),
            outcome => outcome.with_context(|| format!("packing {} failed", out.display()))?,
        };
        summarise(out, &summary)
    }
}

fn summarise(out: &std::path::Path, summary: &PackSummary) -> anyhow::Result<()> {
    let seconds = summary.seconds.max(1e-9);
    report::print_line(&format!(
        "{}: {} in {}, {}, in {:.1} s ({:.0} images/s, {:.1} MB/s)",
        out.display(),
        report::counted(summary.samples, "sample", "samples"),
        report::counted(summary.classes as u64, "class", "classes"),
        report::bytes(summary.bytes),
        summary.seconds,
        summary.samples as f64 / seconds,
        summary.bytes as f64 / 1e6 / seconds,
    ))?;
    if let Some(resumed) = summary.resumed {
        report::print_line(&format!(
            "{} packed before, and not read again",
            report::counted(resumed, "of them was", "of them were")
        ))?;
    }
    for note in &summary.notes {
        report::print_line(note)?;
    }
    if summary.ignored > 0 {
        let line = match summary.manifest.packed.source.as_str() {
            "webdataset" => format!(
                "{} passed over: neither image nor label",
                report::counted(summary.ignored, "member was", "members were")
            ),
            _ => format!(
                "{} ignored: no images by their names",
                report::counted(summary.ignored, "file was", "files were")
            ),
        };
        report::print_line(&line)?;
    }
    if !summary.skipped.is_empty() {
        let files = report::counted(summary.skipped.len() as u64, "sample", "samples");
        report::print_line(&format!("{files} left out:"))?;
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
            resize,
            common,
        }) => common.pack(&out, resize.shrink(), |options| {
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
            common.pack(&out, None, |options| {
                pack_cifar(&source, split, &out, options)
            })
        }
        Arguments::Webdataset(WebDataset {
            shards,
            out,
            classes,
            label_field,
            resize,
            common,
        }) => {
            let labels = ShardLabels {
                classes: classes.as_deref().map(read_class_names).transpose()?,
                field: label_field,
            };
            let shards = expand_shards(&shards)?;
            common.pack(&out, resize.shrink(), |options| {
                pack_webdataset(&shards, &labels, &out, options)
            })
        }
    }
}
