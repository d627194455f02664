//! The JSON form of an operation: a kind and named arguments.
//!
//! Serde's own tagged enums report a wrong argument as "data did not match";
//! going through a plain list of optional fields lets the error name the
//! argument that is missing or does not belong.

#[cfg(test)]
mod tests;
mod value;

use serde::{Deserialize, Serialize};

use crate::operation::{Operation, OperationKind};
use crate::operation_arguments::{
    CutoutShape, Extent, Interpolation, Rounding, SignRule, SolarizeScope, Warp,
};
use crate::{Error, Result};

/// Every argument any operation may have, as it stands in JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationFields {
    /// Name of the kind.
    pub kind: String,
    /// Rotate.
    #[serde(
        default,
        deserialize_with = "value::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub degrees: Option<f64>,
    /// Posterize.
    #[serde(
        default,
        deserialize_with = "value::whole_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub bits: Option<i64>,
    /// Solarize, SolarizeAdd.
    #[serde(
        default,
        deserialize_with = "value::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub threshold: Option<f64>,
    /// SolarizeAdd.
    #[serde(
        default,
        deserialize_with = "value::whole_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub add: Option<i32>,
    /// ShearX, ShearY.
    #[serde(
        default,
        deserialize_with = "value::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub shear: Option<f64>,
    /// CropBilinear (whole); TranslateX, TranslateY: either this or `fraction`.
    #[serde(
        default,
        deserialize_with = "value::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub pixels: Option<f64>,
    /// TranslateX, TranslateY, Cutout.
    #[serde(
        default,
        deserialize_with = "value::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub fraction: Option<f64>,
    /// Cutout; either this or `fraction`.
    #[serde(
        default,
        deserialize_with = "value::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub size: Option<f64>,
    /// Color, Contrast, Brightness, Sharpness.
    #[serde(
        default,
        deserialize_with = "value::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub factor: Option<f64>,
    /// GaussianBlur.
    #[serde(
        default,
        deserialize_with = "value::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub radius: Option<f64>,
    /// Desaturate.
    #[serde(
        default,
        deserialize_with = "value::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub amount: Option<f64>,
    /// SolarizeAdd; `below` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<SolarizeScope>,
    /// Cutout; `centered` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<CutoutShape>,
    /// TranslateX, TranslateY; `none` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding: Option<Rounding>,
    /// Kinds with a direction; `fixed` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign: Option<SignRule>,
    /// Geometric kinds and Cutout; black unless given.
    #[serde(
        default,
        deserialize_with = "value::colour",
        skip_serializing_if = "Option::is_none"
    )]
    pub fill: Option<[u8; 3]>,
    /// Geometric kinds; `nearest` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpolation: Option<Interpolation>,
}

impl OperationFields {
    /// Takes a required argument.
    fn require<T>(&self, name: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::field(name, format!("missing: {} needs it", self.kind)))
    }

    /// Exactly one of two ways to give a length.
    fn extent(&self, name: &str, pixels: Option<f64>) -> Result<Extent> {
        match (pixels, self.fraction) {
            (Some(pixels), None) => Ok(Extent::Pixels(pixels)),
            (None, Some(fraction)) => Ok(Extent::Fraction(fraction)),
            (None, None) => Err(Error::field(
                name,
                format!("missing: {} needs `{name}` or `fraction`", self.kind),
            )),
            (Some(_), Some(_)) => Err(Error::field(
                name,
                format!("{} takes `{name}` or `fraction`, not both", self.kind),
            )),
        }
    }

    /// Refuses arguments that `kind` does not have.
    fn refuse_others(&self, allowed: &[&str]) -> Result<()> {
        let given = [
            ("degrees", self.degrees.is_some()),
            ("bits", self.bits.is_some()),
            ("threshold", self.threshold.is_some()),
            ("add", self.add.is_some()),
            ("shear", self.shear.is_some()),
            ("pixels", self.pixels.is_some()),
            ("fraction", self.fraction.is_some()),
            ("size", self.size.is_some()),
            ("factor", self.factor.is_some()),
            ("radius", self.radius.is_some()),
            ("amount", self.amount.is_some()),
            ("scope", self.scope.is_some()),
            ("shape", self.shape.is_some()),
            ("rounding", self.rounding.is_some()),
            ("sign", self.sign.is_some()),
            ("fill", self.fill.is_some()),
            ("interpolation", self.interpolation.is_some()),
        ];
        match given
            .iter()
            .find(|(name, is_given)| *is_given && !allowed.contains(name))
        {
            None => Ok(()),
            Some((name, _)) => Err(Error::field(
                *name,
                match allowed {
                    [] => format!("{} takes no arguments", self.kind),
                    _ => format!(
                        "{} has no such argument; it takes {}",
                        self.kind,
                        allowed.join(", ")
                    ),
                },
            )),
        }
    }
}

impl OperationKind {
    /// Names of the arguments the kind takes, in the order the JSON shows them.
    pub fn argument_names(self) -> &'static [&'static str] {
        match self {
            OperationKind::Identity
            | OperationKind::FlipLR
            | OperationKind::FlipUD
            | OperationKind::AutoContrast
            | OperationKind::Equalize
            | OperationKind::Invert
            | OperationKind::Blur
            | OperationKind::Smooth
            | OperationKind::Rotate90
            | OperationKind::Rotate180
            | OperationKind::Rotate270 => &[],
            OperationKind::GaussianBlur => &["radius"],
            OperationKind::Rotate => &["degrees", "sign", "fill", "interpolation"],
            OperationKind::ShearX | OperationKind::ShearY => {
                &["shear", "sign", "fill", "interpolation"]
            }
            OperationKind::TranslateX | OperationKind::TranslateY => &[
                "pixels",
                "fraction",
                "rounding",
                "sign",
                "fill",
                "interpolation",
            ],
            OperationKind::Posterize => &["bits"],
            OperationKind::Solarize => &["threshold"],
            OperationKind::SolarizeAdd => &["add", "threshold", "scope"],
            OperationKind::Color
            | OperationKind::Contrast
            | OperationKind::Brightness
            | OperationKind::Sharpness => &["factor", "sign"],
            OperationKind::Desaturate => &["amount"],
            OperationKind::CropBilinear => &["pixels"],
            OperationKind::Cutout => &["size", "fraction", "shape", "fill"],
        }
    }
}

/// A number without a fraction, within a million of zero.
fn whole(name: &str, value: f64) -> Result<i32> {
    if value.fract() != 0.0 || value.abs() > 1e6 {
        return Err(Error::field(name, format!("{value} is not a whole number")));
    }
    Ok(value as i32)
}

impl TryFrom<OperationFields> for Operation {
    type Error = Error;

    fn try_from(fields: OperationFields) -> Result<Operation> {
        let kind: OperationKind = fields
            .kind
            .parse()
            .map_err(|error: Error| Error::field("kind", error.to_string()))?;
        fields.refuse_others(kind.argument_names())?;
        let sign = fields.sign.unwrap_or_default();
        let warp = Warp {
            fill: fields.fill.unwrap_or_default(),
            interpolation: fields.interpolation.unwrap_or_default(),
        };
        let factor = || fields.require("factor", fields.factor);
        let shear = || fields.require("shear", fields.shear);
        let threshold = || fields.require("threshold", fields.threshold);
        let operation = match kind {
            OperationKind::Identity => Operation::Identity,
            OperationKind::FlipLR => Operation::FlipLR,
            OperationKind::FlipUD => Operation::FlipUD,
            OperationKind::AutoContrast => Operation::AutoContrast,
            OperationKind::Equalize => Operation::Equalize,
            OperationKind::Invert => Operation::Invert,
            OperationKind::Blur => Operation::Blur,
            OperationKind::Smooth => Operation::Smooth,
            OperationKind::GaussianBlur => Operation::GaussianBlur {
                radius: fields.require("radius", fields.radius)?,
            },
            OperationKind::Rotate90 => Operation::Rotate90,
            OperationKind::Rotate180 => Operation::Rotate180,
            OperationKind::Rotate270 => Operation::Rotate270,
            OperationKind::Rotate => Operation::Rotate {
                degrees: fields.require("degrees", fields.degrees)?,
                sign,
                warp,
            },
            OperationKind::ShearX => Operation::ShearX {
                shear: shear()?,
                sign,
                warp,
            },
            OperationKind::ShearY => Operation::ShearY {
                shear: shear()?,
                sign,
                warp,
            },
            OperationKind::TranslateX => Operation::TranslateX {
                offset: fields.extent("pixels", fields.pixels)?,
                rounding: fields.rounding.unwrap_or_default(),
                sign,
                warp,
            },
            OperationKind::TranslateY => Operation::TranslateY {
                offset: fields.extent("pixels", fields.pixels)?,
                rounding: fields.rounding.unwrap_or_default(),
                sign,
                warp,
            },
            OperationKind::Posterize => {
                let bits = fields.require("bits", fields.bits)?;
                Operation::Posterize {
                    bits: u8::try_from(bits).map_err(|_| {
                        Error::field(
                            "bits",
                            format!("{bits} is not between 0 (black) and 8 (unchanged)"),
                        )
                    })?,
                }
            }
            OperationKind::Solarize => Operation::Solarize {
                threshold: threshold()?,
            },
            OperationKind::SolarizeAdd => Operation::SolarizeAdd {
                add: fields.require("add", fields.add)?,
                threshold: whole("threshold", threshold()?)?,
                scope: fields.scope.unwrap_or_default(),
            },
            OperationKind::Color => Operation::Color {
                factor: factor()?,
                sign,
            },
            OperationKind::Contrast => Operation::Contrast {
                factor: factor()?,
                sign,
            },
            OperationKind::Brightness => Operation::Brightness {
                factor: factor()?,
                sign,
            },
            OperationKind::Sharpness => Operation::Sharpness {
                factor: factor()?,
                sign,
            },
            OperationKind::Desaturate => Operation::Desaturate {
                amount: fields.require("amount", fields.amount)?,
            },
            OperationKind::CropBilinear => Operation::CropBilinear {
                pixels: {
                    let pixels = whole("pixels", fields.require("pixels", fields.pixels)?)?;
                    u32::try_from(pixels).map_err(|_| {
                        Error::field("pixels", format!("{pixels} is negative; nothing is added"))
                    })?
                },
            },
            OperationKind::Cutout => Operation::Cutout {
                size: fields.extent("size", fields.size)?,
                shape: fields.shape.unwrap_or_default(),
                fill: fields.fill.unwrap_or_default(),
            },
        };
        operation.validate()?;
        Ok(operation)
    }
}

impl From<Operation> for OperationFields {
    fn from(operation: Operation) -> OperationFields {
        let mut fields = OperationFields {
            kind: operation.kind().name().to_owned(),
            ..OperationFields::default()
        };
        let mut set_warp = |sign: SignRule, warp: Warp| {
            fields.sign = Some(sign);
            fields.fill = Some(warp.fill);
            fields.interpolation = Some(warp.interpolation);
        };
        match operation {
            Operation::Identity
            | Operation::FlipLR
            | Operation::FlipUD
            | Operation::AutoContrast
            | Operation::Equalize
            | Operation::Invert
            | Operation::Blur
            | Operation::Smooth
            | Operation::Rotate90
            | Operation::Rotate180
            | Operation::Rotate270 => {}
            Operation::GaussianBlur { radius } => fields.radius = Some(radius),
            Operation::Desaturate { amount } => fields.amount = Some(amount),
            Operation::CropBilinear { pixels } => fields.pixels = Some(f64::from(pixels)),
            Operation::Rotate {
                degrees,
                sign,
                warp,
            } => {
                set_warp(sign, warp);
                fields.degrees = Some(degrees);
            }
            Operation::ShearX { shear, sign, warp } | Operation::ShearY { shear, sign, warp } => {
                set_warp(sign, warp);
                fields.shear = Some(shear);
            }
            Operation::TranslateX {
                offset,
                rounding,
                sign,
                warp,
            }
            | Operation::TranslateY {
                offset,
                rounding,
                sign,
                warp,
            } => {
                set_warp(sign, warp);
                fields.rounding = (!rounding.is_default()).then_some(rounding);
                match offset {
                    Extent::Pixels(pixels) => fields.pixels = Some(pixels),
                    Extent::Fraction(fraction) => fields.fraction = Some(fraction),
                }
            }
            Operation::Posterize { bits } => fields.bits = Some(i64::from(bits)),
            Operation::Solarize { threshold } => fields.threshold = Some(threshold),
            Operation::SolarizeAdd {
                add,
                threshold,
                scope,
            } => {
                fields.scope = (!scope.is_default()).then_some(scope);
                fields.add = Some(add);
                fields.threshold = Some(f64::from(threshold));
            }
            Operation::Color { factor, sign }
            | Operation::Contrast { factor, sign }
            | Operation::Brightness { factor, sign }
            | Operation::Sharpness { factor, sign } => {
                fields.factor = Some(factor);
                fields.sign = Some(sign);
            }
            Operation::Cutout { size, shape, fill } => {
                fields.shape = (!shape.is_default()).then_some(shape);
                match size {
                    Extent::Pixels(pixels) => fields.size = Some(pixels),
                    Extent::Fraction(fraction) => fields.fraction = Some(fraction),
                }
                fields.fill = Some(fill);
            }
        }
        fields
    }
}
