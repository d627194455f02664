//! What each operation does to a few samples, as small images.

use ddas_formats::{Dataset, Operation, SearchSpace};
use ddas_runtime::{
    Augmenter, ChromaSubsampling, Image, PassOrder, Rect, ResizeFilter, Resizer, SampleRng, Stream,
    encode_jpeg,
};

use super::html::base64;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::proxy_data::ImageLoader;

/// Samples shown per operation, of as many classes where there are as many.
const SHOWN: usize = 6;
/// Pixels of height that a strip takes on the page.
const SHOWN_HEIGHT: u32 = 48;
/// Pixels of height that a page carries at most: sharp on screens of two pixels to one, and a
/// page of hundreds of operations on photographs stays small.
const CARRIED_HEIGHT: u32 = 96;
/// Quality of reduced strips.
const JPEG_QUALITY: u8 = 85;

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
        let mut resizer = Resizer::default();
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
                shown.push(reduced(&mut resizer, image)?);
            }
            element(&shown, config.image_size > CARRIED_HEIGHT)
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

/// An image as the page carries it. After its operation: operations work on the pixels that the
/// network sees.
fn reduced(resizer: &mut Resizer, image: Image) -> Result<Image> {
    let (width, height) = (image.width(), image.height());
    if height <= CARRIED_HEIGHT {
        return Ok(image);
    }
    let whole = Rect {
        x: 0,
        y: 0,
        width,
        height,
    };
    let size = (CARRIED_HEIGHT, CARRIED_HEIGHT);
    let (filter, order) = (ResizeFilter::Bilinear, PassOrder::HorizontalFirst);
    let mut smaller = Image::default();
    resizer
        .resize_crop(&image, whole, size, filter, order, &mut smaller)
        .map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(smaller)
}

/// Images of one size side by side: exact, or photographs in the fewer bytes of a JPEG.
fn element(images: &[Image], photographs: bool) -> Result<String> {
    let Some(first) = images.first() else {
        return Ok(String::new());
    };
    let height = first.height();
    let mut pixels = Vec::new();
    for y in 0..height {
        images
            .iter()
            .for_each(|image| pixels.extend_from_slice(image.row(y)));
    }
    let width = first.width() * images.len() as u32;
    let fail = |error: &dyn std::fmt::Display| {
        Error::Invalid(format!("the sample sheet cannot be drawn: {error}"))
    };
    let (kind, bytes) = if photographs {
        let jpeg = Image::from_rgb(width, height, pixels)
            .and_then(|strip| encode_jpeg(&strip, JPEG_QUALITY, ChromaSubsampling::Full));
        ("jpeg", jpeg.map_err(|error| fail(&error))?)
    } else {
        let png = encode_png(width, height, &pixels);
        ("png", png.map_err(|error| fail(&error))?)
    };
    // Digits and CIFAR are enlarged, pixel by pixel; photographs reduced.
    let shown = f64::from(SHOWN_HEIGHT) / f64::from(height) * f64::from(width);
    let class = match height < SHOWN_HEIGHT {
        true => " class=\"enlarged\"",
        false => "",
    };
    Ok(format!(
        "<img{class} alt=\"\" width=\"{shown:.0}\" height=\"{SHOWN_HEIGHT}\" \
         src=\"data:image/{kind};base64,{}\">",
        base64(&bytes)
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

#[cfg(test)]
mod tests {
    use ddas_formats::{DatasetWriter, Encoding, Packed};

    use super::*;

    fn strips(side: u32) -> SampleStrips {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise.lmdb");
        let mut writer = DatasetWriter::create(&path, false).unwrap();
        for label in 0..2 {
            let mut rng = SampleRng::new(1, 0, label, Stream::Search);
            let pixels: Vec<u8> = (0..side * side * 3).map(|_| rng.below(256) as u8).collect();
            writer
                .append(label as i64, Encoding::Raw, side, side, &pixels)
                .unwrap();
        }
        let classes = ["a", "b"].map(str::to_owned).to_vec();
        writer.finish(classes, Packed::default()).unwrap();
        let dataset = Dataset::open(&path).unwrap();
        let space = SearchSpace::named("imagenet32").unwrap();
        let mut config = Config::preset("cifar10").unwrap();
        config.image_size = side;
        SampleStrips::draw(&dataset, &space, &config).unwrap()
    }

    #[test]
    fn photographs_are_reduced_and_small_images_are_not() {
        let small = strips(32);
        let start =
            "<img class=\"enlarged\" alt=\"\" width=\"96\" height=\"48\" src=\"data:image/png;";
        assert!(small.plain.starts_with(start), "{}", &small.plain[..80]);
        // Two images of noise, which PNG cannot make smaller: none of their pixels is left out.
        assert!(small.plain.len() > 2 * 3072 * 4 / 3);

        let photographs = strips(224);
        assert_eq!(photographs.operations.len(), 32);
        for strip in std::iter::once(&photographs.plain).chain(&photographs.operations) {
            let start = "<img alt=\"\" width=\"96\" height=\"48\" src=\"data:image/jpeg;";
            assert!(strip.starts_with(start), "{}", &strip[..80]);
            let exact = 2 * 96 * 96 * 3 * 4 / 3;
            assert!(strip.len() < exact, "{}", strip.len());
        }
    }
}
