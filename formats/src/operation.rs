//! Operations with resolved arguments: what the policy file and the kernels speak.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
    Rotate,
    Rotate90,
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

/// How a warp reads between pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// The pixel that holds the point.
    #[default]
    Nearest,
    /// Linear between 2 x 2 pixels.
    Bilinear,
    /// Cubic over 4 x 4 pixels, a = -1 as in Pillow's `transform`.
    Bicubic,
}

/// Whether the direction of an operation is drawn anew for each sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignRule {
    /// The argument as written.
    #[default]
    Fixed,
    /// The argument as written or its mirror image, each with probability 1/2.
    Random,
}

/// A length in an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Extent {
    /// Pixels, whatever the image's size.
    Pixels(f64),
    /// Fraction of the side the operation works along (Cutout: of the width).
    Fraction(f64),
}

impl Extent {
    /// The length in pixels for a side of `side` pixels.
    pub fn pixels(self, side: u32) -> f64 {
        match self {
            Extent::Pixels(pixels) => pixels,
            Extent::Fraction(fraction) => fraction * f64::from(side),
        }
    }

    fn negated(self) -> Self {
        match self {
            Extent::Pixels(pixels) => Extent::Pixels(-pixels),
            Extent::Fraction(fraction) => Extent::Fraction(-fraction),
        }
    }

    fn value(self) -> f64 {
        match self {
            Extent::Pixels(value) | Extent::Fraction(value) => value,
        }
    }
}

/// What the geometric operations share: how they read, and what they put
/// where they read outside the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warp {
    /// Colour (red, green, blue) of pixels that map outside the image.
    pub fill: [u8; 3],
    /// How values between pixels are read.
    pub interpolation: Interpolation,
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
    /// A quarter turn counter-clockwise (`Image.rotate(90)`).
    Rotate90,
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
        /// Whether the direction is drawn.
        sign: SignRule,
        /// Fill and interpolation.
        warp: Warp,
    },
    /// Output (x, y) reads input (x, y + offset): content moves up.
    TranslateY {
        /// Pixels, or fraction of the height.
        offset: Extent,
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
    /// Adds to the values below the threshold, clipped to 0..255.
    SolarizeAdd {
        /// Levels added, -255..=255.
        add: i32,
        /// Values below it are changed.
        threshold: i32,
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
    /// Fills a square whose centre is uniform over the pixels, clipped to the image.
    ///
    /// Rows and columns [c - size/2, c - size/2 + size), with the integer part
    /// of `size` and of its half.
    Cutout {
        /// Side of the square in pixels, or as a fraction of the width.
        size: Extent,
        /// Colour of the square.
        fill: [u8; 3],
    },
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
            Operation::Rotate90 => OperationKind::Rotate90,
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
        let extent = |extent: &Extent| match extent {
            Extent::Pixels(pixels) => format!("{pixels}px"),
            Extent::Fraction(fraction) => format!("{}%", fraction * 100.0),
        };
        match self {
            Operation::Rotate { degrees, .. } => format!("{kind} {plus_minus}{degrees}°"),
            Operation::ShearX { shear, .. } | Operation::ShearY { shear, .. } => {
                format!("{kind} {plus_minus}{shear}")
            }
            Operation::TranslateX { offset, .. } | Operation::TranslateY { offset, .. } => {
                format!("{kind} {plus_minus}{}", extent(offset))
            }
            Operation::Posterize { bits } => format!("{kind} {bits}b"),
            Operation::Solarize { threshold } => format!("{kind} {threshold}"),
            Operation::SolarizeAdd { add, threshold } => format!("{kind} {add}<{threshold}"),
            Operation::Color { factor, sign }
            | Operation::Contrast { factor, sign }
            | Operation::Brightness { factor, sign }
            | Operation::Sharpness { factor, sign } => match sign {
                SignRule::Fixed => format!("{kind} x{factor}"),
                SignRule::Random => {
                    // Rounded: 1.36 - 1 is 0.3600000000000001 in binary.
                    format!("{kind} x1±{}", ((factor - 1.0).abs() * 1e9).round() / 1e9)
                }
            },
            Operation::Cutout { size, .. } => format!("{kind} {}", extent(size)),
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
                    format!("{value} is not a number between -{limit} and {limit}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_names_read_back() {
        for kind in OperationKind::ALL {
            assert_eq!(kind.name().parse::<OperationKind>().unwrap(), kind);
        }
        let message = "Twirl".parse::<OperationKind>().unwrap_err().to_string();
        assert!(
            message.contains("Twirl") && message.contains("Rotate"),
            "{message}"
        );
    }

    #[test]
    fn mirroring_twice_is_the_operation() {
        for operation in crate::SearchSpace::named("paper68").unwrap().operations() {
            let twice = operation.mirrored().mirrored();
            assert_eq!(twice.kind(), operation.kind());
            if let (Operation::Color { factor: a, .. }, Operation::Color { factor: b, .. }) =
                (twice, *operation)
            {
                assert!((a - b).abs() < 1e-12);
            }
        }
        let shear = Operation::ShearX {
            shear: 0.3,
            sign: SignRule::Random,
            warp: Warp::default(),
        };
        assert!(matches!(shear.mirrored(), Operation::ShearX { shear, .. } if shear == -0.3));
    }

    #[test]
    fn out_of_range_arguments_are_named() {
        let cases: [(Operation, &str); 5] = [
            (Operation::Posterize { bits: 9 }, "bits"),
            (
                Operation::Rotate {
                    degrees: f64::NAN,
                    sign: SignRule::Fixed,
                    warp: Warp::default(),
                },
                "degrees",
            ),
            (
                Operation::Color {
                    factor: f64::INFINITY,
                    sign: SignRule::Fixed,
                },
                "factor",
            ),
            (
                Operation::Cutout {
                    size: Extent::Pixels(-1.0),
                    fill: [0; 3],
                },
                "size",
            ),
            (
                Operation::SolarizeAdd {
                    add: 400,
                    threshold: 128,
                },
                "add",
            ),
        ];
        for (operation, field) in cases {
            let Err(Error::Field { field: named, .. }) = operation.validate() else {
                panic!("{operation:?} was accepted");
            };
            assert_eq!(named, field);
        }
    }
}
