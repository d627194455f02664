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
use crate::sources::SourcesReader;

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

/// Samples a worker takes at once: a quarter of its fair share, so that no worker ends much later than another, and
/// at most 16, so that a slow sample does not hold many back. Samples that are mixed are taken in pairs.
fn claim_size(samples: usize, threads: usize, pairs: bool) -> usize {
    let fair = (samples / (threads * 4)).clamp(1, 16);
    if pairs {
        fair.next_multiple_of(2)
    } else {
        fair
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
    for i in claim.range() {
        let index = claim.index(i);
        let at = Position {
            epoch: part.epoch,
            step: part.step,
        };
        // The scratch may be left in any state by a panic; it is not used again, because a panic ends the run.
        let made = catch_unwind(AssertUnwindSafe(|| {
            fill_one(run, reader, scratch, part.epoch, index, &mut claim, i)
        }));
        let times = match made {
            Ok(Ok(times)) => times,
            Ok(Err(cause)) => run.engine.replace(at, index, cause, &mut |other| {
                fill_one(run, reader, scratch, part.epoch, other, &mut claim, i)
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
    index: u64,
    claim: &mut Claim<'_, S>,
    i: usize,
) -> std::result::Result<StageTotals, Box<dyn std::error::Error + Send + Sync>> {
    let place = claim.place(i);
    let began = Instant::now();
    let sample = reader
        .get(index)
        .map_err(|source| Error::Damaged { source })?;
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
