//! MixUp and CutMix in the engine: what comes out is the definition applied to finished samples, whoever makes them.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ddas_formats::Dataset;
use ddas_loader::{
    EmbeddedLoader, EmbeddedOptions, Engine, Error, LastBatch, MemoryBatch, MemorySink, PlanError,
    PlanOptions, Position, RunPlan, Stream, StreamOptions,
};
use ddas_runtime::{Blend, CutMix, Mix, MixPer, MixUp, Pipeline, PipelineScratch};
use ddas_tests::{Batch, Batches, Run, SEED, noise_dataset};

const SIDE: usize = 32;
const VALUES: usize = 3 * SIDE * SIDE;
/// Odd, and with a short last batch of 3 samples: one pair and one alone.
const SAMPLES: u64 = 67;

fn run(per: MixPer, probability: f64) -> Run {
    Run {
        batch_size: 16,
        mix: Some(Mix {
            mixup: Some(MixUp { alpha: 0.4 }),
            cutmix: Some(CutMix { alpha: 1.0 }),
            probability,
            switch_probability: 0.5,
            per,
        }),
        ..Run::default()
    }
}

fn finished(pipeline: &Pipeline, dataset: &Dataset, epoch: u32, index: u64) -> Vec<f32> {
    let mut bytes = vec![0; pipeline.sample_bytes()];
    let reader = dataset.reader().unwrap();
    let sample = reader.get(index).unwrap();
    pipeline
        .process(
            &mut PipelineScratch::default(),
            &sample,
            epoch,
            index,
            &mut bytes,
        )
        .unwrap();
    values(&bytes)
}

fn values(bytes: &[u8]) -> Vec<f32> {
    let bytes = bytes.as_chunks::<4>().0;
    bytes.iter().copied().map(f32::from_ne_bytes).collect()
}

/// The mixture of `own` with `other`, value by value (channels first).
fn mixture(blend: Blend, own: &[f32], other: &[f32]) -> Vec<f32> {
    let value = |at: usize| match blend {
        Blend::None => own[at],
        Blend::Sum { weight } => other[at] * (1.0 - weight) as f32 + own[at] * weight as f32,
        Blend::Rectangle { columns, rows, .. } => {
            let (column, row) = ((at % SIDE) as u32, (at / SIDE % SIDE) as u32);
            let inside =
                (columns[0]..columns[1]).contains(&column) && (rows[0]..rows[1]).contains(&row);
            if inside { other[at] } else { own[at] }
        }
    };
    (0..VALUES).map(value).collect()
}

/// Each sample with its neighbour of the epoch's order; the odd one at the end alone.
#[test]
fn batches_hold_the_mixtures_of_neighbours() {
    let (_folder, path) = noise_dataset(SAMPLES);
    let dataset = Dataset::open(&path).unwrap();
    for per in [MixPer::Batch, MixPer::Pair] {
        let run = run(per, 0.8);
        let (pipeline, plan, mix) = (run.pipeline(), run.plan(SAMPLES), run.mix.unwrap());
        let mut kinds = [0; 3];
        for ((epoch, step, _), batch) in run.batches(&path).unwrap() {
            let order = plan.order(epoch);
            let images = values(&batch.images);
            for (i, image) in images.chunks_exact(VALUES).enumerate() {
                let position = step * 16 + i as u64;
                let index = order.at(position);
                let own = finished(&pipeline, &dataset, epoch, index);
                let partner = position ^ 1;
                let (expected, label, weight) = if partner == SAMPLES {
                    (own, index, 1.0)
                } else {
                    let other = finished(&pipeline, &dataset, epoch, order.at(partner));
                    let blend = mix.draw(SEED, epoch, step, position / 2, SIDE as u32);
                    let (kind, partner) = match blend {
                        Blend::None => (0, index),
                        Blend::Sum { .. } => (1, order.at(partner)),
                        Blend::Rectangle { .. } => (2, order.at(partner)),
                    };
                    kinds[kind] += 1;
                    (mixture(blend, &own, &other), partner, blend.weight())
                };
                let place = format!("{per:?}, epoch {epoch}, step {step}, sample {i}");
                assert!(image == expected, "{place}");
                assert_eq!(batch.indices[i], index, "{place}");
                assert_eq!(batch.labels[i], (index % 10) as i64, "{place}");
                assert_eq!(batch.mixed_labels[i], (label % 10) as i64, "{place}");
                assert_eq!(batch.weights[i], weight, "{place}");
            }
        }
        assert!(kinds.iter().all(|&count| count > 0), "{kinds:?}");
    }
}

fn union(batches: &Batches, world_size: u32) -> Batches {
    let mut union = Batches::new();
    for ((epoch, step, rank), part) in batches {
        let whole: &mut Batch = union.entry((*epoch, *step, 0)).or_default();
        whole.extend(part);
        assert!(*rank < world_size);
    }
    union
}

#[test]
fn mixtures_do_not_depend_on_threads_slots_ranks_or_restarts() {
    let (_folder, path) = noise_dataset(SAMPLES);
    for per in [MixPer::Batch, MixPer::Pair] {
        let run = run(per, 1.0);
        let reference = Run { threads: 1, ..run }.batches(&path).unwrap();
        for (threads, slots) in [(2, 2), (3, 16), (8, 5)] {
            let batches = Run {
                threads,
                slots,
                ..run
            }
            .batches(&path)
            .unwrap();
            assert!(batches == reference, "{threads} threads, {slots} slots");
        }
        for world_size in [2, 4, 8] {
            let batches = Run { world_size, ..run }.batches(&path).unwrap();
            assert!(
                union(&batches, world_size) == reference,
                "{world_size} ranks"
            );
        }
        let start = Position { epoch: 1, step: 3 };
        let tail = Run { start, ..run }.batches(&path).unwrap();
        assert!(tail == reference.clone().split_off(&(1, 3, 0)));
    }
}

/// The loader inside a trainer's process hands over the same.
#[test]
fn an_embedded_loader_mixes_alike() {
    let (folder, path) = noise_dataset(SAMPLES);
    let run = run(MixPer::Pair, 0.9);
    let file = folder.path().join("policy.json");
    ddas_tests::policy().write(&file).unwrap();
    let mut stream = Stream::open(StreamOptions {
        dataset: path.clone(),
        recipe: "cifar".to_owned(),
        policy: Some(file),
        epochs: run.epochs,
        batch_size: run.batch_size,
        world_size: 1,
        seed: SEED,
        output: run.pipeline().output(),
        last: LastBatch::Pad,
        start: Position::default(),
    })
    .unwrap();
    stream.pipeline = stream.pipeline.mixing(run.mix.unwrap()).unwrap();
    stream.plan = stream.plan.in_pairs().unwrap();
    let mut loader = EmbeddedLoader::new(stream, EmbeddedOptions::default()).unwrap();
    assert!(loader.info().mixes);
    for ((epoch, step, _), expected) in run.batches(&path).unwrap() {
        let batch = loader.receive(Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!((batch.epoch(), batch.step()), (epoch, step));
        let made = Batch {
            images: batch.images().to_vec(),
            labels: batch.labels().to_vec(),
            indices: batch.indices().to_vec(),
            mixed_labels: batch.mixed_labels().unwrap().to_vec(),
            weights: batch.weights().unwrap().to_vec(),
        };
        assert!(made == expected, "epoch {epoch}, step {step}");
    }
}

#[test]
fn a_run_without_mixing_has_neither_mixed_labels_nor_weights() {
    let (_folder, path) = noise_dataset(20);
    let batches = Run::default().batches(&path).unwrap();
    assert!(
        batches
            .values()
            .all(|batch| batch.mixed_labels.is_empty() && batch.weights.is_empty())
    );
}

#[test]
fn a_plan_that_splits_pairs_is_refused() {
    let (_folder, path) = noise_dataset(20);
    let run = run(MixPer::Batch, 1.0);
    let plan = RunPlan::new(PlanOptions {
        batch_size: 5,
        ..*run.plan(20).options()
    })
    .unwrap();
    let engine = Engine::new(
        Dataset::open(&path).unwrap(),
        run.pipeline(),
        plan.clone(),
        1,
    );
    let sink = MemorySink::new(
        2,
        5,
        run.pipeline().sample_bytes(),
        |_: &ddas_loader::BatchPart, _: MemoryBatch<'_>| (),
    );
    let refused = engine.run(vec![sink], &AtomicBool::new(false), &|_| ());
    assert!(matches!(refused, Err(Error::Plan(PlanError::NotInPairs))));
    assert!(matches!(
        plan.in_pairs(),
        Err(PlanError::OddParts { legal, .. }) if legal.is_empty()
    ));
}
