//! The loader inside the trainer's own process: worker threads, no daemon, no shared memory.

#[allow(unsafe_code, reason = "slots that workers fill and the trainer reads")]
mod pool;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::engine::{Engine, EpochReport, Progress};
use crate::error::{Error, Result, one_line};
use crate::plan::{BatchPart, PlanError, Position};
use crate::ring::StreamInfo;
use crate::ring::budget::budget;
use crate::slot_memory::SlotMemory;
use crate::stream::Stream;
use pool::{Lent, Pool, PoolSink, Shape};

/// Why the next batch cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// A worker gave up and said why.
    #[error("the loader stopped: {message}")]
    Failed {
        /// What a worker met, as [`Error`] says it.
        message: String,
    },
    /// Nothing was ready in time.
    #[error(
        "no batch was ready within {:.1} s: samples are slower than that, so allow a longer timeout or more threads",
        waited.as_secs_f64()
    )]
    TimedOut {
        /// How long.
        waited: Duration,
    },
    /// The trainer has every slot, so none can be filled.
    #[error(
        "you hold {slots} of {slots} slots, so none can be filled: release (drop) older batches after copying what \
         you need, or give the loader more slots"
    )]
    HoldsAllSlots {
        /// Slots of the loader.
        slots: usize,
    },
    /// A loader or batch was used in a forked child.
    #[error(
        "this loader was made in process {owner} and is used in process {user}: its threads do not survive a fork; \
         make a loader in the child (or start it with the `spawn` method)"
    )]
    Forked {
        /// Who made it.
        owner: u32,
        /// Who asked.
        user: u32,
    },
    /// A thread could not be started.
    #[error("starting the loader's threads: {message}")]
    Threads {
        /// The system's answer.
        message: String,
    },
}

/// How an [`EmbeddedLoader`] works.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmbeddedOptions {
    /// The rank whose batches are made.
    pub rank: u32,
    /// Worker threads; `None`: every core this process may run on.
    pub threads: Option<usize>,
    /// Batches there is room for, at least two; `None`: [`EmbeddedOptions::DEFAULT_SLOTS`], or what fits into memory.
    pub slots: Option<usize>,
}

impl EmbeddedOptions {
    /// Slots when nothing else is asked for and memory allows.
    pub const DEFAULT_SLOTS: usize = 4;
}

type OnEpoch = Arc<dyn Fn(&EpochReport) + Send + Sync>;

/// A stream made in this process: the batches of one rank, in order, byte for byte those of a daemon.
///
/// Workers start with the first [`EmbeddedLoader::receive`] and stay a few batches ahead of the trainer, as many as
/// there are slots. Dropping the loader ends them.
///
/// ```
/// use std::time::Duration;
/// use ddas_formats::{DatasetWriter, Encoding, Packed};
/// use ddas_loader::{EmbeddedLoader, EmbeddedOptions, LastBatch, Position, Stream, StreamOptions};
/// use ddas_runtime::{Dtype, Layout, OutputFormat};
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
/// let stream = Stream::open(StreamOptions {
///     dataset: path, recipe: "cifar".to_owned(), policy: None, epochs: 2, batch_size: 4, world_size: 1, seed: 0,
///     output: OutputFormat { dtype: Dtype::F32, layout: Layout::Nchw }, last: LastBatch::Pad, start: Position::default(),
/// })?;
/// let mut loader = EmbeddedLoader::new(stream, EmbeddedOptions::default())?;
/// let mut samples = 0;
/// while let Some(batch) = loader.receive(Duration::from_secs(60))? {
///     samples += batch.labels().len();
///     assert_eq!(batch.images().len(), batch.samples() * 3 * 32 * 32 * 4);
/// }
/// assert_eq!(samples, 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EmbeddedLoader {
    info: StreamInfo,
    pool: Arc<Pool>,
    /// Always there between calls, unless a thread of the last run panicked beyond repair.
    engine: Option<Arc<Engine>>,
    run: Option<Run>,
    next: Position,
    on_epoch: OnEpoch,
}

struct Run {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl EmbeddedLoader {
    /// Allocates the slots. Nothing is decoded before the first batch is asked for.
    ///
    /// # Errors
    /// When the stream has no such rank, when `slots` is below two, or when the slots do not fit into memory.
    pub fn new(stream: Stream, options: EmbeddedOptions) -> Result<EmbeddedLoader> {
        let world_size = stream.options().world_size;
        if options.rank >= world_size {
            return Err(PlanError::Rank {
                rank: options.rank,
                world_size,
            }
            .into());
        }
        let shape = Shape {
            batch_size: stream.plan.rank_batch_size(),
            sample_bytes: stream.pipeline.sample_bytes(),
            mixes: stream.pipeline.mix().is_some(),
        };
        let slots = slots(shape, options.slots)?;
        let threads = match options.threads {
            Some(0) => return Err(PlanError::Zero { what: "threads" }.into()),
            Some(threads) => threads,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let info = stream.infos(slots).swap_remove(options.rank as usize);
        let next = stream.options().start;
        let engine = Engine::new(stream.dataset, stream.pipeline, stream.plan, threads)
            .on_bad(stream.on_bad)?;
        Ok(EmbeddedLoader {
            info,
            pool: Pool::new(shape, slots)?,
            engine: Some(Arc::new(engine.for_rank(options.rank))),
            run: None,
            next,
            on_epoch: Arc::new(|_| ()),
        })
    }

    /// Calls `on_epoch` at the end of every epoch of runs that start after this, on a worker thread.
    #[must_use]
    pub fn on_epoch(
        mut self,
        on_epoch: impl Fn(&EpochReport) + Send + Sync + 'static,
    ) -> EmbeddedLoader {
        self.on_epoch = Arc::new(on_epoch);
        self
    }

    /// What a consumer of the same stream would be told, `daemon_pid` being this process.
    pub fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// The memory that batches lie in, mapped for reading and writing as long as the value lives.
    pub fn memory(&self) -> SlotMemory {
        self.pool.memory()
    }

    /// The place of the batch that [`EmbeddedLoader::receive`] returns next; behind the last epoch at the end.
    pub fn next_position(&self) -> Position {
        self.next
    }

    /// Batches received and not yet dropped.
    pub fn held(&self) -> usize {
        match self.pool.check_process() {
            Ok(()) => self.pool.held(),
            Err(_) => 0,
        }
    }

    /// How far the workers are; `None` after a defect that lost them.
    pub fn progress(&self) -> Option<Progress> {
        self.engine.as_deref().map(Engine::progress)
    }

    /// Waits for the next batch, at most `timeout`; `None` after the last one of the last epoch.
    ///
    /// # Errors
    /// [`EmbeddedError::HoldsAllSlots`] at once when the caller holds every slot, [`EmbeddedError::Failed`],
    /// [`EmbeddedError::TimedOut`], after which the same batch can be asked for again, [`EmbeddedError::Forked`].
    pub fn receive(
        &mut self,
        timeout: Duration,
    ) -> std::result::Result<Option<EmbeddedBatch>, EmbeddedError> {
        self.pool.check_process()?;
        if self.next.epoch >= self.info.epochs {
            return Ok(None);
        }
        if self.run.is_none() {
            self.start()?;
        }
        let received = self.pool.receive(timeout)?;
        Ok(received.map(|(lent, part, snapshot)| {
            self.next = if part.last_of_epoch {
                Position {
                    epoch: part.epoch + 1,
                    step: 0,
                }
            } else {
                Position {
                    epoch: part.epoch,
                    step: part.step + 1,
                }
            };
            EmbeddedBatch {
                lent,
                part,
                snapshot,
            }
        }))
    }

    /// Goes on with the batch at `start` instead of the next one, backwards too; step 0 behind the last epoch is the
    /// end. Batches already received stay valid.
    ///
    /// # Errors
    /// [`PlanError::Start`] when the stream has no such place, [`EmbeddedError::Forked`].
    pub fn seek(&mut self, start: Position) -> Result<()> {
        self.pool.check_process().map_err(Error::Embedded)?;
        if start == self.next {
            return Ok(());
        }
        let end = Position {
            epoch: self.info.epochs,
            step: 0,
        };
        if let Some(engine) = &self.engine
            && start != end
        {
            engine.plan().clone().starting_at(start)?;
        }
        self.stop();
        self.pool.reset();
        self.next = start;
        Ok(())
    }

    fn start(&mut self) -> std::result::Result<(), EmbeddedError> {
        let failed = |message: &str| EmbeddedError::Threads {
            message: message.to_owned(),
        };
        let engine = self
            .engine
            .take()
            .and_then(Arc::into_inner)
            .ok_or_else(|| failed("the threads of the last run are lost"))?;
        let mut engine = engine;
        engine
            .restart_at(self.next)
            .map_err(|error| failed(&one_line(&error)))?;
        let engine = Arc::new(engine);
        self.engine = Some(Arc::clone(&engine));
        let stop = Arc::new(AtomicBool::new(false));
        let (pool, raised, on_epoch) = (
            Arc::clone(&self.pool),
            Arc::clone(&stop),
            Arc::clone(&self.on_epoch),
        );
        let thread = std::thread::Builder::new()
            .name("ddas engine".to_owned())
            .spawn(move || {
                let sink = PoolSink(Arc::clone(&pool));
                let outcome = engine.run(vec![sink], &raised, &*on_epoch);
                drop(engine);
                pool.end(outcome.map(|_| ()).map_err(|error| one_line(&error)));
            })
            .map_err(|error| failed(&error.to_string()))?;
        self.run = Some(Run { stop, thread });
        Ok(())
    }

    /// Ends the workers, and waits until they have put down the samples in their hands.
    fn stop(&mut self) {
        let Some(run) = self.run.take() else {
            return;
        };
        run.stop.store(true, Ordering::Release);
        if let Some(engine) = &self.engine {
            engine.abandon();
        }
        self.pool.wake();
        let _ = run.thread.join();
    }
}

impl Drop for EmbeddedLoader {
    fn drop(&mut self) {
        if self.pool.check_process().is_ok() {
            self.stop();
        } else if let Some(run) = self.run.take() {
            // The thread does not exist in a fork: there is nothing to join.
            std::mem::forget(run);
        }
    }
}

/// As many slots as asked for, if there is memory for them.
fn slots(shape: Shape, asked: Option<usize>) -> Result<usize> {
    if asked.is_some_and(|slots| slots < 2) {
        return Err(PlanError::TooFewSlots.into());
    }
    let mut slots = asked.unwrap_or(EmbeddedOptions::DEFAULT_SLOTS);
    loop {
        let needed = (shape.bytes() as u64).saturating_mul(slots as u64);
        match budget() {
            Some(budget) if needed > budget.available => {
                // Two slots still let workers and trainer work at the same time.
                if asked.is_none() && slots > 2 {
                    slots -= 1;
                    continue;
                }
                return Err(Error::NoMemory {
                    needed,
                    slots,
                    available: budget.available,
                    limit: budget.limit,
                });
            }
            _ => return Ok(slots),
        }
    }
}

/// A batch in this process's memory, the trainer's alone until it is dropped; then its slot is filled again.
#[derive(Debug)]
pub struct EmbeddedBatch {
    lent: Lent,
    part: BatchPart,
    snapshot: Option<u32>,
}

impl EmbeddedBatch {
    /// The images one after another, in the stream's dtype and layout; 64-byte aligned.
    pub fn images(&self) -> &[u8] {
        self.lent.images()
    }

    /// Bytes of the images.
    pub fn image_bytes(&self) -> usize {
        self.lent.image_bytes()
    }

    /// The class of each sample.
    pub fn labels(&self) -> &[i64] {
        self.lent.labels()
    }

    /// The number of each sample in the dataset.
    pub fn indices(&self) -> &[u64] {
        self.lent.indices()
    }

    /// Labels of the samples' partners, their own where they were not mixed; `None` in a stream that does not mix.
    pub fn mixed_labels(&self) -> Option<&[i64]> {
        self.lent.mixing().map(|(labels, _)| labels)
    }

    /// The share of each sample's own label, 0 to 1; `None` in a stream that does not mix.
    pub fn weights(&self) -> Option<&[f32]> {
        self.lent.mixing().map(|(_, weights)| weights)
    }

    /// Training epoch, from 0.
    pub fn epoch(&self) -> u32 {
        self.part.epoch
    }

    /// Batch of the epoch, from 0.
    pub fn step(&self) -> u64 {
        self.part.step
    }

    /// Number of samples; smaller than the stream's batch size only at the end of an epoch.
    pub fn samples(&self) -> usize {
        self.part.samples
    }

    /// Number of the policy snapshot used; `None` without a policy.
    pub fn snapshot(&self) -> Option<u32> {
        self.snapshot
    }

    /// Whether the epoch ends with this batch.
    pub fn last_of_epoch(&self) -> bool {
        self.part.last_of_epoch
    }

    /// Where the images lie, for lending them to code that is not Rust's: they may be read and written there while this
    /// batch lives and no slice of it is used. `labels_ptr` and `indices_ptr` are the same for theirs.
    pub fn images_ptr(&self) -> *mut u8 {
        self.lent.images_ptr()
    }

    /// Where the labels lie, as [`EmbeddedBatch::images_ptr`].
    pub fn labels_ptr(&self) -> *mut i64 {
        self.lent.labels_ptr()
    }

    /// Where partners' labels and weights lie, as [`EmbeddedBatch::images_ptr`]; `None` in a stream that does not mix.
    pub fn mixing_ptrs(&self) -> Option<(*mut i64, *mut f32)> {
        self.lent.mixing_ptrs()
    }

    /// Where the samples' numbers lie, as [`EmbeddedBatch::images_ptr`].
    pub fn indices_ptr(&self) -> *mut u64 {
        self.lent.indices_ptr()
    }

    /// Whether this process may use the batch.
    ///
    /// # Errors
    /// [`EmbeddedError::Forked`] in a fork of the process that made the loader.
    pub fn check_process(&self) -> std::result::Result<(), EmbeddedError> {
        self.lent.check_process()
    }
}

#[cfg(test)]
mod tests;
