//! Neighbourhood sums in strips: the columns of one vector from the top row to
//! the bottom one, the sums of the last rows held in registers.
//!
//! Bytes are summed in pairs, as 16-bit words: the sum of the words, modulo
//! 65536, and the sum of their upper bytes; the sum of the lower bytes is the
//! first less 256 times the second. No sum of bytes reaches 65536.

use std::arch::x86_64::*;

use super::memory::{load_512, store_512};

/// Sums of bytes in pairs.
#[derive(Clone, Copy)]
struct Sums {
    words: __m512i,
    upper: __m512i,
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn zero() -> Sums {
    Sums {
        words: _mm512_setzero_si512(),
        upper: _mm512_setzero_si512(),
    }
}

/// The 64 bytes of a row from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn read(row: &[u8], at: usize) -> Sums {
    let words = row[at..].first_chunk().map_or_else(
        || unreachable!("the callers leave room for a vector"),
        |bytes| load_512(bytes),
    );
    Sums {
        words,
        upper: _mm512_srli_epi16::<8>(words),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn add(a: Sums, b: Sums) -> Sums {
    Sums {
        words: _mm512_add_epi16(a.words, b.words),
        upper: _mm512_add_epi16(a.upper, b.upper),
    }
}

/// The lower and the upper bytes' sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn split(sums: Sums) -> [__m512i; 2] {
    let lower = _mm512_sub_epi16(sums.words, _mm512_slli_epi16::<8>(sums.upper));
    [lower, sums.upper]
}

/// First bytes of the strips that cover `first..end`, at least 64 bytes: the
/// last one may overlap the one before.
fn strips(first: usize, end: usize) -> impl Iterator<Item = usize> {
    (first..end)
        .step_by(64)
        .map(move |start| start.min(end - 64))
}

/// Bytes of a row, both borders included, that [`blur`] needs.
pub(super) const BLUR_STRIDE: usize = 64 + 12;

/// The inner pixels of the blurred image; `source` and `target` are images of
/// rows of `stride` bytes, at least [`BLUR_STRIDE`], and at least 5 of them.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn blur(source: &[u8], stride: usize, target: &mut [u8]) {
    let half = _mm512_set1_epi16(8);
    let upper_byte = _mm512_set1_epi16(0xff00u16 as i16);
    for start in strips(6, stride - 6) {
        // Of the last four rows all five taps, of the last three the outer two.
        let (mut rows, mut ends) = ([zero(); 4], [zero(); 3]);
        for (y, row) in source.chunks_exact(stride).enumerate() {
            let taps = [
                read(row, start - 6),
                read(row, start - 3),
                read(row, start),
                read(row, start + 3),
                read(row, start + 6),
            ];
            let end = add(taps[0], taps[4]);
            let sum = add(add(end, taps[1]), add(taps[2], taps[3]));
            if y >= 4 {
                let ring = add(add(rows[0], sum), add(add(ends[0], ends[1]), ends[2]));
                let [lower, upper] = split(ring);
                let lower = _mm512_srli_epi16::<4>(_mm512_add_epi16(lower, half));
                let upper = _mm512_slli_epi16::<4>(_mm512_add_epi16(upper, half));
                // lower | (upper & upper_byte)
                let bytes = _mm512_ternarylogic_epi32::<0xf8>(lower, upper, upper_byte);
                let at = (y - 2) * stride + start;
                if let Some(out) = target[at..].first_chunk_mut() {
                    store_512(out, bytes);
                }
            }
            rows = [rows[1], rows[2], rows[3], sum];
            ends = [ends[1], ends[2], end];
        }
    }
}

/// Bytes of a row, both borders included, that [`smooth`] needs.
pub(super) const SMOOTH_STRIDE: usize = 64 + 6;

/// Takes the lower byte of each word of one vector and of another in turn.
const PAIRS: [u8; 64] = {
    let mut indices = [0; 64];
    let mut i = 0;
    while i < 64 {
        indices[i] = (i / 2 * 2 + i % 2 * 64) as u8;
        i += 1;
    }
    indices
};

/// The inner pixels of the smoothed image; `source` and `target` are images of
/// rows of `stride` bytes, at least [`SMOOTH_STRIDE`], and at least 3 of them.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn smooth(source: &[u8], stride: usize, target: &mut [u8]) {
    let half = _mm512_set1_epi16(6);
    // As the plain version divides: n / 13 is n * 5042 >> 16.
    let thirteenth = _mm512_set1_epi16(5042);
    let pairs = load_512(&PAIRS);
    for start in strips(3, stride - 3) {
        // The row before last, and the last one with five times its middle.
        let (mut above, mut here, mut here_weighted) = (zero(), zero(), zero());
        for (y, row) in source.chunks_exact(stride).enumerate() {
            let middle = read(row, start);
            let sum = add(add(read(row, start - 3), middle), read(row, start + 3));
            if y >= 2 {
                let [lower, upper] = split(add(add(above, here_weighted), sum));
                let lower = _mm512_mulhi_epu16(_mm512_add_epi16(lower, half), thirteenth);
                let upper = _mm512_mulhi_epu16(_mm512_add_epi16(upper, half), thirteenth);
                let bytes = _mm512_permutex2var_epi8(lower, pairs, upper);
                let at = (y - 1) * stride + start;
                if let Some(out) = target[at..].first_chunk_mut() {
                    store_512(out, bytes);
                }
            }
            let four_times = Sums {
                words: _mm512_slli_epi16::<2>(middle.words),
                upper: _mm512_slli_epi16::<2>(middle.upper),
            };
            (above, here, here_weighted) = (here, sum, add(sum, four_times));
        }
    }
}
