//! Where batches are written: the ring's slots, or plain memory.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::Result;
use crate::plan::BatchPart;

/// Hands out the slots of one rank, in the order in which its batches will be published.
pub trait BatchSink: Send {
    /// A place for one batch.
    type Slot: BatchSlot;

    /// Waits until a slot is free, but no longer than `timeout`; `None` when none became free or `stop` was raised.
    ///
    /// # Errors
    /// When no batch can be handed over any more.
    fn acquire(&mut self, stop: &AtomicBool, timeout: Duration) -> Result<Option<Self::Slot>>;

    /// Whether somebody is there to take batches. Time without anybody is not counted as waiting for the trainer.
    fn attended(&self) -> bool {
        true
    }
}

/// A place for one batch; dropping it unpublished gives it up.
///
/// # Safety
/// The regions must not overlap. They must stay where they are, readable and writable by any thread, and be
/// touched by nobody else until the slot is published or dropped, even when the slot value itself is moved.
pub unsafe trait BatchSlot: Send {
    /// Room for the images, one after the other, without gaps.
    fn images_mut(&mut self) -> &mut [u8];
    /// Room for the labels.
    fn labels_mut(&mut self) -> &mut [i64];
    /// Room for the samples' numbers.
    fn indices_mut(&mut self) -> &mut [u64];
    /// Room for what mixing adds; `None` where batches cannot be mixed. Asked for only when they are.
    fn mixing_mut(&mut self) -> Option<MixingRoom<'_>> {
        None
    }
    /// Hands the finished batch over. `snapshot` is the number of the policy snapshot that augmented it; after a
    /// part that is the last of the run, none comes for this rank.
    ///
    /// # Errors
    /// When the batch cannot be handed over.
    fn publish(self, part: &BatchPart, snapshot: Option<u32>) -> Result<()>;
}

/// Room for what mixed batches have beside their labels.
pub struct MixingRoom<'slot> {
    /// The labels of the samples' partners.
    pub labels: &'slot mut [i64],
    /// The share of each sample's own label.
    pub weights: &'slot mut [f32],
}

/// A finished batch of a [`MemorySink`].
#[derive(Clone, Copy, Debug)]
pub struct MemoryBatch<'slot> {
    /// The images, one after the other, without gaps.
    pub images: &'slot [u8],
    /// Their labels.
    pub labels: &'slot [i64],
    /// Their numbers in the dataset.
    pub indices: &'slot [u64],
    /// The labels of the samples' partners; empty when batches are not mixed.
    pub mixed_labels: &'slot [i64],
    /// The share of each sample's own label, 0 to 1; empty when batches are not mixed.
    pub weights: &'slot [f32],
}

/// A sink of plain memory whose trainer takes every batch at once: it measures the loader alone.
///
/// `received` sees every batch in order, before its memory is used again.
pub struct MemorySink<F> {
    pool: Arc<Pool>,
    received: Arc<F>,
}

struct Pool {
    free: Mutex<Vec<Buffers>>,
    freed: Condvar,
}

#[derive(Default)]
struct Buffers {
    images: AlignedBytes,
    labels: Vec<i64>,
    indices: Vec<u64>,
    /// Made when they are asked for first.
    mixed_labels: Vec<i64>,
    weights: Vec<f32>,
}

/// Zeros at first, from the beginning of a line of the cache on, as in the slots of a ring.
#[derive(Default)]
struct AlignedBytes {
    memory: Vec<u8>,
    first: usize,
    length: usize,
}

impl AlignedBytes {
    const ALIGNMENT: usize = 64;

    fn new(length: usize) -> AlignedBytes {
        let memory = vec![0; length + AlignedBytes::ALIGNMENT];
        // The memory stays where it is: the vector does not grow.
        let first = memory.as_ptr().align_offset(AlignedBytes::ALIGNMENT);
        AlignedBytes {
            memory,
            first: first.min(AlignedBytes::ALIGNMENT),
            length,
        }
    }

    fn as_slice(&self) -> &[u8] {
        &self.memory[self.first..self.first + self.length]
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.first..self.first + self.length]
    }
}

/// A slot of a [`MemorySink`].
pub struct MemorySlot<F> {
    buffers: Buffers,
    pool: Arc<Pool>,
    received: Arc<F>,
}

impl<F> MemorySink<F>
where
    F: Fn(&BatchPart, MemoryBatch<'_>) + Send + Sync,
{
    /// A sink of `slots` batches of `batch_size` samples of `sample_bytes` each.
    pub fn new(slots: usize, batch_size: usize, sample_bytes: usize, received: F) -> MemorySink<F> {
        let buffers = || Buffers {
            images: AlignedBytes::new(batch_size * sample_bytes),
            labels: vec![0; batch_size],
            indices: vec![0; batch_size],
            ..Buffers::default()
        };
        let free = Mutex::new((0..slots).map(|_| buffers()).collect());
        MemorySink {
            pool: Arc::new(Pool {
                free,
                freed: Condvar::new(),
            }),
            received: Arc::new(received),
        }
    }
}

/// The same slots once more, for another run when this one has ended.
impl<F> Clone for MemorySink<F> {
    fn clone(&self) -> Self {
        MemorySink {
            pool: Arc::clone(&self.pool),
            received: Arc::clone(&self.received),
        }
    }
}

impl<F> BatchSink for MemorySink<F>
where
    F: Fn(&BatchPart, MemoryBatch<'_>) + Send + Sync,
{
    type Slot = MemorySlot<F>;

    fn acquire(&mut self, _stop: &AtomicBool, timeout: Duration) -> Result<Option<MemorySlot<F>>> {
        let free = self
            .pool
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (mut free, _) = self
            .pool
            .freed
            .wait_timeout_while(free, timeout, |free| free.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        Ok(free.pop().map(|buffers| MemorySlot {
            buffers,
            pool: Arc::clone(&self.pool),
            received: Arc::clone(&self.received),
        }))
    }
}

// SAFETY: separate heap allocations, owned by the slot alone; moving a `Vec` does not move its elements.
unsafe impl<F> BatchSlot for MemorySlot<F>
where
    F: Fn(&BatchPart, MemoryBatch<'_>) + Send + Sync,
{
    fn images_mut(&mut self) -> &mut [u8] {
        self.buffers.images.as_mut_slice()
    }

    fn labels_mut(&mut self) -> &mut [i64] {
        &mut self.buffers.labels
    }

    fn indices_mut(&mut self) -> &mut [u64] {
        &mut self.buffers.indices
    }

    fn mixing_mut(&mut self) -> Option<MixingRoom<'_>> {
        let Buffers {
            labels,
            mixed_labels,
            weights,
            ..
        } = &mut self.buffers;
        mixed_labels.resize(labels.len(), 0);
        weights.resize(labels.len(), 0.0);
        Some(MixingRoom {
            labels: mixed_labels,
            weights,
        })
    }

    fn publish(mut self, part: &BatchPart, _snapshot: Option<u32>) -> Result<()> {
        let Buffers {
            images,
            labels,
            indices,
            mixed_labels,
            weights,
        } = &self.buffers;
        let images = images.as_slice();
        let sample_bytes = images.len() / labels.len().max(1);
        let n = part.samples;
        let batch = MemoryBatch {
            images: &images[..n * sample_bytes],
            labels: &labels[..n],
            indices: &indices[..n],
            mixed_labels: &mixed_labels[..n.min(mixed_labels.len())],
            weights: &weights[..n.min(weights.len())],
        };
        (self.received)(part, batch);
        self.pool
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(std::mem::take(&mut self.buffers));
        self.pool.freed.notify_one();
        Ok(())
    }
}
