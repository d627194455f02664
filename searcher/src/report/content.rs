//! What operations leave of an image.

use ddas_formats::{Dataset, Operation, SearchSpace};
use ddas_runtime::{Augmenter, Image, SampleRng, Stream};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::proxy_data::ImageLoader;

/// Samples looked at.
const SAMPLES: u64 = 32;
/// Draws of an operation (its sign, the place of a cutout) that are averaged over.
const DRAWS: u64 = 8;
/// Rows and columns compared at most, evenly spread: larger images hold no more to tell.
const COMPARED: u32 = 64;
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
    let plain = spread(&samples);
    let mut measured = Measure::new(samples, config);
    space
        .plain_operations()?
        .iter()
        .map(|operation| {
            let left = measured.left(operation);
            Ok(Content {
                dependent: ratio(left.0, plain.0),
                variance: ratio(left.1, plain.1),
            })
        })
        .collect()
}

/// Applies operations to the samples, with the same draw for all of them: it is no content.
struct Measure {
    samples: Vec<Image>,
    changed: Vec<Image>,
    /// Noise, which shows the draws of an operation apart.
    probe: Image,
    augmenter: Augmenter,
    seed: u64,
}

impl Measure {
    fn new(samples: Vec<Image>, config: &Config) -> Self {
        let mut probe = Image::new(config.image_size, config.image_size);
        let mut rng = SampleRng::new(0, 0, 0, Stream::Search);
        for value in probe.pixels_mut() {
            *value = rng.below(256) as u8;
        }
        Self {
            changed: samples.clone(),
            samples,
            probe,
            augmenter: Augmenter::default(),
            seed: config.seed,
        }
    }

    /// The [`spread`] of the changed samples, mean over the draws. What does the same to the probe
    /// as an earlier draw is not applied again: most operations have one result or two.
    fn left(&mut self, operation: &Operation) -> (f64, f64) {
        let mut seen: Vec<(Image, (f64, f64), f64)> = Vec::new();
        for draw in 0..DRAWS {
            let mut probe = self.probe.clone();
            apply(&mut self.augmenter, operation, self.seed, draw, &mut probe);
            match seen.iter_mut().find(|(result, ..)| *result == probe) {
                Some((.., times)) => *times += 1.0,
                None => seen.push((probe, self.spread_of(operation, draw), 1.0)),
            }
        }
        let mean = |part: fn((f64, f64)) -> f64| {
            let sum: f64 = seen
                .iter()
                .map(|(_, left, times)| part(*left) * times)
                .sum();
            sum / DRAWS as f64
        };
        (mean(|left| left.0), mean(|left| left.1))
    }

    fn spread_of(&mut self, operation: &Operation, draw: u64) -> (f64, f64) {
        for (sample, changed) in self.samples.iter().zip(&mut self.changed) {
            changed.copy_from(sample);
            apply(&mut self.augmenter, operation, self.seed, draw, changed);
        }
        spread(&self.changed)
    }
}

fn apply(
    augmenter: &mut Augmenter,
    operation: &Operation,
    seed: u64,
    draw: u64,
    image: &mut Image,
) {
    let mut rng = SampleRng::new(seed, 0, draw, Stream::Search);
    augmenter.apply_drawn(std::slice::from_ref(operation), &mut rng, image);
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
    let count = images.len() as u64;
    let step = first.width().max(first.height()).div_ceil(COMPARED).max(1) as usize;
    let (mut compared, mut differing, mut variances) = (0u64, 0u64, 0.0);
    for y in (0..first.height()).step_by(step) {
        let rows: Vec<&[u8]> = images.iter().map(|image| image.row(y)).collect();
        for x in (0..first.width() as usize).step_by(step) {
            for position in 3 * x..3 * x + 3 {
                // Whole numbers: the order of the images, or their negatives, change nothing.
                let (mut sum, mut squares, mut differs) = (0u64, 0u64, false);
                for row in &rows {
                    let value = u64::from(row[position]);
                    (sum, squares) = (sum + value, squares + value * value);
                    differs |= row[position] != rows[0][position];
                }
                compared += 1;
                differing += u64::from(differs);
                variances += (count * squares - sum * sum) as f64 / (count * count) as f64;
            }
        }
    }
    let compared = compared.max(1) as f64;
    (differing as f64 / compared, variances / compared)
}

#[cfg(test)]
mod tests {
    use ddas_formats::{CutoutShape, DatasetWriter, Encoding, Extent, Packed};

    use super::*;

    /// Forty images of noise.
    fn noise(folder: &std::path::Path, side: u32) -> Dataset {
        let path = folder.join(format!("noise{side}.lmdb"));
        let mut writer = DatasetWriter::create(&path, false).unwrap();
        for index in 0..40 {
            let mut rng = SampleRng::new(1, 0, index, Stream::Search);
            let pixels: Vec<u8> = (0..side * side * 3).map(|_| rng.below(256) as u8).collect();
            writer
                .append((index % 2) as i64, Encoding::Raw, side, side, &pixels)
                .unwrap();
        }
        let classes = ["a", "b"].map(str::to_owned).to_vec();
        writer.finish(classes, Packed::default()).unwrap();
        Dataset::open(&path).unwrap()
    }

    #[test]
    fn operations_that_destroy_the_image_are_told_from_those_that_change_it() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = noise(folder.path(), 32);
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

    #[test]
    fn a_cutouts_place_is_averaged_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::preset("cifar10").unwrap();
        for (side, size) in [(32, 24.0), (160, 120.0)] {
            config.image_size = side;
            let samples = load(&noise(folder.path(), side), &config).unwrap();
            let cutout = Operation::Cutout {
                size: Extent::Pixels(size),
                shape: CutoutShape::Centered,
                fill: [9, 9, 9],
            };
            let shares: Vec<f64> = (0..6)
                .map(|seed| {
                    config.seed = seed;
                    Measure::new(samples.clone(), &config).left(&cutout).0
                })
                .collect();
            // Of a side 19.5 / 32 is cut out on average, of the area 37%.
            for share in &shares {
                assert!((0.5..0.76).contains(share), "{shares:?}");
            }
        }
    }

    #[test]
    fn draws_that_do_the_same_are_measured_once() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::preset("cifar10").unwrap();
        let samples = load(&noise(folder.path(), 32), &config).unwrap();
        let once = spread(&samples);
        let mut measure = Measure::new(samples, &config);
        assert_eq!(measure.left(&Operation::Identity), once);
    }
}
