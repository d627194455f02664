//! Flags that several subcommands share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ddas_formats::SearchSpace;
use ddas_loader::ring::check_daemon_name;
use ddas_loader::{LastBatch, Position, StreamOptions, check_recipe_name, check_world_size};
use ddas_runtime::{Dtype, Layout, OutputFormat};

use crate::report::Usage;
use crate::samples::{SampleArguments, StreamToOpen};

/// Which samples come, in which form.
#[derive(Args)]
pub(crate) struct StreamArguments {
    /// The packed dataset (a folder made by `pack`).
    pub(crate) dataset: PathBuf,

    /// What is done to every sample: cifar (policy, pad-crop 4, flip, normalise, cutout 16), imagenet (random resized
    /// crop 224, flip, policy, normalise), another that `recipe show --list` names, or a recipe file.
    #[arg(long, value_name = "NAME|FILE.toml", value_parser = recipe_name)]
    pub(crate) recipe: String,

    /// Policy file; without it only the recipe's own augmentation is done.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,

    /// Seed of the order and of the augmentation.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,

    /// Element type of the images: u8 is not normalised, f32, f16 and bf16 are.
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: Dtype,

    /// Order of the axes of a sample: nchw or nhwc.
    #[arg(long, default_value = "nchw")]
    pub(crate) layout: Layout,

    #[command(flatten)]
    samples: SampleArguments,
}

/// The name or file of a recipe, for flags. Files are read later: a bad one is no wrong usage.
pub(crate) fn recipe_name(name: &str) -> Result<String, String> {
    check_recipe_name(name)
        .map(|()| name.to_owned())
        .map_err(|error| error.to_string())
}

/// The name of a daemon, for arguments.
pub(crate) fn daemon_name(name: &str) -> Result<String, String> {
    check_daemon_name(name)
        .map(|()| name.to_owned())
        .map_err(|error| error.to_string())
}

/// What becomes of the last batch, as a flag.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Last {
    /// The last batch of an epoch is short: every sample arrives once an epoch.
    Pad,
    /// The remainder of an epoch is left out.
    Drop,
}

/// How the samples are cut into batches.
pub(crate) struct Batches {
    pub(crate) epochs: u32,
    pub(crate) batch_size: u32,
    pub(crate) world_size: u32,
    pub(crate) last: Last,
    pub(crate) start: Position,
}

impl StreamArguments {
    /// Checks the flags against one another.
    pub(crate) fn resolve(self, batches: Batches) -> anyhow::Result<StreamToOpen> {
        check_world_size(batches.batch_size, batches.world_size)
            .map_err(|error| Usage(error.to_string()))?;
        let (samples, on_bad) = self.samples.resolve()?;
        let options = StreamOptions {
            dataset: self.dataset,
            recipe: self.recipe,
            policy: self.policy,
            epochs: batches.epochs,
            batch_size: batches.batch_size,
            world_size: batches.world_size,
            seed: self.seed,
            output: OutputFormat {
                dtype: self.dtype,
                layout: self.layout,
            },
            last: match batches.last {
                Last::Pad => LastBatch::Pad,
                Last::Drop => LastBatch::Drop,
            },
            start: batches.start,
        };
        Ok(StreamToOpen {
            options,
            samples,
            on_bad,
        })
    }
}

/// Threads to use when the user does not say: every core this process may run on.
pub(crate) fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A search space by name, for flags.
pub(crate) fn search_space(name: &str) -> Result<SearchSpace, String> {
    SearchSpace::named(name).map_err(|error| error.to_string())
}
