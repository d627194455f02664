//! Affine warps: rotation, shear, translation (`Geometry.c`,
//! `Image.transform`, `Image.rotate`).
//!
//! A warp maps backwards: output pixel (x, y) reads the input at
//! `(a (x + 0.5) + b (y + 0.5) + c, d (x + 0.5) + e (y + 0.5) + f)`, pixel
//! centres lying at halves. Output pixels whose source lies outside the image
//! get the fill colour. The output has the size of the input.
//!
//! Nearest neighbour has three paths with different rounding; they are chosen
//! as Pillow chooses them.

use ddas_formats::{Interpolation, Warp};

use super::interpolate;
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::image::{Image, fill_pixels};

/// The coefficients (a, b, c, d, e, f).
pub(super) type Matrix = [f64; 6];

/// Scratch of [`warp`].
#[derive(Debug, Default)]
pub(super) struct WarpScratch {
    columns: Vec<Option<u32>>,
    runs: Vec<Run>,
}

/// The matrix of `Image.rotate(degrees)` for images that are not turned by
/// moving whole pixels; `degrees` is within 0..=360. Positive angles turn
/// counter-clockwise.
pub(super) fn rotation(width: u32, height: u32, degrees: f64) -> Matrix {
    let angle = -(degrees * (std::f64::consts::PI / 180.0));
    let cos = round_to_15_decimals(angle.cos());
    let sin = round_to_15_decimals(angle.sin());
    let minus_sin = round_to_15_decimals(-angle.sin());
    let (x, y) = (f64::from(width) / 2.0, f64::from(height) / 2.0);
    [
        cos,
        sin,
        cos * -x + sin * -y + 0.0 + x,
        minus_sin,
        cos,
        minus_sin * -x + cos * -y + 0.0 + y,
    ]
}

/// Python's `angle % 360.0`: within 0..=360 (a tiny negative angle gives 360).
pub(super) fn wrap_degrees(degrees: f64) -> f64 {
    degrees.rem_euclid(360.0)
}

/// Warps `source` into `target`.
pub(super) fn warp(
    source: &Image,
    matrix: &Matrix,
    warp: Warp,
    scratch: &mut WarpScratch,
    target: &mut Image,
) {
    target.reshape(source.width(), source.height());
    if source.is_empty() {
        return;
    }
    match warp.interpolation {
        Interpolation::Nearest => nearest(source, matrix, warp.fill, scratch, target),
        Interpolation::Bilinear => {
            interpolate::bilinear(source, matrix, warp.fill, target);
        }
        Interpolation::Bicubic => {
            interpolate::bicubic(source, matrix, warp.fill, target);
        }
    }
}

fn nearest(
    source: &Image,
    matrix: &Matrix,
    fill: [u8; 3],
    scratch: &mut WarpScratch,
    target: &mut Image,
) {
    if matrix[1] == 0.0 && matrix[3] == 0.0 {
        nearest_axes(source, matrix, fill, &mut scratch.columns, target);
    } else if fits_fixed_point(source, matrix) {
        nearest_fixed(source, matrix, fill, &mut scratch.runs, target);
    } else {
        nearest_double(source, matrix, fill, target);
    }
}

/// Axes kept apart: one table of columns serves all rows. The position is
/// accumulated in double precision.
fn nearest_axes(
    source: &Image,
    &[a, _, c, _, e, f]: &Matrix,
    fill: [u8; 3],
    columns: &mut Vec<Option<u32>>,
    target: &mut Image,
) {
    columns.clear();
    let mut x = c + a * 0.5;
    for _ in 0..source.width() {
        columns.push(coordinate(x, source.width()));
        x += a;
    }
    let (inside, copied) = match columns.iter().position(Option::is_some) {
        None => (0..0, None),
        Some(first) => {
            // The positions are monotone: what is inside is one run.
            let length = columns[first..]
                .iter()
                .take_while(|column| column.is_some())
                .count();
            let run = &columns[first..first + length];
            // Steps of exactly 1, as in every translation, copy a whole run.
            let start = run[0].unwrap_or(0);
            let whole = (start..).zip(run).all(|(x, &column)| column == Some(x));
            (first..first + length, whole.then_some(start as usize))
        }
    };
    let mut y = f + e * 0.5;
    for row in 0..source.height() {
        let out = target.row_mut(row).as_chunks_mut::<3>().0;
        match coordinate(y, source.height()) {
            Some(y) if !inside.is_empty() => {
                let from = source.row(y).as_chunks::<3>().0;
                fill_pixels(out[..inside.start].as_flattened_mut(), fill);
                fill_pixels(out[inside.end..].as_flattened_mut(), fill);
                let out = &mut out[inside.clone()];
                match copied {
                    Some(start) => out.copy_from_slice(&from[start..][..inside.len()]),
                    None => {
                        for (pixel, &column) in out.iter_mut().zip(&columns[inside.clone()]) {
                            *pixel = from[column.unwrap_or(0) as usize];
                        }
                    }
                }
            }
            _ => fill_pixels(out.as_flattened_mut(), fill),
        }
        y += e;
    }
}

/// Whether the four mapped corners lie within the 16.16 numbers of
/// [`nearest_fixed`].
fn fits_fixed_point(source: &Image, &[a, b, c, d, e, f]: &Matrix) -> bool {
    let (width, height) = (f64::from(source.width()), f64::from(source.height()));
    [(0.0, 0.0), (width, height), (0.0, height), (width, 0.0)]
        .iter()
        .all(|&(x, y)| (x * a + y * b + c).abs() < 32768.0 && (x * d + y * e + f).abs() < 32768.0)
}

/// 16.16 fixed point.
fn nearest_fixed(
    source: &Image,
    &[a, b, c, d, e, f]: &Matrix,
    fill: [u8; 3],
    runs: &mut Vec<Run>,
    target: &mut Image,
) {
    let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i32;
    let step = (fixed(a), fixed(d));
    let row_step = (fixed(b), fixed(e));
    let mut start = (fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5));
    let (width, height) = (source.width(), source.height());
    const ONE: i32 = 1 << 16;
    if (step.0, row_step, start.0) == (ONE, (0, ONE), ONE / 2)
        && find_runs(start.1, step.1, (width, height), runs)
    {
        return move_runs(source, runs, step.1, fill, target);
    }
    let pixels = source.pixels().as_chunks::<3>().0;
    for row in 0..height {
        let out = target.row_mut(row).as_chunks_mut::<3>().0;
        let columns = inside_run(start.0, step.0, width, width);
        let rows = inside_run(start.1, step.1, height, width);
        match columns.zip(rows) {
            Some((columns, rows)) => {
                let first = columns.start.max(rows.start).min(width as usize);
                let last = columns.end.min(rows.end).max(first);
                fill_pixels(out[..first].as_flattened_mut(), fill);
                fill_pixels(out[last..].as_flattened_mut(), fill);
                let out = &mut out[first..last];
                // Cannot wrap: `inside_run` has checked both ends of the row.
                let mut x = start.0.wrapping_add(step.0.wrapping_mul(first as i32));
                let mut y = start.1.wrapping_add(step.1.wrapping_mul(first as i32));
                if step == (1 << 16, 0) && !out.is_empty() {
                    // A row moved as a whole, as in every horizontal shear.
                    let from = (y >> 16) as usize * width as usize + (x >> 16) as usize;
                    out.copy_from_slice(&pixels[from..][..out.len()]);
                } else {
                    #[cfg(target_arch = "x86_64")]
                    if x86::read_line(
                        source.pixels(),
                        source.stride(),
                        (x, y),
                        step,
                        out.as_flattened_mut(),
                    ) {
                        start.0 = start.0.wrapping_add(row_step.0);
                        start.1 = start.1.wrapping_add(row_step.1);
                        continue;
                    }
                    for pixel in out {
                        *pixel = pixels[(y >> 16) as usize * width as usize + (x >> 16) as usize];
                        x = x.wrapping_add(step.0);
                        y = y.wrapping_add(step.1);
                    }
                }
            }
            None => {
                let (mut x, mut y) = start;
                for pixel in out {
                    let source = u32::try_from(x >> 16).ok().zip(u32::try_from(y >> 16).ok());
                    *pixel = source
                        .and_then(|(x, y)| {
                            (x < width && y < height)
                                .then(|| pixels[y as usize * width as usize + x as usize])
                        })
                        .unwrap_or(fill);
                    x = x.wrapping_add(step.0);
                    y = y.wrapping_add(step.1);
                }
            }
        }
        start.0 = start.0.wrapping_add(row_step.0);
        start.1 = start.1.wrapping_add(row_step.1);
    }
}

/// Columns of the output that read the same row, counted from their own; their
/// columns are those they read.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u32,
    end: u32,
    shift: i32,
}

/// Groups the columns of a map that moves each column up or down: column `x`
/// of row 0 reads at `start + x * step`, in 16.16. False when positions leave
/// the 32-bit numbers: then Pillow's wrap around.
fn find_runs(start: i32, step: i32, (width, height): (u32, u32), runs: &mut Vec<Run>) -> bool {
    let position = |column: u32, row: u32| {
        i64::from(start) + i64::from(step) * i64::from(column) + (i64::from(row) << 16)
    };
    let corners = [position(0, 0), position(width - 1, 0)]
        .into_iter()
        .chain([position(0, height - 1), position(width - 1, height - 1)]);
    if corners
        .into_iter()
        .any(|corner| i32::try_from(corner).is_err())
    {
        return false;
    }
    runs.clear();
    for column in 0..width {
        let shift = (position(column, 0) >> 16) as i32;
        match runs.last_mut() {
            Some(run) if run.shift == shift => run.end = column + 1,
            _ => runs.push(Run {
                first: column,
                end: column + 1,
                shift,
            }),
        }
    }
    true
}

/// Moves the columns as `runs` say, which rise if `step` does.
fn move_runs(source: &Image, runs: &[Run], step: i32, fill: [u8; 3], target: &mut Image) {
    let (stride, height) = (source.stride(), i64::from(source.height()));
    let pixels = source.pixels();
    // Runs differ by one column in length: all are copied in as many steps,
    // which the processor foresees.
    let longest = runs.iter().map(|run| run.end - run.first).max();
    let steps = (longest.unwrap_or(0) as usize * 3).div_ceil(STEP);
    let (mut before, mut until) = (0, 0);
    for row in 0..source.height() {
        let read = |run: &Run| i64::from(row) + i64::from(run.shift);
        // The runs that read inside the image follow one another.
        if step >= 0 {
            before = move_end(runs, before, |run| read(run) < 0);
            until = move_end(runs, until, |run| read(run) < height);
        } else {
            before = move_end(runs, before, |run| read(run) >= height);
            until = move_end(runs, until, |run| read(run) >= 0);
        }
        let inside = &runs[before..until];
        let start = row as usize * stride;
        let out = target.pixels_mut();
        for run in inside {
            let (first, end) = (run.first as usize * 3, run.end as usize * 3);
            let from = read(run) as usize * stride + first;
            let (from, to) = (&pixels[from..], &mut out[start + first..]);
            copy_ahead(from, to, end - first, steps);
        }
        let filled = |run: Option<&Run>, column: fn(&Run) -> u32| {
            start + run.map_or(0, |run| column(run) as usize * 3)
        };
        let (first, end) = (
            filled(inside.first(), |run| run.first),
            filled(inside.last(), |run| run.end),
        );
        fill_pixels(&mut out[start..first], fill);
        fill_pixels(&mut out[end..start + stride], fill);
    }
}

/// Where the runs of which `is_before` holds end, known to lie near `end`.
#[inline]
fn move_end(runs: &[Run], mut end: usize, is_before: impl Fn(&Run) -> bool) -> usize {
    while runs.get(end).is_some_and(&is_before) {
        end += 1;
    }
    while end > 0 && !is_before(&runs[end - 1]) {
        end -= 1;
    }
    end
}

/// Bytes copied at a time by [`copy_ahead`].
const STEP: usize = 16;

/// Copies `length` bytes, or, where both slices have them, `steps` times
/// [`STEP`]: for callers that write what lies beyond later.
#[inline]
fn copy_ahead(from: &[u8], to: &mut [u8], length: usize, steps: usize) {
    let (wide_from, wide_to) = (from.as_chunks::<STEP>().0, to.as_chunks_mut::<STEP>().0);
    if let (Some(from), Some(to)) = (wide_from.get(..steps), wide_to.get_mut(..steps)) {
        // A loop and not one call: most runs take a single step.
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
    } else {
        to[..length].copy_from_slice(&from[..length]);
    }
}

/// The indices `i` in `0..count` where `start + i * step`, in 16.16, lies
/// within `0..size`. They are one run, empty when there are none. `None` when
/// the position leaves the 32-bit numbers on the way: then Pillow's wraps
/// around, and only going step by step tells what is inside.
fn inside_run(start: i32, step: i32, size: u32, count: u32) -> Option<std::ops::Range<usize>> {
    let (start, step, count) = (i64::from(start), i64::from(step), i64::from(count));
    let end = i64::from(size) << 16;
    if i32::try_from(start + step * (count - 1)).is_err() {
        return None;
    }
    // First index at which a rising sequence reaches `bound`.
    let reaches = |start: i64, step: i64, bound: i64| {
        (bound - start + step - 1).div_euclid(step).clamp(0, count) as usize
    };
    Some(match step {
        0 if (0..end).contains(&start) => 0..count as usize,
        0 => 0..0,
        1.. => reaches(start, step, 0)..reaches(start, step, end),
        // Mirrored: `end - 1 - position` rises.
        _ => reaches(end - 1 - start, -step, 0)..reaches(end - 1 - start, -step, end),
    })
}

/// Double precision, accumulated; for maps too far-reaching for 16.16.
fn nearest_double(source: &Image, &[a, b, c, d, e, f]: &Matrix, fill: [u8; 3], target: &mut Image) {
    let (width, height) = (source.width(), source.height());
    let mut start = (c + b * 0.5 + a * 0.5, f + e * 0.5 + d * 0.5);
    for row in 0..height {
        let (mut x, mut y) = start;
        for pixel in target.row_mut(row).as_chunks_mut::<3>().0 {
            *pixel = coordinate(x, width)
                .zip(coordinate(y, height))
                .and_then(|(x, y)| source.pixel(x, y))
                .unwrap_or(fill);
            x += a;
            y += d;
        }
        start.0 += b;
        start.1 += e;
    }
}

/// The index a position falls on, if it lies within `0..size`.
fn coordinate(position: f64, size: u32) -> Option<u32> {
    // Not a number is outside.
    (position >= 0.0 && position < f64::from(size)).then_some(position as u32)
}

/// Python's `round(value, 15)` for |value| <= 1: the double nearest to the
/// decimal number with 15 places that is nearest to `value`.
fn round_to_15_decimals(value: f64) -> f64 {
    const SCALE: f64 = 1e15; // exact, as is every integer up to it
    // value * SCALE = product + error, exactly.
    let product = value * SCALE;
    let error = value.mul_add(SCALE, -product);
    let floor = product.floor();
    // Distance to the tie between `floor` and `floor + 1`: the first
    // difference is exact, so the sign of the sum is right.
    let beyond_tie = (product - floor - 0.5) + error;
    let up = beyond_tie > 0.0 || (beyond_tie == 0.0 && floor % 2.0 != 0.0);
    // Both integers are exact, so the quotient is the nearest double.
    let rounded = if up { floor + 1.0 } else { floor } / SCALE;
    rounded.copysign(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::test_images::Kind;

    #[test]
    fn decimal_rounding_equals_formatting_and_parsing() {
        let by_text = |value: f64| format!("{value:.15}").parse::<f64>().unwrap();
        for i in -200_000..=200_000 {
            let angle = f64::from(i) * 0.0123;
            for value in [angle.sin(), angle.cos()] {
                let rounded = round_to_15_decimals(value);
                assert_eq!(rounded.to_bits(), by_text(value).to_bits(), "{value:e}");
            }
        }
        // The tie 1/65536 = 0.0000152587890625 goes to the even digit, and
        // what Python prints for values beside a tie.
        assert_eq!(round_to_15_decimals(1.0 / 65536.0), 0.000015258789062);
        assert_eq!(round_to_15_decimals(3.0 / 65536.0), 0.000045776367188);
        assert_eq!(round_to_15_decimals(0.5000000000000001), 0.5);
        assert_eq!(round_to_15_decimals(6.1e-17), 0.0);
        assert!(round_to_15_decimals(-6.1e-17).is_sign_negative());
        assert_eq!(round_to_15_decimals(1.0), 1.0);
        assert_eq!(round_to_15_decimals(-0.9999999999999999), -1.0);
    }

    #[test]
    fn degrees_wrap_as_in_python() {
        assert_eq!(wrap_degrees(-30.0), 330.0);
        assert_eq!(wrap_degrees(360.0), 0.0);
        assert_eq!(wrap_degrees(725.5), 5.5);
        assert_eq!(wrap_degrees(-1e-20), 360.0);
    }

    /// `inside_run` by trying every index.
    #[test]
    fn runs_equal_those_found_one_by_one() {
        let starts = [
            0,
            1,
            -1,
            32768,
            65535,
            65536,
            -65536,
            700_000,
            -700_000,
            5 << 16,
            (5 << 16) - 1,
            i32::MAX,
            i32::MIN,
        ];
        let steps = [
            0, 1, -1, 3, -3, 20_000, 65536, -65536, 65537, -64000, 900_000,
        ];
        for start in starts {
            for step in steps {
                for size in [1, 2, 5, 33] {
                    for count in [1, 2, 40] {
                        let position = |i: u32| i64::from(start) + i64::from(step) * i64::from(i);
                        let found = inside_run(start, step, size, count);
                        if i32::try_from(position(count - 1)).is_err() {
                            assert_eq!(found, None);
                            continue;
                        }
                        let inside: Vec<usize> = (0..count)
                            .filter(|&i| (0..i64::from(size)).contains(&(position(i) >> 16)))
                            .map(|i| i as usize)
                            .collect();
                        let found: Vec<usize> = found.unwrap().collect();
                        assert_eq!(found, inside, "{start} + i * {step} within {size}");
                    }
                }
            }
        }
    }

    /// Both accumulating paths agree with the map itself wherever a source
    /// position is not within rounding of a pixel border.
    #[test]
    fn nearest_reads_the_mapped_pixel() {
        let (width, height) = (33, 17);
        let source = Image::from_rgb(width, height, Kind::Random.pixels(width, height)).unwrap();
        let mut target = Image::default();
        let fill = [1, 2, 3];
        let rotation = rotation(width, height, 21.0);
        let shear = [1.0, 0.3, 0.0, 0.0, 1.0, 0.0];
        let far = [1.0, 1e6, -8_500_000.0, 0.0, 1.0, 0.0];
        for matrix in [rotation, shear, far] {
            let warp_by = Warp {
                fill,
                interpolation: Interpolation::Nearest,
            };
            warp(
                &source,
                &matrix,
                warp_by,
                &mut WarpScratch::default(),
                &mut target,
            );
            let [a, b, c, d, e, f] = matrix;
            for y in 0..height {
                for x in 0..width {
                    let (u, v) = (f64::from(x) + 0.5, f64::from(y) + 0.5);
                    let (u, v) = (a * u + b * v + c, d * u + e * v + f);
                    if (u - u.round()).abs() < 0.01 || (v - v.round()).abs() < 0.01 {
                        continue;
                    }
                    let expected = coordinate(u, width)
                        .zip(coordinate(v, height))
                        .map_or(fill, |(x, y)| source.pixel(x, y).unwrap());
                    assert_eq!(target.pixel(x, y), Some(expected), "({x}, {y})");
                }
            }
        }
    }
}
