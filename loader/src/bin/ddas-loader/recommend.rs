//! How many threads and slots to serve with: a few short runs beside one another.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ddas_loader::{BatchPart, Engine, EpochReport, MemoryBatch, MemorySink, Stream};
use serde::Serialize;

use crate::progress::Meter;
use crate::samples::StreamToOpen;

/// A count is enough when more of them are not faster by more than this share: short runs differ by as much by chance.
const ENOUGH: f64 = 0.95;
/// Numbers of slots to try. More than these help only against a trainer of uneven speed.
const SLOTS: [usize; 4] = [2, 3, 4, 6];
/// No try takes more memory for its slots.
const MOST_BYTES: usize = 2 << 30;

/// What to serve with. `bench --json` prints these fields.
#[derive(Serialize)]
pub(crate) struct Recommendation {
    pub(crate) threads: usize,
    /// With one more than the loader alone needs: for the batch in the trainer's hands.
    pub(crate) slots: usize,
    pub(crate) how: &'static str,
    pub(crate) trials: Vec<Trial>,
}

/// One short run.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Trial {
    pub(crate) threads: usize,
    pub(crate) slots: usize,
    pub(crate) images_per_second: f64,
}

const HOW: &str = "the fewest threads, then the fewest slots, that reach 95 % of the best short run; one slot more for the batch \
                   in the trainer's hands";

/// Tries up to `cores` threads, then numbers of slots, each for `time`.
pub(crate) fn recommend(
    stream: &StreamToOpen,
    cores: usize,
    time: Duration,
) -> anyhow::Result<Recommendation> {
    let counts = thread_counts(cores);
    let meter = Meter::new("trying", "runs");
    let total = (counts.len() + SLOTS.len()) as u64;
    let mut trials = Vec::new();
    let mut run = |threads, slots| {
        meter.set(trials.len() as u64, total, "");
        let trial = trial(stream.clone().open()?, threads, slots, time)?;
        trials.extend(trial);
        anyhow::Ok(trial)
    };
    let mut by_threads = Vec::new();
    for &threads in &counts {
        by_threads.extend(run(threads, 4)?);
    }
    let threads = enough(&by_threads).map_or(cores, |trial| trial.threads);
    let mut by_slots = Vec::new();
    for slots in SLOTS {
        by_slots.extend(run(threads, slots)?);
    }
    let slots = enough(&by_slots).map_or(2, |trial| trial.slots) + 1;
    drop(meter);
    Ok(Recommendation {
        threads,
        slots,
        how: HOW,
        trials,
    })
}

/// One thread, then twice as many each time, and all cores.
fn thread_counts(cores: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |count| Some(count * 2));
    let mut counts: Vec<usize> = doubled.take_while(|count| *count < cores).collect();
    counts.push(cores.max(1));
    counts
}

/// The first of `trials`, from few to many, that is nearly as fast as the fastest.
fn enough(trials: &[Trial]) -> Option<Trial> {
    let best = trials
        .iter()
        .map(|trial| trial.images_per_second)
        .fold(0.0, f64::max);
    trials
        .iter()
        .find(|trial| trial.images_per_second >= ENOUGH * best)
        .copied()
}

/// A run of `time`; `None` when its slots would take too much memory.
fn trial(
    stream: Stream,
    threads: usize,
    slots: usize,
    time: Duration,
) -> anyhow::Result<Option<Trial>> {
    let batch = stream.options().batch_size as usize;
    let sample_bytes = stream.pipeline.sample_bytes();
    let needed = batch.saturating_mul(sample_bytes).saturating_mul(slots);
    if needed > MOST_BYTES && slots > 2 {
        return Ok(None);
    }
    let (began, stop) = (Instant::now(), AtomicBool::new(false));
    let received = |_: &BatchPart, _: MemoryBatch<'_>| {
        if began.elapsed() >= time {
            stop.store(true, Ordering::Release);
        }
    };
    let sink = MemorySink::new(slots, batch, sample_bytes, received);
    let engine = Engine::new(stream.dataset, stream.pipeline, stream.plan, threads);
    let progress = engine
        .on_bad(stream.on_bad)?
        .run(vec![sink], &stop, &|_: &EpochReport| ())?;
    Ok(Some(Trial {
        threads,
        slots,
        images_per_second: progress.total.images_per_second,
    }))
}

impl fmt::Display for Recommendation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "recommended: --threads {} --slots {} ({})",
            self.threads, self.slots, self.how
        )?;
        for trial in &self.trials {
            writeln!(
                f,
                "  {:>3} threads, {:>2} slots: {:>8.0} images/s",
                trial.threads, trial.slots, trial.images_per_second
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_count_that_is_nearly_the_best_is_enough() {
        let trials = |rates: &[f64]| -> Vec<Trial> {
            let trial = |(number, &images_per_second)| Trial {
                threads: number + 1,
                slots: 2,
                images_per_second,
            };
            rates.iter().enumerate().map(trial).collect()
        };
        let threads = |rates: &[f64]| enough(&trials(rates)).map(|trial| trial.threads);
        assert_eq!(threads(&[10.0, 20.0, 39.0, 40.0]), Some(3));
        assert_eq!(threads(&[40.0, 20.0]), Some(1));
        assert_eq!(threads(&[]), None);
        assert_eq!(thread_counts(1), [1]);
        assert_eq!(thread_counts(2), [1, 2]);
        assert_eq!(thread_counts(12), [1, 2, 4, 8, 12]);
    }
}
