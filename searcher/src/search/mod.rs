//! The search itself: Algorithm 1 of the paper.

mod found;
mod observer;
#[cfg(test)]
mod tests;

pub use found::PARTIAL;
pub use observer::{Ending, Observer, StepReport};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ddas_formats::{SearchSpace, Snapshot};
use ddas_runtime::{SampleRng, Stream};
use tch::{Device, Tensor};

use crate::adam::Adam;
use crate::batches::{BatchMaker, BatchScratch, TrainBatch, ValidationBatches};
use crate::config::{Config, SnapshotAt};
use crate::epoch::EpochProgress;
use crate::error::{Error, Result};
use crate::networks::{Engine, Network, NetworkChoice};
use crate::policy_parameters::PolicyParameters;
use crate::prefetch::Prefetch;
use crate::proxy_data::ProxyData;
use crate::step::{Sgd, StepBatch, StepOptions, meta_step};

/// A search under way: the network, the policy, and both of their optimisers.
#[derive(Debug)]
pub struct Search {
    pub(crate) config: Config,
    pub(crate) space: SearchSpace,
    pub(crate) device: Device,
    pub(crate) network: Network,
    pub(crate) sgd: Sgd,
    pub(crate) parameters: PolicyParameters,
    pub(crate) total_adam: Adam,
    pub(crate) operation_adam: Adam,
    pub(crate) snapshots: Vec<Snapshot>,
    /// The epoch that is not finished: what has happened in it.
    pub(crate) current: EpochProgress,
    maker: Arc<BatchMaker>,
    validation: ValidationBatches,
}

impl Search {
    /// A search that has not begun.
    ///
    /// # Errors
    /// [`Error::Setting`] when a setting is out of range; [`Error::Torch`] when the device or the
    /// memory does not suffice.
    pub fn new(data: Arc<ProxyData>, config: &Config, device: Device) -> Result<Self> {
        config.validate()?;
        let space = config.resolve_search_space()?;
        let choice: NetworkChoice = config.network.parse()?;
        let mut network = choice
            .build(data.classes, config.seed, config.image_size, device)?
            .with_precision(config.precision);
        let kind = network.parameters().flat().f_kind()?;
        let engine = config
            .engine
            .resolve(&choice, config.precision, kind, device)?;
        if engine == Engine::Native {
            let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1);
            choice.compute_natively(&mut network, data.classes, threads)?;
        }
        let betas = (config.adam_beta1, config.adam_beta2);
        let operations = space.len();
        Ok(Self {
            network,
            sgd: Sgd::new(config.momentum, config.nesterov, config.weight_decay),
            parameters: PolicyParameters::uniform(operations, config.total_probability)?,
            total_adam: Adam::new(1, config.total_learning_rate, betas),
            operation_adam: Adam::new(operations, config.operation_learning_rate, betas),
            snapshots: Vec::new(),
            current: EpochProgress::default(),
            validation: ValidationBatches::new(&data.validation, config, device)?,
            maker: Arc::new(BatchMaker::new(data, config)?),
            config: Config {
                engine,
                ..config.clone()
            },
            space,
            device,
        })
    }

    /// The settings, `engine` resolved.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the policy chooses from.
    pub fn search_space(&self) -> &SearchSpace {
        &self.space
    }

    /// The policy's logits as they are now.
    pub fn parameters(&self) -> &PolicyParameters {
        &self.parameters
    }

    /// One snapshot per finished epoch.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> u32 {
        self.maker.steps_per_epoch()
    }

    /// Steps done of the epoch that is not finished.
    pub fn steps_done(&self) -> u32 {
        self.current.steps
    }

    /// Runs the epochs that are not finished yet.
    ///
    /// `workers` threads make batches ahead of the step; their number does not show in the
    /// result. When `stop` is raised, the search ends before its next step, and
    /// [`Search::save_checkpoint`] keeps all that was done. A step whose gradients are too small to
    /// mean anything ([`StepOutcome::teaches`](crate::StepOutcome::teaches)) gives the policy none.
    ///
    /// # Errors
    /// [`Error::Diverged`] when a loss or gradient is no longer finite; the finished epochs keep
    /// their snapshots. [`Error::Torch`] when memory runs out. What the observer returns.
    pub fn run(
        &mut self,
        workers: usize,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Ending> {
        let first = self.snapshots.len() as u32;
        let place = (first, self.current.steps);
        let mut scratch = BatchScratch::default();
        let mut batches = Prefetch::start(&self.maker, place, self.config.epochs, workers)?;
        for epoch in first..self.config.epochs {
            let begun = Instant::now();
            if self.current.steps == 0 {
                self.current = EpochProgress {
                    initial_total: self.parameters.total_probability(),
                    initial_operations: self.parameters.operation_probabilities(),
                    ..EpochProgress::default()
                };
            }
            for step in self.current.steps..self.steps_per_epoch() {
                if stop.load(Ordering::Relaxed) {
                    return Ok(Ending::Stopped);
                }
                let waiting = Instant::now();
                let batch = match batches.next()? {
                    Some(batch) => batch,
                    None => {
                        let probabilities = self.parameters.operation_probabilities();
                        self.maker.make(epoch, step, &probabilities, &mut scratch)?
                    }
                };
                let waited = waiting.elapsed().as_secs_f64();
                let report = self.step(epoch, step, batch, waited)?;
                self.current.add(&report.outcome);
                observer.step(&report)?;
            }
            let done = std::mem::take(&mut self.current);
            let seconds = begun.elapsed().as_secs_f64();
            let report = done.report(epoch, seconds, self.config.validation_batch);
            let (total, operations) = match self.config.snapshot {
                SnapshotAt::Start => (done.initial_total, done.initial_operations),
                SnapshotAt::End => (
                    self.parameters.total_probability(),
                    self.parameters.operation_probabilities(),
                ),
            };
            self.snapshots.push(Snapshot::new(total, operations)?);
            observer.epoch(self, &report)?;
        }
        Ok(Ending::Finished)
    }

    fn step(
        &mut self,
        epoch: u32,
        step: u32,
        batch: TrainBatch,
        waited: f64,
    ) -> Result<StepReport> {
        let begun = Instant::now();
        let learning_rate = self.learning_rate(epoch, step);
        let options = StepOptions {
            learning_rate,
            reduction: self.config.loss,
            meta_scale: if self.config.learning_rate_factor {
                learning_rate
            } else {
                1.0
            },
            subtract_plain: self.config.subtract_plain,
        };
        let number = u64::from(epoch) * u64::from(self.steps_per_epoch()) + u64::from(step);
        let (validation, validation_labels) = self.validation.get(number)?;
        let to_device =
            |tensor: &Tensor| -> Result<Tensor> { Ok(tensor.f_to_device(self.device)?) };
        let batch = StepBatch {
            plain: to_device(&batch.plain)?,
            branches: batch
                .branches
                .iter()
                .map(to_device)
                .collect::<Result<_>>()?,
            labels: to_device(&batch.labels)?,
            policies: batch.policies,
            validation,
            validation_labels,
        };
        // What a user's module draws at random depends on seed and step, as all else.
        let mut key = SampleRng::new(self.config.seed, epoch, number, Stream::Search);
        self.network.begin_step(i64::from(key.below(u32::MAX)));
        let mut outcome = meta_step(
            &self.network,
            &mut self.sgd,
            &self.parameters,
            &batch,
            &options,
        )
        .map_err(|error| match error {
            Error::NotFinite { what, value } => {
                let learning_rate = self.config.learning_rate;
                Error::Diverged {
                    epoch,
                    step,
                    what,
                    value,
                    learning_rate,
                }
            }
            other => other,
        })?;
        if !outcome.teaches() {
            outcome.gradient.silence();
        }
        let (total_logit, operation_logits) = self.parameters.logits_mut();
        if self.config.learn_total_probability {
            let gradient = [outcome.gradient.total_logit];
            self.total_adam
                .step(std::slice::from_mut(total_logit), &gradient);
        }
        if self.config.learn_operation_probabilities {
            self.operation_adam
                .step(operation_logits, &outcome.gradient.operation_logits);
        }
        Ok(StepReport {
            epoch,
            step,
            learning_rate,
            policies: batch.policies,
            total_probability: self.parameters.total_probability(),
            outcome,
            seconds: begun.elapsed().as_secs_f64(),
            waited,
        })
    }

    /// Half a cosine from the configured rate to 0 over the whole search.
    fn learning_rate(&self, epoch: u32, step: u32) -> f64 {
        let steps = f64::from(self.steps_per_epoch());
        let progress = (f64::from(epoch) + f64::from(step) / steps) / f64::from(self.config.epochs);
        self.config.learning_rate / 2.0 * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}
