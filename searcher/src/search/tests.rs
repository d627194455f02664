use ddas_formats::Operation;
use ddas_runtime::{Image, Kernels, SampleRng, Stream};

use super::*;
use crate::epoch::EpochReport;
use crate::proxy_data::Samples;

struct Silent;

impl Observer for Silent {
    fn step(&mut self, _: &StepReport) -> Result<()> {
        Ok(())
    }

    fn epoch(&mut self, _: &Search, _: &EpochReport) -> Result<()> {
        Ok(())
    }
}

/// Raises the stop flag after a number of steps.
struct StopAfter<'a> {
    steps: u32,
    stop: &'a AtomicBool,
}

impl Observer for StopAfter<'_> {
    fn step(&mut self, _: &StepReport) -> Result<()> {
        self.steps -= 1;
        self.stop.store(self.steps == 0, Ordering::Relaxed);
        Ok(())
    }

    fn epoch(&mut self, _: &Search, _: &EpochReport) -> Result<()> {
        Ok(())
    }
}

const SIDE: u32 = 12;

/// Two classes: a bright bar along the top or along the left side, on noise.
fn bars(count: u64, stream: u64) -> Samples {
    let mut samples = Samples::default();
    for number in 0..count {
        let mut rng = SampleRng::new(stream, 0, number, Stream::Search);
        let label = number % 2;
        let mut pixels = Vec::new();
        for y in 0..SIDE {
            for x in 0..SIDE {
                let bright = if label == 0 { y < 4 } else { x < 4 };
                for _ in 0..3 {
                    pixels.push((rng.below(80) + if bright { 150 } else { 0 }) as u8);
                }
            }
        }
        samples
            .images
            .push(Image::from_rgb(SIDE, SIDE, pixels).unwrap());
        samples.labels.push(label as i64);
    }
    samples
}

/// Training images as they are, validation images inverted: of the operations, Invert alone
/// brings the two together.
fn planted() -> Arc<ProxyData> {
    let mut validation = bars(64, 2);
    let mut kernels = Kernels::default();
    for image in &mut validation.images {
        kernels.apply(&Operation::Invert, None, image);
    }
    Arc::new(ProxyData {
        train: bars(128, 1),
        validation,
        classes: 2,
    })
}

fn config(space: &std::path::Path, seed: u64) -> Config {
    let operations = vec![
        Operation::Identity,
        Operation::Blur,
        Operation::FlipLR,
        Operation::Invert,
    ];
    let space_of_four = ddas_formats::SearchSpace::new("four", 1, operations).unwrap();
    std::fs::write(space, serde_json::to_string(&space_of_four).unwrap()).unwrap();
    let mut config = Config::preset("cifar10").unwrap();
    for setting in [
        "image_size=12",
        "network=proxy",
        "epochs=6",
        "train_samples=128",
        "validation_samples=64",
        "train_batch=16",
        "validation_batch=32",
        "learning_rate=0.05",
        "loss=mean",
        "momentum=0.9",
        "operation_learning_rate=0.05",
        "total_learning_rate=0.05",
        "crop_padding=0",
        "flip=false",
        "cutout=0",
        "mean=[0.5,0.5,0.5]",
        "std=[0.25,0.25,0.25]",
    ] {
        config.set(setting).unwrap();
    }
    config.seed = seed;
    config.search_space = space.display().to_string();
    config
}

#[test]
fn a_planted_operation_is_found() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..2 {
        let config = config(&folder.path().join("space.json"), seed);
        let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
        let stop = AtomicBool::new(false);
        assert_eq!(search.run(1, &stop, &mut Silent).unwrap(), Ending::Finished);
        let policy = search.policy("bars", "test").unwrap();
        assert_eq!(policy.snapshots().len(), 6);
        let last = &policy.snapshots()[5];
        let probabilities = last.operation_probabilities();
        for other in 0..3 {
            assert!(
                probabilities[3] > 1.5 * probabilities[other],
                "{probabilities:?}"
            );
        }
        assert!(
            last.total_probability() > 0.35,
            "{}",
            last.total_probability()
        );
    }
}

#[test]
fn neither_workers_nor_a_second_run_change_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("space.json"), 3);
    config.epochs = 2;
    let run = |workers| {
        let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
        search
            .run(workers, &AtomicBool::new(false), &mut Silent)
            .unwrap();
        search.policy("bars", "test").unwrap().to_json()
    };
    let first = run(1);
    assert_eq!(first, run(1));
    assert_eq!(first, run(3));
}

#[test]
fn policies_drawn_from_the_probabilities_depend_on_neither_workers_nor_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("space.json"), 5);
    config.epochs = 2;
    let run = |config: &Config, workers| {
        let mut search = Search::new(planted(), config, Device::Cpu).unwrap();
        search
            .run(workers, &AtomicBool::new(false), &mut Silent)
            .unwrap();
        search
    };
    let uniform = run(&config, 1);
    config.exploit_probability = 0.3;
    let first = run(&config, 1);
    assert_eq!(first.snapshots(), run(&config, 3).snapshots());
    assert_ne!(first.snapshots(), uniform.snapshots());

    let checkpoint = folder.path().join("checkpoint.safetensors");
    let mut stopped = Search::new(planted(), &config, Device::Cpu).unwrap();
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter {
        steps: 5,
        stop: &stop,
    };
    stopped.run(2, &stop, &mut observer).unwrap();
    stopped.save_checkpoint(&checkpoint).unwrap();
    let mut resumed = Search::new(planted(), &config, Device::Cpu).unwrap();
    resumed.restore_checkpoint(&checkpoint).unwrap();
    let never = AtomicBool::new(false);
    resumed.run(2, &never, &mut Silent).unwrap();
    assert_eq!(first.snapshots(), resumed.snapshots());
}

#[test]
fn a_stopped_search_keeps_the_policy_of_its_finished_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder.path().join("space.json"), 0);
    let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
    let stop = AtomicBool::new(false);
    let steps = 2 * search.steps_per_epoch() + 3;
    let ending = search
        .run(1, &stop, &mut StopAfter { steps, stop: &stop })
        .unwrap();
    assert_eq!(ending, Ending::Stopped);
    let policy = search.policy("bars", "test").unwrap();
    assert_eq!(policy.snapshots().len(), 2);
    assert_eq!(policy.provenance().cost[PARTIAL], "2 of 6 epochs are done");

    let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
    search.run(1, &AtomicBool::new(true), &mut Silent).unwrap();
    let policy = search.policy("bars", "test").unwrap();
    assert_eq!(policy.snapshots().len(), 1);
    let only = &policy.snapshots()[0];
    assert_eq!(only.operation_probabilities(), [0.25; 4]);
    let partial = policy.provenance().cost[PARTIAL].as_str().unwrap();
    assert!(partial.contains("after 0 of 8 steps"), "{partial}");
}

#[test]
fn snapshots_at_the_start_are_one_epoch_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("space.json"), 1);
    config.epochs = 3;
    let run = |config: &Config| {
        let mut search = Search::new(planted(), config, Device::Cpu).unwrap();
        search.run(1, &AtomicBool::new(false), &mut Silent).unwrap();
        search.snapshots().to_vec()
    };
    let at_end = run(&config);
    config.snapshot = SnapshotAt::Start;
    let at_start = run(&config);
    assert_eq!(at_start[0].operation_probabilities(), [0.25; 4]);
    assert_eq!(at_start[1..], at_end[..2]);
}

#[test]
fn a_search_stopped_within_an_epoch_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("space.json"), 4);
    config.epochs = 3;
    config.snapshot = SnapshotAt::Start;
    let new = || Search::new(planted(), &config, Device::Cpu).unwrap();
    let never = AtomicBool::new(false);
    let mut whole = new();
    whole.run(1, &never, &mut Silent).unwrap();

    let checkpoint = folder.path().join("checkpoint.safetensors");
    let mut reports = Vec::new();
    for steps in [3, 9, 1, 100] {
        let mut search = new();
        if checkpoint.exists() {
            search.restore_checkpoint(&checkpoint).unwrap();
        }
        let stop = AtomicBool::new(false);
        let mut observer = Collect {
            left: steps,
            stop: &stop,
            reports: &mut reports,
        };
        search.run(2, &stop, &mut observer).unwrap();
        search.save_checkpoint(&checkpoint).unwrap();
        if search.snapshots().len() == 3 {
            assert_eq!(search.snapshots(), whole.snapshots());
            assert_eq!(
                search.network.parameters().flat(),
                whole.network.parameters().flat()
            );
        }
    }
    assert_eq!(reports.len(), 3);
    let mut all = Vec::new();
    let stop = AtomicBool::new(false);
    let mut observer = Collect {
        left: 1000,
        stop: &stop,
        reports: &mut all,
    };
    new().run(1, &stop, &mut observer).unwrap();
    for (mut found, mut wanted) in reports.into_iter().zip(all) {
        (found.seconds, wanted.seconds) = (0.0, 0.0);
        assert_eq!(found, wanted);
    }
}

/// Stops after some steps and keeps what epochs reported.
struct Collect<'a> {
    left: u32,
    stop: &'a AtomicBool,
    reports: &'a mut Vec<EpochReport>,
}

impl Observer for Collect<'_> {
    fn step(&mut self, _: &StepReport) -> Result<()> {
        self.left -= 1;
        self.stop.store(self.left == 0, Ordering::Relaxed);
        Ok(())
    }

    fn epoch(&mut self, _: &Search, report: &EpochReport) -> Result<()> {
        self.reports.push(report.clone());
        Ok(())
    }
}

#[test]
fn both_engines_find_nearly_the_same_policy_and_the_native_one_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("space.json"), 4);
    config.epochs = 1;
    config.network = "wrn-10-1".to_owned();
    let new = |engine| {
        let mut config = config.clone();
        config.engine = engine;
        Search::new(planted(), &config, Device::Cpu).unwrap()
    };
    let never = AtomicBool::new(false);
    let [mut native, mut libtorch] = [Engine::Auto, Engine::Libtorch].map(new);
    assert_eq!(native.config().engine, Engine::Native);
    assert_eq!(libtorch.config().engine, Engine::Libtorch);
    native.run(1, &never, &mut Silent).unwrap();
    libtorch.run(1, &never, &mut Silent).unwrap();
    let policies = [&native, &libtorch].map(|search| search.snapshots()[0].clone());
    let [found, wanted] = policies.map(|snapshot| {
        let mut all = snapshot.operation_probabilities().to_vec();
        all.push(snapshot.total_probability());
        all
    });
    for (found, wanted) in found.iter().zip(&wanted) {
        assert!((found - wanted).abs() < 2e-3, "{found} instead of {wanted}");
    }

    let checkpoint = folder.path().join("checkpoint.safetensors");
    let stop = AtomicBool::new(false);
    let mut stopped = new(Engine::Native);
    let mut observer = StopAfter {
        steps: 5,
        stop: &stop,
    };
    stopped.run(1, &stop, &mut observer).unwrap();
    stopped.save_checkpoint(&checkpoint).unwrap();
    let mut resumed = new(Engine::Native);
    resumed.restore_checkpoint(&checkpoint).unwrap();
    resumed.run(2, &never, &mut Silent).unwrap();
    assert_eq!(resumed.snapshots(), native.snapshots());
    let [found, wanted] = [&resumed, &native].map(|search| search.network.parameters().flat());
    assert_eq!(found, wanted);
}

#[test]
fn steps_that_teach_nothing_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let space = folder.path().join("space.json");
    let mut config = config(&space, 0);
    let one = ddas_formats::SearchSpace::new("one", 1, vec![Operation::Identity]).unwrap();
    std::fs::write(&space, serde_json::to_string(&one).unwrap()).unwrap();
    config.epochs = 1;
    // Without crop and flip all copies are the plain one.
    let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
    let stop = AtomicBool::new(false);
    let mut reports = Vec::new();
    let mut observer = Collect {
        left: 1000,
        stop: &stop,
        reports: &mut reports,
    };
    search.run(1, &stop, &mut observer).unwrap();
    assert_eq!(reports[0].dead.idle_steps, 8);
    assert!((search.snapshots()[0].total_probability() - 0.35).abs() < 1e-12);
}

#[test]
fn fixed_probabilities_stay_as_they_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("space.json"), 0);
    config.epochs = 1;
    config.learn_total_probability = false;
    config.learn_operation_probabilities = false;
    let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
    search.run(1, &AtomicBool::new(false), &mut Silent).unwrap();
    assert_eq!(search.snapshots()[0].operation_probabilities(), [0.25; 4]);
    assert!((search.snapshots()[0].total_probability() - 0.35).abs() < 1e-12);
}

#[test]
fn a_learning_rate_out_of_all_bounds_ends_in_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("space.json"), 0);
    config.learning_rate = 1e30;
    let mut search = Search::new(planted(), &config, Device::Cpu).unwrap();
    let error = search
        .run(1, &AtomicBool::new(false), &mut Silent)
        .unwrap_err();
    assert!(
        error.to_string().contains("lower `learning_rate`"),
        "{error}"
    );
}
