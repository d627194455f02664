//! Pipelines from stored samples to the values of a tensor.

use ddas_formats::{Encoding, Sample};
use ddas_runtime::{
    Dtype, Image, Layout, Normalization, OutputFormat, Pipeline, PipelineScratch, Recipe, Step,
};
use tch::{Kind, Tensor};

use crate::config::Config;
use crate::error::{Error, Result};

pub(super) fn normalization(config: &Config) -> Normalization {
    Normalization {
        mean: config.mean,
        std: config.std,
    }
}

pub(super) fn pipeline(
    config: &Config,
    steps: Vec<Step>,
    epochs: u32,
    dtype: Dtype,
) -> Result<Pipeline> {
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

pub(super) fn process(
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
        index: &[],
    };
    pipeline
        .process(scratch, &sample, epoch, index, place)
        .map(|_| ())
        .map_err(|error| Error::Invalid(error.to_string()))
}

/// Bytes of batch x height x width x 3 values of f32 as a tensor of shape batch x 3 x height x
/// width: the channels-last order that convolutions prefer.
pub(super) fn to_tensor(values: &[u8], samples: usize, pipeline: &Pipeline) -> Result<Tensor> {
    let [height, width, channels] = pipeline.sample_shape();
    let size = [samples, height, width, channels].map(|side| side as i64);
    let tensor = Tensor::f_from_data_size(values, &size, Kind::Float)?;
    Ok(tensor.f_permute([0, 3, 1, 2])?)
}
