//! Helpers of the end-to-end tests: small data made here, and runs of the loader inside the test's process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use ddas_formats::{Dataset, DatasetWriter, Encoding, Packed, Policy, SearchSpace, Snapshot};
use ddas_loader::{
    BatchPart, Engine, LastBatch, MemoryBatch, MemorySink, PlanOptions, Position, RunPlan,
};
use ddas_runtime::{Dtype, Layout, Mix, OutputFormat, Pipeline, Recipe};
use tempfile::TempDir;

/// Bytes of a raw sample of [`noise_dataset`].
pub const SAMPLE_BYTES: usize = 32 * 32 * 3;

/// The pixels of sample `index` of [`noise_dataset`]: noise that no other sample has.
pub fn noise(index: u64) -> Vec<u8> {
    let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 56) as u8
    };
    (0..SAMPLE_BYTES).map(|_| next()).collect()
}

/// A dataset of raw 32 x 32 images; sample `i` has label `i % 10`. The folder must outlive it.
pub fn noise_dataset(samples: u64) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.lmdb");
    let mut writer = DatasetWriter::create(&path, false).expect("a new dataset");
    for index in 0..samples {
        writer
            .append((index % 10) as i64, Encoding::Raw, 32, 32, &noise(index))
            .expect("a sample");
    }
    let classes = (0..10).map(|class| class.to_string()).collect();
    writer
        .finish(classes, Packed::default())
        .expect("a finished dataset");
    (folder, path)
}

/// A policy of three snapshots over `paper68` that augments most samples, each snapshot in another way.
pub fn policy() -> Policy {
    let space = SearchSpace::named("paper68").expect("a named space");
    let snapshot = |total: f64, strong: usize| {
        let mut probabilities = vec![0.5 / space.len() as f64; space.len()];
        probabilities[strong] += 0.5;
        Snapshot::new(total, probabilities).expect("a snapshot")
    };
    let snapshots = vec![snapshot(0.6, 3), snapshot(0.9, 20), snapshot(0.8, 40)];
    Policy::new(space, snapshots).expect("a policy")
}

/// What a run of the engine is made of.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Samples of a global batch.
    pub batch_size: u32,
    /// Number of ranks.
    pub world_size: u32,
    /// Epochs of the run.
    pub epochs: u32,
    /// Where it begins.
    pub start: Position,
    /// Worker threads.
    pub threads: usize,
    /// Slots of each rank.
    pub slots: usize,
    /// How batches are mixed.
    pub mix: Option<Mix>,
}

impl Default for Run {
    fn default() -> Run {
        Run {
            batch_size: 12,
            world_size: 1,
            epochs: 3,
            start: Position::default(),
            threads: 2,
            slots: 4,
            mix: None,
        }
    }
}

/// A batch as a trainer would see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Images, one after the other.
    pub images: Vec<u8>,
    /// Their labels.
    pub labels: Vec<i64>,
    /// Their numbers in the dataset.
    pub indices: Vec<u64>,
    /// Labels of the partners; empty without mixing.
    pub mixed_labels: Vec<i64>,
    /// Shares of the own labels; empty without mixing.
    pub weights: Vec<f32>,
}

impl Batch {
    /// Puts the samples of `other` behind these.
    pub fn extend(&mut self, other: &Batch) {
        self.images.extend(&other.images);
        self.labels.extend(&other.labels);
        self.indices.extend(&other.indices);
        self.mixed_labels.extend(&other.mixed_labels);
        self.weights.extend(&other.weights);
    }
}

/// Batches by epoch, step and rank.
pub type Batches = BTreeMap<(u32, u64, u32), Batch>;

/// The seed of every run here.
pub const SEED: u64 = 5;

impl Run {
    /// The pipeline of the run: recipe `cifar` with [`policy`], float images.
    pub fn pipeline(&self) -> Pipeline {
        let output = OutputFormat {
            dtype: Dtype::F32,
            layout: Layout::Nchw,
        };
        let recipe = Recipe::named("cifar").expect("a named recipe");
        let pipeline =
            Pipeline::new(recipe, Some(&policy()), self.epochs, SEED, output).expect("a pipeline");
        match self.mix {
            Some(mix) => pipeline.mixing(mix).expect("a mixture"),
            None => pipeline,
        }
    }

    /// The plan of the run over `samples` samples.
    pub fn plan(&self, samples: u64) -> RunPlan {
        let plan = RunPlan::new(PlanOptions {
            samples,
            batch_size: self.batch_size,
            world_size: self.world_size,
            epochs: self.epochs,
            last: LastBatch::Pad,
            start: self.start,
            seed: SEED,
        })
        .expect("a plan");
        match self.mix {
            Some(_) => plan.in_pairs().expect("even parts"),
            None => plan,
        }
    }

    /// The engine of the run over a dataset.
    pub fn engine(&self, dataset: &Path) -> Engine {
        let dataset = Dataset::open(dataset).expect("a dataset");
        let plan = self.plan(dataset.len());
        Engine::new(dataset, self.pipeline(), plan, self.threads)
    }

    /// Runs to the end and collects every batch; each rank's must come in order.
    ///
    /// # Errors
    /// What ended the run.
    pub fn batches(&self, dataset: &Path) -> ddas_loader::Result<Batches> {
        let engine = self.engine(dataset);
        let collected = Mutex::new(Batches::new());
        let received = |part: &BatchPart, made: MemoryBatch<'_>| {
            let batch = Batch {
                images: made.images.to_vec(),
                labels: made.labels.to_vec(),
                indices: made.indices.to_vec(),
                mixed_labels: made.mixed_labels.to_vec(),
                weights: made.weights.to_vec(),
            };
            let mut collected = collected.lock().expect("no panic while collecting");
            let earlier = collected.keys().filter(|key| key.2 == part.rank).max();
            assert!(
                earlier.is_none_or(|key| (key.0, key.1) < (part.epoch, part.step)),
                "out of order: {part:?}"
            );
            collected.insert((part.epoch, part.step, part.rank), batch);
        };
        let batch = engine.plan().rank_batch_size();
        let sample_bytes = self.pipeline().sample_bytes();
        let sinks = (0..self.world_size)
            .map(|_| MemorySink::new(self.slots, batch, sample_bytes, &received))
            .collect();
        engine.run(sinks, &AtomicBool::new(false), &|_| ())?;
        Ok(collected.into_inner().expect("no panic while collecting"))
    }
}
