//! The dashboard on terminals and pipes, and what `bench` recommends.

mod cli_support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use cli_support::Sandbox;
use rustix::process::Signal;
use serde_json::Value;

const LONG: Duration = Duration::from_secs(60);

/// A terminal of eighty columns that a command draws on.
struct Terminal {
    master: std::fs::File,
    slave: std::fs::File,
    output: std::sync::mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn new() -> Terminal {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = std::fs::File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let size = rustix::termios::Winsize {
            ws_row: 30,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&slave, size).unwrap();
        let master = std::fs::File::from(master);
        let (sender, output) = std::sync::mpsc::channel();
        let mut reader = master.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length) = reader.read(&mut piece) {
                if length == 0 || sender.send(piece[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            master,
            slave,
            output,
            seen: String::new(),
        }
    }

    /// Waits until `text` has been written to it.
    fn shows(&mut self, text: &str) {
        let deadline = Instant::now() + LONG;
        while !self.seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let piece = self.output.recv_timeout(left);
            let piece = piece.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    /// Whether letters are echoed, whether lines are edited, and whether Ctrl-C is a signal.
    fn modes(&self) -> rustix::termios::LocalModes {
        rustix::termios::tcgetattr(&self.slave).unwrap().local_modes
    }
}

#[test]
fn the_dashboard_gives_the_terminal_back_however_it_ends() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 80);
    for end in ["q", "\x03", "SIGTERM", "the daemon"] {
        let daemon = sandbox.serve(&format!(
            "{} --name screen --recipe cifar --epochs 2 --batch-size 8",
            dataset.display()
        ));
        let mut terminal = Terminal::new();
        let before = terminal.modes();
        let slave = || std::process::Stdio::from(terminal.slave.try_clone().unwrap());
        let mut top = sandbox
            .command(["top", "screen", "--interval", "0.05"])
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        terminal.shows("limit now: ");
        assert_ne!(terminal.modes(), before, "keys come at once");
        assert!(
            terminal.seen.starts_with("\x1b[?1049h"),
            "{:?}",
            terminal.seen
        );
        match end {
            "SIGTERM" => {
                let pid = rustix::process::Pid::from_child(&top);
                rustix::process::kill_process(pid, Signal::TERM).unwrap();
            }
            "the daemon" => {
                daemon.signal(Signal::TERM);
                terminal.shows("the daemon `screen` (process ");
                terminal.shows("has ended");
            }
            key => terminal.master.write_all(key.as_bytes()).unwrap(),
        }
        assert!(top.wait().unwrap().success(), "{end}: {:?}", terminal.seen);
        terminal.shows("\x1b[?25h\x1b[?1049l");
        assert_eq!(terminal.modes(), before, "{end}");
        let frames = terminal.seen.split("\x1b[?25h").next().unwrap();
        for line in frames
            .split("\x1b[H")
            .skip(1)
            .flat_map(|frame| frame.split("\r\n"))
        {
            let shown = line.replace("\x1b[K", "").replace("\x1b[J", "");
            assert!(
                shown.chars().count() <= 80 && !shown.contains('\x1b'),
                "{shown:?}"
            );
        }
        if end != "the daemon" {
            daemon.signal(Signal::TERM);
        }
        daemon.end().succeeded();
    }
}

#[test]
fn without_a_terminal_the_dashboard_prints_plain_frames() {
    let sandbox = Sandbox::new();
    sandbox
        .run("top nobody")
        .failed(1, &["no daemon named `nobody`"]);
    let dataset = sandbox.dataset("noise.lmdb", 80);
    let daemon = sandbox.serve(&format!(
        "{} --name frames --recipe cifar --epochs 2 --batch-size 8 --slots 3",
        dataset.display()
    ));
    let mut consumer = sandbox.connect("frames", 0);
    let held = consumer.receive(LONG).unwrap();
    let top = sandbox.start("top frames --interval 0.05");
    for _ in 0..3 {
        top.stdout_line("limit now: ");
        let rank = top.stdout_line("rank 0 running");
        assert!(
            rank.contains(" ready, ") && rank.contains(" free"),
            "{rank}"
        );
        let consumer = top.stdout_line(&format!("    {:>7} cli_top", std::process::id()));
        assert_eq!(
            consumer.split_whitespace().nth(2),
            Some("-"),
            "nothing acknowledged: {consumer}"
        );
    }
    let once = sandbox.run("top frames --once").succeeded();
    assert!(!once.contains('\x1b'), "{once:?}");
    for part in [
        "images/s",
        "decode",
        "wait for trainer",
        "frames",
        "process ",
    ] {
        assert!(once.contains(part), "{part} in {once}");
    }
    drop(held);
    while consumer.receive(LONG).unwrap().is_some() {}
    drop(consumer);
    daemon.end().succeeded();
    let ended = top.end();
    assert!(
        ended.stderr.contains("the daemon `frames`") && ended.stderr.contains("has ended"),
        "{}",
        ended.stderr
    );
    ended.succeeded();
}

#[test]
fn bench_recommends_the_fewest_threads_and_slots_that_are_enough() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("noise.lmdb", 200);
    let bench = format!(
        "bench {} --recipe cifar --batch-size 10 --seconds 0.2",
        dataset.display()
    );
    let json: Value =
        serde_json::from_str(&sandbox.run(&format!("{bench} --json")).succeeded()).unwrap();
    assert!(
        ["storage", "cpu"].contains(&json["limited_by"].as_str().unwrap()),
        "{json}"
    );
    let recommended = &json["recommended"];
    let trials: Vec<(u64, u64, f64)> = recommended["trials"]
        .as_array()
        .unwrap()
        .iter()
        .map(|trial| {
            let number = |key: &str| trial[key].as_u64().unwrap();
            (
                number("threads"),
                number("slots"),
                trial["images_per_second"].as_f64().unwrap(),
            )
        })
        .collect();
    let (by_threads, by_slots) = trials.split_at(trials.len() - 4);
    assert_eq!(by_threads[0].0, 1);
    assert_eq!(
        by_slots.iter().map(|trial| trial.1).collect::<Vec<_>>(),
        [2, 3, 4, 6]
    );
    let enough = |trials: &[(u64, u64, f64)]| {
        let best = trials.iter().map(|trial| trial.2).fold(0.0, f64::max);
        *trials.iter().find(|trial| trial.2 >= 0.95 * best).unwrap()
    };
    assert_eq!(recommended["threads"], enough(by_threads).0);
    assert_eq!(recommended["slots"], enough(by_slots).1 + 1);
    assert!(by_slots.iter().all(|trial| trial.0 == enough(by_threads).0));

    let text = sandbox.run(&bench).succeeded();
    assert!(
        text.contains("the limit is the ") && text.contains("recommended: --threads "),
        "{text}"
    );
    let plain = sandbox
        .run(&format!("{bench} --json --no-recommendation"))
        .succeeded();
    let plain: Value = serde_json::from_str(&plain).unwrap();
    assert!(plain["recommended"].is_null());
}
