//! Both passes by the byte products of AVX-512 VNNI, to the same bits.
//!
//! One instruction multiplies four unsigned pixels with four signed bytes of
//! weights and adds the products to a 32-bit sum. A weight of 22 fraction bits
//! is written as `d0 + 256 d1 + 65536 d2` with digits from -128 to 127, so that
//! three of them carry four taps exactly.

use std::arch::x86_64::{
    __m512i, _mm_storeu_si128, _mm512_add_epi32, _mm512_cvtusepi32_epi8, _mm512_dpbusd_epi32,
    _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_max_epi32,
    _mm512_packs_epi32, _mm512_packus_epi16, _mm512_permutexvar_epi8, _mm512_set1_epi32,
    _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srai_epi32, _mm512_unpackhi_epi8,
    _mm512_unpackhi_epi16, _mm512_unpacklo_epi8, _mm512_unpacklo_epi16,
};

use super::{Axis, HALF, PRECISION, View};
use crate::cpu::{Cpu, cpu};
use crate::image::Image;

/// Input positions one product takes.
const TAPS: usize = 4;
/// Bytes of a vector.
const BYTES: usize = 64;
/// Output pixels of three values a vector holds; its last lane stays empty.
const PIXELS: usize = 5;

/// Whether the machine can run this file.
pub(super) fn available() -> bool {
    cpu() == Cpu::Avx512
}

/// The weights of one axis by digits, four taps together.
#[derive(Debug, Default)]
pub(super) struct Digits {
    /// Products an output position takes: taps / 4, rounded up; the same for
    /// all positions.
    groups: usize,
    /// Per position and group: the digits of four weights.
    words: Vec<[i32; 3]>,
    /// For [`horizontal`], per group of [`PIXELS`] positions and group of taps.
    gathers: Vec<Gather>,
}

/// Which bytes of a row four taps of [`PIXELS`] output pixels read, and their
/// weights.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Gather {
    bytes: [u32; 16],
    digits: [[i32; 16]; 3],
    /// First byte of the row read.
    start: usize,
    /// Which of the 64 bytes from there on belong to the row.
    mask: u64,
}

impl Digits {
    /// Takes over the weights of `axis`.
    pub(super) fn prepare(&mut self, axis: &Axis) {
        let most = axis.positions().map(|(_, weights)| weights.len()).max();
        self.groups = most.unwrap_or(0).div_ceil(TAPS);
        self.words.clear();
        for (_, weights) in axis.positions() {
            let words = (0..self.groups).map(|group| {
                let mut word = [0u32; 3];
                for (tap, &weight) in weights.iter().skip(group * TAPS).take(TAPS).enumerate() {
                    for (word, digit) in word.iter_mut().zip(digits(weight)) {
                        *word |= u32::from(digit as u8) << (8 * tap);
                    }
                }
                word.map(|word| word as i32)
            });
            self.words.extend(words);
        }
    }

    /// Lays the weights out for [`horizontal`], over rows of `width` pixels.
    /// `false` when one output vector reads from too far apart.
    pub(super) fn prepare_gathers(&mut self, axis: &Axis, width: u32) -> bool {
        self.gathers.clear();
        let width = width as usize;
        let positions = self.words.chunks_exact(self.groups);
        let mut positions = axis.positions().zip(positions);
        loop {
            let mut pixels = [(0usize, &[][..], &[][..]); PIXELS];
            let mut count = 0;
            for (pixel, ((first, weights), words)) in pixels.iter_mut().zip(&mut positions) {
                *pixel = (first as usize, weights, words);
                count += 1;
            }
            if count == 0 {
                return true;
            }
            for group in 0..self.groups {
                let start = (pixels[0].0 + group * TAPS).min(width - 1);
                let mut gather = Gather {
                    bytes: [0; 16],
                    digits: [[0; 16]; 3],
                    start: start * 3,
                    mask: u64::MAX,
                };
                if let Some(bits @ ..64) = Some(width * 3 - gather.start) {
                    gather.mask = (1 << bits) - 1;
                }
                for (lane, &(first, weights, words)) in pixels[..count].iter().enumerate() {
                    if group * TAPS >= weights.len() {
                        continue;
                    }
                    let first = (first + group * TAPS - start) * 3;
                    let taps = weights.len() - group * TAPS;
                    if first + (taps.min(TAPS) - 1) * 3 + 2 >= BYTES {
                        return false;
                    }
                    for channel in 0..3 {
                        // Bytes beyond the 64th have weight 0.
                        let byte = (first + channel) as u32;
                        gather.bytes[lane * 3 + channel] = byte * 0x0101_0101 + 0x0906_0300;
                        for (digits, &word) in gather.digits.iter_mut().zip(&words[group]) {
                            digits[lane * 3 + channel] = word;
                        }
                    }
                }
                self.gathers.push(gather);
            }
            if count < PIXELS {
                return true;
            }
        }
    }
}

/// `weight` = d0 + 256 d1 + 65536 d2.
fn digits(weight: i32) -> [i8; 3] {
    let d0 = weight as i8;
    let rest = (weight - i32::from(d0)) >> 8;
    let d1 = rest as i8;
    [d0, d1, ((rest - i32::from(d1)) >> 8) as i8]
}

/// Adds four taps to the sums of each digit.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn add_products(sums: &mut [__m512i; 3], pixels: __m512i, digits: &[__m512i; 3]) {
    for (sum, &digit) in sums.iter_mut().zip(digits) {
        *sum = _mm512_dpbusd_epi32(*sum, pixels, digit);
    }
}

/// The rounded weighted sums, neither below 0 nor clipped at 255 yet.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn join([low, middle, high]: [__m512i; 3]) -> __m512i {
    let sum = _mm512_add_epi32(low, _mm512_slli_epi32::<8>(middle));
    let sum = _mm512_add_epi32(sum, _mm512_slli_epi32::<16>(high));
    _mm512_srai_epi32::<PRECISION>(sum)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn start() -> [__m512i; 3] {
    let zero = _mm512_setzero_si512();
    [_mm512_set1_epi32(HALF), zero, zero]
}

/// Resizes along the rows.
///
/// # Panics
/// When `target` is not as high as `source`.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
pub(super) fn horizontal(source: &View<'_>, digits: &Digits, target: &mut Image) {
    assert_eq!(source.height, target.height());
    let width = target.width() as usize;
    let stride = target.stride();
    let mut rows = source.rows_from(0);
    for out in target.pixels_mut().chunks_mut(4 * stride) {
        let mut from = [&[][..]; 4];
        let count = out.len() / stride;
        for from in &mut from[..count] {
            *from = rows.next().unwrap_or_default();
        }
        if count == 4 {
            horizontal_rows(&from, digits, width, out, stride);
        } else {
            for (row, out) in from.iter().zip(out.chunks_exact_mut(stride)) {
                horizontal_rows(&[row], digits, width, out, stride);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn horizontal_rows<const ROWS: usize>(
    rows: &[&[u8]; ROWS],
    digits: &Digits,
    width: usize,
    out: &mut [u8],
    stride: usize,
) {
    let shortest = rows.iter().map(|row| row.len()).min().unwrap_or(0);
    for (chunk, gathers) in digits.gathers.chunks_exact(digits.groups).enumerate() {
        let mut sums = [start(); ROWS];
        for gather in gathers {
            // Every row is as wide as the axis was made for.
            assert!(gather.start + gather.mask.count_ones() as usize <= shortest);
            // SAFETY: arrays of 64 bytes are read.
            let (bytes, weights) = unsafe {
                (
                    _mm512_loadu_si512(gather.bytes.as_ptr().cast()),
                    gather
                        .digits
                        .each_ref()
                        .map(|digits| _mm512_loadu_si512(digits.as_ptr().cast())),
                )
            };
            for (sums, row) in sums.iter_mut().zip(rows) {
                // SAFETY: the mask selects bytes within the row, as asserted;
                // the others are not touched.
                let pixels = unsafe {
                    _mm512_maskz_loadu_epi8(gather.mask, row.as_ptr().add(gather.start).cast())
                };
                add_products(sums, _mm512_permutexvar_epi8(bytes, pixels), &weights);
            }
        }
        let place = chunk * PIXELS * 3;
        for (row, sums) in sums.into_iter().enumerate() {
            let values = _mm512_max_epi32(join(sums), _mm512_setzero_si512());
            let values = _mm512_cvtusepi32_epi8(values);
            let out = &mut out[row * stride..][place..width * 3];
            if let Some(out) = out.first_chunk_mut::<16>() {
                // The sixteenth byte is the next chunk's first.
                // SAFETY: 16 bytes are written.
                unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), values) };
            } else {
                let mut last = [0u8; 16];
                // SAFETY: 16 bytes are written.
                unsafe { _mm_storeu_si128(last.as_mut_ptr().cast(), values) };
                out.copy_from_slice(&last[..out.len()]);
            }
        }
    }
}

/// Resizes along the columns.
///
/// # Panics
/// When `target` is not as wide as `source`.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
pub(super) fn vertical(source: &View<'_>, axis: &Axis, digits: &Digits, target: &mut Image) {
    assert_eq!(source.width, target.width());
    let stride = target.stride();
    let positions = axis
        .positions()
        .zip(digits.words.chunks_exact(digits.groups));
    for (out, ((first, _), words)) in target.pixels_mut().chunks_exact_mut(stride).zip(positions) {
        match *words {
            [word] => vertical_row([word], source, first, out),
            [a, b] => vertical_row([a, b], source, first, out),
            [a, b, c] => vertical_row([a, b, c], source, first, out),
            _ => vertical_slowly(words, source, first, out),
        }
    }
}

/// `TAPS` rows from `first` on; those beyond the last are the last.
fn four_rows<'a>(source: &View<'a>, first: u32) -> [&'a [u8]; TAPS] {
    let last = source.height - 1;
    let mut rows = source.rows_from(first.min(last));
    let mut row = &[][..];
    [(); TAPS].map(|()| {
        row = rows.next().unwrap_or(row);
        row
    })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn vertical_row<const GROUPS: usize>(
    words: [[i32; 3]; GROUPS],
    source: &View<'_>,
    first: u32,
    out: &mut [u8],
) {
    let mut group = 0;
    let rows: [_; GROUPS] = words.map(|_| {
        let rows = four_rows(source, first + group * TAPS as u32);
        group += 1;
        rows
    });
    let weights = words.map(|word| word.map(|word| _mm512_set1_epi32(word)));
    for (block, out) in out.chunks_mut(BYTES).enumerate() {
        let mask = u64::MAX >> (BYTES - out.len());
        let mut sums = [start(); 4];
        for (rows, weights) in rows.iter().zip(&weights) {
            add_rows(&mut sums, rows, block, mask, weights);
        }
        put(sums, mask, out);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn vertical_slowly(words: &[[i32; 3]], source: &View<'_>, first: u32, out: &mut [u8]) {
    for (block, out) in out.chunks_mut(BYTES).enumerate() {
        let mask = u64::MAX >> (BYTES - out.len());
        let mut sums = [start(); 4];
        for (group, word) in (0..).zip(words) {
            let rows = four_rows(source, first + group * TAPS as u32);
            let weights = word.map(|word| _mm512_set1_epi32(word));
            add_rows(&mut sums, &rows, block, mask, &weights);
        }
        put(sums, mask, out);
    }
}

/// Adds four taps of the columns in `block`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn add_rows(
    sums: &mut [[__m512i; 3]; 4],
    rows: &[&[u8]; TAPS],
    block: usize,
    mask: u64,
    weights: &[__m512i; 3],
) {
    let [a, b, c, d] = rows.map(|row| {
        let row = &row[block * BYTES..][..mask.count_ones() as usize];
        // SAFETY: the mask selects bytes of `row` only.
        unsafe { _mm512_maskz_loadu_epi8(mask, row.as_ptr().cast()) }
    });
    // Four bytes of one column beside each other; the packing of `put` undoes
    // how columns are spread over the vectors.
    let (low, high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
    let (low_2, high_2) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
    let columns = [
        _mm512_unpacklo_epi16(low, low_2),
        _mm512_unpackhi_epi16(low, low_2),
        _mm512_unpacklo_epi16(high, high_2),
        _mm512_unpackhi_epi16(high, high_2),
    ];
    for (sums, pixels) in sums.iter_mut().zip(columns) {
        add_products(sums, pixels, weights);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn put(sums: [[__m512i; 3]; 4], mask: u64, out: &mut [u8]) {
    let [a, b, c, d] = sums.map(|sums| join(sums));
    let values = _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
    let out = &mut out[..mask.count_ones() as usize];
    // SAFETY: the mask selects bytes of `out` only.
    unsafe { _mm512_mask_storeu_epi8(out.as_mut_ptr().cast(), mask, values) };
}

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn digits_make_the_weight() {
        for weight in (-(1 << 22)..=1 << 22)
            .step_by(77)
            .chain([1 << 22, 127, 128])
        {
            let [d0, d1, d2] = digits(weight).map(i32::from);
            assert_eq!(d0 + 256 * d1 + 65536 * d2, weight);
        }
    }
}
