//! What each operation does to a few samples, as small images.

use ddas_formats::{Dataset, Operation, SearchSpace};
use ddas_runtime::{Augmenter, Image, SampleRng, Stream};

use super::html::base64;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::proxy_data::ImageLoader;

/// Samples shown per operation, of as many classes where there are as many.
const SHOWN: usize = 6;

/// Strips of samples side by side, each a complete `<img>` element.
pub(super) struct SampleStrips {
    /// The samples as they are.
    pub(super) plain: String,
    /// With each operation of the search space applied, in its order.
    pub(super) operations: Vec<String>,
}

impl SampleStrips {
    pub(super) fn draw(dataset: &Dataset, space: &SearchSpace, config: &Config) -> Result<Self> {
        let samples = load(dataset, config)?;
        let mut augmenter = Augmenter::default();
        let mut strip = |operation: Option<&Operation>| {
            let mut shown = Vec::with_capacity(samples.len());
            for (index, sample) in (0..).zip(&samples) {
                let mut image = sample.clone();
                let mut rng = SampleRng::new(config.seed, 0, index, Stream::Search);
                augmenter.apply_drawn(
                    operation.map_or(&[], std::slice::from_ref),
                    &mut rng,
                    &mut image,
                );
                shown.push(image);
            }
            element(&shown)
        };
        Ok(Self {
            plain: strip(None)?,
            operations: space
                .plain_operations()?
                .iter()
                .map(|operation| strip(Some(operation)))
                .collect::<Result<_>>()?,
        })
    }
}

/// The first sample of each of the first classes.
fn load(dataset: &Dataset, config: &Config) -> Result<Vec<Image>> {
    let reader = dataset.reader()?;
    let wanted = SHOWN.min(dataset.classes().len());
    let mut classes = Vec::new();
    let mut images = Vec::new();
    let mut loader = ImageLoader::new(config.image_size, 1.0);
    for index in 0..dataset.len() {
        if images.len() == wanted {
            break;
        }
        let sample = reader.get(index)?;
        if classes.contains(&sample.label) {
            continue;
        }
        classes.push(sample.label);
        images.push(
            loader
                .load(&sample)
                .map_err(|error| Error::Invalid(error.to_string()))?,
        );
    }
    Ok(images)
}

fn element(images: &[Image]) -> Result<String> {
    let Some(first) = images.first() else {
        return Ok(String::new());
    };
    let (width, height) = (first.width(), first.height());
    let mut pixels = Vec::new();
    for y in 0..height {
        images
            .iter()
            .for_each(|image| pixels.extend_from_slice(image.row(y)));
    }
    let total = width * images.len() as u32;
    let png = encode_png(total, height, &pixels)
        .map_err(|error| Error::Invalid(format!("the sample sheet cannot be drawn: {error}")))?;
    // Shown at up to 48 pixels of height: digits and CIFAR enlarged, photographs reduced.
    let shown = 48.0 / f64::from(height) * f64::from(total);
    Ok(format!(
        "<img alt=\"\" width=\"{shown:.0}\" height=\"48\" src=\"data:image/png;base64,{}\">",
        base64(&png)
    ))
}

fn encode_png(
    width: u32,
    height: u32,
    pixels: &[u8],
) -> std::result::Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}
