//! Carrying a mixture out, in place, in every output format.

use crate::cpu::for_each_cpu;
use crate::output::{Dtype, Layout, OutputFormat};

/// What becomes of a pair of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Blend {
    /// Nothing.
    None,
    /// Each becomes `weight` times itself plus `1 - weight` times its partner.
    Sum {
        /// The share of a sample's own pixels, 0 to 1.
        weight: f64,
    },
    /// They exchange a rectangle.
    Rectangle {
        /// Left column, right column (not included).
        columns: [u32; 2],
        /// Upper row, lower row (not included).
        rows: [u32; 2],
        /// The share of the area that is not exchanged.
        weight: f64,
    },
}

impl Blend {
    pub(super) fn sum(weight: f64) -> Blend {
        Blend::Sum { weight }
    }

    /// torchvision's rectangle for a share of `1 - weight`, about `center` (column, row), in an image of
    /// `size` x `size` pixels.
    pub(super) fn rectangle(weight: f64, center: (u32, u32), size: u32) -> Blend {
        // int(0.5 * sqrt(1 - weight) * size)
        let half = (0.5 * (1.0 - weight).sqrt() * f64::from(size)) as u32;
        let span = |center: u32| [center.saturating_sub(half), (center + half).min(size)];
        let (columns, rows) = (span(center.0), span(center.1));
        let area = f64::from(columns[1] - columns[0]) * f64::from(rows[1] - rows[0]);
        Blend::Rectangle {
            columns,
            rows,
            weight: 1.0 - area / (f64::from(size) * f64::from(size)),
        }
    }

    /// The share of a sample's own label, as trainers are told it.
    #[must_use]
    pub fn weight(&self) -> f32 {
        match *self {
            Blend::None => 1.0,
            Blend::Sum { weight } | Blend::Rectangle { weight, .. } => weight as f32,
        }
    }

    /// Mixes two samples of `size` x `size` pixels in place.
    ///
    /// Sums in `f32` are torchvision's, bit for bit: `weight * a + (1 - weight) * b` in single precision. `f16` and
    /// `bf16` are summed in single precision and rounded once; `u8` is the nearest level, halves within 1/50 of a
    /// level going either way.
    ///
    /// # Panics
    /// When a slice does not hold one sample in that format.
    pub fn apply(&self, format: OutputFormat, size: u32, first: &mut [u8], second: &mut [u8]) {
        let bytes = 3 * size as usize * size as usize * format.dtype.size();
        assert!(
            first.len() == bytes && second.len() == bytes,
            "samples of {bytes} bytes, not {} and {}",
            first.len(),
            second.len()
        );
        match *self {
            Blend::None => {}
            Blend::Sum { weight } => {
                let weights = [weight as f32, (1.0 - weight) as f32];
                match format.dtype {
                    Dtype::U8 => sum_u8(first, second, weight),
                    Dtype::F32 => sum_f32(first, second, weights),
                    Dtype::F16 => sum_f16(first, second, weights),
                    Dtype::Bf16 => sum_bf16(first, second, weights),
                }
            }
            Blend::Rectangle { columns, rows, .. } => {
                let size = size as usize;
                let [left, right] = columns.map(|column| column as usize);
                let rows = rows[0] as usize..rows[1] as usize;
                let width = format.dtype.size();
                let (planes, pixel) = match format.layout {
                    Layout::Nchw => (3, width),
                    Layout::Nhwc => (1, 3 * width),
                };
                for plane in 0..planes {
                    for row in rows.clone() {
                        let start = (plane * size + row) * size;
                        let part = (start + left) * pixel..(start + right) * pixel;
                        first[part.clone()].swap_with_slice(&mut second[part]);
                    }
                }
            }
        }
    }
}

/// `b + (a - b) * weight`, the weight in units of 2^-15, in 16-bit arithmetic: the difference in units of 2^-7, its
/// share in units of 2^-6.
#[inline(always)]
fn between(a: u8, b: u8, weight: i16) -> u8 {
    let difference = (i16::from(a) - i16::from(b)) << 7;
    // The upper half of the product: one instruction, `pmulhw`.
    let share = ((i32::from(difference) * i32::from(weight)) >> 16) as i16;
    (i16::from(b) + ((share + 32) >> 6)) as u8
}

fn sum_u8(first: &mut [u8], second: &mut [u8], weight: f64) {
    // A weight of 1 becomes 1 - 2^-15, which changes no level.
    sum_levels(
        first,
        second,
        (weight * 32768.0).round().min(32767.0) as i16,
    );
}

for_each_cpu! {
    avx512
    fn sum_levels(first: &mut [u8], second: &mut [u8], weight: i16) {
        for (first, second) in first.iter_mut().zip(second) {
            let (a, b) = (*first, *second);
            *first = between(a, b, weight);
            *second = between(b, a, weight);
        }
    }
}

for_each_cpu! {
    avx512
    fn sum_f32(first: &mut [u8], second: &mut [u8], weights: [f32; 2]) {
        let second = second.as_chunks_mut::<4>().0;
        for (first, second) in first.as_chunks_mut::<4>().0.iter_mut().zip(second) {
            let (a, b) = (f32::from_ne_bytes(*first), f32::from_ne_bytes(*second));
            *first = (b * weights[1] + a * weights[0]).to_ne_bytes();
            *second = (a * weights[1] + b * weights[0]).to_ne_bytes();
        }
    }
}

for_each_cpu! {
    avx512
    fn sum_bf16(first: &mut [u8], second: &mut [u8], weights: [f32; 2]) {
        // The values of a batch are finite: rounding needs no care for NaN.
        let widen = |bytes: [u8; 2]| f32::from_bits(u32::from(u16::from_ne_bytes(bytes)) << 16);
        let narrow = |value: f32| {
            let bits = value.to_bits();
            ((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16).to_ne_bytes()
        };
        let second = second.as_chunks_mut::<2>().0;
        for (first, second) in first.as_chunks_mut::<2>().0.iter_mut().zip(second) {
            let (a, b) = (widen(*first), widen(*second));
            *first = narrow(b * weights[1] + a * weights[0]);
            *second = narrow(a * weights[1] + b * weights[0]);
        }
    }
}

for_each_cpu! {
    avx512
    fn sum_f16(first: &mut [u8], second: &mut [u8], weights: [f32; 2]) {
        let second = second.as_chunks_mut::<2>().0;
        for (first, second) in first.as_chunks_mut::<2>().0.iter_mut().zip(second) {
            let (a, b) = (widen(*first), widen(*second));
            *first = narrow(b * weights[1] + a * weights[0]);
            *second = narrow(a * weights[1] + b * weights[0]);
        }
    }
}

/// A finite half-precision number. Without branches, so that many are converted at once on every machine.
#[inline(always)]
fn widen(bytes: [u8; 2]) -> f32 {
    let half = u32::from(u16::from_ne_bytes(bytes));
    // The exponents' biases differ by 112: scaling by a power of two is exact, also for the smallest numbers.
    let scale = f32::from_bits((127 + 112) << 23);
    let magnitude = f32::from_bits((half & 0x7fff) << 13) * scale;
    f32::from_bits(magnitude.to_bits() | (half & 0x8000) << 16)
}

/// The half-precision number nearest to a finite one, ties to even; beyond the largest, infinity.
#[inline(always)]
fn narrow(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    // Rebased, rounded at the 13 bits that go.
    let normal = magnitude.wrapping_sub((112 << 23) - 0xfff - (magnitude >> 13 & 1)) >> 13;
    // Below 2^-14 halves are multiples of 2^-24: adding 1/2, whose neighbours are that far apart, rounds to them.
    let small = (f32::from_bits(magnitude) + 0.5)
        .to_bits()
        .wrapping_sub(0.5f32.to_bits());
    let half = if magnitude < 113 << 23 { small } else { normal };
    let half = if magnitude >= (127 + 16) << 23 {
        0x7c00
    } else {
        half
    };
    ((half | sign) as u16).to_ne_bytes()
}

#[cfg(test)]
mod tests;
