//! From decoded samples to the tensors of a step.
//!
//! What a batch holds depends on (seed, epoch, step) alone, so any thread can make any batch. Only
//! where policies are drawn from the policy under search does it depend on that, too.

mod draws;
mod pixels;
#[cfg(test)]
mod tests;
mod validation;

pub use validation::ValidationBatches;

use std::sync::Arc;

use ddas_formats::Operation;
use ddas_runtime::{
    Augmenter, Border, Dtype, Image, PassOrder, Pipeline, PipelineScratch, ResizeFilter, SampleRng,
    Step, Stream,
};
use tch::Tensor;

use self::draws::Draws;
use self::pixels::{normalization, pipeline, process, to_tensor};

use crate::config::{Config, Crop};
use crate::error::{Error, Result};
use crate::proxy_data::ProxyData;

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
    draws: Draws,
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
            draws: Draws::new(config, &space, data.train.labels.len()),
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

    /// Whether a policy of this step is drawn from the probabilities under search
    /// (`exploit_probability`), so that its batch can only be made when they are known.
    pub fn needs_probabilities(&self, epoch: u32, step: u32) -> bool {
        self.draws.policies(epoch, step, None).is_none()
    }

    /// The batch of `step` in `epoch`, both from 0, as tensors on the host.
    ///
    /// Policies are drawn uniformly, with replacement, or, with probability
    /// `exploit_probability`, from `probabilities`, one per operation, which are read in the steps
    /// that [`BatchMaker::needs_probabilities`] and only there. Every copy of a sample gets
    /// operations and sign choices of its own; crop, flip and cutout are its own or shared with
    /// the others, as the settings say.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory runs out; [`Error::Invalid`] when a stored image cannot be
    /// decoded, or there are not as many probabilities as operations where they are needed.
    pub fn make(
        &self,
        epoch: u32,
        step: u32,
        probabilities: &[f64],
        scratch: &mut BatchScratch,
    ) -> Result<TrainBatch> {
        let known = (probabilities.len() == self.operations.len()).then_some(probabilities);
        let policies = self.draws.policies(epoch, step, known).ok_or_else(|| {
            Error::Invalid(format!(
                "{} probabilities for the {} operations of a step that draws from them",
                probabilities.len(),
                self.operations.len()
            ))
        })?;
        let positions = self.draws.positions(epoch, step);
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
