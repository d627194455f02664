//! The accurate integer inverse transform ("islow"), two blocks at a time.
//!
//! Sums before the multiplications wrap at 16 bits and the values between the
//! passes are clipped to 16, as in libjpeg-turbo's vector code: it shows only
//! in damaged pictures, whose pixels are then the same too.

use super::header::BLOCK;
#[cfg(target_arch = "x86_64")]
use crate::cpu::{Cpu, cpu};

/// Coefficients of two blocks: of each row first those of one block, then those
/// of the other. The second half is not used; a place of one byte is so always
/// one of it.
pub(super) type Pair = [i16; 256];
/// No coefficient.
pub(super) const EMPTY: Pair = [0; 256];
/// What the coefficients of a block are to be multiplied by, row by row.
pub(super) type Factors = [i16; BLOCK];
/// Their pixels: the rows of one block, then the rows of the other.
pub(super) type Pixels = [[[u8; 8]; 8]; 2];

/// Fraction bits of the factors.
const CONST_BITS: i32 = 13;
/// What the first pass leaves of them.
const PASS1_BITS: i32 = 2;

const F_0_298: i16 = 2446;
const F_0_390: i16 = 3196;
const F_0_541: i16 = 4433;
const F_0_765: i16 = 6270;
const F_0_899: i16 = 7373;
const F_1_175: i16 = 9633;
const F_1_501: i16 = 12299;
const F_1_847: i16 = 15137;
const F_1_961: i16 = 16069;
const F_2_053: i16 = 16819;
const F_2_562: i16 = 20995;
const F_3_072: i16 = 25172;

/// Larger coefficients are no picture's. With them it would show whether
/// libjpeg takes its short cut for blocks of a first row alone.
const LARGEST: i16 = 8191;

/// Transforms two blocks and clears their coefficients. `false`, and the pixels
/// are not to be used, when one of a first row is larger than [`LARGEST`].
#[inline(always)]
pub(super) fn transform(pair: &mut Pair, factors: [&Factors; 2], pixels: &mut Pixels) -> bool {
    #[cfg(target_arch = "x86_64")]
    if cpu() >= Cpu::Avx2 {
        // SAFETY: the one condition, that the machine has AVX2, has been checked.
        return unsafe { avx2::transform(pair, factors, pixels) };
    }
    transform_plainly(pair, factors, pixels)
}

/// The pixels of a block of nothing but its first coefficient.
pub(super) fn flat(first: i16) -> u8 {
    // As if there were no other columns and rows to look at: wraps, where the
    // full transform clips.
    let value = (i32::from(first.wrapping_shl(PASS1_BITS as u32)) + 16) >> 5;
    (value.clamp(-128, 127) + 128) as u8
}

fn transform_plainly(pair: &mut Pair, factors: [&Factors; 2], pixels: &mut Pixels) -> bool {
    let mut ordinary = true;
    for lane in 0..2 {
        let mut between = [0i16; BLOCK];
        for column in 0..8 {
            let input: [i16; 8] = std::array::from_fn(|row| {
                let factor = factors[lane][row * 8 + column];
                pair[row * 16 + lane * 8 + column].wrapping_mul(factor)
            });
            ordinary &= input[0].unsigned_abs() <= LARGEST.unsigned_abs();
            let output = one_pass(input, CONST_BITS - PASS1_BITS);
            for (row, value) in output.into_iter().enumerate() {
                between[row * 8 + column] = value;
            }
        }
        for (row, input) in between.as_chunks::<8>().0.iter().enumerate() {
            let output = one_pass(*input, CONST_BITS + PASS1_BITS + 3);
            pixels[lane][row] = output.map(|value| (value.clamp(-128, 127) + 128) as u8);
        }
    }
    *pair = EMPTY;
    ordinary
}

/// Eight values along a column or a row, rounded by `shift` bits.
fn one_pass(input: [i16; 8], shift: i32) -> [i16; 8] {
    let product = |a: i16, f: i16, b: i16, g: i16| {
        (i32::from(a) * i32::from(f)).wrapping_add(i32::from(b) * i32::from(g))
    };
    let [r0, r1, r2, r3, r4, r5, r6, r7] = input;

    let even_2 = product(r2, F_0_541, r6, F_0_541 - F_1_847);
    let even_3 = product(r2, F_0_541 + F_0_765, r6, F_0_541);
    let even_0 = i32::from(r0.wrapping_add(r4)) << CONST_BITS;
    let even_1 = i32::from(r0.wrapping_sub(r4)) << CONST_BITS;
    let even = [
        even_0.wrapping_add(even_3),
        even_1.wrapping_add(even_2),
        even_1.wrapping_sub(even_2),
        even_0.wrapping_sub(even_3),
    ];

    let (z3, z4) = (r7.wrapping_add(r3), r5.wrapping_add(r1));
    let z3_factored = product(z3, F_1_175 - F_1_961, z4, F_1_175);
    let z4_factored = product(z3, F_1_175, z4, F_1_175 - F_0_390);
    let odd = [
        product(r7, -F_0_899, r1, F_1_501 - F_0_899).wrapping_add(z4_factored),
        product(r5, -F_2_562, r3, F_3_072 - F_2_562).wrapping_add(z3_factored),
        product(r5, F_2_053 - F_2_562, r3, -F_2_562).wrapping_add(z4_factored),
        product(r7, F_0_298 - F_0_899, r1, -F_0_899).wrapping_add(z3_factored),
    ];

    let half = 1 << (shift - 1);
    let round = |sum: i32| {
        let value = sum.wrapping_add(half) >> shift;
        value.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
    };
    let mut output = [0; 8];
    for i in 0..4 {
        output[i] = round(even[i].wrapping_add(odd[i]));
        output[7 - i] = round(even[i].wrapping_sub(odd[i]));
    }
    output
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_abs_epi16, _mm256_add_epi16, _mm256_add_epi32, _mm256_loadu_si256,
        _mm256_loadu2_m128i, _mm256_madd_epi16, _mm256_mullo_epi16, _mm256_packs_epi16,
        _mm256_packs_epi32, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32,
        _mm256_setzero_si256, _mm256_srai_epi32, _mm256_storeu_si256, _mm256_sub_epi16,
        _mm256_sub_epi32, _mm256_subs_epu16, _mm256_testz_si256, _mm256_unpackhi_epi16,
        _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi16, _mm256_unpacklo_epi32,
        _mm256_unpacklo_epi64, _mm256_xor_si256,
    };

    use super::{
        CONST_BITS, F_0_298, F_0_390, F_0_541, F_0_765, F_0_899, F_1_175, F_1_501, F_1_847,
        F_1_961, F_2_053, F_2_562, F_3_072, Factors, LARGEST, PASS1_BITS, Pair, Pixels,
    };

    /// Eight rows (or columns) of each block.
    type Rows = [__m256i; 8];
    /// 16 values of 32 bits.
    type Wide = [__m256i; 2];

    #[target_feature(enable = "avx2")]
    pub(super) fn transform(pair: &mut Pair, factors: [&Factors; 2], pixels: &mut Pixels) -> bool {
        let (rows, _) = pair.as_chunks_mut::<16>();
        let [a, b] = factors.map(|factors| factors.as_chunks::<8>().0);
        let mut take = |i: usize| {
            let row = &mut rows[i];
            // SAFETY: 32 bytes are read and written, and 16 of each block's
            // factors read.
            unsafe {
                let factors = _mm256_loadu2_m128i(b[i].as_ptr().cast(), a[i].as_ptr().cast());
                let value = _mm256_loadu_si256(row.as_ptr().cast());
                _mm256_storeu_si256(row.as_mut_ptr().cast(), _mm256_setzero_si256());
                _mm256_mullo_epi16(value, factors)
            }
        };
        let loaded = [
            take(0),
            take(1),
            take(2),
            take(3),
            take(4),
            take(5),
            take(6),
            take(7),
        ];
        let size = _mm256_abs_epi16(loaded[0]);
        // As unsigned numbers: the absolute value of -32768 is 32768.
        let limit = _mm256_set1_epi16(LARGEST);
        let large = _mm256_subs_epu16(size, limit);
        let ordinary = _mm256_testz_si256(large, large) == 1;
        let columns = transpose(one_pass::<{ CONST_BITS - PASS1_BITS }>(loaded));
        let rows = transpose(one_pass::<{ CONST_BITS + PASS1_BITS + 3 }>(columns));
        let middle = _mm256_set1_epi8(-128);
        let [first, second] = pixels;
        for (i, (a, b)) in first
            .as_chunks_mut::<2>()
            .0
            .iter_mut()
            .zip(second.as_chunks_mut::<2>().0)
            .enumerate()
        {
            let bytes = _mm256_packs_epi16(rows[2 * i], rows[2 * i + 1]);
            let bytes = _mm256_xor_si256(bytes, middle);
            let mut both = [[[0u8; 8]; 2]; 2];
            // SAFETY: 32 bytes are written.
            unsafe { _mm256_storeu_si256(both.as_mut_ptr().cast(), bytes) };
            [*a, *b] = both;
        }
        ordinary
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn factors(even: i16, odd: i16) -> __m256i {
        _mm256_set1_epi32(i32::from(odd) << 16 | i32::from(even.cast_unsigned()))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn products(pairs: Wide, even: i16, odd: i16) -> Wide {
        let factors = factors(even, odd);
        [
            _mm256_madd_epi16(pairs[0], factors),
            _mm256_madd_epi16(pairs[1], factors),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn beside(a: __m256i, b: __m256i) -> Wide {
        [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(a: Wide, b: Wide) -> Wide {
        [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn sub(a: Wide, b: Wide) -> Wide {
        [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn round<const SHIFT: i32>(sum: Wide) -> __m256i {
        let half = _mm256_set1_epi32(1 << (SHIFT - 1));
        _mm256_packs_epi32(
            _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(sum[0], half)),
            _mm256_srai_epi32::<SHIFT>(_mm256_add_epi32(sum[1], half)),
        )
    }

    /// Sign-extended and shifted by `CONST_BITS`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn widened(value: __m256i) -> Wide {
        let [low, high] = beside(_mm256_setzero_si256(), value);
        [
            _mm256_srai_epi32::<{ 16 - CONST_BITS }>(low),
            _mm256_srai_epi32::<{ 16 - CONST_BITS }>(high),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn one_pass<const SHIFT: i32>([r0, r1, r2, r3, r4, r5, r6, r7]: Rows) -> Rows {
        let r26 = beside(r2, r6);
        let even_2 = products(r26, F_0_541, F_0_541 - F_1_847);
        let even_3 = products(r26, F_0_541 + F_0_765, F_0_541);
        let even_0 = widened(_mm256_add_epi16(r0, r4));
        let even_1 = widened(_mm256_sub_epi16(r0, r4));
        let even = [
            add(even_0, even_3),
            add(even_1, even_2),
            sub(even_1, even_2),
            sub(even_0, even_3),
        ];

        let z34 = beside(_mm256_add_epi16(r7, r3), _mm256_add_epi16(r5, r1));
        let z3 = products(z34, F_1_175 - F_1_961, F_1_175);
        let z4 = products(z34, F_1_175, F_1_175 - F_0_390);
        let (r71, r53) = (beside(r7, r1), beside(r5, r3));
        let odd = [
            add(products(r71, -F_0_899, F_1_501 - F_0_899), z4),
            add(products(r53, -F_2_562, F_3_072 - F_2_562), z3),
            add(products(r53, F_2_053 - F_2_562, -F_2_562), z4),
            add(products(r71, F_0_298 - F_0_899, -F_0_899), z3),
        ];
        [
            round::<SHIFT>(add(even[0], odd[0])),
            round::<SHIFT>(add(even[1], odd[1])),
            round::<SHIFT>(add(even[2], odd[2])),
            round::<SHIFT>(add(even[3], odd[3])),
            round::<SHIFT>(sub(even[3], odd[3])),
            round::<SHIFT>(sub(even[2], odd[2])),
            round::<SHIFT>(sub(even[1], odd[1])),
            round::<SHIFT>(sub(even[0], odd[0])),
        ]
    }

    /// Rows to columns, in each block.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn transpose(r: Rows) -> Rows {
        let a0 = _mm256_unpacklo_epi16(r[0], r[1]);
        let a1 = _mm256_unpackhi_epi16(r[0], r[1]);
        let a2 = _mm256_unpacklo_epi16(r[2], r[3]);
        let a3 = _mm256_unpackhi_epi16(r[2], r[3]);
        let a4 = _mm256_unpacklo_epi16(r[4], r[5]);
        let a5 = _mm256_unpackhi_epi16(r[4], r[5]);
        let a6 = _mm256_unpacklo_epi16(r[6], r[7]);
        let a7 = _mm256_unpackhi_epi16(r[6], r[7]);
        let b0 = _mm256_unpacklo_epi32(a0, a2);
        let b1 = _mm256_unpackhi_epi32(a0, a2);
        let b2 = _mm256_unpacklo_epi32(a1, a3);
        let b3 = _mm256_unpackhi_epi32(a1, a3);
        let b4 = _mm256_unpacklo_epi32(a4, a6);
        let b5 = _mm256_unpackhi_epi32(a4, a6);
        let b6 = _mm256_unpacklo_epi32(a5, a7);
        let b7 = _mm256_unpackhi_epi32(a5, a7);
        [
            _mm256_unpacklo_epi64(b0, b4),
            _mm256_unpackhi_epi64(b0, b4),
            _mm256_unpacklo_epi64(b1, b5),
            _mm256_unpackhi_epi64(b1, b5),
            _mm256_unpacklo_epi64(b2, b6),
            _mm256_unpackhi_epi64(b2, b6),
            _mm256_unpacklo_epi64(b3, b7),
            _mm256_unpackhi_epi64(b3, b7),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::philox4x32;

    /// From few small coefficients to all of any size, and factors of any size:
    /// the vector code against the plain, which is written after libjpeg's.
    #[test]
    fn every_way_gives_the_same_pixels() {
        for turn in 0..3000u32 {
            let draw = |k: u32| philox4x32([turn, k, 0, 0], [5, 6]).map(|v| v as i32);
            let shift = 16 + turn % 15;
            let share = 1 + turn % 7;
            let mut pair = EMPTY;
            for (k, value) in (0..).zip(&mut pair[..2 * BLOCK]) {
                let [value_draw, place_draw, ..] = draw(k);
                if place_draw.unsigned_abs() % 7 < share {
                    *value = (value_draw >> shift) as i16;
                }
            }
            let factor = |k: usize| (draw(1000 + k as u32)[0] >> (16 + turn % 16)) as i16;
            let factors: [Factors; 2] =
                [0, BLOCK].map(|from| std::array::from_fn(|k| factor(from + k)));
            let factors = factors.each_ref();
            let mut copy = pair;
            let mut pixels = [[[[0; 8]; 8]; 2]; 2];
            let [ours, plain] = &mut pixels;
            let verdicts = (
                transform(&mut pair, factors, ours),
                transform_plainly(&mut copy, factors, plain),
            );
            assert_eq!(verdicts.0, verdicts.1, "{turn}");
            assert_eq!(ours, plain, "{turn}");
            assert_eq!(pair, EMPTY);
            assert_eq!(copy, EMPTY);
        }
    }

    #[test]
    fn a_flat_block_is_what_the_transform_gives() {
        for first in -8191..=8191 {
            let mut pair = EMPTY;
            (pair[0], pair[8]) = (first, -first);
            let mut pixels = [[[0; 8]; 8]; 2];
            let ones = [1; BLOCK];
            assert!(transform(&mut pair, [&ones, &ones], &mut pixels));
            assert_eq!(pixels[0], [[flat(first); 8]; 8]);
            assert_eq!(pixels[1], [[flat(-first); 8]; 8]);
        }
        // Hand-computed: 8 levels of the coefficient are one of the pixel.
        assert_eq!(
            (flat(0), flat(8), flat(-1024), flat(1016)),
            (128, 129, 0, 255)
        );
    }
}
