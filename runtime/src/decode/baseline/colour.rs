//! From component planes to rows of RGB: libjpeg's smooth chroma upsampling
//! (`jdsample.c`) and its YCbCr conversion (`jdcolor.c`).

use crate::cpu::for_each_cpu;
#[cfg(target_arch = "x86_64")]
use crate::cpu::{Cpu, cpu};

for_each_cpu! {
    /// `3 * near + far` of each sample: what smooth upsampling across the rows
    /// leaves before rounding.
    pub(super) fn weigh_rows(near: &[u8], far: &[u8], sums: &mut [u16]) {
        for ((sum, &near), &far) in sums.iter_mut().zip(near).zip(far) {
            *sum = 3 * u16::from(near) + u16::from(far);
        }
    }
}

for_each_cpu! {
    /// The samples as they are.
    pub(super) fn widen(samples: &[u8], sums: &mut [u16]) {
        for (sum, &sample) in sums.iter_mut().zip(samples) {
            *sum = u16::from(sample);
        }
    }
}

for_each_cpu! {
    /// Doubles a row: of every sample but the first and the last of `sums` two,
    /// nearer to the one before and to the one after it. `sums` carry
    /// `shift - 2` fraction bits; `round` is added to the left and to the right.
    pub(super) fn double(sums: &[u16], round: [u16; 2], shift: u32, out: &mut [[u8; 2]]) {
        let (Some(middle), Some(after)) = (sums.get(1..), sums.get(2..)) else {
            return;
        };
        for (((out, &before), &sum), &after) in out.iter_mut().zip(sums).zip(middle).zip(after) {
            *out = [
                ((3 * sum + before + round[0]) >> shift) as u8,
                ((3 * sum + after + round[1]) >> shift) as u8,
            ];
        }
    }
}

for_each_cpu! {
    /// Rounds [`weigh_rows`] where the rows alone are halved.
    pub(super) fn quarter(sums: &[u16], round: u16, out: &mut [u8]) {
        for (out, &sum) in out.iter_mut().zip(sums) {
            *out = ((sum + round) >> 2) as u8;
        }
    }
}

/// A row of grey as RGB.
pub(super) fn grey(luma: &[u8], rgb: &mut [u8]) {
    for (pixel, &grey) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(luma) {
        *pixel = [grey; 3];
    }
}

/// A row of YCbCr as RGB, as long as the shortest of them.
pub(super) fn convert(luma: &[u8], blue: &[u8], red: &[u8], rgb: &mut [u8]) {
    let pixels = rgb.as_chunks_mut::<3>().0;
    #[cfg(target_arch = "x86_64")]
    if cpu() >= Cpu::Avx2 {
        // SAFETY: the one condition, that the machine has AVX2, has been checked.
        unsafe { avx2::convert(luma, blue, red, pixels) };
        return;
    }
    convert_plainly(luma, blue, red, pixels);
}

fn convert_plainly(luma: &[u8], blue: &[u8], red: &[u8], rgb: &mut [[u8; 3]]) {
    for (((pixel, &y), &cb), &cr) in rgb.iter_mut().zip(luma).zip(blue).zip(red) {
        let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
        *pixel = [
            y + ((91_881 * cr + 32_768) >> 16),
            y + ((-22_554 * cb - 46_802 * cr + 32_768) >> 16),
            y + ((116_130 * cb + 32_768) >> 16),
        ]
        .map(|value| value.clamp(0, 255) as u8);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_loadu_si128, _mm_or_si128, _mm_setr_epi8, _mm_shuffle_epi8,
        _mm_storeu_si128, _mm256_add_epi16, _mm256_add_epi32, _mm256_castsi256_si128,
        _mm256_cvtepu8_epi16, _mm256_extracti128_si256, _mm256_madd_epi16, _mm256_mulhi_epi16,
        _mm256_packs_epi32, _mm256_packus_epi16, _mm256_permute4x64_epi64, _mm256_set1_epi16,
        _mm256_set1_epi32, _mm256_srai_epi16, _mm256_srai_epi32, _mm256_sub_epi16,
        _mm256_unpackhi_epi16, _mm256_unpacklo_epi16,
    };

    /// Pixels at once.
    const STEP: usize = 16;

    #[target_feature(enable = "avx2")]
    pub(super) fn convert(luma: &[u8], blue: &[u8], red: &[u8], rgb: &mut [[u8; 3]]) {
        let count = rgb.len().min(luma.len()).min(blue.len()).min(red.len());
        let (rgb, luma) = (&mut rgb[..count], &luma[..count]);
        let (out, out_rest) = rgb.as_chunks_mut::<STEP>();
        let (luma, luma_rest) = luma.as_chunks::<STEP>();
        let (blue, blue_rest) = blue[..count].as_chunks::<STEP>();
        let (red, red_rest) = red[..count].as_chunks::<STEP>();
        for (((out, luma), blue), red) in out.iter_mut().zip(luma).zip(blue).zip(red) {
            convert_16(luma, blue, red, out);
        }
        if !out_rest.is_empty() {
            let padded = |rest: &[u8]| {
                let mut all = [0; STEP];
                all[..rest.len()].copy_from_slice(rest);
                all
            };
            let mut out = [[0; 3]; STEP];
            convert_16(
                &padded(luma_rest),
                &padded(blue_rest),
                &padded(red_rest),
                &mut out,
            );
            out_rest.copy_from_slice(&out[..out_rest.len()]);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8; STEP]) -> __m256i {
        // SAFETY: 16 bytes are read.
        _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
    }

    /// `(factor * value + 2^15) >> 16`, from twice the value.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn scaled(twice: __m256i, factor: i16) -> __m256i {
        let product = _mm256_mulhi_epi16(twice, _mm256_set1_epi16(factor));
        _mm256_srai_epi16::<1>(_mm256_add_epi16(product, _mm256_set1_epi16(1)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn convert_16(
        luma: &[u8; STEP],
        blue: &[u8; STEP],
        red: &[u8; STEP],
        out: &mut [[u8; 3]; STEP],
    ) {
        let middle = _mm256_set1_epi16(128);
        let y = load(luma);
        let cb = _mm256_sub_epi16(load(blue), middle);
        let cr = _mm256_sub_epi16(load(red), middle);
        let (twice_cb, twice_cr) = (_mm256_add_epi16(cb, cb), _mm256_add_epi16(cr, cr));
        // 91881 = 65536 + 26345, 116130 = 2 * 65536 - 14942,
        // -46802 = -65536 + 18734.
        let r = _mm256_add_epi16(_mm256_add_epi16(y, cr), scaled(twice_cr, 26_345));
        let b = _mm256_add_epi16(_mm256_add_epi16(y, twice_cb), scaled(twice_cb, -14_942));
        let factors = _mm256_set1_epi32(18_734 << 16 | i32::from((-22_554i16).cast_unsigned()));
        let half = _mm256_set1_epi32(32_768);
        let green = |pairs| {
            let sum = _mm256_add_epi32(_mm256_madd_epi16(pairs, factors), half);
            _mm256_srai_epi32::<16>(sum)
        };
        let g = _mm256_packs_epi32(
            green(_mm256_unpacklo_epi16(cb, cr)),
            green(_mm256_unpackhi_epi16(cb, cr)),
        );
        let g = _mm256_add_epi16(_mm256_sub_epi16(y, cr), g);

        let rg = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(r, g));
        let b = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(b, b));
        let channels = [
            _mm256_castsi256_si128(rg),
            _mm256_extracti128_si256::<1>(rg),
            _mm256_castsi256_si128(b),
        ];
        const X: i8 = -1;
        let parts = [
            interleave(
                channels,
                [
                    _mm_setr_epi8(0, X, X, 1, X, X, 2, X, X, 3, X, X, 4, X, X, 5),
                    _mm_setr_epi8(X, 0, X, X, 1, X, X, 2, X, X, 3, X, X, 4, X, X),
                    _mm_setr_epi8(X, X, 0, X, X, 1, X, X, 2, X, X, 3, X, X, 4, X),
                ],
            ),
            interleave(
                channels,
                [
                    _mm_setr_epi8(X, X, 6, X, X, 7, X, X, 8, X, X, 9, X, X, 10, X),
                    _mm_setr_epi8(5, X, X, 6, X, X, 7, X, X, 8, X, X, 9, X, X, 10),
                    _mm_setr_epi8(X, 5, X, X, 6, X, X, 7, X, X, 8, X, X, 9, X, X),
                ],
            ),
            interleave(
                channels,
                [
                    _mm_setr_epi8(X, 11, X, X, 12, X, X, 13, X, X, 14, X, X, 15, X, X),
                    _mm_setr_epi8(X, X, 11, X, X, 12, X, X, 13, X, X, 14, X, X, 15, X),
                    _mm_setr_epi8(10, X, X, 11, X, X, 12, X, X, 13, X, X, 14, X, X, 15),
                ],
            ),
        ];
        let (bytes, _) = out.as_flattened_mut().as_chunks_mut::<16>();
        for (bytes, part) in bytes.iter_mut().zip(parts) {
            // SAFETY: 16 bytes are written.
            unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), part) };
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn interleave(channels: [__m128i; 3], places: [__m128i; 3]) -> __m128i {
        let [r, g, b] = channels;
        _mm_or_si128(
            _mm_or_si128(
                _mm_shuffle_epi8(r, places[0]),
                _mm_shuffle_epi8(g, places[1]),
            ),
            _mm_shuffle_epi8(b, places[2]),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of chroma with some luma, in rows of all lengths.
    #[test]
    fn every_way_gives_the_same_colours() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        for cb in 0..=u8::MAX {
            for y in (0..=u8::MAX).step_by(15) {
                let (luma, blue) = (vec![y; 256], vec![cb; 256]);
                let mut plain = [[0; 3]; 256];
                convert_plainly(&luma, &blue, &all, &mut plain);
                let mut fast = [[0; 3]; 256];
                convert(&luma, &blue, &all, fast.as_flattened_mut());
                assert_eq!(plain, fast, "{y} {cb}");
            }
        }
        for length in 0..50 {
            let mut plain = [[1; 3]; 50];
            convert_plainly(&all[60..], &all[90..], &all[120..], &mut plain[..length]);
            let mut fast = [[1; 3]; 50];
            let out = fast[..length].as_flattened_mut();
            convert(&all[60..], &all[90..], &all[120..], out);
            assert_eq!(plain, fast, "{length}");
        }
    }

    /// JFIF's equations, where they are exact.
    #[test]
    fn greys_stay_and_primaries_are_near() {
        let mut out = [[0; 3]; 3];
        convert_plainly(&[77, 76, 29], &[128, 85, 255], &[128, 255, 107], &mut out);
        assert_eq!(out, [[77, 77, 77], [254, 0, 0], [0, 0, 254]]);
    }
}
