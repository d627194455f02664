//! The steps of a recipe, as data.

use crate::output::Normalization;
use crate::resize::{PassOrder, ResizeFilter};

/// One step of a [`Recipe`](super::Recipe).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// A random part of the image, resized to the recipe's size: torchvision's
    /// `RandomResizedCrop` (ten attempts, then a central crop), resized as
    /// Pillow resizes.
    RandomResizedCrop {
        /// Least and greatest share of the image's area.
        scale: [f64; 2],
        /// Least and greatest ratio of width to height.
        ratio: [f64; 2],
        /// The filter of the resize.
        filter: ResizeFilter,
        /// Which axis is resized first.
        order: PassOrder,
    },
    /// The whole image at another size: torchvision's `Resize`.
    Resize {
        /// The size.
        to: ResizeTo,
        /// The filter of the resize.
        filter: ResizeFilter,
        /// Which axis is resized first.
        order: PassOrder,
    },
    /// The middle of the image at the recipe's size, with a black border where
    /// the image is smaller: torchvision's `CenterCrop`.
    CenterCrop,
    /// The operations the policy draws for the sample in this epoch.
    Policy,
    /// A crop of the recipe's size out of the image with a border, as
    /// torchvision's `RandomCrop(size, padding, fill, padding_mode)`.
    RandomCrop {
        /// Width of the border, pixels.
        padding: u32,
        /// What the border shows.
        border: Border,
    },
    /// Left and right exchanged, by chance.
    RandomFlip {
        /// The chance.
        probability: f64,
    },
    /// Top and bottom exchanged, by chance.
    RandomVerticalFlip {
        /// The chance.
        probability: f64,
    },
    /// Brightness, contrast, saturation and hue by random factors in random
    /// order: torchvision's `ColorJitter` on PIL images.
    ColorJitter(ColorJitter),
    /// The grey version of the image, by chance: torchvision's
    /// `RandomGrayscale` on PIL images.
    RandomGrayscale {
        /// The chance.
        probability: f64,
    },
    /// Pillow's `ImageFilter.GaussianBlur` of a random radius, by chance (as
    /// SimCLR and MoCo v2 use it).
    GaussianBlur {
        /// The chance.
        probability: f64,
        /// Least and greatest radius (standard deviation), pixels.
        sigma: [f64; 2],
    },
    /// A random amount of the colours' principal components added to every
    /// pixel, not clipped: AlexNet's lighting noise.
    Lighting(Lighting),
    /// From pixels to normalised values (left out for `u8` output).
    Normalize(Normalization),
    /// Squares at zero, after normalising: rows and columns
    /// [c - size/2, c + size/2) about centres uniform over the pixels,
    /// clipped to the image. For `u8` output the pixel nearest to the mean.
    Cutout {
        /// Side of a square, pixels.
        size: u32,
        /// How many squares; each is drawn on its own, and they may overlap.
        count: u32,
    },
    /// Rectangles set to something else, after normalising, by chance:
    /// torchvision's and timm's `RandomErasing`.
    RandomErasing(RandomErasing),
}

impl Step {
    /// Its `kind` in a recipe file.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Step::RandomResizedCrop { .. } => "random-resized-crop",
            Step::Resize { .. } => "resize",
            Step::CenterCrop => "center-crop",
            Step::Policy => "policy",
            Step::RandomCrop { .. } => "random-crop",
            Step::RandomFlip { .. } => "horizontal-flip",
            Step::RandomVerticalFlip { .. } => "vertical-flip",
            Step::ColorJitter(_) => "color-jitter",
            Step::RandomGrayscale { .. } => "grayscale",
            Step::GaussianBlur { .. } => "gaussian-blur",
            Step::Lighting(_) => "lighting",
            Step::Normalize(_) => "normalize",
            Step::Cutout { .. } => "cutout",
            Step::RandomErasing(_) => "random-erasing",
        }
    }

    /// Every [`Step::kind`].
    pub const KINDS: [&'static str; 14] = [
        "random-resized-crop",
        "resize",
        "center-crop",
        "policy",
        "random-crop",
        "horizontal-flip",
        "vertical-flip",
        "color-jitter",
        "grayscale",
        "gaussian-blur",
        "lighting",
        "normalize",
        "cutout",
        "random-erasing",
    ];
}

/// Size a whole image is resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeTo {
    /// The shorter side gets this many pixels, the longer one
    /// `int(pixels * longer / shorter)`, torchvision's rule.
    Shorter(u32),
    /// Exactly this size, whatever the ratio.
    Exact {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
    },
}

/// What lies beyond the edges of a padded image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    /// One colour.
    Constant([u8; 3]),
    /// The nearest pixel of the edge.
    Edge,
    /// The image mirrored at the middle of the edge pixels: `c b | a b c`.
    Reflect,
    /// The image mirrored at the edge: `b a | a b c`.
    Symmetric,
}

impl Border {
    /// A black border.
    pub const BLACK: Border = Border::Constant([0; 3]);
}

/// Ranges of the factors of [`Step::ColorJitter`]. A range of only 1 (hue: 0)
/// leaves its part out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColorJitter {
    /// The chance that anything is done at all.
    pub probability: f64,
    /// Factors of `ImageEnhance.Brightness`.
    pub brightness: [f64; 2],
    /// Factors of `ImageEnhance.Contrast`.
    pub contrast: [f64; 2],
    /// Factors of `ImageEnhance.Color`.
    pub saturation: [f64; 2],
    /// Shift of the hue in turns, -0.5 to 0.5.
    pub hue: [f64; 2],
}

impl Default for ColorJitter {
    /// Nothing is changed.
    fn default() -> Self {
        Self {
            probability: 1.0,
            brightness: [1.0; 2],
            contrast: [1.0; 2],
            saturation: [1.0; 2],
            hue: [0.0; 2],
        }
    }
}

/// Arguments of [`Step::Lighting`]: `eigenvectors * (alpha . eigenvalues)` is
/// added to each pixel on the 0 to 1 scale, with three alphas from a normal
/// distribution, before normalising.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lighting {
    /// Standard deviation of the alphas.
    pub std: f64,
    /// One for each principal component.
    pub eigenvalues: [f64; 3],
    /// A row for red, green and blue; a column for each component.
    pub eigenvectors: [[f64; 3]; 3],
}

impl Lighting {
    /// The components of ImageNet's colours as the usual recipes give them
    /// (fb.resnet.torch, from AlexNet), with alphas of deviation `std`; the
    /// usual one is 0.1.
    #[must_use]
    pub const fn imagenet(std: f64) -> Self {
        Self {
            std,
            eigenvalues: [0.2175, 0.0188, 0.0045],
            eigenvectors: [
                [-0.5675, 0.7192, 0.4009],
                [-0.5808, -0.0045, -0.8140],
                [-0.5836, -0.6948, 0.4203],
            ],
        }
    }
}

/// Arguments of [`Step::RandomErasing`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomErasing {
    /// The chance that anything is erased.
    pub probability: f64,
    /// Least and greatest share of the image's area, divided among the
    /// rectangles.
    pub scale: [f64; 2],
    /// Least and greatest ratio of height to width.
    pub ratio: [f64; 2],
    /// How many rectangles.
    pub count: u32,
    /// What is put there.
    pub value: Erase,
}

impl Default for RandomErasing {
    /// torchvision's defaults.
    fn default() -> Self {
        Self {
            probability: 0.5,
            scale: [0.02, 0.33],
            ratio: [0.3, 3.3],
            count: 1,
            value: Erase::Constant([0.0; 3]),
        }
    }
}

/// What an erased rectangle holds, in normalised units: 0 is the mean of the
/// channel. For `u8` output the nearest pixel value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Erase {
    /// These values of red, green and blue.
    Constant([f32; 3]),
    /// One colour for the rectangle, each channel from the standard normal
    /// distribution (timm's `rand`).
    Color,
    /// Every value of every pixel from the standard normal distribution
    /// (timm's `pixel`, torchvision's `random`).
    Noise,
}
