//! The daemon's side: name, rings, and the thread that admits and watches consumers.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::budget;
use super::control::{Control, Member};
use super::error::{Error, Result};
use super::layout::{Geometry, RingShape};
use super::names::{HeldName, runtime_dir};
use super::producer::{Outcome, Ring, RingWriter};
use super::protocol::{PROTOCOL, StreamInfo};
use super::socket;
use super::status::{
    ConsumerChange, ConsumerEvent, ConsumerStatus, Events, MemoryStatus, RankStatus, ServerStatus,
};
use rustix::event::EventfdFlags;

/// How a [`RingServer`] treats its consumers.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Consumers of each rank that must be connected before slots are written a second time.
    pub consumers: usize,
    /// After this long of holding back the ring a living consumer loses its slots; `None`: never.
    pub evict_after: Option<Duration>,
    /// Where socket and lock are made; `None`: [`runtime_dir`].
    pub dir: Option<PathBuf>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            consumers: 1,
            evict_after: None,
            dir: None,
        }
    }
}

type StatusSource = Box<dyn Fn() -> serde_json::Value + Send>;

/// What the control thread and the server's owner share.
pub(super) struct Inner {
    name: String,
    started: Instant,
    pub(super) rings: Vec<Arc<Ring>>,
    /// Joined consumers by connection number.
    pub(super) members: Mutex<HashMap<u64, Member>>,
    source: Mutex<Option<StatusSource>>,
    pub(super) events: Arc<Events>,
    /// Milliseconds after the start at which the control thread last went round.
    beat: AtomicU64,
    draining: AtomicBool,
}

impl Inner {
    pub(super) fn status(&self) -> ServerStatus {
        let daemon = match &*self.source.lock().unwrap_or_else(PoisonError::into_inner) {
            // A panic in the daemon's own figures must not end the watch over consumers.
            Some(source) => catch_unwind(AssertUnwindSafe(source)).unwrap_or_default(),
            None => serde_json::Value::Null,
        };
        let ring_bytes = self.rings.iter().map(|ring| ring.bytes()).sum();
        let ranks = self.rings.iter().map(|ring| self.rank_status(ring));
        ServerStatus {
            name: self.name.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            draining: self.draining.load(Ordering::Relaxed),
            memory: MemoryStatus::now(ring_bytes),
            ranks: ranks.collect(),
            daemon,
        }
    }

    /// The control thread is alive.
    pub(super) fn beat(&self) {
        let now = self.started.elapsed().as_millis() as u64;
        self.beat.store(now, Ordering::Relaxed);
    }

    fn rank_status(&self, ring: &Ring) -> RankStatus {
        let view = ring.view();
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let consumers = view.members.iter().map(|member| {
            let known = members.get(&member.id);
            ConsumerStatus {
                id: member.id,
                pid: known.and_then(|known| known.pid),
                name: known.map_or_else(String::new, |known| known.name.clone()),
                connected_seconds: known.map_or(0.0, |known| known.since.elapsed().as_secs_f64()),
                first: member.first,
                acknowledged: (member.first_unread > member.first)
                    .then(|| ring.info.position(member.first_unread - 1)),
                behind: (view.published + 1).saturating_sub(member.first_unread),
                waited_seconds: member.waited_seconds,
                waiting_seconds: member.waiting_seconds,
                holding_seconds: member.holding_seconds,
            }
        });
        let state = match view.outcome {
            Outcome::Finished => "finished",
            Outcome::Failed | Outcome::Closed => "failed",
            Outcome::Running if !view.opened || view.members.is_empty() => "waiting",
            Outcome::Running => "running",
        };
        let newest = (view.published > 0).then(|| ring.info.position(view.published));
        let writing = view.acquired.saturating_sub(view.published);
        let [recent, overall] = view.rates;
        RankStatus {
            rank: ring.info.rank,
            state: state.to_owned(),
            epoch: newest.map(|at| at.epoch),
            step: newest.map(|at| at.step),
            steps_per_epoch: ring.info.steps_per_epoch,
            epochs: ring.info.epochs,
            slots: ring.info.slots,
            free: u64::from(ring.info.slots).saturating_sub(writing + view.ready),
            writing,
            ready: view.ready,
            published: view.published,
            samples: view.figures.samples,
            recent,
            overall,
            slot_wait_seconds: view.figures.slot_wait_seconds(),
            slot_waits: view.figures.slot_waits,
            filling: view.figures.filling,
            joined: view.figures.joined,
            left: view.figures.left,
            evicted: view.figures.evicted,
            held_back_seconds: view.held_back.map(|time| time.as_secs_f64()),
            consumers: consumers.collect(),
            consumers_left_out: 0,
        }
    }
}

/// Looks at a [`RingServer`] from any thread, also while its owner is busy.
#[derive(Clone)]
pub struct StatusHandle(Arc<Inner>);

impl StatusHandle {
    /// What clients of the status request are told.
    pub fn status(&self) -> ServerStatus {
        self.0.status()
    }

    /// What has happened to consumers since the last call, oldest first; of very much, the newest.
    pub fn take_events(&self) -> Vec<ConsumerEvent> {
        let mut events = self.0.events.take();
        let members = self.0.members.lock();
        let members = members.unwrap_or_else(PoisonError::into_inner);
        for event in &mut events {
            // The writer that evicts does not know who that is.
            if let (ConsumerChange::Evicted, Some(member)) = (event.what, members.get(&event.id)) {
                (event.pid, event.name) = (member.pid, member.name.clone());
            }
        }
        events
    }

    /// Seconds since the thread that watches consumers last went round; it does so every second.
    pub fn silent_seconds(&self) -> f64 {
        let beat = Duration::from_millis(self.0.beat.load(Ordering::Relaxed));
        self.0.started.elapsed().saturating_sub(beat).as_secs_f64()
    }

    /// Says in the status that no new batch is begun.
    pub fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }
}

/// A named daemon: one ring per rank, and a thread that admits and watches consumers.
///
/// Dropping it removes the name. Consumers of a stream that was neither
/// finished nor aborted then get [`Error::DaemonDied`].
///
/// ```
/// use std::sync::atomic::AtomicBool;
/// use std::time::Duration;
///
/// use ddas_loader::ring::{BatchMeta, ConnectOptions, Consumer, RingServer, RingShape, ServerOptions, StreamInfo};
///
/// # let dir = std::env::temp_dir().join(format!("ddas-doc-{}", std::process::id()));
/// # let info: StreamInfo = serde_json::from_value(serde_json::json!({
/// #     "protocol": 2, "daemon_pid": 0, "dataset": "toy", "samples": 8, "classes": 2, "epochs": 1, "batch_size": 4,
/// #     "global_batch_size": 4, "steps_per_epoch": 2, "world_size": 1, "rank": 0, "dtype": "u8", "layout": "nhwc",
/// #     "shape": [2, 2, 3], "normalization": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}, "recipe": "toy",
/// #     "policy_digest": null, "seed": 0, "slots": 2, "start": {"epoch": 0, "step": 0}, "last": "pad"
/// # })).unwrap();
/// let shape = RingShape { slots: 2, batch_size: 4, sample_bytes: 2 * 2 * 3, mixes: false };
/// let options = ServerOptions { dir: Some(dir.clone()), ..ServerOptions::default() };
/// let server = RingServer::start("toy", vec![info], shape, options)?;
///
/// // The daemon fills a slot ...
/// let mut writer = server.writer(0)?;
/// let stop = AtomicBool::new(false);
/// let mut slot = writer.acquire(&stop, Duration::from_secs(1))?.expect("an empty ring has room");
/// slot.images_mut().fill(7);
/// slot.labels_mut()[0] = 1;
/// slot.publish(BatchMeta { epoch: 0, step: 0, samples: 1, snapshot: None, last_of_epoch: true })?;
/// server.finish(Duration::ZERO);
///
/// // ... and a trainer, usually another process, reads it.
/// let mut consumer = Consumer::connect("toy", ConnectOptions { dir: Some(dir), ..ConnectOptions::default() })?;
/// let batch = consumer.receive(Duration::from_secs(1))?.expect("one batch");
/// assert_eq!((batch.images(), batch.labels()), (&[7; 12][..], &[1][..]));
/// drop(batch); // releases the slot
/// assert!(consumer.receive(Duration::from_secs(1))?.is_none());
/// # Ok::<(), ddas_loader::ring::Error>(())
/// ```
pub struct RingServer {
    inner: Arc<Inner>,
    name: Option<HeldName>,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for RingServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingServer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl RingServer {
    /// Takes the name, allocates one ring per entry of `infos` (their order is the ranks'
    /// order) and admits consumers from now on.
    ///
    /// All memory is taken and touched here: what starts does not run out later.
    ///
    /// # Errors
    /// [`Error::NameHeld`], [`Error::BadName`], [`Error::BadShape`], [`Error::NoMemory`],
    /// [`Error::Io`].
    pub fn start(
        name: &str,
        infos: Vec<StreamInfo>,
        shape: RingShape,
        options: ServerOptions,
    ) -> Result<Self> {
        let geometry = Geometry::new(shape)?;
        if infos.is_empty() || infos.len() > 4096 {
            return Err(Error::BadShape {
                reason: format!("{} ranks, expected 1 to 4096", infos.len()),
            });
        }
        if options.consumers > super::MAX_CONSUMERS {
            return Err(Error::BadShape {
                reason: format!(
                    "{} consumers a ring, expected at most {}",
                    options.consumers,
                    super::MAX_CONSUMERS
                ),
            });
        }
        let dir = options.dir.clone().unwrap_or_else(runtime_dir);
        let held = HeldName::take(&dir, name)?;
        check_memory(&geometry, infos.len())?;

        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos() as u64;
        let mut rings = Vec::new();
        let events = Arc::new(Events::default());
        for (rank, mut info) in infos.into_iter().enumerate() {
            info.protocol = PROTOCOL;
            info.daemon_pid = std::process::id();
            info.rank = rank as u32;
            info.slots = shape.slots as u32;
            let generation = random_u64();
            let ring = Ring::create(
                info,
                geometry,
                generation,
                now,
                options.consumers,
                options.evict_after,
                Arc::clone(&events),
            )?;
            rings.push(Arc::new(ring));
        }

        let path = held.socket_path();
        let listener =
            socket::listen(path).map_err(|error| Error::io_at("listening on", path, error))?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Error::io("making an event descriptor", error))?;
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            started: Instant::now(),
            rings,
            members: Mutex::new(HashMap::new()),
            source: Mutex::new(None),
            events,
            beat: AtomicU64::new(0),
            draining: AtomicBool::new(false),
        });
        let control = Control::new(Arc::clone(&inner), listener, stop.as_fd())?;
        let thread = std::thread::Builder::new()
            .name("ddas-ring".to_owned())
            .spawn(move || control.run())
            .map_err(|error| Error::io("starting a thread", error))?;
        Ok(Self {
            inner,
            name: Some(held),
            stop,
            thread: Some(thread),
        })
    }

    /// The writing end of a rank's ring.
    ///
    /// # Errors
    /// [`Error::BadShape`] when there is no such rank.
    pub fn writer(&self, rank: u32) -> Result<RingWriter> {
        match self.inner.rings.get(rank as usize) {
            Some(ring) => Ok(RingWriter::new(Arc::clone(ring))),
            None => Err(Error::BadShape {
                reason: format!("rank {rank}, expected less than {}", self.inner.rings.len()),
            }),
        }
    }

    /// Whether a dead daemon's socket was in the way and has been removed.
    pub fn removed_stale_socket(&self) -> bool {
        self.name.as_ref().is_some_and(HeldName::removed_stale)
    }

    /// What clients of the status request are told.
    pub fn status(&self) -> ServerStatus {
        self.inner.status()
    }

    /// The same from any thread, for as long as anybody wants to know.
    pub fn status_handle(&self) -> StatusHandle {
        StatusHandle(Arc::clone(&self.inner))
    }

    /// Adds the result of `source` to each status, as `daemon`. It is called
    /// on the thread that watches consumers and must not wait.
    pub fn set_status_source(&self, source: impl Fn() -> serde_json::Value + Send + 'static) {
        *self
            .inner
            .source
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Box::new(source));
    }

    /// Ends the stream: consumers get `None` after the last published batch. Then waits, at
    /// most `grace`, until the asked number of consumers have joined and everything is
    /// released. Returns whether that happened; may be called again to wait longer.
    ///
    /// Consumers can still join until the server is dropped.
    pub fn finish(&self, grace: Duration) -> bool {
        self.inner.rings.iter().for_each(|ring| ring.end(None));
        let now = Instant::now();
        let deadline = now
            .checked_add(grace)
            .unwrap_or(now + Duration::from_secs(86_400));
        self.inner
            .rings
            .iter()
            .all(|ring| ring.wait_delivered(deadline))
    }

    /// Ends the stream with an error: after the batches already published, consumers get
    /// [`Error::Failed`] with `message` (cut to 1,536 bytes).
    pub fn abort(&self, message: &str) {
        self.inner
            .rings
            .iter()
            .for_each(|ring| ring.end(Some(message)));
    }
}

impl Drop for RingServer {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Writers that outlive the server must not wait for consumers that cannot come.
        self.inner.rings.iter().for_each(|ring| ring.close());
    }
}

fn check_memory(geometry: &Geometry, ranks: usize) -> Result<()> {
    let slots = geometry.shape.slots;
    let needed = (geometry.segment_bytes as u64).saturating_mul(ranks as u64);
    match budget::budget() {
        Some(budget) if needed > budget.available => Err(Error::NoMemory {
            needed,
            available: budget.available,
            limit: budget.limit,
            slots,
            ranks,
        }),
        _ => Ok(()),
    }
}

/// A number that tells one start of a daemon from another.
fn random_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}
