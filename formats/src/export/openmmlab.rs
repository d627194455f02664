//! mmpretrain 1.x and mmdetection 3.x: a list of transforms as Python text.
//!
//! Argument names are those of `mmpretrain/datasets/transforms/auto_augment.py`,
//! `mmdet/datasets/transforms/{geometric,colorspace}.py` and mmcv's
//! `RandomApply`, `RandomChoice` and `RandomFlip`. Both load images as BGR, so
//! that fills are written blue first.

use super::{Exported, Fidelity, Writer, entries};
use crate::operation_arguments::{Extent, Interpolation, Rounding, SignRule, SolarizeScope, Warp};
use crate::{Operation, Policy};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Pretrain,
    Detection,
}

/// Transforms in a row: dicts as Python text, each with the place of its `prob`.
#[derive(Clone)]
pub(super) struct Row(Vec<Transform>);

#[derive(Clone)]
struct Transform {
    /// `dict(type='Rotate', angle=3.0`, without the end.
    head: String,
    /// Whether it takes `prob`.
    takes_prob: bool,
}

impl Transform {
    fn text(&self) -> String {
        match self.takes_prob {
            true => format!("{}, prob=1.0)", self.head),
            false => format!("{})", self.head),
        }
    }
}

impl Row {
    fn text(&self) -> String {
        let all: Vec<String> = self.0.iter().map(Transform::text).collect();
        format!("[{}]", all.join(", "))
    }
}

struct Python {
    dialect: Dialect,
    image_size: Option<u32>,
}

pub(super) fn export(
    policy: &Policy,
    snapshot: usize,
    total: f64,
    dialect: Dialect,
    image_size: Option<u32>,
) -> Exported {
    let writer = Python {
        dialect,
        image_size,
    };
    let (parts, notes) = entries(policy, snapshot, &writer);
    let library = match dialect {
        Dialect::Pretrain => "mmpretrain 1.x",
        Dialect::Detection => "mmdetection 3.x",
    };
    let mut text = format!(
        "# For the pipeline of a config of {library}, images as loaded (BGR, uint8): train_pipeline = [..., *policy, ...].\n# From {}.\n",
        policy.origin(snapshot)
    );
    for note in &notes {
        text += &format!("# {note}\n");
    }
    let sum: f64 = parts.iter().map(|(share, _)| share).sum();
    let shares: Vec<String> = parts.iter().map(|(share, _)| number(share / sum)).collect();
    text += &format!(
        "draw = dict(\n    type='RandomChoice',\n    prob=[{}],\n    transforms=[\n",
        shares.join(", ")
    );
    for (_, row) in &parts {
        text += &format!("        {},\n", row.text());
    }
    text += &format!(
        "    ])\npolicy = [\n    dict(type='RandomApply', prob={}, transforms=[draw] * {}),\n]\n",
        number(total),
        policy.search_space().draws_per_sample()
    );
    Exported { text, notes }
}

/// A float in Python: with a point, exactly.
fn number(value: f64) -> String {
    format!("{value:?}")
}

/// Blue, green, red.
fn fill(fill: [u8; 3]) -> String {
    format!("({}, {}, {})", fill[2], fill[1], fill[0])
}

fn quoted(interpolation: Interpolation) -> &'static str {
    match interpolation {
        Interpolation::Nearest => "'nearest'",
        Interpolation::Bilinear => "'bilinear'",
        Interpolation::Bicubic => "'bicubic'",
    }
}

const BY_OPENCV: &str = "OpenCV places and rounds points otherwise";
const BY_LEVELS: &str = "rounded otherwise, by about a level";

impl Writer for Python {
    type Part = Row;

    fn draws_signs(&self) -> bool {
        true
    }

    fn choice(&self, parts: Vec<(f64, Row)>) -> Row {
        let sum: f64 = parts.iter().map(|(share, _)| share).sum();
        let shares: Vec<String> = parts.iter().map(|(share, _)| number(share / sum)).collect();
        let rows: Vec<String> = parts.iter().map(|(_, row)| row.text()).collect();
        Row(vec![Transform {
            head: format!(
                "dict(type='RandomChoice', prob=[{}], transforms=[{}]",
                shares.join(", "),
                rows.join(", ")
            ),
            takes_prob: false,
        }])
    }

    fn sequence(&self, parts: Vec<(f64, Row)>) -> Row {
        let mut row = Row(Vec::new());
        for (probability, part) in parts {
            if part.0.is_empty() {
                continue;
            }
            row.0.push(Transform {
                head: format!(
                    "dict(type='RandomApply', prob={}, transforms={}",
                    number(probability),
                    part.text()
                ),
                takes_prob: false,
            });
        }
        row
    }

    fn operation(&self, operation: &Operation) -> (Row, Fidelity) {
        match self.dialect {
            Dialect::Pretrain => self.pretrain(operation),
            Dialect::Detection => self.detection(operation),
        }
    }
}

fn one(kind: &str, arguments: &str) -> Row {
    let separator = if arguments.is_empty() { "" } else { ", " };
    Row(vec![Transform {
        head: format!("dict(type='{kind}'{separator}{arguments}"),
        takes_prob: true,
    }])
}

fn exact(kind: &str, arguments: &str) -> (Row, Fidelity) {
    (one(kind, arguments), Fidelity::Exact)
}

fn near(kind: &str, arguments: &str, how: &str) -> (Row, Fidelity) {
    (one(kind, arguments), Fidelity::Approximate(how.to_owned()))
}

fn unchanged() -> (Row, Fidelity) {
    (Row(Vec::new()), Fidelity::Exact)
}

fn left_out(why: &str) -> (Row, Fidelity) {
    (Row(Vec::new()), Fidelity::LeftOut(why.to_owned()))
}

/// The share of mirrored ones: of a random sign half.
fn half_if_random(sign: SignRule, fixed: f64) -> String {
    number(match sign {
        SignRule::Random => 0.5,
        SignRule::Fixed => fixed,
    })
}

impl Python {
    /// A length as a fraction of the side, which is all these libraries know.
    fn fraction(&self, extent: Extent) -> Option<f64> {
        match extent {
            Extent::Fraction(fraction) => Some(fraction),
            Extent::Pixels(pixels) => Some(pixels / f64::from(self.image_size?)),
        }
    }

    /// A length in pixels.
    fn pixels(&self, extent: Extent) -> Option<f64> {
        match extent {
            Extent::Pixels(pixels) => Some(pixels),
            Extent::Fraction(fraction) => Some(fraction * f64::from(self.image_size?)),
        }
    }

    fn pretrain(&self, operation: &Operation) -> (Row, Fidelity) {
        let warped = |warp: Warp, sign: SignRule| {
            format!(
                "pad_val={}, interpolation={}, random_negative_prob={}",
                fill(warp.fill),
                quoted(warp.interpolation),
                half_if_random(sign, 0.0)
            )
        };
        let turned = |degrees: f64, warp, sign| {
            // Positive angles are clockwise there.
            let arguments = format!("angle={}, {}", number(-degrees), warped(warp, sign));
            near("Rotate", &arguments, BY_OPENCV)
        };
        let sheared = |direction: &str, shear: f64, warp, sign| {
            // Content moves the way the number says there; here it says where content comes from.
            let arguments = format!(
                "magnitude={}, direction='{direction}', {}",
                number(-shear),
                warped(warp, sign)
            );
            near("Shear", &arguments, BY_OPENCV)
        };
        let moved = |direction: &str, offset, rounding, warp, sign| match self.fraction(offset) {
            None => left_out(NEEDS_SIZE),
            Some(fraction) => {
                let how = match rounding {
                    Rounding::None => BY_OPENCV,
                    Rounding::Truncate => "not cut to whole pixels",
                };
                let arguments = format!(
                    "magnitude={}, direction='{direction}', {}",
                    number(-fraction),
                    warped(warp, sign)
                );
                near("Translate", &arguments, how)
            }
        };
        let enhanced = |kind: &str, factor: f64, sign| {
            let arguments = format!(
                "magnitude={}, random_negative_prob={}",
                number(factor - 1.0),
                half_if_random(sign, 0.0)
            );
            near(kind, &arguments, BY_LEVELS)
        };
        match *operation {
            Operation::Identity => unchanged(),
            Operation::FlipLR => exact("RandomFlip", "direction='horizontal'"),
            Operation::FlipUD => exact("RandomFlip", "direction='vertical'"),
            Operation::AutoContrast => near("AutoContrast", "", BY_LEVELS),
            Operation::Equalize => near("Equalize", "", BY_LEVELS),
            Operation::Invert => exact("Invert", ""),
            Operation::Blur => left_out("no filter there has these weights"),
            Operation::Smooth => enhanced("Sharpness", 0.0, SignRule::Fixed),
            Operation::GaussianBlur { radius } => {
                exact("GaussianBlur", &format!("radius={}", number(radius)))
            }
            Operation::Rotate90 => turned(90.0, Warp::default(), SignRule::Fixed),
            Operation::Rotate180 => turned(180.0, Warp::default(), SignRule::Fixed),
            Operation::Rotate270 => turned(270.0, Warp::default(), SignRule::Fixed),
            Operation::Rotate {
                degrees,
                sign,
                warp,
            } => turned(degrees, warp, sign),
            Operation::ShearX { shear, sign, warp } => sheared("horizontal", shear, warp, sign),
            Operation::ShearY { shear, sign, warp } => sheared("vertical", shear, warp, sign),
            Operation::TranslateX {
                offset,
                rounding,
                sign,
                warp,
            } => moved("horizontal", offset, rounding, warp, sign),
            Operation::TranslateY {
                offset,
                rounding,
                sign,
                warp,
            } => moved("vertical", offset, rounding, warp, sign),
            Operation::Posterize { bits } => exact("Posterize", &format!("bits={bits}")),
            Operation::Solarize { threshold } => {
                exact("Solarize", &format!("thr={}", number(threshold)))
            }
            Operation::SolarizeAdd {
                add,
                threshold,
                scope: SolarizeScope::Below,
            } if add >= 0 => exact("SolarizeAdd", &format!("magnitude={add}, thr={threshold}")),
            Operation::SolarizeAdd { .. } => {
                left_out("it adds below the threshold only, and only upwards")
            }
            Operation::Color { factor, sign } => enhanced("ColorTransform", factor, sign),
            Operation::Contrast { factor, sign } => enhanced("Contrast", factor, sign),
            Operation::Brightness { factor, sign } => enhanced("Brightness", factor, sign),
            Operation::Sharpness { factor, sign } => enhanced("Sharpness", factor, sign),
            Operation::Desaturate { amount } => {
                enhanced("ColorTransform", 1.0 - amount, SignRule::Fixed)
            }
            Operation::CropBilinear { .. } => left_out("there is no such transform"),
            Operation::Cutout {
                size, fill: color, ..
            } => match self.pixels(size) {
                None => left_out(NEEDS_SIZE),
                Some(pixels) => near(
                    "Cutout",
                    &format!("shape={}, pad_val={}", pixels.trunc() as i64, fill(color)),
                    "the square is placed by other rules",
                ),
            },
        }
    }

    fn detection(&self, operation: &Operation) -> (Row, Fidelity) {
        // A magnitude is drawn between two bounds and rounded to one decimal: equal bounds fix it.
        let fixed = |value: f64| format!("min_mag={0}, max_mag={0}", number(value));
        let rounded = |value: f64| (value * 10.0).round() / 10.0;
        let geometric = |kind: &str, value: f64, most: f64, sign, warp: Warp| {
            if value.abs() > most {
                return left_out(&format!("beyond the {most} it goes up to"));
            }
            // Content moves the other way there, and bounds have no sign: a positive value is the reversed one.
            let forward = half_if_random(sign, if value > 0.0 { 0.0 } else { 1.0 });
            let arguments = format!(
                "{}, reversal_prob={forward}, img_border_value={}, interpolation={}",
                fixed(value.abs()),
                fill(warp.fill),
                quoted(warp.interpolation)
            );
            let how = format!(
                "{BY_OPENCV}; {} in the place of {}",
                rounded(value.abs()),
                (value.abs() * 1e4).round() / 1e4
            );
            near(kind, &arguments, &how)
        };
        let colored = |kind: &str, value: f64, most: f64| {
            if !(0.0..=most).contains(&value) {
                return left_out(&format!("{value} is outside the 0 to {most} it takes"));
            }
            let arguments = fixed(value);
            if rounded(value) == value {
                near(kind, &arguments, BY_LEVELS)
            } else {
                let how = format!(
                    "{} in the place of {}",
                    rounded(value),
                    (value * 1e4).round() / 1e4
                );
                near(kind, &arguments, &how)
            }
        };
        let enhanced = |kind: &str, factor: f64, sign| match sign {
            SignRule::Fixed => colored(kind, factor, 2.0),
            SignRule::Random => {
                let (up, found) = colored(kind, factor, 2.0);
                let (down, other) = colored(kind, 2.0 - factor, 2.0);
                let worse = super::worst(found, other);
                (self.choice(vec![(0.5, up), (0.5, down)]), worse)
            }
        };
        let sheared = |kind: &str, shear: f64, sign, warp| {
            geometric(kind, shear.atan().to_degrees(), 90.0, sign, warp)
        };
        let moved = |kind: &str, offset, sign, warp| match self.fraction(offset) {
            None => left_out(NEEDS_SIZE),
            Some(fraction) => geometric(kind, fraction, 1.0, sign, warp),
        };
        match *operation {
            Operation::Identity => unchanged(),
            Operation::FlipLR => exact("RandomFlip", "direction='horizontal'"),
            Operation::FlipUD => exact("RandomFlip", "direction='vertical'"),
            Operation::AutoContrast => near("AutoContrast", "", BY_LEVELS),
            Operation::Equalize => near("Equalize", "", BY_LEVELS),
            Operation::Invert => exact("Invert", ""),
            Operation::Blur | Operation::GaussianBlur { .. } | Operation::CropBilinear { .. } => {
                left_out("there is no such transform")
            }
            Operation::Smooth => colored("Sharpness", 0.0, 2.0),
            Operation::Rotate90 => {
                geometric("Rotate", 90.0, 180.0, SignRule::Fixed, Warp::default())
            }
            Operation::Rotate180 => {
                geometric("Rotate", 180.0, 180.0, SignRule::Fixed, Warp::default())
            }
            Operation::Rotate270 => {
                geometric("Rotate", -90.0, 180.0, SignRule::Fixed, Warp::default())
            }
            Operation::Rotate {
                degrees,
                sign,
                warp,
            } => geometric("Rotate", degrees, 180.0, sign, warp),
            Operation::ShearX { shear, sign, warp } => sheared("ShearX", shear, sign, warp),
            Operation::ShearY { shear, sign, warp } => sheared("ShearY", shear, sign, warp),
            Operation::TranslateX {
                offset, sign, warp, ..
            } => moved("TranslateX", offset, sign, warp),
            Operation::TranslateY {
                offset, sign, warp, ..
            } => moved("TranslateY", offset, sign, warp),
            Operation::Posterize { bits } => exact("Posterize", &fixed(f64::from(bits))),
            Operation::Solarize { threshold } if threshold >= 256.0 => unchanged(),
            Operation::Solarize { threshold } if threshold <= 0.0 => exact("Invert", ""),
            // Values are whole: the next whole threshold divides them alike, and survives the rounding.
            Operation::Solarize { threshold } => exact("Solarize", &fixed(threshold.ceil())),
            Operation::SolarizeAdd {
                add: 0..=110,
                threshold: 128,
                scope: SolarizeScope::Below,
            } => match operation {
                Operation::SolarizeAdd { add, .. } => exact("SolarizeAdd", &fixed(f64::from(*add))),
                _ => unchanged(),
            },
            Operation::SolarizeAdd { .. } => {
                left_out("it adds 0 to 110 to values below 128 and does nothing else")
            }
            Operation::Color { factor, sign } => enhanced("Color", factor, sign),
            Operation::Contrast { factor, sign } => enhanced("Contrast", factor, sign),
            Operation::Brightness { factor, sign } => enhanced("Brightness", factor, sign),
            Operation::Sharpness { factor, sign } => enhanced("Sharpness", factor, sign),
            Operation::Desaturate { amount } => colored("Color", 1.0 - amount, 2.0),
            Operation::Cutout {
                size, fill: color, ..
            } => match self.pixels(size).map(|pixels| pixels.trunc() as i64) {
                None => left_out(NEEDS_SIZE),
                Some(..=0) => unchanged(),
                Some(side) => (
                    Row(vec![Transform {
                        head: format!(
                            "dict(type='CutOut', n_holes=1, cutout_shape=({side}, {side}), fill_in={}",
                            fill(color)
                        ),
                        takes_prob: false,
                    }]),
                    Fidelity::Approximate("the square is placed by other rules".to_owned()),
                ),
            },
        }
    }
}

const NEEDS_SIZE: &str = "its length depends on the image's size; give --image-size";
