//! The slots of an embedded loader: filled by workers, lent to the trainer, filled again.

use std::collections::VecDeque;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::mm::{MapFlags, ProtFlags};

use super::EmbeddedError;
use crate::engine::{BatchSink, BatchSlot, MixingRoom};
use crate::error::{Error, Result};
use crate::plan::BatchPart;
use crate::slot_memory::SlotMemory;

/// Regions of a slot begin at multiples of this, as in the ring.
const ALIGNMENT: usize = 64;

/// How the regions of a slot lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) batch_size: usize,
    pub(super) sample_bytes: usize,
    /// Whether batches carry partners' labels and weights.
    pub(super) mixes: bool,
}

impl Shape {
    fn image_bytes(self) -> usize {
        self.batch_size * self.sample_bytes
    }

    fn labels_at(self) -> usize {
        self.image_bytes().next_multiple_of(ALIGNMENT)
    }

    fn indices_at(self) -> usize {
        (self.labels_at() + 8 * self.batch_size).next_multiple_of(ALIGNMENT)
    }

    fn mixed_labels_at(self) -> usize {
        (self.indices_at() + 8 * self.batch_size).next_multiple_of(ALIGNMENT)
    }

    fn weights_at(self) -> usize {
        (self.mixed_labels_at() + 8 * self.batch_size).next_multiple_of(ALIGNMENT)
    }

    /// Bytes of a whole slot.
    pub(super) fn bytes(self) -> usize {
        if self.mixes {
            self.weights_at() + 4 * self.batch_size
        } else {
            self.indices_at() + 8 * self.batch_size
        }
    }
}

/// The memory of one slot: private pages of this process, zero until they are written.
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: plain memory that belongs to this value; no thread is special to it.
unsafe impl Send for Memory {}
// SAFETY: through a shared reference it is only read (`Lent`'s accessors).
unsafe impl Sync for Memory {}

impl Memory {
    fn new(bytes: usize) -> Result<Memory> {
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing of ours.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        start
            .ok()
            .and_then(|start| NonNull::new(start.cast()))
            .map(|start| Memory { start, bytes })
            .ok_or_else(|| Error::Io {
                action: format!("allocating a slot of {bytes} bytes"),
                source: std::io::ErrorKind::OutOfMemory.into(),
            })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, unmapped nowhere else; whoever drops it lends it to nobody.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// What workers and the trainer share.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) shape: Shape,
    pub(super) slots: usize,
    /// The process that made it. Looked at before the lock is: another thread may hold that at a fork.
    owner: u32,
    /// Address and bytes of every slot's memory, wherever it is at the moment: it is unmapped with the pool.
    regions: Vec<(usize, usize)>,
    state: Mutex<State>,
    /// A slot became free, a batch ready, or the run ended.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: Vec<Memory>,
    ready: VecDeque<(Memory, BatchPart, Option<u32>)>,
    /// Batches lent to the trainer.
    held: usize,
    /// How the run ended.
    outcome: Option<std::result::Result<(), String>>,
}

impl Pool {
    pub(super) fn new(shape: Shape, slots: usize) -> Result<Arc<Pool>> {
        let free = (0..slots)
            .map(|_| Memory::new(shape.bytes()))
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Pool {
            regions: free
                .iter()
                .map(|memory| (memory.start.as_ptr().addr(), memory.bytes))
                .collect(),
            shape,
            slots,
            owner: std::process::id(),
            state: Mutex::new(State {
                free,
                ready: VecDeque::with_capacity(slots),
                held: 0,
                outcome: None,
            }),
            changed: Condvar::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check_process(&self) -> std::result::Result<(), EmbeddedError> {
        let user = std::process::id();
        if user == self.owner {
            return Ok(());
        }
        Err(EmbeddedError::Forked {
            owner: self.owner,
            user,
        })
    }

    /// The memory of all slots. Batches that are out keep the pool, so that nothing is unmapped before it.
    pub(super) fn memory(self: &Arc<Self>) -> SlotMemory {
        SlotMemory::new(self.regions.clone(), true, Arc::clone(self) as _)
    }

    /// Wakes whoever waits, to look at flags that changed.
    pub(super) fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Says how the run ended; the trainer learns it after the batches that are ready.
    pub(super) fn end(&self, outcome: std::result::Result<(), String>) {
        self.lock().outcome = Some(outcome);
        self.changed.notify_all();
    }

    /// Takes back what is ready and not lent, for another run.
    pub(super) fn reset(&self) {
        let mut state = self.lock();
        let ready = std::mem::take(&mut state.ready);
        state.free.extend(ready.into_iter().map(|ready| ready.0));
        state.outcome = None;
    }

    pub(super) fn held(&self) -> usize {
        self.lock().held
    }

    /// Waits for the next batch; `None` when the run has ended.
    pub(super) fn receive(
        self: &Arc<Self>,
        timeout: Duration,
    ) -> std::result::Result<Option<(Lent, BatchPart, Option<u32>)>, EmbeddedError> {
        self.check_process()?;
        let begun = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some((memory, part, snapshot)) = state.ready.pop_front() {
                state.held += 1;
                let lent = Lent {
                    memory: Some(memory),
                    samples: part.samples,
                    pool: Arc::clone(self),
                };
                return Ok(Some((lent, part, snapshot)));
            }
            match &state.outcome {
                Some(Ok(())) => return Ok(None),
                Some(Err(message)) => {
                    return Err(EmbeddedError::Failed {
                        message: message.clone(),
                    });
                }
                None => {}
            }
            if state.held == self.slots {
                return Err(EmbeddedError::HoldsAllSlots { slots: self.slots });
            }
            let waited = begun.elapsed();
            let Some(left) = timeout.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Err(EmbeddedError::TimedOut { waited });
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Puts a slot back into circulation.
    fn give_back(&self, memory: Memory, was_held: bool) {
        let mut state = self.lock();
        state.free.push(memory);
        state.held -= usize::from(was_held);
        drop(state);
        self.changed.notify_all();
    }
}

/// Where the engine gets its slots.
pub(super) struct PoolSink(pub(super) Arc<Pool>);

impl BatchSink for PoolSink {
    type Slot = PoolSlot;

    fn acquire(&mut self, stop: &AtomicBool, timeout: Duration) -> Result<Option<PoolSlot>> {
        let pool = &self.0;
        let (mut state, _) = pool
            .changed
            .wait_timeout_while(pool.lock(), timeout, |state| {
                state.free.is_empty() && !stop.load(std::sync::atomic::Ordering::Acquire)
            })
            .unwrap_or_else(PoisonError::into_inner);
        Ok(state.free.pop().map(|memory| PoolSlot {
            memory: Some(memory),
            pool: Arc::clone(pool),
        }))
    }
}

/// A slot being filled; dropped unpublished, it is free again.
pub(super) struct PoolSlot {
    memory: Option<Memory>,
    pool: Arc<Pool>,
}

impl PoolSlot {
    fn region<T>(&mut self, at: usize, length: usize) -> &mut [T] {
        let Some(memory) = &mut self.memory else {
            return &mut [];
        };
        assert!(at.is_multiple_of(align_of::<T>()) && at + length * size_of::<T>() <= memory.bytes);
        // SAFETY: in bounds and aligned (checked above; the mapping begins at a page), initialised (mapped pages are
        // zero), numbers of which every bit pattern is valid; borrowed from `self`, which alone has the memory.
        unsafe { std::slice::from_raw_parts_mut(memory.start.as_ptr().add(at).cast(), length) }
    }
}

// SAFETY: the regions are disjoint parts of a mapping (`Shape`) that belongs to the slot alone and stays where it
// is when the slot is moved.
unsafe impl BatchSlot for PoolSlot {
    fn images_mut(&mut self) -> &mut [u8] {
        let shape = self.pool.shape;
        self.region(0, shape.image_bytes())
    }

    fn labels_mut(&mut self) -> &mut [i64] {
        let shape = self.pool.shape;
        self.region(shape.labels_at(), shape.batch_size)
    }

    fn indices_mut(&mut self) -> &mut [u64] {
        let shape = self.pool.shape;
        self.region(shape.indices_at(), shape.batch_size)
    }

    fn mixing_mut(&mut self) -> Option<MixingRoom<'_>> {
        let (shape, memory) = (self.pool.shape, self.memory.as_mut()?);
        if !shape.mixes {
            return None;
        }
        // SAFETY: in bounds and aligned, because `Shape` places and counts both arrays at multiples of 64 in a mapping
        // that begins at a page; they do not overlap; numbers of which every bit pattern is valid; borrowed from
        // `self`, which alone has the memory.
        unsafe {
            let at = |offset| memory.start.as_ptr().add(offset);
            Some(MixingRoom {
                labels: std::slice::from_raw_parts_mut(
                    at(shape.mixed_labels_at()).cast(),
                    shape.batch_size,
                ),
                weights: std::slice::from_raw_parts_mut(
                    at(shape.weights_at()).cast(),
                    shape.batch_size,
                ),
            })
        }
    }

    fn publish(mut self, part: &BatchPart, snapshot: Option<u32>) -> Result<()> {
        if let Some(memory) = self.memory.take() {
            self.pool.lock().ready.push_back((memory, *part, snapshot));
            self.pool.changed.notify_all();
        }
        Ok(())
    }
}

impl Drop for PoolSlot {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.pool.give_back(memory, false);
        }
    }
}

/// The memory of a batch that the trainer has; dropped, the slot is filled again.
#[derive(Debug)]
pub(super) struct Lent {
    memory: Option<Memory>,
    samples: usize,
    pool: Arc<Pool>,
}

impl Lent {
    fn region<T>(&self, at: usize, length: usize) -> &[T] {
        let Some(memory) = &self.memory else {
            return &[];
        };
        assert!(at.is_multiple_of(align_of::<T>()) && at + length * size_of::<T>() <= memory.bytes);
        // SAFETY: in bounds and aligned, initialised numbers (as in `PoolSlot::region`); no worker has the memory
        // while it is lent.
        unsafe { std::slice::from_raw_parts(memory.start.as_ptr().add(at).cast(), length) }
    }

    pub(super) fn images(&self) -> &[u8] {
        self.region(0, self.image_bytes())
    }

    pub(super) fn image_bytes(&self) -> usize {
        self.samples * self.pool.shape.sample_bytes
    }

    pub(super) fn labels(&self) -> &[i64] {
        self.region(self.pool.shape.labels_at(), self.samples)
    }

    pub(super) fn indices(&self) -> &[u64] {
        self.region(self.pool.shape.indices_at(), self.samples)
    }

    /// Partners' labels and weights.
    pub(super) fn mixing(&self) -> Option<(&[i64], &[f32])> {
        let shape = self.pool.shape;
        shape.mixes.then(|| {
            (
                self.region(shape.mixed_labels_at(), self.samples),
                self.region(shape.weights_at(), self.samples),
            )
        })
    }

    /// The first byte of the region at `at`.
    fn pointer(&self, at: usize) -> *mut u8 {
        self.memory.as_ref().map_or(ptr::null_mut(), |memory| {
            memory.start.as_ptr().wrapping_add(at)
        })
    }

    pub(super) fn images_ptr(&self) -> *mut u8 {
        self.pointer(0)
    }

    pub(super) fn labels_ptr(&self) -> *mut i64 {
        self.pointer(self.pool.shape.labels_at()).cast()
    }

    pub(super) fn indices_ptr(&self) -> *mut u64 {
        self.pointer(self.pool.shape.indices_at()).cast()
    }

    pub(super) fn mixing_ptrs(&self) -> Option<(*mut i64, *mut f32)> {
        let shape = self.pool.shape;
        shape.mixes.then(|| {
            (
                self.pointer(shape.mixed_labels_at()).cast(),
                self.pointer(shape.weights_at()).cast(),
            )
        })
    }

    pub(super) fn check_process(&self) -> std::result::Result<(), EmbeddedError> {
        self.pool.check_process()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else {
            return;
        };
        if self.check_process().is_ok() {
            self.pool.give_back(memory, true);
        } else {
            // In a fork nobody fills it again; the lock may be held by a thread that does not exist here.
            std::mem::forget(memory);
        }
    }
}
