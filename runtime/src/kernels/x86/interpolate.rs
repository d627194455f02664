//! Warps that interpolate, 8 pixels at a time in double precision, each
//! operation rounded as in the plain version.

use std::arch::x86_64::*;

use super::super::interpolate::Line;
use super::blend::avx2::{pack, store_pixels};
use super::memory::load_512;

/// Pixels worked on at a time.
const LANES: usize = 8;

/// Pixels whose places are found before the first of them is read: finding,
/// reading and weighing is a long chain of steps, of which a processor has but
/// two under way.
const RUN: usize = 64;

/// Where a run of pixels reads.
struct Places {
    offsets: [i32; RUN],
    x: [f64; RUN],
    y: [f64; RUN],
}

/// Whether an image of so many bytes can be read here: in pieces of 16 bytes
/// from 31-bit offsets on.
pub(super) fn fits(bytes: usize) -> bool {
    (16..=i32::MAX as usize).contains(&bytes)
}

/// Where pixels read, along one axis.
#[derive(Clone, Copy)]
struct Axis {
    /// Index of the pixel before the position, -1 at least.
    index: __m256i,
    /// Distance from its centre, in 0..1.
    fraction: __m512d,
}

/// `slope * u + offset + constant` for `u` = column + 0.5, less 0.5.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn positions(columns: __m512d, (slope, offset, constant): (f64, f64, f64)) -> Axis {
    let along = _mm512_mul_pd(_mm512_set1_pd(slope), columns);
    let position = _mm512_add_pd(
        _mm512_add_pd(along, _mm512_set1_pd(offset)),
        _mm512_set1_pd(constant),
    );
    let position = _mm512_sub_pd(position, _mm512_set1_pd(0.5));
    let floor = _mm512_roundscale_pd::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(position);
    Axis {
        index: _mm512_cvttpd_epi32(floor),
        fraction: _mm512_sub_pd(position, floor),
    }
}

/// Calls `sample` with the positions of 8 output pixels at a time; it returns
/// their values for each channel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
fn for_pixels(
    line: &Line,
    first: usize,
    out: &mut [[u8; 3]],
    sample: impl Fn(Axis, Axis) -> [__m512d; 3],
) {
    let lanes = _mm512_set_pd(7.5, 6.5, 5.5, 4.5, 3.5, 2.5, 1.5, 0.5);
    for (block, out) in out.chunks_mut(LANES).enumerate() {
        let column = (first + block * LANES) as f64;
        let columns = _mm512_add_pd(_mm512_set1_pd(column), lanes);
        let values = sample(positions(columns, line.x), positions(columns, line.y));
        store_clipped(values, out);
    }
}

/// Up to 8 pixels from the values of their channels, of which those above 255
/// and below 0 are clipped.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn store_clipped(values: [__m512d; 3], out: &mut [[u8; 3]]) {
    let clip = |values: __m512d| {
        let values = _mm256_max_epi32(_mm512_cvttpd_epi32(values), _mm256_setzero_si256());
        _mm256_min_epi32(values, _mm256_set1_epi32(255))
    };
    let (red, green, blue) = (clip(values[0]), clip(values[1]), clip(values[2]));
    let pixels = _mm256_or_si256(
        _mm256_or_si256(red, _mm256_slli_epi32::<8>(green)),
        _mm256_slli_epi32::<16>(blue),
    );
    let out = out.as_flattened_mut();
    match out.first_chunk_mut() {
        Some(out) => store_pixels(out, pack(pixels)),
        None => {
            let mut bytes = [0; LANES * 3];
            store_pixels(&mut bytes, pack(pixels));
            out.copy_from_slice(&bytes[..out.len()]);
        }
    }
}

/// 2^52: the sum with an integer below it holds that in its lowest bits.
const BIAS: f64 = (1u64 << 52) as f64;

/// Byte `i` of 8 numbers of 64 bits, plus [`BIAS`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vbmi")]
fn biased_byte(numbers: __m512i, i: usize) -> __m512d {
    const BYTES: [[u8; 64]; 6] = {
        let mut indices = [[0; 64]; 6];
        let mut i = 0;
        while i < 6 * 64 {
            indices[i / 64][i % 64] = (i % 64 / 8 * 8 + i / 64) as u8;
            i += 1;
        }
        indices
    };
    let lowest = 0x0101_0101_0101_0101;
    let bias = _mm512_castpd_si512(_mm512_set1_pd(BIAS));
    _mm512_castsi512_pd(_mm512_mask_permutexvar_epi8(
        bias,
        lowest,
        load_512(&BYTES[i]),
        numbers,
    ))
}

/// The pixels of a row of the output from column `first` on, which all read
/// inside the image, whose size [`fits`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
pub(super) fn bilinear(
    pixels: &[u8],
    (width, height): (u32, u32),
    line: &Line,
    first: usize,
    out: &mut [[u8; 3]],
) {
    assert!(fits(pixels.len()));
    let last = _mm256_set1_epi32((pixels.len() - 8) as i32);
    let step = width as usize * 3;
    let stride = _mm256_set1_epi32(step as i32);
    let lanes = _mm512_set_pd(7.5, 6.5, 5.5, 4.5, 3.5, 2.5, 1.5, 0.5);
    // Beyond the first and last pixel both neighbours are that pixel: then the
    // fraction is as good as 0, and what is read beside it does not count.
    let clip = |axis: Axis, size: u32| {
        let between = _mm256_cmplt_epu32_mask(axis.index, _mm256_set1_epi32(size as i32 - 1));
        Axis {
            index: _mm256_max_epi32(axis.index, _mm256_setzero_si256()),
            fraction: _mm512_maskz_mov_pd(between, axis.fraction),
        }
    };
    // Two pixels from an offset on; the last ones are the upper bytes of the
    // last eight.
    let read_clipped = |offset: __m256i| {
        let clipped = _mm256_min_epu32(offset, last);
        let beyond = _mm256_slli_epi32::<3>(_mm256_sub_epi32(offset, clipped));
        // SAFETY: reads eight bytes from offsets of at most the length less
        // eight on; offsets are below 2^31.
        let read = unsafe { _mm512_i32gather_epi64::<1>(clipped, pixels.as_ptr().cast()) };
        _mm512_srlv_epi64(read, _mm512_cvtepu32_epi64(beyond))
    };
    for (run, out) in out.chunks_mut(RUN).enumerate() {
        let mut places = Places {
            offsets: [0; RUN],
            x: [0.0; RUN],
            y: [0.0; RUN],
        };
        let mut column = (first + run * RUN) as f64;
        let offsets = places.offsets.as_chunks_mut::<LANES>().0.iter_mut();
        let x_fractions = places.x.as_chunks_mut::<LANES>().0.iter_mut();
        let y_fractions = places.y.as_chunks_mut::<LANES>().0.iter_mut();
        for ((offsets, x_fractions), y_fractions) in offsets
            .zip(x_fractions)
            .zip(y_fractions)
            .take(out.len().div_ceil(LANES))
        {
            let columns = _mm512_add_pd(_mm512_set1_pd(column), lanes);
            column += LANES as f64;
            let x = clip(positions(columns, line.x), width);
            let y = clip(positions(columns, line.y), height);
            let in_row = _mm256_add_epi32(x.index, _mm256_add_epi32(x.index, x.index));
            let offset = _mm256_add_epi32(_mm256_mullo_epi32(y.index, stride), in_row);
            // SAFETY: each writes one array whole.
            unsafe {
                _mm256_storeu_si256(offsets.as_mut_ptr().cast(), offset);
                _mm512_storeu_pd(x_fractions.as_mut_ptr(), x.fraction);
                _mm512_storeu_pd(y_fractions.as_mut_ptr(), y.fraction);
            }
        }
        let offsets = places.offsets.as_chunks::<LANES>().0.iter();
        let x_fractions = places.x.as_chunks::<LANES>().0.iter();
        let y_fractions = places.y.as_chunks::<LANES>().0.iter();
        let blocks = offsets.zip(x_fractions).zip(y_fractions);
        for (((offsets, x), y), out) in blocks.zip(out.chunks_mut(LANES)) {
            // SAFETY: each reads one array whole.
            let (offset, x, y) = unsafe {
                (
                    _mm256_loadu_si256(offsets.as_ptr().cast()),
                    _mm512_loadu_pd(x.as_ptr()),
                    _mm512_loadu_pd(y.as_ptr()),
                )
            };
            let below = _mm256_add_epi32(offset, stride);
            let furthest = _mm256_max_epu32(offset, below);
            let (upper, lower) = match _mm256_cmple_epu32_mask(furthest, last) {
                // SAFETY: no offset is larger than the length less eight.
                0xff => unsafe {
                    (
                        read_pairs(pixels, offsets, 0),
                        read_pairs(pixels, offsets, step),
                    )
                },
                _ => (read_clipped(offset), read_clipped(below)),
            };
            let channel = |channel: usize| {
                let along = |pixels: __m512i| {
                    let left = biased_byte(pixels, channel);
                    let right = biased_byte(pixels, channel + 3);
                    // Both differences are exact.
                    let rise = _mm512_mul_pd(_mm512_sub_pd(right, left), x);
                    _mm512_add_pd(_mm512_sub_pd(left, _mm512_set1_pd(BIAS)), rise)
                };
                let (upper, lower) = (along(upper), along(lower));
                let rise = _mm512_mul_pd(_mm512_sub_pd(lower, upper), y);
                _mm512_add_pd(upper, rise)
            };
            store_clipped([channel(0), channel(1), channel(2)], out);
        }
    }
}

/// As [`bilinear`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
pub(super) fn bicubic(
    pixels: &[u8],
    (width, height): (u32, u32),
    line: &Line,
    first: usize,
    out: &mut [[u8; 3]],
) {
    /// Of 8 pixels with 16 bytes each, in two vectors: four values of a
    /// channel, side by side.
    const VALUES: [[u8; 64]; 3] = {
        let mut indices = [[0; 64]; 3];
        let mut i = 0;
        while i < 3 * 32 {
            let (channel, pixel, value) = (i / 32, i % 32 / 4, i % 4);
            indices[channel][i % 32] = (pixel * 16 + value * 3 + channel) as u8;
            i += 1;
        }
        indices
    };

    assert!(fits(pixels.len()));
    let weights = |weights: [i8; 4]| {
        _mm256_set1_epi32(i32::from_le_bytes(weights.map(|weight| weight as u8)))
    };
    let cubic = [
        weights([0, 1, 0, 0]),
        weights([-1, 0, 1, 0]),
        weights([2, -2, 1, -1]),
        weights([-1, 1, -1, 1]),
    ];
    // p1 + t (p2 + t (p3 + t p4))
    let polynomial = |[p1, p2, p3, p4]: [__m512d; 4], t: __m512d| {
        let inner = _mm512_add_pd(p3, _mm512_mul_pd(t, p4));
        let inner = _mm512_add_pd(p2, _mm512_mul_pd(t, inner));
        _mm512_add_pd(p1, _mm512_mul_pd(t, inner))
    };
    let last_row = _mm256_set1_epi32(height as i32 - 1);
    let last_column = _mm256_set1_epi32(width as i32 - 4);
    let last = _mm256_set1_epi32((pixels.len() - 16) as i32);
    let stride = _mm256_set1_epi32(width as i32 * 3);
    for_pixels(line, first, out, |x, y| {
        let columns = _mm256_sub_epi32(x.index, _mm256_set1_epi32(1));
        let in_row = _mm256_add_epi32(columns, _mm256_add_epi32(columns, columns));
        // As numbers without a sign, those below 0 are large.
        let mut whole = match width {
            4.. => _mm256_cmple_epu32_mask(columns, last_column),
            _ => 0,
        };
        let mut rows = [_mm256_setzero_si256(); 4];
        for (down, row) in (-1..).zip(&mut rows) {
            *row = _mm256_add_epi32(y.index, _mm256_set1_epi32(down));
            *row = _mm256_max_epi32(*row, _mm256_setzero_si256());
            *row = _mm256_min_epi32(*row, last_row);
        }
        let mut values = [(_mm512_setzero_si512(), _mm512_setzero_si512()); 4];
        for (values, &row) in values.iter_mut().zip(&rows) {
            let offsets = _mm256_add_epi32(_mm256_mullo_epi32(row, stride), in_row);
            whole &= _mm256_cmple_epu32_mask(offsets, last);
            // SAFETY: no offset is larger than the length less 16.
            *values = unsafe { read(pixels, _mm256_min_epu32(offsets, last)) };
        }
        if whole != 0xff {
            for (values, &row) in values.iter_mut().zip(&rows) {
                let bytes = read_at_edge(pixels, width, numbers(row), numbers(columns));
                let halves = bytes.as_chunks::<64>().0;
                *values = (load_512(&halves[0]), load_512(&halves[1]));
            }
        }
        let channel = |channel: usize| {
            let along = |(start, end): (__m512i, __m512i)| {
                let four = _mm512_permutex2var_epi8(start, load_512(&VALUES[channel]), end);
                let four = _mm512_castsi512_si256(four);
                let weigh = |weights: __m256i| {
                    let sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), four, weights);
                    _mm512_cvtepi32_pd(sums)
                };
                let [p1, p2, p3, p4] = cubic;
                polynomial([weigh(p1), weigh(p2), weigh(p3), weigh(p4)], x.fraction)
            };
            let [v1, v2, v3, v4] = [
                along(values[0]),
                along(values[1]),
                along(values[2]),
                along(values[3]),
            ];
            let twice = _mm512_mul_pd(_mm512_set1_pd(2.0), _mm512_sub_pd(v1, v2));
            let factors = [
                v2,
                _mm512_sub_pd(v3, v1),
                _mm512_sub_pd(_mm512_add_pd(twice, v3), v4),
                _mm512_add_pd(_mm512_sub_pd(_mm512_sub_pd(v2, v1), v3), v4),
            ];
            polynomial(factors, y.fraction)
        };
        [channel(0), channel(1), channel(2)]
    });
}

#[inline]
#[target_feature(enable = "avx2")]
fn numbers(vector: __m256i) -> [i32; LANES] {
    let mut numbers = [0; LANES];
    // SAFETY: writes the 32 bytes of the array.
    unsafe { _mm256_storeu_si256(numbers.as_mut_ptr().cast(), vector) };
    numbers
}

/// Eight bytes from `further` behind each offset on. A gather takes longer.
///
/// # Safety
/// There must be as many.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn read_pairs(pixels: &[u8], offsets: &[i32; LANES], further: usize) -> __m512i {
    let mut quarters = [_mm_setzero_si128(); 4];
    for (quarter, offsets) in quarters.iter_mut().zip(offsets.as_chunks::<2>().0) {
        debug_assert!(
            offsets
                .iter()
                .all(|&o| o as usize + further + 8 <= pixels.len())
        );
        // SAFETY: the caller vouches for 8 bytes from either offset on.
        *quarter = unsafe {
            let [first, second] =
                offsets.map(|offset| pixels.as_ptr().add(offset as usize + further).cast::<f64>());
            _mm_castpd_si128(_mm_loadh_pd(_mm_load_sd(first), second))
        };
    }
    let half = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(quarters[0]), quarters[1]);
    let half = _mm512_inserti32x4::<2>(half, quarters[2]);
    _mm512_inserti32x4::<3>(half, quarters[3])
}

/// 16 bytes from each offset on.
///
/// # Safety
/// At every offset there must be as many.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
unsafe fn read(pixels: &[u8], offsets: __m256i) -> (__m512i, __m512i) {
    let offsets = numbers(offsets);
    let mut halves = [_mm512_setzero_si512(); 2];
    for (half, offsets) in halves.iter_mut().zip(offsets.as_chunks::<4>().0) {
        let mut quarters = [_mm_setzero_si128(); 4];
        for (quarter, &offset) in quarters.iter_mut().zip(offsets) {
            debug_assert!(offset as usize + 16 <= pixels.len());
            // SAFETY: the caller vouches for 16 bytes from the offset on.
            *quarter = unsafe { _mm_loadu_si128(pixels.as_ptr().add(offset as usize).cast()) };
        }
        *half = _mm512_castsi128_si512(quarters[0]);
        *half = _mm512_inserti32x4::<1>(*half, quarters[1]);
        *half = _mm512_inserti32x4::<2>(*half, quarters[2]);
        *half = _mm512_inserti32x4::<3>(*half, quarters[3]);
    }
    (halves[0], halves[1])
}

/// For each row and column the four pixels from there on, those outside being
/// the nearest inside, and 4 more bytes.
#[inline(never)]
fn read_at_edge(
    pixels: &[u8],
    width: u32,
    rows: [i32; LANES],
    columns: [i32; LANES],
) -> [u8; LANES * 16] {
    let mut bytes = [0; LANES * 16];
    let out = bytes.as_chunks_mut::<16>().0;
    for (out, (row, column)) in out.iter_mut().zip(rows.into_iter().zip(columns)) {
        let row = &pixels[row as usize * width as usize * 3..][..width as usize * 3];
        for (out, column) in out.as_chunks_mut::<3>().0[..4].iter_mut().zip(column..) {
            let column = column.clamp(0, width as i32 - 1) as usize;
            out.copy_from_slice(&row[column * 3..][..3]);
        }
    }
    bytes
}
