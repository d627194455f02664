//! The trainer's end: joining a daemon, receiving batches, releasing them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

use super::error::{Error, Result};
use super::greeting::{died, introduce};
use super::layout::{self, BatchMeta, Descriptor, FIXED_BYTES, Geometry, Header};
use super::names::runtime_dir;
use super::protocol::{Hello, PROTOCOL, Reply, Request, StartFrom, StreamInfo};
use super::segment::Segment;
use super::socket;
use super::sync::{self, load_acquire, load_acquire_u32, monotonic_nanoseconds};
use crate::slot_memory::SlotMemory;

/// A ready batch is often only a moment away: look this long before sleeping.
const SPIN: Duration = Duration::from_micros(20);
/// Longest sleep before the daemon's life is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How to find and join a daemon.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Whose ring to read.
    pub rank: u32,
    /// Where in the stream to begin.
    pub start: StartFrom,
    /// How long to wait for a daemon of that name to start; zero: it must run now.
    pub timeout: Duration,
    /// Where its socket is; `None`: [`runtime_dir`].
    pub dir: Option<PathBuf>,
}

/// What consumer and batches share.
#[derive(Debug)]
struct Shared {
    info: StreamInfo,
    header: Header,
    geometry: Geometry,
    data: Arc<Segment>,
    ack: Segment,
    released: OwnedFd,
    socket: OwnedFd,
    pidfd: Option<OwnedFd>,
    daemon: Option<u32>,
    generation: u64,
    /// The process that connected; a forked child must not touch the ring.
    owner: u32,
    /// Batches handed out and not yet released, and which, by slot (0: none).
    held: AtomicUsize,
    taken: Box<[AtomicU64]>,
}

impl Shared {
    fn check_process(&self) -> Result<()> {
        let user = std::process::id();
        if user == self.owner {
            Ok(())
        } else {
            Err(Error::Forked {
                owner: self.owner,
                user,
            })
        }
    }

    fn evicted(&self) -> bool {
        let generation = load_acquire(self.ack.u64(layout::ACK_GENERATION));
        // 0 from the start: put out between the daemon's answer and our first look at the word.
        generation == 0 || generation != self.generation
    }

    fn daemon_gone(&self) -> bool {
        // The daemon sends nothing after its answer: a readable socket is a closed one.
        let readable = match &self.pidfd {
            Some(pidfd) => {
                socket::wait_readable([self.socket.as_fd(), pidfd.as_fd()], Duration::ZERO)
                    .map(|ready| ready.contains(&true))
            }
            None => socket::wait_readable([self.socket.as_fd()], Duration::ZERO)
                .map(|ready| ready.contains(&true)),
        };
        readable.unwrap_or(true)
    }

    fn failure(&self) -> String {
        let length = load_acquire_u32(self.data.u32(layout::MESSAGE_BYTES)) as usize;
        let mut text = vec![0; length.min(layout::MESSAGE_CAPACITY)];
        self.data.copy_to(layout::MESSAGE, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.check_process().is_ok() {
            // A forked child may hold a copy of the socket: closing alone would not end it.
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        }
    }
}

/// A place in a daemon's stream: receives every batch of its rank, in order, from where it
/// joined.
///
/// Consumers that join before any slot is written a second time get the stream from its
/// beginning; later ones from the next batch published, or from the next epoch ([`StartFrom`]). See
/// [`RingServer`](super::RingServer) for an example.
///
/// It belongs to the process that connected: in a forked child every call is an
/// [`Error::Forked`].
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    next: u64,
}

impl Consumer {
    /// Joins the daemon called `name`.
    ///
    /// # Errors
    /// [`Error::NoSuchDaemon`] (none, or one that was just ending), [`Error::VersionMismatch`],
    /// [`Error::Refused`] (no such rank, too many consumers), [`Error::TimedOut`], [`Error::Io`].
    pub fn connect(name: &str, options: ConnectOptions) -> Result<Self> {
        let dir = options.dir.unwrap_or_else(runtime_dir);
        let hello = Hello {
            protocol: PROTOCOL,
            request: Request::Join,
            rank: options.rank,
            start: options.start,
        };
        let (socket, reply, descriptors) = introduce(&dir, name, options.timeout, &hello)?;
        match reply {
            Reply::Joined { info, first } => Self::open(socket, *info, first, descriptors),
            Reply::Version(daemon) => Err(Error::VersionMismatch {
                daemon,
                consumer: PROTOCOL,
            }),
            Reply::Refused(reason) => Err(Error::Refused { reason }),
            Reply::Status(_) => Err(Error::malformed(
                "answer",
                "a status instead of an admission",
            )),
        }
    }

    fn open(
        socket: OwnedFd,
        info: StreamInfo,
        first: u64,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self> {
        let Ok([data, ack, released]) = <[OwnedFd; 3]>::try_from(descriptors) else {
            return Err(Error::malformed("answer", "expected 3 descriptors"));
        };
        let data = Arc::new(Segment::open(&data, false)?);
        let (header, geometry) = Header::decode(&data.copy_out::<FIXED_BYTES>(0), data.bytes())?;
        let ack = Segment::open(&ack, true)?;
        let slots = geometry.shape.slots;
        if ack.bytes() < Geometry::ack_bytes(slots) {
            return Err(Error::malformed(
                "acknowledgement segment",
                format!("only {} bytes", ack.bytes()),
            ));
        }
        if first == 0 {
            return Err(Error::malformed(
                "answer",
                "first batch 0, expected 1 or more",
            ));
        }
        let generation = load_acquire(ack.u64(layout::ACK_GENERATION));
        let peer = socket::peer(&socket).map_err(|error| died(error, "looking at the daemon"))?;
        let shared = Shared {
            info,
            header,
            geometry,
            data,
            ack,
            released,
            socket,
            daemon: peer.pid,
            pidfd: peer.pidfd,
            generation,
            owner: std::process::id(),
            held: AtomicUsize::new(0),
            taken: (0..slots).map(|_| AtomicU64::new(0)).collect(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            next: first,
        })
    }

    /// What the daemon said about the stream.
    pub fn info(&self) -> &StreamInfo {
        &self.shared.info
    }

    /// Batches still to be published before this consumer's next one: not 0 while it waits for the next epoch.
    pub fn ahead(&self) -> u64 {
        let head = load_acquire(self.shared.data.u64(layout::HEAD));
        self.next.saturating_sub(head + 1)
    }

    /// The shared memory that this consumer's batches lie in, mapped for reading. It stays mapped as long as the value
    /// lives, and does not keep the connection.
    pub fn memory(&self) -> SlotMemory {
        let data = &self.shared.data;
        let region = (data.address(), data.bytes());
        SlotMemory::new(vec![region], false, Arc::clone(data) as _)
    }

    /// Batches received and not yet released.
    pub fn held(&self) -> usize {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// Waits for the next batch, at most `timeout`; `None` once the stream has ended.
    ///
    /// # Errors
    /// [`Error::HoldsAllSlots`] at once when this consumer itself holds the slot that is needed,
    /// [`Error::DaemonDied`] within a fraction of a second, [`Error::Failed`], [`Error::Evicted`],
    /// [`Error::Forked`], [`Error::TimedOut`].
    pub fn receive(&mut self, timeout: Duration) -> Result<Option<ReadBatch>> {
        self.shared.check_process()?;
        let begun = Instant::now();
        let mut wait = None;
        let mut checked = false;
        loop {
            let shared = &self.shared;
            let wake = shared.data.u32(layout::WAKE);
            // Before the looks below: a change after them also changes this word, so that the
            // sleep does not begin.
            let seen = load_acquire_u32(wake);
            let state = load_acquire_u32(shared.data.u32(layout::STATE));
            let head = load_acquire(shared.data.u64(layout::HEAD));
            if shared.evicted() {
                return Err(Error::Evicted);
            }
            let ready = head >= self.next;
            match (state, ready) {
                (layout::STATE_RUNNING, _) => {
                    if !checked && shared.daemon_gone() && !self.ended() {
                        return Err(Error::DaemonDied { pid: shared.daemon });
                    }
                    checked = true;
                }
                (_, true) => {}
                (layout::STATE_FINISHED, false) => return Ok(None),
                (_, false) => {
                    return Err(Error::Failed {
                        message: shared.failure(),
                    });
                }
            }
            if ready {
                return self.take().map(Some);
            }
            let slot = shared.geometry.slot_of(self.next);
            if shared.taken[slot].load(Ordering::Relaxed) != 0 {
                return Err(Error::HoldsAllSlots {
                    held: self.held(),
                    slots: shared.geometry.shape.slots,
                });
            }
            let waited = begun.elapsed();
            if waited < SPIN {
                std::hint::spin_loop();
                continue;
            }
            let Some(left) = timeout.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Err(Error::TimedOut {
                    what: "the next batch",
                    waited,
                    advice: "the daemon lives but has published nothing; see whether it waits for other \
                             consumers (`ddas-loader status`), or allow more time",
                });
            };
            wait.get_or_insert_with(|| Wait::begin(&self.shared));
            sync::wait(wake, seen, left.min(LOOK_AGAIN));
            checked = false;
        }
    }

    /// Whether the stream has been ended properly.
    fn ended(&self) -> bool {
        load_acquire_u32(self.shared.data.u32(layout::STATE)) != layout::STATE_RUNNING
    }

    fn take(&mut self) -> Result<ReadBatch> {
        let shared = &self.shared;
        let sequence = self.next;
        let slot = shared.geometry.slot_of(sequence);
        let entry = shared.geometry.entry(slot);
        let found = load_acquire(shared.data.u64(entry));
        let bytes = shared.data.copy_out(entry + 8);
        let descriptor = Descriptor::decode(&bytes, sequence, &shared.geometry, &shared.header);
        if shared.evicted() {
            return Err(Error::Evicted);
        }
        if found != sequence {
            return Err(Error::malformed(
                "slot table",
                format!("slot {slot} holds batch {found}, expected {sequence}"),
            ));
        }
        let meta = descriptor?.meta;
        shared.taken[slot].store(sequence, Ordering::Relaxed);
        shared.held.fetch_add(1, Ordering::Relaxed);
        shared
            .ack
            .u64(layout::ACK_TAKEN_AT)
            .store(monotonic_nanoseconds(), Ordering::Relaxed);
        shared
            .ack
            .u64(layout::ACK_TAKEN)
            .store(sequence, Ordering::Release);
        self.next += 1;
        Ok(ReadBatch {
            shared: Arc::clone(&self.shared),
            meta,
            sequence,
            slot,
        })
    }
}

/// Tells the daemon, for its status, that this consumer waits, from when on and in the end for how long. Waits that
/// do not come to sleep are not told.
struct Wait {
    shared: Arc<Shared>,
    since: u64,
}

impl Wait {
    fn begin(shared: &Arc<Shared>) -> Wait {
        let since = monotonic_nanoseconds();
        let word = shared.ack.u64(layout::ACK_WAITING_SINCE);
        word.store(since, Ordering::Relaxed);
        Wait {
            shared: Arc::clone(shared),
            since,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let waited = monotonic_nanoseconds().saturating_sub(self.since);
        // Only this consumer writes these words.
        let ack = &self.shared.ack;
        let total = ack.u64(layout::ACK_WAITED);
        let sum = total.load(Ordering::Relaxed).saturating_add(waited.max(1));
        total.store(sum, Ordering::Relaxed);
        ack.u64(layout::ACK_WAITING_SINCE)
            .store(0, Ordering::Relaxed);
    }
}

/// A batch in shared memory. Dropping it releases the slot.
///
/// The arrays are read-only: writing through them would be a fault. When the
/// daemon evicts slow consumers (`--evict-after`), call [`validate`](Self::validate) after reading.
#[derive(Debug)]
pub struct ReadBatch {
    shared: Arc<Shared>,
    meta: BatchMeta,
    sequence: u64,
    slot: usize,
}

impl ReadBatch {
    /// Image arrays of the valid samples, one after another, in the stream's dtype and layout.
    pub fn images(&self) -> &[u8] {
        let bytes = self.meta.samples * self.shared.geometry.shape.sample_bytes;
        // SAFETY: the daemon does not write to the slot before this batch is dropped, unless it
        // evicts this consumer; bytes read then are plain numbers still, and `validate` tells.
        unsafe { self.shared.data.slice(self.start(), bytes) }
    }

    /// Labels of the valid samples.
    pub fn labels(&self) -> &[i64] {
        let at = self.start() + self.shared.geometry.labels;
        // SAFETY: as for `images`.
        unsafe { self.shared.data.slice(at, self.meta.samples) }
    }

    /// Indices in the dataset of the valid samples.
    pub fn indices(&self) -> &[u64] {
        let at = self.start() + self.shared.geometry.indices;
        // SAFETY: as for `images`.
        unsafe { self.shared.data.slice(at, self.meta.samples) }
    }

    /// Labels of the partners that the valid samples were mixed with, their own label where they were not; `None` in
    /// a stream that does not mix.
    pub fn mixed_labels(&self) -> Option<&[i64]> {
        let geometry = &self.shared.geometry;
        let at = self.start() + geometry.mixed_labels;
        // SAFETY: as for `images`.
        geometry
            .shape
            .mixes
            .then(|| unsafe { self.shared.data.slice(at, self.meta.samples) })
    }

    /// The share of each valid sample's own label, 0 to 1: the loss is `weight * loss(label) + (1 - weight) *
    /// loss(mixed label)`. `None` in a stream that does not mix.
    pub fn weights(&self) -> Option<&[f32]> {
        let geometry = &self.shared.geometry;
        let at = self.start() + geometry.weights;
        // SAFETY: as for `images`.
        geometry
            .shape
            .mixes
            .then(|| unsafe { self.shared.data.slice(at, self.meta.samples) })
    }

    fn start(&self) -> usize {
        self.shared.geometry.slot(self.slot)
    }

    /// Whether everything read from this batch so far was this batch.
    ///
    /// # Errors
    /// [`Error::Evicted`] when the daemon has taken the slot back: what was
    /// read may be torn. [`Error::Forked`] in a forked child.
    pub fn validate(&self) -> Result<()> {
        self.shared.check_process()?;
        // Reads of the payload stay before the looks at generation and sequence. Partners: the
        // fences when the daemon evicts and when it takes the slot for writing.
        fence(Ordering::SeqCst);
        let entry = self.shared.geometry.entry(self.slot);
        if self.shared.evicted() || load_acquire(self.shared.data.u64(entry)) != self.sequence {
            return Err(Error::Evicted);
        }
        Ok(())
    }

    /// Training epoch, from 0.
    pub fn epoch(&self) -> u32 {
        self.meta.epoch
    }

    /// Batch of the epoch, from 0.
    pub fn step(&self) -> u64 {
        self.meta.step
    }

    /// Valid samples.
    pub fn samples(&self) -> usize {
        self.meta.samples
    }

    /// Number of the policy snapshot used; `None` without a policy.
    pub fn snapshot(&self) -> Option<u32> {
        self.meta.snapshot
    }

    /// Whether the epoch ends with this batch.
    pub fn last_of_epoch(&self) -> bool {
        self.meta.last_of_epoch
    }

    /// Number of the batch in the stream, from 1.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Shape of [`images`](Self::images): samples, then one sample's shape.
    pub fn shape(&self) -> [usize; 4] {
        let [a, b, c] = self.shared.info.shape;
        [self.meta.samples, a, b, c]
    }

    /// What the daemon said about the stream.
    pub fn info(&self) -> &StreamInfo {
        &self.shared.info
    }
}

impl Drop for ReadBatch {
    fn drop(&mut self) {
        let shared = &self.shared;
        if shared.check_process().is_err() {
            return;
        }
        // Release: our reads of the slot are over. Partner: the daemon's acquire load before it
        // hands the slot to a writer.
        shared
            .ack
            .u64(layout::ACK_WORDS + 8 * self.slot)
            .store(self.sequence, Ordering::Release);
        shared.taken[self.slot].store(0, Ordering::Relaxed);
        shared.held.fetch_sub(1, Ordering::Relaxed);
        let _ = rustix::io::write(&shared.released, &1_u64.to_ne_bytes());
    }
}
