//! Operations with resolved arguments: what the policy file and the kernels speak.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::operation_arguments::{CutoutShape, Extent, Rounding, SignRule, SolarizeScope, Warp};
use crate::operation_json::OperationFields;
use crate::{Error, Result};

/// Writes the list of kinds once: the enum, all of its values, and their names.
macro_rules! operation_kinds {
    ($(#[$attribute:meta])* $($kind:ident),+ $(,)?) => {
        $(#[$attribute])*
        pub enum OperationKind { $($kind),+ }

        impl OperationKind {
            /// Every kind.
            pub const ALL: [OperationKind; [$(stringify!($kind)),+].len()] =
                [$(OperationKind::$kind),+];

            /// The name in policy files, in Python and on plots.
            pub fn name(self) -> &'static str {
                match self {
                    $(OperationKind::$kind => stringify!($kind)),+
                }
            }
        }
    };
}

operation_kinds! {
    /// What is done to the pixels, without its arguments.
    ///
    /// Names are those of the AutoAugment family of papers.
    ///
    /// ```
    /// use ddas_formats::OperationKind;
    ///
    /// assert_eq!("ShearX".parse::<OperationKind>()?, OperationKind::ShearX);
    /// assert_eq!(OperationKind::FlipLR.to_string(), "FlipLR");
    /// # Ok::<(), ddas_formats::Error>(())
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    #[allow(missing_docs)] // each is described at the variant of `Operation` of the same name
    Identity,
    FlipLR,
    FlipUD,
    AutoContrast,
    Equalize,
    Invert,
    Blur,
    Smooth,
    GaussianBlur,
    Rotate,
    Rotate90,
    Rotate180,
    Rotate270,
    Posterize,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Solarize,
    SolarizeAdd,
    Color,
    Contrast,
    Brightness,
    Sharpness,
    Desaturate,
    CropBilinear,
    Cutout,
}

impl fmt::Display for OperationKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for OperationKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        OperationKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| Error::UnknownName {
                what: "operation kind",
                name: name.to_owned(),
                known: OperationKind::ALL.map(|kind| kind.name().to_owned()).into(),
            })
    }
}

/// One entry of a search space: a kind with its arguments, in units that mean
/// the same everywhere (degrees, pixels, bits), never a bare level.
///
/// Positive arguments mean what Pillow's `rotate` and affine `transform` mean:
/// positive degrees turn counter-clockwise, a positive translation moves the
/// content to the left (up), a positive shear moves lower rows to the left.
///
/// ```
/// use ddas_formats::{Operation, OperationKind, SignRule, Warp};
///
/// let operation = Operation::Rotate { degrees: 15.0, sign: SignRule::Random, warp: Warp::default() };
/// assert_eq!(operation.kind(), OperationKind::Rotate);
/// assert_eq!(operation.label(), "Rotate ±15°");
/// let json = serde_json::to_string(&operation)?;
/// assert_eq!(
///     json,
///     r#"{"kind":"Rotate","degrees":15.0,"sign":"random","fill":[0,0,0],"interpolation":"nearest"}"#
/// );
/// assert_eq!(serde_json::from_str::<Operation>(&json)?, operation);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "OperationFields", into = "OperationFields")]
pub enum Operation {
    /// Leaves the image as it is.
    Identity,
    /// Mirrors left and right.
    FlipLR,
    /// Mirrors top and bottom.
    FlipUD,
    /// Stretches each channel to 0..255 (`ImageOps.autocontrast`, cutoff 0).
    AutoContrast,
    /// Equalises each channel's histogram (`ImageOps.equalize`).
    Equalize,
    /// 255 minus each value (`ImageOps.invert`).
    Invert,
    /// `ImageFilter.BLUR`.
    Blur,
    /// `ImageFilter.SMOOTH`.
    Smooth,
    /// Pillow's approximation of a Gaussian (`ImageFilter.GaussianBlur`).
    GaussianBlur {
        /// Standard deviation in pixels, 0 to 1000; 0 changes nothing.
        radius: f64,
    },
    /// A quarter turn counter-clockwise (`Image.rotate(90)`).
    ///
    /// The size stays: an image that is not square gets black bands.
    Rotate90,
    /// Half a turn (`Image.rotate(180)`).
    Rotate180,
    /// A quarter turn clockwise (`Image.rotate(270)`), as [`Operation::Rotate90`].
    Rotate270,
    /// Turns about the centre, size kept (`Image.rotate`).
    Rotate {
        /// Counter-clockwise, in degrees.
        degrees: f64,
        /// Whether the direction is drawn.
        sign: SignRule,
        /// Fill and interpolation.
        warp: Warp,
    },
    /// Output (x, y) reads input (x + shear * y, y).
    ShearX {
        /// Pixels along x per pixel along y.
        shear: f64,
        /// Whether the direction is drawn.
        sign: SignRule,
        /// Fill and interpolation.
        warp: Warp,
    },
    /// Output (x, y) reads input (x, y + shear * x).
    ShearY {
        /// Pixels along y per pixel along x.
        shear: f64,
        /// Whether the direction is drawn.
        sign: SignRule,
        /// Fill and interpolation.
        warp: Warp,
    },
    /// Output (x, y) reads input (x + offset, y): content moves left.
    TranslateX {
        /// Pixels, or fraction of the width.
        offset: Extent,
        /// Whether the fraction of a pixel counts; applied after mirroring.
        rounding: Rounding,
        /// Whether the direction is drawn.
        sign: SignRule,
        /// Fill and interpolation.
        warp: Warp,
    },
    /// Output (x, y) reads input (x, y + offset): content moves up.
    TranslateY {
        /// Pixels, or fraction of the height.
        offset: Extent,
        /// Whether the fraction of a pixel counts; applied after mirroring.
        rounding: Rounding,
        /// Whether the direction is drawn.
        sign: SignRule,
        /// Fill and interpolation.
        warp: Warp,
    },
    /// Keeps the upper bits of each value (`ImageOps.posterize`).
    Posterize {
        /// Bits kept, 0..=8; 0 gives a black image, 8 the image itself.
        bits: u8,
    },
    /// Inverts the values at or above the threshold (`ImageOps.solarize`).
    Solarize {
        /// 256 and more leave the image alone, 0 and less invert it.
        threshold: f64,
    },
    /// Adds to values, clipped to 0..255.
    SolarizeAdd {
        /// Levels added, -255..=255.
        add: i32,
        /// Values below it are changed; what else it means `scope` says.
        threshold: i32,
        /// Which values are changed.
        scope: SolarizeScope,
    },
    /// Saturation (`ImageEnhance.Color`).
    Color {
        /// 0 gives grey, 1 the image itself.
        factor: f64,
        /// Random: `factor` or 2 - `factor`.
        sign: SignRule,
    },
    /// Contrast (`ImageEnhance.Contrast`).
    Contrast {
        /// 0 gives the mean grey, 1 the image itself.
        factor: f64,
        /// Random: `factor` or 2 - `factor`.
        sign: SignRule,
    },
    /// Brightness (`ImageEnhance.Brightness`).
    Brightness {
        /// 0 gives black, 1 the image itself.
        factor: f64,
        /// Random: `factor` or 2 - `factor`.
        sign: SignRule,
    },
    /// Sharpness (`ImageEnhance.Sharpness`).
    Sharpness {
        /// 0 gives the smoothed image, 1 the image itself.
        factor: f64,
        /// Random: `factor` or 2 - `factor`.
        sign: SignRule,
    },
    /// Towards grey: [`Operation::Color`] with the factor 1 - `amount`.
    Desaturate {
        /// 0 gives the image itself, 1 grey.
        amount: f64,
    },
    /// Removes a border and resizes the rest to the image's size, bilinear:
    /// `image.crop((p, p, w - p, h - p)).resize((w, h), BILINEAR)`.
    ///
    /// Both orders of the resize passes give the same, for neither side
    /// shrinks. An image of which nothing would be left stays as it is.
    CropBilinear {
        /// Pixels removed on each of the four sides.
        pixels: u32,
    },
    /// Fills a square whose centre is drawn, clipped to the image.
    Cutout {
        /// Side of the square in pixels, or as a fraction of the width.
        size: Extent,
        /// How the square lies around its centre.
        shape: CutoutShape,
        /// Colour of the square.
        fill: [u8; 3],
    },
}

/// A number as a message shows it: not with the 300 digits some have.
fn written(value: f64) -> String {
    if value.abs() < 1e16 {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}

impl Operation {
    /// What is done, without the arguments.
    pub fn kind(&self) -> OperationKind {
        match self {
            Operation::Identity => OperationKind::Identity,
            Operation::FlipLR => OperationKind::FlipLR,
            Operation::FlipUD => OperationKind::FlipUD,
            Operation::AutoContrast => OperationKind::AutoContrast,
            Operation::Equalize => OperationKind::Equalize,
            Operation::Invert => OperationKind::Invert,
            Operation::Blur => OperationKind::Blur,
            Operation::Smooth => OperationKind::Smooth,
            Operation::GaussianBlur { .. } => OperationKind::GaussianBlur,
            Operation::Rotate90 => OperationKind::Rotate90,
            Operation::Rotate180 => OperationKind::Rotate180,
            Operation::Rotate270 => OperationKind::Rotate270,
            Operation::Rotate { .. } => OperationKind::Rotate,
            Operation::ShearX { .. } => OperationKind::ShearX,
            Operation::ShearY { .. } => OperationKind::ShearY,
            Operation::TranslateX { .. } => OperationKind::TranslateX,
            Operation::TranslateY { .. } => OperationKind::TranslateY,
            Operation::Posterize { .. } => OperationKind::Posterize,
            Operation::Solarize { .. } => OperationKind::Solarize,
            Operation::SolarizeAdd { .. } => OperationKind::SolarizeAdd,
            Operation::Color { .. } => OperationKind::Color,
            Operation::Contrast { .. } => OperationKind::Contrast,
            Operation::Brightness { .. } => OperationKind::Brightness,
            Operation::Sharpness { .. } => OperationKind::Sharpness,
            Operation::Desaturate { .. } => OperationKind::Desaturate,
            Operation::CropBilinear { .. } => OperationKind::CropBilinear,
            Operation::Cutout { .. } => OperationKind::Cutout,
        }
    }

    /// Whether the direction is drawn; [`SignRule::Fixed`] for kinds without one.
    pub fn sign(&self) -> SignRule {
        match self {
            Operation::Rotate { sign, .. }
            | Operation::ShearX { sign, .. }
            | Operation::ShearY { sign, .. }
            | Operation::TranslateX { sign, .. }
            | Operation::TranslateY { sign, .. }
            | Operation::Color { sign, .. }
            | Operation::Contrast { sign, .. }
            | Operation::Brightness { sign, .. }
            | Operation::Sharpness { sign, .. } => *sign,
            _ => SignRule::Fixed,
        }
    }

    /// The same operation in the other direction: a negated angle, shear or
    /// translation, an enhancement factor of 2 - `factor`. Kinds without a
    /// direction are returned as they are.
    #[must_use]
    pub fn mirrored(mut self) -> Operation {
        match &mut self {
            Operation::Rotate { degrees, .. } => *degrees = -*degrees,
            Operation::ShearX { shear, .. } | Operation::ShearY { shear, .. } => *shear = -*shear,
            Operation::TranslateX { offset, .. } | Operation::TranslateY { offset, .. } => {
                *offset = offset.negated();
            }
            Operation::Color { factor, .. }
            | Operation::Contrast { factor, .. }
            | Operation::Brightness { factor, .. }
            | Operation::Sharpness { factor, .. } => *factor = 2.0 - *factor,
            _ => {}
        }
        self
    }

    /// A short name for plots and tables, such as `Rotate ±15°` or `Solarize 128`.
    pub fn label(&self) -> String {
        let kind = self.kind();
        let plus_minus = match self.sign() {
            SignRule::Random => "±",
            SignRule::Fixed => "",
        };
        // To four decimals: products of levels carry more that say nothing.
        let short = |value: f64| (value * 1e4).round() / 1e4;
        let extent = |extent: &Extent| match extent {
            Extent::Pixels(pixels) => format!("{}px", short(*pixels)),
            Extent::Fraction(fraction) => format!("{}%", (fraction * 1e4).round() / 1e2),
        };
        match self {
            Operation::Rotate { degrees, .. } => format!("{kind} {plus_minus}{}°", short(*degrees)),
            Operation::ShearX { shear, .. } | Operation::ShearY { shear, .. } => {
                format!("{kind} {plus_minus}{}", short(*shear))
            }
            Operation::TranslateX { offset, .. } | Operation::TranslateY { offset, .. } => {
                format!("{kind} {plus_minus}{}", extent(offset))
            }
            Operation::Posterize { bits } => format!("{kind} {bits}b"),
            Operation::Solarize { threshold } => format!("{kind} {}", short(*threshold)),
            Operation::SolarizeAdd {
                add,
                threshold,
                scope,
            } => match scope {
                SolarizeScope::Below => format!("{kind} {add}<{threshold}"),
                SolarizeScope::All => format!("{kind} {add}, {threshold}"),
            },
            Operation::GaussianBlur { radius } => format!("{kind} {}px", short(*radius)),
            Operation::Desaturate { amount } => {
                format!("{kind} {}%", (amount * 1e11).round() / 1e9)
            }
            Operation::CropBilinear { pixels } => format!("{kind} {pixels}px"),
            Operation::Color { factor, sign }
            | Operation::Contrast { factor, sign }
            | Operation::Brightness { factor, sign }
            | Operation::Sharpness { factor, sign } => match sign {
                SignRule::Fixed => format!("{kind} x{}", short(*factor)),
                SignRule::Random => format!("{kind} x1±{}", short((factor - 1.0).abs())),
            },
            Operation::Cutout { size, .. } => format!("{kind} {}", extent(size)),
            // No arguments, no label but the name.
            _ => kind.to_string(),
        }
    }

    /// Checks that every argument is finite and in its range.
    ///
    /// # Errors
    /// [`Error::Field`] naming the argument.
    pub fn validate(&self) -> Result<()> {
        let finite = |name: &str, value: f64, limit: f64| {
            if value.is_finite() && value.abs() <= limit {
                Ok(())
            } else {
                Err(Error::field(
                    name,
                    format!(
                        "{} is not a number between -{limit} and {limit}",
                        written(value)
                    ),
                ))
            }
        };
        let within = |name: &str, value: f64, limit: f64| {
            if (0.0..=limit).contains(&value) {
                Ok(())
            } else {
                Err(Error::field(
                    name,
                    format!("{} is not a number between 0 and {limit}", written(value)),
                ))
            }
        };
        match self {
            Operation::Rotate { degrees, .. } => finite("degrees", *degrees, MAX_DEGREES),
            Operation::ShearX { shear, .. } | Operation::ShearY { shear, .. } => {
                finite("shear", *shear, MAX_SHEAR)
            }
            Operation::TranslateX { offset, .. } | Operation::TranslateY { offset, .. } => {
                match offset {
                    Extent::Pixels(pixels) => finite("pixels", *pixels, MAX_PIXELS),
                    Extent::Fraction(fraction) => finite("fraction", *fraction, MAX_FRACTION),
                }
            }
            Operation::Posterize { bits } if *bits > 8 => Err(Error::field(
                "bits",
                format!("{bits} is not between 0 (black) and 8 (unchanged)"),
            )),
            Operation::Solarize { threshold } => finite("threshold", *threshold, MAX_PIXELS),
            Operation::SolarizeAdd { add, .. } if !(-255..=255).contains(add) => Err(Error::field(
                "add",
                format!("{add} is not between -255 and 255"),
            )),
            Operation::Color { factor, .. }
            | Operation::Contrast { factor, .. }
            | Operation::Brightness { factor, .. }
            | Operation::Sharpness { factor, .. } => finite("factor", *factor, MAX_FACTOR),
            Operation::GaussianBlur { radius } => within("radius", *radius, MAX_RADIUS),
            Operation::Desaturate { amount } => within("amount", *amount, 1.0),
            Operation::CropBilinear { pixels } => within("pixels", f64::from(*pixels), MAX_PIXELS),
            Operation::Cutout { size, .. } => {
                let (name, limit) = match size {
                    Extent::Pixels(_) => ("size", MAX_PIXELS),
                    Extent::Fraction(_) => ("fraction", MAX_FRACTION),
                };
                finite(name, size.value(), limit)?;
                if size.value() < 0.0 {
                    return Err(Error::field(
                        name,
                        format!(
                            "{} is negative; a square has a side of 0 or more",
                            size.value()
                        ),
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

// Far beyond any use, and small enough that no arithmetic on them overflows.
const MAX_DEGREES: f64 = 1e6;
const MAX_SHEAR: f64 = 1e3;
const MAX_PIXELS: f64 = 1e6;
const MAX_FRACTION: f64 = 1e3;
const MAX_FACTOR: f64 = 1e6;
const MAX_RADIUS: f64 = 1e3;

#[cfg(test)]
mod tests;
