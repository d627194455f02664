//! Pixels read along a line through the image, positions in 16.16.

use std::arch::x86_64::*;

use super::blend::avx2::{pack, store_pixels};
use super::memory::{load_512, store_48, store_some_512};

/// The lower three bytes of 16 numbers, one after another.
const PACK: [u8; 64] = {
    let mut indices = [0; 64];
    let mut i = 0;
    while i < 48 {
        indices[i] = (i / 3 * 4 + i % 3) as u8;
        i += 1;
    }
    indices
};

/// Whether [`line_avx512`] and [`line_avx2`] can address an image of so many
/// bytes: each pixel is read as four bytes.
pub(super) fn fits(bytes: usize) -> bool {
    (4..=i32::MAX as usize).contains(&bytes)
}

/// Output pixel `i` reads the pixel at `start + i * step`. A position outside
/// the image reads some pixel inside. The size of `pixels` must be one that
/// [`fits`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
pub(super) fn line_avx512(
    pixels: &[u8],
    stride: usize,
    start: (i32, i32),
    step: (i32, i32),
    out: &mut [u8],
) {
    assert!(fits(pixels.len()));
    let last = _mm512_set1_epi32((pixels.len() - 4) as i32);
    let stride = _mm512_set1_epi32(stride as i32);
    let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let along = |start: i32, step: i32| {
        let steps = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(step));
        _mm512_add_epi32(_mm512_set1_epi32(start), steps)
    };
    let (mut x, mut y) = (along(start.0, step.0), along(start.1, step.1));
    let next_x = _mm512_set1_epi32(step.0.wrapping_mul(16));
    let next_y = _mm512_set1_epi32(step.1.wrapping_mul(16));
    let pack = load_512(&PACK);
    for block in out.chunks_mut(48) {
        let (column, row) = (_mm512_srai_epi32::<16>(x), _mm512_srai_epi32::<16>(y));
        let in_row = _mm512_add_epi32(column, _mm512_add_epi32(column, column));
        let offset = _mm512_add_epi32(_mm512_mullo_epi32(row, stride), in_row);
        // The last pixel is the upper three of the last four bytes.
        let clipped = _mm512_min_epu32(offset, last);
        let beyond = _mm512_slli_epi32::<3>(_mm512_sub_epi32(offset, clipped));
        // SAFETY: reads four bytes from offsets of at most the length less
        // four on; offsets are below 2^31.
        let read = unsafe { _mm512_i32gather_epi32::<1>(clipped, pixels.as_ptr().cast()) };
        let packed = _mm512_permutexvar_epi8(pack, _mm512_srlv_epi32(read, beyond));
        match block.first_chunk_mut() {
            Some(block) => store_48(block, packed),
            None => store_some_512(block, packed),
        }
        x = _mm512_add_epi32(x, next_x);
        y = _mm512_add_epi32(y, next_y);
    }
}

/// As [`line_avx512`].
#[target_feature(enable = "avx2")]
pub(super) fn line_avx2(
    pixels: &[u8],
    stride: usize,
    start: (i32, i32),
    step: (i32, i32),
    out: &mut [u8],
) {
    assert!(fits(pixels.len()));
    let last = _mm256_set1_epi32((pixels.len() - 4) as i32);
    let stride = _mm256_set1_epi32(stride as i32);
    let lanes = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    let along = |start: i32, step: i32| {
        let steps = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(step));
        _mm256_add_epi32(_mm256_set1_epi32(start), steps)
    };
    let (mut x, mut y) = (along(start.0, step.0), along(start.1, step.1));
    let next_x = _mm256_set1_epi32(step.0.wrapping_mul(8));
    let next_y = _mm256_set1_epi32(step.1.wrapping_mul(8));
    for block in out.chunks_mut(24) {
        let (column, row) = (_mm256_srai_epi32::<16>(x), _mm256_srai_epi32::<16>(y));
        let in_row = _mm256_add_epi32(column, _mm256_add_epi32(column, column));
        let offset = _mm256_add_epi32(_mm256_mullo_epi32(row, stride), in_row);
        let clipped = _mm256_min_epu32(offset, last);
        let beyond = _mm256_slli_epi32::<3>(_mm256_sub_epi32(offset, clipped));
        // SAFETY: reads four bytes from offsets of at most the length less
        // four on; offsets are below 2^31.
        let read = unsafe { _mm256_i32gather_epi32::<1>(pixels.as_ptr().cast(), clipped) };
        let packed = pack(_mm256_srlv_epi32(read, beyond));
        match block.first_chunk_mut() {
            Some(block) => store_pixels(block, packed),
            None => {
                let mut bytes = [0; 24];
                store_pixels(&mut bytes, packed);
                block.copy_from_slice(&bytes[..block.len()]);
            }
        }
        x = _mm256_add_epi32(x, next_x);
        y = _mm256_add_epi32(y, next_y);
    }
}
