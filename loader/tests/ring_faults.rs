//! The ring between processes that are killed, stopped or forked.
//!
//! The binary starts itself in the roles below, told by an environment
//! variable, and talks with them through pipes. Every wait is bounded.

#[path = "ring_support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use ddas_loader::ring::{ConnectOptions, Consumer, Error, RingServer, ServerOptions, query_status};
use rustix::process::{Pid, Signal, kill_process};
use support::{Daemon, Dice, LONG, SHORT, check, fill, intact, stream};

const ROLE: &str = "DDAS_RING_TEST_ROLE";
const DIR: &str = "DDAS_RING_TEST_DIR";
/// The contract: a dead daemon is reported within this time.
const SECOND: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        play(&role);
        return ExitCode::SUCCESS;
    }
    let tests: &[(&str, fn())] = &[
        ("a_killed_holder_stops_nobody", a_killed_holder_stops_nobody),
        (
            "a_holder_killed_with_a_living_fork_stops_nobody",
            a_holder_killed_with_a_living_fork_stops_nobody,
        ),
        (
            "consumers_killed_at_random_moments_cost_others_nothing",
            consumers_killed_at_random_moments_cost_others_nothing,
        ),
        (
            "a_successor_gets_what_the_killed_one_held",
            a_successor_gets_what_the_killed_one_held,
        ),
        (
            "a_trainer_that_dies_with_the_last_batch_in_hand_is_not_waited_for",
            a_trainer_that_dies_with_the_last_batch_in_hand_is_not_waited_for,
        ),
        (
            "a_stopped_consumer_holds_back_and_loses_nothing",
            a_stopped_consumer_holds_back_and_loses_nothing,
        ),
        (
            "a_stopped_consumer_is_evicted_when_asked_for",
            a_stopped_consumer_is_evicted_when_asked_for,
        ),
        (
            "a_daemon_killed_while_a_consumer_waits_is_reported",
            a_daemon_killed_while_a_consumer_waits_is_reported,
        ),
        (
            "a_daemon_killed_at_random_moments_is_reported",
            a_daemon_killed_at_random_moments_is_reported,
        ),
        (
            "a_name_is_held_until_its_daemon_dies",
            a_name_is_held_until_its_daemon_dies,
        ),
        (
            "a_fork_cannot_disturb_its_parent",
            a_fork_cannot_disturb_its_parent,
        ),
    ];
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let mut failed = 0;
    for (name, test) in tests {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    assert!(left_in_dev_shm().is_empty(), "{:?}", left_in_dev_shm());
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn left_in_dev_shm() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev/shm")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| path.to_string_lossy().contains("ddas"))
        .collect()
}

// Roles of child processes. Each line they print is one event.

fn say(line: std::fmt::Arguments<'_>) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

fn play(role: &str) {
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let (role, argument) = role.split_once(':').unwrap_or((role, "0"));
    let number: u64 = argument.parse().unwrap();
    match role {
        "consume" => consume(&dir, None),
        "hold" => consume(&dir, Some((number, false))),
        "hold-forked" => consume(&dir, Some((number, true))),
        "fork" => fork_and_go_on(&dir),
        "serve" => serve(&dir, number),
        other => panic!("no role {other}"),
    }
}

fn join(dir: &Path) -> Consumer {
    Consumer::connect(
        "toy",
        ConnectOptions {
            rank: 0,
            timeout: LONG,
            dir: Some(dir.to_owned()),
            ..ConnectOptions::default()
        },
    )
    .unwrap()
}

/// Prints `SEQUENCE` for each intact batch; holds batch `hold` until killed.
fn consume(dir: &Path, hold: Option<(u64, bool)>) {
    let mut consumer = join(dir);
    say(format_args!("joined"));
    loop {
        match consumer.receive(LONG) {
            Ok(Some(batch)) => {
                let sequence = batch.sequence();
                let good = intact(&batch, sequence);
                if let Err(error) = batch.validate() {
                    say(format_args!("error {error:?}"));
                    return;
                }
                assert!(good, "torn batch {sequence}");
                match hold {
                    Some((number, fork)) if number == sequence => {
                        // SAFETY: this process has one thread; the child only sleeps.
                        if fork && unsafe { libc::fork() } == 0 {
                            outlive_the_test(dir);
                        }
                        say(format_args!("holding"));
                        std::thread::sleep(LONG);
                        return;
                    }
                    _ => say(format_args!("{sequence}")),
                }
            }
            Ok(None) => return say(format_args!("end")),
            Err(error) => return say(format_args!("error {error:?}")),
        }
    }
}

/// Keeps all inherited descriptors until the test's directory is gone.
fn outlive_the_test(dir: &Path) -> ! {
    let begun = std::time::Instant::now();
    while dir.exists() && begun.elapsed() < 2 * LONG {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::process::exit(0)
}

fn fork_and_go_on(dir: &Path) {
    let mut consumer = join(dir);
    let batch = consumer.receive(LONG).unwrap().unwrap();
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        0 => {
            let refused = matches!(consumer.receive(LONG), Err(Error::Forked { .. }));
            let invalid = matches!(batch.validate(), Err(Error::Forked { .. }));
            drop(batch);
            drop(consumer);
            std::process::exit(if refused && invalid { 0 } else { 1 });
        }
        child => {
            let status = rustix::process::waitpid(
                Pid::from_raw(child),
                rustix::process::WaitOptions::empty(),
            );
            assert_eq!(status.unwrap().unwrap().1.exit_status(), Some(0));
            say(format_args!("forked"));
            // The daemon must not have taken the child's end for ours.
            std::thread::sleep(SHORT);
            check(&batch, 1);
            batch.validate().unwrap();
            drop(batch);
            for sequence in 2..=6 {
                check(&consumer.receive(LONG).unwrap().unwrap(), sequence);
            }
            // SAFETY: as above. This child keeps copies of everything, and lives on.
            if unsafe { libc::fork() } == 0 {
                outlive_the_test(dir);
            }
            drop(consumer);
            say(format_args!("left"));
            outlive_the_test(dir);
        }
    }
}

/// Writes `number` batches, then waits to be killed.
fn serve(dir: &Path, number: u64) {
    let (infos, shape) = stream(4, 1);
    let options = ServerOptions {
        dir: Some(dir.to_owned()),
        ..ServerOptions::default()
    };
    let server = RingServer::start("toy", infos, shape, options).unwrap();
    say(format_args!("ready {}", server.removed_stale_socket()));
    let mut writer = server.writer(0).unwrap();
    let stop = AtomicBool::new(false);
    for sequence in 1..=number {
        match writer.acquire(&stop, LONG).unwrap() {
            Some(slot) => fill(slot, sequence),
            None => return,
        }
    }
    std::thread::sleep(LONG);
}

// Handling of child processes.

struct Actor {
    child: Child,
    lines: Receiver<String>,
}

impl Actor {
    fn start(role: &str, dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, role)
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(LONG) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("a child process says nothing"),
        }
    }

    /// Reads lines up to and including `last`; those before it.
    fn until(&self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.line() {
                Some(line) if line == last => return lines,
                Some(line) => lines.push(line),
                None => panic!("a child process ended without `{last}`: {lines:?}"),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

// Consumers that die.

fn a_killed_holder_stops_nobody() {
    let daemon = Daemon::start(3, 2);
    let writer = daemon.write(1..=60);
    let holder = Actor::start("hold:5", daemon.dir.path());
    let other = Actor::start("consume", daemon.dir.path());
    assert_eq!(
        holder.until("holding"),
        [vec!["joined".to_owned()], numbers(1..=4)].concat()
    );
    holder.signal(Signal::KILL);
    // It is not waited for: a zombie must count as dead.
    writer.join().unwrap();
    assert!(daemon.server.finish(LONG));
    assert_eq!(
        other.until("end"),
        [vec!["joined".to_owned()], numbers(1..=60)].concat()
    );
    drop(holder);
}

fn a_holder_killed_with_a_living_fork_stops_nobody() {
    let daemon = Daemon::start(3, 2);
    let writer = daemon.write(1..=30);
    let holder = Actor::start("hold-forked:5", daemon.dir.path());
    let other = Actor::start("consume", daemon.dir.path());
    holder.until("holding");
    holder.signal(Signal::KILL); // its fork lives on, with copies of socket and segments
    writer.join().unwrap();
    assert!(daemon.server.finish(LONG));
    assert_eq!(
        other.until("end"),
        [vec!["joined".to_owned()], numbers(1..=30)].concat()
    );
}

fn consumers_killed_at_random_moments_cost_others_nothing() {
    const BATCHES: u64 = 20_000;
    let daemon = Daemon::start(4, 2);
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let other = Actor::start("consume", daemon.dir.path());
    let mut dice = Dice(0x5eed);
    let mut steady = daemon.connect();
    let mut writer = daemon.server.writer(0).unwrap();
    let stopped = std::sync::Arc::clone(&stop);
    let writing = std::thread::spawn(move || {
        let mut written = 0;
        while let Some(slot) = writer.acquire(&stopped, LONG).unwrap() {
            written += 1;
            assert!(written < BATCHES * 100);
            fill(slot, written);
            std::thread::sleep(Duration::from_micros(200));
        }
        written
    });
    let reading = std::thread::spawn(move || {
        let mut expected = 1;
        while let Some(batch) = steady.receive(LONG).unwrap() {
            check(&batch, expected);
            expected += 1;
        }
        expected - 1
    });
    for _ in 0..200 {
        let role = if dice.below(2) == 0 {
            "consume".to_owned()
        } else {
            format!("hold:{}", dice.below(4000))
        };
        let victim = Actor::start(&role, daemon.dir.path());
        if dice.below(4) > 0 {
            victim.until("joined");
        }
        std::thread::sleep(Duration::from_micros(dice.below(12_000)));
        victim.signal(Signal::KILL);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let written = writing.join().unwrap();
    assert!(daemon.server.finish(LONG));
    assert_eq!(reading.join().unwrap(), written);
    assert_eq!(
        other.until("end"),
        [vec!["joined".to_owned()], numbers(1..=written)].concat()
    );
}

fn a_successor_gets_what_the_killed_one_held() {
    let daemon = Daemon::start(3, 1);
    let writer = daemon.write(1..=20);
    let holder = Actor::start("hold:7", daemon.dir.path());
    holder.until("holding");
    holder.signal(Signal::KILL);
    let mut successor = daemon.connect_when_alone();
    (7..=20).for_each(|sequence| check(&successor.receive(LONG).unwrap().unwrap(), sequence));
    writer.join().unwrap();
    assert!(daemon.server.finish(LONG));
}

fn a_trainer_that_dies_with_the_last_batch_in_hand_is_not_waited_for() {
    let daemon = Daemon::start(3, 1);
    let writer = daemon.write(1..=20);
    let trainer = Actor::start("hold:20", daemon.dir.path());
    trainer.until("holding");
    writer.join().unwrap();
    assert!(
        !daemon.server.finish(SHORT),
        "a living trainer is waited for"
    );
    trainer.signal(Signal::KILL);
    assert!(daemon.server.finish(LONG));
    // One that had not received the last batch may come back for it.
    let daemon = Daemon::start(3, 1);
    let writer = daemon.write(1..=20);
    let crashed = Actor::start("hold:19", daemon.dir.path());
    crashed.until("holding");
    writer.join().unwrap();
    crashed.signal(Signal::KILL);
    daemon.wait(|daemon| daemon.server.status().ranks[0].consumers.is_empty());
    assert!(!daemon.server.finish(SHORT));
    let mut successor = daemon.connect();
    (19..=20).for_each(|sequence| check(&successor.receive(LONG).unwrap().unwrap(), sequence));
    assert!(daemon.server.finish(LONG));
}

fn a_stopped_consumer_holds_back_and_loses_nothing() {
    let daemon = Daemon::start(3, 2);
    let writer = daemon.write(1..=20);
    let stopped = Actor::start("hold:5", daemon.dir.path());
    let mut other = daemon.connect();
    (1..=7).for_each(|sequence| check(&other.receive(LONG).unwrap().unwrap(), sequence));
    stopped.until("holding");
    stopped.signal(Signal::STOP);
    assert!(
        matches!(other.receive(SHORT), Err(Error::TimedOut { .. })),
        "a living process keeps its slot"
    );
    daemon.wait(|daemon| daemon.server.status().ranks[0].held_back_seconds.is_some());
    stopped.signal(Signal::CONT);
    stopped.signal(Signal::KILL);
    (8..=20).for_each(|sequence| check(&other.receive(LONG).unwrap().unwrap(), sequence));
    writer.join().unwrap();
}

fn a_stopped_consumer_is_evicted_when_asked_for() {
    let options = ServerOptions {
        consumers: 2,
        evict_after: Some(Duration::from_millis(300)),
        dir: None,
    };
    let daemon = Daemon::with_ranks(3, 1, options);
    let mut other = daemon.connect();
    let stopped = Actor::start("consume", daemon.dir.path());
    let mut writer = daemon.server.writer(0).unwrap();
    let stop = AtomicBool::new(false);
    stopped.until("joined");
    for sequence in 1..=5 {
        fill(writer.acquire(&stop, LONG).unwrap().unwrap(), sequence);
        check(&other.receive(LONG).unwrap().unwrap(), sequence);
    }
    stopped.until("5");
    stopped.signal(Signal::STOP);
    for sequence in 6..=20 {
        fill(writer.acquire(&stop, LONG).unwrap().unwrap(), sequence);
        check(&other.receive(LONG).unwrap().unwrap(), sequence);
    }
    stopped.signal(Signal::CONT);
    // It may have been stopped anywhere, but never shows a torn batch.
    let mut lines = Vec::new();
    while let Some(line) = stopped.line() {
        lines.push(line);
    }
    assert_eq!(
        lines.last().map(String::as_str),
        Some("error Evicted"),
        "{lines:?}"
    );
    assert_eq!(daemon.server.status().ranks[0].evicted, 1);
}

// Daemons that die.

fn a_daemon_killed_while_a_consumer_waits_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Actor::start("serve:2", dir.path());
    let pid = daemon.child.id();
    assert_eq!(daemon.line().unwrap(), "ready false");
    let mut consumer = join(dir.path());
    (1..=2).for_each(|sequence| check(&consumer.receive(LONG).unwrap().unwrap(), sequence));
    let waiting = std::thread::spawn(move || {
        // Waits for batch 3, which never comes; the time-out begins before the kill.
        consumer.receive(SHORT + SECOND).map(|_| ())
    });
    std::thread::sleep(SHORT);
    daemon.signal(Signal::KILL);
    match waiting.join().unwrap() {
        Err(Error::DaemonDied { pid: died }) => assert_eq!(died, Some(pid)),
        other => panic!("{other:?}"),
    }
    // The name is free again, and given back by its next holder.
    let (infos, shape) = stream(2, 1);
    let options = ServerOptions {
        dir: Some(dir.path().to_owned()),
        ..ServerOptions::default()
    };
    let next = RingServer::start("toy", infos, shape, options).unwrap();
    assert!(next.removed_stale_socket());
    drop(next);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn a_daemon_killed_at_random_moments_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(0xdead);
    for round in 0..50 {
        let daemon = Actor::start("serve:1000000", dir.path());
        assert_eq!(daemon.line().unwrap(), format!("ready {}", round > 0));
        let mut consumer = join(dir.path());
        let pause = Duration::from_micros(dice.below(5000));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(pause);
            daemon.signal(Signal::KILL);
            daemon
        });
        let mut expected = 1;
        loop {
            match consumer.receive(SECOND) {
                Ok(Some(batch)) => check(&batch, expected),
                Err(Error::DaemonDied { .. }) => break,
                other => panic!("{other:?}"),
            }
            expected += 1;
        }
        assert!(matches!(
            consumer.receive(SECOND),
            Err(Error::DaemonDied { .. })
        ));
        drop(killer.join().unwrap());
    }
}

fn a_name_is_held_until_its_daemon_dies() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Actor::start("serve:0", dir.path());
    daemon.line();
    let start = || {
        let (infos, shape) = stream(2, 1);
        RingServer::start(
            "toy",
            infos,
            shape,
            ServerOptions {
                dir: Some(dir.path().to_owned()),
                ..ServerOptions::default()
            },
        )
    };
    match start() {
        Err(Error::NameHeld { name, pid }) => {
            assert_eq!((name.as_str(), pid), ("toy", Some(daemon.child.id())));
        }
        other => panic!("{other:?}"),
    }
    // The refused one has not disturbed the holder.
    assert_eq!(
        query_status("toy", Some(dir.path())).unwrap().pid,
        daemon.child.id()
    );
    drop(daemon);
    assert!(start().unwrap().removed_stale_socket());
}

// Forks.

fn a_fork_cannot_disturb_its_parent() {
    let daemon = Daemon::start(2, 1);
    let parent = Actor::start("fork", daemon.dir.path());
    let writer = daemon.write(1..=6);
    parent.until("forked");
    parent.until("left");
    daemon.wait(|daemon| daemon.server.status().ranks[0].consumers.is_empty());
    writer.join().unwrap();
}
