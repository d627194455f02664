//! Where the time of an epoch went, and who was the limit.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::plan::RunPlan;
use crate::ring::figures::Window;

/// Time spent on the stages of samples, summed over the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageTotals {
    /// Finding samples in the dataset and checking their checksums.
    pub read: Duration,
    /// Decoding JPEG and PNG.
    pub decode: Duration,
    /// Resizing crops, and drawing and applying the policy's operations.
    pub augment: Duration,
    /// Plain crops, flips, normalising, converting and writing into the slot.
    pub write: Duration,
}

impl StageTotals {
    pub(super) fn add(&mut self, other: &StageTotals) {
        self.read += other.read;
        self.decode += other.decode;
        self.augment += other.augment;
        self.write += other.write;
    }

    fn dearest(&self) -> Limit {
        let stages = [
            (self.read, Limit::Read),
            (self.decode, Limit::Decode),
            (self.augment, Limit::Augment),
            (self.write, Limit::Write),
        ];
        stages
            .into_iter()
            .max_by_key(|stage| stage.0)
            .map_or(Limit::Read, |stage| stage.1)
    }

    fn busy(&self) -> Duration {
        self.read + self.decode + self.augment + self.write
    }
}

/// Who held the run back, by this rule:
///
/// 1. nobody was there to take batches for nine tenths of the time: [`Limit::NoConsumer`];
/// 2. else, the workers spent more than a tenth of their time with every batch finished and no slot for another:
///    [`Limit::Trainer`];
/// 3. else the stage that took most of the workers' time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Limit {
    /// Nothing has been measured yet.
    Unknown,
    /// There was no trainer.
    NoConsumer,
    /// The workers had finished batches and waited for slots.
    Trainer,
    /// The workers were busy all the time, most of it reading: waiting for the storage, or checking checksums.
    Read,
    /// The workers were busy all the time, most of it decoding.
    Decode,
    /// The workers were busy all the time, most of it augmenting.
    Augment,
    /// The workers were busy all the time, most of it writing.
    Write,
}

impl Limit {
    /// What is to be made faster: `trainer`, `storage`, `cpu`, `nobody` (there is no trainer) or `unknown`.
    pub fn who(self) -> &'static str {
        match self {
            Limit::Unknown => "unknown",
            Limit::NoConsumer => "nobody",
            Limit::Trainer => "trainer",
            Limit::Read => "storage",
            Limit::Decode | Limit::Augment | Limit::Write => "cpu",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Unknown => "not known yet",
            Limit::NoConsumer => "the lack of a trainer",
            Limit::Trainer => "the trainer",
            Limit::Read => "the storage (read)",
            Limit::Decode => "the CPU (decode)",
            Limit::Augment => "the CPU (augment)",
            Limit::Write => "the CPU (write)",
        })
    }
}

/// What one epoch, or a part of one, took.
///
/// `Display` is the line that the daemon prints at the end of an epoch.
#[derive(Clone, Debug, Serialize)]
pub struct EpochReport {
    /// Training epoch, from 0.
    pub epoch: u32,
    /// Global batches handed over.
    pub steps: u64,
    /// Samples handed over, all ranks together.
    pub samples: u64,
    /// Wall time with somebody there to take batches, in seconds.
    pub seconds: f64,
    /// Wall time without any consumer, in seconds; not part of `seconds`.
    pub unattended_seconds: f64,
    /// Samples per second of `seconds`.
    pub images_per_second: f64,
    /// Worker threads.
    pub threads: usize,
    /// Worker time spent reading, in seconds summed over threads (so are the next four).
    pub read_seconds: f64,
    /// Worker time spent decoding.
    pub decode_seconds: f64,
    /// Worker time spent augmenting.
    pub augment_seconds: f64,
    /// Worker time spent normalising and writing.
    pub write_seconds: f64,
    /// Worker time spent waiting for the trainer to free a slot: every batch was finished, and no place for another.
    pub wait_seconds: f64,
    /// Worker time spent waiting for other workers to finish their samples of the last batches under way.
    pub idle_seconds: f64,
    /// Who held the epoch back.
    pub limit: Limit,
    /// [`Limit::who`]: what is to be made faster.
    pub limited_by: &'static str,
}

impl EpochReport {
    fn new(
        epoch: u32,
        steps: u64,
        threads: usize,
        totals: &EpochTotals,
        wall: Duration,
    ) -> EpochReport {
        let stages = totals.stages;
        let attended = wall.saturating_sub(totals.unattended);
        let threads_times = |time: Duration| time * threads as u32;
        let wait = threads_times(totals.starved.saturating_sub(totals.unattended));
        let idle = totals.idle.saturating_sub(threads_times(totals.starved));
        let seconds = attended.as_secs_f64();
        // Without a slower trainer some batch is under way at any moment.
        let accounted = wait + idle + stages.busy();
        let limit = if totals.unattended.as_secs_f64() > 0.9 * wall.as_secs_f64() {
            Limit::NoConsumer
        } else if accounted.is_zero() {
            Limit::Unknown
        } else if wait.as_secs_f64() > 0.1 * accounted.as_secs_f64() {
            Limit::Trainer
        } else {
            stages.dearest()
        };
        EpochReport {
            epoch,
            steps,
            samples: totals.samples,
            seconds,
            unattended_seconds: totals.unattended.as_secs_f64(),
            images_per_second: totals.samples as f64 / seconds.max(1e-9),
            threads,
            read_seconds: stages.read.as_secs_f64(),
            decode_seconds: stages.decode.as_secs_f64(),
            augment_seconds: stages.augment.as_secs_f64(),
            write_seconds: stages.write.as_secs_f64(),
            wait_seconds: wait.as_secs_f64(),
            idle_seconds: idle.as_secs_f64(),
            limit,
            limited_by: limit.who(),
        }
    }

    /// The stage that took most of the workers' time.
    pub fn dearest_stage(&self) -> Limit {
        StageTotals {
            read: Duration::from_secs_f64(self.read_seconds),
            decode: Duration::from_secs_f64(self.decode_seconds),
            augment: Duration::from_secs_f64(self.augment_seconds),
            write: Duration::from_secs_f64(self.write_seconds),
        }
        .dearest()
    }

    /// Worker time of all stages and of waiting, in seconds summed over threads.
    pub fn accounted_seconds(&self) -> f64 {
        self.read_seconds
            + self.decode_seconds
            + self.augment_seconds
            + self.write_seconds
            + self.wait_seconds
            + self.idle_seconds
    }
}

impl fmt::Display for EpochReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.accounted_seconds().max(1e-9);
        let percent = |seconds: f64| 100.0 * seconds / all;
        write!(
            f,
            "epoch {}: {} images in {:.1} s, {:.0} images/s; worker time: read {:.0} %, decode {:.0} %, augment {:.0} %, \
             write {:.0} %, wait for trainer {:.0} %, wait for each other {:.0} %; the limit was {}",
            self.epoch,
            self.samples,
            self.seconds,
            self.images_per_second,
            percent(self.read_seconds),
            percent(self.decode_seconds),
            percent(self.augment_seconds),
            percent(self.write_seconds),
            percent(self.wait_seconds),
            percent(self.idle_seconds),
            self.limit,
        )?;
        if self.unattended_seconds >= 0.1 {
            write!(
                f,
                " ({:.1} s more without a consumer)",
                self.unattended_seconds
            )?;
        }
        Ok(())
    }
}

/// How far a run is; what `status` and a progress bar show.
#[derive(Clone, Debug, Serialize)]
pub struct Progress {
    /// The newest batch handed over, if any.
    pub epoch: Option<u32>,
    /// Its step in the epoch.
    pub step: Option<u64>,
    /// Batches handed over since the start, all ranks together.
    pub batches: u64,
    /// Samples handed over since the start, all ranks together.
    pub samples: u64,
    /// Different samples that could not be read or decoded.
    pub bad_samples: u64,
    /// Times that another sample took the place of one of them.
    pub substituted: u64,
    /// Epochs of which every batch has been handed over.
    pub epochs_completed: u64,
    /// Seconds since a worker last got anything done, while there is something to do; else 0.
    pub stalled_seconds: f64,
    /// What the run took so far.
    pub total: EpochReport,
    /// What about the last ten seconds took; the rule of [`Limit`] applied to it says who is the limit now.
    pub recent: EpochReport,
    /// Where the workers' time went by rank, in the order of the ranks.
    pub ranks: Vec<RankStages>,
}

/// Worker time spent on the samples of one rank, in seconds summed over threads.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct RankStages {
    /// The rank.
    pub rank: u32,
    /// Reading.
    pub read_seconds: f64,
    /// Decoding.
    pub decode_seconds: f64,
    /// Cropping and augmenting.
    pub augment_seconds: f64,
    /// Normalising and writing.
    pub write_seconds: f64,
}

#[derive(Clone, Default)]
struct EpochTotals {
    stages: StageTotals,
    idle: Duration,
    starved: Duration,
    unattended: Duration,
    samples: u64,
    batches: u64,
}

impl EpochTotals {
    /// What has come since `earlier`.
    fn since(&self, earlier: &EpochTotals) -> EpochTotals {
        let (now, then) = (&self.stages, &earlier.stages);
        EpochTotals {
            stages: StageTotals {
                read: now.read.saturating_sub(then.read),
                decode: now.decode.saturating_sub(then.decode),
                augment: now.augment.saturating_sub(then.augment),
                write: now.write.saturating_sub(then.write),
            },
            idle: self.idle.saturating_sub(earlier.idle),
            starved: self.starved.saturating_sub(earlier.starved),
            unattended: self.unattended.saturating_sub(earlier.unattended),
            samples: self.samples.saturating_sub(earlier.samples),
            batches: self.batches.saturating_sub(earlier.batches),
        }
    }

    fn add(&mut self, other: &EpochTotals) {
        self.stages.add(&other.stages);
        self.idle += other.idle;
        self.starved += other.starved;
        self.unattended += other.unattended;
        self.samples += other.samples;
        self.batches += other.batches;
    }
}

/// Gathers the figures of a run. Epochs overlap: workers begin one while the trainer still takes the last.
pub(super) struct Statistics {
    threads: usize,
    state: Mutex<State>,
}

struct State {
    started: Instant,
    epoch_started: Instant,
    open: BTreeMap<u32, EpochTotals>,
    closed: EpochTotals,
    newest: Option<(u32, u64)>,
    under_way: usize,
    starved_since: Option<Instant>,
    epochs_completed: u64,
    last_work: Instant,
    window: Window<EpochTotals>,
    /// Stages of each rank made here.
    ranks: Vec<StageTotals>,
    /// Longest waits ever shown, for the trainer and for each other: what is shown never shrinks, though a wait is known
    /// only later not to have been one for the trainer.
    shown: (f64, f64),
}

impl State {
    /// Everything up to `now`, a wait for the trainer under way included.
    fn totals(&self, now: Instant) -> EpochTotals {
        let mut totals = self.closed.clone();
        self.open.values().for_each(|open| totals.add(open));
        if let Some(since) = self.starved_since {
            totals.starved += now.saturating_duration_since(since);
        }
        totals
    }
}

impl Statistics {
    pub(super) fn new(threads: usize) -> Statistics {
        let now = Instant::now();
        let state = State {
            started: now,
            epoch_started: now,
            open: BTreeMap::new(),
            closed: EpochTotals::default(),
            newest: None,
            under_way: 0,
            starved_since: None,
            epochs_completed: 0,
            last_work: now,
            window: Window::new(now, EpochTotals::default()),
            ranks: Vec::new(),
            shown: (0.0, 0.0),
        };
        Statistics {
            threads,
            state: Mutex::new(state),
        }
    }

    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A worker has made samples of an epoch for the rank that is the `rank`-th of those made here.
    pub(super) fn worked(&self, epoch: u32, rank: usize, stages: &StageTotals, idle: Duration) {
        self.with(|state| {
            if state.ranks.len() <= rank {
                state.ranks.resize(rank + 1, StageTotals::default());
            }
            state.ranks[rank].add(stages);
            state.last_work = Instant::now();
            let totals = state.open.entry(epoch).or_default();
            totals.stages.add(stages);
            totals.idle += idle;
        });
    }

    /// A batch of `epoch` got a slot: workers have something to do.
    pub(super) fn begun(&self, epoch: u32) {
        self.with(|state| {
            if state.under_way == 0 {
                state.last_work = Instant::now();
            }
            state.under_way += 1;
            if let Some(since) = state.starved_since.take() {
                state.open.entry(epoch).or_default().starved += since.elapsed();
            }
        });
    }

    /// Every sample of a batch is written.
    pub(super) fn completed(&self) {
        self.with(|state| {
            state.under_way = state.under_way.saturating_sub(1);
            if state.under_way == 0 {
                state.starved_since = Some(Instant::now());
            }
        });
    }

    pub(super) fn unattended(&self, epoch: u32, time: Duration) {
        self.with(|state| state.open.entry(epoch).or_default().unattended += time);
    }

    /// Counts a published batch of `samples`, one of those of `ranks` ranks; the epoch's report when it was the epoch's last.
    pub(super) fn published(
        &self,
        plan: &RunPlan,
        ranks: u64,
        epoch: u32,
        step: u64,
        samples: usize,
    ) -> Option<EpochReport> {
        let start = plan.options().start;
        let steps = plan.steps_per_epoch() - if epoch == start.epoch { start.step } else { 0 };
        let expected = steps * ranks;
        self.with(|state| {
            state.newest = state.newest.max(Some((epoch, step)));
            let totals = state.open.entry(epoch).or_default();
            totals.samples += samples as u64;
            totals.batches += 1;
            let complete = totals.batches >= expected;
            let now = Instant::now();
            let totals = state.totals(now);
            state.window.mark(now, || totals);
            if !complete {
                return None;
            }
            state.epochs_completed += 1;
            let totals = state.open.remove(&epoch)?;
            let wall = state.epoch_started.elapsed();
            state.epoch_started += wall;
            state.closed.add(&totals);
            Some(EpochReport::new(epoch, steps, self.threads, &totals, wall))
        })
    }

    pub(super) fn progress(&self, ranks: Range<u32>) -> Progress {
        self.with(|state| {
            let now = Instant::now();
            let totals = state.totals(now);
            let world = ranks.len() as u64;
            let epoch = state.newest.map_or(0, |newest| newest.0);
            let report = |totals: &EpochTotals, wall: Duration| {
                EpochReport::new(epoch, totals.batches / world, self.threads, totals, wall)
            };
            let mut total = report(&totals, now.saturating_duration_since(state.started));
            state.shown.0 = state.shown.0.max(total.wait_seconds);
            state.shown.1 = state.shown.1.max(total.idle_seconds);
            (total.wait_seconds, total.idle_seconds) = state.shown;
            let recent = match state.window.begin(now) {
                Some((since, before)) => {
                    report(&totals.since(&before), now.saturating_duration_since(since))
                }
                None => total.clone(),
            };
            let stages = |(number, rank): (usize, u32)| {
                let stages = state.ranks.get(number).copied().unwrap_or_default();
                RankStages {
                    rank,
                    read_seconds: stages.read.as_secs_f64(),
                    decode_seconds: stages.decode.as_secs_f64(),
                    augment_seconds: stages.augment.as_secs_f64(),
                    write_seconds: stages.write.as_secs_f64(),
                }
            };
            Progress {
                epoch: state.newest.map(|newest| newest.0),
                step: state.newest.map(|newest| newest.1),
                batches: totals.batches,
                samples: totals.samples,
                bad_samples: 0,
                substituted: 0,
                epochs_completed: state.epochs_completed,
                stalled_seconds: match state.under_way {
                    0 => 0.0,
                    _ => now.saturating_duration_since(state.last_work).as_secs_f64(),
                },
                total,
                recent,
                ranks: ranks.enumerate().map(stages).collect(),
            }
        })
    }
}
