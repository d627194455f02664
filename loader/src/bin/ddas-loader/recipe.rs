//! `recipe`: looking into recipes and their files.

use std::ops::Range;

use clap::{Args, Subcommand, value_parser};
use ddas_loader::read_recipe;
use ddas_runtime::{Action, Recipe};
use serde_json::{Value, json};

use crate::options::recipe_name;
use crate::report::{self, Usage};

/// Shows and checks recipes: what is done to a sample between decoding and delivery.
#[derive(Subcommand)]
pub(crate) enum Arguments {
    /// Prints a recipe as canonical TOML, every field written out: a file to begin one's own with.
    Show(Show),
    /// Checks recipe files; a bad one is named with line and field, and the exit status is 1.
    Check(Check),
    /// Prints what the steps draw for samples, one JSON object a line: crops, flips, factors, rectangles.
    Draw(Draw),
}

#[derive(Args)]
pub(crate) struct Show {
    /// Name of a recipe, or a file that ends in .toml.
    #[arg(value_name = "NAME|FILE.toml", required_unless_present = "list", value_parser = recipe_name)]
    recipe: Option<String>,
    /// Lists the recipes known by name instead.
    #[arg(long, conflicts_with = "recipe")]
    list: bool,
}

#[derive(Args)]
pub(crate) struct Check {
    /// The recipe files.
    #[arg(required = true, value_name = "FILE.toml", value_parser = recipe_name)]
    files: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Draw {
    /// Name of a recipe, or a file that ends in .toml.
    #[arg(value_name = "NAME|FILE.toml", value_parser = recipe_name)]
    recipe: String,
    /// Size of the images [default: the size the recipe delivers].
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    image: Option<(u32, u32)>,
    /// Seed of the random choices, as that of `serve`.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Epoch, from 0.
    #[arg(long, default_value_t = 0)]
    epoch: u32,
    /// First sample.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    first: u64,
    /// Number of samples.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = value_parser!(u64).range(1..=10_000_000))]
    samples: u64,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments {
        Arguments::Show(show) => show.run(),
        Arguments::Check(check) => check.run(),
        Arguments::Draw(draw) => draw.run(),
    }
}

/// `WIDTHxHEIGHT`, for flags.
fn size(text: &str) -> Result<(u32, u32), String> {
    let side = |side: &str| {
        let side = side.parse().ok()?;
        (1..=ddas_formats::MAX_SIDE).contains(&side).then_some(side)
    };
    text.split_once('x')
        .and_then(|(width, height)| Some((side(width)?, side(height)?)))
        .ok_or_else(|| {
            let most = ddas_formats::MAX_SIDE;
            format!("expected WIDTHxHEIGHT, each 1 to {most} pixels, such as 500x375")
        })
}

impl Show {
    fn run(self) -> anyhow::Result<()> {
        let Some(spec) = self.recipe else {
            let mut text = String::new();
            for name in Recipe::NAMES {
                let recipe = Recipe::named(name)?;
                let description = recipe.description().unwrap_or_default();
                text.push_str(&format!("{name:<18}{description}\n"));
            }
            return report::print(&text);
        };
        report::print(&read_recipe(&spec)?.to_toml())
    }
}

impl Check {
    fn run(self) -> anyhow::Result<()> {
        for file in &self.files {
            let recipe = read_recipe(file)?;
            report::print_line(&format!(
                "{file}: sound: {}, {}x{1} pixels, {}{}, digest {:016x}",
                recipe.name(),
                recipe.size(),
                report::counted(recipe.steps().len() as u64, "step", "steps"),
                if recipe.mix().is_some() {
                    " and mixing"
                } else {
                    ""
                },
                recipe.digest()
            ))?;
        }
        Ok(())
    }
}

impl Draw {
    fn run(self) -> anyhow::Result<()> {
        let recipe = read_recipe(&self.recipe)?;
        let side = recipe.size();
        let image = self.image.unwrap_or((side, side));
        if let Some(expected) = recipe.sample_size()
            && image != (expected, expected)
        {
            let name = recipe.name();
            return Err(Usage(format!(
                "--image: recipe `{name}` takes images of {expected}x{expected} pixels"
            ))
            .into());
        }
        const BLOCK: u64 = 1000;
        let end = self.first.saturating_add(self.samples);
        let mut first = self.first;
        while first < end {
            let next = end.min(first + BLOCK);
            report::print(&self.lines(&recipe, image, first..next))?;
            first = next;
        }
        Ok(())
    }

    fn lines(&self, recipe: &Recipe, image: (u32, u32), samples: Range<u64>) -> String {
        let mut actions = Vec::new();
        let mut text = String::new();
        for index in samples {
            recipe.draw(self.seed, self.epoch, index, image, &mut actions);
            let actions: Vec<Value> = actions.iter().map(describe).collect();
            text.push_str(&json!({ "index": index, "actions": actions }).to_string());
            text.push('\n');
        }
        text
    }
}

/// An action as JSON: its name and its numbers.
fn describe(action: &Action) -> Value {
    match *action {
        Action::ResizeCrop { crop, .. } => {
            json!(["resized-crop", crop.x, crop.y, crop.width, crop.height])
        }
        Action::Resize { width, height, .. } => json!(["resize", width, height]),
        Action::Crop { x, y, .. } => json!(["crop", x, y]),
        Action::Policy => json!(["policy"]),
        Action::FlipLeftRight => json!(["horizontal-flip"]),
        Action::FlipTopBottom => json!(["vertical-flip"]),
        Action::Brightness(factor) => json!(["brightness", factor]),
        Action::Contrast(factor) => json!(["contrast", factor]),
        Action::Saturation(factor) => json!(["saturation", factor]),
        Action::Hue(turns) => json!(["hue", turns]),
        Action::Grayscale => json!(["grayscale"]),
        Action::Blur(radius) => json!(["gaussian-blur", radius]),
        Action::Light([red, green, blue]) => json!(["lighting", red, green, blue]),
        Action::Cut { columns, rows } => {
            json!(["cutout", columns[0], rows[0], columns[1], rows[1]])
        }
        Action::Erase { columns, rows, .. } => {
            json!(["erase", columns[0], rows[0], columns[1], rows[1]])
        }
        _ => json!([format!("{action:?}")]),
    }
}
