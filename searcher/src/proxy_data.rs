//! The samples of a search, decoded once and held in memory.

use ddas_formats::{Dataset, DatasetReader, Encoding, Operation, Sample};
use ddas_runtime::{Decoder, Image, Kernels, PassOrder, Rect, ResizeFilter, Resizer};

use crate::config::{Config, Crop};
use crate::error::{Error, Result};
use crate::split::{class_split, stratified_split};

/// Training and validation samples.
#[derive(Debug)]
pub struct ProxyData {
    /// Samples that train the network.
    pub train: Samples,
    /// Samples that train the policy; already turned where the settings say so.
    pub validation: Samples,
    /// Number of classes the network tells apart: the dataset's, or those drawn.
    pub classes: u32,
}

/// Samples in a fixed order: all of them decoded, or all of them encoded.
#[derive(Debug, Default)]
pub struct Samples {
    /// RGB images of the size in the settings.
    pub images: Vec<Image>,
    /// Images of any size as stored, for crops that are resized anew in each step.
    pub encoded: Vec<EncodedImage>,
    /// One label per image, below the number of classes.
    pub labels: Vec<i64>,
}

/// An image as the dataset holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedImage {
    /// How the payload is encoded.
    pub encoding: Encoding,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The encoded bytes.
    pub payload: Vec<u8>,
    /// The index stored with them.
    pub index: Vec<u8>,
}

impl EncodedImage {
    /// As the runtime takes it.
    pub(crate) fn sample(&self) -> Sample<'_> {
        Sample {
            label: 0,
            encoding: self.encoding,
            width: self.width,
            height: self.height,
            payload: &self.payload,
            index: &self.index,
        }
    }
}

impl ProxyData {
    /// Draws the split and decodes its samples.
    ///
    /// Images of another size than `image_size` are scaled so that their shorter side fits, then
    /// cropped about their centre. With [`Crop::Resized`], training images are kept as stored,
    /// and validation images are scaled to 256/224 of the size before the crop, as is usual for
    /// ImageNet.
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
        // Without reading the images: of a large dataset most are never drawn.
        reader.for_each_label(&mut |_, label| labels.push(label))?;
        let known = |&label: &i64| usize::try_from(label).is_ok_and(|label| label < classes);
        if let Some(index) = labels.iter().position(|label| !known(label)) {
            return Err(fail(format!(
                "sample {index} has label {}, but there are {classes} classes",
                labels[index]
            )));
        }
        let (train, validation) = (config.train_samples, config.validation_samples);
        let (chosen, split) = match config.classes {
            Some(count) => class_split(&labels, count, train, validation, config.seed),
            None => stratified_split(&labels, train, validation, config.seed)
                .map(|split| ((0..classes as i64).collect(), split)),
        }
        .map_err(|error| fail(error.to_string()))?;
        let place_of = |label: i64| chosen.binary_search(&label).unwrap_or_default() as i64;

        let margin = match config.crop {
            Crop::Padded => 1.0,
            Crop::Resized => 224.0 / 256.0,
        };
        let mut loader = ImageLoader::new(config.image_size, margin);
        let mut load = |reader: &DatasetReader, indices: &[u64], decode: bool| -> Result<Samples> {
            let mut samples = Samples::default();
            for &index in indices {
                let sample = reader.get(index)?;
                samples.labels.push(place_of(sample.label));
                if !decode {
                    samples.encoded.push(EncodedImage {
                        encoding: sample.encoding,
                        width: sample.width,
                        height: sample.height,
                        payload: sample.payload.to_vec(),
                        index: sample.index.to_vec(),
                    });
                    continue;
                }
                let image = loader
                    .load(&sample)
                    .map_err(|error| fail(format!("sample {index}: {error}")))?;
                samples.images.push(image);
            }
            Ok(samples)
        };
        let train = load(&reader, &split.train, config.crop == Crop::Padded)?;
        let mut validation = load(&reader, &split.validation, true)?;
        if config.turn_validation {
            let mut kernels = Kernels::default();
            for image in &mut validation.images {
                kernels.apply(&Operation::Rotate90, None, image);
            }
        }
        let classes =
            u32::try_from(chosen.len()).map_err(|_| fail("too many classes".to_owned()))?;
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
    /// Share of the shorter side that the central square keeps.
    margin: f64,
    decoder: Decoder,
    decoded: Image,
    resizer: Resizer,
}

impl ImageLoader {
    pub(crate) fn new(size: u32, margin: f64) -> Self {
        Self {
            size,
            margin,
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
        if (width, height) == (self.size, self.size) && self.margin == 1.0 {
            return Ok(self.decoded.clone());
        }
        let shorter = f64::from(width.min(height));
        let side = ((shorter * self.margin).round() as u32).max(1);
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

#[cfg(test)]
mod tests {
    use ddas_formats::{DatasetWriter, Encoding, Packed};

    use super::*;

    /// Sixteen images of one colour each (the label) with a white top right corner.
    fn dataset(folder: &std::path::Path, width: u32, height: u32) -> Dataset {
        let path = folder.join(format!("{width}x{height}.lmdb"));
        let mut writer = DatasetWriter::create(&path, false).unwrap();
        for number in 0..16i64 {
            let label = number % 4;
            let mut pixels = vec![20 * label as u8; (width * height * 3) as usize];
            let corner = (width as usize - 1) * 3;
            pixels[corner..corner + 3].fill(255);
            writer
                .append(label, Encoding::Raw, width, height, &pixels)
                .unwrap();
        }
        let classes = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        writer.finish(classes, Packed::default()).unwrap();
        Dataset::open(&path).unwrap()
    }

    fn config(settings: &[&str]) -> Config {
        let mut config = Config::preset("sanity").unwrap();
        for setting in ["train_samples=8", "validation_samples=8", "image_size=8"]
            .iter()
            .chain(settings)
        {
            config.set(setting).unwrap();
        }
        config
    }

    #[test]
    fn validation_images_are_turned_counter_clockwise_and_training_images_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let data = ProxyData::load(&dataset(folder.path(), 8, 8), &config(&[])).unwrap();
        assert_eq!(
            (data.train.images.len(), data.validation.images.len()),
            (8, 8)
        );
        assert_eq!(data.classes, 4);
        for (samples, corner) in [(&data.train, (7, 0)), (&data.validation, (0, 0))] {
            for (image, &label) in samples.images.iter().zip(&samples.labels) {
                assert_eq!(image.pixel(corner.0, corner.1), Some([255; 3]));
                assert_eq!(image.pixel(4, 4), Some([20 * label as u8; 3]));
                let white = image.pixels().iter().filter(|&&value| value == 255).count();
                assert_eq!(white, 3);
            }
        }
        let upright = config(&["turn_validation=false"]);
        let dataset = Dataset::open(&folder.path().join("8x8.lmdb")).unwrap();
        let data = ProxyData::load(&dataset, &upright).unwrap();
        let corner = |image: &Image| image.pixel(7, 0);
        assert!(
            data.validation
                .images
                .iter()
                .all(|i| corner(i) == Some([255; 3]))
        );
    }

    #[test]
    fn images_of_other_sizes_are_brought_to_the_size_of_the_settings() {
        let folder = tempfile::tempdir().unwrap();
        let data = ProxyData::load(&dataset(folder.path(), 40, 16), &config(&[])).unwrap();
        let all = data.train.images.iter().chain(&data.validation.images);
        for (image, &label) in all.zip(data.train.labels.iter().chain(&data.validation.labels)) {
            assert_eq!((image.width(), image.height()), (8, 8));
            // The white corner lies outside the central square.
            assert!(
                image
                    .pixels()
                    .iter()
                    .all(|&value| value == 20 * label as u8)
            );
        }
    }

    #[test]
    fn a_dataset_with_too_few_samples_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let more = config(&["train_samples=9"]);
        let error = ProxyData::load(&dataset(folder.path(), 8, 8), &more).unwrap_err();
        assert!(error.to_string().contains("8x8.lmdb"), "{error}");
        assert!(error.to_string().contains("holds 16 samples"), "{error}");
    }
}
