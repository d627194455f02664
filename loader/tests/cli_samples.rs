//! Which samples come: parts, several datasets, balanced classes, far positions, and what stands in for bad ones.

mod cli_support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cli_support::{Sandbox, flip_byte};
use ddas_formats::{DatasetWriter, Encoding, Packed};

const SERVE: &str = "--recipe cifar --dtype u8";
const LONG: Duration = Duration::from_secs(60);

/// Everything that the ranks of a stream deliver: (epoch, index, label), in order of ranks.
fn delivered(sandbox: &Sandbox, name: &str, serve: &str, ranks: u32) -> Vec<(u32, u64, i64)> {
    let daemon = sandbox.serve(&format!("{serve} --name {name} --world-size {ranks}"));
    let consumers: Vec<_> = (0..ranks).map(|rank| sandbox.connect(name, rank)).collect();
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = consumers
            .into_iter()
            .map(|mut consumer| {
                scope.spawn(move || {
                    let mut own = Vec::new();
                    while let Some(batch) = consumer.receive(LONG).unwrap() {
                        for (&index, &label) in batch.indices().iter().zip(batch.labels()) {
                            own.push((batch.epoch(), index, label));
                        }
                    }
                    own
                })
            })
            .collect();
        for thread in threads {
            all.extend(thread.join().unwrap());
        }
    });
    daemon.end().succeeded();
    all
}

/// A dataset of `samples` raw images, `class_of` gives the label.
fn dataset(
    sandbox: &Sandbox,
    name: &str,
    samples: u64,
    classes: usize,
    class_of: impl Fn(u64) -> i64,
) {
    let mut writer = DatasetWriter::create(&sandbox.path(name), false).unwrap();
    for index in 0..samples {
        writer
            .append(
                class_of(index),
                Encoding::Raw,
                32,
                32,
                &cli_support::pixels(index),
            )
            .unwrap();
    }
    let classes = (0..classes).map(|class| format!("class {class}")).collect();
    writer.finish(classes, Packed::default()).unwrap();
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_bad_sample_is_replaced_by_the_same_one_for_any_threads_and_ranks() {
    let sandbox = Sandbox::new();
    let path = sandbox.dataset("d.lmdb", 200);
    let whole = delivered(
        &sandbox,
        "whole",
        &format!("d.lmdb {SERVE} --epochs 2 --batch-size 24"),
        1,
    );
    flip_byte(&path, 3);
    flip_byte(&path, 77);
    let serve =
        format!("d.lmdb {SERVE} --epochs 2 --batch-size 24 --on-bad substitute --max-bad 2");
    let one = delivered(
        &sandbox,
        "one",
        &format!("{serve} --threads 1 --bad-log one.jsonl"),
        1,
    );
    assert_eq!(one.len(), whole.len());
    let mut replaced = Vec::new();
    for (before, after) in whole.iter().zip(&one) {
        assert_eq!(
            after.2,
            (after.1 % 10) as i64,
            "the label is that of the sample delivered"
        );
        if matches!(before.1, 3 | 77) {
            assert!(!matches!(after.1, 3 | 77));
            replaced.push((before.0, before.1, after.1));
        } else {
            assert_eq!(before, after);
        }
    }
    let noted: Vec<(u32, u64, u64)> = lines(&sandbox.path("one.jsonl"))
        .iter()
        .map(|line| {
            assert_eq!(
                (line["dataset"].as_str(), &line["key"]),
                (Some("d.lmdb"), &line["index"])
            );
            assert!(
                line["reason"].as_str().unwrap().contains("checksum"),
                "{line}"
            );
            let number = |field: &str| line[field].as_u64().unwrap();
            (
                number("epoch") as u32,
                number("index"),
                number("substitute"),
            )
        })
        .collect();
    assert_eq!(
        noted.iter().collect::<BTreeSet<_>>(),
        replaced.iter().collect()
    );
    assert_eq!(noted.len(), 4, "each once an epoch");
    assert_ne!(replaced[0].2, replaced[2].2, "another one in every epoch");

    let mut expected = one;
    expected.sort_unstable();
    for (name, threads, ranks) in [("many", 4, 1), ("ranks", 3, 3)] {
        let mut other = delivered(
            &sandbox,
            name,
            &format!("{serve} --threads {threads} --bad-log {name}.jsonl"),
            ranks,
        );
        other.sort_unstable();
        assert_eq!(other, expected, "{name}");
    }
    // The pixels too.
    let hashes = |threads| {
        sandbox.hashes(
            &format!("h{threads}"),
            &format!("{serve} --threads {threads}"),
        )
    };
    assert_eq!(hashes(1), hashes(3));
    assert_eq!(lines(&sandbox.path("bad_samples.jsonl")).len(), 8);
}

#[test]
fn too_many_bad_samples_end_the_run() {
    let sandbox = Sandbox::new();
    let path = sandbox.dataset("d.lmdb", 60);
    flip_byte(&path, 3);
    flip_byte(&path, 7);
    let serve = format!("serve d.lmdb {SERVE} --epochs 1 --batch-size 60 --threads 1 --name bad");
    sandbox
        .run(&serve)
        .failed(1, &["d.lmdb", "is damaged", "checksum"]);
    // 0.1 % of 60 samples, rounded up, is one.
    for budget in ["", " --max-bad 1", " --max-bad 1%"] {
        sandbox
            .run(&format!("{serve} --on-bad substitute{budget}"))
            .failed(
                1,
                &[
                    "more than 1 bad sample, which",
                    "d.lmdb",
                    "is damaged: checksum",
                ],
            );
    }
    assert_eq!(
        sandbox.run(&format!("{serve} --max-bad 3")).status.code(),
        Some(2)
    );
    assert_eq!(
        sandbox
            .run(&format!("{serve} --on-bad substitute --max-bad 3x"))
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn datasets_are_mixed_by_weight() {
    let sandbox = Sandbox::new();
    sandbox.dataset("a.lmdb", 100);
    sandbox.dataset("b.lmdb", 30);
    let serve =
        format!("a.lmdb --mix b.lmdb=0.5 {SERVE} --epochs 3 --batch-size 13 --epoch-samples 60");
    let got = delivered(&sandbox, "mixed", &serve, 1);
    for epoch in 0..3 {
        let from_b = got
            .iter()
            .filter(|sample| sample.0 == epoch && sample.1 >= 100)
            .count();
        assert_eq!(from_b, 20, "exactly a third in epoch {epoch}");
    }
    // No sample twice before all have come once: 120 draws of 100, 60 of 30.
    let mut counts = BTreeMap::new();
    for &(_, index, label) in &got {
        assert_eq!(
            label,
            (if index < 100 { index } else { index - 100 } % 10) as i64
        );
        *counts.entry(index).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 130);
    assert!(counts.iter().all(|(&index, &count)| if index < 100 {
        count == 1 || count == 2
    } else {
        count == 2
    }));

    // Entered in the middle, on two ranks, it is the same stream.
    let mut tail = got
        .iter()
        .filter(|sample| sample.0 >= 1)
        .copied()
        .collect::<Vec<_>>();
    let serve = serve.replace("--batch-size 13", "--batch-size 20");
    let mut entered = delivered(&sandbox, "entered", &format!("{serve} --start 1:0"), 2);
    tail.sort_unstable();
    entered.sort_unstable();
    assert_eq!(entered, tail);

    dataset(&sandbox, "c.lmdb", 5, 3, |index| (index % 3) as i64);
    sandbox
        .run(&format!(
            "serve a.lmdb --mix c.lmdb=1 --name x {SERVE} --epochs 1 --batch-size 4"
        ))
        .failed(1, &["c.lmdb: class 3 is none, in a.lmdb it is `class 3`"]);
    for bad in ["c.lmdb", "c.lmdb=0", "c.lmdb=x", "=1"] {
        let ended = sandbox.run(&format!(
            "serve a.lmdb --mix {bad} --name x {SERVE} --epochs 1 --batch-size 4"
        ));
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    }
}

#[test]
fn classes_are_balanced_and_parts_are_disjoint() {
    let sandbox = Sandbox::new();
    // 180 of class 0, 15 of class 1, 5 of class 3, none of class 2.
    dataset(&sandbox, "d.lmdb", 200, 4, |index| match index % 40 {
        0 => 3,
        1..=3 => 1,
        _ => 0,
    });
    let serve = format!("d.lmdb {SERVE} --batch-size 32");
    let balanced = delivered(
        &sandbox,
        "balanced",
        &format!("{serve} --epochs 3 --sampling class-balanced --epoch-samples 90"),
        1,
    );
    for epoch in 0..3 {
        let count = |class| {
            balanced
                .iter()
                .filter(|sample| sample.0 == epoch && sample.2 == class)
                .count()
        };
        assert_eq!([0, 1, 2, 3].map(count), [30, 30, 0, 30]);
    }
    let rare: Vec<u64> = (0..200).step_by(40).collect();
    for index in rare {
        assert_eq!(
            balanced.iter().filter(|sample| sample.1 == index).count(),
            18,
            "90 draws of 5"
        );
    }

    let part = |name: &str, more: &str| {
        let got = delivered(
            &sandbox,
            name,
            &format!("{serve} --epochs 1 --validation-fraction 0.3 {more}"),
            1,
        );
        let set: BTreeSet<u64> = got.iter().map(|sample| sample.1).collect();
        assert_eq!(set.len(), got.len(), "each once");
        set
    };
    let (train, validation) = (
        part("t", "--split train"),
        part("v", "--split validation --seed 9"),
    );
    assert!(train.is_disjoint(&validation));
    assert_eq!(train.len() + validation.len(), 200);
    assert!((40..80).contains(&validation.len()), "{}", validation.len());
    assert_ne!(part("w", "--split validation --split-seed 1"), validation);
    // What is appended moves nothing.
    sandbox.dataset("more.lmdb", 260);
    let serve = serve.replace("d.lmdb", "more.lmdb");
    let more: BTreeSet<u64> = delivered(
        &sandbox,
        "m",
        &format!("{serve} --epochs 1 --validation-fraction 0.3 --split validation"),
        1,
    )
    .iter()
    .map(|sample| sample.1)
    .filter(|&index| index < 200)
    .collect();
    assert_eq!(more, validation);
}

/// The thousand-millionth sample of an epoch is as near as the first.
#[test]
fn a_far_position_is_entered_at_once() {
    let sandbox = Sandbox::new();
    sandbox.dataset("d.lmdb", 500);
    let serve = format!("d.lmdb {SERVE} --epochs 2 --batch-size 128 --epoch-samples 2000000000");
    let started = Instant::now();
    let daemon = sandbox.serve(&format!("{serve} --start 0:7812500 --name far"));
    let mut consumer = sandbox.connect("far", 0);
    let batch = consumer.receive(LONG).unwrap().unwrap();
    println!(
        "sample 10^9 is delivered {:.0} ms after the daemon's start",
        started.elapsed().as_secs_f64() * 1e3
    );
    assert_eq!((batch.epoch(), batch.step()), (0, 7_812_500));
    let far: Vec<u64> = batch.indices().to_vec();
    assert!(far.iter().all(|&index| index < 500));
    drop((batch, consumer, daemon));

    // By arithmetic alone it is the same batch.
    let samples = ddas_loader::SampleOptions {
        epoch_samples: Some(2_000_000_000),
        ..Default::default()
    };
    let options = ddas_loader::StreamOptions {
        dataset: sandbox.path("d.lmdb"),
        recipe: "cifar".into(),
        policy: None,
        epochs: 2,
        batch_size: 128,
        world_size: 1,
        seed: 0,
        output: ddas_runtime::OutputFormat {
            dtype: ddas_runtime::Dtype::U8,
            layout: ddas_runtime::Layout::Nchw,
        },
        last: ddas_loader::LastBatch::Pad,
        start: ddas_loader::Position::default(),
    };
    let stream = ddas_loader::Stream::with_samples(options, samples).unwrap();
    let order = stream.plan.order(0);
    let expected: Vec<u64> = (0..128).map(|i| order.at(1_000_000_000 + i)).collect();
    assert_eq!(far, expected);
}
