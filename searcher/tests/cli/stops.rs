//! Signals and kills: what a stopped search leaves, and that it goes on as if it had not been.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ddas_formats::Policy;
use ddas_runtime::{SampleRng, Stream};
use ddas_search::RunFolder;

use crate::{Fixture, finish, stderr};

/// Runs until the metrics hold `steps` lines, then sends a signal.
pub(crate) fn interrupt(
    fixture: &Fixture,
    arguments: &[&str],
    run_dir: &str,
    steps: usize,
    signal: &str,
) -> Output {
    interrupt_command(fixture, fixture.run(arguments), run_dir, steps, signal)
}

fn interrupt_command(
    fixture: &Fixture,
    mut command: Command,
    run_dir: &str,
    steps: usize,
    signal: &str,
) -> Output {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    signal_at(fixture, &mut child, run_dir, steps, signal);
    child.wait_with_output().unwrap()
}

fn signal_at(fixture: &Fixture, child: &mut Child, run_dir: &str, steps: usize, signal: &str) {
    let metrics = fixture.path(run_dir).join("metrics.jsonl");
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let lines = std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
        if lines >= steps {
            break;
        }
        assert!(Instant::now() < deadline, "no step within five minutes");
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::sleep(Duration::from_millis(1));
    }
    let id = child.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status().unwrap();
    assert!(sent.success());
}

/// Kills the process when the metrics hold `lines` lines and a moment more has passed.
fn kill_at(fixture: &Fixture, mut command: Command, run_dir: &str, lines: usize, more: Duration) {
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let metrics = fixture.path(run_dir).join("metrics.jsonl");
    let deadline = Instant::now() + Duration::from_secs(300);
    while std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < lines {
        assert!(Instant::now() < deadline, "no step within five minutes");
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(more);
    child.kill().unwrap();
    assert!(
        !child.wait().unwrap().success(),
        "ended before it was killed"
    );
}

/// Kills the process in the middle of its next checkpoint and leaves what a torn write leaves.
fn kill_in_checkpoint(fixture: &Fixture, mut command: Command, run_dir: &str, bytes: usize) {
    // A pipe stands where the checkpoint is written to: the process waits in it for a reader.
    let pipe = fixture.path(run_dir).join("checkpoint.tmp");
    let _ = std::fs::remove_file(&pipe);
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    // Without waiting in it, so that a process that ends by itself is noticed.
    let mut options = OpenOptions::new();
    let mut reader = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&pipe)
        .unwrap();
    let (mut torn, mut count) = (vec![0; bytes], 0);
    let deadline = Instant::now() + Duration::from_secs(300);
    while count < bytes {
        match reader.read(&mut torn[count..]) {
            Ok(read @ 1..) => count += read,
            Ok(0) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(
            Instant::now() < deadline,
            "no checkpoint within five minutes"
        );
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    std::fs::remove_file(&pipe).unwrap();
    std::fs::write(&pipe, torn).unwrap();
}

#[test]
fn a_killed_run_resumed_gives_the_same_policy_to_the_byte() {
    let fixture = Fixture::new();
    // Long enough that the signal finds it running.
    let long = ["--set", "epochs=60"];
    let whole = finish(fixture.run(&[&long[..], &["-o", "whole.json"]].concat()));
    assert!(whole.status.success(), "{}", stderr(&whole));

    // Other moments in every run; shown when it fails, and given to see the same steps again.
    let seed = std::env::var("DDAS_TEST_SEED").map_or_else(
        |_| {
            u64::from(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap()
                    .subsec_nanos(),
            )
        },
        |text| text.parse().unwrap(),
    );
    println!("DDAS_TEST_SEED={seed}");
    let mut rng = SampleRng::new(seed, 0, 0, Stream::Search);
    let resume = || fixture.command(&["resume", "killed-run"]);
    for part in 0..3 {
        // Six steps and the epoch itself are seven lines.
        let lines = (110 * part + 14 + rng.below(80)) as usize;
        let more = Duration::from_micros(u64::from(rng.below(5000)));
        println!("killed after {lines} lines and {more:?}");
        let command = match part {
            0 => fixture.run(&[&long[..], &["-o", "killed.json"]].concat()),
            _ => resume(),
        };
        kill_at(&fixture, command, "killed-run", lines, more);
        let bytes = 1 + rng.below(4000) as usize;
        println!("killed after {bytes} bytes of a checkpoint");
        kill_in_checkpoint(&fixture, resume(), "killed-run", bytes);
    }
    assert!(!fixture.path("killed.json").exists());
    let resumed = finish(resume());
    assert!(resumed.status.success(), "{}", stderr(&resumed));

    let bytes = |name: &str| std::fs::read(fixture.path(name)).unwrap();
    assert_eq!(bytes("whole.json"), bytes("killed.json"));
    // Stopped by a signal within an epoch and resumed.
    let stopped = [&long[..], &["-o", "stopped.json"]].concat();
    let output = interrupt(&fixture, &stopped, "stopped-run", 17, "-TERM");
    assert_eq!(output.status.code(), Some(1));
    let resumed = finish(fixture.command(&["resume", "stopped-run"]));
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert_eq!(bytes("whole.json"), bytes("stopped.json"));
    let metrics = |name: &str| {
        RunFolder::open(&fixture.path(name))
            .unwrap()
            .0
            .read_metrics()
            .unwrap()
            .len()
    };
    assert_eq!(metrics("whole-run"), metrics("killed-run"));
    assert_eq!(metrics("whole-run"), metrics("stopped-run"));
}

#[test]
fn ctrl_c_leaves_the_policy_of_the_finished_epochs() {
    let fixture = Fixture::new();
    let arguments = ["--set", "epochs=1000", "-o", "stopped.json"];
    for (signal, overwrite) in [("-INT", None), ("-TERM", Some("--overwrite"))] {
        let arguments: Vec<&str> = arguments.into_iter().chain(overwrite).collect();
        let _ = std::fs::remove_file(fixture.path("stopped-run/metrics.jsonl"));
        let output = interrupt(&fixture, &arguments, "stopped-run", 16, signal);
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        assert!(text.contains("ddas-search resume stopped-run"), "{text}");
        let policy = Policy::read(&fixture.path("stopped.json")).unwrap();
        assert!((2..1000).contains(&policy.snapshots().len()));
    }
}

/// Ctrl-C in `ddas-search ... 2>&1 | tee log` ends `tee`, too.
#[test]
fn a_stop_with_nobody_listening_leaves_the_policy_all_the_same() {
    let fixture = Fixture::new();
    let arguments = ["--set", "epochs=1000", "-o", "stopped.json"];
    let mut child = fixture
        .run(&arguments)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    signal_at(&fixture, &mut child, "stopped-run", 16, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let policy = Policy::read(&fixture.path("stopped.json")).unwrap();
    assert!((2..1000).contains(&policy.snapshots().len()));
    assert!(fixture.path("stopped-run/report.html").exists());

    // The same of a disk that is full.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = fixture.run(&[]).stderr(full).status().unwrap();
    assert!(status.success());
    assert!(fixture.path("policy.json").exists());
}

#[test]
fn a_run_goes_on_with_its_own_search_space_alone() {
    let fixture = Fixture::new();
    let space = |kind: &str| {
        format!(
            r#"{{"name": "mine", "draws_per_sample": 2, "operations": [
            {{"kind": "Identity"}}, {{"kind": "{kind}"}}, {{"kind": "FlipLR"}}]}}"#
        )
    };
    let file = fixture.path("space.json");
    std::fs::write(&file, space("Invert")).unwrap();
    let long = ["--search-space", "space.json", "--set", "epochs=1000"];
    let arguments = [&long[..], &["-o", "stopped.json"]].concat();
    interrupt(&fixture, &arguments, "stopped-run", 10, "-TERM");
    std::fs::write(&file, space("FlipUD")).unwrap();
    let changed = finish(fixture.command(&["resume", "stopped-run"]));
    let text = stderr(&changed);
    assert_eq!(changed.status.code(), Some(1), "{text}");
    assert!(
        text.contains("no longer the search space of this run"),
        "{text}"
    );
    std::fs::write(&file, space("Invert")).unwrap();
    interrupt_command(
        &fixture,
        fixture.command(&["resume", "stopped-run"]),
        "stopped-run",
        200,
        "-TERM",
    );
    let policy = Policy::read(&fixture.path("stopped.json")).unwrap();
    assert_eq!(policy.search_space().entries()[1].label(), "Invert");
}

#[test]
fn a_stop_in_the_first_epoch_leaves_a_policy_of_what_is_known() {
    let fixture = Fixture::new();
    // 24 steps an epoch, of which at least two are done.
    let long = [
        "--set",
        "train_batch=2",
        "--set",
        "operation_learning_rate=0.05",
    ];
    let stopped = [&long[..], &["-o", "stopped.json"]].concat();
    let output = interrupt(&fixture, &stopped, "stopped-run", 2, "-INT");
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("stopped before the first epoch was done; the policy holds"),
        "{text}"
    );
    assert!(text.contains("ddas-search resume stopped-run"), "{text}");
    let policy = Policy::read(&fixture.path("stopped.json")).unwrap();
    assert_eq!(policy.snapshots().len(), 1);
    // Not the uniform one that it began with.
    let learned = policy.snapshots()[0].operation_probabilities();
    assert!(
        learned.iter().any(|&p| (p - 0.05).abs() > 1e-4),
        "{learned:?}"
    );
    let partial = policy.provenance().cost["partial"].as_str().unwrap();
    assert!(
        partial.contains("of 24 steps of the first of 3 epochs"),
        "{partial}"
    );
    let (run, _) = RunFolder::open(&fixture.path("stopped-run")).unwrap();
    let page = std::fs::read_to_string(run.report()).unwrap();
    assert!(page.contains("0 of 3") && page.contains("stopped by a signal"));
    assert!(page.contains("No epoch is finished"));

    let whole = [&long[..], &["-o", "whole.json"]].concat();
    assert!(finish(fixture.run(&whole)).status.success());
    let resumed = finish(fixture.command(&["resume", "stopped-run"]));
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    let bytes = |name: &str| std::fs::read(fixture.path(name)).unwrap();
    assert_eq!(bytes("whole.json"), bytes("stopped.json"));
}
