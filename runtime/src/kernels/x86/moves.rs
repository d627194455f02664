//! Pixels in reverse order, exchanged from both ends towards the middle.

use std::arch::x86_64::*;

use super::memory::{load_128, load_512, load_some_512, store_48, store_128, store_some_512};

/// The 16 pixels of the first 48 bytes in reverse order.
const REVERSE: [u8; 64] = {
    let mut indices = [0; 64];
    let mut i = 0;
    while i < 48 {
        indices[i] = (3 * (15 - i / 3) + i % 3) as u8;
        i += 1;
    }
    indices
};

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vbmi")]
pub(super) fn reverse_avx512(pixels: &mut [u8]) {
    let from_start = load_512(&REVERSE);
    let from_end = _mm512_add_epi8(from_start, _mm512_set1_epi8(16));
    let mut rest = pixels;
    while rest.len() >= 96 {
        if let (Some(first), Some(last)) = (rest.first_chunk(), rest.last_chunk()) {
            let (first, last) = (load_512(first), load_512(last));
            if let Some(left) = rest.first_chunk_mut() {
                store_48(left, _mm512_permutexvar_epi8(from_end, last));
            }
            if let Some(right) = rest.last_chunk_mut() {
                store_48(right, _mm512_permutexvar_epi8(from_start, first));
            }
        }
        let end = rest.len() - 48;
        rest = &mut rest[48..end];
    }
    // At most one more exchange; a pixel in the middle stays.
    let bytes = rest.len() / 6 * 3;
    if bytes > 0 {
        let end = rest.len() - bytes;
        // The reverse of fewer pixels starts that many pixels later.
        let skipped = _mm512_set1_epi8((48 - bytes) as i8);
        let indices = _mm512_sub_epi8(from_start, skipped);
        let (first, last) = (load_some_512(&rest[..bytes]), load_some_512(&rest[end..]));
        store_some_512(&mut rest[..bytes], _mm512_permutexvar_epi8(indices, last));
        store_some_512(&mut rest[end..], _mm512_permutexvar_epi8(indices, first));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vbmi")]
pub(super) fn mirror_avx512(pixels: &mut [u8], stride: usize) {
    for row in pixels.chunks_exact_mut(stride) {
        reverse_avx512(row);
    }
}

/// Each row of `stride` bytes of one slice in reverse order into the other, of
/// the same length.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vbmi")]
pub(super) fn reverse_to_avx512(from: &[u8], stride: usize, to: &mut [u8]) {
    let indices = load_512(&REVERSE);
    for (from, to) in from.chunks_exact(stride).zip(to.chunks_exact_mut(stride)) {
        let (from_start, from) = from.as_rchunks::<48>();
        let (to, to_end) = to.as_chunks_mut::<48>();
        for (to, from) in to.iter_mut().zip(from.iter().rev()) {
            store_48(to, _mm512_permutexvar_epi8(indices, load_some_512(from)));
        }
        if !to_end.is_empty() {
            // The reverse of fewer pixels starts that many pixels later.
            let skipped = _mm512_set1_epi8((48 - to_end.len()) as i8);
            let indices = _mm512_sub_epi8(indices, skipped);
            let end = _mm512_permutexvar_epi8(indices, load_some_512(from_start));
            store_some_512(to_end, end);
        }
    }
}

/// As [`reverse_to_avx512`].
#[target_feature(enable = "avx2")]
pub(super) fn reverse_to_avx2(from: &[u8], stride: usize, to: &mut [u8]) {
    for (from, to) in from.chunks_exact(stride).zip(to.chunks_exact_mut(stride)) {
        let (from_start, from) = from.as_rchunks::<48>();
        let (to, to_end) = to.as_chunks_mut::<48>();
        for (to, from) in to.iter_mut().zip(from.iter().rev()) {
            let from = from.as_chunks::<16>().0;
            let turned = reverse_16([load_128(&from[0]), load_128(&from[1]), load_128(&from[2])]);
            for (to, turned) in to.as_chunks_mut::<16>().0.iter_mut().zip(turned) {
                store_128(to, turned);
            }
        }
        let pixels = from_start.as_chunks::<3>().0.iter().rev();
        for (to, from) in to_end.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
            *to = *from;
        }
    }
}

/// Where the bytes of 16 reversed pixels come from: for each of three vectors
/// and each of three sources the index, or -1 for other sources.
const REVERSE_16: [[[u8; 16]; 3]; 3] = {
    let mut indices = [[[0xff; 16]; 3]; 3];
    let mut i = 0;
    while i < 48 {
        let from = 3 * (15 - i / 3) + i % 3;
        indices[i / 16][from / 16][i % 16] = (from % 16) as u8;
        i += 1;
    }
    indices
};

#[target_feature(enable = "avx2")]
pub(super) fn reverse_avx2(pixels: &mut [u8]) {
    let mut rest = pixels;
    while rest.len() >= 96 {
        let (left, others) = rest.split_at_mut(48);
        let (middle, right) = others.split_at_mut(others.len() - 48);
        let (left, right) = (left.as_chunks_mut::<16>().0, right.as_chunks_mut::<16>().0);
        let first = reverse_16([load_128(&left[0]), load_128(&left[1]), load_128(&left[2])]);
        let last = reverse_16([
            load_128(&right[0]),
            load_128(&right[1]),
            load_128(&right[2]),
        ]);
        for i in 0..3 {
            store_128(&mut left[i], last[i]);
            store_128(&mut right[i], first[i]);
        }
        rest = middle;
    }
    rest.as_chunks_mut::<3>().0.reverse();
}

#[inline]
#[target_feature(enable = "avx2")]
fn reverse_16(sources: [__m128i; 3]) -> [__m128i; 3] {
    let mut out = [_mm_setzero_si128(); 3];
    for (out, indices) in out.iter_mut().zip(&REVERSE_16) {
        for (source, indices) in sources.iter().zip(indices) {
            *out = _mm_or_si128(*out, _mm_shuffle_epi8(*source, load_128(indices)));
        }
    }
    out
}

#[target_feature(enable = "avx2")]
pub(super) fn mirror_avx2(pixels: &mut [u8], stride: usize) {
    for row in pixels.chunks_exact_mut(stride) {
        reverse_avx2(row);
    }
}
