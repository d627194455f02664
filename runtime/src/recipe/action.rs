//! What the steps of a recipe come to for one sample.

use super::step::{Border, Erase};
use crate::resize::{PassOrder, Rect, ResizeFilter};

/// One thing done to one sample, every choice made; see
/// [`Recipe::draw`](super::Recipe::draw).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// This part of the image is resized to the recipe's size.
    ResizeCrop {
        /// The part.
        crop: Rect,
        /// The filter of the resize.
        filter: ResizeFilter,
        /// Which axis is resized first.
        order: PassOrder,
    },
    /// The whole image is resized.
    Resize {
        /// New columns.
        width: u32,
        /// New rows.
        height: u32,
        /// The filter of the resize.
        filter: ResizeFilter,
        /// Which axis is resized first.
        order: PassOrder,
    },
    /// The recipe's size is cut out from pixel (x, y) on, which may lie
    /// outside.
    Crop {
        /// First column.
        x: i64,
        /// First row.
        y: i64,
        /// What is shown outside the image.
        border: Border,
    },
    /// The policy's operations are drawn and applied.
    Policy,
    /// Left and right are exchanged.
    FlipLeftRight,
    /// Top and bottom are exchanged.
    FlipTopBottom,
    /// `ImageEnhance.Brightness` with this factor.
    Brightness(f64),
    /// `ImageEnhance.Contrast` with this factor.
    Contrast(f64),
    /// `ImageEnhance.Color` with this factor.
    Saturation(f64),
    /// The hue is shifted by this part of a turn.
    Hue(f64),
    /// Every pixel becomes grey.
    Grayscale,
    /// `ImageFilter.GaussianBlur` of this radius.
    Blur(f64),
    /// Added to red, green and blue of every pixel on the 0 to 1 scale.
    Light([f32; 3]),
    /// A part of the finished sample is set to zero.
    Cut {
        /// First column, and the one after the last.
        columns: [u32; 2],
        /// First row, and the one after the last.
        rows: [u32; 2],
    },
    /// A part of the finished sample is set to something else.
    Erase {
        /// First column, and the one after the last.
        columns: [u32; 2],
        /// First row, and the one after the last.
        rows: [u32; 2],
        /// What is put there.
        value: Erase,
    },
}
