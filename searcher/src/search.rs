//! The search itself: Algorithm 1 of the paper.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ddas_formats::{Policy, Provenance, SearchSpace, Snapshot};
use ddas_runtime::{SampleRng, Stream};
use tch::{Device, Tensor};

use crate::adam::Adam;
use crate::batches::{BatchMaker, TrainBatch, ValidationBatches};
use crate::config::{Config, SnapshotAt};
use crate::epoch::{EpochProgress, EpochReport};
use crate::error::{Error, Result};
use crate::networks::{Network, NetworkChoice};
use crate::policy_parameters::PolicyParameters;
use crate::prefetch::Prefetch;
use crate::proxy_data::ProxyData;
use crate::step::{Sgd, StepBatch, StepOptions, StepOutcome, meta_step};

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

/// What happened in one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Search epoch, from 0.
    pub epoch: u32,
    /// Step within the epoch, from 0.
    pub step: u32,
    /// Learning rate of the network in this step.
    pub learning_rate: f64,
    /// The drawn policies.
    pub policies: Vec<Vec<usize>>,
    /// Losses, inner products and the policy's gradient.
    pub outcome: StepOutcome,
    /// Total probability after the step.
    pub total_probability: f64,
    /// Seconds of the step, without waiting for its batch.
    pub seconds: f64,
    /// Seconds waited for its batch.
    pub waited: f64,
}

/// Told of everything that happens in a search.
pub trait Observer {
    /// After each step.
    ///
    /// # Errors
    /// Ends the search.
    fn step(&mut self, report: &StepReport) -> Result<()>;

    /// After each epoch, its snapshot taken.
    ///
    /// # Errors
    /// Ends the search.
    fn epoch(&mut self, search: &Search, report: &EpochReport) -> Result<()>;
}

/// How [`Search::run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All epochs are done.
    Finished,
    /// The stop flag was raised; the epochs finished before it have their snapshots.
    Stopped,
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
        let network = choice
            .build(data.classes, config.seed, config.image_size, device)?
            .with_precision(config.precision);
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
            config: config.clone(),
            space,
            device,
        })
    }

    /// The settings.
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

    /// The policy of the epochs finished so far.
    ///
    /// It holds nothing that depends on the clock: the same search gives the same file.
    ///
    /// # Errors
    /// [`Error::Invalid`] when no epoch is finished.
    pub fn policy(&self, dataset: &str, preset: &str) -> Result<Policy> {
        if self.snapshots.is_empty() {
            return Err(Error::Invalid(
                "no epoch is finished, so there is no policy yet".to_owned(),
            ));
        }
        let version = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let steps = self.snapshots.len() as u64 * u64::from(self.steps_per_epoch());
        let cost = [
            ("steps", steps.into()),
            ("network", self.config.network.clone().into()),
        ];
        let provenance = Provenance {
            dataset: Some(dataset.to_owned()),
            preset: Some(preset.to_owned()),
            seed: Some(self.config.seed),
            versions: [version("ddas-search", env!("CARGO_PKG_VERSION"))].into(),
            cost: cost.map(|(name, value)| (name.to_owned(), value)).into(),
        };
        Ok(Policy::new(self.space.clone(), self.snapshots.clone())?
            .with_smoothing(self.config.smoothing_window)?
            .with_provenance(provenance))
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
    /// [`Search::save_checkpoint`] keeps all that was done.
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
                let batch = batches.next()?;
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
        let outcome = meta_step(
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

#[cfg(test)]
mod tests {
    use ddas_formats::Operation;
    use ddas_runtime::{Image, Kernels, SampleRng, Stream};

    use super::*;
    use crate::proxy_data::Samples;

    struct Silent;

    impl Observer for Silent {
        fn step(&mut self, _: &StepReport) -> Result<()> {
            Ok(())
        }

        fn epoch(&mut self, _: &Search, _: &EpochReport) -> Result<()> {
            Ok(())
        }
    }

    /// Raises the stop flag after a number of steps.
    struct StopAfter<'a> {
        steps: u32,
        stop: &'a AtomicBool,
    }

    impl Observer for StopAfter<'_> {
        fn step(&mut self, _: &StepReport) -> Result<()> {
            self.steps -= 1;
            self.stop.store(self.steps == 0, Ordering::Relaxed);
            Ok(())
        }

        fn epoch(&mut self, _: &Search, _: &EpochReport) -> Result<()> {
            Ok(())
        }
    }

    const SIDE: u32 = 12;

    /// Two classes: a bright bar along the top or along the left side, on noise.
    fn bars(count: u64, stream: u64) -> Samples {
        let mut samples = Samples::default();
        for number in 0..count {
            let mut rng = SampleRng::new(stream, 0, number, Stream::Search);
            let label = number % 2;
            let mut pixels = Vec::new();
            for y in 0..SIDE {
                for x in 0..SIDE {
                    let bright = if label == 0 { y < 4 } else { x < 4 };
                    for _ in 0..3 {
                        pixels.push((rng.below(80) + if bright { 150 } else { 0 }) as u8);
                    }
                }
            }
            samples
                .images
                .push(Image::from_rgb(SIDE, SIDE, pixels).unwrap());
            samples.labels.push(label as i64);
        }
        samples
    }

    /// Training images as they are, validation images inverted: of the operations, Invert alone
    /// brings the two together.
    fn planted() -> Arc<ProxyData> {
        let mut validation = bars(64, 2);
        let mut kernels = Kernels::default();
        for image in &mut validation.images {
            kernels.apply(&Operation::Invert, None, image);
        }
        Arc::new(ProxyData {
            train: bars(128, 1),
            validation,
            classes: 2,
        })
    }

    fn config(space: &std::path::Path, seed: u64) -> Config {
        let operations = vec![
            Operation::Identity,
            Operation::Blur,
            Operation::FlipLR,
            Operation::Invert,
        ];
        let space_of_four = ddas_formats::SearchSpace::new("four", 1, operations).unwrap();
        std::fs::write(space, serde_json::to_string(&space_of_four).unwrap()).unwrap();
        let mut config = Config::preset("cifar10").unwrap();
        for setting in [
            "image_size=12",
            "network=proxy",
            "epochs=6",
            "train_samples=128",
            "validation_samples=64",
            "train_batch=16",
            "validation_batch=32",
            "learning_rate=0.05",
            "loss=mean",
            "momentum=0.9",
            "operation_learning_rate=0.05",
            "total_learning_rate=0.05",
            "crop_padding=0",
            "flip=false",
            "cutout=0",
            "mean=[0.5,0.5,0.5]",
            "std=[0.25,0.25,0.25]",
        ] {
            config.set(setting).unwrap();
        }
        config.seed = seed;
        config.search_space = space.display().to_string();
        config
    }

    #[test]
    fn a_planted_operation_is_found() {
        let folder = tempfile::tempdir().unwrap();
        for seed in 0..2 {
            let config = config(&folder.path().join("space.json"), seed);
            let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
            let stop = AtomicBool::new(false);
            assert_eq!(search.run(1, &stop, &mut Silent).unwrap(), Ending::Finished);
            let policy = search.policy("bars", "test").unwrap();
            assert_eq!(policy.snapshots().len(), 6);
            let last = &policy.snapshots()[5];
            let probabilities = last.operation_probabilities();
            for other in 0..3 {
                assert!(
                    probabilities[3] > 1.5 * probabilities[other],
                    "{probabilities:?}"
                );
            }
            assert!(
                last.total_probability() > 0.35,
                "{}",
                last.total_probability()
            );
        }
    }

    #[test]
    fn neither_workers_nor_a_second_run_change_the_policy() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder.path().join("space.json"), 3);
        config.epochs = 2;
        let run = |workers| {
            let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
            search
                .run(workers, &AtomicBool::new(false), &mut Silent)
                .unwrap();
            search.policy("bars", "test").unwrap().to_json()
        };
        let first = run(1);
        assert_eq!(first, run(1));
        assert_eq!(first, run(3));
    }

    #[test]
    fn a_stopped_search_keeps_the_policy_of_its_finished_epochs() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder.path().join("space.json"), 0);
        let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
        let stop = AtomicBool::new(false);
        let steps = 2 * search.steps_per_epoch() + 3;
        let ending = search
            .run(1, &stop, &mut StopAfter { steps, stop: &stop })
            .unwrap();
        assert_eq!(ending, Ending::Stopped);
        assert_eq!(search.policy("bars", "test").unwrap().snapshots().len(), 2);

        let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
        search.run(1, &AtomicBool::new(true), &mut Silent).unwrap();
        assert!(search.policy("bars", "test").is_err());
    }

    #[test]
    fn snapshots_at_the_start_are_one_epoch_behind() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder.path().join("space.json"), 1);
        config.epochs = 3;
        let run = |config: &Config| {
            let mut search = Search::new(planted(), config, Device::Cpu).unwrap();
            search.run(1, &AtomicBool::new(false), &mut Silent).unwrap();
            search.snapshots().to_vec()
        };
        let at_end = run(&config);
        config.snapshot = SnapshotAt::Start;
        let at_start = run(&config);
        assert_eq!(at_start[0].operation_probabilities(), [0.25; 4]);
        assert_eq!(at_start[1..], at_end[..2]);
    }

    #[test]
    fn a_search_stopped_within_an_epoch_goes_on_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder.path().join("space.json"), 4);
        config.epochs = 3;
        config.snapshot = SnapshotAt::Start;
        let new = || Search::new(planted(), &config, Device::Cpu).unwrap();
        let never = AtomicBool::new(false);
        let mut whole = new();
        whole.run(1, &never, &mut Silent).unwrap();

        let checkpoint = folder.path().join("checkpoint.safetensors");
        let mut reports = Vec::new();
        for steps in [3, 9, 1, 100] {
            let mut search = new();
            if checkpoint.exists() {
                search.restore_checkpoint(&checkpoint).unwrap();
            }
            let stop = AtomicBool::new(false);
            let mut observer = Collect {
                left: steps,
                stop: &stop,
                reports: &mut reports,
            };
            search.run(2, &stop, &mut observer).unwrap();
            search.save_checkpoint(&checkpoint).unwrap();
            if search.snapshots().len() == 3 {
                assert_eq!(search.snapshots(), whole.snapshots());
                assert_eq!(
                    search.network.parameters().flat(),
                    whole.network.parameters().flat()
                );
            }
        }
        assert_eq!(reports.len(), 3);
        let mut all = Vec::new();
        let stop = AtomicBool::new(false);
        let mut observer = Collect {
            left: 1000,
            stop: &stop,
            reports: &mut all,
        };
        new().run(1, &stop, &mut observer).unwrap();
        for (mut found, mut wanted) in reports.into_iter().zip(all) {
            (found.seconds, wanted.seconds) = (0.0, 0.0);
            assert_eq!(found, wanted);
        }
    }

    /// Stops after some steps and keeps what epochs reported.
    struct Collect<'a> {
        left: u32,
        stop: &'a AtomicBool,
        reports: &'a mut Vec<EpochReport>,
    }

    impl Observer for Collect<'_> {
        fn step(&mut self, _: &StepReport) -> Result<()> {
            self.left -= 1;
            self.stop.store(self.left == 0, Ordering::Relaxed);
            Ok(())
        }

        fn epoch(&mut self, _: &Search, report: &EpochReport) -> Result<()> {
            self.reports.push(report.clone());
            Ok(())
        }
    }

    #[test]
    fn steps_that_teach_nothing_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let space = folder.path().join("space.json");
        let mut config = config(&space, 0);
        let one = ddas_formats::SearchSpace::new("one", 1, vec![Operation::Identity]).unwrap();
        std::fs::write(&space, serde_json::to_string(&one).unwrap()).unwrap();
        config.epochs = 1;
        // Without crop and flip all copies are the plain one.
        let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
        let stop = AtomicBool::new(false);
        let mut reports = Vec::new();
        let mut observer = Collect {
            left: 1000,
            stop: &stop,
            reports: &mut reports,
        };
        search.run(1, &stop, &mut observer).unwrap();
        assert_eq!(reports[0].idle_steps, 8);
        assert!((search.snapshots()[0].total_probability() - 0.35).abs() < 1e-12);
    }

    #[test]
    fn fixed_probabilities_stay_as_they_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder.path().join("space.json"), 0);
        config.epochs = 1;
        config.learn_total_probability = false;
        config.learn_operation_probabilities = false;
        let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
        search.run(1, &AtomicBool::new(false), &mut Silent).unwrap();
        assert_eq!(search.snapshots()[0].operation_probabilities(), [0.25; 4]);
        assert!((search.snapshots()[0].total_probability() - 0.35).abs() < 1e-12);
    }

    #[test]
    fn a_learning_rate_out_of_all_bounds_ends_in_a_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder.path().join("space.json"), 0);
        config.learning_rate = 1e30;
        let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
        let error = search
            .run(1, &AtomicBool::new(false), &mut Silent)
            .unwrap_err();
        assert!(
            error.to_string().contains("lower `learning_rate`"),
            "{error}"
        );
    }
}
