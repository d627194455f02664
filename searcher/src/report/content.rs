//! What operations leave of an image.

use ddas_formats::{Dataset, SearchSpace};
use ddas_runtime::{Augmenter, Image, SampleRng, Stream};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::proxy_data::ImageLoader;

/// Samples looked at.
const SAMPLES: u64 = 32;
/// Below this share of values that still depend on the image, an operation leaves nothing.
const NOTHING: f64 = 0.02;
/// Below this share it leaves little.
const LITTLE: f64 = 0.3;
/// Below this share of the variance, an operation leaves a faint image.
const FAINT: f64 = 0.02;

/// What one operation leaves of the samples, relative to the samples as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Content {
    /// Share of pixel values that still differ from sample to sample: 0 where the result does
    /// not depend on the image.
    pub(super) dependent: f64,
    /// Variance from sample to sample, mean over pixel values.
    pub(super) variance: f64,
}

impl Content {
    /// What to tell the user; none for an operation that leaves most of an image.
    pub(super) fn warning(&self) -> Option<String> {
        let percent = |share: f64| format!("{:.0}%", 100.0 * share);
        if self.dependent < NOTHING {
            return Some("leaves nothing of the image".to_owned());
        }
        if self.dependent < LITTLE {
            let share = percent(self.dependent);
            return Some(format!("leaves {share} of the image"));
        }
        if self.variance < FAINT {
            let share = format!("{:.2}%", 100.0 * self.variance);
            return Some(format!("leaves {share} of the variance"));
        }
        None
    }
}

/// What each operation of the space leaves of samples of the dataset.
pub(super) fn measure(
    dataset: &Dataset,
    space: &SearchSpace,
    config: &Config,
) -> Result<Vec<Content>> {
    let samples = load(dataset, config)?;
    let mut augmenter = Augmenter::default();
    let plain = spread(&samples);
    space
        .plain_operations()?
        .iter()
        .map(|operation| {
            // The same draws (sign, place of a cutout) for all: they are no content.
            let changed: Vec<Image> = samples
                .iter()
                .map(|sample| {
                    let mut image = sample.clone();
                    let mut rng = SampleRng::new(config.seed, 0, 0, Stream::Search);
                    let operation = std::slice::from_ref(operation);
                    augmenter.apply_drawn(operation, &mut rng, &mut image);
                    image
                })
                .collect();
            let left = spread(&changed);
            Ok(Content {
                dependent: ratio(left.0, plain.0),
                variance: ratio(left.1, plain.1),
            })
        })
        .collect()
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 1.0 }
}

fn load(dataset: &Dataset, config: &Config) -> Result<Vec<Image>> {
    let reader = dataset.reader()?;
    let mut loader = ImageLoader::new(config.image_size, 1.0);
    let count = SAMPLES.min(dataset.len());
    (0..count)
        .map(|number| {
            let sample = reader.get(number * dataset.len() / count)?;
            loader
                .load(&sample)
                .map_err(|error| Error::Invalid(error.to_string()))
        })
        .collect()
}

/// Share of values that are not the same in all images, and the mean of their variances.
fn spread(images: &[Image]) -> (f64, f64) {
    let Some(first) = images.first() else {
        return (0.0, 0.0);
    };
    let count = images.len() as f64;
    let (mut differing, mut variances) = (0usize, 0.0);
    for (position, &value) in first.pixels().iter().enumerate() {
        let values = || {
            images
                .iter()
                .map(|image| f64::from(image.pixels()[position]))
        };
        differing += usize::from(values().any(|other| other != f64::from(value)));
        let mean = values().sum::<f64>() / count;
        variances += values().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    }
    let values = first.pixels().len() as f64;
    (differing as f64 / values, variances / values)
}

#[cfg(test)]
mod tests {
    use ddas_formats::{DatasetWriter, Encoding, Packed};
    use ddas_runtime::SampleRng;

    use super::*;

    #[test]
    fn operations_that_destroy_the_image_are_told_from_those_that_change_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise.lmdb");
        let mut writer = DatasetWriter::create(&path, false).unwrap();
        for index in 0..40 {
            let mut rng = SampleRng::new(1, 0, index, Stream::Search);
            let pixels: Vec<u8> = (0..3072).map(|_| rng.below(256) as u8).collect();
            writer
                .append((index % 2) as i64, Encoding::Raw, 32, 32, &pixels)
                .unwrap();
        }
        let classes = ["a", "b"].map(str::to_owned).to_vec();
        writer.finish(classes, Packed::default()).unwrap();
        let dataset = Dataset::open(&path).unwrap();
        let config = Config::preset("cifar10").unwrap();
        let found = |name: &str| {
            let space = SearchSpace::named(name).unwrap();
            let contents = measure(&dataset, &space, &config).unwrap();
            let labels: Vec<String> = space.entries().iter().map(|e| e.label()).collect();
            labels.into_iter().zip(contents).collect::<Vec<_>>()
        };
        // The authors' search as it ran: Posterize is black, and 4 of 32 columns are left of a
        // translated image.
        let mut seen = 0;
        for (label, content) in found("released52-as-run") {
            let warning = content.warning().unwrap_or_default();
            if label.starts_with("Posterize") {
                assert_eq!(
                    warning, "leaves nothing of the image",
                    "{label} {content:?}"
                );
                assert_eq!(content.variance, 0.0);
                seen += 1;
            } else if label.starts_with("Translate") {
                assert!(
                    (content.dependent - 0.125).abs() < 1e-9,
                    "{label} {content:?}"
                );
                assert!(warning.starts_with("leaves 1"), "{label} {warning}");
                seen += 1;
            } else if label.starts_with("Invert") || label.starts_with("Identity") {
                assert_eq!((content.dependent, content.variance), (1.0, 1.0), "{label}");
                seen += 1;
            }
        }
        assert!(seen >= 14, "{seen}");
        for (label, content) in found("paper68") {
            assert!(content.warning().is_none(), "{label} {content:?}");
        }
    }
}
