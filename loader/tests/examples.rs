//! The examples, and the rank of a reference consumer under a launcher.

mod cli_support;
#[path = "../examples/embedded_training.rs"]
#[allow(dead_code, reason = "its `main`")]
mod embedded_training;
#[path = "../examples/ring_consumer.rs"]
#[allow(dead_code, reason = "its `main`")]
mod ring_consumer;

use cli_support::{Ended, Sandbox};

#[test]
fn the_embedded_training_loop_learns() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = embedded_training::pack(folder.path()).unwrap();
    let losses = embedded_training::train(&dataset).unwrap();
    assert_eq!(losses.len(), 5);
    embedded_training::check(&losses).unwrap();
}

#[test]
fn the_ring_consumer_reads_a_stream_to_its_end() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 20);
    let daemon = sandbox.serve(&format!(
        "{} --name train --recipe cifar --epochs 2 --batch-size 8 --dtype u8",
        dataset.display()
    ));
    let mut out = Vec::new();
    ring_consumer::read("train", 0, Some(sandbox.runtime_dir()), &mut out).unwrap();
    daemon.end().succeeded();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].contains("2 epochs of 3 batches of 8 samples, u8 nchw [3, 32, 32]"),
        "{text}"
    );
    assert!(
        lines[1].starts_with("epoch 0: 20 samples") && lines[2].starts_with("epoch 1: 20 samples"),
        "{text}"
    );
    assert_eq!(lines[3], "the stream has ended");
}

/// Runs `consume` as a launcher would.
fn consume(sandbox: &Sandbox, arguments: &str, environment: &[(&str, &str)]) -> Ended {
    let mut command = sandbox.command(arguments.split_whitespace());
    for name in ["RANK", "WORLD_SIZE", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    let output = command.output().unwrap();
    Ended {
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn consume_takes_its_rank_from_the_launcher_and_refuses_a_contradiction() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 20);
    let daemon = sandbox.serve(&format!(
        "{} --name two --recipe cifar --epochs 200 --batch-size 8 --world-size 2",
        dataset.display()
    ));
    let torchrun = [("RANK", "1"), ("WORLD_SIZE", "2")];
    let slurm = [("SLURM_PROCID", "1"), ("SLURM_NTASKS", "2")];
    for (environment, source) in [
        (torchrun, "torchrun (RANK and WORLD_SIZE)"),
        (slurm, "Slurm"),
    ] {
        let ended = consume(&sandbox, "consume two --batches 1 --json", &environment);
        let line = format!("rank 1 of 2, from {source}");
        assert!(ended.stderr.contains(&line), "{}", ended.stderr);
        let summary: serde_json::Value = serde_json::from_str(&ended.succeeded()).unwrap();
        assert_eq!(summary["rank"], 1);
    }
    consume(&sandbox, "consume two --rank 0 --batches 1", &torchrun).failed(
        1,
        &[
            "rank is 0 by the arguments (rank), but 1 by torchrun (RANK)",
            "--ignore-environment",
        ],
    );
    consume(
        &sandbox,
        "consume two --batches 1",
        &[("RANK", "1"), ("WORLD_SIZE", "3")],
    )
    .failed(
        1,
        &[
            "world size is 2 by the stream",
            "but 3 by torchrun (WORLD_SIZE)",
        ],
    );
    for (arguments, environment) in [
        ("consume two --batches 1 --json", &[][..]),
        (
            "consume two --rank 0 --ignore-environment --batches 1 --json",
            &torchrun[..],
        ),
    ] {
        let summary = consume(&sandbox, arguments, environment).succeeded();
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(summary["rank"], 0);
    }
    daemon.signal(rustix::process::Signal::TERM);
    daemon.end().succeeded();
}
