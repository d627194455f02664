//! `preview`: a contact sheet.

use std::path::PathBuf;

use clap::{Args, value_parser};
use ddas_formats::{Dataset, Policy};
use ddas_loader::{PreviewOptions, Sheet};

use crate::options::recipe_name;
use crate::report::{self, Usage};

/// Draws a contact sheet: stored images beside what the trainer would get in chosen epochs, with the operations drawn.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The packed dataset.
    dataset: PathBuf,
    /// The PNG file to write.
    #[arg(short, long, value_name = "SHEET.png")]
    out: PathBuf,
    /// Policy file; without it only the recipe's own augmentation is shown.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// What is done to every sample: a recipe that `recipe show --list` names, or a recipe file.
    #[arg(long, value_name = "NAME|FILE.toml", default_value = "cifar", value_parser = recipe_name)]
    recipe: String,
    /// Epochs of the training run over which the policy is spread.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = value_parser!(u32).range(1..))]
    epochs: u32,
    /// Epoch to show, from 0; may be given several times [default: five, evenly spread from first to last].
    #[arg(long, value_name = "E")]
    epoch: Vec<u32>,
    /// Number of samples.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = value_parser!(u32).range(1..=64))]
    samples: u32,
    /// Seed of the choice of samples and of the augmentation; the augmentation is that of `serve` with this seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Arguments {
    fn shown(&self) -> anyhow::Result<Vec<u32>> {
        if let Some(late) = self.epoch.iter().find(|&&epoch| epoch >= self.epochs) {
            let (epochs, last) = (self.epochs, self.epochs - 1);
            return Err(Usage(format!(
                "--epoch {late} is beyond the run: --epochs {epochs} are 0 to {last}"
            ))
            .into());
        }
        if self.epoch.len() > MOST_COLUMNS {
            return Err(Usage(format!(
                "--epoch was given {} times, at most {MOST_COLUMNS} fit",
                self.epoch.len()
            ))
            .into());
        }
        if !self.epoch.is_empty() {
            return Ok(self.epoch.clone());
        }
        let mut shown: Vec<u32> = (0..5u64)
            .map(|i| (i * u64::from(self.epochs - 1) / 4) as u32)
            .collect();
        shown.dedup();
        Ok(shown)
    }
}

const MOST_COLUMNS: usize = 16;

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let shown = arguments.shown()?;
    if let Some(policy) = &arguments.policy {
        report::check_output(&arguments.out, policy)?;
    }
    let policy = arguments.policy.as_deref().map(Policy::read).transpose()?;
    let dataset = Dataset::open(&arguments.dataset)?;
    let options = PreviewOptions {
        recipe: arguments.recipe,
        policy,
        epochs: arguments.epochs,
        shown,
        rows: arguments.samples,
        seed: arguments.seed,
    };
    let sheet = Sheet::draw(&dataset, &options)?;
    sheet.write_png(&arguments.out)?;
    let (width, height) = sheet.size();
    report::print_line(&format!(
        "{}: {width} x {height} pixels",
        arguments.out.display()
    ))
}
