//! `ring_consumer.c`, written from docs/shared-memory.md, reads what the ring's own consumer reads.

#[path = "ring_support/mod.rs"]
mod support;

use std::process::Command;

use support::{Daemon, LONG, check};

#[test]
fn a_c_program_written_from_the_specification_reads_every_batch() {
    let daemon = Daemon::start(3, 2);
    let program = daemon.dir.path().join("ring_consumer");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ring_consumer.c");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let compiled = Command::new(compiler)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-o"])
        .arg(&program)
        .arg(source)
        .status()
        .unwrap();
    assert!(compiled.success());

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
        let images: u64 = batch.images().iter().map(|&byte| u64::from(byte)).sum();
        let labels = batch
            .labels()
            .iter()
            .fold(0_u64, |sum, &label| sum.wrapping_add(label as u64));
        let sum = batch
            .indices()
            .iter()
            .fold(images.wrapping_add(labels), |sum, &index| {
                sum.wrapping_add(index)
            });
        expected += &format!(
            "{sequence} {} {} {} {sum}\n",
            batch.epoch(),
            batch.step(),
            batch.samples()
        );
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
