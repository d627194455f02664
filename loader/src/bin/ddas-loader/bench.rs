//! `bench`: the loader alone, without a trainer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, value_parser};
use ddas_loader::{
    BatchPart, DaemonOptions, Engine, EpochReport, Limit, MemoryBatch, MemorySink, Position, Stream,
};
use serde::Serialize;

use crate::options::{Batches, Last, StreamArguments, default_threads};
use crate::progress::Meter;
use crate::recommend::{Recommendation, recommend};
use crate::report;
use crate::samples::StreamToOpen;

/// Measures how fast this machine makes batches, what each stage costs, and which stage is the limit.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    stream: StreamArguments,
    /// Epochs of the training run over which a policy's snapshots are spread.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u32).range(1..))]
    epochs: u32,
    /// Samples of a batch.
    #[arg(long, value_name = "B", default_value_t = 128, value_parser = value_parser!(u32).range(1..))]
    batch_size: u32,
    /// Worker threads [default: all cores].
    #[arg(long, value_name = "T", value_parser = value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Batches under way at once.
    #[arg(long, value_name = "K", default_value_t = DaemonOptions::DEFAULT_SLOTS as u32, value_parser = value_parser!(u32).range(2..=1024))]
    slots: u32,
    /// Where in the run to measure: an epoch and a step in it, both from 0 (a policy augments differently over time).
    #[arg(long, value_name = "EPOCH:STEP", default_value = "0:0")]
    start: Position,
    /// How long to measure, once every slot has been used.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = crate::serve::seconds)]
    seconds: Duration,
    /// Only measure: do not try other numbers of threads and slots for a recommendation, which takes up to twice --seconds
    /// more.
    #[arg(long)]
    no_recommendation: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// What was measured. `--json` prints these fields.
#[derive(Serialize)]
struct Measured {
    dataset: String,
    recipe: String,
    policy_digest: Option<String>,
    dtype: String,
    layout: String,
    batch_size: u32,
    threads: usize,
    slots: u32,
    samples: u64,
    seconds: f64,
    images_per_second: f64,
    /// Time that all threads of the process together spent on processor cores.
    core_seconds: f64,
    images_per_core_second: f64,
    /// Of what a trainer would receive.
    bytes_per_second: f64,
    /// With all that comes before it but opening the stream.
    first_batch_seconds: f64,
    stages: Vec<Stage>,
    limit: Limit,
    /// What is to be made faster: `storage` or `cpu`.
    limited_by: &'static str,
    /// Not with --no-recommendation.
    recommended: Option<Recommendation>,
}

#[derive(Serialize)]
struct Stage {
    stage: &'static str,
    microseconds_per_sample: f64,
    /// Of the workers' time, waiting included.
    share: f64,
}

impl Arguments {
    fn resolve(self) -> anyhow::Result<(StreamToOpen, Measurement)> {
        let measurement = Measurement {
            threads: self
                .threads
                .map_or_else(default_threads, |threads| threads as usize),
            slots: self.slots,
            time: self.seconds,
            recommends: !self.no_recommendation,
            json: self.json,
        };
        let stream = self.stream.resolve(Batches {
            epochs: self.epochs,
            batch_size: self.batch_size,
            world_size: 1,
            last: Last::Pad,
            start: self.start,
        })?;
        Ok((stream, measurement))
    }
}

struct Measurement {
    threads: usize,
    slots: u32,
    time: Duration,
    recommends: bool,
    json: bool,
}

/// No try for a recommendation is shorter or longer.
const TRIAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (options, measurement) = arguments.resolve()?;
    let mut measured = measure(options.clone().open()?, &measurement)?;
    if measurement.recommends {
        let time = (measurement.time / 4).clamp(TRIAL.0, TRIAL.1);
        measured.recommended = Some(recommend(&options, default_threads(), time)?);
    }
    if measurement.json {
        report::print_json(&measured)
    } else {
        report::print(&measured.text())
    }
}

fn measure(stream: Stream, measurement: &Measurement) -> anyhow::Result<Measured> {
    let options = stream.options().clone();
    let (policy_digest, sample_bytes) = (stream.policy_digest(), stream.pipeline.sample_bytes());
    let meter = Meter::new("measuring", "seconds");
    let (began, first) = (Instant::now(), OnceLock::new());
    let (stop, warm, batches) = (AtomicBool::new(false), OnceLock::new(), AtomicU32::new(0));
    let received = |_: &BatchPart, _: MemoryBatch<'_>| {
        first.get_or_init(|| began.elapsed());
        match warm.get().map(Instant::elapsed) {
            Some(time) => {
                stop.store(time >= measurement.time, Ordering::Release);
                meter.set(time.as_secs(), measurement.time.as_secs(), "");
            }
            None => {
                let used = batches.fetch_add(1, Ordering::Relaxed) + 1;
                let long = began.elapsed() >= measurement.time;
                stop.store(long || used >= measurement.slots, Ordering::Release);
            }
        }
    };
    let sink = MemorySink::new(
        measurement.slots as usize,
        options.batch_size as usize,
        sample_bytes,
        received,
    );
    let start = stream.plan.options().start;
    let mut engine = Engine::new(
        stream.dataset,
        stream.pipeline,
        stream.plan,
        measurement.threads,
    )
    .on_bad(stream.on_bad)?;
    // Until every slot has been written, time goes into memory that is new to the process. A trainer sees that once.
    engine.run(vec![sink.clone()], &stop, &|_: &EpochReport| ())?;
    engine.restart_at(start)?;
    stop.store(false, Ordering::Release);
    let used = core_time();
    warm.get_or_init(Instant::now);
    let progress = engine.run(vec![sink], &stop, &|_: &EpochReport| ())?;
    let core_seconds = (core_time() - used).as_secs_f64();
    let total = &progress.total;
    let stage = |stage, seconds: f64| Stage {
        stage,
        microseconds_per_sample: seconds * 1e6 / total.samples.max(1) as f64,
        share: seconds / total.accounted_seconds().max(1e-9),
    };
    Ok(Measured {
        dataset: options.dataset.display().to_string(),
        recipe: options.recipe,
        policy_digest,
        dtype: options.output.dtype.to_string(),
        layout: options.output.layout.to_string(),
        batch_size: options.batch_size,
        threads: measurement.threads,
        slots: measurement.slots,
        samples: total.samples,
        seconds: total.seconds,
        images_per_second: total.images_per_second,
        core_seconds,
        images_per_core_second: total.samples as f64 / core_seconds.max(1e-9),
        bytes_per_second: total.images_per_second * sample_bytes as f64,
        first_batch_seconds: first.get().map_or(0.0, Duration::as_secs_f64),
        stages: vec![
            stage("read", total.read_seconds),
            stage("decode", total.decode_seconds),
            stage("augment", total.augment_seconds),
            stage("write", total.write_seconds),
            stage("wait", total.wait_seconds + total.idle_seconds),
        ],
        // Nobody trains here, so a stage it is.
        limit: total.dearest_stage(),
        limited_by: total.dearest_stage().who(),
        recommended: None,
    })
}

/// Time that all threads of this process have spent on processor cores.
fn core_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Measured {
    fn text(&self) -> String {
        let mut text = format!(
            "{}: recipe {}, {}, batches of {} as {} {}, {}, {}\n{:.0} images/s, {:.1} MB/s ({} in {:.1} s); \
             {:.0} images per second of core time; first batch after {:.3} s\n\nstage    us/sample  share\n",
            self.dataset,
            self.recipe,
            self.policy_digest.as_ref().map_or_else(
                || "no policy".to_owned(),
                |digest| format!("policy {digest}")
            ),
            self.batch_size,
            self.dtype,
            self.layout,
            report::counted(self.threads as u64, "thread", "threads"),
            report::counted(self.slots as u64, "slot", "slots"),
            self.images_per_second,
            self.bytes_per_second / 1e6,
            report::counted(self.samples, "image", "images"),
            self.seconds,
            self.images_per_core_second,
            self.first_batch_seconds,
        );
        for stage in &self.stages {
            text.push_str(&format!(
                "{:<8} {:>9.1} {:>5.1}%\n",
                stage.stage,
                stage.microseconds_per_sample,
                100.0 * stage.share
            ));
        }
        text.push_str(&format!("\nthe limit is {}\n", self.limit));
        if let Some(recommended) = &self.recommended {
            text.push_str(&recommended.to_string());
        }
        text
    }
}
