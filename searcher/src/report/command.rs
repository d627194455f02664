//! How to train with what a search found.

use ddas_runtime::{Border, Normalization, PassOrder, Recipe, ResizeFilter, Step};

use super::html::{escape, shell_word};
use crate::config::{Config, Crop};
use crate::run_folder::RunRecord;

/// The recipe that trains on what the search looked at: its name, or a file to write.
fn recipe(record: &RunRecord) -> (String, Option<String>) {
    let settings = &record.settings;
    let cifar = Config {
        turn_validation: settings.turn_validation,
        ..match Config::preset("cifar10") {
            Ok(preset) => preset,
            Err(_) => settings.clone(),
        }
    };
    let images = |config: &Config| {
        let sizes = (config.image_size, config.crop_padding, config.cutout);
        (config.crop, sizes, config.flip, config.mean, config.std)
    };
    if images(settings) == images(&cifar) {
        return ("cifar".to_owned(), None);
    }
    if settings.crop == Crop::Resized && settings.image_size == 224 {
        return ("imagenet-authors".to_owned(), None);
    }
    let mut steps = Vec::new();
    let flip = Step::RandomFlip { probability: 0.5 };
    match settings.crop {
        Crop::Resized => {
            steps.push(Step::RandomResizedCrop {
                scale: settings.crop_scale,
                ratio: [3.0 / 4.0, 4.0 / 3.0],
                filter: ResizeFilter::Bicubic,
                order: PassOrder::Pillow13,
            });
            steps.extend(settings.flip.then_some(flip));
            steps.push(Step::Policy);
        }
        Crop::Padded => {
            steps.push(Step::Policy);
            steps.push(Step::RandomCrop {
                padding: settings.crop_padding,
                border: Border::BLACK,
            });
            steps.extend(settings.flip.then_some(flip));
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
    let file = "recipe.toml".to_owned();
    match Recipe::new("searched", settings.image_size, steps) {
        Ok(recipe) => (file, Some(recipe.to_toml())),
        Err(error) => (file, Some(format!("# {error}"))),
    }
}

/// The commands, and the recipe's file where none has a name.
pub(super) fn command(record: &RunRecord) -> String {
    let (recipe, text) = recipe(record);
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
    let file = text.map_or(String::new(), |text| {
        format!(
            "<p><code>{recipe}</code>, the crops of this search:</p><pre>{}</pre>",
            escape(&text)
        )
    });
    let python = "from ddas.torch import DataLoader\n\nfor images, targets in DataLoader(\"train\"):\n    ...";
    format!(
        "{file}<pre>{}</pre><p>and in the training program:</p><pre>{}</pre>",
        escape(&serve),
        escape(python)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_training_command_has_the_crops_of_the_search() {
        let mut record = record();
        assert_eq!(recipe(&record).0, "cifar");
        record.settings = Config::preset("imagenet").unwrap();
        assert_eq!(recipe(&record), ("imagenet-authors".to_owned(), None));
        assert!(command(&record).contains("--epochs 270 --batch-size 512"));
        record.settings.image_size = 96;
        let (name, text) = recipe(&record);
        let read = Recipe::from_toml(&text.unwrap(), &name).unwrap();
        assert_eq!(read.size(), 96);
        assert!(matches!(read.steps()[0], Step::RandomResizedCrop { .. }));
        record.settings = Config::preset("cifar10").unwrap();
        record.settings.set("image_size=16").unwrap();
        let read = Recipe::from_toml(&recipe(&record).1.unwrap(), "r").unwrap();
        assert!(matches!(read.steps()[0], Step::Policy));
        assert!(matches!(
            read.steps().last(),
            Some(Step::Cutout { size: 16, .. })
        ));
        assert!(command(&record).contains("--recipe recipe.toml"));
    }

    fn record() -> RunRecord {
        RunRecord {
            format: RunRecord::FORMAT.to_owned(),
            version: RunRecord::VERSION,
            program: String::new(),
            dataset: "/data/d.lmdb".into(),
            content_hash: String::new(),
            preset: "sanity".to_owned(),
            output: "/p.json".into(),
            device: "cpu".to_owned(),
            threads: 1,
            network_hash: None,
            search_space_hash: None,
            settings: Config::preset("sanity").unwrap(),
        }
    }
}
