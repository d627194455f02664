//! Pixels to the numbers a trainer reads: normalised, in their final type and
//! layout, written once, straight into their place in the batch.

mod erase;
mod view;
#[cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "vector loads and stores go through pointers")
)]
mod wide;
mod writer;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

pub(crate) use erase::Eraser;
pub(crate) use view::View;
pub(crate) use writer::{Hole, Writer};

/// Type of a delivered value, in the machine's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// Pixels as they are, 0 to 255, not normalised.
    U8,
    /// Normalised, single precision.
    F32,
    /// Normalised, IEEE half precision, rounded from single precision.
    F16,
    /// Normalised, bfloat16, rounded from single precision.
    Bf16,
}

impl Dtype {
    /// Every type.
    pub const ALL: [Dtype; 4] = [Dtype::U8, Dtype::F32, Dtype::F16, Dtype::Bf16];

    /// Bytes a value.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Dtype::U8 => 1,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::F32 => 4,
        }
    }

    /// Lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::U8 => "u8",
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }
}

/// Order of a sample's axes, the last one contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Channel, row, column (PyTorch's default).
    Nchw,
    /// Row, column, channel.
    Nhwc,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 2] = [Layout::Nchw, Layout::Nhwc];

    /// Lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Nchw => "nchw",
            Layout::Nhwc => "nhwc",
        }
    }
}

/// `Display` and `FromStr` by the names of `ALL`.
macro_rules! text_by_name {
    ($type:ty, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self> {
                Self::ALL
                    .into_iter()
                    .find(|value| value.name() == name)
                    .ok_or_else(|| Error::unknown_name($what, name, Self::ALL.map(Self::name)))
            }
        }
    };
}

text_by_name!(Dtype, "dtype");
text_by_name!(Layout, "layout");

/// What a trainer is handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutputFormat {
    /// Type of a value.
    pub dtype: Dtype,
    /// Order of the axes.
    pub layout: Layout,
}

/// Mean and standard deviation per channel (red, green, blue) on the 0 to 1
/// scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// Subtracted first.
    pub mean: [f32; 3],
    /// Divided by then; positive.
    pub std: [f32; 3],
}

impl Normalization {
    /// `(value / 255 - mean) / std` of each channel, each step rounded to
    /// single precision: the very numbers torchvision's `ToTensor` and
    /// `Normalize` give.
    ///
    /// ```
    /// use ddas_runtime::Normalization;
    ///
    /// let half = Normalization { mean: [0.5; 3], std: [0.5; 3] };
    /// assert_eq!(half.apply([255, 0, 0]), [1.0, -1.0, -1.0]);
    /// ```
    #[must_use]
    pub fn apply(&self, pixel: [u8; 3]) -> [f32; 3] {
        let channel = |i: usize| (f32::from(pixel[i]) / 255.0 - self.mean[i]) / self.std[i];
        [channel(0), channel(1), channel(2)]
    }

    /// The pixel nearest to the mean, what 0 is before normalising.
    #[must_use]
    pub fn mean_pixel(&self) -> [u8; 3] {
        // Saturates: a mean outside 0..1 has no pixel of its own.
        self.mean.map(|mean| (mean * 255.0).round() as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All 768 values of each recipe against those of PyTorch 2.11, from
    /// `torch.arange(256, dtype=torch.uint8).to(torch.float32).div(255)` by
    /// `sub_(mean)` and `div_(std)`: 64-bit FNV-1a over the little-endian
    /// bytes, channel by channel.
    #[test]
    fn values_are_those_of_torch() {
        let cifar = Normalization {
            mean: [0.4914, 0.4822, 0.4465],
            std: [0.2023, 0.1994, 0.2010],
        };
        let imagenet = Normalization {
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        };
        for (normalization, expected) in [
            (cifar, 0xed10_94eb_eeee_b170),
            (imagenet, 0xe24d_709a_66de_7cc0),
        ] {
            let mut hash = 0xcbf2_9ce4_8422_2325u64;
            for channel in 0..3 {
                for value in 0..=u8::MAX {
                    for byte in normalization.apply([value; 3])[channel].to_le_bytes() {
                        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                    }
                }
            }
            assert_eq!(hash, expected, "{normalization:?}");
        }
    }

    #[test]
    fn names_parse_and_print() {
        for dtype in Dtype::ALL {
            assert_eq!(dtype.to_string().parse::<Dtype>().unwrap(), dtype);
        }
        for layout in Layout::ALL {
            assert_eq!(layout.to_string().parse::<Layout>().unwrap(), layout);
        }
        let error = "f64".parse::<Dtype>().unwrap_err().to_string();
        assert_eq!(error, "unknown dtype `f64`; known are u8, f32, f16, bf16");
    }
}
