//! Warps that interpolate, by AVX2: one pixel at a time, its three channels
//! side by side in double precision. There are no gathers of single bytes to
//! wait for, which is what the plain version, 8 pixels at a time, does most.
//! Each operation is rounded as there.

use std::arch::x86_64::*;

use super::super::interpolate::{Line, coordinate, split};
use super::memory::load_128;

/// The image read from.
struct Source<'a> {
    pixels: &'a [u8],
    width: i32,
    height: i32,
}

impl Source<'_> {
    /// `N` pixels of a row from a column on, in the lowest bytes; those outside
    /// the image are the nearest ones inside. What is in the other bytes does
    /// not count.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn read<const N: usize>(&self, row: i32, column: i32) -> __m128i {
        let row = row.clamp(0, self.height - 1) as usize * self.width as usize;
        if column >= 0 && column + N as i32 <= self.width {
            let offset = (row + column as usize) * 3;
            if let Some(bytes) = self
                .pixels
                .get(offset..)
                .and_then(|rest| rest.first_chunk())
            {
                return load_128(bytes);
            }
        }
        let mut bytes = [0; 16];
        for (out, column) in bytes.as_chunks_mut::<3>().0[..N].iter_mut().zip(column..) {
            let column = column.clamp(0, self.width - 1) as usize;
            out.copy_from_slice(&self.pixels[(row + column) * 3..][..3]);
        }
        load_128(&bytes)
    }
}

/// Sets each pixel to what `sample` gives for the row and column before its
/// position and the distances from there, truncated and clipped.
#[inline]
#[target_feature(enable = "avx2")]
fn for_pixels(
    line: &Line,
    first: usize,
    out: &mut [[u8; 3]],
    sample: impl Fn((i32, i32), (__m256d, __m256d)) -> __m256d,
) {
    for (column, out) in (first..).zip(out) {
        let (left, x) = split(coordinate(line.x, column) - 0.5);
        let (upper, y) = split(coordinate(line.y, column) - 0.5);
        let values = sample((upper, left), (_mm256_set1_pd(x), _mm256_set1_pd(y)));
        let values = _mm256_cvttpd_epi32(values);
        let values = _mm_packs_epi32(values, values);
        let values = _mm_packus_epi16(values, values);
        let [red, green, blue, _] = _mm_cvtsi128_si32(values).to_le_bytes();
        *out = [red, green, blue];
    }
}

/// The pixels of a row of the output from column `first` on, which all read
/// inside the image.
#[target_feature(enable = "avx2")]
pub(super) fn bilinear(
    pixels: &[u8],
    (width, height): (u32, u32),
    line: &Line,
    first: usize,
    out: &mut [[u8; 3]],
) {
    let source = Source {
        pixels,
        width: width as i32,
        height: height as i32,
    };
    let between = |a: __m256d, b: __m256d, fraction: __m256d| {
        _mm256_add_pd(a, _mm256_mul_pd(_mm256_sub_pd(b, a), fraction))
    };
    for_pixels(line, first, out, |(row, column), (x, y)| {
        let along = |row: i32| {
            let two = source.read::<2>(row, column);
            let left = _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(two));
            let right = _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_srli_si128::<3>(two)));
            between(left, right, x)
        };
        between(along(row), along(row + 1), y)
    });
}

/// As [`bilinear`].
#[target_feature(enable = "avx2")]
pub(super) fn bicubic(
    pixels: &[u8],
    (width, height): (u32, u32),
    line: &Line,
    first: usize,
    out: &mut [[u8; 3]],
) {
    let source = Source {
        pixels,
        width: width as i32,
        height: height as i32,
    };
    // p1 + t (p2 + t (p3 + t p4))
    let polynomial = |[p1, p2, p3, p4]: [__m256d; 4], t: __m256d| {
        let inner = _mm256_add_pd(p3, _mm256_mul_pd(t, p4));
        let inner = _mm256_add_pd(p2, _mm256_mul_pd(t, inner));
        _mm256_add_pd(p1, _mm256_mul_pd(t, inner))
    };
    for_pixels(line, first, out, |(row, column), (x, y)| {
        let along = |row: i32| {
            let four = source.read::<4>(row, column - 1);
            let v1 = _mm_cvtepu8_epi32(four);
            let v2 = _mm_cvtepu8_epi32(_mm_srli_si128::<3>(four));
            let v3 = _mm_cvtepu8_epi32(_mm_srli_si128::<6>(four));
            let v4 = _mm_cvtepu8_epi32(_mm_srli_si128::<9>(four));
            // Exact integers up to the fraction.
            let (fall, rise) = (_mm_sub_epi32(v1, v2), _mm_sub_epi32(v4, v3));
            let p3 = _mm_sub_epi32(_mm_add_epi32(fall, fall), rise);
            let factors = [v2, _mm_sub_epi32(v3, v1), p3, _mm_sub_epi32(rise, fall)];
            polynomial(factors.map(|factor| _mm256_cvtepi32_pd(factor)), x)
        };
        let [v1, v2, v3, v4] = [along(row - 1), along(row), along(row + 1), along(row + 2)];
        let twice = _mm256_mul_pd(_mm256_set1_pd(2.0), _mm256_sub_pd(v1, v2));
        let factors = [
            v2,
            _mm256_sub_pd(v3, v1),
            _mm256_sub_pd(_mm256_add_pd(twice, v3), v4),
            _mm256_add_pd(_mm256_sub_pd(_mm256_sub_pd(v2, v1), v3), v4),
        ];
        polynomial(factors, y)
    });
}
