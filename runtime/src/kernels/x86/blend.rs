//! Greys of pixels, and blends: `degenerate + factor * (value - degenerate)`
//! in single precision, two roundings, truncated and clipped.

/// Values of one step of the luma sum, in pixels: below it no 32-bit sum of
/// greys overflows.
const SUMMED: usize = 1 << 20;

pub(super) mod avx512 {
    use std::arch::x86_64::*;

    use super::super::memory::{
        load_128, load_512, load_some_512, store_48, store_128, store_some_512,
    };
    use super::SUMMED;

    /// For each of 16 pixels the bytes (red, green, green, blue), from 48.
    const RED_GREEN_GREEN_BLUE: [u8; 64] = {
        let mut indices = [0; 64];
        let mut i = 0;
        while i < 64 {
            indices[i] = (i / 4 * 3 + [0, 1, 1, 2][i % 4]) as u8;
            i += 1;
        }
        indices
    };

    /// Byte `channel` of each of 16 pixels to the low byte of a 32-bit number.
    const SPREAD: [[u8; 64]; 3] = {
        let mut indices = [[0; 64]; 3];
        let mut i = 0;
        while i < 192 {
            let (channel, at) = (i / 64, i % 64);
            indices[channel][at] = (at / 4 * 3 + channel) as u8;
            i += 1;
        }
        indices
    };

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

    /// Greys of 16 pixels, from their first 48 bytes; black pixels give 0.
    ///
    /// The weights of 16 bits are split: 19595 = 77 * 256 - 117,
    /// 38470 = 150 * 256 + 70 (halved for either copy of green),
    /// 7471 = 29 * 256 + 47.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
    fn luma(pixels: __m512i) -> __m512i {
        let pixels = _mm512_permutexvar_epi8(load_512(&RED_GREEN_GREEN_BLUE), pixels);
        let high = i32::from_le_bytes([77, 75, 75, 29]);
        let low = i32::from_le_bytes([-117i8 as u8, 35, 35, 47]);
        let high = _mm512_dpbusd_epi32(_mm512_setzero_si512(), pixels, _mm512_set1_epi32(high));
        let low = _mm512_dpbusd_epi32(_mm512_set1_epi32(0x8000), pixels, _mm512_set1_epi32(low));
        _mm512_srli_epi32::<16>(_mm512_add_epi32(_mm512_slli_epi32::<8>(high), low))
    }

    /// Sum of the greys of all pixels.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
    pub(crate) fn sum_luma(pixels: &[u8]) -> u64 {
        let mut total = 0;
        for some in pixels.chunks(3 * SUMMED) {
            let (pairs, rest) = some.as_chunks::<96>();
            let mut sums = [_mm512_setzero_si512(); 2];
            for pair in pairs {
                let (Some(first), Some(second)) = (pair.first_chunk(), pair.last_chunk()) else {
                    unreachable!("64 bytes are fewer than 96");
                };
                let (first, second) = (load_512(first), load_512(second));
                // The second vector holds pixels 16 to 31 from byte 16 on.
                let second = _mm512_shuffle_i64x2::<0b11_11_10_01>(second, second);
                sums[0] = _mm512_add_epi32(sums[0], luma(first));
                sums[1] = _mm512_add_epi32(sums[1], luma(second));
            }
            for part in rest.chunks(48) {
                // Pixels that are not there are black, and add nothing.
                sums[0] = _mm512_add_epi32(sums[0], luma(load_some_512(part)));
            }
            let sum = _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]));
            total += u64::from(sum as u32);
        }
        total
    }

    /// 16 values blended: numbers from 0 on, of which those above 255 are to
    /// be clipped. Not a number becomes 0.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn blend(degenerates: __m512, values: __m512, factor: __m512) -> __m512i {
        let difference = _mm512_sub_ps(values, degenerates);
        let blended = _mm512_add_ps(degenerates, _mm512_mul_ps(factor, difference));
        // Where one is not a number, the maximum is the second.
        _mm512_cvttps_epu32(_mm512_max_ps(blended, _mm512_setzero_ps()))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(crate) fn bytes(degenerates: &[u8], values: &mut [u8], factor: f32) {
        let factor = _mm512_set1_ps(factor);
        let length = degenerates.len().min(values.len());
        let (blocks, rest) = values[..length].as_chunks_mut::<16>();
        let (others, other_rest) = degenerates[..length].as_chunks::<16>();
        for (block, others) in blocks.iter_mut().zip(others) {
            let (degenerates, values) = (floats(load_128(others)), floats(load_128(block)));
            let blended = blend(degenerates, values, factor);
            store_128(block, _mm512_cvtusepi32_epi8(blended));
        }
        for (value, &degenerate) in rest.iter_mut().zip(other_rest) {
            let degenerate = floats(_mm_set1_epi8(degenerate as i8));
            let blended = blend(degenerate, floats(_mm_set1_epi8(*value as i8)), factor);
            *value = _mm_cvtsi128_si32(_mm512_cvtusepi32_epi8(blended)) as u8;
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn floats(bytes: __m128i) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
    pub(crate) fn with_gray(pixels: &mut [u8], factor: f32) {
        let factor = _mm512_set1_ps(factor);
        let mut rest = pixels;
        while let Some(block) = rest.first_chunk_mut::<64>() {
            let blended = blend_pixels(load_512(block), factor);
            if let Some(block) = block.first_chunk_mut() {
                store_48(block, blended);
            }
            rest = &mut rest[48..];
        }
        for block in rest.chunks_mut(48) {
            store_some_512(block, blend_pixels(load_some_512(block), factor));
        }
    }

    /// 16 pixels in the first 48 bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
    fn blend_pixels(values: __m512i, factor: __m512) -> __m512i {
        let gray = _mm512_cvtepi32_ps(luma(values));
        let channel = |indices: &[u8; 64]| {
            let low_bytes = 0x1111_1111_1111_1111;
            let value = _mm512_maskz_permutexvar_epi8(low_bytes, load_512(indices), values);
            let blended = blend(gray, _mm512_cvtepi32_ps(value), factor);
            _mm512_min_epu32(blended, _mm512_set1_epi32(255))
        };
        let [red, green, blue] = [
            channel(&SPREAD[0]),
            channel(&SPREAD[1]),
            channel(&SPREAD[2]),
        ];
        let pixels = _mm512_or_si512(
            _mm512_or_si512(red, _mm512_slli_epi32::<8>(green)),
            _mm512_slli_epi32::<16>(blue),
        );
        _mm512_permutexvar_epi8(load_512(&PACK), pixels)
    }
}

pub(super) mod avx2 {
    use std::arch::x86_64::*;

    use super::super::memory::{load_128, store_64, store_128};
    use super::SUMMED;

    /// 8 pixels: four in the first 12 bytes of either half.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load_pixels(bytes: &[u8; 28]) -> __m256i {
        match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) => _mm256_set_m128i(load_128(last), load_128(first)),
            _ => unreachable!("16 bytes are fewer than 28"),
        }
    }

    /// In a shuffle: a zero.
    pub(crate) const NO: u8 = 0xff;

    /// The same shuffle in both halves.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn shuffle(bytes: __m256i, indices: [u8; 16]) -> __m256i {
        _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(load_128(&indices)))
    }

    /// Greys of 8 pixels: two pairs of weights, 38470 halved between them.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn luma(pixels: __m256i) -> __m256i {
        let red_green = [0, NO, 1, NO, 3, NO, 4, NO, 6, NO, 7, NO, 9, NO, 10, NO];
        let green_blue = [1, NO, 2, NO, 4, NO, 5, NO, 7, NO, 8, NO, 10, NO, 11, NO];
        let weights = |first: i32, second: i32| _mm256_set1_epi32(second << 16 | first);
        let one = _mm256_madd_epi16(shuffle(pixels, red_green), weights(19595, 19235));
        let two = _mm256_madd_epi16(shuffle(pixels, green_blue), weights(19235, 7471));
        let sum = _mm256_add_epi32(_mm256_add_epi32(one, two), _mm256_set1_epi32(0x8000));
        _mm256_srli_epi32::<16>(sum)
    }

    /// Sum of the greys of all pixels.
    #[target_feature(enable = "avx2")]
    pub(crate) fn sum_luma(pixels: &[u8]) -> u64 {
        let mut total = 0;
        for some in pixels.chunks(3 * SUMMED) {
            let mut sums = _mm256_setzero_si256();
            let mut rest = some;
            while let Some(block) = rest.first_chunk::<28>() {
                sums = _mm256_add_epi32(sums, luma(load_pixels(block)));
                rest = &rest[24..];
            }
            let mut last = [0; 28];
            last[..rest.len()].copy_from_slice(rest);
            // Pixels that are not there are black, and add nothing; a ninth
            // there may be.
            sums = _mm256_add_epi32(sums, luma(load_pixels(&last)));
            let mut ninth = [0; 28];
            ninth[..4].copy_from_slice(&last[24..]);
            sums = _mm256_add_epi32(sums, luma(load_pixels(&ninth)));
            let half = _mm_add_epi32(
                _mm256_castsi256_si128(sums),
                _mm256_extracti128_si256::<1>(sums),
            );
            let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
            let sum = _mm_add_epi32(quarter, _mm_shuffle_epi32::<0b10_11_00_01>(quarter));
            total += u64::from(_mm_cvtsi128_si32(sum) as u32);
        }
        total
    }

    /// 8 values blended, truncated and clipped. Not a number becomes 0.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn blend(degenerates: __m256, values: __m256, factor: __m256) -> __m256i {
        let difference = _mm256_sub_ps(values, degenerates);
        let blended = _mm256_add_ps(degenerates, _mm256_mul_ps(factor, difference));
        // Where one is not a number, the maximum is the second.
        let clipped = _mm256_max_ps(blended, _mm256_setzero_ps());
        _mm256_cvttps_epi32(_mm256_min_ps(clipped, _mm256_set1_ps(255.0)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn floats(bytes: __m128i) -> __m256 {
        _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))
    }

    #[target_feature(enable = "avx2")]
    pub(crate) fn bytes(degenerates: &[u8], values: &mut [u8], factor: f32) {
        let factor = _mm256_set1_ps(factor);
        let length = degenerates.len().min(values.len());
        let (blocks, rest) = values[..length].as_chunks_mut::<16>();
        let (others, other_rest) = degenerates[..length].as_chunks::<16>();
        for (block, others) in blocks.iter_mut().zip(others) {
            let (others, values) = (load_128(others), load_128(block));
            let low = blend(floats(others), floats(values), factor);
            let (others, values) = (_mm_srli_si128::<8>(others), _mm_srli_si128::<8>(values));
            let high = blend(floats(others), floats(values), factor);
            // Per half: low 0..4, high 0..4; low 4..8, high 4..8.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
            let bytes = _mm_packus_epi16(
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            store_128(block, bytes);
        }
        for (value, &degenerate) in rest.iter_mut().zip(other_rest) {
            let degenerate = floats(_mm_set1_epi8(degenerate as i8));
            let blended = blend(degenerate, floats(_mm_set1_epi8(*value as i8)), factor);
            *value = _mm256_cvtsi256_si32(blended) as u8;
        }
    }

    #[target_feature(enable = "avx2")]
    pub(crate) fn with_gray(pixels: &mut [u8], factor: f32) {
        let factor = _mm256_set1_ps(factor);
        let mut rest = pixels;
        while let Some(block) = rest.first_chunk_mut::<28>() {
            let values = blend_pixels(load_pixels(block), factor);
            if let Some(block) = block.first_chunk_mut() {
                store_pixels(block, values);
            }
            rest = &mut rest[24..];
        }
        // Eight pixels and some more, or less.
        for some in rest.chunks_mut(24) {
            let mut block = [0; 28];
            block[..some.len()].copy_from_slice(some);
            let values = blend_pixels(load_pixels(&block), factor);
            if let Some(block) = block.first_chunk_mut() {
                store_pixels(block, values);
            }
            some.copy_from_slice(&block[..some.len()]);
        }
    }

    /// Writes the 24 bytes of 8 pixels, four in the first 12 bytes of either half;
    /// the other bytes of `pixels` are zeros.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn store_pixels(bytes: &mut [u8; 24], pixels: __m256i) {
        let (low, high) = (
            _mm256_castsi256_si128(pixels),
            _mm256_extracti128_si256::<1>(pixels),
        );
        // Bytes 0 to 11 of both, and then zeros.
        let first = _mm_or_si128(low, _mm_slli_si128::<12>(high));
        let last = _mm_srli_si128::<4>(high);
        let (start, end) = bytes.split_at_mut(16);
        if let (Some(start), Some(end)) = (start.first_chunk_mut(), end.first_chunk_mut()) {
            store_128(start, first);
            store_64(end, last);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn blend_pixels(values: __m256i, factor: __m256) -> __m256i {
        let gray = _mm256_cvtepi32_ps(luma(values));
        let channel = |channel: u8| {
            let mut indices = [NO; 16];
            for pixel in 0..4 {
                indices[pixel * 4] = pixel as u8 * 3 + channel;
            }
            blend(gray, _mm256_cvtepi32_ps(shuffle(values, indices)), factor)
        };
        let (red, green, blue) = (channel(0), channel(1), channel(2));
        let pixels = _mm256_or_si256(
            _mm256_or_si256(red, _mm256_slli_epi32::<8>(green)),
            _mm256_slli_epi32::<16>(blue),
        );
        pack(pixels)
    }

    /// The lower three bytes of four numbers, one after another, in the first
    /// 12 bytes of either half.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(crate) fn pack(numbers: __m256i) -> __m256i {
        let indices = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, NO, NO, NO, NO];
        shuffle(numbers, indices)
    }
}
