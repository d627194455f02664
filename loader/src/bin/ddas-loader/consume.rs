//! `consume`: a reference consumer.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum, value_parser};
use ddas_loader::ring::{ConnectOptions, Consumer, ReadBatch, StartFrom};
use ddas_loader::{Placement, RankError, ring};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use crate::options::daemon_name;
use crate::progress::Meter;
use crate::report;
use crate::serve::{seconds, seconds_or_none};

/// Takes the batches of a running daemon, as a trainer would, and reports rate and waits.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The daemon's name.
    #[arg(value_parser = daemon_name)]
    name: String,
    /// Whose ring to read, from 0 [default: what torchrun, Slurm, Open MPI or Kubernetes says for a stream of several
    /// ranks, else 0]. A launcher that says otherwise is an error.
    #[arg(long, value_name = "R")]
    rank: Option<u32>,
    /// Do not ask the launcher's variables for the rank.
    #[arg(long)]
    ignore_environment: bool,
    /// Stop after N batches [default: at the end of the stream].
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    batches: Option<u64>,
    /// Where to begin in a stream under way: `current` takes the oldest batch that is not lost, `next-epoch` waits for
    /// the first whole epoch.
    #[arg(long, value_name = "WHERE", default_value = "current")]
    from: From,
    /// Print `EPOCH STEP XXH3` for each batch (XXH3-64 of the images, then the labels as 64-bit little-endian; where
    /// batches are mixed, then the partners' labels likewise and the weights as 32-bit little-endian floats), and
    /// `EPOCH all XXH3` after each complete epoch (of its batches' hashes in order). The summary goes to standard error.
    #[arg(long)]
    hash: bool,
    /// Print the summary as JSON; with --hash the hashes, too, one object a line.
    #[arg(long)]
    json: bool,
    /// Hold every batch for this long before releasing it, as a trainer that computes.
    #[arg(long, value_name = "SECONDS", value_parser = seconds_or_none)]
    delay: Option<Duration>,
    /// Wait this long for the daemon to start; 0: it must be running.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds_or_none)]
    connect_timeout: Duration,
    /// Give up when no batch arrives for this long.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    timeout: Duration,
}

/// [`StartFrom`] on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum From {
    Current,
    NextEpoch,
}

/// What a run of the consumer took. `--json` prints these fields.
#[derive(Serialize)]
struct Summary {
    name: String,
    rank: u32,
    batches: u64,
    samples: u64,
    bytes: u64,
    /// From the first batch asked for to the last released.
    seconds: f64,
    images_per_second: f64,
    bytes_per_second: f64,
    /// From connecting to the first batch.
    first_batch_seconds: f64,
    /// Waiting for batches, the first not counted.
    wait_seconds: f64,
    wait_p50_microseconds: f64,
    wait_p99_microseconds: f64,
    wait_max_microseconds: f64,
    /// Whether the stream had ended (and not only `--batches` been reached).
    finished: bool,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let rank = rank(&arguments)?;
    let options = ConnectOptions {
        rank,
        start: match arguments.from {
            From::Current => StartFrom::Current,
            From::NextEpoch => StartFrom::NextEpoch,
        },
        timeout: arguments.connect_timeout,
        ..ConnectOptions::default()
    };
    let mut consumer = Consumer::connect(&arguments.name, options)?;
    let mut hashes = arguments
        .hash
        .then(|| Hashes::new(consumer.info().steps_per_epoch, arguments.json));
    let expected = expected_batches(&consumer).min(arguments.batches.unwrap_or(u64::MAX));
    let meter = Meter::new("consuming", "batches");
    let mut waits = Waits::default();
    let (mut batches, mut samples, mut bytes, mut finished) = (0u64, 0u64, 0u64, false);
    let began = Instant::now();
    let mut first_batch = Duration::ZERO;
    while arguments.batches != Some(batches) {
        let asked = Instant::now();
        let Some(batch) = receive(&mut consumer, arguments.timeout)? else {
            finished = true;
            break;
        };
        match batches {
            0 => first_batch = asked.elapsed(),
            _ => waits.add(asked.elapsed()),
        }
        batches += 1;
        samples += batch.samples() as u64;
        bytes += batch.images().len() as u64;
        if let Some(hashes) = &mut hashes {
            hashes.add(&batch)?;
        }
        // An evicted consumer may have read a batch that was being replaced: then this says so.
        batch.validate()?;
        if let Some(delay) = arguments.delay {
            std::thread::sleep(delay);
        }
        drop(batch);
        meter.set(batches, expected, "");
    }
    let seconds = began.elapsed().as_secs_f64();
    drop(meter);
    let summary = Summary {
        name: arguments.name,
        rank,
        batches,
        samples,
        bytes,
        seconds,
        images_per_second: samples as f64 / seconds.max(1e-9),
        bytes_per_second: bytes as f64 / seconds.max(1e-9),
        first_batch_seconds: first_batch.as_secs_f64(),
        wait_seconds: waits.total.as_secs_f64(),
        wait_p50_microseconds: waits.quantile(0.5),
        wait_p99_microseconds: waits.quantile(0.99),
        wait_max_microseconds: waits.longest.as_secs_f64() * 1e6,
        finished,
    };
    if arguments.json {
        let text = serde_json::to_string(&summary)?;
        return report::print_line(&text);
    }
    let text = summary.text();
    if arguments.hash {
        report::tell(&text);
        return Ok(());
    }
    report::print_line(&text)
}

/// The next batch. While others get the batches before a consumer's first, the time allowed begins anew with each.
fn receive(consumer: &mut Consumer, timeout: Duration) -> ring::Result<Option<ReadBatch>> {
    loop {
        let ahead = consumer.ahead();
        match consumer.receive(timeout) {
            Err(ring::Error::TimedOut { .. }) if consumer.ahead() < ahead => {}
            received => return received,
        }
    }
}

/// The rank to read. A stream of one rank is everybody's: no launcher is asked about it.
fn rank(arguments: &Arguments) -> anyhow::Result<u32> {
    let given = arguments.rank.unwrap_or(0);
    if arguments.ignore_environment {
        return Ok(given);
    }
    let began = Instant::now();
    let status = loop {
        match ring::query_status(&arguments.name, None) {
            Err(ring::Error::NoSuchDaemon { .. })
                if began.elapsed() < arguments.connect_timeout =>
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            answer => break answer?,
        }
    };
    let ranks = u32::try_from(status.ranks.len())?;
    // The daemon says better what is wrong with a rank that it does not have.
    if ranks == 1 || given >= ranks {
        return Ok(given);
    }
    match Placement::of_this_process(arguments.rank, None, Some(ranks), true) {
        Ok(placement) => {
            report::tell(&placement.to_string());
            Ok(placement.rank)
        }
        Err(RankError::Incomplete {
            missing: "rank", ..
        }) => Ok(given),
        Err(error) => Err(error.into()),
    }
}

/// Batches from the start of the stream to its end.
fn expected_batches(consumer: &Consumer) -> u64 {
    let info = consumer.info();
    (u64::from(info.epochs.saturating_sub(info.start.epoch)) * info.steps_per_epoch)
        .saturating_sub(info.start.step)
}

impl Summary {
    fn text(&self) -> String {
        format!(
            "{}, {} in {:.2} s: {:.0} images/s, {:.1} MB/s; first batch after {:.3} s; waits {:.2} s in all, \
             p50 {:.0} us, p99 {:.0} us, longest {:.0} us{}",
            report::counted(self.batches, "batch", "batches"),
            report::counted(self.samples, "image", "images"),
            self.seconds,
            self.images_per_second,
            self.bytes_per_second / 1e6,
            self.first_batch_seconds,
            self.wait_seconds,
            self.wait_p50_microseconds,
            self.wait_p99_microseconds,
            self.wait_max_microseconds,
            if self.finished {
                "; the stream has ended"
            } else {
                ""
            },
        )
    }
}

/// Hashes of batches and epochs.
struct Hashes {
    steps_per_epoch: u64,
    json: bool,
    epoch: Xxh3,
    /// The batch that continues the epoch under way; `None` when its beginning was missed.
    due: Option<(u32, u64)>,
}

impl Hashes {
    fn new(steps_per_epoch: u64, json: bool) -> Hashes {
        Hashes {
            steps_per_epoch,
            json,
            epoch: Xxh3::new(),
            due: None,
        }
    }

    fn add(&mut self, batch: &ReadBatch) -> anyhow::Result<()> {
        let mut hash = Xxh3::new();
        hash.update(batch.images());
        batch
            .labels()
            .iter()
            .for_each(|label| hash.update(&label.to_le_bytes()));
        for label in batch.mixed_labels().unwrap_or_default() {
            hash.update(&label.to_le_bytes());
        }
        for weight in batch.weights().unwrap_or_default() {
            hash.update(&weight.to_le_bytes());
        }
        let hash = hash.digest();
        let (epoch, step) = (batch.epoch(), batch.step());
        self.print(epoch, Some(step), hash)?;
        if step == 0 {
            self.epoch.reset();
        } else if self.due != Some((epoch, step)) {
            self.due = None;
            return Ok(());
        }
        self.epoch.update(&hash.to_le_bytes());
        self.due = Some((epoch, step + 1));
        if step + 1 == self.steps_per_epoch {
            self.print(epoch, None, self.epoch.digest())?;
        }
        Ok(())
    }

    fn print(&self, epoch: u32, step: Option<u64>, hash: u64) -> anyhow::Result<()> {
        if self.json {
            let step =
                step.map_or_else(|| serde_json::json!("all"), |step| serde_json::json!(step));
            let line =
                serde_json::json!({ "epoch": epoch, "step": step, "xxh3": format!("{hash:016x}") });
            return report::print_line(&line.to_string());
        }
        let step = step.map_or_else(|| "all".to_owned(), |step| step.to_string());
        report::print_line(&format!("{epoch} {step} {hash:016x}"))
    }
}

/// A histogram of waiting times in constant memory: eight buckets an octave, so quantiles are within 13 %.
struct Waits {
    buckets: [u64; 64 * 8],
    count: u64,
    total: Duration,
    longest: Duration,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits {
            buckets: [0; 64 * 8],
            count: 0,
            total: Duration::ZERO,
            longest: Duration::ZERO,
        }
    }
}

impl Waits {
    fn add(&mut self, wait: Duration) {
        let nanoseconds = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX).max(8);
        let octave = nanoseconds.ilog2() as usize;
        let eighth = (nanoseconds >> (octave - 3)) as usize & 7;
        self.buckets[octave * 8 + eighth] += 1;
        self.count += 1;
        self.total += wait;
        self.longest = self.longest.max(wait);
    }

    /// Upper end of the bucket that holds the quantile, in microseconds; 0 without any wait.
    fn quantile(&self, quantile: f64) -> f64 {
        let mut left = (quantile * self.count as f64).ceil() as u64;
        for (bucket, &count) in self.buckets.iter().enumerate() {
            if count >= left && count > 0 {
                let upper = f64::from(bucket as u32 % 8 + 9) * 2f64.powi(bucket as i32 / 8 - 3);
                return (upper / 1e3).min(self.longest.as_secs_f64() * 1e6);
            }
            left = left.saturating_sub(count);
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_waits_are_within_a_bucket() {
        let mut waits = Waits::default();
        assert_eq!(waits.quantile(0.5), 0.0);
        for microseconds in 1..=1000 {
            waits.add(Duration::from_micros(microseconds));
        }
        let within = |found: f64, expected: f64| found >= expected && found <= expected * 1.13;
        assert!(
            within(waits.quantile(0.5), 500.0),
            "{}",
            waits.quantile(0.5)
        );
        assert!(
            within(waits.quantile(0.99), 990.0),
            "{}",
            waits.quantile(0.99)
        );
        assert_eq!(waits.quantile(1.0), 1000.0);
    }
}
