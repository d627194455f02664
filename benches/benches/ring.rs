//! Hand-over through the shared-memory ring, between two processes:
//!
//! ```text
//! cargo bench -p ddas-benches --bench ring
//! ```
//!
//! Prints the time from publishing a batch to holding it in the other process,
//! the rate of large batches against this machine's copy rate, and the
//! processor time a consumer needs.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ddas_loader::ring::{
    BatchMeta, ConnectOptions, Consumer, RingServer, RingShape, ServerOptions, StreamInfo,
};
use rustix::time::{ClockId, clock_gettime};

const ROLE: &str = "DDAS_RING_BENCH_ROLE";
const DIR: &str = "DDAS_RING_BENCH_DIR";
const LONG: Duration = Duration::from_secs(60);

fn main() {
    match std::env::var(ROLE) {
        Ok(role) if role == "serve" => serve(),
        Ok(role) => consume(&role),
        Err(_) => {
            latency(
                "consumer asleep (a batch every 2 ms)",
                2000,
                Duration::from_millis(2),
            );
            latency(
                "consumer awake (a batch every 10 us)",
                20_000,
                Duration::from_micros(10),
            );
            deaths();
            rate();
        }
    }
}

/// Nanoseconds on a clock that all processes share.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn percentile(sorted: &[u64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize] as f64 / 1e3
}

fn report(what: &str, mut times: Vec<u64>) {
    times.sort_unstable();
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| percentile(&times, part));
    println!(
        "{what:50} p50 {p50:8.1} us   p99 {p99:8.1} us   max {max:9.1} us   ({} batches)",
        times.len()
    );
}

fn consume(role: &str) {
    let dir = std::env::var_os(DIR).map(Into::into);
    let mut consumer = Consumer::connect(
        "bench",
        ConnectOptions {
            rank: 0,
            timeout: LONG,
            dir,
            ..ConnectOptions::default()
        },
    )
    .expect("the daemon");
    let mut arrived = Vec::new();
    let mut private = Vec::new();
    let mut begun = None;
    let mut bytes = 0;
    while let Some(batch) = consumer.receive(LONG).expect("a batch") {
        match role {
            "latency" => {
                arrived.push(now().saturating_sub(batch.indices()[0]));
                continue;
            }
            "copy" => {
                private.resize(batch.images().len(), 0_u8);
                private.copy_from_slice(batch.images());
            }
            _ => {}
        }
        // The first batches were filled before we came.
        match begun {
            None if batch.sequence() == 8 => begun = Some((Instant::now(), processor_seconds())),
            Some(_) => bytes += batch.images().len(),
            None => {}
        }
    }
    if role == "latency" {
        report(
            &std::env::var("DDAS_RING_BENCH_LABEL").unwrap_or_default(),
            arrived,
        );
    } else if let Some((begun, processor)) = begun {
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{role:30} {:6.2} GB/s   consumer: {:5.2} % of a core",
            bytes as f64 / 1e9 / seconds,
            100.0 * (processor_seconds() - processor) / seconds
        );
    }
}

fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn info(batch_size: u32, side: usize, dtype: &str) -> StreamInfo {
    serde_json::from_value(serde_json::json!({
        "protocol": 2, "daemon_pid": 0, "dataset": "bench", "samples": 1, "classes": 1, "epochs": 1,
        "batch_size": batch_size, "global_batch_size": batch_size, "steps_per_epoch": 1, "world_size": 1,
        "rank": 0, "dtype": dtype, "layout": "nchw", "shape": [3, side, side],
        "normalization": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}, "recipe": "bench",
        "policy_digest": null, "seed": 0, "slots": 0, "start": {"epoch": 0, "step": 0}, "last": "drop"
    }))
    .expect("a stream")
}

fn child(role: &str, label: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .env(ROLE, role)
        .env("DDAS_RING_BENCH_LABEL", label)
        .env(DIR, dir)
        .stdin(Stdio::null())
        .spawn()
        .expect("a child process")
}

/// Publishes `count` batches through a ring of `slots`, filled by `fill`, `pause` apart.
fn stream(
    (role, label): (&str, &str),
    (batch_size, side, dtype): (u32, usize, &str),
    count: u64,
    pause: Duration,
    mut fill: impl FnMut(&mut [u8]),
) {
    let dir = tempfile::tempdir().expect("a directory");
    let info = info(batch_size, side, dtype);
    let sample_bytes = 3 * side * side * if dtype == "f32" { 4 } else { 1 };
    let shape = RingShape {
        slots: 4,
        batch_size: batch_size as usize,
        sample_bytes,
        mixes: false,
    };
    let options = ServerOptions {
        dir: Some(dir.path().to_owned()),
        ..ServerOptions::default()
    };
    let server = RingServer::start("bench", vec![info], shape, options).expect("a ring");
    let mut child = child(role, label, dir.path());
    while server.status().ranks[0].consumers.is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut writer = server.writer(0).expect("a writer");
    let stop = AtomicBool::new(false);
    let mut next = Instant::now();
    for step in 0..count {
        let mut slot = writer
            .acquire(&stop, LONG)
            .expect("a running ring")
            .expect("room");
        fill(slot.images_mut());
        next = (next + pause).max(Instant::now() - LONG);
        match next.checked_duration_since(Instant::now()) {
            Some(left) if left > Duration::from_micros(100) => std::thread::sleep(left),
            Some(_) => while Instant::now() < next {},
            None => {}
        }
        slot.indices_mut()[0] = now();
        let meta = BatchMeta {
            epoch: 0,
            step,
            samples: batch_size as usize,
            snapshot: None,
            last_of_epoch: false,
        };
        slot.publish(meta).expect("a running ring");
    }
    server.finish(LONG);
    child.wait().expect("the consumer's end");
}

fn latency(label: &str, count: u64, pause: Duration) {
    stream(("latency", label), (4, 32, "u8"), count, pause, |_| {});
}

/// Offers a stream without batches until it is killed.
fn serve() {
    let dir = std::env::var_os(DIR).map(Into::into);
    let shape = RingShape {
        slots: 2,
        batch_size: 1,
        sample_bytes: 3,
        mixes: false,
    };
    let options = ServerOptions {
        dir,
        ..ServerOptions::default()
    };
    let _server =
        RingServer::start("bench", vec![info(1, 1, "u8")], shape, options).expect("a ring");
    std::thread::sleep(LONG);
}

/// How long consumers that wait take to hear of their daemon's death, and the other way round.
fn deaths() {
    let mut daemons = Vec::new();
    for round in 0..40 {
        let dir = tempfile::tempdir().expect("a directory");
        let mut daemon = child("serve", "", dir.path());
        let options = ConnectOptions {
            rank: 0,
            timeout: LONG,
            dir: Some(dir.path().to_owned()),
            ..ConnectOptions::default()
        };
        let mut consumer = Consumer::connect("bench", options).expect("the daemon");
        let waiting = std::thread::spawn(move || (consumer.receive(LONG).is_err(), now()));
        std::thread::sleep(Duration::from_millis(20 + 7 * round));
        let killed = now();
        daemon.kill().expect("a running daemon");
        let (died, heard) = waiting.join().expect("no panic");
        assert!(died);
        daemons.push(heard - killed);
        daemon.wait().expect("a dead daemon");
    }
    report("daemon killed: a waiting consumer knows", daemons);

    let mut consumers = Vec::new();
    let dir = tempfile::tempdir().expect("a directory");
    let shape = RingShape {
        slots: 2,
        batch_size: 1,
        sample_bytes: 3,
        mixes: false,
    };
    let options = ServerOptions {
        dir: Some(dir.path().to_owned()),
        ..ServerOptions::default()
    };
    let server =
        RingServer::start("bench", vec![info(1, 1, "u8")], shape, options).expect("a ring");
    for _ in 0..40 {
        let mut consumer = child("latency", "", dir.path());
        while server.status().ranks[0].consumers.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let killed = now();
        consumer.kill().expect("a running consumer");
        while !server.status().ranks[0].consumers.is_empty() {
            std::hint::spin_loop();
        }
        consumers.push(now() - killed);
        consumer.wait().expect("a dead consumer");
    }
    report("consumer killed: its slots are free", consumers);
}

fn rate() {
    let side = 224;
    let bytes = 256 * 3 * side * side * 4;
    let source = vec![1_u8; bytes];
    let mut copy = vec![2_u8; bytes];
    let begun = Instant::now();
    let rounds = 20;
    for _ in 0..rounds {
        copy.copy_from_slice(std::hint::black_box(&source));
        std::hint::black_box(&mut copy);
    }
    let memcpy = (rounds * bytes) as f64 / 1e9 / begun.elapsed().as_secs_f64();
    println!(
        "copy rate of one thread                          {memcpy:6.2} GB/s (256 x 3 x 224 x 224 f32 a time)"
    );
    let shape = (256, side, "f32");
    stream(
        ("hand over, samples copied in", ""),
        shape,
        60,
        Duration::ZERO,
        |images| images.copy_from_slice(&source),
    );
    stream(("copy", ""), shape, 60, Duration::ZERO, |images| {
        images.copy_from_slice(&source)
    });
    let paced = Duration::from_secs_f64(bytes as f64 / 1e9);
    stream(("hand over at 1 GB/s", ""), shape, 30, paced, |images| {
        images[..4096].fill(3)
    });
    stream(
        ("hand over, nothing written", ""),
        shape,
        20_000,
        Duration::ZERO,
        |_| {},
    );
}
