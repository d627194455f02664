//! What is served: a dataset, a recipe, a policy and a plan that fit together.

use std::path::PathBuf;

use ddas_formats::{Dataset, Policy};
use ddas_runtime::{OutputFormat, Pipeline};

use crate::error::Result;
use crate::plan::{LastBatch, PlanOptions, Position, RunPlan};
use crate::recipe_file::read_recipe;
use crate::ring::{PROTOCOL, StreamInfo, StreamNormalization, StreamPosition};

/// What a stream is made of.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// The packed dataset.
    pub dataset: PathBuf,
    /// Name of the recipe, or a file that ends in `.toml`.
    pub recipe: String,
    /// The policy file; without one the recipe's own augmentation remains.
    pub policy: Option<PathBuf>,
    /// Epochs of the training run.
    pub epochs: u32,
    /// Samples of a global batch.
    pub batch_size: u32,
    /// Number of ranks.
    pub world_size: u32,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Element type and axis order of the images.
    pub output: OutputFormat,
    /// What becomes of the last batch of an epoch.
    pub last: LastBatch,
    /// Where the run begins.
    pub start: Position,
}

/// A stream whose parts have been opened and checked against one another.
pub struct Stream {
    /// The packed dataset.
    pub dataset: Dataset,
    /// The policy, when there is one.
    pub policy: Option<Policy>,
    /// Decodes and augments.
    pub pipeline: Pipeline,
    /// Orders and cuts into batches.
    pub plan: RunPlan,
    options: StreamOptions,
}

impl Stream {
    /// Opens the dataset and the policy, and checks everything before anything is offered.
    ///
    /// # Errors
    /// The first part that is missing, damaged or does not fit, by name.
    pub fn open(options: StreamOptions) -> Result<Stream> {
        let policy = options.policy.as_deref().map(Policy::read).transpose()?;
        Stream::with_policy(options, policy)
    }

    /// As [`Stream::open`], with a policy that has been read already: `options.policy` is not looked at.
    ///
    /// # Errors
    /// As [`Stream::open`].
    pub fn with_policy(options: StreamOptions, policy: Option<Policy>) -> Result<Stream> {
        let recipe = read_recipe(&options.recipe)?;
        let dataset = Dataset::open(&options.dataset)?;
        let plan = RunPlan::new(PlanOptions {
            samples: dataset.len(),
            batch_size: options.batch_size,
            world_size: options.world_size,
            epochs: options.epochs,
            last: options.last,
            start: options.start,
            seed: options.seed,
        })?;
        let pipeline = Pipeline::new(
            recipe,
            policy.as_ref(),
            options.epochs,
            options.seed,
            options.output,
        )?;
        let plan = match pipeline.mix() {
            Some(_) => plan.in_pairs()?,
            None => plan,
        };
        Ok(Stream {
            dataset,
            policy,
            pipeline,
            plan,
            options,
        })
    }

    /// What it was made of.
    pub fn options(&self) -> &StreamOptions {
        &self.options
    }

    /// The policy's digest as 16 hexadecimal digits.
    pub fn policy_digest(&self) -> Option<String> {
        self.policy
            .as_ref()
            .map(|policy| format!("{:016x}", policy.digest()))
    }

    /// What the consumers of each rank are told when they join rings of `slots` slots.
    pub fn infos(&self, slots: usize) -> Vec<StreamInfo> {
        let options = &self.options;
        let normalization = self.pipeline.normalization();
        let manifest = self.dataset.manifest();
        let info = |rank| StreamInfo {
            protocol: PROTOCOL,
            daemon_pid: std::process::id(),
            dataset: self.dataset.path().display().to_string(),
            dataset_hash: manifest.content_hash.clone(),
            samples: self.dataset.len(),
            classes: manifest.classes.len() as u32,
            epochs: options.epochs,
            batch_size: self.plan.rank_batch_size() as u32,
            global_batch_size: options.batch_size,
            steps_per_epoch: self.plan.steps_per_epoch(),
            world_size: options.world_size,
            rank,
            dtype: options.output.dtype.to_string(),
            layout: options.output.layout.to_string(),
            shape: self.pipeline.sample_shape(),
            normalization: StreamNormalization {
                mean: normalization.mean,
                std: normalization.std,
            },
            recipe: self.pipeline.recipe().name().to_owned(),
            recipe_digest: format!("{:016x}", self.pipeline.recipe().digest()),
            policy_digest: self.policy_digest(),
            seed: options.seed,
            slots: slots as u32,
            start: StreamPosition {
                epoch: options.start.epoch,
                step: options.start.step,
            },
            last: options.last.to_string(),
            mixes: self.pipeline.mix().is_some(),
        };
        (0..options.world_size).map(info).collect()
    }
}
