//! The engine in this process: what a sample looks like and where it goes never depends on how the run is carried out.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ddas_formats::Dataset;
use ddas_loader::{
    BatchPart, BatchSink, EpochOrder, EpochReport, Error, Limit, MemoryBatch, MemorySink,
    MemorySlot, Position,
};
use ddas_runtime::PipelineScratch;
use ddas_tests::{Batch, Run, SEED, noise, noise_dataset};

/// Every place of every batch holds what the pipeline alone makes of the sample that the order puts there.
#[test]
fn batches_hold_what_the_pipeline_makes_of_each_sample() {
    let (_folder, path) = noise_dataset(50);
    let run = Run {
        threads: 3,
        ..Run::default()
    };
    let batches = run.batches(&path).unwrap();
    assert_eq!(batches.len(), 3 * 5);
    let pipeline = run.pipeline();
    let reader = Dataset::open(&path).unwrap().reader().unwrap();
    let mut scratch = PipelineScratch::default();
    let mut expected = vec![0; pipeline.sample_bytes()];
    for ((epoch, step, _), batch) in &batches {
        assert_eq!(batch.indices.len(), if *step == 4 { 2 } else { 12 });
        for (i, image) in batch.images.chunks_exact(expected.len()).enumerate() {
            let index = EpochOrder::new(SEED, *epoch, 50).at(step * 12 + i as u64);
            assert_eq!(
                (batch.indices[i], batch.labels[i]),
                (index, (index % 10) as i64)
            );
            let sample = reader.get(index).unwrap();
            assert_eq!(sample.payload, noise(index));
            pipeline
                .process(&mut scratch, &sample, *epoch, index, &mut expected)
                .unwrap();
            assert_eq!(
                image, expected,
                "epoch {epoch}, step {step}, sample {index}"
            );
        }
    }
}

#[test]
fn threads_slots_and_restarts_change_nothing() {
    let (_folder, path) = noise_dataset(67);
    let reference = Run {
        threads: 1,
        slots: 2,
        ..Run::default()
    }
    .batches(&path)
    .unwrap();
    let runs = [1, 2, 3, 8]
        .into_iter()
        .flat_map(|threads| [2, 3, 4, 7, 11, 16].map(|slots| (threads, slots)));
    for (threads, slots) in runs {
        let batches = Run {
            threads,
            slots,
            ..Run::default()
        }
        .batches(&path)
        .unwrap();
        assert!(batches == reference, "{threads} threads, {slots} slots");
    }
    for start in [
        Position { epoch: 0, step: 1 },
        Position { epoch: 1, step: 5 },
        Position { epoch: 2, step: 0 },
    ] {
        let tail = Run {
            start,
            threads: 4,
            ..Run::default()
        }
        .batches(&path)
        .unwrap();
        let expected = reference.clone().split_off(&(start.epoch, start.step, 0));
        assert!(tail == expected, "started at {start}");
    }
}

#[test]
fn the_ranks_together_are_the_single_process_run() {
    let (_folder, path) = noise_dataset(67);
    let reference = Run::default().batches(&path).unwrap();
    for world_size in [2, 3, 4, 6, 12] {
        let batches = Run {
            world_size,
            ..Run::default()
        }
        .batches(&path)
        .unwrap();
        assert_eq!(batches.len(), reference.len() * world_size as usize);
        for ((epoch, step, _), whole) in &reference {
            let mut union = Batch::default();
            for rank in 0..world_size {
                union.extend(&batches[&(*epoch, *step, rank)]);
            }
            assert!(
                &union == whole,
                "epoch {epoch}, step {step} of {world_size} ranks"
            );
        }
    }
}

#[test]
fn a_damaged_sample_ends_the_run_and_is_named() {
    let (_folder, path) = noise_dataset(50);
    let data = path.join("data.mdb");
    let mut bytes = std::fs::read(&data).unwrap();
    let victim = noise(33);
    let place = bytes
        .windows(victim.len())
        .position(|window| window == victim)
        .unwrap();
    bytes[place] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let order = EpochOrder::new(SEED, 0, 50);
    let step = (0..50).find(|&position| order.at(position) == 33).unwrap() / 12;
    for threads in [1, 4] {
        let error = Run {
            threads,
            ..Run::default()
        }
        .batches(&path)
        .unwrap_err();
        match &error {
            Error::Sample { index, at, .. } => {
                assert_eq!((*index, *at), (33, Position { epoch: 0, step }))
            }
            other => panic!("{other}"),
        }
        let message = ddas_loader::one_line(&error);
        assert!(
            message.contains("sample 33") && message.contains("noise.lmdb"),
            "{message}"
        );
    }
}

#[test]
fn a_panic_in_a_callers_function_is_an_error_of_the_run() {
    let (_folder, path) = noise_dataset(60);
    let run = Run::default();
    let engine = run.engine(&path);
    let received =
        |part: &BatchPart, _: MemoryBatch<'_>| assert!(part.step < 2, "enough is enough");
    let sink = MemorySink::new(4, 12, run.pipeline().sample_bytes(), received);
    let error = engine
        .run(vec![sink], &AtomicBool::new(false), &|_| ())
        .unwrap_err();
    assert!(
        matches!(&error, Error::ThreadPanicked { message, .. } if message == "enough is enough"),
        "{error}"
    );
}

/// A sink that hands its slots out only now and then, as a slow trainer does.
struct SlowSink<F>(MemorySink<F>);

impl<F> BatchSink for SlowSink<F>
where
    F: Fn(&BatchPart, MemoryBatch<'_>) + Send + Sync,
{
    type Slot = MemorySlot<F>;

    fn acquire(
        &mut self,
        stop: &AtomicBool,
        timeout: Duration,
    ) -> ddas_loader::Result<Option<MemorySlot<F>>> {
        std::thread::sleep(Duration::from_millis(30));
        self.0.acquire(stop, timeout)
    }
}

#[test]
fn a_slow_trainer_is_named_as_the_limit() {
    let (_folder, path) = noise_dataset(24);
    let run = Run {
        epochs: 2,
        ..Run::default()
    };
    let engine = run.engine(&path);
    let sample_bytes = run.pipeline().sample_bytes();
    let sink = SlowSink(MemorySink::new(
        4,
        12,
        sample_bytes,
        |_: &BatchPart, _: MemoryBatch<'_>| (),
    ));
    let reports = Mutex::new(Vec::new());
    let on_epoch = |report: &EpochReport| reports.lock().unwrap().push(report.clone());
    let progress = engine
        .run(vec![sink], &AtomicBool::new(false), &on_epoch)
        .unwrap();
    let reports = reports.into_inner().unwrap();
    let counts: Vec<_> = reports
        .iter()
        .map(|report| (report.epoch, report.steps, report.samples))
        .collect();
    assert_eq!(counts, [(0, 2, 24), (1, 2, 24)]);
    assert_eq!(reports[1].limit, Limit::Trainer);
    assert!(
        reports[1]
            .to_string()
            .ends_with("the limit was the trainer"),
        "{}",
        reports[1]
    );
    assert_eq!(
        (
            progress.batches,
            progress.samples,
            progress.epoch,
            progress.step
        ),
        (4, 48, Some(1), Some(1))
    );
}

/// After a stop, what has been handed over is a beginning of the run without gaps.
#[test]
fn a_stopped_run_ends_with_whole_batches_in_order() {
    let (_folder, path) = noise_dataset(60);
    let run = Run {
        epochs: 10_000,
        threads: 3,
        ..Run::default()
    };
    let engine = run.engine(&path);
    let stop = AtomicBool::new(false);
    let places = Mutex::new(Vec::new());
    let received = |part: &BatchPart, _: MemoryBatch<'_>| {
        let mut places = places.lock().unwrap();
        places.push(u64::from(part.epoch) * 5 + part.step);
        if places.len() == 8 {
            stop.store(true, Ordering::Release);
        }
    };
    let sink = MemorySink::new(4, 12, run.pipeline().sample_bytes(), received);
    let progress = engine.run(vec![sink], &stop, &|_| ()).unwrap();
    let places = places.into_inner().unwrap();
    assert!(places.len() >= 8);
    assert_eq!(places, (0..places.len() as u64).collect::<Vec<_>>());
    assert_eq!(progress.batches, places.len() as u64);
}
