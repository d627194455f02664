//! Kernels in explicit x86-64 instructions, where they win over what the
//! compiler makes of the plain versions. Those beside this folder say what is
//! computed; these compute the same, and tests hold them against each other.
//!
//! The functions of this module ask which instructions the machine has, and
//! return whether they did the work: when not, the caller does it plainly.

#![allow(unsafe_code)]

mod blend;
mod filter;
mod gather;
mod interpolate;
mod memory;
mod moves;
mod table;
mod turn;
mod warp;

use super::interpolate::Line;
use crate::cpu::{Cpu, cpu};

/// Runs the version for the machine's instructions; `None` when there is none.
macro_rules! run {
    (avx512: $avx512:expr, avx2: $avx2:expr) => {
        match cpu() {
            // SAFETY: the machine has the instructions.
            Cpu::Avx512 => Some(unsafe { $avx512 }),
            // SAFETY: the machine has the instructions.
            Cpu::Avx2 => Some(unsafe { $avx2 }),
            Cpu::Baseline => None,
        }
    };
    (avx512: $avx512:expr) => {
        match cpu() {
            // SAFETY: the machine has the instructions.
            Cpu::Avx512 => Some(unsafe { $avx512 }),
            _ => None,
        }
    };
}

/// Sets every value through `table`.
pub(super) fn apply_table(values: &mut [u8], table: &[u8; 256]) -> bool {
    run!(
        avx512: table::apply_one(values, table),
        avx2: table::apply_one_avx2(values, table)
    )
    .is_some()
}

/// As [`apply_table`], from one slice into another of the same length.
pub(super) fn apply_table_to(from: &[u8], table: &[u8; 256], to: &mut [u8]) -> bool {
    run!(avx512: table::apply_one_to(from, table, to)).is_some()
}

/// Sets every value of each channel through the channel's table.
pub(super) fn apply_tables(pixels: &mut [u8], tables: &[[u8; 256]; 3]) -> bool {
    run!(avx512: table::apply_three(pixels, tables)).is_some()
}

/// Blends each value with its degenerate.
pub(super) fn blend_bytes(degenerates: &[u8], values: &mut [u8], factor: f32) -> bool {
    run!(
        avx512: blend::avx512::bytes(degenerates, values, factor),
        avx2: blend::avx2::bytes(degenerates, values, factor)
    )
    .is_some()
}

/// Blends each pixel with its grey.
pub(super) fn blend_with_gray(pixels: &mut [u8], factor: f32) -> bool {
    run!(
        avx512: blend::avx512::with_gray(pixels, factor),
        avx2: blend::avx2::with_gray(pixels, factor)
    )
    .is_some()
}

/// Sum of the greys of all pixels.
pub(super) fn sum_luma(pixels: &[u8]) -> Option<u64> {
    run!(avx512: blend::avx512::sum_luma(pixels), avx2: blend::avx2::sum_luma(pixels))
}

/// Reverses the order of the pixels.
pub(super) fn reverse_pixels(pixels: &mut [u8]) -> bool {
    run!(avx512: moves::reverse_avx512(pixels), avx2: moves::reverse_avx2(pixels)).is_some()
}

/// Mirrors every row of `stride` bytes.
pub(super) fn mirror_rows(pixels: &mut [u8], stride: usize) -> bool {
    run!(avx512: moves::mirror_avx512(pixels, stride), avx2: moves::mirror_avx2(pixels, stride))
        .is_some()
}

/// Writes the pixels of each row of `stride` bytes in reverse order.
pub(super) fn reverse_rows_to(from: &[u8], stride: usize, to: &mut [u8]) -> bool {
    run!(
        avx512: moves::reverse_to_avx512(from, stride, to),
        avx2: moves::reverse_to_avx2(from, stride, to)
    )
    .is_some()
}

/// Blurs all but the border of an image of at least 5 rows.
pub(super) fn blur(source: &[u8], stride: usize, target: &mut [u8]) -> bool {
    stride >= filter::BLUR_STRIDE && run!(avx512: filter::blur(source, stride, target)).is_some()
}

/// Smooths all but the border of an image of at least 3 rows.
pub(super) fn smooth(source: &[u8], stride: usize, target: &mut [u8]) -> bool {
    stride >= filter::SMOOTH_STRIDE
        && run!(avx512: filter::smooth(source, stride, target)).is_some()
}

/// Output pixel `i` reads the pixel at `start + i * step`, in 16.16; all of
/// those lie within the image.
pub(super) fn read_line(
    pixels: &[u8],
    stride: usize,
    start: (i32, i32),
    step: (i32, i32),
    out: &mut [u8],
) -> bool {
    gather::fits(pixels.len())
        && run!(
            avx512: gather::line_avx512(pixels, stride, start, step, out),
            avx2: gather::line_avx2(pixels, stride, start, step, out)
        )
        .is_some()
}

/// A quarter turn of an image of `size`, width and height.
pub(super) fn turn(
    source: &[u8],
    size: (usize, usize),
    clockwise: bool,
    target: &mut [u8],
) -> bool {
    size.0 >= turn::COLUMNS
        && size.1 >= turn::ROWS
        && run!(
            avx512: turn::turn(source, size, clockwise, target),
            avx2: turn::turn(source, size, clockwise, target)
        )
        .is_some()
}

/// Pixels of an output row from column `first` on, linear between two by two
/// pixels; they all read inside the image of `size`, width and height.
pub(super) fn bilinear(
    pixels: &[u8],
    size: (u32, u32),
    line: &Line,
    first: usize,
    out: &mut [[u8; 3]],
) -> bool {
    interpolate::fits(pixels.len())
        && run!(
            avx512: interpolate::bilinear(pixels, size, line, first, out),
            avx2: warp::bilinear(pixels, size, line, first, out)
        )
        .is_some()
}

/// As [`bilinear`], cubic over four by four pixels.
pub(super) fn bicubic(
    pixels: &[u8],
    size: (u32, u32),
    line: &Line,
    first: usize,
    out: &mut [[u8; 3]],
) -> bool {
    interpolate::fits(pixels.len())
        && run!(
            avx512: interpolate::bicubic(pixels, size, line, first, out),
            avx2: warp::bicubic(pixels, size, line, first, out)
        )
        .is_some()
}
