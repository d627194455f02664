//! A batch being filled by several workers at once.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::slot::BatchSlot;
use crate::error::{Error, Result};
use crate::plan::BatchPart;
use crate::selection::EpochSamples;

/// A batch between the moment its slot is acquired and the moment it is published.
///
/// Workers take disjoint ranges of its samples with [`Job::claim`]; whoever finishes the last range finds the job
/// complete.
pub(super) struct Job<S> {
    part: BatchPart,
    order: EpochSamples,
    images: *mut u8,
    labels: *mut i64,
    indices: *mut u64,
    /// Partners' labels and own weights, when batches are mixed.
    mixing: Option<(*mut i64, *mut f32)>,
    sample_bytes: usize,
    claimed: AtomicUsize,
    finished: AtomicUsize,
    slot: Mutex<Option<S>>,
}

// SAFETY: the pointers lead into the slot's memory, which any thread may touch (contract of `BatchSlot`); claims
// make sure that no two threads touch the same sample.
unsafe impl<S: Send> Send for Job<S> {}
// SAFETY: as above; through a shared reference a sample is reached only by the one claim that covers it.
unsafe impl<S: Send> Sync for Job<S> {}

/// Samples of a job that belong to one worker until [`Claim::finish`].
pub(super) struct Claim<'job, S> {
    job: &'job Job<S>,
    range: Range<usize>,
}

/// Where one sample goes.
pub(super) struct Place<'claim> {
    pub(super) image: &'claim mut [u8],
    pub(super) label: &'claim mut i64,
    pub(super) index: &'claim mut u64,
    pub(super) mixing: Option<MixingPlace<'claim>>,
}

/// Where one sample's share in a mixture goes.
pub(super) struct MixingPlace<'claim> {
    /// The partner's label.
    pub(super) label: &'claim mut i64,
    /// The share of its own label.
    pub(super) weight: &'claim mut f32,
}

impl<S: BatchSlot> Job<S> {
    /// A job whose batch is mixed when `mixes`.
    ///
    /// # Errors
    /// [`Error::SlotTooSmall`] when the batch does not fit.
    pub(super) fn new(
        part: BatchPart,
        order: EpochSamples,
        mut slot: S,
        sample_bytes: usize,
        mixes: bool,
    ) -> Result<Job<S>> {
        let too_small = |what, found, expected| Error::SlotTooSmall {
            rank: part.rank,
            what,
            found,
            expected,
        };
        let image_bytes = part.samples * sample_bytes;
        let images = slot.images_mut();
        if images.len() < image_bytes {
            return Err(too_small("bytes of images", images.len(), image_bytes));
        }
        let images = images.as_mut_ptr();
        let labels = slot.labels_mut();
        if labels.len() < part.samples {
            return Err(too_small("labels", labels.len(), part.samples));
        }
        let labels = labels.as_mut_ptr();
        let indices = slot.indices_mut();
        if indices.len() < part.samples {
            return Err(too_small("indices", indices.len(), part.samples));
        }
        let indices = indices.as_mut_ptr();
        let mixing = if mixes {
            let room = slot.mixing_mut();
            let found = room
                .as_ref()
                .map_or(0, |room| room.labels.len().min(room.weights.len()));
            if found < part.samples {
                return Err(too_small("mixed labels and weights", found, part.samples));
            }
            room.map(|room| (room.labels.as_mut_ptr(), room.weights.as_mut_ptr()))
        } else {
            None
        };
        Ok(Job {
            part,
            order,
            images,
            labels,
            indices,
            mixing,
            sample_bytes,
            claimed: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            slot: Mutex::new(Some(slot)),
        })
    }
}

impl<S> Job<S> {
    pub(super) fn part(&self) -> &BatchPart {
        &self.part
    }

    /// Whether every sample has been claimed.
    pub(super) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Relaxed) >= self.part.samples
    }

    /// Claims up to `most` samples; `None` when all are taken.
    pub(super) fn claim(&self, most: usize) -> Option<Claim<'_, S>> {
        // One thread at a time claims (under the queue's lock), but nothing here relies on it.
        let start = self.claimed.fetch_add(most, Ordering::Relaxed);
        let end = (start + most).min(self.part.samples);
        (start < end).then_some(Claim {
            job: self,
            range: start..end,
        })
    }

    /// Where the batch's sample `i` goes.
    ///
    /// # Safety
    /// `i` must be of a claim that is not finished yet, and no other place of that sample may be alive.
    unsafe fn place(&self, i: usize) -> Place<'_> {
        // SAFETY: `i < samples`, which `Job::new` checked against the length of each region. Claims of a job are
        // disjoint and the caller has one place of the sample, so nobody else reaches these elements. The slot is
        // neither published nor dropped before: `take_slot` needs every claim to have been finished, which consumes
        // it, and the job, borrowed here, owns the slot.
        unsafe {
            Place {
                image: std::slice::from_raw_parts_mut(
                    self.images.add(i * self.sample_bytes),
                    self.sample_bytes,
                ),
                label: &mut *self.labels.add(i),
                index: &mut *self.indices.add(i),
                mixing: self.mixing.map(|(labels, weights)| MixingPlace {
                    label: &mut *labels.add(i),
                    weight: &mut *weights.add(i),
                }),
            }
        }
    }

    /// Whether every sample is written.
    pub(super) fn is_complete(&self) -> bool {
        // Acquire: pairs with the Release of `Claim::finish`, so that all samples are visible to who publishes.
        self.finished.load(Ordering::Acquire) == self.part.samples
    }

    /// The slot of a complete job; `None` when it is not complete or was taken before.
    pub(super) fn take_slot(&self) -> Option<S> {
        if !self.is_complete() {
            return None;
        }
        self.slot
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl<S> Claim<'_, S> {
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The number, in the dataset, of the batch's sample `i`.
    pub(super) fn index(&self, i: usize) -> u64 {
        self.job.order.at(self.job.part.first + i as u64)
    }

    /// Where the batch's sample `i` goes.
    ///
    /// # Panics
    /// When `i` is not of this claim.
    pub(super) fn place(&mut self, i: usize) -> Place<'_> {
        assert!(
            self.range.contains(&i),
            "sample {i} is not among the claimed {:?}",
            self.range
        );
        // SAFETY: `i` is of this claim, and `&mut self` allows one call of `place` or `pair` at a time.
        unsafe { self.job.place(i) }
    }

    /// Where samples `i` and `i + 1` go.
    ///
    /// # Panics
    /// When one of them is not of this claim.
    pub(super) fn pair(&mut self, i: usize) -> [Place<'_>; 2] {
        assert!(
            self.range.start <= i && i + 1 < self.range.end,
            "samples {i} and {} are not among the claimed {:?}",
            i + 1,
            self.range
        );
        // SAFETY: both are of this claim, they differ, and `&mut self` allows one call of `place` or `pair` at a time.
        unsafe { [self.job.place(i), self.job.place(i + 1)] }
    }

    /// Gives the claim back with every sample written; whether the job is now complete.
    pub(super) fn finish(self) -> bool {
        let samples = self.range.len();
        // AcqRel: Release publishes this claim's writes, Acquire makes the last finisher see all others'.
        self.job.finished.fetch_add(samples, Ordering::AcqRel) + samples == self.job.part.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slot::{BatchSink, MemoryBatch, MemorySink};
    use crate::order::EpochOrder;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    fn job(samples: usize, room: usize) -> Result<Job<impl BatchSlot>> {
        let mut sink = MemorySink::new(1, room, 3, |_: &BatchPart, _: MemoryBatch<'_>| ());
        let slot = sink
            .acquire(&AtomicBool::new(false), Duration::ZERO)?
            .expect("a free slot");
        let part = BatchPart {
            epoch: 0,
            step: 0,
            rank: 0,
            first: 0,
            samples,
            last_of_epoch: true,
            last_of_run: true,
        };
        Job::new(part, EpochOrder::new(0, 0, 100).into(), slot, 3, true)
    }

    #[test]
    fn claims_are_disjoint_and_the_slot_leaves_only_when_all_are_finished() {
        let job = job(10, 16).unwrap();
        let mut claims: Vec<_> = std::iter::from_fn(|| job.claim(4)).collect();
        assert_eq!(
            claims.iter().map(Claim::range).collect::<Vec<_>>(),
            [0..4, 4..8, 8..10]
        );
        assert!(job.is_claimed());
        claims[1].place(4).image.fill(7);
        let [first, second] = claims[1].pair(6);
        first.image.fill(8);
        second.image.fill(9);
        *second.mixing.unwrap().weight = 0.25;
        let last = claims.pop().unwrap();
        for claim in claims {
            assert!(!claim.finish());
            assert!(job.take_slot().is_none());
        }
        assert!(last.finish());
        let mut slot = job.take_slot().unwrap();
        assert_eq!(slot.images_mut()[11..16], [0, 7, 7, 7, 0]);
        assert_eq!(slot.images_mut()[17..25], [0, 8, 8, 8, 9, 9, 9, 0]);
        assert_eq!(slot.mixing_mut().unwrap().weights[6..9], [0.0, 0.25, 0.0]);
        assert!(job.take_slot().is_none());
    }

    #[test]
    #[should_panic(expected = "not among the claimed")]
    fn a_claim_does_not_reach_beyond_itself() {
        let job = job(10, 16).unwrap();
        let mut claim = job.claim(4).unwrap();
        claim.place(4);
    }

    #[test]
    #[should_panic(expected = "samples 3 and 4 are not among the claimed 0..4")]
    fn a_pair_does_not_reach_beyond_its_claim() {
        let job = job(10, 16).unwrap();
        let mut claim = job.claim(4).unwrap();
        claim.pair(3);
    }

    #[test]
    fn a_batch_larger_than_its_slot_is_refused() {
        assert!(matches!(
            job(10, 9),
            Err(Error::SlotTooSmall {
                found: 27,
                expected: 30,
                ..
            })
        ));
    }
}
