//! `serve`: the daemon.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, value_parser};
use ddas_loader::{Daemon, DaemonOptions, Position, Stream};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::http;
use crate::notify::Notifier;
use crate::observe::{self, Watch};
use crate::options::{Batches, Last, StreamArguments, daemon_name, default_threads};
use crate::report;
use crate::samples::StreamToOpen;

/// Serves augmented batches of a dataset to trainers in other processes.
///
/// Ends when every epoch has been taken. SIGTERM, SIGINT or SIGHUP: no new batch is begun, consumers may take what is ready
/// within the grace period, exit status 0; a second signal ends at once. The socket lies in $DDAS_RUNTIME_DIR, else in
/// $XDG_RUNTIME_DIR/ddas, else in /tmp/ddas-UID.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    stream: StreamArguments,

    /// Name under which consumers find the stream: 1 to 64 of A-Z a-z 0-9 . _ -
    #[arg(long, value_parser = daemon_name)]
    name: String,

    /// Epochs of the training run; a policy's snapshots are spread over them.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    epochs: u32,

    /// Samples of a global batch; each rank gets the WORLD-SIZEth part.
    #[arg(long, value_name = "B", value_parser = value_parser!(u32).range(1..))]
    batch_size: u32,

    /// Number of ranks, each with a ring of its own; must divide the batch size.
    #[arg(long, value_name = "W", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    world_size: u32,

    /// Worker threads [default: all cores].
    #[arg(long, value_name = "T", value_parser = value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,

    /// Batches each ring holds [default: 4, or what fits into memory].
    #[arg(long, value_name = "K", value_parser = value_parser!(u32).range(2..=1024))]
    slots: Option<u32>,

    /// Consumers of each rank that must have joined before a slot is written again: with 2, both see every batch.
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = value_parser!(u32).range(1..=64))]
    consumers: u32,

    /// Where to begin: an epoch and a step in it, both from 0.
    #[arg(long, value_name = "EPOCH:STEP", default_value = "0:0")]
    start: Position,

    /// What becomes of the samples that do not fill the last batch of an epoch.
    #[arg(long, value_enum, default_value = "pad")]
    last: Last,

    /// Put a consumer out that has held the ring back for this long [default: never].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    evict_after: Option<Duration>,

    /// How long consumers may take ready batches after SIGTERM or SIGINT, and how long, at the end of the stream, the
    /// daemon waits for a consumer that has left with batches unread.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    grace: Duration,

    /// Serve figures for Prometheus at http://ADDR/metrics and the daemon's health at /healthz. A port alone listens on the
    /// loopback interface; 0.0.0.0:PORT on all [default: off].
    #[arg(long, value_name = "ADDR", value_parser = http::address)]
    metrics: Option<SocketAddr>,
}

/// A number of seconds, as a flag; 0 is allowed.
pub(crate) fn seconds_or_none(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0.0) => Ok(Duration::ZERO),
        _ => seconds(text),
    }
}

/// A positive number of seconds, as a flag.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("expected a number of seconds above 0, such as 30 or 0.5; found {text:?}");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if seconds <= 0.0 || seconds.is_nan() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

impl Arguments {
    fn resolve(self) -> anyhow::Result<(StreamToOpen, DaemonOptions)> {
        let daemon = DaemonOptions {
            name: self.name,
            threads: self
                .threads
                .map_or_else(default_threads, |threads| threads as usize),
            slots: self.slots.map(|slots| slots as usize),
            consumers: self.consumers as usize,
            evict_after: self.evict_after,
            grace: self.grace,
        };
        let stream = self.stream.resolve(Batches {
            epochs: self.epochs,
            batch_size: self.batch_size,
            world_size: self.world_size,
            last: self.last,
            start: self.start,
        })?;
        Ok((stream, daemon))
    }
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let metrics = arguments.metrics;
    let (stream, options) = arguments.resolve()?;
    let stop = stop_on_signals()?;
    let notifier = Notifier::from_environment().context("NOTIFY_SOCKET")?;
    let stream = stream.open()?;
    // Before anything is offered: a trainer must not join a daemon that ends at once.
    let server = metrics.map(bind).transpose()?;
    let settings = observe::settings(&stream, &options);
    let description = describe(&stream, &options);
    let total = stream.plan.batches_per_rank() * u64::from(stream.options().world_size);
    let daemon = Daemon::start(stream, &options)?;
    if daemon.removed_stale_socket() {
        let name = &options.name;
        tracing::warn!(
            event = "stale_socket",
            name,
            "removed the socket that a dead daemon named `{name}` had left"
        );
    }
    settings(&daemon, server.as_ref(), &description(&daemon));

    let done = AtomicBool::new(false);
    let watch = Watch::new(&daemon, &options, total);
    let outcome = std::thread::scope(|scope| {
        let (watch, done, stop) = (&watch, &done, &*stop);
        if let Some(server) = server {
            scope.spawn(move || server.run(done, &|path| watch.answer(path)));
        }
        let ticker = scope.spawn(move || watch.run(done, stop, notifier));
        let outcome = daemon.run(stop, &|epoch| observe::epoch_ended(epoch));
        done.store(true, Ordering::Release);
        ticker.thread().unpark();
        outcome
    });
    drop(watch);
    observe::ended(&outcome?, stop.load(Ordering::Acquire));
    Ok(())
}

/// Takes the port of the metrics.
fn bind(address: SocketAddr) -> anyhow::Result<http::Server> {
    http::Server::bind(address).with_context(|| {
        format!(
            "cannot listen on {address} for --metrics; give another port, or 0 for any that is free"
        )
    })
}

/// A flag that SIGTERM, SIGINT and SIGHUP raise; a second signal ends the process with 128 + its number.
pub(crate) fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    // SIGHUP comes when the terminal is closed; under `nohup` it stays ignored.
    let hang_up = (!ignores_hang_up()).then_some(SIGHUP);
    for signal in [SIGTERM, SIGINT].into_iter().chain(hang_up) {
        // In this order: the first signal finds the flag down, and then raises it.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .context("installing signal handlers")?;
    }
    Ok(stop)
}

/// Whether this process was started with SIGHUP ignored.
fn ignores_hang_up() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignored(&status, SIGHUP))
}

/// Whether `signal` is in the mask of ignored signals of a `/proc/PID/status`.
fn ignored(status: &str, signal: i32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// One line about a stream, completed by what its daemon knows.
fn describe(stream: &Stream, options: &DaemonOptions) -> impl FnOnce(&Daemon) -> String + use<> {
    let plan = stream.plan.options();
    let what = match stream.samples().to_string() {
        text if text.is_empty() && stream.samples().more.is_empty() => String::new(),
        _ => format!("{}; ", stream.description()),
    };
    let about = format!(
        "{what}{}, seed {}, {}, {} per epoch, epochs {} to {}",
        report::counted(options.threads as u64, "thread", "threads"),
        plan.seed,
        stream.policy_digest().map_or_else(
            || "no policy".to_owned(),
            |digest| format!("policy {digest}")
        ),
        report::counted(stream.plan.steps_per_epoch(), "step", "steps"),
        plan.start.epoch,
        plan.epochs - 1,
    );
    let (name, ranks, consumers) = (options.name.clone(), plan.world_size, options.consumers);
    move |daemon| {
        let shape = daemon.shape();
        let ring = shape.slots as u64 * shape.batch_size as u64 * (shape.sample_bytes as u64 + 16);
        format!(
            "name {name}, socket {}, {ranks} x {} slots of {} ({} in shared memory), {about}; waiting for {}",
            daemon.socket().display(),
            shape.slots,
            report::counted(shape.batch_size as u64, "sample", "samples"),
            report::bytes(ring * u64::from(ranks)),
            match (consumers, ranks) {
                (1, 1) => "a consumer".to_owned(),
                (_, 1) => format!("{consumers} consumers"),
                (1, _) => format!("a consumer of each of {ranks} ranks"),
                _ => format!("{consumers} consumers of each of {ranks} ranks"),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status =
            |mask: &str| format!("Name:\tserve\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(ignored(&status("0000000000000001"), SIGHUP));
        assert!(!ignored(&status("0000000000001002"), SIGHUP));
        assert!(ignored(&status("0000000000001002"), SIGINT));
        assert!(!ignored("", SIGHUP));
    }

    #[test]
    fn seconds_are_finite_and_zero_only_where_it_is_allowed() {
        for bad in ["-1", "nan", "inf", "1e30", "soon", ""] {
            assert!(
                seconds(bad).is_err() && seconds_or_none(bad).is_err(),
                "{bad}"
            );
        }
        assert!(seconds("0").is_err());
        assert_eq!(seconds_or_none("0"), Ok(Duration::ZERO));
        assert_eq!(seconds_or_none("0.5"), seconds("0.5"));
    }
}
