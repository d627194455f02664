//! What it takes to open a dataset of ten million samples, and to enter a run at its sample 10^9.
//!
//!     cargo bench -p ddas-benches --bench opening [-- SAMPLES]
//!
//! Makes datasets of 1x1 images in the temporary folder (1 GB for ten million), and opens each in a process of its own:
//! the times begin with the process, the memory is what the process takes beyond its code.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ddas_formats::{Dataset, DatasetWriter, Encoding, Packed};
use ddas_loader::{
    EmbeddedLoader, EmbeddedOptions, LastBatch, Position, SampleOptions, Stream, StreamOptions,
};
use ddas_runtime::{Dtype, Layout, OutputFormat};

/// Set for a child: what to do.
const ROLE: &str = "DDAS_OPENING_BENCH";
const BATCH: u64 = 32;
/// The sample that a run is entered at.
const FAR: u64 = 1_000_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named: Vec<&String> = arguments
        .iter()
        .filter(|word| !word.starts_with("--"))
        .collect();
    if let Ok(role) = std::env::var(ROLE) {
        match role.as_str() {
            "open" => open(Path::new(named[0])),
            _ => enter(Path::new(named[0]), named[1].parse().expect("a number")),
        }
        return;
    }
    let samples = named.first().map_or(10_000_000, |samples| {
        samples.parse().expect("a number of samples")
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    for samples in [10_000, samples] {
        let path = folder.path().join(format!("{samples}.lmdb"));
        let begun = Instant::now();
        written(&path, samples);
        println!(
            "{samples} samples (written in {:.1} s)",
            begun.elapsed().as_secs_f64()
        );
        for _ in 0..3 {
            child("open", &path, &[]);
        }
        for start in [0, FAR] {
            child("enter", &path, &[start.to_string()]);
        }
    }
}

fn child(role: &str, path: &Path, more: &[String]) {
    let begun = Instant::now();
    let output = Command::new(std::env::current_exe().expect("this program"))
        .env(ROLE, role)
        .arg(path)
        .args(more)
        .output()
        .expect("a child process");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    println!(
        "  {}; {:.0} ms from start to end of the process",
        text.trim(),
        begun.elapsed().as_secs_f64() * 1e3
    );
}

fn written(path: &Path, samples: u64) {
    let mut writer = DatasetWriter::create(path, false).expect("a new dataset");
    for number in 0..samples {
        writer
            .append(
                (number % 10) as i64,
                Encoding::Raw,
                1,
                1,
                &number.to_le_bytes()[..3],
            )
            .expect("room on the disk");
    }
    let classes = (0..10).map(|class| class.to_string()).collect();
    writer
        .finish(classes, Packed::default())
        .expect("room on the disk");
}

/// Largest resident memory so far, and the part of it that is private, in KiB.
fn memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or(0)
    };
    (field("VmHWM:"), field("RssAnon:"))
}

fn open(path: &Path) {
    let before = memory();
    let begun = Instant::now();
    let dataset = Dataset::open(path).expect("the dataset");
    let reader = dataset.reader().expect("a reader");
    let last = dataset.len() - 1;
    assert_eq!(
        reader.get(last).expect("a sample").payload,
        &last.to_le_bytes()[..3]
    );
    let time = begun.elapsed();
    let after = memory();
    println!(
        "opened, and its last sample read, in {:.2} ms; resident memory grew by {} KiB (private: {} KiB)",
        time.as_secs_f64() * 1e3,
        after.0.saturating_sub(before.0),
        after.1.saturating_sub(before.1),
    );
}

/// Enters an epoch of 2 * 10^9 samples at sample `start`.
fn enter(path: &Path, start: u64) {
    let begun = Instant::now();
    let options = StreamOptions {
        dataset: path.to_owned(),
        recipe: "imagenet".to_owned(),
        policy: None,
        epochs: 1,
        batch_size: BATCH as u32,
        world_size: 1,
        seed: 0,
        output: OutputFormat {
            dtype: Dtype::U8,
            layout: Layout::Nchw,
        },
        last: LastBatch::Drop,
        start: Position {
            epoch: 0,
            step: start / BATCH,
        },
    };
    let samples = SampleOptions {
        epoch_samples: Some(2 * FAR),
        ..SampleOptions::default()
    };
    let stream = Stream::with_policy(options, None, samples).expect("a stream");
    let mut loader = EmbeddedLoader::new(stream, EmbeddedOptions::default()).expect("a loader");
    let batch = loader
        .receive(Duration::from_secs(60))
        .expect("no failure")
        .expect("a batch");
    assert_eq!(batch.step(), start / BATCH);
    println!(
        "run entered at sample {start}: first batch after {:.2} ms; largest resident memory {} KiB",
        begun.elapsed().as_secs_f64() * 1e3,
        memory().0,
    );
}
