//! The engine in a training loop, without a daemon: a linear classifier learns from augmented batches.
//!
//!     cargo run --release -p ddas-loader --example embedded_training
//!
//! Makes a small dataset first: noisy images of three classes, each with a colour of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ddas_formats::{DatasetWriter, Encoding, Packed};
use ddas_loader::{EmbeddedLoader, EmbeddedOptions, LastBatch, Position, Stream, StreamOptions};
use ddas_runtime::{Dtype, Layout, OutputFormat};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const CLASSES: usize = 3;
const EPOCHS: u32 = 5;
const LEARNING_RATE: f32 = 1e-4;
/// A sample comes within this time, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let losses = train(&pack(folder.path())?)?;
    check(&losses)
}

/// Whether the classifier has learnt anything.
pub(crate) fn check(losses: &[f32]) -> Result<()> {
    match (losses.first(), losses.last()) {
        (Some(first), Some(last)) if *last < 0.5 * first => Ok(()),
        _ => Err(format!("the loss did not fall: {losses:?}").into()),
    }
}

/// Trains on `dataset` and prints the mean loss of every epoch.
pub(crate) fn train(dataset: &Path) -> Result<Vec<f32>> {
    let stream = Stream::open(StreamOptions {
        dataset: dataset.to_owned(),
        recipe: "cifar".to_owned(),
        policy: None,
        epochs: EPOCHS,
        batch_size: 32,
        world_size: 1,
        seed: 0,
        output: OutputFormat {
            dtype: Dtype::F32,
            layout: Layout::Nchw,
        },
        last: LastBatch::Pad,
        start: Position::default(),
    })?;
    let mut loader = EmbeddedLoader::new(stream, EmbeddedOptions::default())?;
    let features: usize = loader.info().shape.iter().product();
    let samples = loader.info().samples as f32;
    let mut weights = vec![[0.0; CLASSES]; features];
    let (mut losses, mut loss) = (Vec::new(), 0.0);
    while let Some(batch) = loader.receive(PATIENCE)? {
        // Floats of this machine, in the loader's own memory; dropping the batch gives it back.
        let images = batch.images().chunks_exact(4 * features);
        for (image, label) in images.zip(batch.labels()) {
            let pixels: Vec<f32> = image
                .as_chunks()
                .0
                .iter()
                .map(|bytes| f32::from_ne_bytes(*bytes))
                .collect();
            loss += learn(&mut weights, &pixels, usize::try_from(*label)?);
        }
        if batch.last_of_epoch() {
            println!("epoch {}: loss {:.4}", batch.epoch(), loss / samples);
            losses.push(loss / samples);
            loss = 0.0;
        }
    }
    Ok(losses)
}

/// One step of stochastic gradient descent on the cross-entropy of one sample; the loss before it.
fn learn(weights: &mut [[f32; CLASSES]], pixels: &[f32], label: usize) -> f32 {
    let mut scores = [0.0_f32; CLASSES];
    for (row, pixel) in weights.iter().zip(pixels) {
        for class in 0..CLASSES {
            scores[class] += row[class] * pixel;
        }
    }
    let highest = scores.iter().copied().fold(f32::MIN, f32::max);
    let exponentials = scores.map(|score| (score - highest).exp());
    let sum: f32 = exponentials.iter().sum();
    let mut errors = exponentials.map(|value| value / sum);
    let loss = -errors[label].max(1e-9).ln();
    errors[label] -= 1.0;
    for (row, pixel) in weights.iter_mut().zip(pixels) {
        for class in 0..CLASSES {
            row[class] -= LEARNING_RATE * errors[class] * pixel;
        }
    }
    loss
}

/// Packs 96 images of 32x32 into `folder`.
pub(crate) fn pack(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("tiny.lmdb");
    let mut writer = DatasetWriter::create(&path, false)?;
    let colours = [[190, 90, 90], [90, 180, 90], [90, 90, 200]];
    let mut noise = 1_u32;
    for number in 0..96 {
        let label = number % CLASSES;
        let pixels: Vec<u8> = (0..32 * 32 * 3)
            .map(|at| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (colours[label][at % 3] + (noise >> 25) as i32 - 64).clamp(0, 255) as u8
            })
            .collect();
        writer.append(label as i64, Encoding::Raw, 32, 32, &pixels)?;
    }
    let classes = ["red", "green", "blue"].map(str::to_owned).to_vec();
    writer.finish(classes, Packed::default())?;
    Ok(path)
}
