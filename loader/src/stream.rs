//! What is served: a dataset, a recipe, a policy and a plan that fit together.

use std::path::PathBuf;

use ddas_formats::{Dataset, Policy};
use ddas_runtime::{OutputFormat, Pipeline};
use xxhash_rust::xxh3::Xxh3;

use crate::engine::OnBad;
use crate::error::Result;
use crate::plan::{LastBatch, PlanOptions, Position, RunPlan};
use crate::recipe_file::read_recipe;
use crate::ring::{PROTOCOL, StreamInfo, StreamNormalization, StreamPosition};
use crate::selection::{SampleOptions, Selection};
use crate::sources::Sources;

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
    /// The packed dataset, or several.
    pub dataset: Sources,
    /// The policy, when there is one.
    pub policy: Option<Policy>,
    /// Decodes and augments.
    pub pipeline: Pipeline,
    /// Orders and cuts into batches.
    pub plan: RunPlan,
    /// What becomes of samples that cannot be read or decoded.
    pub on_bad: OnBad,
    options: StreamOptions,
    samples: SampleOptions,
}

impl Stream {
    /// Opens the dataset and the policy, and checks everything before anything is offered.
    ///
    /// # Errors
    /// The first part that is missing, damaged or does not fit, by name.
    pub fn open(options: StreamOptions) -> Result<Stream> {
        Stream::with_samples(options, SampleOptions::default())
    }

    /// As [`Stream::open`], of the samples that `samples` says.
    ///
    /// # Errors
    /// As [`Stream::open`].
    pub fn with_samples(options: StreamOptions, samples: SampleOptions) -> Result<Stream> {
        let policy = options.policy.as_deref().map(Policy::read).transpose()?;
        Stream::with_policy(options, policy, samples)
    }

    /// As [`Stream::with_samples`], with a policy that has been read already: `options.policy` is not looked at.
    ///
    /// # Errors
    /// As [`Stream::open`].
    pub fn with_policy(
        options: StreamOptions,
        policy: Option<Policy>,
        samples: SampleOptions,
    ) -> Result<Stream> {
        let recipe = read_recipe(&options.recipe)?;
        let more = samples.more.iter().map(|more| &more.0);
        let datasets = std::iter::once(&options.dataset).chain(more);
        let datasets = datasets.map(|path| Dataset::open(path));
        let dataset = Sources::new(datasets.collect::<ddas_formats::Result<_>>()?)?;
        let selection = match samples.is_plain() {
            true => None,
            false => Some(Selection::new(&dataset, &samples, options.seed)?),
        };
        let plan = RunPlan::new(PlanOptions {
            samples: selection.as_ref().map_or(dataset.len(), Selection::len),
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
        let plan = match selection {
            Some(selection) => plan.selecting(selection),
            None => plan,
        };
        let plan = match pipeline.mix() {
            Some(_) => plan.in_pairs()?,
            None => plan,
        };
        Ok(Stream {
            dataset,
            policy,
            pipeline,
            plan,
            on_bad: OnBad::Fail,
            options,
            samples,
        })
    }

    /// What it was made of.
    pub fn options(&self) -> &StreamOptions {
        &self.options
    }

    /// Which samples come.
    pub fn samples(&self) -> &SampleOptions {
        &self.samples
    }

    /// The datasets in words, with the numbers of their samples and everything that decides which of them come.
    pub fn description(&self) -> String {
        let datasets = self.dataset.datasets().iter().enumerate();
        let named = datasets.map(|(number, dataset)| {
            let path = dataset.path().display();
            let first = self.dataset.first(number);
            match number.checked_sub(1) {
                _ if self.samples.more.is_empty() => path.to_string(),
                None => format!("{path} (from 0)"),
                Some(more) => format!(
                    "{path} (from {first}, weight {})",
                    self.samples.more[more].1
                ),
            }
        });
        let mut text = named.collect::<Vec<_>>().join(" + ");
        let selection = self.samples.to_string();
        if !selection.is_empty() {
            text.push_str(&format!("; {selection}"));
        }
        text
    }

    /// The content hash of the dataset; of several, or of a part of one, a hash over all that decides which samples come.
    pub fn dataset_hash(&self) -> String {
        if self.samples.is_plain() {
            return self.dataset.manifest().content_hash.clone();
        }
        let mut hash = Xxh3::new();
        for (number, dataset) in self.dataset.datasets().iter().enumerate() {
            hash.update(dataset.manifest().content_hash.as_bytes());
            let weight = number
                .checked_sub(1)
                .map_or(1.0, |more| self.samples.more[more].1);
            hash.update(&weight.to_le_bytes());
        }
        hash.update(self.samples.to_string().as_bytes());
        format!("{:032x}", hash.digest128())
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
            dataset: self.description(),
            dataset_hash: self.dataset_hash(),
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
