//! The daemon's figures in the Prometheus text format (version 0.0.4).

use std::fmt::Write as _;

use ddas_loader::ring::{Durations, ServerStatus};
use ddas_loader::{Observer, Progress};

use crate::http::Answer;

/// Answers a scraper or a probe.
pub(crate) fn answer(observer: &Observer, threads: usize, path: &str) -> Answer {
    match path {
        "/metrics" => Answer {
            status: "200 OK",
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            body: exposition(&observer.status(), &observer.progress(), threads),
        },
        "/healthz" => match observer.ailment() {
            None => Answer::text("200 OK", "ok\n"),
            Some(what) => Answer::text("503 Service Unavailable", format!("{what}\n")),
        },
        _ => Answer::text("404 Not Found", "there is /metrics and /healthz\n"),
    }
}

/// A family of samples after another.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{}\"", escaped(text));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A family of a single sample without labels.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn histogram(&mut self, name: &str, rank: &str, times: &Durations) {
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (number, count) in times.counts.iter().enumerate() {
            below += count;
            let bound = Durations::BOUNDS.get(number);
            let bound = bound.map_or_else(|| "+Inf".to_owned(), f64::to_string);
            self.sample(&bucket, &[("rank", rank), ("le", &bound)], below as f64);
        }
        self.sample(&format!("{name}_sum"), &[("rank", rank)], times.sum_seconds);
        self.sample(&format!("{name}_count"), &[("rank", rank)], below as f64);
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// All figures. Ranks and consumers are labels; names of files and samples never are.
pub(crate) fn exposition(status: &ServerStatus, progress: &Progress, threads: usize) -> String {
    let mut text = Text(String::with_capacity(16 * 1024));
    of_the_daemon(&mut text, status, progress, threads);
    of_the_workers(&mut text, progress);
    of_the_ranks(&mut text, status);
    of_the_consumers(&mut text, status);
    text.0
}

fn of_the_daemon(text: &mut Text, status: &ServerStatus, progress: &Progress, threads: usize) {
    text.family(
        "ddas_build_info",
        "gauge",
        "1; the labels say which program this is.",
    );
    let protocol = status.protocol.to_string();
    let labels = [
        ("name", status.name.as_str()),
        ("version", &status.version),
        ("protocol", &protocol),
    ];
    text.sample("ddas_build_info", &labels, 1.0);
    text.one(
        "ddas_uptime_seconds",
        "gauge",
        "Seconds since the daemon started.",
        status.uptime_seconds,
    );
    let draining = f64::from(u8::from(status.draining));
    text.one(
        "ddas_draining",
        "gauge",
        "1 once the daemon was told to stop, else 0.",
        draining,
    );
    text.one("ddas_threads", "gauge", "Worker threads.", threads as f64);
    for (name, help, bytes) in [
        (
            "ddas_resident_memory_bytes",
            "Resident memory of the daemon, rings and touched parts of datasets included.",
            status.memory.resident_bytes,
        ),
        (
            "ddas_private_memory_bytes",
            "Resident memory of the daemon that belongs to no ring and no file.",
            status.memory.private_bytes,
        ),
        (
            "ddas_ring_memory_bytes",
            "Shared memory of all rings.",
            Some(status.memory.ring_bytes),
        ),
    ] {
        if let Some(bytes) = bytes {
            text.one(name, "gauge", help, bytes as f64);
        }
    }
    for (name, help, count) in [
        (
            "ddas_bad_samples_total",
            "Different samples that could not be read or decoded.",
            progress.bad_samples,
        ),
        (
            "ddas_substituted_samples_total",
            "Times that another sample took the place of a bad one.",
            progress.substituted,
        ),
        (
            "ddas_epochs_completed_total",
            "Epochs of which every batch has been handed over.",
            progress.epochs_completed,
        ),
    ] {
        text.one(name, "counter", help, count as f64);
    }
}

fn of_the_workers(text: &mut Text, progress: &Progress) {
    let name = "ddas_worker_seconds_total";
    let help = "Worker time by what it went to, summed over threads; wait: for the trainer; idle: for each other.";
    text.family(name, "counter", help);
    for (stage, seconds) in [
        ("read", progress.total.read_seconds),
        ("decode", progress.total.decode_seconds),
        ("augment", progress.total.augment_seconds),
        ("write", progress.total.write_seconds),
        ("wait", progress.total.wait_seconds),
        ("idle", progress.total.idle_seconds),
    ] {
        text.sample(name, &[("stage", stage)], seconds);
    }
    let name = "ddas_rank_worker_seconds_total";
    let help = "Worker time spent on the samples of one rank, summed over threads.";
    text.family(name, "counter", help);
    for stages in &progress.ranks {
        let rank = stages.rank.to_string();
        for (stage, seconds) in [
            ("read", stages.read_seconds),
            ("decode", stages.decode_seconds),
            ("augment", stages.augment_seconds),
            ("write", stages.write_seconds),
        ] {
            text.sample(name, &[("rank", &rank), ("stage", stage)], seconds);
        }
    }
    text.one(
        "ddas_stalled_seconds",
        "gauge",
        "Seconds since a worker last got anything done, while there is something to do; else 0.",
        progress.stalled_seconds,
    );
    text.one(
        "ddas_unattended_seconds_total",
        "counter",
        "Seconds without any consumer and without a free slot.",
        progress.total.unattended_seconds,
    );
    let help = "1 for who has been the limit of about the last ten seconds, 0 for the others.";
    text.family("ddas_limit", "gauge", help);
    for who in ["trainer", "storage", "cpu", "nobody", "unknown"] {
        let is = f64::from(u8::from(progress.recent.limited_by == who));
        text.sample("ddas_limit", &[("who", who)], is);
    }
}

fn of_the_ranks(text: &mut Text, status: &ServerStatus) {
    type Figure<'a> = (
        &'a str,
        &'a str,
        &'a str,
        fn(&ddas_loader::ring::RankStatus) -> f64,
    );
    let figures: [Figure<'_>; 9] = [
        (
            "ddas_batches_total",
            "counter",
            "Batches handed over.",
            |rank| rank.published as f64,
        ),
        (
            "ddas_images_total",
            "counter",
            "Images handed over.",
            |rank| rank.samples as f64,
        ),
        (
            "ddas_epoch",
            "gauge",
            "Epoch of the newest batch, from 0; -1 before the first.",
            |rank| rank.epoch.map_or(-1.0, f64::from),
        ),
        (
            "ddas_step",
            "gauge",
            "Step in its epoch of the newest batch, from 0; -1 before the first.",
            |rank| rank.step.map_or(-1.0, |step| step as f64),
        ),
        ("ddas_consumers", "gauge", "Living consumers.", |rank| {
            rank.consumers.len() as f64 + rank.consumers_left_out as f64
        }),
        (
            "ddas_consumers_joined_total",
            "counter",
            "Consumers admitted.",
            |rank| rank.joined as f64,
        ),
        (
            "ddas_consumers_left_total",
            "counter",
            "Consumers that left or died.",
            |rank| rank.left as f64,
        ),
        (
            "ddas_consumers_evicted_total",
            "counter",
            "Consumers put out by --evict-after.",
            |rank| rank.evicted as f64,
        ),
        (
            "ddas_held_back_seconds",
            "gauge",
            "Seconds that consumers have been holding back the next batch; 0 when they do not.",
            |rank| rank.held_back_seconds.unwrap_or(0.0),
        ),
    ];
    for (name, kind, help, value) in figures {
        text.family(name, kind, help);
        for rank in &status.ranks {
            text.sample(name, &[("rank", &rank.rank.to_string())], value(rank));
        }
    }
    let help = "Slots by state; ready: published and not released by all.";
    text.family("ddas_slots", "gauge", help);
    for rank in &status.ranks {
        for (state, count) in [
            ("free", rank.free),
            ("writing", rank.writing),
            ("ready", rank.ready),
        ] {
            let labels = [("rank", rank.rank.to_string()), ("state", state.to_owned())];
            let labels = labels
                .each_ref()
                .map(|(name, value)| (*name, value.as_str()));
            text.sample("ddas_slots", &labels, count as f64);
        }
    }
    let name = "ddas_slot_wait_seconds";
    let help = "Waits for a free slot, one for each batch; workers may be busy with other batches meanwhile.";
    text.family(name, "histogram", help);
    for rank in &status.ranks {
        text.histogram(name, &rank.rank.to_string(), &rank.slot_waits);
    }
    let name = "ddas_batch_filling_seconds";
    text.family(
        name,
        "histogram",
        "From the hand-out of a slot to its batch being complete.",
    );
    for rank in &status.ranks {
        text.histogram(name, &rank.rank.to_string(), &rank.filling);
    }
}

fn of_the_consumers(text: &mut Text, status: &ServerStatus) {
    let consumers: Vec<_> = status
        .ranks
        .iter()
        .flat_map(|rank| {
            let number = rank.rank.to_string();
            rank.consumers
                .iter()
                .map(move |consumer| (number.clone(), consumer.id.to_string(), consumer))
        })
        .collect();
    let name = "ddas_consumer_info";
    text.family(
        name,
        "gauge",
        "1; the labels say which process a consumer is.",
    );
    for (rank, id, consumer) in &consumers {
        let pid = consumer.pid.map_or_else(String::new, |pid| pid.to_string());
        let labels = [
            ("rank", rank.as_str()),
            ("consumer", id),
            ("pid", &pid),
            ("name", &consumer.name),
        ];
        text.sample(name, &labels, 1.0);
    }
    type Figure<'a> = (
        &'a str,
        &'a str,
        &'a str,
        fn(&ddas_loader::ring::ConsumerStatus) -> f64,
    );
    let figures: [Figure<'_>; 5] = [
        (
            "ddas_consumer_lag_batches",
            "gauge",
            "Published batches that the consumer has not released, counted from its oldest.",
            |consumer| consumer.behind as f64,
        ),
        (
            "ddas_consumer_waited_seconds_total",
            "counter",
            "Seconds the consumer has waited for batches; 0 if it does not say.",
            |consumer| consumer.waited_seconds.unwrap_or(0.0),
        ),
        (
            "ddas_consumer_waiting_seconds",
            "gauge",
            "Seconds the consumer has been waiting for its next batch.",
            |consumer| consumer.waiting_seconds,
        ),
        (
            "ddas_consumer_holding_seconds",
            "gauge",
            "Seconds since the consumer took its newest batch, while it holds any.",
            |consumer| consumer.holding_seconds,
        ),
        (
            "ddas_consumer_connected_seconds",
            "gauge",
            "Seconds since the consumer joined.",
            |consumer| consumer.connected_seconds,
        ),
    ];
    for (name, kind, help, value) in figures {
        text.family(name, kind, help);
        for (rank, id, consumer) in &consumers {
            text.sample(name, &[("rank", rank), ("consumer", id)], value(consumer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut text = Text(String::new());
        text.sample("a", &[("b", "\"x\\y\"\n"), ("c", "")], 0.5);
        assert_eq!(text.0, "a{b=\"\\\"x\\\\y\\\"\\n\",c=\"\"} 0.5\n");
    }
}
