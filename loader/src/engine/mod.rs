//! The engine: feeders acquire slots, workers fill them, batches are published in order.
//!
//! ```text
//! plan -> feeder of rank 0 --acquire--> job --+                   +--> worker --+
//!         feeder of rank 1 --acquire--> job --+--> queue of jobs -+--> worker --+--> lane of the rank --> publish
//! ```
//!
//! The samples of a batch are shared out among all workers, so that the first batch is there as soon as the machine
//! can make it; several batches are under way at once, one for each free slot. What a sample looks like never depends
//! on which worker makes it.

mod bad;
#[allow(unsafe_code, reason = "several workers fill one batch")]
mod job;
mod queue;
#[allow(unsafe_code, reason = "promises of slots to the workers")]
mod slot;
mod stats;
mod worker;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ddas_runtime::Pipeline;

pub use bad::{BadBudget, BadSampleEvent, OnBad, Substitutes};
pub use slot::{BatchSink, BatchSlot, MemoryBatch, MemorySink, MemorySlot, MixingRoom};
pub use stats::{EpochReport, Limit, Progress, RankStages, StageTotals};

use crate::check::panic_message;
use crate::error::{Error, Result};
use crate::plan::{PlanError, Position, RunPlan};
use crate::sources::Sources;
use bad::BadSamples;
use job::Job;
use queue::{JobQueue, Lane};
use stats::Statistics;

/// How often a waiting thread looks whether the run has ended.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// One run over a dataset, ready to start.
///
/// ```
/// use std::sync::atomic::AtomicBool;
/// use ddas_formats::{Dataset, DatasetWriter, Encoding, Packed};
/// use ddas_loader::{Engine, LastBatch, MemoryBatch, MemorySink, PlanOptions, Position, RunPlan};
/// use ddas_runtime::{Dtype, Layout, OutputFormat, Pipeline, Recipe};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("tiny.lmdb");
/// let mut writer = DatasetWriter::create(&path, false)?;
/// for label in 0..10 {
///     writer.append(label, Encoding::Raw, 32, 32, &[label as u8; 32 * 32 * 3])?;
/// }
/// # let classes = (0..10).map(|class| class.to_string()).collect();
/// writer.finish(classes, Packed::default())?;
///
/// let dataset = Dataset::open(&path)?;
/// let output = OutputFormat { dtype: Dtype::F32, layout: Layout::Nchw };
/// let pipeline = Pipeline::new(Recipe::named("cifar")?, None, 2, 0, output)?;
/// let plan = RunPlan::new(PlanOptions {
///     samples: dataset.len(), batch_size: 4, world_size: 1, epochs: 2, last: LastBatch::Pad, start: Position::default(), seed: 0,
/// })?;
/// let sink = MemorySink::new(2, 4, pipeline.sample_bytes(), |part: &_, batch: MemoryBatch<'_>| {
///     println!("{part:?} has labels {:?}", batch.labels);
/// });
/// let engine = Engine::new(dataset, pipeline, plan, 2);
/// let progress = engine.run(vec![sink], &AtomicBool::new(false), &|report| println!("{report}"))?;
/// assert_eq!(progress.samples, 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Engine {
    dataset: Sources,
    pipeline: Pipeline,
    plan: RunPlan,
    threads: usize,
    /// The ranks whose batches are made here.
    ranks: Range<u32>,
    statistics: Statistics,
    bad: BadSamples,
    abandoned: AtomicBool,
}

impl Engine {
    /// An engine with `threads` workers (at least one).
    pub fn new(
        dataset: impl Into<Sources>,
        pipeline: Pipeline,
        plan: RunPlan,
        threads: usize,
    ) -> Engine {
        let threads = threads.max(1);
        Engine {
            ranks: 0..plan.options().world_size,
            dataset: dataset.into(),
            pipeline,
            plan,
            threads,
            statistics: Statistics::new(threads),
            bad: BadSamples::default(),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Says what becomes of samples that cannot be read or decoded; without this the run fails.
    ///
    /// # Errors
    /// [`Error::Io`] when the log of bad samples cannot be opened.
    pub fn on_bad(mut self, on_bad: OnBad) -> Result<Engine> {
        self.bad = BadSamples::new(on_bad, self.dataset.len())?;
        Ok(self)
    }

    /// Makes the batches of `rank` alone: [`Engine::run`] then takes one sink.
    ///
    /// # Panics
    /// When the plan has no such rank.
    #[must_use]
    pub fn for_rank(mut self, rank: u32) -> Engine {
        let ranks = self.plan.options().world_size;
        assert!(rank < ranks, "rank {rank} of {ranks}");
        self.ranks = rank..rank + 1;
        self
    }

    /// Moves the start of the next run, whose figures begin anew.
    ///
    /// # Errors
    /// [`PlanError::Start`](crate::PlanError::Start) when the plan has no such place.
    pub fn restart_at(&mut self, start: Position) -> Result<()> {
        self.plan = self.plan.clone().starting_at(start)?;
        self.statistics = Statistics::new(self.threads);
        self.abandoned = AtomicBool::new(false);
        Ok(())
    }

    /// Ends a run under way at once, from any thread: batches under way are given up, each worker ends with the
    /// samples it has in hand.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// How far the run is; callable from any thread.
    pub fn progress(&self) -> Progress {
        let (bad_samples, substituted) = self.bad.counts();
        Progress {
            bad_samples,
            substituted,
            ..self.statistics.progress(self.ranks.clone())
        }
    }

    /// Bad samples that were replaced since the last call, each once an epoch, oldest first; of very many, the newest.
    pub fn take_bad_samples(&self) -> Vec<BadSampleEvent> {
        self.bad.take_events()
    }

    /// The plan it follows.
    pub fn plan(&self) -> &RunPlan {
        &self.plan
    }

    /// Worker threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Fills and publishes every batch of the plan, one sink a rank, and returns when all are published, or when
    /// the run was [abandoned](Engine::abandon).
    ///
    /// When `stop` is raised no new batch is begun; those under way are finished and published. `on_epoch` is called
    /// on a worker thread at the end of every epoch.
    ///
    /// # Errors
    /// The first error of any worker or sink, after all threads have ended. [`Error::Sample`] names the sample.
    /// [`PlanError::NotInPairs`] when the pipeline mixes batches and the plan was not made for it.
    ///
    /// # Panics
    /// When the number of sinks is not that of the ranks: the plan's world size, or one after [`Engine::for_rank`].
    pub fn run<K: BatchSink>(
        &self,
        sinks: Vec<K>,
        stop: &AtomicBool,
        on_epoch: &(dyn Fn(&EpochReport) + Sync),
    ) -> Result<Progress> {
        assert_eq!(sinks.len(), self.ranks.len(), "one sink for each rank");
        if self.pipeline.mix().is_some() && !self.plan.is_in_pairs() {
            return Err(PlanError::NotInPairs.into());
        }
        let run = Run::<K::Slot> {
            engine: self,
            queue: JobQueue::new(sinks.len()),
            lanes: sinks.iter().map(|_| Lane::new()).collect(),
            on_epoch,
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
        };
        thread::scope(|scope| {
            for (rank, sink) in self.ranks.clone().zip(sinks) {
                let run = &run;
                spawn(scope, format!("feeder {rank}"), run, move || {
                    let outcome = run.feed(rank, sink, stop);
                    run.queue.feeder_left();
                    outcome
                });
            }
            for worker in 0..self.threads {
                let run = &run;
                spawn(scope, format!("worker {worker}"), run, move || {
                    worker::work(run)
                });
            }
        });
        match run
            .failure
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
        {
            Some(error) => Err(error),
            None => Ok(self.progress()),
        }
    }
}

/// Starts a thread whose error, panic, or failure to start ends the run.
fn spawn<'scope, S: BatchSlot + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: String,
    run: &'scope Run<'_, S>,
    body: impl FnOnce() -> Result<()> + Send + 'scope,
) {
    let thread = name.clone();
    let started = thread::Builder::new()
        .name(name)
        .spawn_scoped(scope, move || {
            // What the threads share is either whole behind its locks or not used again once the run has failed.
            match catch_unwind(AssertUnwindSafe(body)) {
                Ok(Ok(())) => (),
                Ok(Err(error)) => run.fail(error),
                Err(panic) => run.fail(Error::ThreadPanicked {
                    thread,
                    message: panic_message(&*panic),
                }),
            }
        });
    if let Err(source) = started {
        run.fail(Error::Io {
            action: "starting a thread".to_owned(),
            source,
        });
    }
}

/// What the threads of one run share.
struct Run<'run, S> {
    engine: &'run Engine,
    queue: JobQueue<S>,
    lanes: Vec<Lane<S>>,
    on_epoch: &'run (dyn Fn(&EpochReport) + Sync),
    failed: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl<S: BatchSlot> Run<'_, S> {
    /// Ends the run; the first error is the one reported, later ones follow from it.
    fn fail(&self, error: Error) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.failed.store(true, Ordering::Release);
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire) || self.engine.abandoned.load(Ordering::Acquire)
    }

    fn lane(&self, rank: u32) -> &Lane<S> {
        &self.lanes[(rank - self.engine.ranks.start) as usize]
    }

    /// Acquires a slot for every batch of `rank`.
    fn feed<K: BatchSink<Slot = S>>(
        &self,
        rank: u32,
        mut sink: K,
        stop: &AtomicBool,
    ) -> Result<()> {
        let plan = &self.engine.plan;
        let lane = self.lane(rank);
        let mut order = plan.order(plan.options().start.epoch);
        let mut order_epoch = plan.options().start.epoch;
        for part in plan.batches(rank) {
            if part.epoch != order_epoch {
                (order, order_epoch) = (plan.order(part.epoch), part.epoch);
            }
            let slot = loop {
                if stop.load(Ordering::Acquire) || self.has_failed() {
                    return Ok(());
                }
                let began = Instant::now();
                if let Some(slot) = sink.acquire(stop, HEARTBEAT)? {
                    break slot;
                }
                if rank == self.engine.ranks.start && !sink.attended() {
                    self.engine
                        .statistics
                        .unattended(part.epoch, began.elapsed());
                }
            };
            let job = Arc::new(Job::new(
                part,
                order.clone(),
                slot,
                self.engine.pipeline.sample_bytes(),
                self.engine.pipeline.mix().is_some(),
            )?);
            lane.push(Arc::clone(&job));
            if part.samples == 0 {
                self.publish_complete(rank)?;
            } else {
                self.engine.statistics.begun(part.epoch);
                self.queue.push(job);
            }
        }
        Ok(())
    }

    /// Publishes what is complete at the front of the rank's lane.
    fn publish_complete(&self, rank: u32) -> Result<()> {
        self.lane(rank).publish_complete(|job, slot| {
            let part = job.part();
            let snapshot = self
                .engine
                .pipeline
                .schedule()
                .map(|schedule| schedule.snapshot_index(part.epoch) as u32);
            slot.publish(part, snapshot)?;
            let report = self.engine.statistics.published(
                &self.engine.plan,
                self.engine.ranks.len() as u64,
                part.epoch,
                part.step,
                part.samples,
            );
            if let Some(report) = report {
                (self.on_epoch)(&report);
            }
            Ok(())
        })
    }
}
