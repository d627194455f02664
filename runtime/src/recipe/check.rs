//! Which steps can stand in a recipe, and with which arguments.

use ddas_formats::MAX_SIDE;

use super::step::{Border, ColorJitter, Erase, Lighting, RandomErasing, ResizeTo, Step};
use crate::output::Normalization;
use crate::resize::{PassOrder, ResizeFilter};

/// Most squares of a cutout and rectangles of a random erasing.
const MOST_HOLES: u32 = 64;

/// What is wrong with a recipe.
#[derive(Debug)]
pub(super) struct Flaw {
    /// The step concerned, from 0; the recipe as a whole when there is none.
    pub(super) step: Option<usize>,
    /// Its field, as in a recipe file; empty when it is about the whole step.
    pub(super) field: &'static str,
    /// What is wrong, and what was expected.
    pub(super) reason: String,
}

/// Checks the whole of a recipe and returns the values of its `normalize`.
pub(super) fn check(size: u32, steps: &[Step]) -> Result<Normalization, Flaw> {
    let flaw = |step: usize, field, reason: String| Flaw {
        step: Some(step),
        field,
        reason,
    };
    if size == 0 || size > MAX_SIDE {
        return Err(Flaw {
            step: None,
            field: "size",
            reason: format!("{size}: expected 1 to {MAX_SIDE} pixels"),
        });
    }
    let mut normalization = None;
    for (position, step) in steps.iter().enumerate() {
        arguments(step, size).map_err(|(field, reason)| flaw(position, field, reason))?;
        place(&steps[..position], step).map_err(|reason| flaw(position, "", reason))?;
        if let Step::Normalize(values) = step {
            normalization = Some(*values);
        }
    }
    reaches_size(size, steps).map_err(|(position, field, reason)| flaw(position, field, reason))?;
    normalization.ok_or_else(|| flaw(steps.len(), "", "there is no normalize step".to_owned()))
}

/// Refuses a step that cannot follow `earlier` ones.
fn place(earlier: &[Step], step: &Step) -> Result<(), String> {
    let kind = step.kind();
    let after = |kind: &str| earlier.iter().any(|step| step.kind() == kind);
    // What was flipped can be flipped again: two flips around a policy differ from one.
    if after(kind) && kind != "horizontal-flip" {
        return Err(format!("a second {kind}; one is the most there can be"));
    }
    match step {
        Step::RandomResizedCrop { .. } | Step::Resize { .. } if !earlier.is_empty() => {
            Err(format!("{kind} must be the first step"))
        }
        Step::CenterCrop if after("random-resized-crop") => Err(
            "center-crop after random-resized-crop, which gives the recipe's size already".into(),
        ),
        Step::CenterCrop | Step::RandomCrop { .. }
            if after("center-crop") || after("random-crop") =>
        {
            Err("a recipe crops once: center-crop or random-crop".into())
        }
        Step::Cutout { .. } | Step::RandomErasing(_) if !after("normalize") => Err(format!(
            "{kind} must come after normalize (for a cutout on pixels put Cutout into the policy)"
        )),
        Step::Cutout { .. } | Step::RandomErasing(_) => Ok(()),
        _ if after("normalize") => Err(format!(
            "{kind} after normalize: only cutout and random-erasing can follow it"
        )),
        Step::Normalize(_) => Ok(()),
        _ if after("lighting") => Err(format!(
            "{kind} after lighting, whose result is no longer 8-bit pixels: \
             only normalize, cutout and random-erasing can follow it"
        )),
        _ => Ok(()),
    }
}

/// Refuses steps that would not end at the recipe's size.
fn reaches_size(size: u32, steps: &[Step]) -> Result<(), (usize, &'static str, String)> {
    let Some(Step::Resize { to, .. }) = steps.first() else {
        return Ok(());
    };
    let (field, shortest, exact) = match *to {
        ResizeTo::Shorter(pixels) => ("shorter", pixels, None),
        ResizeTo::Exact { height, width } => ("exact", height.min(width), Some((height, width))),
    };
    let crop = steps
        .iter()
        .position(|step| matches!(step, Step::CenterCrop | Step::RandomCrop { .. }));
    match crop.map(|position| (position, &steps[position])) {
        None if exact == Some((size, size)) => Ok(()),
        None => Err((
            0,
            field,
            format!(
                "nothing brings the resized image to {size}x{size} pixels: add center-crop or random-crop after it"
            ),
        )),
        Some((position, Step::RandomCrop { padding, .. }))
            if u64::from(shortest) + 2 * u64::from(*padding) < u64::from(size) =>
        {
            Err((
                position,
                "padding",
                format!(
                    "a side of {shortest} pixels with a border of {padding} has no {size} pixels to crop"
                ),
            ))
        }
        Some(_) => Ok(()),
    }
}

/// Refuses arguments no image can be made with; names the field.
fn arguments(step: &Step, size: u32) -> Result<(), (&'static str, String)> {
    match *step {
        Step::RandomResizedCrop {
            scale,
            ratio,
            filter,
            order,
        } => {
            area(scale, false)?;
            positive_range("ratio", ratio)?;
            pass_order(filter, order)
        }
        Step::Resize { to, filter, order } => {
            let side = |field, pixels: u32| {
                if pixels == 0 || pixels > MAX_SIDE {
                    return Err((field, format!("{pixels}: expected 1 to {MAX_SIDE} pixels")));
                }
                Ok(())
            };
            match to {
                ResizeTo::Shorter(pixels) => side("shorter", pixels)?,
                ResizeTo::Exact { height, width } => {
                    side("exact", height)?;
                    side("exact", width)?;
                }
            }
            pass_order(filter, order)
        }
        Step::RandomCrop { padding, border } => {
            let (most, why) = match border {
                Border::Reflect => (size - 1, " (less than the image, to reflect)"),
                _ => (size, ""),
            };
            if padding > most {
                let reason = format!("{padding}: expected at most {most}{why}");
                return Err(("padding", reason));
            }
            Ok(())
        }
        Step::RandomFlip { probability }
        | Step::RandomVerticalFlip { probability }
        | Step::RandomGrayscale { probability } => chance(probability),
        Step::ColorJitter(ColorJitter {
            probability,
            brightness,
            contrast,
            saturation,
            hue,
        }) => {
            chance(probability)?;
            let range = |field, [low, high]: [f64; 2]| {
                if low >= 0.0 && low <= high && high.is_finite() {
                    return Ok(());
                }
                Err((
                    field,
                    format!("[{low:?}, {high:?}]: expected 0 <= low <= high"),
                ))
            };
            range("brightness", brightness)?;
            range("contrast", contrast)?;
            range("saturation", saturation)?;
            let [low, high] = hue;
            if !(low >= -0.5 && low <= high && high <= 0.5) {
                let reason = format!("[{low:?}, {high:?}]: expected -0.5 <= low <= high <= 0.5");
                return Err(("hue", reason));
            }
            Ok(())
        }
        Step::GaussianBlur { probability, sigma } => {
            chance(probability)?;
            let [low, high] = sigma;
            if !(low >= 0.0 && low <= high && high <= f64::from(MAX_SIDE)) {
                let reason =
                    format!("[{low:?}, {high:?}]: expected 0 <= low <= high <= {MAX_SIDE}");
                return Err(("sigma", reason));
            }
            Ok(())
        }
        Step::Lighting(Lighting {
            std,
            eigenvalues,
            eigenvectors,
        }) => {
            if !(std >= 0.0 && std.is_finite()) {
                return Err(("std", format!("{std:?}: expected 0 or more")));
            }
            finite("eigenvalues", &eigenvalues)?;
            finite("eigenvectors", eigenvectors.as_flattened())
        }
        Step::Normalize(Normalization { mean, std }) => {
            finite("mean", &mean)?;
            if !std.iter().all(|std| std.is_finite() && *std > 0.0) {
                return Err(("std", format!("{std:?}: expected positive numbers")));
            }
            Ok(())
        }
        Step::Cutout { count, .. } => holes(count),
        Step::RandomErasing(RandomErasing {
            probability,
            scale,
            ratio,
            count,
            value,
        }) => {
            chance(probability)?;
            area(scale, true)?;
            positive_range("ratio", ratio)?;
            holes(count)?;
            match value {
                Erase::Constant(values) => finite("value", &values),
                Erase::Color | Erase::Noise => Ok(()),
            }
        }
        Step::Policy | Step::CenterCrop => Ok(()),
    }
}

type Checked = Result<(), (&'static str, String)>;

fn chance(probability: f64) -> Checked {
    if (0.0..=1.0).contains(&probability) {
        return Ok(());
    }
    Err(("probability", format!("{probability:?}: expected 0 to 1")))
}

/// A range of shares, which may begin at 0 only where `zero_too`.
fn area([low, high]: [f64; 2], zero_too: bool) -> Checked {
    let enough = low > 0.0 || (zero_too && low == 0.0);
    if enough && low <= high && high <= 1.0 {
        return Ok(());
    }
    let sign = if zero_too { "<=" } else { "<" };
    let reason = format!("[{low:?}, {high:?}]: expected 0 {sign} low <= high <= 1");
    Err(("scale", reason))
}

fn positive_range(field: &'static str, [low, high]: [f64; 2]) -> Checked {
    if low > 0.0 && low <= high && high.is_finite() {
        return Ok(());
    }
    Err((
        field,
        format!("[{low:?}, {high:?}]: expected 0 < low <= high"),
    ))
}

fn finite<T: Copy + Into<f64> + std::fmt::Debug>(field: &'static str, values: &[T]) -> Checked {
    if values.iter().all(|&value| value.into().is_finite()) {
        return Ok(());
    }
    Err((field, format!("{values:?}: expected finite numbers")))
}

fn holes(count: u32) -> Checked {
    if (1..=MOST_HOLES).contains(&count) {
        return Ok(());
    }
    Err(("count", format!("{count}: expected 1 to {MOST_HOLES}")))
}

/// Without antialiasing there is no pass order to choose.
fn pass_order(filter: ResizeFilter, order: PassOrder) -> Checked {
    if !filter.antialiases() && order != PassOrder::HorizontalFirst {
        let reason = "pillow13 needs antialias = true; without, rows always come first";
        return Err(("pass_order", reason.to_owned()));
    }
    Ok(())
}
