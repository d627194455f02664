//! The daemon's end of one ring: taking slots, filling them, publishing in order.

mod view;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::error::{Error, Result};
use super::figures::Figures;
use super::layout::{self, BatchMeta, Descriptor, Geometry, Header};
use super::ledger::{Acks, Ledger, Member, Room};
use super::protocol::{StartFrom, StreamInfo};
use super::segment::{Access, Segment};
use super::status::{ConsumerChange, ConsumerEvent, Events};
use super::sync;

/// Longest sleep before the stop flag is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A consumer's acknowledgement segment, seen from the daemon.
#[derive(Debug)]
pub(super) struct AckWords(Segment);

impl Acks for AckWords {
    fn released(&self, slot: usize) -> u64 {
        // Acquire: the consumer's reads of the slot are over before we write to it.
        // Partner: the release store when the consumer drops a batch.
        self.0
            .u64(layout::ACK_WORDS + 8 * slot)
            .load(Ordering::Acquire)
    }

    fn taken(&self) -> u64 {
        self.0.u64(layout::ACK_TAKEN).load(Ordering::Acquire)
    }
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Running,
    Finished,
    Failed,
    /// The server is gone without an end: consumers take it for dead.
    Closed,
}

/// What a consumer gets on joining.
pub(super) struct Joined {
    pub(super) first: u64,
    pub(super) ack: OwnedFd,
}

#[derive(Debug)]
struct State {
    ledger: Ledger<AckWords>,
    outcome: Outcome,
    figures: Figures,
    /// Since when consumers hold back the batch named.
    held_back: Option<(u64, Instant)>,
}

/// One rank's ring in the daemon, shared by its writers and the control thread.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) info: StreamInfo,
    pub(super) data_fd: OwnedFd,
    data: Segment,
    geometry: Geometry,
    header: Header,
    evict_after: Option<Duration>,
    state: Mutex<State>,
    changed: Condvar,
    events: Arc<Events>,
}

impl Ring {
    pub(super) fn create(
        info: StreamInfo,
        geometry: Geometry,
        generation: u64,
        start_time: u64,
        wanted: usize,
        evict_after: Option<Duration>,
        events: Arc<Events>,
    ) -> Result<Self> {
        let header = Header::new(&info, &geometry, generation, start_time)?;
        let (data, data_fd) =
            Segment::create("ddas-ring", geometry.segment_bytes, Access::DaemonOnly)?;
        data.copy_in(0, &header.encode());
        Ok(Self {
            info,
            data_fd,
            data,
            geometry,
            header,
            evict_after,
            state: Mutex::new(State {
                ledger: Ledger::new(geometry.shape.slots, wanted),
                outcome: Outcome::Running,
                figures: Figures::new(),
                held_back: None,
            }),
            changed: Condvar::new(),
            events,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing inside the lock can leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of shared memory.
    pub(super) fn bytes(&self) -> u64 {
        self.geometry.segment_bytes as u64
    }

    /// Admits a consumer: makes its acknowledgement segment and says where it starts.
    pub(super) fn join(&self, id: u64, start: StartFrom) -> Result<Joined> {
        let slots = self.geometry.shape.slots;
        let (segment, ack) =
            Segment::create("ddas-ack", Geometry::ack_bytes(slots), Access::Shared)?;
        let mut state = self.lock();
        let current = state.ledger.first_for_newcomer();
        let first = match start {
            StartFrom::Current => current,
            StartFrom::NextEpoch => self.next_epoch(current)?,
        };
        segment
            .u64(layout::ACK_GENERATION)
            .store(id, Ordering::Relaxed);
        segment
            .u64(layout::ACK_FIRST)
            .store(first, Ordering::Relaxed);
        for slot in 0..slots {
            segment
                .u64(layout::ACK_WORDS + 8 * slot)
                .store(first - 1, Ordering::Relaxed);
        }
        // A newcomer gets the whole time allowed, even if others have been holding back.
        state.held_back = None;
        state.ledger.join(Member {
            id,
            first,
            acks: AckWords(segment),
        });
        state.figures.joined += 1;
        self.changed.notify_all();
        Ok(Joined { first, ack })
    }

    /// The first batch from `sequence` on that begins an epoch.
    fn next_epoch(&self, sequence: u64) -> Result<u64> {
        let StreamInfo {
            epochs,
            steps_per_epoch,
            start,
            ..
        } = self.info;
        let steps = steps_per_epoch.max(1);
        // The steps of the run before batch `sequence`; numbers of a run are far from overflow.
        let before = u64::from(start.epoch) * steps + start.step + (sequence - 1);
        let epoch = before.div_ceil(steps);
        if epoch >= u64::from(epochs) {
            return Err(Error::Refused {
                reason: format!(
                    "there is no further epoch to wait for: the stream is at step {} of epoch {}, the last of {epochs}",
                    before % steps,
                    before / steps
                ),
            });
        }
        Ok(sequence + (epoch * steps - before))
    }

    /// Forgets a consumer that died or left; how far it was behind, unless it had been evicted.
    pub(super) fn leave(&self, id: u64) -> Option<u64> {
        let mut state = self.lock();
        let member = state.ledger.leave(id)?;
        state.figures.left += 1;
        self.changed.notify_all();
        let ledger = &state.ledger;
        Some((ledger.head() + 1).saturating_sub(ledger.first_unread(&member)))
    }

    /// A consumer says it has released something.
    pub(super) fn released(&self) {
        // The lock orders this with a writer that has looked and not yet slept.
        drop(self.lock());
        self.changed.notify_all();
    }

    pub(super) fn consumers(&self) -> usize {
        self.lock().ledger.live().len()
    }

    /// Ends the stream; only the first call counts.
    pub(super) fn end(&self, failure: Option<&str>) {
        let mut state = self.lock();
        if state.outcome != Outcome::Running {
            return;
        }
        let value = match failure {
            None => {
                state.outcome = Outcome::Finished;
                layout::STATE_FINISHED
            }
            Some(message) => {
                state.outcome = Outcome::Failed;
                let text = &message[..message.floor_char_boundary(layout::MESSAGE_CAPACITY)];
                self.data.copy_in(layout::MESSAGE, text.as_bytes());
                self.data
                    .u32(layout::MESSAGE_BYTES)
                    .store(text.len() as u32, Ordering::Relaxed);
                layout::STATE_FAILED
            }
        };
        // Release: whoever sees the state sees the message and the final head.
        self.data.u32(layout::STATE).store(value, Ordering::Release);
        self.wake();
        self.changed.notify_all();
    }

    /// Lets writers go without telling consumers anything.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if state.outcome == Outcome::Running {
            state.outcome = Outcome::Closed;
        }
        self.changed.notify_all();
    }

    /// Waits until everything published is read by everyone who should.
    pub(super) fn wait_delivered(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        loop {
            if state.ledger.delivered() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let timeout = left.min(LOOK_AGAIN);
            state = self
                .changed
                .wait_timeout(state, timeout)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn wake(&self) {
        let word = self.data.u32(layout::WAKE);
        // Release: who sees the new value sees the head or state behind it.
        word.fetch_add(1, Ordering::Release);
        sync::wake(word);
    }

    /// Takes slots back from living consumers. They notice by their generation.
    fn evict(&self, state: &mut State, ids: &[u64]) {
        for &id in ids {
            if let Some(member) = state.ledger.evict(id) {
                // 0 is no consumer's generation.
                member
                    .acks
                    .0
                    .u64(layout::ACK_GENERATION)
                    .store(0, Ordering::Release);
                state.figures.evicted += 1;
                self.events.push(ConsumerEvent {
                    at: SystemTime::now(),
                    rank: self.info.rank,
                    id,
                    pid: None,
                    name: String::new(),
                    what: ConsumerChange::Evicted,
                });
            }
        }
        // A consumer re-checks its generation after reading: its reads that saw our
        // coming writes must also see the new generation.
        fence(Ordering::SeqCst);
        self.wake();
        self.changed.notify_all();
    }

    fn try_acquire(&self, state: &mut State) -> Result<Option<u64>> {
        if state.outcome != Outcome::Running {
            return Err(Error::Closed);
        }
        if let Some(sequence) = state.ledger.missing() {
            return Err(Error::Abandoned { sequence });
        }
        loop {
            match state.ledger.room() {
                Room::Free => {
                    state.held_back = None;
                    return Ok(Some(state.ledger.acquire()));
                }
                Room::NoConsumers => {
                    state.held_back = None;
                    return Ok(None);
                }
                Room::Nonsense(ids) => self.evict(state, &ids),
                Room::HeldBy(ids) => {
                    let next = state.ledger.acquired() + 1;
                    let since = match state.held_back {
                        Some((sequence, since)) if sequence == next => since,
                        _ => {
                            let now = Instant::now();
                            state.held_back = Some((next, now));
                            now
                        }
                    };
                    match self.evict_after {
                        Some(limit) if since.elapsed() >= limit => self.evict(state, &ids),
                        _ => return Ok(None),
                    }
                }
            }
        }
    }

    fn acquire(
        self: &Arc<Self>,
        stop: &AtomicBool,
        timeout: Duration,
    ) -> Result<Option<WriteSlot>> {
        let asked = Instant::now();
        let deadline = asked.checked_add(timeout);
        let mut state = self.lock();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let since = *state.figures.waiting.get_or_insert(asked);
            if let Some(sequence) = self.try_acquire(&mut state)? {
                state.figures.got_slot(since);
                drop(state);
                return Ok(Some(WriteSlot::new(Arc::clone(self), sequence)));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let patience = match (self.evict_after, state.held_back) {
                (Some(limit), Some((_, since))) => limit.saturating_sub(since.elapsed()),
                _ => LOOK_AGAIN,
            };
            let nap = left.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN).min(patience);
            state = self
                .changed
                .wait_timeout(state, nap)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn publish(&self, sequence: u64, meta: BatchMeta, filled: Duration) -> Result<()> {
        let capacity = self.geometry.shape.batch_size;
        if meta.samples > capacity {
            return Err(Error::BadShape {
                reason: format!(
                    "a batch of {} samples in slots for {capacity}",
                    meta.samples
                ),
            });
        }
        let entry = self.geometry.entry(self.geometry.slot_of(sequence));
        let descriptor = Descriptor { sequence, meta };
        self.data
            .copy_in(entry + 8, &descriptor.encode(&self.geometry, &self.header));
        let mut state = self.lock();
        if state.outcome != Outcome::Running {
            return Err(Error::Closed);
        }
        let mut published = false;
        state.ledger.fill(sequence, |next| {
            let entry = self.geometry.entry(self.geometry.slot_of(next));
            // Release: whoever sees the sequence sees the payload and descriptor. Partner:
            // the consumer's acquire loads of the same two words.
            self.data.u64(entry).store(next, Ordering::Release);
            self.data.u64(layout::HEAD).store(next, Ordering::Release);
            published = true;
        });
        let head = state.ledger.head();
        state.figures.published(head, meta.samples, filled);
        drop(state);
        if published {
            self.wake();
        }
        Ok(())
    }
}

/// The daemon's writing end of one rank's ring.
///
/// Slots are handed out in sequence; several may be filled at the same time.
/// See [`RingServer`](super::RingServer) for an example.
#[derive(Debug)]
pub struct RingWriter {
    ring: Arc<Ring>,
}

impl RingWriter {
    pub(super) fn new(ring: Arc<Ring>) -> Self {
        Self { ring }
    }

    /// Waits for the next slot: until every living consumer has released the
    /// batch it held, at most `timeout`. `None` when the time is over or `stop` is set.
    ///
    /// Before the asked number of consumers have joined, and while none is
    /// left, only as many slots are handed out as the ring has.
    ///
    /// # Errors
    /// [`Error::Closed`] after the end of the stream, [`Error::Abandoned`] when an earlier slot
    /// was dropped unpublished and later ones are in use.
    pub fn acquire(&mut self, stop: &AtomicBool, timeout: Duration) -> Result<Option<WriteSlot>> {
        self.ring.acquire(stop, timeout)
    }
}

/// A slot to be filled with the next batch. Dropping it gives it back unread.
///
/// Arrays have room for a full batch, whatever its number of valid samples.
#[derive(Debug)]
pub struct WriteSlot {
    ring: Arc<Ring>,
    sequence: u64,
    begun: Instant,
    published: bool,
}

impl WriteSlot {
    fn new(ring: Arc<Ring>, sequence: u64) -> Self {
        let slot = Self {
            ring,
            sequence,
            begun: Instant::now(),
            published: false,
        };
        let word: &AtomicU64 = slot.ring.data.u64(slot.ring.geometry.entry(slot.slot()));
        // A reader that was evicted while reading sees that the slot has changed hands: by
        // the fence, reads that see later writes also see this 0.
        word.store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        slot
    }

    fn slot(&self) -> usize {
        self.ring.geometry.slot_of(self.sequence)
    }

    /// Sequence number of the batch, from 1.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Samples of a full batch.
    pub fn capacity(&self) -> usize {
        self.ring.geometry.shape.batch_size
    }

    /// All image arrays, one after another: `capacity * sample_bytes` bytes.
    pub fn images_mut(&mut self) -> &mut [u8] {
        let RingPlaces { images, .. } = self.places();
        let shape = self.ring.geometry.shape;
        // SAFETY: the ledger hands a slot out once at a time, no consumer reads it until it is
        // published, and `&mut self` excludes every other borrow of it.
        unsafe {
            self.ring
                .data
                .slice_mut(images, shape.batch_size * shape.sample_bytes)
        }
    }

    /// All labels, `capacity` of them.
    pub fn labels_mut(&mut self) -> &mut [i64] {
        // SAFETY: as for `images_mut`.
        unsafe {
            self.ring
                .data
                .slice_mut(self.places().labels, self.capacity())
        }
    }

    /// All sample indices, `capacity` of them.
    pub fn indices_mut(&mut self) -> &mut [u64] {
        // SAFETY: as for `images_mut`.
        unsafe {
            self.ring
                .data
                .slice_mut(self.places().indices, self.capacity())
        }
    }

    /// Room for what mixed batches have beside: `capacity` labels of partners, and as many weights, the share of each
    /// sample's own label. `None` in a ring of batches that are not mixed.
    pub fn mixing_mut(&mut self) -> Option<(&mut [i64], &mut [f32])> {
        let geometry = &self.ring.geometry;
        if !geometry.shape.mixes {
            return None;
        }
        let start = geometry.slot(self.slot());
        let (labels, weights) = (start + geometry.mixed_labels, start + geometry.weights);
        // SAFETY: as for `images_mut`; the two arrays do not overlap.
        unsafe {
            Some((
                self.ring.data.slice_mut(labels, self.capacity()),
                self.ring.data.slice_mut(weights, self.capacity()),
            ))
        }
    }

    fn places(&self) -> RingPlaces {
        let geometry = &self.ring.geometry;
        let start = geometry.slot(self.slot());
        RingPlaces {
            images: start,
            labels: start + geometry.labels,
            indices: start + geometry.indices,
        }
    }

    /// Hands the batch to the consumers. Batches become visible strictly in
    /// sequence: one published early waits for those before it.
    ///
    /// # Errors
    /// [`Error::BadShape`] when `meta.samples` exceeds the capacity, [`Error::Closed`] after
    /// the end of the stream.
    pub fn publish(mut self, meta: BatchMeta) -> Result<()> {
        self.ring
            .publish(self.sequence, meta, self.begun.elapsed())?;
        self.published = true;
        Ok(())
    }

    /// Hands the stream's last batch to the consumers of this ring, who get `None` after it; rings of other
    /// ranks go on. Every earlier batch must have been published.
    ///
    /// # Errors
    /// As [`WriteSlot::publish`].
    pub fn publish_last(mut self, meta: BatchMeta) -> Result<()> {
        self.ring
            .publish(self.sequence, meta, self.begun.elapsed())?;
        self.published = true;
        self.ring.end(None);
        Ok(())
    }
}

struct RingPlaces {
    images: usize,
    labels: usize,
    indices: usize,
}

impl Drop for WriteSlot {
    fn drop(&mut self) {
        if !self.published {
            self.ring.lock().ledger.abandon(self.sequence);
            self.ring.changed.notify_all();
        }
    }
}
