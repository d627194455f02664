//! Rows of values by AVX-512, 16 pixels at a time.

use super::{Hole, Normalization, View};
use crate::image::Image;

/// Normalising by multiplications alone, to the very bits of the divisions:
/// by reciprocals of twice single precision, each the sum of two numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    mean: [f32; 3],
    /// 1 / std.
    inverse: [Reciprocal; 3],
}

#[derive(Clone, Copy, Debug)]
struct Reciprocal {
    near: f32,
    /// What `near` is too small by.
    rest: f32,
}

impl Reciprocal {
    const fn of(divisor: f32) -> Self {
        let exact = 1.0 / divisor as f64;
        let near = exact as f32;
        Self {
            near,
            rest: (exact - near as f64) as f32,
        }
    }
}

const INVERSE_255: Reciprocal = Reciprocal::of(255.0);

impl Scale {
    /// `None` where it gives other bits for any of the 768 values.
    pub(super) fn new(normalization: &Normalization) -> Option<Self> {
        let scale = Self {
            mean: normalization.mean,
            inverse: normalization.std.map(Reciprocal::of),
        };
        (0..=u8::MAX)
            .all(|pixel| {
                let exact = normalization.apply([pixel; 3]);
                (0..3).all(|i| scale.value(i, pixel).to_bits() == exact[i].to_bits())
            })
            .then_some(scale)
    }

    fn value(&self, channel: usize, pixel: u8) -> f32 {
        let quotient = |dividend: f32, divisor: Reciprocal| {
            dividend.mul_add(divisor.near, dividend * divisor.rest)
        };
        let unit = quotient(pixel.into(), INVERSE_255);
        quotient(unit - self.mean[channel], self.inverse[channel])
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

/// Writes what `view` shows of `source`, with `hole` at zero, into three planes
/// of single precision, one after another. `streamed`: past the caches, for
/// what nobody reads soon. `false`, and nothing done, on machines that cannot,
/// and for sizes that are no whole number of steps.
pub(super) fn image(
    source: &Image,
    view: &View,
    hole: Option<&Hole>,
    scale: &Scale,
    streamed: bool,
    out: &mut [[u8; 4]],
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if avx512::available()
        && let Some(chunks) = avx512::Chunks::of(source, view, hole)
    {
        // SAFETY: the one condition, what the machine has, has been checked.
        unsafe { avx512::image(source, view, &chunks, scale, streamed, out) };
        return true;
    }
    let _ = (source, view, hole, scale, streamed, out);
    false
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, __m512i, _mm_sfence, _mm512_cvtepi32_ps, _mm512_fmadd_ps, _mm512_loadu_si512,
        _mm512_mask_storeu_epi8, _mm512_mask_storeu_ps, _mm512_maskz_loadu_epi8,
        _mm512_maskz_mov_ps, _mm512_maskz_permutexvar_epi8, _mm512_mul_ps, _mm512_permutexvar_epi8,
        _mm512_set1_ps, _mm512_setzero_si512, _mm512_storeu_ps, _mm512_stream_ps, _mm512_sub_ps,
    };
    use std::ops::Range;

    use super::{Hole, INVERSE_255, Image, Reciprocal, Scale, View};
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
        let unit = quotient(_mm512_cvtepi32_ps(pixels), INVERSE_255);
        let mean = _mm512_set1_ps(scale.mean[channel]);
        quotient(_mm512_sub_ps(unit, mean), scale.inverse[channel])
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn quotient(dividend: __m512, divisor: Reciprocal) -> __m512 {
        let rest = _mm512_mul_ps(dividend, _mm512_set1_ps(divisor.rest));
        _mm512_fmadd_ps(dividend, _mm512_set1_ps(divisor.near), rest)
    }

    /// Steps of a row of 1024 pixels.
    const MOST_CHUNKS: usize = 64;

    /// What a step of every row reads and leaves out.
    #[derive(Clone, Copy)]
    struct Chunk {
        /// Of the first byte in the row of the source; what lies outside it is
        /// not of `mask`.
        start: isize,
        mask: u64,
        /// The pixels that are not of the hole's columns.
        kept: u16,
    }

    pub(super) struct Chunks {
        chunks: [Chunk; MOST_CHUNKS],
        count: usize,
        hole: Range<u32>,
    }

    impl Chunks {
        /// `None` where rows are not made of whole steps, or of too many.
        pub(super) fn of(source: &Image, view: &View, hole: Option<&Hole>) -> Option<Self> {
            let count = view.size() as usize / STEP;
            if count * STEP != view.size() as usize || count > MOST_CHUNKS {
                return None;
            }
            let (columns, from) = view.columns(source.width());
            let nothing = Chunk {
                start: 0,
                mask: 0,
                kept: u16::MAX,
            };
            let mut chunks = [nothing; MOST_CHUNKS];
            for (chunk, first) in chunks[..count].iter_mut().zip((0..).step_by(STEP)) {
                let within = |columns: &Range<usize>| {
                    let clip = |column: usize| column.clamp(first, first + STEP) - first;
                    clip(columns.start)..clip(columns.end)
                };
                let shown = within(&columns);
                if !shown.is_empty() {
                    let (start, pixels) = if view.is_mirrored() {
                        let last = from.end + columns.start;
                        let pixels = STEP - shown.end..STEP - shown.start;
                        (last as isize - (first + STEP) as isize, pixels)
                    } else {
                        let start = (from.start + first) as isize - columns.start as isize;
                        (start, shown)
                    };
                    let read = start + pixels.start as isize..start + pixels.end as isize;
                    assert!(read.start >= 0 && read.end <= source.width() as isize);
                    chunk.start = 3 * start;
                    chunk.mask = ones(3 * pixels.start..3 * pixels.end);
                }
                if let Some(hole) = hole {
                    let left_out =
                        within(&(hole.columns.start as usize..hole.columns.end as usize));
                    chunk.kept = !(ones(left_out) as u16);
                }
            }
            Some(Self {
                chunks,
                count,
                hole: hole.map_or(0..0, |hole| hole.rows.clone()),
            })
        }
    }

    /// A mask of the bits `range`, within 0..64.
    fn ones(range: Range<usize>) -> u64 {
        match range.len() {
            0 => 0,
            length => u64::MAX >> (64 - length) << range.start,
        }
    }

    /// [`CHANNELS`] of reversed pixels.
    const MIRRORED: [[u8; 64]; 3] = {
        let mut channels = CHANNELS;
        let mut i = 0;
        while i < 3 * STEP {
            channels[i % 3][i / 3 * 4] = ((STEP - 1 - i / 3) * 3 + i % 3) as u8;
            i += 1;
        }
        channels
    };

    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    pub(super) fn image(
        source: &Image,
        view: &View,
        chunks: &Chunks,
        scale: &Scale,
        streamed: bool,
        out: &mut [[u8; 4]],
    ) {
        // Streaming is for whole lines of the cache.
        if streamed && out.as_ptr().cast::<__m512>().is_aligned() {
            rows::<true>(source, view, chunks, scale, out);
            // What is streamed comes before what other threads are told of it.
            _mm_sfence();
        } else {
            rows::<false>(source, view, chunks, scale, out);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn rows<const STREAMED: bool>(
        source: &Image,
        view: &View,
        chunks: &Chunks,
        scale: &Scale,
        out: &mut [[u8; 4]],
    ) {
        let channels = match view.is_mirrored() {
            true => &MIRRORED,
            false => &CHANNELS,
        };
        let channels = [
            indices(&channels[0]),
            indices(&channels[1]),
            indices(&channels[2]),
        ];
        let plane = chunks.count * STEP * chunks.count * STEP;
        let (red, rest) = out.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        let planes = [red, green, blue].map(|plane| plane.as_chunks_mut::<STEP>().0);
        let mut planes = planes.map(|plane| plane.chunks_exact_mut(chunks.count));
        for y in 0..view.size() {
            let [Some(red), Some(green), Some(blue)] = planes.each_mut().map(Iterator::next) else {
                return;
            };
            let row = view.source_row(source, y);
            let in_hole = chunks.hole.contains(&y);
            let places = red.iter_mut().zip(green).zip(blue);
            for (chunk, ((red, green), blue)) in chunks.chunks.iter().zip(places) {
                let pixels = if row.is_empty() {
                    _mm512_setzero_si512()
                } else {
                    // SAFETY: the mask selects bytes of the row only
                    // (`Chunks::of` has asserted so); the others are not read.
                    unsafe {
                        let start = row.as_ptr().wrapping_offset(chunk.start);
                        _mm512_maskz_loadu_epi8(chunk.mask, start.cast())
                    }
                };
                let kept = if in_hole { chunk.kept } else { u16::MAX };
                for (channel, place) in [red, green, blue].into_iter().enumerate() {
                    let values = _mm512_maskz_permutexvar_epi8(LOWEST, channels[channel], pixels);
                    let values = _mm512_maskz_mov_ps(kept, normalized(values, channel, scale));
                    let place = place.as_mut_ptr().cast();
                    // SAFETY: 16 numbers are written where as many are. When
                    // streamed, they are aligned: the first is, and planes and
                    // rows are whole numbers of steps.
                    unsafe {
                        if STREAMED {
                            _mm512_stream_ps(place, values);
                        } else {
                            _mm512_storeu_ps(place, values);
                        }
                    }
                }
            }
        }
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
