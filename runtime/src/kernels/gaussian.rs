//! Gaussian blur as Pillow approximates it (`BoxBlur.c`): three box filters
//! along the rows, then three along the columns.
//!
//! A box of fractional radius `r` weighs the `2 floor(r) + 1` values around a
//! position alike and the two beyond them by what is left; positions outside
//! the image read its border. Weights have 24 fraction bits, and each of the
//! six results is rounded to 8 bits again. The radius of the box follows from
//! the standard deviation in single precision, as in Pillow (Gwosdek et al.,
//! "Theoretical foundations of Gaussian convolution by extended box
//! filtering", equations 7, 11 and 14).
//!
//! Both directions run through one loop over positions that handles [`LANES`]
//! bytes at each: 16 rows of pixels along the rows, 48 bytes of every row
//! along the columns.

use crate::cpu::for_each_cpu;
use crate::image::Image;

/// Passes in each direction.
const PASSES: usize = 3;
/// Rows worked on together along the rows.
const ROWS: usize = 16;
/// Bytes worked on together at one position.
const LANES: usize = ROWS * 3;

/// Two strips of the image: what a pass reads and what it writes.
#[derive(Debug, Default)]
pub(super) struct BlurScratch {
    from: Vec<[u8; LANES]>,
    to: Vec<[u8; LANES]>,
}

/// Blurs with standard deviation `sigma`; what is not above 0 leaves the image
/// as it is.
pub(super) fn gaussian_blur(image: &mut Image, sigma: f64, scratch: &mut BlurScratch) {
    if let Some(filter) = BoxFilter::of_gaussian(sigma as f32)
        && !image.is_empty()
    {
        along_rows(image, &filter, scratch);
        along_columns(image, &filter, scratch);
    }
}

/// The weights of one box filter.
#[derive(Clone, Copy, Debug, PartialEq)]
struct BoxFilter {
    /// Values to each side that count in full.
    radius: usize,
    /// Weight of those, and of the two beyond them; 1 is 2^24.
    inner: u32,
    outer: u32,
}

impl BoxFilter {
    /// The filter that, applied three times, has standard deviation `sigma`;
    /// `None` where it would change nothing.
    fn of_gaussian(sigma: f32) -> Option<BoxFilter> {
        let variance = sigma * sigma / PASSES as f32;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
        let mut rest = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance);
        rest /= 6.0 * (variance - (whole + 1.0) * (whole + 1.0));
        let radius = whole + rest;
        // Not a number for deviations beyond single precision.
        if radius.is_nan() || radius <= 0.0 {
            return None;
        }
        // Beyond every image there is; keeps the sums within 32 bits.
        let radius = radius.min(1e6);
        let inner = (16_777_216.0 / (radius * 2.0 + 1.0)) as u32;
        let full = radius as u32;
        let outer = (1u32 << 24).wrapping_sub((full * 2 + 1).wrapping_mul(inner)) / 2;
        Some(BoxFilter {
            radius: full as usize,
            inner,
            outer,
        })
    }
}

/// Filters the rows, [`ROWS`] at a time: position is the column.
fn along_rows(image: &mut Image, filter: &BoxFilter, scratch: &mut BlurScratch) {
    let (width, stride) = (image.width() as usize, image.stride());
    scratch.resize(width);
    for rows in image.pixels_mut().chunks_mut(ROWS * stride) {
        for (i, row) in rows.chunks_exact(stride).enumerate() {
            for (lanes, pixel) in scratch.from.iter_mut().zip(row.as_chunks::<3>().0) {
                lanes[3 * i..][..3].copy_from_slice(pixel);
            }
        }
        scratch.run(filter);
        for (i, row) in rows.chunks_exact_mut(stride).enumerate() {
            for (lanes, pixel) in scratch.from.iter().zip(row.as_chunks_mut::<3>().0) {
                pixel.copy_from_slice(&lanes[3 * i..][..3]);
            }
        }
    }
}

/// Filters the columns, [`LANES`] bytes of a row at a time: position is the row.
fn along_columns(image: &mut Image, filter: &BoxFilter, scratch: &mut BlurScratch) {
    let (height, stride) = (image.height() as usize, image.stride());
    scratch.resize(height);
    for start in (0..stride).step_by(LANES) {
        let count = LANES.min(stride - start);
        let rows = image.pixels().chunks_exact(stride);
        for (lanes, row) in scratch.from.iter_mut().zip(rows) {
            lanes[..count].copy_from_slice(&row[start..][..count]);
        }
        scratch.run(filter);
        let rows = image.pixels_mut().chunks_exact_mut(stride);
        for (lanes, row) in scratch.from.iter().zip(rows) {
            row[start..][..count].copy_from_slice(&lanes[..count]);
        }
    }
}

impl BlurScratch {
    fn resize(&mut self, positions: usize) {
        self.from.resize(positions, [0; LANES]);
        self.to.resize(positions, [0; LANES]);
    }

    /// All passes over the strip in `from`, which holds the result.
    fn run(&mut self, filter: &BoxFilter) {
        for _ in 0..PASSES {
            filter_strip(&self.from, &mut self.to, filter);
            std::mem::swap(&mut self.from, &mut self.to);
        }
    }
}

for_each_cpu! {
    /// One pass along a strip, which is not empty; both have its length.
    fn filter_strip(from: &[[u8; LANES]], to: &mut [[u8; LANES]], filter: &BoxFilter) {
        let last = from.len() - 1;
        let BoxFilter { radius, inner, outer } = *filter;
        // The sums around the position before the first, all to whose left
        // reads the first.
        let mut sums = [0u32; LANES];
        let mut add = |position: usize, times: usize| {
            for (sum, &value) in sums.iter_mut().zip(&from[position]) {
                *sum += u32::from(value) * times as u32;
            }
        };
        add(0, radius + 1);
        let inside = radius.min(last + 1);
        for position in 0..inside {
            add(position, 1);
        }
        add(last, radius - inside);
        for (position, out) in to.iter_mut().enumerate() {
            let gone = &from[(position.saturating_sub(radius + 1)).min(last)];
            let added = &from[(position + radius).min(last)];
            let beyond = &from[(position + radius + 1).min(last)];
            for i in 0..LANES {
                let sum = sums[i] + u32::from(added[i]) - u32::from(gone[i]);
                sums[i] = sum;
                let edges = u32::from(gone[i]) + u32::from(beyond[i]);
                // At most 255 ones, and one half: within 32 bits.
                let value = sum
                    .wrapping_mul(inner)
                    .wrapping_add(edges.wrapping_mul(outer))
                    .wrapping_add(1 << 23);
                out[i] = (value >> 24) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::test_images::Kind;

    #[test]
    fn deviations_that_change_nothing() {
        for sigma in [0.0, -0.0, f32::NAN, f32::INFINITY, 1e30, 1e-30] {
            assert_eq!(BoxFilter::of_gaussian(sigma), None, "{sigma}");
        }
        // A single value, three boxes of radius 1: sigma is sqrt(3 * 2/3).
        let filter = BoxFilter::of_gaussian(2f32.sqrt()).unwrap();
        let thirds = (1 << 24) / 3;
        assert!(filter.inner.abs_diff(thirds) < 20, "{filter:?}");
        assert!(filter.radius <= 1);
    }

    /// The variance of the impulse response, which no rounding spoils much.
    #[test]
    fn the_deviation_is_the_one_asked_for() {
        let mut image = Image::new(129, 1);
        image.row_mut(0)[64 * 3..][..3].fill(255);
        let mut scratch = BlurScratch::default();
        for sigma in [1.5, 2.0, 4.0] {
            let mut blurred = image.clone();
            gaussian_blur(&mut blurred, sigma, &mut scratch);
            let values: Vec<f64> = blurred
                .pixels()
                .iter()
                .step_by(3)
                .copied()
                .map(f64::from)
                .collect();
            let sum: f64 = values.iter().sum();
            let variance: f64 = values
                .iter()
                .enumerate()
                .map(|(x, value)| value * (x as f64 - 64.0).powi(2))
                .sum::<f64>()
                / sum;
            assert!(
                (variance.sqrt() - sigma).abs() < 0.1,
                "{sigma}: {}",
                variance.sqrt()
            );
        }
    }

    /// The sums that slide equal those made afresh, wherever the window lies.
    #[test]
    fn windows_beyond_the_image_read_its_border() {
        let (width, height) = (7, 19);
        let source = Image::from_rgb(width, height, Kind::Random.pixels(width, height)).unwrap();
        for radius in [0, 1, 2, 6, 7, 40] {
            let filter = BoxFilter {
                radius,
                inner: (1 << 24) / (2 * radius as u32 + 2),
                outer: (1 << 24) / (4 * radius as u32 + 4),
            };
            let from: Vec<[u8; LANES]> = source.pixels().as_chunks::<LANES>().0.to_vec();
            let mut to = vec![[0; LANES]; from.len()];
            filter_strip(&from, &mut to, &filter);
            let at = |position: i64, lane: usize| {
                u64::from(from[position.clamp(0, from.len() as i64 - 1) as usize][lane])
            };
            for (position, out) in to.iter().enumerate() {
                let (position, reach) = (position as i64, radius as i64);
                for (lane, &out) in out.iter().enumerate() {
                    let inside: u64 = (position - reach..=position + reach)
                        .map(|x| at(x, lane))
                        .sum();
                    let edges = at(position - reach - 1, lane) + at(position + reach + 1, lane);
                    let value = inside * u64::from(filter.inner) + edges * u64::from(filter.outer);
                    assert_eq!(u64::from(out), (value + (1 << 23)) >> 24);
                }
            }
        }
    }
}
