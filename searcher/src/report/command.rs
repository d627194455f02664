//! How to train with what a search found.

use ddas_formats::Dataset;
use ddas_runtime::{Border, Normalization, PassOrder, Recipe, ResizeFilter, Step};

use super::html::{escape, shell_word};
use crate::config::{Config, Crop};
use crate::error::Result;
use crate::run_folder::RunRecord;

/// Bytes of a dataset up to which every image's size is looked at: each is read for it.
const SEEN_THROUGH: u64 = 1 << 30;

/// Whether stored images are known to have the size that the network saw. A loader refuses others
/// where its recipe does not begin with a resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoredSizes {
    /// Every image is `image_size` pixels wide and high.
    AsSearched,
    /// One at least is not.
    Others,
    /// Not looked at: the dataset is gone, damaged or large, or crops are resized anyway.
    Unknown,
}

impl StoredSizes {
    pub(super) fn of(dataset: &Dataset, config: &Config) -> Self {
        let side = config.image_size;
        let all_fit = |most: u64| -> Result<bool> {
            let reader = dataset.reader()?;
            for index in 0..dataset.len().min(most) {
                let sample = reader.get(index)?;
                if (sample.width, sample.height) != (side, side) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        if config.crop == Crop::Resized {
            return Self::Unknown;
        }
        let all = dataset.manifest().bytes <= SEEN_THROUGH;
        match all_fit(if all { u64::MAX } else { 1 }) {
            Ok(false) => Self::Others,
            Ok(true) if all => Self::AsSearched,
            Ok(true) | Err(_) => Self::Unknown,
        }
    }
}

/// The recipe that trains on what the search looked at: its name, or a file to write.
fn recipe(record: &RunRecord, stored: StoredSizes) -> (String, Option<String>) {
    let settings = &record.settings;
    if let Some(name) = named(settings, stored) {
        return (name.to_owned(), None);
    }
    let file = "recipe.toml".to_owned();
    match Recipe::new("searched", settings.image_size, steps(settings, stored)) {
        Ok(recipe) => (file, Some(recipe.to_toml())),
        Err(error) => (file, Some(format!("# {error}"))),
    }
}

/// A recipe built into the loader, where one has the images of the search. Those of ImageNet have
/// more than that: flip, colour jitter and lighting.
fn named(settings: &Config, stored: StoredSizes) -> Option<&'static str> {
    let is_like = |preset: &str| {
        Config::preset(preset).is_ok_and(|preset| {
            let images = |config: &Config| {
                let colours = (config.mean, config.std);
                (config.crop, config.image_size, config.cutout, colours)
            };
            let cropped = match settings.crop {
                Crop::Padded => {
                    (settings.crop_padding, settings.flip) == (preset.crop_padding, preset.flip)
                }
                Crop::Resized => settings.crop_scale == preset.crop_scale,
            };
            images(settings) == images(&preset) && cropped
        })
    };
    if stored == StoredSizes::AsSearched && is_like("cifar10") {
        return Some("cifar");
    }
    is_like("imagenet").then_some("imagenet-authors")
}

fn steps(settings: &Config, stored: StoredSizes) -> Vec<Step> {
    let mut steps = Vec::new();
    let flip = settings
        .flip
        .then_some(Step::RandomFlip { probability: 0.5 });
    match settings.crop {
        Crop::Resized => {
            steps.push(Step::RandomResizedCrop {
                scale: settings.crop_scale,
                ratio: [3.0 / 4.0, 4.0 / 3.0],
                filter: ResizeFilter::Bicubic,
                order: PassOrder::Pillow13,
            });
            steps.extend(flip);
            steps.push(Step::Policy);
        }
        Crop::Padded => {
            if stored != StoredSizes::AsSearched {
                steps.push(MIDDLE_SQUARE);
            }
            steps.push(Step::Policy);
            if settings.crop_padding > 0 {
                steps.push(Step::RandomCrop {
                    padding: settings.crop_padding,
                    border: Border::BLACK,
                });
            }
            steps.extend(flip);
        }
    }
    steps.push(Step::Normalize(Normalization {
        mean: settings.mean,
        std: settings.std,
    }));
    if settings.cutout > 0 {
        steps.push(Step::Cutout {
            size: settings.cutout,
            count: 1,
        });
    }
    steps
}

/// What the search does to images of other sizes: the middle square, resized. A crop of all of
/// the area at a ratio of 1 fits into no other image than a square one and so falls back to that
/// square; a center-crop would do the same, but excludes the random-crop after it.
const MIDDLE_SQUARE: Step = Step::RandomResizedCrop {
    scale: [1.0; 2],
    ratio: [1.0; 2],
    filter: ResizeFilter::Bilinear,
    order: PassOrder::HorizontalFirst,
};

/// The commands, and the recipe's file where none has a name.
pub(super) fn command(record: &RunRecord, stored: StoredSizes) -> String {
    let (recipe, text) = recipe(record, stored);
    let (epochs, batch) = match record.settings.crop {
        Crop::Padded => (200, 128),
        Crop::Resized => (270, 512),
    };
    let dataset = shell_word(&record.dataset.display().to_string());
    let policy = shell_word(&record.output.display().to_string());
    let serve = format!(
        "ddas-loader serve {dataset} --name train --recipe {recipe} --policy {policy} \\\n    \
         --epochs {epochs} --batch-size {batch} --seed 0"
    );
    let side = record.settings.image_size;
    let resize = match (record.settings.crop, stored) {
        (Crop::Resized, _) | (_, StoredSizes::AsSearched) => String::new(),
        (Crop::Padded, StoredSizes::Others) => format!(
            " Its first step takes the middle square of an image at {side}x{side} pixels, as the \
             search did: stored images have other sizes."
        ),
        (Crop::Padded, StoredSizes::Unknown) => format!(
            " Its first step takes the middle square of an image at {side}x{side} pixels, as the \
             search did, in case stored images have other sizes."
        ),
    };
    let note = match text {
        Some(text) => format!(
            "<p>Save as <code>{recipe}</code>, the images of this search.{resize}</p><pre>{}</pre>",
            escape(&text)
        ),
        None if record.settings.crop == Crop::Resized => format!(
            "<p><code>{recipe}</code> has the crops of this search and adds {}colour jitter and \
             lighting, as the authors train.</p>",
            if record.settings.flip { "" } else { "flip, " }
        ),
        None => String::new(),
    };
    let python = "from ddas.torch import DataLoader\n\nfor images, targets in DataLoader(\"train\"):\n    ...";
    format!(
        "{note}<pre>{}</pre><p>and in the training program:</p><pre>{}</pre>",
        escape(&serve),
        escape(python)
    )
}

#[cfg(test)]
mod tests {
    use ddas_formats::{DatasetWriter, Encoding, Packed, Sample};
    use ddas_runtime::{Dtype, Layout, OutputFormat, Pipeline, PipelineScratch};

    use super::*;
    use crate::proxy_data::ImageLoader;
    use crate::report::tests::record;

    fn of_preset(preset: &str, settings: &[&str]) -> RunRecord {
        let mut record = record("/data/d.lmdb".as_ref());
        record.settings = Config::preset(preset).unwrap();
        for setting in settings {
            record.settings.set(setting).unwrap();
        }
        record
    }

    fn read(record: &RunRecord, stored: StoredSizes) -> Recipe {
        let (name, text) = recipe(record, stored);
        assert_eq!(name, "recipe.toml");
        Recipe::from_toml(&text.unwrap(), &name).unwrap()
    }

    #[test]
    fn a_named_recipe_is_given_only_where_it_has_the_images_of_the_search() {
        use StoredSizes::{AsSearched, Others, Unknown};
        for preset in ["cifar10", "sanity", "cifar100-released"] {
            let record = of_preset(preset, &[]);
            assert_eq!(recipe(&record, AsSearched), ("cifar".to_owned(), None));
            read(&record, Others);
        }
        for stored in [AsSearched, Others, Unknown] {
            let record = of_preset("imagenet", &[]);
            assert_eq!(
                recipe(&record, stored),
                ("imagenet-authors".to_owned(), None)
            );
            let text = command(&record, stored);
            assert!(text.contains("--epochs 270 --batch-size 512"), "{text}");
            assert!(text.contains("adds flip, colour jitter"), "{text}");
        }
        for (preset, setting) in [
            ("cifar10", "crop_padding=2"),
            ("cifar10", "flip=false"),
            ("cifar10", "cutout=8"),
            ("cifar10", "mean=[0.5,0.5,0.5]"),
            ("imagenet", "crop_scale=[0.5,1]"),
            ("imagenet", "mean=[0.5,0.5,0.5]"),
            ("imagenet", "std=[0.5,0.5,0.5]"),
            ("imagenet", "cutout=16"),
            ("imagenet", "image_size=96"),
        ] {
            read(&of_preset(preset, &[setting]), AsSearched);
        }
        let changed = of_preset("imagenet", &["crop_scale=[0.5,1]", "mean=[0.5,0.5,0.5]"]);
        let recipe = read(&changed, Others);
        assert!(matches!(
            recipe.steps()[0],
            Step::RandomResizedCrop {
                scale: [0.5, 1.0],
                ..
            }
        ));
        assert_eq!(recipe.normalization().mean, [0.5; 3]);
    }

    #[test]
    fn images_of_other_sizes_are_resized_first() {
        let record = of_preset("cifar10", &[]);
        for stored in [StoredSizes::Others, StoredSizes::Unknown] {
            let recipe = read(&record, stored);
            assert_eq!(recipe.sample_size(), None);
            assert_eq!(recipe.steps()[..2], [MIDDLE_SQUARE, Step::Policy]);
            let text = command(&record, stored);
            assert!(text.contains("--recipe recipe.toml"), "{text}");
            assert!(text.contains("middle square"), "{text}");
        }
        let small = of_preset("cifar10", &["image_size=16", "crop_padding=0"]);
        let fits = read(&small, StoredSizes::AsSearched);
        assert_eq!(fits.sample_size(), Some(16));
        assert_eq!(fits.steps()[0], Step::Policy);
        let others = read(&small, StoredSizes::Others);
        assert_eq!(others.sample_size(), None);
        assert!(matches!(
            others.steps().last(),
            Some(Step::Cutout { size: 16, .. })
        ));
    }

    /// The recipe's first step gives the pixels that the search looked at.
    #[test]
    fn the_middle_square_is_the_searchs() {
        let values = Step::Normalize(Normalization {
            mean: [0.0; 3],
            std: [1.0; 3],
        });
        let output = OutputFormat {
            dtype: Dtype::U8,
            layout: Layout::Nhwc,
        };
        let recipe = Recipe::new("r", 16, vec![MIDDLE_SQUARE, values]).unwrap();
        let pipeline = Pipeline::new(recipe, None, 1, 0, output).unwrap();
        let mut scratch = PipelineScratch::default();
        let mut loader = ImageLoader::new(16, 1.0);
        for (width, height) in [(50, 35), (35, 50), (40, 40), (16, 16), (9, 11), (121, 16)] {
            let pixels: Vec<u8> = (0..width * height * 3)
                .map(|at| (at * 37 % 251) as u8)
                .collect();
            let sample = Sample {
                label: 0,
                encoding: Encoding::Raw,
                width,
                height,
                payload: &pixels,
                index: &[],
            };
            let mut trained = vec![0; 16 * 16 * 3];
            pipeline
                .process(&mut scratch, &sample, 0, 0, &mut trained)
                .unwrap();
            let searched = loader.load(&sample).unwrap();
            assert_eq!(trained, searched.pixels(), "{width}x{height}");
        }
    }

    #[test]
    fn stored_sizes_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let stored = |name: &str, last: u32| {
            let path = folder.path().join(name);
            let mut writer = DatasetWriter::create(&path, false).unwrap();
            for side in [32, 32, last] {
                let pixels = vec![7; (side * side * 3) as usize];
                writer
                    .append(0, Encoding::Raw, side, side, &pixels)
                    .unwrap();
            }
            let classes = vec!["a".to_owned()];
            writer.finish(classes, Packed::default()).unwrap();
            Dataset::open(&path).unwrap()
        };
        let config = Config::preset("cifar10").unwrap();
        let same = stored("same.lmdb", 32);
        assert_eq!(StoredSizes::of(&same, &config), StoredSizes::AsSearched);
        let other = stored("other.lmdb", 31);
        assert_eq!(StoredSizes::of(&other, &config), StoredSizes::Others);
    }
}
