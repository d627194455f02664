//! From decoded samples to the tensors of a step.
//!
//! What a batch holds depends on (seed, epoch, step) alone, so any thread can make any batch.

use std::sync::Arc;

use ddas_formats::{Encoding, Operation, Sample};
use ddas_runtime::{
    Augmenter, Border, Dtype, Image, Layout, Normalization, OutputFormat, PassOrder, Pipeline,
    PipelineScratch, Recipe, ResizeFilter, SampleRng, Step, Stream,
};
use tch::{Device, Kind, Tensor};

use crate::config::{Config, Crop};
use crate::error::{Error, Result};
use crate::proxy_data::{ProxyData, Samples};
use crate::split::shuffle;

/// A training batch and its augmented copies, on the host.
#[derive(Debug)]
pub struct TrainBatch {
    /// Without augmentation by a policy: batch x 3 x side x side, f32, normalised.
    pub plain: Tensor,
    /// The same samples augmented, one copy per drawn policy.
    pub branches: Vec<Tensor>,
    /// Labels, i64.
    pub labels: Tensor,
    /// The drawn policies: indices into the search space, in the order applied.
    pub policies: Vec<Vec<usize>>,
}

/// Makes the training batches of a search.
#[derive(Debug)]
pub struct BatchMaker {
    data: Arc<ProxyData>,
    operations: Vec<Operation>,
    draws: usize,
    branches: usize,
    batch: usize,
    seed: u64,
    shared_crop: bool,
    /// Before the operations, of stored images; none where images are decoded already.
    before: Option<Pipeline>,
    /// After them.
    base: Pipeline,
}

/// The memory one thread works in.
#[derive(Debug, Default)]
pub struct BatchScratch {
    augmenter: Augmenter,
    image: Image,
    pipeline: PipelineScratch,
    values: Vec<u8>,
    /// What `before` made of each sample, for the copies that share it.
    cropped: Vec<Image>,
}

impl BatchMaker {
    /// Batches of `data.train` augmented with operations of the configured search space.
    ///
    /// # Errors
    /// [`Error::Setting`] when crop, cutout or search space do not fit;
    /// [`Error::Invalid`] when there are fewer samples than a batch takes.
    pub fn new(data: Arc<ProxyData>, config: &Config) -> Result<Self> {
        let space = config.resolve_search_space()?;
        let batch = config.train_batch as usize;
        let samples = match config.crop {
            Crop::Padded => data.train.images.len(),
            Crop::Resized => data.train.encoded.len(),
        };
        if samples < batch || samples != data.train.labels.len() {
            return Err(Error::Invalid(format!(
                "{samples} training samples do not fill a batch of {batch}"
            )));
        }
        let mut before = None;
        let mut steps = Vec::new();
        if config.crop == Crop::Resized {
            steps.push(Step::RandomResizedCrop {
                scale: config.crop_scale,
                ratio: [3.0 / 4.0, 4.0 / 3.0],
                filter: ResizeFilter::Bicubic,
                order: PassOrder::Pillow13,
            });
            if config.flip {
                steps.push(Step::RandomFlip { probability: 0.5 });
            }
            // Bytes come out as they are; a recipe has to name a normalisation all the same.
            steps.push(Step::Normalize(normalization(config)));
            let steps = std::mem::take(&mut steps);
            before = Some(pipeline(config, steps, config.epochs, Dtype::U8)?);
        }
        if config.crop_padding > 0 {
            steps.push(Step::RandomCrop {
                padding: config.crop_padding,
                border: Border::BLACK,
            });
        }
        if config.flip && before.is_none() {
            steps.push(Step::RandomFlip { probability: 0.5 });
        }
        steps.push(Step::Normalize(normalization(config)));
        if config.cutout > 0 {
            steps.push(Step::Cutout {
                size: config.cutout,
                count: 1,
            });
        }
        Ok(Self {
            operations: space.plain_operations()?,
            draws: space.draws_per_sample() as usize,
            branches: config.branches as usize,
            batch,
            seed: config.seed,
            shared_crop: config.shared_crop,
            before,
            base: pipeline(config, steps, config.epochs, Dtype::F32)?,
            data,
        })
    }

    /// Full batches in an epoch.
    pub fn steps_per_epoch(&self) -> u32 {
        (self.data.train.labels.len() / self.batch) as u32
    }

    /// The batch of `step` in `epoch`, both from 0, as tensors on the host.
    ///
    /// Policies are drawn uniformly, with replacement. Every copy of a sample gets operations and
    /// sign choices of its own; crop, flip and cutout are its own or shared with the others, as
    /// the settings say.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory runs out; [`Error::Invalid`] when a stored image cannot be
    /// decoded.
    pub fn make(&self, epoch: u32, step: u32, scratch: &mut BatchScratch) -> Result<TrainBatch> {
        let positions = self.positions(epoch, step);
        let policies = self.policies(epoch, step);
        let plain = self.copy(epoch, step, 0, &positions, &[], scratch)?;
        let mut branches = Vec::with_capacity(self.branches);
        for (copy, policy) in (1..).zip(&policies) {
            let operations: Vec<Operation> =
                policy.iter().map(|&index| self.operations[index]).collect();
            branches.push(self.copy(epoch, step, copy, &positions, &operations, scratch)?);
        }
        let labels: Vec<i64> = positions
            .iter()
            .map(|&p| self.data.train.labels[p])
            .collect();
        Ok(TrainBatch {
            plain,
            branches,
            labels: Tensor::f_from_slice(&labels)?,
            policies,
        })
    }

    /// Where the batch's samples stand in the training samples: a part of the epoch's shuffle.
    fn positions(&self, epoch: u32, step: u32) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.data.train.labels.len()).collect();
        shuffle(
            &mut order,
            &mut SampleRng::new(self.seed, epoch, 0, Stream::Order),
        );
        let start = step as usize * self.batch;
        order.into_iter().skip(start).take(self.batch).collect()
    }

    fn policies(&self, epoch: u32, step: u32) -> Vec<Vec<usize>> {
        let mut rng = SampleRng::new(self.seed, epoch, u64::from(step), Stream::Policy);
        let choices = self.operations.len() as u32;
        (0..self.branches)
            .map(|_| {
                (0..self.draws)
                    .map(|_| rng.below(choices) as usize)
                    .collect()
            })
            .collect()
    }

    /// One copy of the samples at `positions`, as a channels-last tensor.
    fn copy(
        &self,
        epoch: u32,
        step: u32,
        copy: u64,
        positions: &[usize],
        operations: &[Operation],
        scratch: &mut BatchScratch,
    ) -> Result<Tensor> {
        let BatchScratch {
            augmenter,
            image,
            pipeline,
            values,
            cropped,
        } = scratch;
        values.resize(positions.len() * self.base.sample_bytes(), 0);
        let copies = self.branches as u64 + 1;
        let first = (u64::from(step) * copies + copy) * self.batch as u64;
        cropped.resize_with(positions.len(), Image::default);
        let places = values.chunks_exact_mut(self.base.sample_bytes());
        for ((number, &position), place) in positions.iter().enumerate().zip(places) {
            let index = first + number as u64;
            // Draws of crop, flip and cutout: those of the plain copy where they are shared.
            let shared = match self.shared_crop {
                true => index - copy * self.batch as u64,
                false => index,
            };
            match &self.before {
                None => image.copy_from(&self.data.train.images[position]),
                Some(before) => {
                    let cropped = &mut cropped[number];
                    if copy == 0 || !self.shared_crop {
                        let [height, width, _] = before.sample_shape();
                        cropped.reshape(width as u32, height as u32);
                        before
                            .process(
                                pipeline,
                                &self.data.train.encoded[position].sample(),
                                epoch,
                                shared,
                                cropped.pixels_mut(),
                            )
                            .map_err(|error| Error::Invalid(error.to_string()))?;
                    }
                    image.copy_from(cropped);
                }
            }
            let mut rng = SampleRng::new(self.seed, epoch, index, Stream::Search);
            augmenter.apply_drawn(operations, &mut rng, image);
            process(&self.base, pipeline, image, epoch, shared, place)?;
        }
        to_tensor(values, positions.len(), &self.base)
    }
}

/// The validation samples on the device of the search.
#[derive(Debug)]
pub struct ValidationBatches {
    images: Tensor,
    labels: Tensor,
    batch: i64,
    samples: i64,
}

impl ValidationBatches {
    /// Normalises all validation samples and copies them to `device`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are fewer samples than a batch takes; [`Error::Torch`] when
    /// memory runs out.
    pub fn new(samples: &Samples, config: &Config, device: Device) -> Result<Self> {
        let count = samples.images.len();
        if (count as u64) < config.validation_batch {
            return Err(Error::Invalid(format!(
                "{count} validation samples do not fill a batch of {}",
                config.validation_batch
            )));
        }
        let steps = vec![Step::Normalize(normalization(config))];
        let pipeline = pipeline(config, steps, 1, Dtype::F32)?;
        let mut scratch = PipelineScratch::default();
        let mut values = vec![0; count * pipeline.sample_bytes()];
        let places = values.chunks_exact_mut(pipeline.sample_bytes());
        for ((index, image), place) in (0..).zip(&samples.images).zip(places) {
            process(&pipeline, &mut scratch, image, 0, index, place)?;
        }
        Ok(Self {
            images: to_tensor(&values, count, &pipeline)?.f_to_device(device)?,
            labels: Tensor::f_from_slice(&samples.labels)?.f_to_device(device)?,
            batch: config.validation_batch as i64,
            samples: count as i64,
        })
    }

    /// Images and labels of the validation batch of `step`, counted over the whole search: the
    /// samples in their order, over and over, so that each is used equally often.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory runs out.
    pub fn get(&self, step: u64) -> Result<(Tensor, Tensor)> {
        let start = ((u128::from(step) * self.batch as u128) % self.samples as u128) as i64;
        let first = self.batch.min(self.samples - start);
        let part = |tensor: &Tensor| -> Result<Tensor> {
            let head = tensor.f_narrow(0, start, first)?;
            if first == self.batch {
                return Ok(head);
            }
            Ok(Tensor::f_cat(
                &[head, tensor.f_narrow(0, 0, self.batch - first)?],
                0,
            )?)
        };
        Ok((part(&self.images)?, part(&self.labels)?))
    }
}

fn normalization(config: &Config) -> Normalization {
    Normalization {
        mean: config.mean,
        std: config.std,
    }
}

fn pipeline(config: &Config, steps: Vec<Step>, epochs: u32, dtype: Dtype) -> Result<Pipeline> {
    let setting = |error: ddas_runtime::Error| Error::Setting {
        key: "crop_padding, crop_scale, cutout, mean or std".to_owned(),
        problem: error.to_string(),
    };
    let recipe = Recipe::new("search", config.image_size, steps).map_err(setting)?;
    let output = OutputFormat {
        dtype,
        layout: Layout::Nhwc,
    };
    Pipeline::new(recipe, None, epochs, config.seed, output).map_err(setting)
}

fn process(
    pipeline: &Pipeline,
    scratch: &mut PipelineScratch,
    image: &Image,
    epoch: u32,
    index: u64,
    place: &mut [u8],
) -> Result<()> {
    let sample = Sample {
        label: 0,
        encoding: Encoding::Raw,
        width: image.width(),
        height: image.height(),
        payload: image.pixels(),
    };
    pipeline
        .process(scratch, &sample, epoch, index, place)
        .map(|_| ())
        .map_err(|error| Error::Invalid(error.to_string()))
}

/// Bytes of batch x height x width x 3 values of f32 as a tensor of shape batch x 3 x height x
/// width: the channels-last order that convolutions prefer.
fn to_tensor(values: &[u8], samples: usize, pipeline: &Pipeline) -> Result<Tensor> {
    let [height, width, channels] = pipeline.sample_shape();
    let size = [samples, height, width, channels].map(|side| side as i64);
    let tensor = Tensor::f_from_data_size(values, &size, Kind::Float)?;
    Ok(tensor.f_permute([0, 3, 1, 2])?)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            .make(epoch, step, &mut BatchScratch::default())
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
        let first = maker.make(1, 1, &mut scratch).unwrap();
        maker.make(0, 0, &mut scratch).unwrap();
        let again = maker.make(1, 1, &mut scratch).unwrap();
        assert_eq!(first.policies, again.policies);
        assert_eq!(first.plain, again.plain);
        assert_eq!(first.branches, again.branches);
        let other = maker.make(1, 0, &mut scratch).unwrap();
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
            maker.make(1, 1, &mut BatchScratch::default()).unwrap()
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
    fn policies_are_drawn_uniformly() {
        let config = config(&[]);
        let maker = BatchMaker::new(data(10), &config).unwrap();
        let operations = config.resolve_search_space().unwrap().len();
        let mut counts = vec![0u32; operations];
        let steps = 2000;
        for step in 0..steps {
            for policy in maker.policies(0, step) {
                assert_eq!(policy.len(), 2);
                policy.iter().for_each(|&index| counts[index] += 1);
            }
        }
        let expected = f64::from(steps * 6) / operations as f64;
        let chi_square: f64 = counts
            .iter()
            .map(|&c| (f64::from(c) - expected).powi(2) / expected)
            .sum();
        // Mean operations - 1, standard deviation sqrt(2 (operations - 1)); fixed seed.
        let freedom = operations as f64 - 1.0;
        assert!(
            chi_square < freedom + 5.0 * (2.0 * freedom).sqrt(),
            "{chi_square}"
        );
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
}
