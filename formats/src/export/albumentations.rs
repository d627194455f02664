//! Albumentations 2.0: the JSON that `albumentations.from_dict` reads.
//!
//! How near each transform comes was compared with Pillow at 2.0.8.

use serde_json::{Value, json};

use super::{Exported, Fidelity, Writer, entries};
use crate::operation_arguments::{Extent, Interpolation, Rounding, Warp};
use crate::{Operation, Policy};

pub(super) fn export(
    policy: &Policy,
    snapshot: usize,
    total: f64,
    image_size: Option<u32>,
) -> Exported {
    let writer = Json { image_size };
    let (parts, notes) = entries(policy, snapshot, &writer);
    let draw = writer.choice(parts);
    let draws = vec![draw; policy.search_space().draws_per_sample() as usize];
    let document = json!({
        "__version__": "2.0.8",
        "transform": {
            "__class_fullname__": "Compose",
            "p": 1.0,
            "transforms": [with_p(total, json!({"__class_fullname__": "Sequential", "transforms": draws}))],
            "bbox_params": null,
            "keypoint_params": null,
            "additional_targets": {},
            "is_check_shapes": true,
        },
        "ddas": {
            "origin": policy.origin(snapshot),
            "notes": notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
    });
    Exported {
        text: format!("{document:#}\n"),
        notes,
    }
}

struct Json {
    image_size: Option<u32>,
}

/// `transform` with its probability; a choice draws among its children by theirs.
fn with_p(p: f64, mut transform: Value) -> Value {
    transform["p"] = json!(p);
    transform
}

fn named(name: &str, arguments: Value) -> Value {
    let mut transform = json!({"__class_fullname__": name, "p": 1.0});
    if let (Some(to), Some(from)) = (transform.as_object_mut(), arguments.as_object()) {
        to.extend(from.clone());
    }
    transform
}

impl Writer for Json {
    type Part = Value;

    fn draws_signs(&self) -> bool {
        false
    }

    fn choice(&self, mut parts: Vec<(f64, Value)>) -> Value {
        if parts.len() == 1 {
            return parts.remove(0).1;
        }
        let parts: Vec<Value> = parts.into_iter().map(|(p, part)| with_p(p, part)).collect();
        json!({"__class_fullname__": "OneOf", "p": 1.0, "transforms": parts})
    }

    fn sequence(&self, parts: Vec<(f64, Value)>) -> Value {
        let mut parts: Vec<Value> = parts.into_iter().map(|(p, part)| with_p(p, part)).collect();
        if parts.is_empty() {
            parts.push(named("NoOp", json!({})));
        }
        json!({"__class_fullname__": "Sequential", "p": 1.0, "transforms": parts})
    }

    fn operation(&self, operation: &Operation) -> (Value, Fidelity) {
        let exact = |name: &str, arguments: Value| (named(name, arguments), Fidelity::Exact);
        let near = |name: &str, arguments: Value, how: &str| {
            (
                named(name, arguments),
                Fidelity::Approximate(how.to_owned()),
            )
        };
        let left_out = |why: &str| (named("NoOp", json!({})), Fidelity::LeftOut(why.to_owned()));
        let unchanged = || exact("NoOp", json!({}));
        match *operation {
            Operation::Identity => unchanged(),
            Operation::FlipLR => exact("HorizontalFlip", json!({})),
            Operation::FlipUD => exact("VerticalFlip", json!({})),
            Operation::Invert => exact("InvertImg", json!({})),
            Operation::AutoContrast => near(
                "AutoContrast",
                json!({"method": "pil"}),
                "values differ by up to 2 levels",
            ),
            Operation::Equalize => near(
                "Equalize",
                json!({"mode": "pil"}),
                "values differ by up to 3 levels",
            ),
            Operation::Blur | Operation::Smooth => left_out("no filter there has these weights"),
            Operation::GaussianBlur { radius: 0.0 } => unchanged(),
            Operation::GaussianBlur { radius } => near(
                "GaussianBlur",
                json!({"blur_limit": 0, "sigma_limit": [radius, radius]}),
                "a sampled Gaussian, not Pillow's three box blurs",
            ),
            Operation::Rotate90 => turn(90.0, Warp::default()),
            Operation::Rotate180 => turn(180.0, Warp::default()),
            Operation::Rotate270 => turn(270.0, Warp::default()),
            Operation::Rotate { degrees, warp, .. } => turn(degrees, warp),
            Operation::ShearX { shear, warp, .. } => sheared("x", "y", shear, warp),
            Operation::ShearY { shear, warp, .. } => sheared("y", "x", shear, warp),
            Operation::TranslateX {
                offset,
                rounding,
                warp,
                ..
            } => moved("x", "y", offset, rounding, warp),
            Operation::TranslateY {
                offset,
                rounding,
                warp,
                ..
            } => moved("y", "x", offset, rounding, warp),
            Operation::Posterize { bits: 0 } => exact("ColorJitter", jitter("brightness", 0.0)),
            Operation::Posterize { bits: 8.. } => unchanged(),
            Operation::Posterize { bits } => exact("Posterize", json!({"num_bits": [bits, bits]})),
            Operation::Solarize { threshold } => {
                // Between two levels, so that no rounding there decides.
                let between = threshold.ceil() - 0.5;
                if between > 255.0 {
                    unchanged()
                } else if between < 0.0 {
                    exact("InvertImg", json!({}))
                } else {
                    let threshold = between / 255.0;
                    exact(
                        "Solarize",
                        json!({"threshold_range": [threshold, threshold]}),
                    )
                }
            }
            Operation::SolarizeAdd { .. } => left_out("there is no such transform"),
            Operation::Color { factor: 1.0, .. }
            | Operation::Contrast { factor: 1.0, .. }
            | Operation::Brightness { factor: 1.0, .. }
            | Operation::Sharpness { factor: 1.0, .. } => unchanged(),
            Operation::Color { factor, .. }
            | Operation::Contrast { factor, .. }
            | Operation::Brightness { factor, .. }
                if factor < 0.0 =>
            {
                left_out("negative factors are refused there")
            }
            Operation::Brightness { factor, .. } => {
                exact("ColorJitter", jitter("brightness", factor))
            }
            Operation::Contrast { factor, .. } => near(
                "ColorJitter",
                jitter("contrast", factor),
                "values differ by up to 1 level",
            ),
            Operation::Color { factor, .. } => near(
                "ColorJitter",
                jitter("saturation", factor),
                "values differ by up to 2 levels",
            ),
            Operation::Desaturate { amount } => near(
                "ColorJitter",
                jitter("saturation", 1.0 - amount),
                "values differ by up to 2 levels",
            ),
            Operation::Sharpness { factor, .. } if factor > 1.0 && factor <= 14.0 => {
                // Its kernel is 8 and -1 around, in the place of the difference from SMOOTH, 1/13 of that.
                let alpha = (factor - 1.0) / 13.0;
                near(
                    "Sharpen",
                    json!({"alpha": [alpha, alpha], "lightness": [1.0, 1.0], "method": "kernel"}),
                    "the outermost pixels change, too; elsewhere up to 1 level",
                )
            }
            Operation::Sharpness { .. } => left_out("Sharpen does not soften (factors below 1)"),
            Operation::CropBilinear { pixels: 0 } => unchanged(),
            Operation::CropBilinear { pixels } => near(
                "CropAndPad",
                json!({"px": -i64::from(pixels), "keep_size": true, "sample_independently": false, "interpolation": 1}),
                "values differ by up to 1 level",
            ),
            Operation::Cutout { size, fill, .. } => {
                let side = match size {
                    Extent::Pixels(pixels) if pixels < 1.0 => return unchanged(),
                    // A square larger than the image is an error there.
                    Extent::Pixels(pixels) => json!(match self.image_size {
                        Some(side) => pixels.min(f64::from(side)) as i64,
                        None => pixels as i64,
                    }),
                    Extent::Fraction(fraction) if fraction <= 0.0 => return unchanged(),
                    Extent::Fraction(fraction) => json!(fraction.min(1.0)),
                };
                near(
                    "CoarseDropout",
                    json!({
                        "num_holes_range": [1, 1],
                        "hole_height_range": [side, side],
                        "hole_width_range": [side, side],
                        "fill": fill.map(f64::from),
                    }),
                    match (size, self.image_size) {
                        (Extent::Pixels(_), None) => {
                            "the square lies wholly in the image, which must not be smaller (give --image-size); here its edges cut it"
                        }
                        _ => "the square lies wholly in the image; here its edges cut it",
                    },
                )
            }
        }
    }
}

fn jitter(what: &str, factor: f64) -> Value {
    let mut arguments = json!({
        "brightness": [1.0, 1.0],
        "contrast": [1.0, 1.0],
        "saturation": [1.0, 1.0],
        "hue": [0.0, 0.0],
    });
    arguments[what] = json!([factor, factor]);
    arguments
}

fn affine(warp: Warp, key: &str, value: Value) -> Value {
    // OpenCV's numbers.
    let interpolation = match warp.interpolation {
        Interpolation::Nearest => 0,
        Interpolation::Bilinear => 1,
        Interpolation::Bicubic => 2,
    };
    named(
        "Affine",
        json!({"interpolation": interpolation, "fill": warp.fill.map(f64::from), "border_mode": 0, key: value}),
    )
}

fn turn(degrees: f64, warp: Warp) -> (Value, Fidelity) {
    (
        affine(warp, "rotate", json!([degrees, degrees])),
        match warp.interpolation {
            Interpolation::Nearest => Fidelity::Exact,
            _ => Fidelity::Approximate(BLENDED.to_owned()),
        },
    )
}

const BLENDED: &str = "between pixels and at the border OpenCV computes otherwise";

fn sheared(along: &str, across: &str, shear: f64, warp: Warp) -> (Value, Fidelity) {
    let degrees = shear.atan().to_degrees();
    let how = "about the centre of the image; here about its upper left corner";
    (
        affine(
            warp,
            "shear",
            json!({along: [degrees, degrees], across: [0.0, 0.0]}),
        ),
        Fidelity::Approximate(match warp.interpolation {
            Interpolation::Nearest => how.to_owned(),
            _ => format!("{how}; {BLENDED}"),
        }),
    )
}

fn moved(
    along: &str,
    across: &str,
    offset: Extent,
    rounding: Rounding,
    warp: Warp,
) -> (Value, Fidelity) {
    match offset {
        Extent::Pixels(pixels) => {
            let pixels = rounding.apply(pixels);
            // Nearest neighbours of an offset of v are those of floor(v + 1/2).
            let whole = (pixels + 0.5).floor();
            let fidelity = if warp.interpolation == Interpolation::Nearest || whole == pixels {
                Fidelity::Exact
            } else {
                Fidelity::Approximate("by whole pixels".to_owned())
            };
            let by = -(whole as i64);
            (
                affine(
                    warp,
                    "translate_px",
                    json!({along: [by, by], across: [0, 0]}),
                ),
                fidelity,
            )
        }
        Extent::Fraction(fraction) => (
            affine(
                warp,
                "translate_percent",
                json!({along: [-fraction, -fraction], across: [0.0, 0.0]}),
            ),
            match rounding {
                Rounding::Truncate => Fidelity::Exact,
                Rounding::None => {
                    Fidelity::Approximate("by whole pixels, cut towards zero".to_owned())
                }
            },
        ),
    }
}
