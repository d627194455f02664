//! Blends of an image with a degenerate version of itself (`ImageEnhance.py`).
//!
//! A factor of 0 is the degenerate image, 1 the image itself; outside 0..=1
//! the blend extrapolates. The factor arrives in double precision and is
//! rounded to single, as Pillow's `_imaging.c` does; `Blend.c` then works in
//! single precision with one rounding per product and per sum.

use super::filter::{self, FilterScratch};
use super::point::{self, Bytes};
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::image::Image;

/// Blend with the grey version of the image.
pub(super) fn color(image: &mut Image, factor: f64) {
    let factor = factor as f32;
    if factor == 1.0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if x86::blend_with_gray(image.pixels_mut(), factor) {
        return;
    }
    // A few pixels at a time, in steps that become vector instructions.
    const PIXELS: usize = 256;
    let mut grays = [0; PIXELS];
    let mut spread = [[0; 3]; PIXELS];
    for block in image.pixels_mut().chunks_mut(PIXELS * 3) {
        write_luma(block, &mut grays);
        for (bytes, &gray) in spread.iter_mut().zip(&grays) {
            *bytes = [gray; 3];
        }
        blend_bytes(spread.as_flattened(), block, factor);
    }
}

/// Blend with the mean grey of the image, rounded.
pub(super) fn contrast(image: &mut Image, factor: f64) {
    if factor as f32 == 1.0 || image.is_empty() {
        return;
    }
    let pixels = image.pixels().len() / 3;
    let mean = (sum_luma(image.pixels()) as f64 / pixels as f64 + 0.5) as u8;
    point::apply_table(
        Bytes::InPlace(image.pixels_mut()),
        &blend_with_constant(mean, factor),
    );
}

/// What a blend with black makes of each value.
pub(super) fn brightness(factor: f64) -> point::Table {
    blend_with_constant(0, factor)
}

/// Blend with the image smoothed. `smoothed` is scratch.
pub(super) fn sharpness(
    image: &mut Image,
    factor: f64,
    scratch: &mut FilterScratch,
    smoothed: &mut Image,
) {
    let factor = factor as f32;
    if factor == 1.0 {
        return;
    }
    filter::smooth(image, scratch, smoothed);
    blend_bytes(smoothed.pixels(), image.pixels_mut(), factor);
}

/// Writes the grey of each pixel.
fn write_luma(pixels: &[u8], grays: &mut [u8]) {
    for (gray, &pixel) in grays.iter_mut().zip(pixels.as_chunks::<3>().0) {
        *gray = luma(pixel);
    }
}

/// Sum of the greys of all pixels.
fn sum_luma(pixels: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if let Some(sum) = x86::sum_luma(pixels) {
        return sum;
    }
    // Short sums of 32 bits, which fill vectors better.
    let sum_some = |pixels: &[u8]| {
        let pixels = pixels.as_chunks::<3>().0.iter();
        pixels.map(|&pixel| u32::from(luma(pixel))).sum::<u32>()
    };
    let sums = pixels.chunks(3 << 12);
    sums.map(|some| u64::from(sum_some(some))).sum()
}

/// Blends each value with its degenerate.
fn blend_bytes(degenerates: &[u8], values: &mut [u8], factor: f32) {
    #[cfg(target_arch = "x86_64")]
    if x86::blend_bytes(degenerates, values, factor) {
        return;
    }
    for (value, &degenerate) in values.iter_mut().zip(degenerates) {
        *value = blend(degenerate, *value, factor);
    }
}

/// What the blend makes of each value; of factor 1, the value itself.
fn blend_with_constant(degenerate: u8, factor: f64) -> point::Table {
    let mut table = point::IDENTITY;
    blend_bytes(&[degenerate; 256], &mut table, factor as f32);
    table
}

/// `a + factor * (b - a)`, truncated, clipped to 0..=255.
///
/// Two roundings, never fused: `mul_add` would differ from Pillow. Pillow does
/// not clip where 0 <= factor <= 1, and need not: rounding is monotone, so the
/// value stays between `a` and `b`.
#[inline(always)]
fn blend(a: u8, b: u8, factor: f32) -> u8 {
    let difference = f32::from(b) - f32::from(a);
    truncate(f32::from(a) + factor * difference)
}

/// Truncated and clipped to 0..=255, not a number to 0: `value as u8`, in a
/// form that becomes vector instructions.
#[inline(always)]
fn truncate(value: f32) -> u8 {
    const SHIFT: f32 = (1 << 23) as f32; // floats from here on have no fraction
    let clipped = if value > 0.0 { value } else { 0.0 };
    let clipped = if clipped < 255.0 { clipped } else { 255.0 };
    let shifted = clipped + SHIFT; // rounds to nearest; the low bits hold the integer
    let rounded_up = shifted - SHIFT > clipped;
    shifted.to_bits() as u8 - u8::from(rounded_up)
}

/// ITU-R 601-2 luma in Pillow's 16-bit fixed point (`Convert.c`, `L24`).
#[inline(always)]
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    let sum = 19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue);
    ((sum + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luma_weighs_green_most_and_keeps_greys() {
        assert_eq!(luma([255, 0, 0]), 76);
        assert_eq!(luma([0, 255, 0]), 150);
        assert_eq!(luma([0, 0, 255]), 29);
        for value in 0..=255 {
            assert_eq!(luma([value; 3]), value);
        }
    }

    #[test]
    fn blending_truncates_and_clips() {
        assert_eq!(blend(10, 20, 0.0), 10);
        assert_eq!(blend(10, 20, 1.0), 20);
        assert_eq!(blend(10, 20, 0.46), 14); // 14.6
        assert_eq!(blend(200, 100, 0.46), 154);
        assert_eq!(blend(100, 200, 5.14), 255);
        assert_eq!(blend(100, 200, -1.5), 0);
        // In single precision 0.9f * 200 rounds to 180 exactly.
        assert_eq!(blend(0, 200, 0.9), 180);
        assert_eq!(blend(7, 7, f32::INFINITY), 0);
    }

    #[test]
    fn truncation_equals_the_cast() {
        for i in -300..=600 {
            let near = i as f32 / 2.0;
            for value in [near, near.next_up(), near.next_down()] {
                assert_eq!(truncate(value), value as u8, "{value:e}");
            }
        }
        for value in [f32::MIN, f32::MAX, f32::INFINITY, f32::NAN, -0.0, 1e-40] {
            assert_eq!(truncate(value), value as u8, "{value:e}");
        }
    }

    #[test]
    fn contrast_of_a_constant_image_is_itself() {
        let mut image = Image::new(3, 3);
        image.fill([40, 40, 40]);
        let before = image.clone();
        contrast(&mut image, 0.1);
        assert_eq!(image, before);
    }

    #[test]
    fn contrast_rounds_the_mean_half_up() {
        // Greys 0 and 1: mean 0.5, rounded to 1.
        let mut image = Image::from_rgb(2, 1, vec![0, 0, 0, 1, 1, 1]).unwrap();
        contrast(&mut image, 0.0);
        assert_eq!(image.pixels(), [1; 6]);
    }

    #[test]
    fn factor_zero_is_the_degenerate_image() {
        let mut image = Image::from_rgb(1, 1, vec![255, 0, 0]).unwrap();
        color(&mut image, 0.0);
        assert_eq!(image.pixels(), [76; 3]);
        assert_eq!(brightness(0.0), [0; 256]);
        assert_eq!(brightness(1.0), point::IDENTITY);
    }
}
