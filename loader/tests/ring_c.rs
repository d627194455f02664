//! `ring_consumer.c`, written from docs/shared-memory.md, reads what the ring's own consumer reads.

#[path = "ring_support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use ddas_loader::ring::{ReadBatch, ServerOptions};
use support::{Daemon, LONG, check, fill, mixed_stream};

/// Compiles the program into `folder`.
fn compiled(folder: &Path) -> PathBuf {
    let program = folder.join("ring_consumer");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ring_consumer.c");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let compiled = Command::new(compiler)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-o"])
        .arg(&program)
        .arg(source)
        .status()
        .unwrap();
    assert!(compiled.success());
    program
}

/// What the program prints for a batch.
fn line(batch: &ReadBatch) -> String {
    let images = batch.images().iter().map(|&byte| u64::from(byte));
    let labels = batch.labels().iter().map(|&label| label as u64);
    let mixed = batch.mixed_labels().unwrap_or_default();
    let weights = batch.weights().unwrap_or_default();
    let sum = images
        .chain(labels)
        .chain(batch.indices().iter().copied())
        .chain(mixed.iter().map(|&label| label as u64))
        .chain(weights.iter().map(|weight| weight.to_bits().into()))
        .fold(0_u64, u64::wrapping_add);
    let (sequence, epoch, step) = (batch.sequence(), batch.epoch(), batch.step());
    format!("{sequence} {epoch} {step} {} {sum}\n", batch.samples())
}

#[test]
fn a_c_program_written_from_the_specification_reads_every_batch() {
    for mixes in [false, true] {
        reads_every_batch(mixes);
    }
}

fn reads_every_batch(mixes: bool) {
    let options = ServerOptions {
        consumers: 2,
        ..ServerOptions::default()
    };
    let daemon = Daemon::serving(mixed_stream(3, 1, mixes), options);
    let program = compiled(daemon.dir.path());
    let socket = daemon.dir.path().join("toy.sock");
    let writer = daemon.write(1..=50);
    let c = Command::new(&program)
        .arg(&socket)
        .arg("0")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut consumer = daemon.connect();
    let mut expected = String::new();
    for sequence in 1..=50 {
        let batch = consumer.receive(LONG).unwrap().unwrap();
        check(&batch, sequence);
        expected += &line(&batch);
    }
    writer.join().unwrap();
    daemon.server.finish(LONG);
    let output = c.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        expected + "end\n"
    );

    let refused = Command::new(&program)
        .arg(&socket)
        .arg("9")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no rank 9"));
}

#[test]
fn the_c_program_waits_for_the_next_epoch() {
    let daemon = Daemon::start(3, 1);
    let program = compiled(daemon.dir.path());
    let stop = AtomicBool::new(false);
    let mut writer = daemon.server.writer(0).unwrap();
    let mut write = |sequence| fill(writer.acquire(&stop, LONG).unwrap().unwrap(), sequence);
    let mut consumer = daemon.connect();
    for sequence in 1..=4 {
        write(sequence);
        check(&consumer.receive(LONG).unwrap().unwrap(), sequence);
    }
    let c = Command::new(&program)
        .arg(daemon.dir.path().join("toy.sock"))
        .args(["0", "next-epoch"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    daemon.wait(|daemon| daemon.server.status().ranks[0].consumers.len() == 2);
    let mut expected = String::new();
    for sequence in 5..=25 {
        write(sequence);
        let batch = consumer.receive(LONG).unwrap().unwrap();
        check(&batch, sequence);
        if sequence > 10 {
            expected += &line(&batch);
        }
    }
    daemon.server.finish(LONG);
    let output = c.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        expected + "end\n"
    );
}
