//! A worker: reads, decodes, augments and writes samples into the batches of the queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use ddas_runtime::{Blend, Pipeline, PipelineScratch};

use super::job::Claim;
use super::queue::Next;
use super::slot::BatchSlot;
use super::stats::StageTotals;
use super::{HEARTBEAT, Run};
use crate::check::panic_message;
use crate::error::{Error, Result};
use crate::plan::{BatchPart, Position};
use crate::sources::{LocatedSample, SourcesReader};

/// Works until no batch is left or the run has failed.
pub(super) fn work<S: BatchSlot>(run: &Run<'_, S>) -> Result<()> {
    let reader = run.engine.dataset.reader()?;
    let mut scratch = PipelineScratch::default();
    let mut idle = Duration::ZERO;
    while !run.has_failed() {
        let asked = Instant::now();
        let job = match run.queue.next(HEARTBEAT) {
            Next::Job(job) => job,
            Next::Nothing => {
                idle += asked.elapsed();
                continue;
            }
            Next::Closed => return Ok(()),
        };
        let part = *job.part();
        let mixes = run.engine.pipeline.mix().is_some();
        let Some(claim) = job.claim(claim_size(part.samples, run.engine.threads, mixes)) else {
            continue;
        };
        idle += asked.elapsed();
        let (stages, complete) = fill(run, &reader, &mut scratch, &part, claim)?;
        let rank = (part.rank - run.engine.ranks.start) as usize;
        run.engine
            .statistics
            .worked(part.epoch, rank, &stages, idle);
        idle = Duration::ZERO;
        if complete {
            run.engine.statistics.completed();
            run.publish_complete(part.rank)?;
        }
    }
    Ok(())
}

/// Most samples of a claim; even, for pairs.
const MOST_CLAIMED: usize = 16;

/// So many samples before its turn a sample is fetched into the cache.
const PREFETCH_DISTANCE: usize = 2;

/// Samples a worker takes at once: a quarter of its fair share, so that no worker ends much later than another, and
/// not too many, so that a slow sample does not hold many back. Samples that are mixed are taken in pairs.
fn claim_size(samples: usize, threads: usize, pairs: bool) -> usize {
    let fair = (samples / (threads * 4)).clamp(1, MOST_CLAIMED);
    if pairs {
        fair.next_multiple_of(2)
    } else {
        fair
    }
}

/// A sample to be made.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    index: u64,
    /// Where it lies, if somebody has looked.
    found: Option<&'a LocatedSample>,
    /// A later one, to be fetched into the cache meanwhile.
    later: Option<&'a LocatedSample>,
}

/// The samples of a claim, found before the first of them is read: their records lie far apart, so that each would be
/// waited for, once for its leaf and once for itself.
struct Ahead {
    samples: [(u64, Option<LocatedSample>); MOST_CLAIMED],
}

impl Ahead {
    /// With the time it took.
    fn of<S>(reader: &SourcesReader, claim: &Claim<'_, S>) -> (Ahead, Duration) {
        let began = Instant::now();
        let mut ahead = Ahead {
            samples: [(0, None); MOST_CLAIMED],
        };
        for (sample, i) in ahead.samples.iter_mut().zip(claim.range()) {
            let index = claim.index(i);
            // What is wrong with it is said when its turn comes.
            *sample = (index, reader.locate(index).ok());
        }
        for place in 0..PREFETCH_DISTANCE {
            if let Some(found) = ahead.found(place) {
                reader.prefetch(found);
            }
        }
        (ahead, began.elapsed())
    }

    fn found(&self, place: usize) -> Option<&LocatedSample> {
        self.samples.get(place)?.1.as_ref()
    }

    fn sample(&self, place: usize) -> Wanted<'_> {
        Wanted {
            index: self.samples[place].0,
            found: self.found(place),
            later: self.found(place + PREFETCH_DISTANCE),
        }
    }
}

/// Makes the samples of a claim; whether the batch is complete with them.
fn fill<S: BatchSlot>(
    run: &Run<'_, S>,
    reader: &SourcesReader,
    scratch: &mut PipelineScratch,
    part: &BatchPart,
    mut claim: Claim<'_, S>,
) -> Result<(StageTotals, bool)> {
    let mut stages = StageTotals::default();
    let (ahead, located) = Ahead::of(reader, &claim);
    stages.read += located;
    for (place, i) in claim.range().enumerate() {
        let wanted = ahead.sample(place);
        let index = wanted.index;
        let at = Position {
            epoch: part.epoch,
            step: part.step,
        };
        // The scratch may be left in any state by a panic; it is not used again, because a panic ends the run.
        let made = catch_unwind(AssertUnwindSafe(|| {
            fill_one(run, reader, scratch, part.epoch, wanted, &mut claim, i)
        }));
        let times = match made {
            Ok(Ok(times)) => times,
            Ok(Err(cause)) => run.engine.replace(at, index, cause, &mut |index| {
                let wanted = Wanted {
                    index,
                    found: None,
                    later: None,
                };
                fill_one(run, reader, scratch, part.epoch, wanted, &mut claim, i)
            })?,
            Err(panic) => {
                let (dataset, index) = run.engine.dataset.locate(index);
                return Err(Error::WorkerPanicked {
                    dataset: dataset.path().to_owned(),
                    index,
                    at,
                    message: panic_message(&*panic),
                });
            }
        };
        stages.add(&times);
        // Claims and parts begin at even places: the second of a pair is the odd one.
        if i % 2 == 1 {
            stages.write += mix_pair(&run.engine.pipeline, part, &mut claim, i - 1);
        }
    }
    Ok((stages, claim.finish()))
}

/// Mixes samples `i` and `i + 1`, both finished, if the pipeline does; how long it took.
fn mix_pair<S: BatchSlot>(
    pipeline: &Pipeline,
    part: &BatchPart,
    claim: &mut Claim<'_, S>,
    i: usize,
) -> Duration {
    let Some(mix) = pipeline.mix() else {
        return Duration::ZERO;
    };
    let began = Instant::now();
    let (pair, size) = ((part.first + i as u64) / 2, pipeline.recipe().size());
    let blend = mix.draw(pipeline.seed(), part.epoch, part.step, pair, size);
    if blend == Blend::None {
        return began.elapsed();
    }
    let [first, second] = claim.pair(i);
    blend.apply(pipeline.output(), size, first.image, second.image);
    let partners = [(first.mixing, *second.label), (second.mixing, *first.label)];
    for (place, partner) in partners {
        if let Some(place) = place {
            (*place.label, *place.weight) = (partner, blend.weight());
        }
    }
    began.elapsed()
}

fn fill_one<S: BatchSlot>(
    run: &Run<'_, S>,
    reader: &SourcesReader,
    scratch: &mut PipelineScratch,
    epoch: u32,
    wanted: Wanted<'_>,
    claim: &mut Claim<'_, S>,
    i: usize,
) -> std::result::Result<StageTotals, Box<dyn std::error::Error + Send + Sync>> {
    let place = claim.place(i);
    let began = Instant::now();
    if let Some(later) = wanted.later {
        reader.prefetch(later);
    }
    let index = wanted.index;
    let sample = match wanted.found {
        Some(found) => reader.get_located(found),
        None => reader.get(index),
    };
    let sample = sample.map_err(|error| Error::Damaged {
        reason: match error {
            // Dataset and number are told by who asked for the sample.
            ddas_formats::Error::DamagedSample { reason, .. } => {
                format!("its record is damaged: {reason}")
            }
            other => other.to_string(),
        },
    })?;
    let read = began.elapsed();
    *place.label = sample.label;
    *place.index = index;
    if let Some(mixing) = place.mixing {
        (*mixing.label, *mixing.weight) = (sample.label, 1.0);
    }
    let times = run
        .engine
        .pipeline
        .process(scratch, &sample, epoch, index, place.image)?;
    Ok(StageTotals {
        read,
        decode: times.decode,
        augment: times.crop + times.policy,
        write: times.write,
    })
}
