//! Neighbourhood filters: Pillow's `SMOOTH` (3x3) and `BLUR` (5x5).
//!
//! Pillow (`Filter.c`) adds the weighted taps in single precision, row by row,
//! with 0.5 for rounding, and truncates. For these two kernels plain integers
//! give the same bytes:
//!
//! - `BLUR` weighs 16 taps by 1/16. Every partial sum is a multiple of 1/16
//!   below 256 and so exact in single precision: the result is
//!   `(sum + 8) >> 4`.
//! - `SMOOTH` weighs by 1/13 and 5/13. The exact value plus 0.5 is
//!   `(2 sum + 13) / 26`, whose numerator is odd: it stays at least 1/26 away
//!   from any integer, while the rounding errors of the nine products and ten
//!   sums stay below 0.001. Truncation gives `(sum + 6) / 13` in both.
//!
//! The tests hold both against a literal single-precision version. Pixels
//! nearer to the border than the kernel reaches are copied, as is an image
//! smaller than the kernel.

#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::cpu::for_each_cpu;
use crate::image::Image;

/// Scratch of the filters: sums of one row of source bytes.
#[derive(Debug, Default)]
pub(super) struct FilterScratch {
    inner: Vec<u16>,
    outer: Vec<u16>,
}

/// Weights 1 around a 5, over 13.
pub(super) fn smooth(source: &Image, scratch: &mut FilterScratch, target: &mut Image) {
    if source.width() < 3 || source.height() < 3 {
        return target.copy_from(source);
    }
    copy_border(source, 1, target);
    #[cfg(target_arch = "x86_64")]
    if x86::smooth(source.pixels(), source.stride(), target.pixels_mut()) {
        return;
    }
    let columns = &mut scratch.inner;
    columns.resize(source.stride(), 0);
    for y in 1..source.height() - 1 {
        let rows = [source.row(y - 1), source.row(y), source.row(y + 1)];
        smooth_row(rows, columns, target.row_mut(y));
    }
}

/// Weights 1 on the outer ring of 5x5, over 16.
pub(super) fn blur(source: &Image, scratch: &mut FilterScratch, target: &mut Image) {
    if source.width() < 5 || source.height() < 5 {
        return target.copy_from(source);
    }
    copy_border(source, 2, target);
    #[cfg(target_arch = "x86_64")]
    if x86::blur(source.pixels(), source.stride(), target.pixels_mut()) {
        return;
    }
    scratch.inner.resize(source.stride(), 0);
    scratch.outer.resize(source.stride(), 0);
    for y in 2..source.height() - 2 {
        let rows = [y - 2, y - 1, y, y + 1, y + 2].map(|y| source.row(y));
        blur_row(rows, scratch, target.row_mut(y));
    }
}

/// Gives `target` the size of `source` and a border of `reach` pixels from it,
/// which the image is large enough for.
fn copy_border(source: &Image, reach: u32, target: &mut Image) {
    target.reshape(source.width(), source.height());
    let edge = reach as usize * 3;
    let right = source.stride() - edge;
    for y in 0..source.height() {
        let (from, to) = (source.row(y), target.row_mut(y));
        if y < reach || y >= source.height() - reach {
            to.copy_from_slice(from);
        } else {
            to[..edge].copy_from_slice(&from[..edge]);
            to[right..].copy_from_slice(&from[right..]);
        }
    }
}

for_each_cpu! {
    /// One row of [`smooth`] but for its first and last pixel.
    fn smooth_row(rows: [&[u8]; 3], columns: &mut [u16], out: &mut [u8]) {
        sum_rows(columns, rows);
        let count = out.len() - 6;
        let middle = &rows[1][3..][..count];
        let [left, here, right] = [0, 3, 6].map(|offset| &columns[offset..][..count]);
        let out = &mut out[3..][..count];
        for i in 0..count {
            let sum = left[i] + here[i] + right[i] + 4 * u16::from(middle[i]);
            out[i] = divide_by_13(sum + 6);
        }
    }
}

for_each_cpu! {
    /// One row of [`blur`] but for two pixels at each end.
    fn blur_row(rows: [&[u8]; 5], scratch: &mut FilterScratch, out: &mut [u8]) {
        let FilterScratch { inner, outer } = scratch;
        // The two full rows of the ring, and the three rows between them of
        // which only the ends belong to it.
        let [top, upper, middle, lower, bottom] = rows;
        for (sum, (&a, &b)) in outer.iter_mut().zip(top.iter().zip(bottom)) {
            *sum = u16::from(a) + u16::from(b);
        }
        sum_rows(inner, [upper, middle, lower]);
        let count = out.len() - 12;
        let ring = [0, 3, 6, 9, 12].map(|offset| &outer[offset..][..count]);
        let (left, right) = (&inner[..count], &inner[12..][..count]);
        let out = &mut out[6..][..count];
        for i in 0..count {
            let rows = ring[0][i] + ring[1][i] + ring[2][i] + ring[3][i] + ring[4][i];
            out[i] = ((rows + left[i] + right[i] + 8) >> 4) as u8;
        }
    }
}

/// Sums of three rows, byte by byte.
#[inline(always)]
fn sum_rows(sums: &mut [u16], [a, b, c]: [&[u8]; 3]) {
    for (sum, ((&a, &b), &c)) in sums.iter_mut().zip(a.iter().zip(b).zip(c)) {
        *sum = u16::from(a) + u16::from(b) + u16::from(c);
    }
}

/// `n / 13` for every `n` up to 13 * 255 + 6.
#[inline(always)]
fn divide_by_13(n: u16) -> u8 {
    // 5042 * 13 = 65536 + 10, and 10 n stays below 65536.
    ((u32::from(n) * 5042) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::test_images::Kind;

    /// `Filter.c` to the letter: coefficients divided beforehand, rows from
    /// the lowest up, each row summed left to right, no fused operations.
    fn literal(source: &Image, kernel: &[f32], scale: f32) -> Image {
        let side = kernel.len().isqrt();
        let reach = side / 2;
        let (width, height) = (source.width() as usize, source.height() as usize);
        let mut target = source.clone();
        if width < side || height < side {
            return target;
        }
        for y in reach..height - reach {
            for x in reach..width - reach {
                for channel in 0..3 {
                    let mut sum = 0.5f32;
                    for row in 0..side {
                        let taps = source.row((y + reach - row) as u32);
                        let product = |column: usize| {
                            f32::from(taps[(x + column - reach) * 3 + channel])
                                * (kernel[row * side + column] / scale)
                        };
                        let mut row_sum = product(0);
                        for column in 1..side {
                            row_sum += product(column);
                        }
                        sum += row_sum;
                    }
                    let value = sum.clamp(0.0, 255.0) as u8;
                    target.row_mut(y as u32)[x * 3 + channel] = value;
                }
            }
        }
        target
    }

    #[test]
    fn integers_equal_the_single_precision_sums() {
        let smooth_kernel = [1., 1., 1., 1., 5., 1., 1., 1., 1.];
        let mut blur_kernel = [0.; 25];
        for (i, weight) in blur_kernel.iter_mut().enumerate() {
            let ring = i / 5 == 0 || i / 5 == 4 || i % 5 == 0 || i % 5 == 4;
            *weight = if ring { 1. } else { 0. };
        }
        let mut scratch = FilterScratch::default();
        let mut target = Image::default();
        for kind in Kind::ALL {
            for (width, height) in [(1, 1), (2, 9), (3, 3), (4, 6), (5, 5), (33, 17), (97, 64)] {
                let pixels = kind.pixels(width, height);
                let source = Image::from_rgb(width, height, pixels).unwrap();
                smooth(&source, &mut scratch, &mut target);
                assert_eq!(target, literal(&source, &smooth_kernel, 13.0), "smooth");
                blur(&source, &mut scratch, &mut target);
                assert_eq!(target, literal(&source, &blur_kernel, 16.0), "blur");
            }
        }
    }

    #[test]
    fn every_dividend_is_divided_exactly() {
        for n in 0..=13 * 255 + 6 {
            assert_eq!(u16::from(divide_by_13(n)), n / 13);
        }
    }

    #[test]
    fn the_border_is_copied() {
        let mut source = Image::new(5, 5);
        source.fill([200, 100, 50]);
        source.row_mut(2)[6..9].copy_from_slice(&[0, 0, 0]);
        let mut target = Image::default();
        blur(&source, &mut FilterScratch::default(), &mut target);
        // Only the middle pixel has a whole ring, all of one colour.
        assert_eq!(target.pixel(2, 2), Some([200, 100, 50]));
        assert_eq!(target.row(1), source.row(1));
    }
}
