//! What `serve` tells about itself while it runs: events, progress, health.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ddas_loader::ring::{ConsumerChange, ConsumerEvent};
use ddas_loader::{BadSampleEvent, Daemon, DaemonOptions, EpochReport, Observer, Progress, Stream};

use crate::http::{Answer, Server};
use crate::metrics;
use crate::notify::Notifier;
use crate::progress::Meter;
use crate::report;

/// How often the daemon is looked at.
const TICK: Duration = Duration::from_millis(200);
/// Ticks between two lines for the service manager.
const TICKS_PER_STATUS: u32 = 25;

/// Looks after a running daemon.
pub(crate) struct Watch {
    observer: Observer,
    meter: Meter,
    threads: usize,
    grace: Duration,
    total: u64,
}

impl Watch {
    /// Of a daemon that will hand over `total` batches.
    pub(crate) fn new(daemon: &Daemon, options: &DaemonOptions, total: u64) -> Watch {
        Watch {
            observer: daemon.observer(),
            meter: Meter::new("serving", "batches"),
            threads: options.threads,
            grace: options.grace,
            total,
        }
    }

    /// Answers a scraper.
    pub(crate) fn answer(&self, path: &str) -> Answer {
        metrics::answer(&self.observer, self.threads, path)
    }

    /// Tells what happens until `done`; the daemon is ready when this begins.
    pub(crate) fn run(&self, done: &AtomicBool, stop: &AtomicBool, mut notifier: Option<Notifier>) {
        let notify = |notifier: &Option<Notifier>, lines: &str| {
            if let Some(notifier) = notifier {
                notifier.tell(lines);
            }
        };
        notify(&notifier, "READY=1\nSTATUS=waiting for consumers");
        let beat = notifier.as_ref().and_then(Notifier::every);
        let tick = beat.map_or(TICK, |beat| TICK.min(beat / 2));
        let (mut draining, mut ill, mut ticks) = (false, false, 0u32);
        loop {
            let ended = done.load(Ordering::Acquire);
            let now = self.observer.progress();
            let state = self.state(&now);
            self.meter.set(now.batches, self.total, &state);
            self.tell_events();
            if stop.load(Ordering::Acquire) && !draining {
                draining = true;
                self.observer.set_draining();
                let grace = self.grace.as_secs_f64();
                tracing::info!(
                    event = "draining",
                    grace_seconds = grace,
                    "told to stop: no new batch is begun, consumers have {grace} s for what is ready"
                );
                notify(&notifier, "STOPPING=1\nSTATUS=draining");
            }
            if ended {
                if !draining {
                    notify(&notifier, "STOPPING=1\nSTATUS=done");
                }
                return;
            }
            match self.observer.ailment() {
                None => {
                    ill = false;
                    if let Some(notifier) = &mut notifier {
                        notifier.alive();
                    }
                }
                // The watchdog is not fed: the service manager does what its unit says.
                Some(what) if !ill => {
                    ill = true;
                    tracing::error!(event = "unhealthy", "{what}");
                }
                Some(_) => (),
            }
            if ticks.is_multiple_of(TICKS_PER_STATUS) && !draining && now.batches > 0 {
                notify(&notifier, &format!("STATUS={state}"));
            }
            ticks = ticks.wrapping_add(1);
            std::thread::park_timeout(tick);
        }
    }

    /// Where it is, in words.
    fn state(&self, now: &Progress) -> String {
        let place = now
            .epoch
            .map_or_else(String::new, |epoch| format!("epoch {epoch}, "));
        format!(
            "{place}{:.0} images/s, limit: {}",
            now.recent.images_per_second, now.recent.limit
        )
    }

    fn tell_events(&self) {
        self.observer
            .take_consumer_events()
            .iter()
            .for_each(consumer_changed);
        self.observer.take_bad_samples().iter().for_each(bad_sample);
    }
}

fn consumer_changed(event: &ConsumerEvent) {
    let ConsumerEvent {
        rank,
        id,
        pid,
        name,
        ..
    } = event;
    let process = match (pid, name.as_str()) {
        (Some(pid), "") => format!("process {pid}"),
        (Some(pid), name) => format!("process {pid} ({name})"),
        (None, _) => "process unknown".to_owned(),
    };
    let at = event
        .at
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64());
    let who = format!("consumer {id} of rank {rank}, {process}");
    match event.what {
        ConsumerChange::Joined { first } => tracing::info!(
            event = "consumer_joined",
            at,
            rank,
            consumer = id,
            pid,
            name,
            first,
            "{who}, joined at batch {first}"
        ),
        ConsumerChange::Left { behind, connected } => tracing::info!(
            event = "consumer_left",
            at,
            rank,
            consumer = id,
            pid,
            name,
            behind,
            connected_seconds = connected.as_secs_f64(),
            "{who}, left after {:.1} s, {} behind",
            connected.as_secs_f64(),
            report::counted(behind, "batch", "batches")
        ),
        ConsumerChange::Evicted => tracing::warn!(
            event = "consumer_evicted",
            at,
            rank,
            consumer = id,
            pid,
            name,
            "{who}, was evicted: it held the ring back for longer than --evict-after"
        ),
    }
}

fn bad_sample(bad: &BadSampleEvent) {
    let BadSampleEvent {
        at,
        index,
        key,
        reason,
        substitute,
        ..
    } = bad;
    let dataset = bad.dataset.display().to_string();
    tracing::warn!(
        event = "bad_sample",
        epoch = at.epoch,
        step = at.step,
        index,
        dataset,
        key,
        reason,
        substitute,
        "sample {key} of {dataset}, needed at {at}, is bad: {reason}; sample {substitute} came in its place"
    );
}

/// The line at the end of an epoch.
pub(crate) fn epoch_ended(report: &EpochReport) {
    tracing::info!(
        event = "epoch_end",
        epoch = report.epoch,
        steps = report.steps,
        images = report.samples,
        seconds = report.seconds,
        images_per_second = report.images_per_second,
        threads = report.threads,
        read_seconds = report.read_seconds,
        decode_seconds = report.decode_seconds,
        augment_seconds = report.augment_seconds,
        write_seconds = report.write_seconds,
        wait_seconds = report.wait_seconds,
        idle_seconds = report.idle_seconds,
        unattended_seconds = report.unattended_seconds,
        limited_by = report.limited_by,
        "{report}"
    );
}

/// The last line of a daemon that did not fail.
pub(crate) fn ended(progress: &Progress, stopped: bool) {
    let why = if stopped {
        "stopped by a signal"
    } else {
        "done"
    };
    tracing::info!(
        event = "end",
        stopped,
        batches = progress.batches,
        images = progress.samples,
        bad_samples = progress.bad_samples,
        substituted = progress.substituted,
        "{why}: {}, {}",
        report::counted(progress.batches, "batch", "batches"),
        report::counted(progress.samples, "image", "images"),
    );
    if progress.bad_samples > 0 {
        report::tell(&format!(
            "{} bad; another came in the place of one {}",
            report::counted(progress.bad_samples, "sample was", "samples were"),
            report::counted(progress.substituted, "time", "times"),
        ));
    }
}

/// Logs every setting of a daemon, once it is ready, with its description in words.
pub(crate) fn settings(
    stream: &Stream,
    options: &DaemonOptions,
) -> impl FnOnce(&Daemon, Option<&Server>, &str) + use<> {
    let infos = stream.infos(0);
    let plan = *stream.plan.options();
    let options = options.clone();
    let samples = stream.samples().to_string();
    let on_bad = format!("{:?}", stream.on_bad);
    move |daemon, server, description| {
        let shape = daemon.shape();
        let ring_bytes = shape.segment_bytes().unwrap_or(0) as u64 * u64::from(plan.world_size);
        let metrics = server.map(|server| format!("http://{}/metrics", server.address()));
        let Some(info) = infos.first() else { return };
        let with_metrics = metrics
            .as_ref()
            .map_or_else(String::new, |metrics| format!("; metrics at {metrics}"));
        tracing::info!(
            event = "start",
            version = env!("CARGO_PKG_VERSION"),
            pid = std::process::id(),
            name = options.name,
            socket = %daemon.socket().display(),
            dataset = info.dataset,
            dataset_hash = info.dataset_hash,
            samples = info.samples,
            selection = samples,
            classes = info.classes,
            recipe = info.recipe,
            recipe_digest = info.recipe_digest,
            policy_digest = info.policy_digest,
            seed = info.seed,
            epochs = info.epochs,
            steps_per_epoch = info.steps_per_epoch,
            batch_size = info.global_batch_size,
            world_size = info.world_size,
            dtype = info.dtype,
            layout = info.layout,
            last = info.last,
            start = %plan.start,
            mixes = info.mixes,
            threads = options.threads,
            slots = shape.slots,
            consumers = options.consumers,
            evict_after_seconds = options.evict_after.map(|time| time.as_secs_f64()),
            grace_seconds = options.grace.as_secs_f64(),
            on_bad,
            ring_bytes,
            metrics,
            "ready: {description}{with_metrics}"
        );
    }
}
