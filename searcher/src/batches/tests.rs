use ddas_formats::Encoding;
use tch::{Device, Kind};

use super::*;
use crate::proxy_data::Samples;

const SIDE: u32 = 8;

fn config(settings: &[&str]) -> Config {
    let mut config = Config::preset("sanity").unwrap();
    for setting in [
        "image_size=8",
        "train_batch=4",
        "validation_batch=6",
        "mean=[0,0,0]",
        "std=[1,1,1]",
    ]
    .iter()
    .chain(settings)
    {
        config.set(setting).unwrap();
    }
    config
}

/// Images that name themselves: the first colour is the position, the others a gradient.
fn data(count: u8) -> Arc<ProxyData> {
    let images = || {
        let image = |number: u8| {
            let pixels = (0..SIDE * SIDE).flat_map(|p| [100 + number, (3 * p) as u8, 17]);
            Image::from_rgb(SIDE, SIDE, pixels.collect()).unwrap()
        };
        Samples {
            images: (0..count).map(image).collect(),
            labels: (0..i64::from(count)).map(|i| i % 3).collect(),
            ..Samples::default()
        }
    };
    Arc::new(ProxyData {
        train: images(),
        validation: images(),
        classes: 3,
    })
}

fn numbers(images: &Tensor) -> Vec<i64> {
    let centre = images.select(2, 4).select(2, 4).select(1, 0) * 255.0 - 100.0;
    Vec::try_from(centre.round().to_kind(Kind::Int64)).unwrap()
}

fn make(config: &Config, epoch: u32, step: u32) -> TrainBatch {
    let maker = BatchMaker::new(data(10), config).unwrap();
    maker
        .make(epoch, step, &[], &mut BatchScratch::default())
        .unwrap()
}

#[test]
fn an_epoch_visits_each_sample_once_with_its_label() {
    let config = config(&["crop_padding=0", "cutout=0", "flip=false"]);
    let mut seen = Vec::new();
    for step in 0..2 {
        let batch = make(&config, 3, step);
        let found = numbers(&batch.plain);
        let labels: Vec<i64> = Vec::try_from(&batch.labels).unwrap();
        assert_eq!(labels, found.iter().map(|i| i % 3).collect::<Vec<_>>());
        seen.extend(found);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 8);
    assert_ne!(
        numbers(&make(&config, 4, 0).plain),
        numbers(&make(&config, 3, 0).plain)
    );
}

#[test]
fn a_batch_depends_on_seed_epoch_and_step_alone() {
    let config = config(&[]);
    let maker = BatchMaker::new(data(10), &config).unwrap();
    let mut scratch = BatchScratch::default();
    let first = maker.make(1, 1, &[], &mut scratch).unwrap();
    maker.make(0, 0, &[], &mut scratch).unwrap();
    let again = maker.make(1, 1, &[], &mut scratch).unwrap();
    assert_eq!(first.policies, again.policies);
    assert_eq!(first.plain, again.plain);
    assert_eq!(first.branches, again.branches);
    let other = maker.make(1, 0, &[], &mut scratch).unwrap();
    assert_ne!(first.policies, other.policies);
}

#[test]
fn copies_draw_crops_and_flips_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&["crop_padding=0", "cutout=0", "flip=false"]);
    config.search_space = identity_alone(folder.path());
    let same = make(&config, 0, 0);
    assert_eq!(same.branches.len(), 3);
    assert!(same.branches.iter().all(|branch| *branch == same.plain));

    config.set("crop_padding=4").unwrap();
    let cropped = make(&config, 0, 0);
    assert!(
        cropped
            .branches
            .iter()
            .all(|branch| *branch != cropped.plain)
    );
    assert_ne!(cropped.branches[0], cropped.branches[1]);
}

/// A file with Identity as the only operation: only crop, flip and cutout tell copies apart.
fn identity_alone(folder: &std::path::Path) -> String {
    let path = folder.join("space.json");
    let space = ddas_formats::SearchSpace::new("one", 2, vec![Operation::Identity]).unwrap();
    std::fs::write(&path, serde_json::to_string(&space).unwrap()).unwrap();
    path.display().to_string()
}

#[test]
fn shared_crops_are_those_of_the_plain_copy() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&["crop_padding=4", "cutout=3"]);
    config.search_space = identity_alone(folder.path());
    let own = make(&config, 2, 1);
    config.shared_crop = true;
    let shared = make(&config, 2, 1);
    assert_eq!(shared.plain, own.plain);
    assert!(shared.branches.iter().all(|branch| *branch == shared.plain));
    assert_ne!(make(&config, 3, 1).plain, shared.plain);
    // What differs among the samples still does.
    assert_ne!(shared.plain.get(0), shared.plain.get(1));
}

/// Stored images of several sizes, wider than high, of one grey value per column.
fn stored(count: u8) -> Arc<ProxyData> {
    let encoded = |number: u8| {
        let (width, height) = (40 + u32::from(number), 24);
        let row: Vec<u8> = (0..width).flat_map(|x| [(5 * x) as u8; 3]).collect();
        crate::proxy_data::EncodedImage {
            encoding: Encoding::Raw,
            width,
            height,
            payload: row.repeat(height as usize),
            index: Vec::new(),
        }
    };
    let train = Samples {
        encoded: (0..count).map(encoded).collect(),
        labels: (0..i64::from(count)).map(|i| i % 3).collect(),
        ..Samples::default()
    };
    Arc::new(ProxyData {
        train,
        validation: Samples::default(),
        classes: 3,
    })
}

#[test]
fn resized_crops_come_before_the_operations() {
    let mut config = Config::preset("imagenet").unwrap();
    for setting in [
        "image_size=16",
        "train_batch=4",
        "mean=[0,0,0]",
        "std=[1,1,1]",
    ] {
        config.set(setting).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let space = folder.path().join("space.json");
    let invert = ddas_formats::SearchSpace::new("one", 1, vec![Operation::Invert]).unwrap();
    std::fs::write(&space, serde_json::to_string(&invert).unwrap()).unwrap();
    config.search_space = space.display().to_string();
    let make = |config: &Config| {
        let maker = BatchMaker::new(stored(9), config).unwrap();
        assert_eq!(maker.steps_per_epoch(), 2);
        maker.make(1, 1, &[], &mut BatchScratch::default()).unwrap()
    };
    let batch = make(&config);
    assert_eq!(batch.plain.size(), [4, 3, 16, 16]);
    // A crop keeps columns of one grey value each, ascending.
    let rise = batch.plain.get(0).select(0, 0).select(0, 3);
    assert!(rise.double_value(&[15]) > rise.double_value(&[0]));
    // Shared crops: inverting what the plain copy shows gives the augmented one.
    let inverted = Tensor::from(1.0) - &batch.plain;
    for branch in &batch.branches {
        assert!((branch - &inverted).abs().max().double_value(&[]) < 1e-6);
    }
    config.shared_crop = false;
    let own = make(&config);
    assert_eq!(own.plain, batch.plain);
    assert_ne!(own.branches[0], batch.branches[0]);
    assert_ne!(own.branches[0], own.branches[1]);
}

#[test]
fn tensors_are_channels_last_and_normalised() {
    let mut config = config(&["crop_padding=0", "cutout=0", "flip=false"]);
    config.mean = [0.5, 0.25, 0.0];
    config.std = [0.5, 0.5, 2.0];
    let batch = make(&config, 0, 0);
    assert_eq!(batch.plain.size(), [4, 3, 8, 8]);
    assert_eq!(batch.plain.stride(), [192, 1, 24, 3]);
    let third = batch.plain.double_value(&[0, 2, 5, 5]);
    assert!((third - 17.0 / 255.0 / 2.0).abs() < 1e-7);
    let second = batch.plain.double_value(&[1, 1, 1, 2]);
    assert!((second - (30.0 / 255.0 - 0.25) / 0.5).abs() < 1e-6);
}

#[test]
fn validation_batches_go_round_so_that_each_sample_counts_the_same() {
    let config = config(&[]);
    let batches = ValidationBatches::new(&data(10).validation, &config, Device::Cpu).unwrap();
    let mut counts = [0; 10];
    for step in 0..5 {
        let (images, labels) = batches.get(step).unwrap();
        assert_eq!(images.size(), [6, 3, 8, 8]);
        let found = numbers(&images);
        let labels: Vec<i64> = Vec::try_from(labels).unwrap();
        assert_eq!(labels, found.iter().map(|i| i % 3).collect::<Vec<_>>());
        found.iter().for_each(|&i| counts[i as usize] += 1);
    }
    assert_eq!(counts, [3; 10]);
    assert!(batches.get(u64::MAX).is_ok());
}

#[test]
fn too_few_samples_for_a_batch_are_refused() {
    let config = config(&["train_batch=11", "validation_batch=11"]);
    assert!(BatchMaker::new(data(10), &config).is_err());
    assert!(ValidationBatches::new(&data(10).validation, &config, Device::Cpu).is_err());
}
