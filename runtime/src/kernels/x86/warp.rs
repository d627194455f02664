//! Warps that interpolate, by AVX2: 4 pixels at a time in double precision, at
//! the edge one pixel at a time, its three channels side by side. There are no
//! gathers of single bytes to wait for, which is what the plain version, 8
//! pixels at a time, does most. Each operation is rounded as there.

use std::arch::x86_64::*;

use super::super::interpolate::{Line, coordinate, split};
use super::interpolate::fits;
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
    for (run, out) in out.chunks_mut(RUN).enumerate() {
        let mut places = [((0, 0), (0.0, 0.0)); RUN];
        for (place, column) in places[..out.len()].iter_mut().zip(first + run * RUN..) {
            let (left, x) = split(coordinate(line.x, column) - 0.5);
            let (upper, y) = split(coordinate(line.y, column) - 0.5);
            *place = ((upper, left), (x, y));
        }
        for (out, (corner, (x, y))) in out.iter_mut().zip(places) {
            let values = sample(corner, (_mm256_set1_pd(x), _mm256_set1_pd(y)));
            let values = _mm256_cvttpd_epi32(values);
            let values = _mm_packs_epi32(values, values);
            let values = _mm_packus_epi16(values, values);
            let [red, green, blue, _] = _mm_cvtsi128_si32(values).to_le_bytes();
            *out = [red, green, blue];
        }
    }
}

/// Pixels worked on at a time.
const LANES: usize = 4;

/// Pixels whose places are found before the first of them is read: finding,
/// reading and weighing is a long chain of steps, of which a processor has but
/// few under way.
const RUN: usize = 64;

/// Where pixels read, along one axis.
struct Axis {
    /// Index of the pixel before the position.
    index: __m128i,
    /// Distance from its centre, in 0..1.
    fraction: __m256d,
}

/// [`coordinate`] less 0.5, for columns of which half a pixel more is given.
#[inline]
#[target_feature(enable = "avx2")]
fn floor(columns: __m256d, (slope, offset, constant): (f64, f64, f64)) -> Axis {
    let along = _mm256_mul_pd(_mm256_set1_pd(slope), columns);
    let position = _mm256_add_pd(
        _mm256_add_pd(along, _mm256_set1_pd(offset)),
        _mm256_set1_pd(constant),
    );
    let position = _mm256_sub_pd(position, _mm256_set1_pd(0.5));
    let floor = _mm256_floor_pd(position);
    Axis {
        index: _mm256_cvttpd_epi32(floor),
        fraction: _mm256_sub_pd(position, floor),
    }
}

/// [`floor`] of positions within `size` pixels. Beyond the first and last pixel both neighbours are that pixel: then the fraction is as good
/// as 0, and what is read beside it does not count.
#[inline]
#[target_feature(enable = "avx2")]
fn positions(columns: __m256d, line: (f64, f64, f64), size: u32) -> Axis {
    let Axis { index, fraction } = floor(columns, line);
    let before = _mm_cmpgt_epi32(_mm_setzero_si128(), index);
    let at_end = _mm_cmpgt_epi32(index, _mm_set1_epi32(size as i32 - 2));
    let outside = _mm256_cvtepi32_epi64(_mm_or_si128(before, at_end));
    Axis {
        index: _mm_max_epi32(index, _mm_setzero_si128()),
        fraction: _mm256_andnot_pd(_mm256_castsi256_pd(outside), fraction),
    }
}

/// Byte `i` of 4 numbers of 64 bits, plus 2^52, whose sum with an integer below
/// it holds that in its lowest bits.
#[inline]
#[target_feature(enable = "avx2")]
fn biased_byte(numbers: __m256i, i: i64) -> __m256d {
    // Indices with their highest bit set give 0.
    let none = 0x8080_8080_8080_8000_u64 as i64;
    let indices = _mm256_set_epi64x(none | (i + 8), none | i, none | (i + 8), none | i);
    let byte = _mm256_castsi256_pd(_mm256_shuffle_epi8(numbers, indices));
    _mm256_or_pd(byte, _mm256_set1_pd(BIAS))
}

const BIAS: f64 = (1u64 << 52) as f64;

/// Eight bytes from `further` behind each offset on.
///
/// # Safety
/// There must be as many.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn read_pairs(pixels: &[u8], offsets: &[i32; LANES], further: usize) -> __m256i {
    let two = |first: i32, second: i32| {
        debug_assert!(first.max(second) as usize + further + 8 <= pixels.len());
        // SAFETY: the caller vouches for 8 bytes from either offset on.
        unsafe {
            let from = |offset: i32| pixels.as_ptr().add(offset as usize + further).cast::<f64>();
            _mm_castpd_si128(_mm_loadh_pd(_mm_load_sd(from(first)), from(second)))
        }
    };
    _mm256_set_m128i(two(offsets[2], offsets[3]), two(offsets[0], offsets[1]))
}

/// 4 pixels from the values of their channels, of which those above 255 and
/// below 0 are clipped.
#[inline]
#[target_feature(enable = "avx2")]
fn store_clipped([red, green, blue]: [__m256d; 3], out: &mut [[u8; 3]; LANES]) {
    let whole = |values: __m256d| _mm256_cvttpd_epi32(values);
    let red_green = _mm_packs_epi32(whole(red), whole(green));
    let blue = _mm_packs_epi32(whole(blue), _mm_setzero_si128());
    let bytes = _mm_packus_epi16(red_green, blue);
    let indices = _mm_setr_epi8(0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, -1, -1, -1, -1);
    let bytes = _mm_shuffle_epi8(bytes, indices);
    let (start, end) = (_mm_cvtsi128_si64(bytes), _mm_extract_epi32::<2>(bytes));
    let out = out.as_flattened_mut();
    out[..8].copy_from_slice(&start.to_le_bytes());
    out[8..].copy_from_slice(&end.to_le_bytes());
}

/// The pixels of a row of the output from column `first` on, which all read
/// inside the image, whose size [`fits`].
#[target_feature(enable = "avx2")]
pub(super) fn bilinear(
    pixels: &[u8],
    (width, height): (u32, u32),
    line: &Line,
    first: usize,
    out: &mut [[u8; 3]],
) {
    assert!(fits(pixels.len()));
    let step = width as usize * 3;
    let (stride, last) = (
        _mm_set1_epi32(step as i32),
        _mm_set1_epi32((pixels.len() - 8) as i32),
    );
    let lanes = _mm256_set_pd(3.5, 2.5, 1.5, 0.5);
    let (blocks, rest) = out.as_chunks_mut::<LANES>();
    let rest_at = first + blocks.len() * LANES;
    for (run, blocks) in blocks.chunks_mut(RUN / LANES).enumerate() {
        let first = first + run * RUN;
        let mut places = [([0; LANES], [0.0; LANES], [0.0; LANES]); RUN / LANES];
        let mut column = first as f64;
        for (offsets, x_fractions, y_fractions) in &mut places[..blocks.len()] {
            let columns = _mm256_add_pd(_mm256_set1_pd(column), lanes);
            column += LANES as f64;
            let x = positions(columns, line.x, width);
            let y = positions(columns, line.y, height);
            let in_row = _mm_add_epi32(x.index, _mm_add_epi32(x.index, x.index));
            let offset = _mm_add_epi32(_mm_mullo_epi32(y.index, stride), in_row);
            // SAFETY: each writes one array whole.
            unsafe {
                _mm_storeu_si128(offsets.as_mut_ptr().cast(), offset);
                _mm256_storeu_pd(x_fractions.as_mut_ptr(), x.fraction);
                _mm256_storeu_pd(y_fractions.as_mut_ptr(), y.fraction);
            }
        }
        for (block, (out, (offsets, x, y))) in blocks.iter_mut().zip(&places).enumerate() {
            // SAFETY: each reads one array whole.
            let (offset, x, y) = unsafe {
                (
                    _mm_loadu_si128(offsets.as_ptr().cast()),
                    _mm256_loadu_pd(x.as_ptr()),
                    _mm256_loadu_pd(y.as_ptr()),
                )
            };
            let furthest = _mm_max_epu32(offset, _mm_add_epi32(offset, stride));
            let fits = _mm_cmpeq_epi32(_mm_min_epu32(furthest, last), furthest);
            if _mm_movemask_epi8(fits) != 0xffff {
                bilinear_each(pixels, (width, height), line, first + block * LANES, out);
                continue;
            }
            // SAFETY: no offset, of this row or the next, is larger than the
            // length less eight.
            let (upper, lower) = unsafe {
                (
                    read_pairs(pixels, offsets, 0),
                    read_pairs(pixels, offsets, step),
                )
            };
            let channel = |channel: i64| {
                let along = |pixels: __m256i| {
                    let left = biased_byte(pixels, channel);
                    let right = biased_byte(pixels, channel + 3);
                    // Both differences are exact.
                    let rise = _mm256_mul_pd(_mm256_sub_pd(right, left), x);
                    _mm256_add_pd(_mm256_sub_pd(left, _mm256_set1_pd(BIAS)), rise)
                };
                let (upper, lower) = (along(upper), along(lower));
                let rise = _mm256_mul_pd(_mm256_sub_pd(lower, upper), y);
                _mm256_add_pd(upper, rise)
            };
            store_clipped([channel(0), channel(1), channel(2)], out);
        }
    }
    bilinear_each(pixels, (width, height), line, rest_at, rest);
}

/// [`bilinear`], one pixel at a time.
#[target_feature(enable = "avx2")]
fn bilinear_each(
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

/// As [`bilinear`], cubic over four by four pixels.
#[target_feature(enable = "avx2")]
pub(super) fn bicubic(
    pixels: &[u8],
    (width, height): (u32, u32),
    line: &Line,
    first: usize,
    out: &mut [[u8; 3]],
) {
    assert!(fits(pixels.len()));
    let stride = width as usize * 3;
    // What is read of the last row ends so many bytes behind the offset.
    let reach = (3 * stride + 16) as i64;
    let furthest = i32::try_from(pixels.len() as i64 - reach).unwrap_or(i32::MAX);
    let lanes = _mm256_set_pd(3.5, 2.5, 1.5, 0.5);
    let (blocks, rest) = out.as_chunks_mut::<LANES>();
    let rest_at = first + blocks.len() * LANES;
    for (run, blocks) in blocks.chunks_mut(RUN / LANES).enumerate() {
        let first = first + run * RUN;
        let mut places = [([0; LANES], [0.0; LANES], [0.0; LANES]); RUN / LANES];
        let mut column = first as f64;
        for (offsets, x_fractions, y_fractions) in &mut places[..blocks.len()] {
            let columns = _mm256_add_pd(_mm256_set1_pd(column), lanes);
            column += LANES as f64;
            let x = floor(columns, line.x);
            let y = floor(columns, line.y);
            let inside = |index: __m128i, size: u32| {
                let from = _mm_cmpgt_epi32(index, _mm_setzero_si128());
                let to = _mm_cmpgt_epi32(_mm_set1_epi32(size as i32 - 2), index);
                _mm_and_si128(from, to)
            };
            let inside = _mm_and_si128(inside(x.index, width), inside(y.index, height));
            let one = _mm_set1_epi32(1);
            let (left, upper) = (_mm_sub_epi32(x.index, one), _mm_sub_epi32(y.index, one));
            let in_row = _mm_add_epi32(left, _mm_add_epi32(left, left));
            let offset = _mm_mullo_epi32(upper, _mm_set1_epi32(stride as i32));
            let offset = _mm_add_epi32(offset, in_row);
            // Of those at the edge a negative number.
            let offset = _mm_or_si128(offset, _mm_xor_si128(inside, _mm_set1_epi32(-1)));
            // SAFETY: each writes one array whole.
            unsafe {
                _mm_storeu_si128(offsets.as_mut_ptr().cast(), offset);
                _mm256_storeu_pd(x_fractions.as_mut_ptr(), x.fraction);
                _mm256_storeu_pd(y_fractions.as_mut_ptr(), y.fraction);
            }
        }
        for (block, (out, (offsets, x, y))) in blocks.iter_mut().zip(&places).enumerate() {
            if offsets
                .iter()
                .any(|offset| !(0..=furthest).contains(offset))
            {
                bicubic_each(pixels, (width, height), line, first + block * LANES, out);
                continue;
            }
            // SAFETY: each reads one array whole.
            let (x, y) = unsafe { (_mm256_loadu_pd(x.as_ptr()), _mm256_loadu_pd(y.as_ptr())) };
            let mut along = [[_mm256_setzero_pd(); 4]; 3];
            for row in 0..4 {
                // SAFETY: no offset is larger than `furthest`.
                let channels = unsafe { read_fours(pixels, offsets, row * stride) };
                for (along, four) in along.iter_mut().zip(channels) {
                    along[row] = polynomial(factors_along(four), x);
                }
            }
            let values = along.map(|rows| polynomial(factors_across(rows), y));
            store_clipped(values, out);
        }
    }
    bicubic_each(pixels, (width, height), line, rest_at, rest);
}

/// For each channel: the four values from `further` behind each offset on, of
/// 4 pixels.
///
/// # Safety
/// There must be 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn read_fours(pixels: &[u8], offsets: &[i32; LANES], further: usize) -> [__m128i; 3] {
    let by_channel = _mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1);
    let [a, b, c, d] = offsets.map(|offset| {
        debug_assert!(offset as usize + further + 16 <= pixels.len());
        // SAFETY: the caller vouches for 16 bytes from the offset on.
        let four =
            unsafe { _mm_loadu_si128(pixels.as_ptr().add(offset as usize + further).cast()) };
        _mm_shuffle_epi8(four, by_channel)
    });
    let (start, end) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
    let (third_start, third_end) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
    [
        _mm_unpacklo_epi64(start, end),
        _mm_unpackhi_epi64(start, end),
        _mm_unpacklo_epi64(third_start, third_end),
    ]
}

/// The polynomial's factors from four values each of 4 pixels: exact integers.
#[inline]
#[target_feature(enable = "avx2")]
fn factors_along(four: __m128i) -> [__m256d; 4] {
    let weigh = |weights: [i8; 4]| {
        let weights = i32::from_le_bytes(weights.map(|weight| weight as u8));
        let sums = _mm_maddubs_epi16(four, _mm_set1_epi32(weights));
        _mm256_cvtepi32_pd(_mm_madd_epi16(sums, _mm_set1_epi16(1)))
    };
    [
        weigh([0, 1, 0, 0]),
        weigh([-1, 0, 1, 0]),
        weigh([2, -2, 1, -1]),
        weigh([-1, 1, -1, 1]),
    ]
}

/// The polynomial's factors from what four rows gave.
#[inline]
#[target_feature(enable = "avx2")]
fn factors_across([v1, v2, v3, v4]: [__m256d; 4]) -> [__m256d; 4] {
    let twice = _mm256_mul_pd(_mm256_set1_pd(2.0), _mm256_sub_pd(v1, v2));
    [
        v2,
        _mm256_sub_pd(v3, v1),
        _mm256_sub_pd(_mm256_add_pd(twice, v3), v4),
        _mm256_add_pd(_mm256_sub_pd(_mm256_sub_pd(v2, v1), v3), v4),
    ]
}

/// p1 + t (p2 + t (p3 + t p4))
#[inline]
#[target_feature(enable = "avx2")]
fn polynomial([p1, p2, p3, p4]: [__m256d; 4], t: __m256d) -> __m256d {
    let inner = _mm256_add_pd(p3, _mm256_mul_pd(t, p4));
    let inner = _mm256_add_pd(p2, _mm256_mul_pd(t, inner));
    _mm256_add_pd(p1, _mm256_mul_pd(t, inner))
}

/// [`bicubic`], one pixel at a time.
#[target_feature(enable = "avx2")]
fn bicubic_each(
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
        polynomial(factors_across([v1, v2, v3, v4]), y)
    });
}
