//! Vectors from and to slices.

use std::arch::x86_64::*;

/// The first 64 bits of a mask of `length` bytes, at most 64.
#[inline(always)]
pub(super) fn mask(length: usize) -> __mmask64 {
    match length {
        0 => 0,
        1..64 => u64::MAX >> (64 - length),
        _ => u64::MAX,
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_512(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads the 64 bytes of the array; no alignment is asked for.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_512(bytes: &mut [u8; 64], value: __m512i) {
    // SAFETY: writes the 64 bytes of the array; no alignment is asked for.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) }
}

/// The first 48 bytes. Stores under a mask would do, but hold up later loads
/// on some processors.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn store_48(bytes: &mut [u8; 48], value: __m512i) {
    let start = _mm512_castsi512_si256(value);
    let end = _mm512_extracti32x4_epi32::<2>(value);
    // SAFETY: writes bytes 0..32 and 32..48 of the array.
    unsafe {
        _mm256_storeu_si256(bytes.as_mut_ptr().cast(), start);
        _mm_storeu_si128(bytes.as_mut_ptr().add(32).cast(), end);
    }
}

/// The first bytes of a slice, at most 64; zeros from its end on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn load_some_512(bytes: &[u8]) -> __m512i {
    // SAFETY: the mask keeps the instruction from reading past the slice.
    unsafe { _mm512_maskz_loadu_epi8(mask(bytes.len()), bytes.as_ptr().cast()) }
}

/// Writes as much of the vector as fits into the slice.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn store_some_512(bytes: &mut [u8], value: __m512i) {
    // SAFETY: the mask keeps the instruction from writing past the slice.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask(bytes.len()), value) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_128(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: reads the 16 bytes of the array; no alignment is asked for.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_128(bytes: &mut [u8; 16], value: __m128i) {
    // SAFETY: writes the 16 bytes of the array; no alignment is asked for.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_64(bytes: &mut [u8; 8], value: __m128i) {
    // SAFETY: writes the 8 bytes of the array; no alignment is asked for.
    unsafe { _mm_storel_epi64(bytes.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_256(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: reads the 32 bytes of the array; no alignment is asked for.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_256(bytes: &mut [u8; 32], value: __m256i) {
    // SAFETY: writes the 32 bytes of the array; no alignment is asked for.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), value) }
}
