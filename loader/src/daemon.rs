//! The daemon: dataset -> engine -> rings, from the first offer to the last acknowledgement.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::engine::{
    BadSampleEvent, BatchSink, BatchSlot, Engine, EpochReport, MixingRoom, Progress,
};
use crate::error::{Result, one_line};
use crate::plan::BatchPart;
use crate::ring::{
    self, BatchMeta, ConsumerEvent, RingServer, RingShape, RingWriter, ServerOptions, ServerStatus,
    StatusHandle, WriteSlot,
};
use crate::stream::Stream;

/// How a stream is offered.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// Name under which consumers find it.
    pub name: String,
    /// Worker threads.
    pub threads: usize,
    /// Slots of each ring; `None` takes [`DaemonOptions::DEFAULT_SLOTS`] or what fits into memory.
    pub slots: Option<usize>,
    /// Consumers of each ring to wait for before batches are taken out of circulation.
    pub consumers: usize,
    /// After how long a consumer that holds the ring back is put out; `None`: never.
    pub evict_after: Option<Duration>,
    /// How long consumers may still take batches after a stop was asked for.
    pub grace: Duration,
}

impl DaemonOptions {
    /// Slots of each ring when nothing else is asked for and memory allows.
    pub const DEFAULT_SLOTS: usize = 4;
}

/// A stream on offer: its name is held, its rings are allocated, consumers can join.
pub struct Daemon {
    name: String,
    server: Arc<RingServer>,
    engine: Arc<Engine>,
    shape: RingShape,
    grace: Duration,
}

/// What there is to see of a [`Daemon`] from outside the thread that runs it.
#[derive(Clone)]
pub struct Observer {
    ring: StatusHandle,
    engine: Arc<Engine>,
}

impl Observer {
    /// Workers that have got nothing done for so long, with work at hand, are stuck.
    const STUCK: f64 = 60.0;
    /// The control thread goes round every second.
    const SILENT: f64 = 10.0;

    /// How far it is and where the time goes.
    pub fn progress(&self) -> Progress {
        self.engine.progress()
    }

    /// Rings and consumers; what `status --json` prints.
    pub fn status(&self) -> ServerStatus {
        self.ring.status()
    }

    /// What has happened to consumers since the last call.
    pub fn take_consumer_events(&self) -> Vec<ConsumerEvent> {
        self.ring.take_events()
    }

    /// Bad samples that were replaced since the last call.
    pub fn take_bad_samples(&self) -> Vec<BadSampleEvent> {
        self.engine.take_bad_samples()
    }

    /// Says in the status that the daemon was told to stop.
    pub fn set_draining(&self) {
        self.ring.set_draining();
    }

    /// What is wrong with the daemon's threads, in words; `None` when they are well. Waiting for a trainer is well.
    pub fn ailment(&self) -> Option<String> {
        let silent = self.ring.silent_seconds();
        if silent > Self::SILENT {
            return Some(format!(
                "the thread that watches consumers has been silent for {silent:.0} s"
            ));
        }
        let stalled = self.engine.progress().stalled_seconds;
        (stalled > Self::STUCK)
            .then(|| format!("no worker has finished anything for {stalled:.0} s"))
    }
}

/// How often a daemon that waits for its consumers looks whether it should stop.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Daemon {
    /// Takes the name, allocates the rings and admits consumers. Nothing is decoded before [`Daemon::run`].
    ///
    /// # Errors
    /// [`Error::Ring`](crate::Error::Ring) when the name is held or the rings do not fit into memory.
    pub fn start(stream: Stream, options: &DaemonOptions) -> Result<Daemon> {
        let server_options = ServerOptions {
            consumers: options.consumers,
            evict_after: options.evict_after,
            ..ServerOptions::default()
        };
        let mut slots = options.slots.unwrap_or(DaemonOptions::DEFAULT_SLOTS);
        let (server, shape) = loop {
            let shape = RingShape {
                slots,
                batch_size: stream.plan.rank_batch_size(),
                sample_bytes: stream.pipeline.sample_bytes(),
                mixes: stream.pipeline.mix().is_some(),
            };
            match RingServer::start(
                &options.name,
                stream.infos(slots),
                shape,
                server_options.clone(),
            ) {
                Ok(server) => break (server, shape),
                // Two slots still let workers and trainer work at the same time.
                Err(ring::Error::NoMemory { .. }) if options.slots.is_none() && slots > 2 => {
                    slots -= 1
                }
                Err(error) => return Err(error.into()),
            }
        };
        let engine = Engine::new(
            stream.dataset,
            stream.pipeline,
            stream.plan,
            options.threads,
        );
        let engine = Arc::new(engine.on_bad(stream.on_bad)?);
        let source = Arc::clone(&engine);
        server
            .set_status_source(move || serde_json::to_value(source.progress()).unwrap_or_default());
        Ok(Daemon {
            name: options.name.clone(),
            server: Arc::new(server),
            engine,
            shape,
            grace: options.grace,
        })
    }

    /// The socket at which consumers join.
    pub fn socket(&self) -> PathBuf {
        ring::runtime_dir().join(format!("{}.sock", self.name))
    }

    /// Whether the socket of a daemon that had died was in the way and has been removed.
    pub fn removed_stale_socket(&self) -> bool {
        self.server.removed_stale_socket()
    }

    /// Slots, batch and sample size of each ring.
    pub fn shape(&self) -> RingShape {
        self.shape
    }

    /// Looks at it from any thread, also after it has ended.
    pub fn observer(&self) -> Observer {
        Observer {
            ring: self.server.status_handle(),
            engine: Arc::clone(&self.engine),
        }
    }

    /// Serves the whole plan and returns when consumers have taken everything.
    ///
    /// When `stop` is raised no new batch is begun; consumers may still take what is ready, for as long as the grace
    /// period says, and then find the stream finished. `on_epoch` is called at the end of every epoch.
    ///
    /// # Errors
    /// What ended the stream early; consumers get the same message.
    pub fn run(
        self,
        stop: &AtomicBool,
        on_epoch: &(dyn Fn(&EpochReport) + Sync),
    ) -> Result<Progress> {
        let ranks = self.engine.plan().options().world_size;
        let sink = |rank| {
            Ok(RingSink {
                writer: self.server.writer(rank)?,
                server: Arc::clone(&self.server),
            })
        };
        let sinks = (0..ranks).map(sink).collect::<Result<Vec<_>>>()?;
        match self.engine.run(sinks, stop, on_epoch) {
            Ok(progress) => {
                self.drain(stop);
                Ok(progress)
            }
            Err(error) => {
                self.server.abort(&one_line(&error));
                Err(error)
            }
        }
    }

    /// Lets consumers take what is published: as long as it takes. The grace period ends the wait once a stop was
    /// asked for, and once the consumers have gone without having received everything: one that crashed may come back
    /// for the batches it has not read. A trainer that exits with the last batch still in its hands has received it,
    /// which the ring knows: it is not waited for.
    fn drain(&self, stop: &AtomicBool) {
        let slots = self.shape.slots as u64 * u64::from(self.engine.plan().options().world_size);
        let mut visited = self.engine.progress().batches > slots;
        let (mut stopped, mut left) = (None, None);
        while !self.server.finish(LOOK_AGAIN) {
            let attended = is_attended(&self.server);
            visited |= attended;
            let over = |since: &mut Option<Instant>| {
                since.get_or_insert_with(Instant::now).elapsed() >= self.grace
            };
            if stop.load(Ordering::Acquire) && (!attended || over(&mut stopped)) {
                break;
            }
            if attended {
                left = None;
            } else if visited && over(&mut left) {
                break;
            }
        }
    }
}

/// Whether any ring has a living consumer.
fn is_attended(server: &RingServer) -> bool {
    server
        .status()
        .ranks
        .iter()
        .any(|rank| !rank.consumers.is_empty())
}

/// One rank's ring as a place for batches.
struct RingSink {
    writer: RingWriter,
    server: Arc<RingServer>,
}

impl BatchSink for RingSink {
    type Slot = WriteSlot;

    fn acquire(&mut self, stop: &AtomicBool, timeout: Duration) -> Result<Option<WriteSlot>> {
        Ok(self.writer.acquire(stop, timeout)?)
    }

    fn attended(&self) -> bool {
        is_attended(&self.server)
    }
}

// SAFETY: the arrays of a ring's slot are separate parts of the daemon's own mapping, which lives and
// stays in place as long as the slot; consumers read them only once the slot is published.
unsafe impl BatchSlot for WriteSlot {
    fn images_mut(&mut self) -> &mut [u8] {
        WriteSlot::images_mut(self)
    }

    fn labels_mut(&mut self) -> &mut [i64] {
        WriteSlot::labels_mut(self)
    }

    fn indices_mut(&mut self) -> &mut [u64] {
        WriteSlot::indices_mut(self)
    }

    fn mixing_mut(&mut self) -> Option<MixingRoom<'_>> {
        WriteSlot::mixing_mut(self).map(|(labels, weights)| MixingRoom { labels, weights })
    }

    fn publish(self, part: &BatchPart, snapshot: Option<u32>) -> Result<()> {
        let BatchPart {
            epoch,
            step,
            samples,
            last_of_epoch,
            last_of_run,
            ..
        } = *part;
        let meta = BatchMeta {
            epoch,
            step,
            samples,
            snapshot,
            last_of_epoch,
        };
        // A rank that is served ends there, even if the trainers of other ranks are behind or have not come yet.
        let published = if last_of_run {
            self.publish_last(meta)
        } else {
            WriteSlot::publish(self, meta)
        };
        Ok(published?)
    }
}
