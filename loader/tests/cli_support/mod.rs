//! Runs the `ddas-loader` binary on data made here, under a watchdog.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ddas_formats::{DatasetWriter, Encoding, Packed, Policy, SearchSpace, Snapshot};
use ddas_loader::ring::{ConnectOptions, Consumer};
use tempfile::TempDir;

/// No command of these tests may take longer: it would count as a hang.
const WATCHDOG: Duration = Duration::from_secs(120);

/// A folder of its own for each test: datasets, policies, and the daemons' sockets.
pub(crate) struct Sandbox {
    folder: TempDir,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Asserts exit status 0 and gives the standard output.
    pub(crate) fn succeeded(self) -> String {
        assert!(
            self.status.success(),
            "{}\n{}\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Asserts that the command ended with `code` and one clear message that contains every one of `parts`.
    pub(crate) fn failed(&self, code: i32, parts: &[&str]) {
        let report = format!(
            "{}\nstdout: {}\nstderr: {}",
            self.status, self.stdout, self.stderr
        );
        assert_eq!(self.status.code(), Some(code), "{report}");
        let errors: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "expected one error message: {report}");
        for part in parts {
            assert!(errors[0].contains(part), "expected {part:?} in: {report}");
        }
        assert!(!self.stderr.contains("panicked"), "{report}");
    }
}

impl Sandbox {
    pub(crate) fn new() -> Sandbox {
        Sandbox {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the daemons of this test have their sockets.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// A dataset of `samples` raw images of 32 x 32 pixels; sample `i` has label `i % 10` and is found by its pixels.
    pub(crate) fn dataset(&self, name: &str, samples: u64) -> PathBuf {
        let path = self.path(name);
        let mut writer = DatasetWriter::create(&path, false).expect("a new dataset");
        for index in 0..samples {
            writer
                .append((index % 10) as i64, Encoding::Raw, 32, 32, &pixels(index))
                .expect("a sample");
        }
        let classes = (0..10).map(|class| format!("class {class}")).collect();
        writer
            .finish(classes, Packed::default())
            .expect("a finished dataset");
        path
    }

    /// A policy of three snapshots that augments most samples.
    pub(crate) fn policy(&self, name: &str) -> PathBuf {
        let space = SearchSpace::named("paper68").expect("a named space");
        let snapshot = |total: f64, strong: usize| {
            let mut probabilities = vec![0.5 / space.len() as f64; space.len()];
            probabilities[strong] += 0.5;
            Snapshot::new(total, probabilities).expect("a snapshot")
        };
        let snapshots = vec![snapshot(0.6, 3), snapshot(0.9, 20), snapshot(0.8, 40)];
        let path = self.path(name);
        let policy = Policy::new(space, snapshots).expect("a policy");
        policy.write(&path).expect("a written policy");
        path
    }

    pub(crate) fn command<I>(&self, arguments: I) -> Command
    where
        I: IntoIterator,
        I::Item: AsRef<std::ffi::OsStr>,
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ddas-loader"));
        command
            .args(arguments)
            .env("DDAS_RUNTIME_DIR", self.runtime_dir())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command, given as one string of words, to its end.
    pub(crate) fn run(&self, arguments: &str) -> Ended {
        self.start(arguments).end()
    }

    /// Starts a command, given as one string of words.
    pub(crate) fn start(&self, arguments: &str) -> Running {
        self.start_with(arguments, &[])
    }

    /// As [`Sandbox::start`], with variables in its environment.
    pub(crate) fn start_with(&self, arguments: &str, variables: &[(&str, &str)]) -> Running {
        let mut child = self
            .command(arguments.split_whitespace())
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (stdout, stdout_lines) = follow(child.stdout.take().expect("a pipe"));
        let (stderr, stderr_lines) = follow(child.stderr.take().expect("a pipe"));
        Running {
            child,
            stdout,
            stderr,
            stdout_lines,
            stderr_lines,
            arguments: arguments.to_owned(),
        }
    }

    /// Starts `serve` and waits until it is ready.
    pub(crate) fn serve(&self, arguments: &str) -> Running {
        let daemon = self.start(&format!("serve {arguments}"));
        daemon.stderr_line("ready: ");
        daemon
    }

    pub(crate) fn connect(&self, name: &str, rank: u32) -> Consumer {
        let options = ConnectOptions {
            rank,
            dir: Some(self.runtime_dir()),
            ..ConnectOptions::default()
        };
        Consumer::connect(name, options).expect("a running daemon")
    }

    /// What `status --json` prints.
    pub(crate) fn status(&self, name: &str) -> serde_json::Value {
        let text = self.run(&format!("status {name} --json")).succeeded();
        serde_json::from_str(&text).expect("JSON")
    }

    /// What `consume --hash` prints for a run of `serve` on `dataset`.
    pub(crate) fn hashes(&self, name: &str, serve: &str) -> Vec<String> {
        let daemon = self.serve(&format!("{serve} --name {name}"));
        let hashes = self.run(&format!("consume {name} --hash")).succeeded();
        daemon.end().succeeded();
        hashes.lines().map(str::to_owned).collect()
    }
}

/// The pixels of a sample of [`Sandbox::dataset`]: noise that no other sample has.
pub(crate) fn pixels(index: u64) -> Vec<u8> {
    let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let noise = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 56) as u8
    };
    (0..32 * 32 * 3).map(noise).collect()
}

/// Changes one byte of a sample in the dataset's file.
pub(crate) fn flip_byte(dataset: &Path, index: u64) {
    let path = dataset.join("data.mdb");
    let mut bytes = fs::read(&path).expect("the data file");
    let pixels = pixels(index);
    let place = bytes
        .windows(pixels.len())
        .position(|window| window == pixels)
        .expect("the sample");
    bytes[place + 1000] ^= 0x10;
    fs::write(&path, bytes).expect("the changed data file");
}

/// A command under way. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    stdout: JoinHandle<String>,
    stderr: JoinHandle<String>,
    stdout_lines: Receiver<String>,
    stderr_lines: Receiver<String>,
    arguments: String,
}

impl Running {
    /// Waits for a line on standard error that begins with `start`.
    pub(crate) fn stderr_line(&self, start: &str) -> String {
        wait_for(&self.stderr_lines, start, &self.arguments)
    }

    /// Waits for a line on standard output that begins with `start`.
    pub(crate) fn stdout_line(&self, start: &str) -> String {
        wait_for(&self.stdout_lines, start, &self.arguments)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child to kill");
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a child to signal");
    }

    /// Waits for its end; a command that does not end is killed, and the test fails.
    pub(crate) fn end(mut self) -> Ended {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child to wait for") {
                break status;
            }
            if started.elapsed() > WATCHDOG {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("`ddas-loader {}` hangs", self.arguments);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = |reader: JoinHandle<String>| reader.join().expect("a reader");
        let (stdout, stderr) = (
            std::mem::replace(&mut self.stdout, nothing()),
            std::mem::replace(&mut self.stderr, nothing()),
        );
        Ended {
            status,
            stdout: text(stdout),
            stderr: text(stderr),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nothing() -> JoinHandle<String> {
    std::thread::spawn(String::new)
}

fn follow(pipe: impl Read + Send + 'static) -> (JoinHandle<String>, Receiver<String>) {
    let (sender, lines) = channel();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        for line in BufReader::new(pipe).lines() {
            let line = line.expect("text on a pipe");
            text.push_str(&line);
            text.push('\n');
            let _ = sender.send(line);
        }
        text
    });
    (reader, lines)
}

fn wait_for(lines: &Receiver<String>, start: &str, arguments: &str) -> String {
    let mut seen = Vec::new();
    // For a command that never stops printing other lines, too.
    let deadline = Instant::now() + WATCHDOG;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.starts_with(start) => return line,
            Ok(line) => seen.push(line),
            Err(error) => {
                panic!("`ddas-loader {arguments}`: no line {start:?} ({error}) after {seen:#?}")
            }
        }
    }
}
