//! The program as a user meets it: whole runs on a tiny dataset, stops, resumes, wrong input.

mod compare;
mod networks;
mod stops;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ddas_formats::{DatasetWriter, Encoding, Packed, Policy};
use ddas_search::{Engine, RunFolder};

const SIDE: u32 = 12;

/// Bright bars along the top or along the left side: two classes.
fn write_dataset(path: &Path) {
    let mut writer = DatasetWriter::create(path, false).unwrap();
    for number in 0..96u32 {
        let label = number % 2;
        let pixels: Vec<u8> = (0..SIDE * SIDE * 3)
            .map(|value| {
                let (y, x) = (value / 3 / SIDE, value / 3 % SIDE);
                let bright = if label == 0 { y < 4 } else { x < 4 };
                let noise = (value * 37 + number * 101) % 83;
                (noise + if bright { 150 } else { 0 }) as u8
            })
            .collect();
        let label = i64::from(label);
        writer
            .append(label, Encoding::Raw, SIDE, SIDE, &pixels)
            .unwrap();
    }
    let classes = ["top", "left"].map(str::to_owned).to_vec();
    writer.finish(classes, Packed::default()).unwrap();
}

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_dataset(&folder.path().join("bars.lmdb"));
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ddas-search"));
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    /// `run` on the tiny dataset with a tiny network, and further arguments.
    fn run(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&["run", "bars.lmdb", "--preset", "sanity"]);
        command.args(["--device", "cpu", "--threads", "1"]);
        for setting in [
            "network=proxy",
            "image_size=12",
            "train_samples=48",
            "validation_samples=48",
            "train_batch=8",
            "validation_batch=16",
            "momentum=0.9",
            "loss=mean",
            "epochs=3",
        ] {
            command.args(["--set", setting]);
        }
        command.args(arguments);
        command
    }
}

fn finish(mut command: Command) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(300);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the program hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_run_leaves_policy_metrics_settings_and_report() {
    let fixture = Fixture::new();
    let output = finish(fixture.run(&["-o", "mine.json", "--seed", "5"]));
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    // 20 epochs of 62 steps stand in the preset; their size differs here, so no estimate of it.
    assert!(text.contains("s a step on cpu (1 threads)"), "{text}");
    assert!(text.contains("whose steps are of another size"), "{text}");

    let policy = Policy::read(&fixture.path("mine.json")).unwrap();
    assert_eq!(policy.snapshots().len(), 3);
    assert_eq!(policy.provenance().seed, Some(5));
    let (run, record) = RunFolder::open(&fixture.path("mine-run")).unwrap();
    assert_eq!(record.settings.seed, 5);
    assert_eq!(record.settings.network, "proxy");
    assert_eq!(record.settings.engine, Engine::Libtorch, "`auto`, resolved");
    assert_eq!(run.read_metrics().unwrap().len(), 3 * 6 + 3);
    assert!(run.report().exists());

    let again = finish(fixture.run(&["-o", "mine.json"]));
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("--overwrite"));

    let report = finish(fixture.command(&["report", "mine-run", "-o", "page.html"]));
    assert!(report.status.success(), "{}", stderr(&report));
    assert!(fixture.path("page.html").exists());
}

#[test]
fn the_total_probability_may_be_fixed_at_its_ends() {
    let fixture = Fixture::new();
    for (fixed, wanted) in [("0", 0.0), ("0.6", 0.6), ("1", 1.0)] {
        // Folders that are not there yet are made.
        let file = format!("fixed/{fixed}/policy.json");
        let arguments = [
            "--fix-total-probability",
            fixed,
            "--run-dir",
            fixed,
            "-o",
            &file,
        ];
        let output = finish(fixture.run(&arguments));
        assert!(output.status.success(), "{}", stderr(&output));
        let policy = Policy::read(&fixture.path(&file)).unwrap();
        for snapshot in policy.snapshots() {
            assert!((snapshot.total_probability() - wanted).abs() < 1e-15);
        }
        let learned = policy.snapshots().last().unwrap().operation_probabilities();
        let uniform = 1.0 / learned.len() as f64;
        let moved = learned.iter().any(|p| (p - uniform).abs() > 1e-6);
        assert_eq!(moved, wanted > 0.0, "{fixed}");
    }
}

#[test]
fn a_search_that_diverges_at_once_says_what_to_do_and_leaves_no_policy() {
    let fixture = Fixture::new();
    let output = finish(fixture.run(&["--set", "learning_rate=1e30", "-o", "diverged.json"]));
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("error: no epoch was finished, so there is no policy: the search diverged"),
        "{text}"
    );
    assert!(text.contains("lower `learning_rate`"), "{text}");
    assert!(!fixture.path("diverged.json").exists());
}

#[test]
fn wrong_input_ends_in_one_clear_message() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("folder.txt"), "no dataset").unwrap();
    let with = |arguments: &[&str]| finish(fixture.command(arguments));
    let cases = [
        (
            with(&["run", "missing.lmdb", "--preset", "sanity"]),
            "missing.lmdb",
        ),
        (
            with(&["run", "folder.txt", "--preset", "sanity"]),
            "folder.txt",
        ),
        (with(&["resume", "nowhere"]), "config.json"),
        (with(&["report", "nowhere"]), "config.json"),
        (
            with(&["compare", "folder.txt", "missing.json"]),
            "folder.txt",
        ),
        (with(&["check-step", "folder.txt"]), "folder.txt"),
        (
            finish(fixture.run(&["--set", "train_samples=90"])),
            "holds 96 samples",
        ),
        (
            finish(fixture.run(&["--search-space", "folder.txt"])),
            "folder.txt: ",
        ),
        (finish(fixture.run(&["-o", "."])), "is a folder; --output"),
        (
            finish(fixture.run(&["-o", "folder.txt/policy.json"])),
            "policy.json cannot be written: no folder",
        ),
        (with(&["check-step", "nowhere"]), "cannot open"),
        (with(&["check-step", "."]), "not a file"),
    ];
    for (output, wanted) in cases {
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{wanted}: {text}");
        assert!(text.contains(wanted), "{wanted}: {text}");
        assert!(text.starts_with("error: "), "{wanted}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let usages = [
        (with(&["run", "bars.lmdb"]), "--preset"),
        (with(&["compare", "one.json"]), "FILE"),
        (
            with(&["compare", "a", "b", "--min-rho", "2"]),
            "from -1 to 1",
        ),
        (finish(fixture.run(&["--set", "epoch=3"])), "the keys are"),
        (finish(fixture.run(&["--set", "epochs=0"])), "epochs"),
        (finish(fixture.run(&["--model", "vgg"])), "wrn-DEPTH-WIDTH"),
        (
            finish(fixture.run(&["--search-space", "none.json"])),
            "paper68",
        ),
        (
            finish(fixture.run(&["--fix-total-probability", "1.5"])),
            "(0 and 1, too, where it is fixed)",
        ),
        (
            finish(fixture.run(&["--set", "total_probability=1"])),
            "above 0 and below 1",
        ),
        (
            with(&["check-step", "folder.txt", "--tolerance", "nan"]),
            "expected a number from 0",
        ),
    ];
    for (output, wanted) in usages {
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{wanted}: {text}");
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}
