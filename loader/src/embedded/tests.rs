//! Batches that depend on nothing but their place, slots lent and given back, refusals.

use super::*;
use crate::plan::LastBatch;
use crate::stream::StreamOptions;
use ddas_formats::{DatasetWriter, Encoding, Packed};
use ddas_runtime::{Dtype, Layout, OutputFormat};
use std::path::Path;

const LONG: Duration = Duration::from_secs(60);

fn pack(folder: &Path, samples: i64) -> std::path::PathBuf {
    let path = folder.join("tiny.lmdb");
    let mut writer = DatasetWriter::create(&path, false).unwrap();
    for label in 0..samples {
        let pixels: Vec<u8> = (0..32 * 32 * 3).map(|at| (at * label) as u8).collect();
        writer
            .append(label % 7, Encoding::Raw, 32, 32, &pixels)
            .unwrap();
    }
    let classes = (0..7).map(|class| class.to_string()).collect();
    writer.finish(classes, Packed::default()).unwrap();
    path
}

fn options(path: &Path, batch_size: u32, world_size: u32) -> StreamOptions {
    StreamOptions {
        dataset: path.to_owned(),
        recipe: "cifar".to_owned(),
        policy: None,
        epochs: 3,
        batch_size,
        world_size,
        seed: 9,
        output: OutputFormat {
            dtype: Dtype::F32,
            layout: Layout::Nchw,
        },
        last: LastBatch::Pad,
        start: Position::default(),
    }
}

fn loader(options: StreamOptions, embedded: EmbeddedOptions) -> EmbeddedLoader {
    EmbeddedLoader::new(Stream::open(options).unwrap(), embedded).unwrap()
}

/// Place, indices and a hash of everything, batch by batch.
fn content(loader: &mut EmbeddedLoader) -> Vec<(Position, Vec<u64>, u64)> {
    let mut content = Vec::new();
    while let Some(batch) = loader.receive(LONG).unwrap() {
        let mut bytes = batch.images().to_vec();
        batch
            .labels()
            .iter()
            .for_each(|label| bytes.extend(label.to_le_bytes()));
        let at = Position {
            epoch: batch.epoch(),
            step: batch.step(),
        };
        content.push((
            at,
            batch.indices().to_vec(),
            xxhash_rust::xxh3::xxh3_64(&bytes),
        ));
    }
    content
}

#[test]
fn batches_do_not_depend_on_threads_slots_or_where_one_enters() {
    let folder = tempfile::tempdir().unwrap();
    let path = pack(folder.path(), 43);
    let whole = content(&mut loader(
        options(&path, 8, 1),
        EmbeddedOptions {
            threads: Some(1),
            slots: Some(2),
            ..EmbeddedOptions::default()
        },
    ));
    assert_eq!(whole.len(), 18);
    for (threads, slots) in [(2, 3), (3, 16), (8, 4)] {
        let mut again = loader(
            options(&path, 8, 1),
            EmbeddedOptions {
                threads: Some(threads),
                slots: Some(slots),
                ..EmbeddedOptions::default()
            },
        );
        assert_eq!(content(&mut again), whole);
        // Behind the end there is nothing, and the way back is open.
        assert!(again.receive(LONG).unwrap().is_none());
        for (epoch, step) in [(1, 3), (2, 5), (0, 0)] {
            again.seek(Position { epoch, step }).unwrap();
            let kept = again.receive(LONG).unwrap().unwrap();
            again.seek(Position { epoch, step }).unwrap();
            assert_eq!(
                content(&mut again),
                whole[(epoch as usize * 6 + step as usize)..]
            );
            assert_eq!((kept.epoch(), kept.step()), (epoch, step));
        }
    }
}

#[test]
fn ranks_share_what_one_process_gets() {
    let folder = tempfile::tempdir().unwrap();
    let path = pack(folder.path(), 43);
    let whole = content(&mut loader(
        options(&path, 12, 1),
        EmbeddedOptions::default(),
    ));
    for world_size in [2, 3, 4] {
        let ranks: Vec<_> = (0..world_size)
            .map(|rank| {
                content(&mut loader(
                    options(&path, 12, world_size),
                    EmbeddedOptions {
                        rank,
                        ..EmbeddedOptions::default()
                    },
                ))
            })
            .collect();
        for (number, (at, indices, _)) in whole.iter().enumerate() {
            let union: Vec<u64> = ranks
                .iter()
                .flat_map(|rank| rank[number].1.clone())
                .collect();
            assert_eq!((&union, ranks[0][number].0), (indices, *at));
        }
    }
}

#[test]
fn a_trainer_that_keeps_every_batch_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = pack(folder.path(), 43);
    let mut loader = loader(
        options(&path, 8, 1),
        EmbeddedOptions {
            slots: Some(3),
            ..EmbeddedOptions::default()
        },
    );
    let mut kept: Vec<_> = (0..3)
        .map(|_| loader.receive(LONG).unwrap().unwrap())
        .collect();
    assert_eq!(loader.held(), 3);
    let refused = loader.receive(LONG).unwrap_err();
    assert_eq!(refused, EmbeddedError::HoldsAllSlots { slots: 3 });
    // Slots are given back in any order.
    kept.remove(1);
    assert_eq!(loader.receive(LONG).unwrap().unwrap().step(), 3);
    // What is kept outlives the loader, unchanged.
    let before = kept[0].images().to_vec();
    drop(loader);
    assert!(kept[0].images() == before && kept[0].labels().len() == 8);
}

#[test]
fn a_damaged_sample_ends_the_stream_with_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = pack(folder.path(), 43);
    let data = path.join("data.mdb");
    let mut bytes = std::fs::read(&data).unwrap();
    let pattern: Vec<u8> = (0..64).map(|at| (at * 29) as u8).collect();
    let at = bytes
        .windows(64)
        .position(|window| window == pattern)
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let mut loader = loader(options(&path, 8, 1), EmbeddedOptions::default());
    let error = loop {
        match loader.receive(LONG) {
            Ok(batch) => assert!(batch.is_some(), "the damage was not found"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(
        error.contains("sample 29") && error.contains("verify"),
        "{error}"
    );
}

#[test]
fn what_does_not_fit_is_refused_with_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = pack(folder.path(), 43);
    let refused = |batch_size, embedded| {
        let stream = Stream::open(options(&path, batch_size, 1)).unwrap();
        EmbeddedLoader::new(stream, embedded)
            .err()
            .expect("a refusal")
            .to_string()
    };
    let with = |rank, threads, slots| EmbeddedOptions {
        rank,
        threads,
        slots,
    };
    assert!(refused(8, with(1, None, None)).contains("rank 1"));
    assert!(refused(8, with(0, None, Some(1))).contains("slots"));
    assert!(refused(8, with(0, Some(0), None)).contains("threads"));
    let text = refused(1 << 30, with(0, None, None));
    assert!(
        text.contains("bytes") && text.contains("slots = 2"),
        "{text}"
    );
    let mut loader = loader(options(&path, 8, 1), EmbeddedOptions::default());
    loader.seek(Position { epoch: 3, step: 0 }).unwrap();
    assert!(loader.receive(LONG).unwrap().is_none());
    let beyond = loader.seek(Position { epoch: 3, step: 1 }).unwrap_err();
    assert!(beyond.to_string().contains("epochs 0 to 2"), "{beyond}");
}
