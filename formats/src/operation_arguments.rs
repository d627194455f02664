//! What the arguments of operations are made of: rules, lengths, warps.

use serde::{Deserialize, Serialize};

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

    pub(crate) fn negated(self) -> Self {
        match self {
            Extent::Pixels(pixels) => Extent::Pixels(-pixels),
            Extent::Fraction(fraction) => Extent::Fraction(-fraction),
        }
    }

    pub(crate) fn value(self) -> f64 {
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

/// Whether a translation keeps the fraction of a pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// The offset as it is.
    #[default]
    None,
    /// Whole pixels, towards zero, as torchvision's policies have it: the offset
    /// is rounded to single precision first, as `torch.linspace` makes it, so
    /// that 74.99999999999999 of 331 pixels is 75 in both.
    Truncate,
}

impl Rounding {
    /// The offset in pixels that is used for a computed one.
    pub fn apply(self, pixels: f64) -> f64 {
        match self {
            Rounding::None => pixels,
            Rounding::Truncate => f64::from((pixels as f32).trunc()),
        }
    }

    /// Whether this is the rule of files that do not name one.
    pub fn is_default(&self) -> bool {
        *self == Rounding::default()
    }
}

/// Which values SolarizeAdd adds to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SolarizeScope {
    /// Those below the threshold; the others stay (TensorFlow's and timm's reading).
    #[default]
    Below,
    /// All of them; those that end at or above the threshold are then inverted
    /// (the reading of the first PyTorch version of RandAugment).
    All,
}

impl SolarizeScope {
    /// Whether this is the rule of files that do not name one.
    pub fn is_default(&self) -> bool {
        *self == SolarizeScope::default()
    }
}

/// How Cutout places its square.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutoutShape {
    /// Centred on a pixel that is uniform over the image: columns
    /// `c - s/2 .. c - s/2 + s`, both halves and sides in whole pixels.
    #[default]
    Centered,
    /// The rectangle that the Pillow versions of RandAugment, Fast
    /// AutoAugment and TrivialAugment draw: the centre is a pair of reals, each
    /// uniform between 1 and the side (their `np.random.uniform(w)`); the
    /// first column is trunc(max(0, c - s/2)), the last one, filled too,
    /// trunc(min(width, first + s)). So the square is up to one pixel larger
    /// than `s`, and a square cut by the left or upper border keeps its size.
    Rectangle,
}

impl CutoutShape {
    /// Whether this is the rule of files that do not name one.
    pub fn is_default(&self) -> bool {
        *self == CutoutShape::default()
    }
}
