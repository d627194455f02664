//! The samples of a search, decoded once and held in memory.

use ddas_formats::{Dataset, Operation};
use ddas_runtime::{Decoder, Image, Kernels, PassOrder, Rect, ResizeFilter, Resizer};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::split::stratified_split;

/// Decoded training and validation samples, all of one size.
#[derive(Debug)]
pub struct ProxyData {
    /// Samples that train the network.
    pub train: Samples,
    /// Samples that train the policy; already turned where the settings say so.
    pub validation: Samples,
    /// Number of classes of the dataset.
    pub classes: u32,
}

/// Decoded samples in a fixed order.
#[derive(Debug, Default)]
pub struct Samples {
    /// RGB images of the size in the settings.
    pub images: Vec<Image>,
    /// One label per image, below the number of classes.
    pub labels: Vec<i64>,
}

impl ProxyData {
    /// Draws the split and decodes its samples.
    ///
    /// Images of another size than `image_size` are scaled so that their shorter side fits, then
    /// cropped about their centre.
    ///
    /// # Errors
    /// [`Error::Dataset`] when there are too few samples, a label is outside the classes, or an
    /// image cannot be decoded; [`Error::Format`] when a sample is damaged.
    pub fn load(dataset: &Dataset, config: &Config) -> Result<Self> {
        let fail = |problem: String| Error::Dataset {
            path: dataset.path().into(),
            problem,
        };
        let reader = dataset.reader()?;
        let classes = dataset.classes().len();
        let mut labels = Vec::new();
        for index in 0..dataset.len() {
            let label = reader.get(index)?.label;
            if usize::try_from(label).map_or(true, |label| label >= classes) {
                return Err(fail(format!(
                    "sample {index} has label {label}, but there are {classes} classes"
                )));
            }
            labels.push(label);
        }
        let (train, validation) = (config.train_samples, config.validation_samples);
        let split = stratified_split(&labels, train, validation, config.seed)
            .map_err(|error| fail(error.to_string()))?;

        let mut loader = ImageLoader::new(config.image_size);
        let mut load = |indices: &[u64]| -> Result<Samples> {
            let mut samples = Samples::default();
            for &index in indices {
                let sample = reader.get(index)?;
                let image = loader
                    .load(&sample)
                    .map_err(|error| fail(format!("sample {index}: {error}")))?;
                samples.images.push(image);
                samples.labels.push(sample.label);
            }
            Ok(samples)
        };
        let train = load(&split.train)?;
        let mut validation = load(&split.validation)?;
        if config.turn_validation {
            let mut kernels = Kernels::default();
            for image in &mut validation.images {
                kernels.apply(&Operation::Rotate90, None, image);
            }
        }
        let classes = u32::try_from(classes).map_err(|_| fail("too many classes".to_owned()))?;
        Ok(Self {
            train,
            validation,
            classes,
        })
    }
}

/// Decodes samples and brings them to one size.
pub(crate) struct ImageLoader {
    size: u32,
    decoder: Decoder,
    decoded: Image,
    resizer: Resizer,
}

impl ImageLoader {
    pub(crate) fn new(size: u32) -> Self {
        Self {
            size,
            decoder: Decoder::new(),
            decoded: Image::new(1, 1),
            resizer: Resizer::default(),
        }
    }

    pub(crate) fn load(
        &mut self,
        sample: &ddas_formats::Sample<'_>,
    ) -> ddas_runtime::Result<Image> {
        let (width, height) = (sample.width, sample.height);
        self.decoder.decode(
            sample.encoding,
            width,
            height,
            sample.payload,
            &mut self.decoded,
        )?;
        if (width, height) == (self.size, self.size) {
            return Ok(self.decoded.clone());
        }
        let side = width.min(height);
        let square = Rect {
            x: (width - side) / 2,
            y: (height - side) / 2,
            width: side,
            height: side,
        };
        let mut image = Image::new(self.size, self.size);
        let size = (self.size, self.size);
        let (filter, order) = (ResizeFilter::Bilinear, PassOrder::HorizontalFirst);
        self.resizer
            .resize_crop(&self.decoded, square, size, filter, order, &mut image)?;
        Ok(image)
    }
}
