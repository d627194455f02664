//! A toy daemon whose batches can be checked from their number alone.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ddas_loader::ring::{
    BatchMeta, ConnectOptions, Consumer, Error, PROTOCOL, ReadBatch, RingServer, RingShape,
    ServerOptions, StartFrom, StreamInfo, StreamNormalization, StreamPosition, WriteSlot,
};

/// For what must happen: far more than it takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// For what must not happen.
pub(crate) const SHORT: Duration = Duration::from_millis(60);

pub(crate) const BATCH: usize = 4;

/// Steps of the toy's epochs.
pub(crate) const STEPS: u64 = 10;

/// Samples of 2 x 2 x 3 bytes in batches of four, ten batches an epoch.
pub(crate) fn stream(slots: usize, ranks: u32) -> (Vec<StreamInfo>, RingShape) {
    mixed_stream(slots, ranks, false)
}

pub(crate) fn mixed_stream(slots: usize, ranks: u32, mixes: bool) -> (Vec<StreamInfo>, RingShape) {
    let info = |rank| StreamInfo {
        protocol: PROTOCOL,
        daemon_pid: 0,
        dataset: "toy.lmdb".to_owned(),
        dataset_hash: "00112233445566778899aabbccddeeff".to_owned(),
        samples: STEPS * BATCH as u64,
        classes: 10,
        epochs: 1_000_000,
        batch_size: BATCH as u32,
        global_batch_size: BATCH as u32 * ranks,
        steps_per_epoch: STEPS,
        world_size: ranks,
        rank,
        dtype: "u8".to_owned(),
        layout: "nhwc".to_owned(),
        shape: [2, 2, 3],
        normalization: StreamNormalization {
            mean: [0.5; 3],
            std: [0.25; 3],
        },
        recipe: "toy".to_owned(),
        recipe_digest: String::new(),
        policy_digest: Some("0123456789abcdef".to_owned()),
        seed: 7,
        slots: slots as u32,
        start: StreamPosition::default(),
        last: "pad".to_owned(),
        mixes,
    };
    let shape = RingShape {
        slots,
        batch_size: BATCH,
        sample_bytes: 12,
        mixes,
    };
    ((0..ranks).map(info).collect(), shape)
}

pub(crate) struct Daemon {
    pub(crate) server: RingServer,
    pub(crate) dir: tempfile::TempDir,
}

impl Daemon {
    pub(crate) fn start(slots: usize, consumers: usize) -> Self {
        Self::with_ranks(
            slots,
            1,
            ServerOptions {
                consumers,
                ..ServerOptions::default()
            },
        )
    }

    pub(crate) fn with_ranks(slots: usize, ranks: u32, options: ServerOptions) -> Self {
        Self::serving(stream(slots, ranks), options)
    }

    pub(crate) fn serving(
        (infos, shape): (Vec<StreamInfo>, RingShape),
        options: ServerOptions,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = ServerOptions {
            dir: Some(dir.path().to_owned()),
            ..options
        };
        let server = RingServer::start("toy", infos, shape, options).unwrap();
        Self { server, dir }
    }

    pub(crate) fn connect(&self) -> Consumer {
        self.connect_rank(0).unwrap()
    }

    pub(crate) fn connect_rank(&self, rank: u32) -> Result<Consumer, Error> {
        self.connect_from(rank, StartFrom::Current)
    }

    pub(crate) fn connect_from(&self, rank: u32, start: StartFrom) -> Result<Consumer, Error> {
        let dir = Some(self.dir.path().to_owned());
        Consumer::connect(
            "toy",
            ConnectOptions {
                rank,
                start,
                timeout: LONG,
                dir,
            },
        )
    }

    /// Connects once the daemon has noticed that all others are gone.
    pub(crate) fn connect_when_alone(&self) -> Consumer {
        self.wait(|daemon| daemon.server.status().ranks[0].consumers.is_empty());
        self.connect()
    }

    pub(crate) fn wait(&self, mut what: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !what(self) {
            assert!(begun.elapsed() < LONG, "{:?}", self.server.status());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Writes batches on a thread of its own.
    pub(crate) fn write(&self, sequences: RangeInclusive<u64>) -> JoinHandle<()> {
        let mut writer = self.server.writer(0).unwrap();
        std::thread::spawn(move || {
            let stop = AtomicBool::new(false);
            for sequence in sequences {
                let slot = writer.acquire(&stop, LONG).unwrap().expect("room in time");
                assert_eq!(slot.sequence(), sequence);
                fill(slot, sequence);
            }
        })
    }
}

pub(crate) fn byte(number: u64, at: usize) -> u8 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (at % 8 * 8)) as u8 ^ at as u8
}

/// Fills and publishes the batch with the given number.
pub(crate) fn fill(mut slot: WriteSlot, number: u64) {
    for (at, value) in slot.images_mut().iter_mut().enumerate() {
        *value = byte(number, at);
    }
    for position in 0..BATCH {
        slot.labels_mut()[position] = -(number as i64) - position as i64;
        slot.indices_mut()[position] = number * 10 + position as u64;
    }
    if let Some((labels, weights)) = slot.mixing_mut() {
        for position in 0..BATCH {
            labels[position] = mixed_label(number, position);
            weights[position] = weight(number, position);
        }
    }
    let meta = BatchMeta {
        epoch: ((number - 1) / STEPS) as u32,
        step: number,
        samples: BATCH,
        snapshot: Some(number as u32 % 7),
        last_of_epoch: number.is_multiple_of(STEPS),
    };
    slot.publish(meta).unwrap();
}

fn mixed_label(number: u64, position: usize) -> i64 {
    number as i64 * 7 + position as i64
}

fn weight(number: u64, position: usize) -> f32 {
    1.0 / (number % 5 + position as u64 + 1) as f32
}

/// Whether every byte of a batch is that of the given number.
pub(crate) fn intact(batch: &ReadBatch, number: u64) -> bool {
    let images = batch
        .images()
        .iter()
        .enumerate()
        .all(|(at, &value)| value == byte(number, at));
    let labels = batch
        .labels()
        .iter()
        .enumerate()
        .all(|(at, &label)| label == -(number as i64) - at as i64);
    let indices = batch
        .indices()
        .iter()
        .enumerate()
        .all(|(at, &index)| index == number * 10 + at as u64);
    let mixing = match (batch.mixed_labels(), batch.weights()) {
        (None, None) => !batch.info().mixes,
        (Some(labels), Some(weights)) => {
            labels.len() == BATCH
                && weights.len() == BATCH
                && (0..BATCH).all(|at| {
                    labels[at] == mixed_label(number, at) && weights[at] == weight(number, at)
                })
        }
        _ => false,
    };
    images && labels && indices && mixing && batch.step() == number && batch.samples() == BATCH
}

pub(crate) fn check(batch: &ReadBatch, number: u64) {
    assert!(
        intact(batch, number),
        "batch {} (step {}) is not {number}",
        batch.sequence(),
        batch.step()
    );
}

/// Small reproducible random numbers.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
