//! Rows of values by AVX-512, 16 pixels at a time.

use super::Normalization;

/// Normalising by multiplications alone, to the very bits of the divisions: a
/// product with the reciprocal is put right by what it leaves over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    normalization: Normalization,
    /// 1 / std.
    inverse: [f32; 3],
}

const INVERSE_255: f32 = 1.0 / 255.0;

impl Scale {
    /// `None` where it gives other bits for any of the 768 values.
    pub(super) fn new(normalization: &Normalization) -> Option<Self> {
        let scale = Self {
            normalization: *normalization,
            inverse: normalization.std.map(|std| 1.0 / std),
        };
        (0..=u8::MAX)
            .all(|pixel| {
                let exact = normalization.apply([pixel; 3]);
                (0..3).all(|i| scale.value(i, pixel).to_bits() == exact[i].to_bits())
            })
            .then_some(scale)
    }

    fn value(&self, channel: usize, pixel: u8) -> f32 {
        let quotient = |dividend: f32, divisor: f32, inverse: f32| {
            let near = dividend * inverse;
            let left = (-near).mul_add(divisor, dividend);
            left.mul_add(inverse, near)
        };
        let Normalization { mean, std } = &self.normalization;
        let unit = quotient(pixel.into(), 255.0, INVERSE_255);
        quotient(unit - mean[channel], std[channel], self.inverse[channel])
    }
}

/// Copies `pixels` in reverse order into as many bytes of `out`. `false`, and
/// nothing done, on machines that cannot.
pub(super) fn mirror(pixels: &[[u8; 3]], out: &mut [u8]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if avx512::available() {
        // SAFETY: the one condition, what the machine has, has been checked.
        unsafe { avx512::mirror(pixels, out) };
        return true;
    }
    let _ = (pixels, out);
    false
}

/// Puts the values of `pixels`, in reverse order if `mirrored`, into three
/// planes of as many 32-bit numbers. `false`, and nothing done, on machines
/// that cannot.
pub(super) fn planes(
    pixels: &[[u8; 3]],
    mirrored: bool,
    scale: &Scale,
    out: [&mut [[u8; 4]]; 3],
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if avx512::available() {
        // SAFETY: the one condition, what the machine has, has been checked.
        unsafe { avx512::planes(pixels, mirrored, scale, out) };
        return true;
    }
    let _ = (pixels, mirrored, scale, out);
    false
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, __m512i, _mm512_cvtepi32_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_si512,
        _mm512_mask_storeu_epi8, _mm512_mask_storeu_ps, _mm512_maskz_loadu_epi8,
        _mm512_maskz_permutexvar_epi8, _mm512_mul_ps, _mm512_permutexvar_epi8, _mm512_set1_ps,
        _mm512_sub_ps,
    };

    use super::{INVERSE_255, Scale};
    use crate::cpu::{Cpu, cpu};

    /// Pixels at once: 48 bytes of 64.
    const STEP: usize = 16;

    pub(super) fn available() -> bool {
        cpu() >= Cpu::Avx512
    }

    /// The pixels of one step, the first of them in the first bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn load(pixels: &[[u8; 3]]) -> __m512i {
        let bytes = pixels.as_flattened();
        let mask = u64::MAX >> (64 - bytes.len().clamp(1, 3 * STEP));
        assert!(!bytes.is_empty());
        // SAFETY: the mask selects bytes of `bytes` only.
        unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn indices(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: 64 bytes are read.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    /// Byte `i` of `count` reversed pixels.
    const fn reversed(count: usize) -> [u8; 64] {
        let mut bytes = [0; 64];
        let mut i = 0;
        while i < 3 * count {
            bytes[i] = ((count - 1 - i / 3) * 3 + i % 3) as u8;
            i += 1;
        }
        bytes
    }

    const REVERSED: [[u8; 64]; STEP + 1] = {
        let mut all = [[0; 64]; STEP + 1];
        let mut count = 0;
        while count <= STEP {
            all[count] = reversed(count);
            count += 1;
        }
        all
    };

    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    pub(super) fn mirror(pixels: &[[u8; 3]], out: &mut [u8]) {
        let out = &mut out[..pixels.len() * 3];
        for (pixels, out) in pixels.rchunks(STEP).zip(out.chunks_mut(3 * STEP)) {
            let turned = _mm512_permutexvar_epi8(indices(&REVERSED[pixels.len()]), load(pixels));
            let mask = u64::MAX >> (64 - out.len());
            // SAFETY: the mask selects bytes of `out` only.
            unsafe { _mm512_mask_storeu_epi8(out.as_mut_ptr().cast(), mask, turned) };
        }
    }

    /// Per channel: its byte of each of 16 pixels, each as the lowest of four.
    const CHANNELS: [[u8; 64]; 3] = {
        let mut channels = [[0; 64]; 3];
        let mut i = 0;
        while i < 3 * STEP {
            channels[i % 3][i / 3 * 4] = i as u8;
            i += 1;
        }
        channels
    };
    const LOWEST: u64 = 0x1111_1111_1111_1111;

    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    pub(super) fn planes(
        pixels: &[[u8; 3]],
        mirrored: bool,
        scale: &Scale,
        out: [&mut [[u8; 4]]; 3],
    ) {
        let mut out = out.map(|plane| plane[..pixels.len()].chunks_mut(STEP));
        let mut step = |bytes: __m512i| {
            for (channel, chunks) in out.iter_mut().enumerate() {
                let Some(place) = chunks.next() else { return };
                let values =
                    _mm512_maskz_permutexvar_epi8(LOWEST, indices(&CHANNELS[channel]), bytes);
                let values = normalized(values, channel, scale);
                let mask = u16::MAX >> (STEP - place.len());
                // SAFETY: the mask selects numbers of `place` only.
                unsafe { _mm512_mask_storeu_ps(place.as_mut_ptr().cast(), mask, values) };
            }
        };
        if mirrored {
            for pixels in pixels.rchunks(STEP) {
                let turn = indices(&REVERSED[pixels.len()]);
                step(_mm512_permutexvar_epi8(turn, load(pixels)));
            }
        } else {
            for pixels in pixels.chunks(STEP) {
                step(load(pixels));
            }
        }
    }

    /// [`Scale::value`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn normalized(pixels: __m512i, channel: usize, scale: &Scale) -> __m512 {
        let unit = quotient(_mm512_cvtepi32_ps(pixels), 255.0, INVERSE_255);
        let mean = _mm512_set1_ps(scale.normalization.mean[channel]);
        quotient(
            _mm512_sub_ps(unit, mean),
            scale.normalization.std[channel],
            scale.inverse[channel],
        )
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn quotient(dividend: __m512, divisor: f32, inverse: f32) -> __m512 {
        let inverse = _mm512_set1_ps(inverse);
        let near = _mm512_mul_ps(dividend, inverse);
        let left = _mm512_fnmadd_ps(near, _mm512_set1_ps(divisor), dividend);
        _mm512_fmadd_ps(left, inverse, near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of the recipes that are shipped can be done so; one whose results
    /// leave the range of single precision cannot.
    #[test]
    fn usual_normalisations_need_no_division() {
        for (mean, std) in [
            ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
            ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ([0.5; 3], [0.5; 3]),
            ([0.0; 3], [1.0; 3]),
        ] {
            assert!(
                Scale::new(&Normalization { mean, std }).is_some(),
                "{mean:?}"
            );
        }
        let normalization = Normalization {
            mean: [0.0; 3],
            std: [1e-42; 3],
        };
        assert!(Scale::new(&normalization).is_none());
    }
}
