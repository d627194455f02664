//! Quarter turns by blocks of 4 columns and 8 rows, transposed in registers.

use std::arch::x86_64::*;

use super::blend::avx2::{NO, pack, shuffle, store_pixels};
use super::memory::load_128;

/// Columns and rows of a block of the source.
pub(super) const COLUMNS: usize = 4;
pub(super) const ROWS: usize = 8;

/// The turned image, of `height` columns and `width` rows; `width` and
/// `height` are those of the source, at least [`COLUMNS`] and [`ROWS`].
///
/// Counter-clockwise, column `c` becomes row `width - 1 - c`, from left to
/// right; clockwise, row `c`, from right to left. The blocks at the far ends
/// overlap those before.
#[target_feature(enable = "avx2")]
pub(super) fn turn(
    source: &[u8],
    (width, height): (usize, usize),
    clockwise: bool,
    target: &mut [u8],
) {
    for column in (0..width).step_by(COLUMNS) {
        let column = column.min(width - COLUMNS);
        for out_column in (0..height).step_by(ROWS) {
            let out_column = out_column.min(height - ROWS);
            // The source row that output column `out_column + i` shows.
            let pixels = |i: usize| {
                let row = out_column + i;
                let row = if clockwise { height - 1 - row } else { row };
                four_pixels(source, (row * width + column) * 3)
            };
            let both = |i: usize| {
                let halves = _mm256_set_m128i(pixels(i + 4), pixels(i));
                let spread = [0, 1, 2, NO, 3, 4, 5, NO, 6, 7, 8, NO, 9, 10, 11, NO];
                shuffle(halves, spread)
            };
            let rows = [both(0), both(1), both(2), both(3)];
            let pair =
                |a: __m256i, b: __m256i| (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (lower, upper) = (pair(rows[0], rows[1]), pair(rows[2], rows[3]));
            let columns = [
                _mm256_unpacklo_epi64(lower.0, upper.0),
                _mm256_unpackhi_epi64(lower.0, upper.0),
                _mm256_unpacklo_epi64(lower.1, upper.1),
                _mm256_unpackhi_epi64(lower.1, upper.1),
            ];
            for (i, &pixels) in columns.iter().enumerate() {
                let row = column + i;
                let row = if clockwise { row } else { width - 1 - row };
                let at = (row * height + out_column) * 3;
                if let Some(out) = target[at..].first_chunk_mut() {
                    store_pixels(out, pack(pixels));
                }
            }
        }
    }
}

/// The 12 bytes from `at` on, and what follows.
#[inline]
#[target_feature(enable = "avx2")]
fn four_pixels(source: &[u8], at: usize) -> __m128i {
    match source[at..].first_chunk() {
        Some(bytes) => load_128(bytes),
        None => {
            let mut bytes = [0; 16];
            bytes[..12].copy_from_slice(&source[at..][..12]);
            load_128(&bytes)
        }
    }
}
