//! Recipes from text: TOML, every field checked by name, errors with the line.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fields::{Fields, Problem, closest};
use super::step::{Border, ColorJitter, Erase, Lighting, RandomErasing, ResizeTo, Step};
use super::{Recipe, check};
use crate::error::{Error, Result};
use crate::mix::{CutMix, Mix, MixPer, MixUp};
use crate::output::Normalization;
use crate::resize::{PassOrder, ResizeFilter};

/// Longest text of a recipe; the largest built-in one has 600 bytes.
const MAX_BYTES: usize = 64 * 1024;
/// Longest name and description, bytes.
const MAX_NAME: usize = 100;
const MAX_DESCRIPTION: usize = 1000;

/// See [`Recipe::from_toml`].
pub(super) fn read(text: &str, name: &str) -> Result<Recipe> {
    let refuse = |line, reason| Error::RecipeText {
        recipe: name.to_owned(),
        line,
        reason,
    };
    if text.len() > MAX_BYTES {
        let reason = format!("{} bytes of text: expected at most {MAX_BYTES}", text.len());
        return Err(refuse(1, reason));
    }
    parse(text, name).map_err(|problem| refuse(line_of(text, problem.offset), problem.reason))
}

/// The line, from 1, of a byte of `text`.
fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

fn parse(text: &str, name: &str) -> std::result::Result<Recipe, Problem> {
    let document = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        Problem::new(offset, format!("not TOML: {}", error.message()))
    })?;
    let known = ["name", "description", "size", "steps", "mix"];
    let top = Fields::new("", document.get_ref(), 0, &known)?;
    let name = match top.text("name", MAX_NAME)? {
        Some(name) => name.to_owned(),
        None => name.to_owned(),
    };
    let description = top.text("description", MAX_DESCRIPTION)?.map(str::to_owned);
    let size = top.required("size", top.count("size")?)?;
    let tables = top.tables("steps")?;
    let mut steps = Vec::with_capacity(tables.len());
    for (position, table) in tables.iter().enumerate() {
        steps.push(step(&format!("steps[{position}]"), table)?);
    }
    let normalization = check::check(size, &steps).map_err(|flaw| {
        let Some(position) = flaw.step else {
            return top.problem(flaw.field, &flaw.reason);
        };
        let Some(table) = tables.get(position) else {
            return top.problem("steps", &flaw.reason);
        };
        let path = format!("steps[{position}]");
        let place = table
            .get_ref()
            .as_table()
            .and_then(|table| table.get(flaw.field));
        let offset = place.map_or(table.span().start, |value| value.span().start);
        Problem::at(&path, flaw.field, offset, flaw.reason)
    })?;
    Ok(Recipe {
        name,
        description,
        size,
        steps,
        normalization,
        mix: mix(&top)?,
    })
}

/// One table of `[[steps]]`.
fn step(path: &str, value: &Spanned<DeValue<'_>>) -> std::result::Result<Step, Problem> {
    let offset = value.span().start;
    let Some(table) = value.get_ref().as_table() else {
        return Err(Problem::new(
            offset,
            format!("{path}: expected a table with a `kind`"),
        ));
    };
    let kind = match table.get("kind") {
        Some(kind) => kind,
        None => {
            let reason = format!("missing; expected one of {}", Step::KINDS.join(", "));
            return Err(Problem::at(path, "kind", offset, reason));
        }
    };
    let name = kind.get_ref().as_str().unwrap_or_default();
    let fields = |known: &[&'static str]| Fields::new(path, table, offset, known);
    const RESIZE: [&str; 3] = ["interpolation", "antialias", "pass_order"];
    match name {
        "random-resized-crop" => {
            let fields = fields(&["kind", "scale", "ratio", RESIZE[0], RESIZE[1], RESIZE[2]])?;
            let (filter, order) = resize(&fields)?;
            Ok(Step::RandomResizedCrop {
                scale: fields.numbers("scale")?.unwrap_or([0.08, 1.0]),
                ratio: fields.numbers("ratio")?.unwrap_or([3.0 / 4.0, 4.0 / 3.0]),
                filter,
                order,
            })
        }
        "resize" => {
            let fields = fields(&["kind", "shorter", "exact", RESIZE[0], RESIZE[1], RESIZE[2]])?;
            let (filter, order) = resize(&fields)?;
            let to = match (fields.count("shorter")?, fields.counts("exact")?) {
                (Some(pixels), None) => ResizeTo::Shorter(pixels),
                (None, Some([height, width])) => ResizeTo::Exact { height, width },
                (Some(_), Some(_)) => {
                    return Err(fields.problem("exact", "contradicts `shorter`: give one of them"));
                }
                (None, None) => {
                    return Err(fields.problem(
                        "",
                        "expected `shorter` (pixels) or `exact` ([height, width])",
                    ));
                }
            };
            Ok(Step::Resize { to, filter, order })
        }
        "center-crop" => fields(&["kind"]).map(|_| Step::CenterCrop),
        "policy" => fields(&["kind"]).map(|_| Step::Policy),
        "random-crop" => {
            let fields = fields(&["kind", "padding", "padding_mode", "fill"])?;
            let modes = [
                Border::BLACK,
                Border::Edge,
                Border::Reflect,
                Border::Symmetric,
            ];
            let names = modes.map(Border::name);
            let mode = fields.choice("padding_mode", &names)?;
            let border = match (modes[mode.unwrap_or(0)], fields.colour("fill")?) {
                (Border::Constant(_), Some(colour)) => Border::Constant(colour),
                (border, None) => border,
                (border, Some(_)) => {
                    let reason = format!(
                        "contradicts padding_mode = \"{}\", whose border has no colour of its own",
                        border.name()
                    );
                    return Err(fields.problem("fill", &reason));
                }
            };
            let padding = match fields.count("padding")? {
                Some(padding) => padding,
                None if mode.is_some() || fields.colour("fill")?.is_some() => {
                    let reason = "missing: padding_mode and fill say what a border is like, \
                                  and without `padding` there is none";
                    return Err(fields.problem("padding", reason));
                }
                None => 0,
            };
            Ok(Step::RandomCrop { padding, border })
        }
        "horizontal-flip" => Ok(Step::RandomFlip {
            probability: fields(&["kind", "probability"])?.chance(0.5)?,
        }),
        "vertical-flip" => Ok(Step::RandomVerticalFlip {
            probability: fields(&["kind", "probability"])?.chance(0.5)?,
        }),
        "grayscale" => Ok(Step::RandomGrayscale {
            probability: fields(&["kind", "probability"])?.chance(0.1)?,
        }),
        "color-jitter" => {
            let parts = ["brightness", "contrast", "saturation", "hue"];
            let known = [
                "kind",
                "probability",
                parts[0],
                parts[1],
                parts[2],
                parts[3],
            ];
            let fields = fields(&known)?;
            let factor = |name| Ok(around(&fields, name, 1.0)?.unwrap_or([1.0; 2]));
            Ok(Step::ColorJitter(ColorJitter {
                probability: fields.chance(1.0)?,
                brightness: factor(parts[0])?,
                contrast: factor(parts[1])?,
                saturation: factor(parts[2])?,
                hue: around(&fields, parts[3], 0.0)?.unwrap_or([0.0; 2]),
            }))
        }
        "gaussian-blur" => {
            let fields = fields(&["kind", "probability", "sigma"])?;
            Ok(Step::GaussianBlur {
                probability: fields.chance(0.5)?,
                sigma: fields.numbers("sigma")?.unwrap_or([0.1, 2.0]),
            })
        }
        "lighting" => {
            let fields = fields(&["kind", "std", "eigenvalues", "eigenvectors"])?;
            let usual = Lighting::imagenet(0.1);
            Ok(Step::Lighting(Lighting {
                std: fields.number("std")?.unwrap_or(usual.std),
                eigenvalues: fields.numbers("eigenvalues")?.unwrap_or(usual.eigenvalues),
                eigenvectors: fields.matrix("eigenvectors")?.unwrap_or(usual.eigenvectors),
            }))
        }
        "normalize" => {
            let fields = fields(&["kind", "mean", "std"])?;
            let single = |name| {
                let values = fields.required(name, fields.numbers::<3>(name)?)?;
                Ok(values.map(|value| value as f32))
            };
            Ok(Step::Normalize(Normalization {
                mean: single("mean")?,
                std: single("std")?,
            }))
        }
        "cutout" => {
            let fields = fields(&["kind", "size", "count"])?;
            Ok(Step::Cutout {
                size: fields.required("size", fields.count("size")?)?,
                count: fields.count("count")?.unwrap_or(1),
            })
        }
        "random-erasing" => {
            let fields = fields(&["kind", "probability", "scale", "ratio", "count", "value"])?;
            let usual = RandomErasing::default();
            Ok(Step::RandomErasing(RandomErasing {
                probability: fields.chance(usual.probability)?,
                scale: fields.numbers("scale")?.unwrap_or(usual.scale),
                ratio: fields.numbers("ratio")?.unwrap_or(usual.ratio),
                count: fields.count("count")?.unwrap_or(usual.count),
                value: erase(&fields)?.unwrap_or(usual.value),
            }))
        }
        _ => {
            let reason = match kind.get_ref().as_str() {
                Some(name) => format!(
                    "unknown kind `{name}`{}; expected one of {}",
                    closest(name, Step::KINDS.iter().copied()),
                    Step::KINDS.join(", ")
                ),
                None => format!("expected one of the texts {}", Step::KINDS.join(", ")),
            };
            Err(Problem::at(path, "kind", kind.span().start, reason))
        }
    }
}

/// The table `[mix]`.
fn mix(top: &Fields<'_>) -> std::result::Result<Option<Mix>, Problem> {
    let known = [
        "mixup",
        "cutmix",
        "probability",
        "switch_probability",
        "per",
    ];
    let Some(fields) = top.table("mix", "mix", &known)? else {
        return Ok(None);
    };
    let alpha = |name, path| match fields.table(name, path, &["alpha"])? {
        Some(part) => Ok(Some(part.required("alpha", part.number("alpha")?)?)),
        None => Ok(None),
    };
    let usual = Mix::default();
    let kinds = [MixPer::Batch, MixPer::Pair];
    let per = fields.choice("per", &kinds.map(MixPer::name))?;
    let switch = fields.number("switch_probability")?;
    let mix = Mix {
        mixup: alpha("mixup", "mix.mixup")?.map(|alpha| MixUp { alpha }),
        cutmix: alpha("cutmix", "mix.cutmix")?.map(|alpha| CutMix { alpha }),
        probability: fields.chance(usual.probability)?,
        switch_probability: switch.unwrap_or(usual.switch_probability),
        per: per.map_or(usual.per, |choice| kinds[choice]),
    };
    if switch.is_some() && (mix.mixup.is_none() || mix.cutmix.is_none()) {
        let reason =
            "contradicts the rest: there is nothing to switch to, give both mixup and cutmix";
        return Err(fields.problem("switch_probability", reason));
    }
    match mix.check() {
        Ok(()) => Ok(Some(mix)),
        Err(Error::Mix { field, reason }) => {
            let part = field.split('.').next().unwrap_or_default();
            let problem = fields.problem(part, "");
            Err(Problem::at("mix", field, problem.offset, reason))
        }
        Err(other) => Err(fields.problem("", &other.to_string())),
    }
}

/// `interpolation`, `antialias` and `pass_order`.
fn resize(fields: &Fields<'_>) -> std::result::Result<(ResizeFilter, PassOrder), Problem> {
    let cubic = fields.choice("interpolation", &["bilinear", "bicubic"])? == Some(1);
    let antialias = fields.flag("antialias")?.unwrap_or(true);
    let filter = match (cubic, antialias) {
        (false, true) => ResizeFilter::Bilinear,
        (true, true) => ResizeFilter::Bicubic,
        (false, false) => ResizeFilter::PlainBilinear,
        (true, false) => ResizeFilter::PlainBicubic,
    };
    let order = fields.choice("pass_order", &PassOrder::ALL.map(PassOrder::name))?;
    match (antialias, order) {
        (true, order) => Ok((filter, PassOrder::ALL[order.unwrap_or(0)])),
        (false, None) => Ok((filter, PassOrder::HorizontalFirst)),
        (false, Some(_)) => Err(fields.problem(
            "pass_order",
            "contradicts antialias = false, which has no pass order to choose",
        )),
    }
}

/// A range, or a number for the range of that much to each side of `center`;
/// factors (about 1) not below 0.
fn around(
    fields: &Fields<'_>,
    name: &'static str,
    center: f64,
) -> std::result::Result<Option<[f64; 2]>, Problem> {
    if !fields.is_number(name) {
        return fields.numbers(name);
    }
    let Some(reach) = fields.number(name)? else {
        return Ok(None);
    };
    if !(reach >= 0.0 && reach.is_finite()) {
        let reason = format!("{reach:?}: expected 0 or more, or a range [low, high]");
        return Err(fields.problem(name, &reason));
    }
    let low = center - reach;
    let low = if center == 1.0 { low.max(0.0) } else { low };
    Ok(Some([low, center + reach]))
}

/// `value` of a random erasing.
fn erase(fields: &Fields<'_>) -> std::result::Result<Option<Erase>, Problem> {
    const NAMES: [&str; 3] = ["zero", "color", "noise"];
    if fields.is_number("value") {
        let value = fields.number("value")?;
        return Ok(value.map(|value| Erase::Constant([value as f32; 3])));
    }
    if fields.is_array("value") {
        let values = fields.numbers::<3>("value")?;
        return Ok(values.map(|values| Erase::Constant(values.map(|value| value as f32))));
    }
    let values = [Erase::Constant([0.0; 3]), Erase::Color, Erase::Noise];
    Ok(fields.choice("value", &NAMES)?.map(|choice| values[choice]))
}
