//! The batches that the policy learns from.

use ddas_runtime::{Dtype, PipelineScratch, Step};
use tch::{Device, Tensor};

use super::pixels::{normalization, pipeline, process, to_tensor};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::proxy_data::Samples;

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
