//! Recipes to text: the canonical TOML, with every field written out.

use std::fmt::Write;

use super::Recipe;
use super::step::{Border, Erase, ResizeTo, Step};
use crate::resize::{PassOrder, ResizeFilter};

/// The canonical text; `identity` is left out for a digest of what the recipe
/// does alone.
pub(super) fn write(recipe: &Recipe, identity: bool) -> String {
    let mut text = Text::default();
    if identity {
        text.field("name", quoted(&recipe.name));
        if let Some(description) = &recipe.description {
            text.field("description", quoted(description));
        }
    }
    text.field("size", recipe.size);
    for step in &recipe.steps {
        text.0.push_str("\n[[steps]]\n");
        text.field("kind", quoted(step.kind()));
        step_fields(&mut text, step);
    }
    if let Some(mix) = &recipe.mix {
        text.0.push_str("\n[mix]\n");
        let alpha = |alpha: f64| format!("{{ alpha = {alpha:?} }}");
        if let Some(mixup) = mix.mixup {
            text.field("mixup", alpha(mixup.alpha));
        }
        if let Some(cutmix) = mix.cutmix {
            text.field("cutmix", alpha(cutmix.alpha));
        }
        text.number("probability", mix.probability);
        if mix.mixup.is_some() && mix.cutmix.is_some() {
            text.number("switch_probability", mix.switch_probability);
        }
        text.field("per", quoted(mix.per.name()));
    }
    text.0
}

fn step_fields(text: &mut Text, step: &Step) {
    match *step {
        Step::RandomResizedCrop {
            scale,
            ratio,
            filter,
            order,
        } => {
            text.field("scale", list(&scale));
            text.field("ratio", list(&ratio));
            text.resize(filter, order);
        }
        Step::Resize { to, filter, order } => {
            match to {
                ResizeTo::Shorter(pixels) => text.field("shorter", pixels),
                ResizeTo::Exact { height, width } => text.field("exact", list(&[height, width])),
            }
            text.resize(filter, order);
        }
        Step::CenterCrop | Step::Policy => {}
        Step::RandomCrop { padding, border } => {
            text.field("padding", padding);
            text.field("padding_mode", quoted(border.name()));
            if let Border::Constant(colour) = border {
                text.field("fill", list(&colour));
            }
        }
        Step::RandomFlip { probability }
        | Step::RandomVerticalFlip { probability }
        | Step::RandomGrayscale { probability } => text.number("probability", probability),
        Step::ColorJitter(jitter) => {
            text.number("probability", jitter.probability);
            text.field("brightness", list(&jitter.brightness));
            text.field("contrast", list(&jitter.contrast));
            text.field("saturation", list(&jitter.saturation));
            text.field("hue", list(&jitter.hue));
        }
        Step::GaussianBlur { probability, sigma } => {
            text.number("probability", probability);
            text.field("sigma", list(&sigma));
        }
        Step::Lighting(lighting) => {
            text.number("std", lighting.std);
            text.field("eigenvalues", list(&lighting.eigenvalues));
            let rows = lighting.eigenvectors.map(|row| list(&row));
            text.field("eigenvectors", format!("[{}]", rows.join(", ")));
        }
        Step::Normalize(normalization) => {
            text.field("mean", list(&normalization.mean));
            text.field("std", list(&normalization.std));
        }
        Step::Cutout { size, count } => {
            text.field("size", size);
            text.field("count", count);
        }
        Step::RandomErasing(erasing) => {
            text.number("probability", erasing.probability);
            text.field("scale", list(&erasing.scale));
            text.field("ratio", list(&erasing.ratio));
            text.field("count", erasing.count);
            let value = match erasing.value {
                Erase::Constant(values) => list(&values),
                Erase::Color => quoted("color"),
                Erase::Noise => quoted("noise"),
            };
            text.field("value", value);
        }
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{name} = {value}");
    }

    /// With a decimal point, as `Debug` prints it: the shortest text that
    /// reads back as the same number.
    fn number(&mut self, name: &str, value: f64) {
        self.field(name, format_args!("{value:?}"));
    }

    fn resize(&mut self, filter: ResizeFilter, order: PassOrder) {
        self.field("interpolation", quoted(filter.name()));
        self.field("antialias", filter.antialiases());
        if filter.antialiases() {
            self.field("pass_order", quoted(order.name()));
        }
    }
}

fn list<T: std::fmt::Debug>(values: &[T]) -> String {
    format!("{values:?}")
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            _ if character.is_control() => {
                let _ = write!(out, "\\U{:08X}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

impl PassOrder {
    /// Every order.
    pub(super) const ALL: [PassOrder; 2] = [PassOrder::Pillow13, PassOrder::HorizontalFirst];

    pub(super) const fn name(self) -> &'static str {
        match self {
            PassOrder::HorizontalFirst => "horizontal-first",
            PassOrder::Pillow13 => "pillow13",
        }
    }
}

impl ResizeFilter {
    pub(super) const fn name(self) -> &'static str {
        match self {
            ResizeFilter::Bilinear | ResizeFilter::PlainBilinear => "bilinear",
            ResizeFilter::Bicubic | ResizeFilter::PlainBicubic => "bicubic",
        }
    }
}

impl Border {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Border::Constant(_) => "constant",
            Border::Edge => "edge",
            Border::Reflect => "reflect",
            Border::Symmetric => "symmetric",
        }
    }
}
