//! Which samples make up which batch: the arithmetic of epochs, steps and ranks.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::order::EpochOrder;
use crate::selection::{EpochSamples, Selection};

/// What becomes of the samples that do not fill the last batch of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastBatch {
    /// The last batch is short: every sample arrives once an epoch. Its remainder is shared evenly among the ranks.
    #[default]
    Pad,
    /// The remainder is left out (other samples in every epoch, as the order changes).
    Drop,
}

impl LastBatch {
    /// The name used in options and in the stream's description.
    pub fn name(self) -> &'static str {
        match self {
            LastBatch::Pad => "pad",
            LastBatch::Drop => "drop",
        }
    }
}

impl fmt::Display for LastBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A place in a run: an epoch and a step in it, both from 0. Written `EPOCH:STEP`.
///
/// ```
/// use ddas_loader::Position;
///
/// assert_eq!("3:120".parse(), Ok(Position { epoch: 3, step: 120 }));
/// assert!("3".parse::<Position>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Training epoch, from 0.
    pub epoch: u32,
    /// Step in the epoch, from 0.
    pub step: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.step)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Position, String> {
        let wrong = || format!("expected EPOCH:STEP, both from 0, such as 3:120; found {text:?}");
        let (epoch, step) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Position {
            epoch: epoch.parse().map_err(|_| wrong())?,
            step: step.parse().map_err(|_| wrong())?,
        })
    }
}

/// Why a run cannot be planned as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A size that must be positive is zero.
    #[error("{what} must be at least 1")]
    Zero {
        /// What was zero, as the option is called.
        what: &'static str,
    },
    /// The dataset is empty or too long.
    #[error(
        "the dataset has {samples} samples, expected 1 to {}",
        EpochOrder::MAX_LEN
    )]
    SampleCount {
        /// Samples in the dataset.
        samples: u64,
    },
    /// The world size does not divide the global batch.
    #[error(
        "world size {world_size} does not divide the global batch size {batch_size}; legal world sizes: {}",
        list(.legal)
    )]
    WorldSize {
        /// The world size asked for.
        world_size: u32,
        /// Samples of a global batch.
        batch_size: u32,
        /// Every world size that divides the batch.
        legal: Vec<u32>,
    },
    /// The stream has no such rank.
    #[error("there is no rank {rank}: the world size is {world_size}, so ranks are 0 to {}", .world_size - 1)]
    Rank {
        /// The rank asked for.
        rank: u32,
        /// Number of ranks.
        world_size: u32,
    },
    /// One slot would make workers and trainer take turns.
    #[error("slots must be at least 2: one is read while another is filled")]
    TooFewSlots,
    /// Mixing puts the samples of a batch together two by two.
    #[error(
        "batch size {batch_size} with world size {world_size}: MixUp and CutMix mix the samples of a batch two by two, \
         so each rank needs an even number of them; legal world sizes: {}",
        if .legal.is_empty() { "none, take an even batch size".to_owned() } else { list(.legal) }
    )]
    OddParts {
        /// The world size asked for.
        world_size: u32,
        /// Samples of a global batch.
        batch_size: u32,
        /// Every world size whose ranks get an even number.
        legal: Vec<u32>,
    },
    /// A run that mixes was not planned for it.
    #[error(
        "batches are mixed, but the plan does not keep pairs together: make it with RunPlan::in_pairs"
    )]
    NotInPairs,
    /// Leaving the short batch out leaves nothing.
    #[error(
        "the dataset has {samples} {}, fewer than one batch of {batch_size}, and the short last batch is to be \
         dropped: nothing is left; pad it, or take a smaller batch",
        if *samples == 1 { "sample" } else { "samples" }
    )]
    NothingLeft {
        /// Samples in the dataset.
        samples: u64,
        /// Samples of a global batch.
        batch_size: u32,
    },
    /// The start lies beyond the run.
    #[error("cannot start at {start}: the run has epochs 0 to {} of steps 0 to {}", .epochs - 1, .steps - 1)]
    Start {
        /// The start asked for.
        start: Position,
        /// Epochs of the run.
        epochs: u32,
        /// Steps of an epoch.
        steps: u64,
    },
}

fn list(sizes: &[u32]) -> String {
    sizes
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What a [`RunPlan`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Samples of an epoch: those of the dataset.
    pub samples: u64,
    /// Samples of a global batch, over all ranks.
    pub batch_size: u32,
    /// Number of ranks; must divide `batch_size`.
    pub world_size: u32,
    /// Epochs of the run; with a policy, the time over which its snapshots are spread.
    pub epochs: u32,
    /// What becomes of the last batch.
    pub last: LastBatch,
    /// Where the run begins.
    pub start: Position,
    /// Seed of the order (and of the augmentation).
    pub seed: u64,
}

/// Assigns every sample of every epoch to a step and a rank.
///
/// ```text
/// 10 samples, batches of 4, 2 ranks, pad     order   8 1 | 4 9 | 0 6 | 3 7 | 2 | 5
///                                            step    0     0     1     1     2   2
///                                            rank    0     1     0     1     0   1
/// ```
///
/// ```
/// use ddas_loader::{LastBatch, PlanOptions, Position, RunPlan};
///
/// let plan = RunPlan::new(PlanOptions {
///     samples: 10, batch_size: 4, world_size: 2, epochs: 3, last: LastBatch::Pad, start: Position::default(), seed: 0,
/// })?;
/// assert_eq!(plan.steps_per_epoch(), 3);
/// let sizes: Vec<usize> = plan.batches(0).map(|batch| batch.samples).collect();
/// assert_eq!(sizes, [2, 2, 1, 2, 2, 1, 2, 2, 1]);
/// # Ok::<(), ddas_loader::PlanError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RunPlan {
    options: PlanOptions,
    steps: u64,
    pairs: bool,
    /// Which samples the tickets of an epoch are; `None`: those of one dataset, each once.
    selection: Option<Arc<Selection>>,
}

/// The part of a global batch that goes to one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPart {
    /// Training epoch, from 0.
    pub epoch: u32,
    /// Step in the epoch, from 0.
    pub step: u64,
    /// The rank it goes to.
    pub rank: u32,
    /// Position of its first sample in the epoch's order.
    pub first: u64,
    /// Number of samples; smaller than [`RunPlan::rank_batch_size`] (even 0) only in the last step of an epoch.
    pub samples: usize,
    /// Whether this is the last step of the epoch.
    pub last_of_epoch: bool,
    /// Whether this is the last step of the last epoch.
    pub last_of_run: bool,
}

impl RunPlan {
    /// Checks the sizes against one another.
    ///
    /// # Errors
    /// [`PlanError`] naming the size that does not fit and what would.
    pub fn new(options: PlanOptions) -> Result<RunPlan, PlanError> {
        let PlanOptions {
            samples,
            batch_size,
            world_size,
            epochs,
            last,
            start,
            ..
        } = options;
        for (value, what) in [
            (batch_size, "batch size"),
            (world_size, "world size"),
            (epochs, "epochs"),
        ] {
            if value == 0 {
                return Err(PlanError::Zero { what });
            }
        }
        check_world_size(batch_size, world_size)?;
        if samples == 0 || samples > EpochOrder::MAX_LEN {
            return Err(PlanError::SampleCount { samples });
        }
        let steps = match last {
            LastBatch::Pad => samples.div_ceil(u64::from(batch_size)),
            LastBatch::Drop => samples / u64::from(batch_size),
        };
        if steps == 0 {
            return Err(PlanError::NothingLeft {
                samples,
                batch_size,
            });
        }
        RunPlan {
            options,
            steps,
            pairs: false,
            selection: None,
        }
        .starting_at(start)
    }

    /// The same plan, entered at `start`.
    ///
    /// # Errors
    /// [`PlanError::Start`] when there is no such place.
    pub fn starting_at(mut self, start: Position) -> Result<RunPlan, PlanError> {
        let (epochs, steps) = (self.options.epochs, self.steps);
        if start.epoch >= epochs || start.step >= steps {
            return Err(PlanError::Start {
                start,
                epochs,
                steps,
            });
        }
        self.options.start = start;
        Ok(self)
    }

    /// What the plan was made of.
    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// Steps (global batches) of every epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps
    }

    /// Samples that a rank gets in every full step.
    pub fn rank_batch_size(&self) -> usize {
        (self.options.batch_size / self.options.world_size) as usize
    }

    /// Samples that arrive in one epoch, over all ranks.
    pub fn samples_per_epoch(&self) -> u64 {
        self.options
            .samples
            .min(self.steps * u64::from(self.options.batch_size))
    }

    /// Batches that the whole run hands to one rank, from its start.
    pub fn batches_per_rank(&self) -> u64 {
        let PlanOptions { epochs, start, .. } = self.options;
        u64::from(epochs - start.epoch) * self.steps - start.step
    }

    /// The order of an epoch.
    pub fn order(&self, epoch: u32) -> EpochSamples {
        let PlanOptions { seed, samples, .. } = self.options;
        EpochSamples::new(seed, epoch, samples, self.selection.as_ref())
    }

    /// Takes the samples of `selection`, which has as many in an epoch as the plan.
    pub(crate) fn selecting(mut self, selection: Selection) -> RunPlan {
        debug_assert_eq!(selection.len(), self.options.samples);
        self.selection = Some(Arc::new(selection));
        self
    }

    /// The same plan with samples 2k and 2k + 1 of every batch on one rank, as mixing needs it: the parts of a full
    /// batch stay as they are, those of a short one are shared out pair by pair.
    ///
    /// # Errors
    /// [`PlanError::OddParts`] with every legal world size when the ranks' parts of a full batch are odd.
    pub fn in_pairs(self) -> Result<RunPlan, PlanError> {
        let PlanOptions {
            batch_size,
            world_size,
            ..
        } = self.options;
        if self.rank_batch_size().is_multiple_of(2) {
            return Ok(RunPlan {
                pairs: true,
                ..self
            });
        }
        Err(PlanError::OddParts {
            world_size,
            batch_size,
            legal: if batch_size.is_multiple_of(2) {
                divisors(batch_size / 2)
            } else {
                Vec::new()
            },
        })
    }

    /// Whether pairs are kept together ([`RunPlan::in_pairs`]).
    pub fn is_in_pairs(&self) -> bool {
        self.pairs
    }

    /// The part of one step that goes to `rank`.
    pub fn part(&self, epoch: u32, step: u64, rank: u32) -> BatchPart {
        let batch_size = u64::from(self.options.batch_size);
        let (world, rank_u64) = (u64::from(self.options.world_size), u64::from(rank));
        let begin = step * batch_size;
        let present = batch_size.min(self.options.samples - begin);
        // A full batch divides evenly; a short one gives every rank the same number or one less.
        let share = |things: u64| (things * rank_u64 / world, things * (rank_u64 + 1) / world);
        let (from, to) = if self.pairs {
            let (from, to) = share(present.div_ceil(2));
            (2 * from, (2 * to).min(present))
        } else {
            share(present)
        };
        BatchPart {
            epoch,
            step,
            rank,
            first: begin + from,
            samples: (to - from) as usize,
            last_of_epoch: step + 1 == self.steps,
            last_of_run: step + 1 == self.steps && epoch + 1 == self.options.epochs,
        }
    }

    /// All batches of `rank`, from the start of the run to its end.
    pub fn batches(&self, rank: u32) -> impl Iterator<Item = BatchPart> + '_ {
        let PlanOptions { epochs, start, .. } = self.options;
        (start.epoch..epochs).flat_map(move |epoch| {
            let from = if epoch == start.epoch { start.step } else { 0 };
            (from..self.steps).map(move |step| self.part(epoch, step, rank))
        })
    }
}

/// Checks that `world_size` divides the global batch.
///
/// # Errors
/// [`PlanError::WorldSize`] with every legal world size.
pub fn check_world_size(batch_size: u32, world_size: u32) -> Result<(), PlanError> {
    if world_size != 0 && batch_size.is_multiple_of(world_size) {
        return Ok(());
    }
    Err(PlanError::WorldSize {
        world_size,
        batch_size,
        legal: divisors(batch_size),
    })
}

/// The world sizes up to 4096 that divide `samples`.
fn divisors(samples: u32) -> Vec<u32> {
    (1..=samples.min(4096))
        .filter(|size| samples.is_multiple_of(*size))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(samples: u64, batch_size: u32, world_size: u32) -> PlanOptions {
        PlanOptions {
            samples,
            batch_size,
            world_size,
            epochs: 2,
            last: LastBatch::Pad,
            start: Position::default(),
            seed: 3,
        }
    }

    proptest! {
        /// The parts of all ranks, laid end to end, are the epoch: no gap, no overlap, in order.
        #[test]
        fn ranks_together_cover_every_epoch(samples in 1u64..500, per_rank in 1u32..20, world in 1u32..9, drop: bool) {
            let mut options = options(samples, per_rank * world, world);
            options.last = if drop { LastBatch::Drop } else { LastBatch::Pad };
            let Ok(plan) = RunPlan::new(options) else {
                prop_assert!(drop && samples < u64::from(per_rank * world));
                return Ok(());
            };
            let mut next = 0;
            for step in 0..plan.steps_per_epoch() {
                for rank in 0..world {
                    let part = plan.part(1, step, rank);
                    prop_assert_eq!(part.first, next);
                    prop_assert!(part.samples <= plan.rank_batch_size());
                    prop_assert_eq!(part.last_of_epoch, step + 1 == plan.steps_per_epoch());
                    next += part.samples as u64;
                }
            }
            prop_assert_eq!(next, plan.samples_per_epoch());
            prop_assert_eq!(next, if drop { samples - samples % u64::from(per_rank * world) } else { samples });
        }

        /// With pairs kept together: no gap, no overlap, every part begins at an even position, and no pair is split.
        #[test]
        fn pairs_stay_on_one_rank(samples in 1u64..500, pairs in 1u32..10, world in 1u32..9) {
            let plan = RunPlan::new(options(samples, 2 * pairs * world, world)).unwrap().in_pairs().unwrap();
            let plain = RunPlan::new(*plan.options()).unwrap();
            let mut next = 0;
            for step in 0..plan.steps_per_epoch() {
                for rank in 0..world {
                    let part = plan.part(0, step, rank);
                    prop_assert_eq!(part.first, next);
                    prop_assert!(part.samples <= plan.rank_batch_size());
                    next += part.samples as u64;
                    prop_assert!(next % 2 == 0 || next == samples);
                    if (step + 1) * u64::from(2 * pairs * world) <= samples {
                        prop_assert_eq!(part, plain.part(0, step, rank));
                    }
                }
            }
            prop_assert_eq!(next, samples);
        }

        /// A run entered in the middle continues as the run from the beginning would.
        #[test]
        fn a_late_start_is_the_tail_of_the_run(samples in 1u64..200, batch in 1u32..30, epoch in 0u32..2, step in 0u64..200) {
            let whole = RunPlan::new(options(samples, batch, 1)).unwrap();
            let start = Position { epoch, step: step % whole.steps_per_epoch() };
            let tail = RunPlan::new(PlanOptions { start, ..options(samples, batch, 1) }).unwrap();
            let batches: Vec<_> = tail.batches(0).collect();
            prop_assert_eq!(batches.iter().position(|batch| batch.last_of_run), Some(batches.len() - 1));
            let skipped = u64::from(epoch) * whole.steps_per_epoch() + start.step;
            prop_assert_eq!(batches.len() as u64, tail.batches_per_rank());
            prop_assert_eq!(batches, whole.batches(0).skip(skipped as usize).collect::<Vec<_>>());
        }
    }

    #[test]
    fn odd_parts_cannot_be_mixed() {
        let refused = |batch_size, world_size| {
            let plan = RunPlan::new(options(100, batch_size, world_size)).unwrap();
            plan.in_pairs().unwrap_err().to_string()
        };
        assert_eq!(
            refused(12, 4),
            "batch size 12 with world size 4: MixUp and CutMix mix the samples of a batch two by two, so each rank \
             needs an even number of them; legal world sizes: 1, 2, 3, 6"
        );
        assert!(refused(9, 3).ends_with("legal world sizes: none, take an even batch size"));
    }

    #[test]
    fn refusals_say_what_would_fit() {
        let message = |options| RunPlan::new(options).unwrap_err().to_string();
        assert_eq!(
            message(options(100, 12, 5)),
            "world size 5 does not divide the global batch size 12; legal world sizes: 1, 2, 3, 4, 6, 12"
        );
        assert!(
            message(PlanOptions {
                last: LastBatch::Drop,
                ..options(7, 8, 1)
            })
            .contains("7 samples, fewer than one batch of 8")
        );
        let late = PlanOptions {
            start: Position { epoch: 1, step: 13 },
            ..options(100, 8, 1)
        };
        assert_eq!(
            message(late),
            "cannot start at 1:13: the run has epochs 0 to 1 of steps 0 to 12"
        );
        assert_eq!(
            message(options(0, 8, 1)),
            format!("the dataset has 0 samples, expected 1 to {}", 1u64 << 40)
        );
        assert_eq!(message(options(8, 0, 1)), "batch size must be at least 1");
    }
}
