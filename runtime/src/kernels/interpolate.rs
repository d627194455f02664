//! Affine warps that interpolate (`Geometry.c`, the generic transform): each
//! source position is computed afresh in double precision.
//!
//! The pixels of a row are worked on a few at a time: their neighbours are
//! gathered into planes of one channel, so that the arithmetic runs along the
//! pixels and becomes vector instructions.

use super::affine::Matrix;
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::cpu::for_each_cpu;
use crate::image::Image;

/// Pixels worked on at a time.
const LANES: usize = 8;

/// `N` x `N` neighbours of each pixel: row, column, channel, pixel.
type Neighbours<const N: usize> = [[[[u8; LANES]; 3]; N]; N];

/// Where each pixel reads.
struct Positions {
    /// Column and row of the pixel up and left of the position, at least -1.
    corners: [(i32, i32); LANES],
    /// Distance from that pixel along each axis, in 0..1.
    x: [f64; LANES],
    y: [f64; LANES],
}

/// The positions one output row reads at: those of column `i` are, for
/// (slope, offset, constant), `slope * (i + 0.5) + offset + constant`.
pub(super) struct Line {
    pub(super) x: (f64, f64, f64),
    pub(super) y: (f64, f64, f64),
}

impl Line {
    fn new(&[a, b, c, d, e, f]: &Matrix, row: u32) -> Line {
        let v = f64::from(row) + 0.5;
        Line {
            x: (a, b * v, c),
            y: (d, e * v, f),
        }
    }

    /// The columns of `0..count` whose positions lie within an image of
    /// `width` x `height`. Both coordinates are monotone along the row,
    /// rounding included, so that they are one run.
    fn inside(&self, count: usize, width: u32, height: u32) -> std::ops::Range<usize> {
        let columns = inside(self.x, count, f64::from(width));
        let rows = inside(self.y, count, f64::from(height));
        let first = columns.start.max(rows.start);
        first..columns.end.min(rows.end).max(first)
    }
}

/// A coordinate of column `i`, in Pillow's order of additions.
#[inline(always)]
pub(super) fn coordinate((slope, offset, constant): (f64, f64, f64), column: usize) -> f64 {
    slope * (f64::from(column as u32) + 0.5) + offset + constant
}

/// The columns of `0..count` whose coordinate lies within `0..size`.
#[inline(always)]
fn inside(axis: (f64, f64, f64), count: usize, size: f64) -> std::ops::Range<usize> {
    // Not a number is outside.
    let from_zero = |column| coordinate(axis, column) >= 0.0;
    let below_size = |column| coordinate(axis, column) < size;
    let (slope, offset, constant) = axis;
    // How many columns come before `bound`: right but for rounding.
    let guess = |bound: f64| ((bound - (offset + constant)) / slope - 0.5).ceil();
    if slope >= 0.0 {
        boundary(count, guess(0.0), |column| !from_zero(column))
            ..boundary(count, guess(size), below_size)
    } else {
        boundary(count, guess(size), |column| !below_size(column))
            ..boundary(count, guess(0.0), from_zero)
    }
}

/// How many of the first of `0..count` `is_before` holds for, looked for from
/// `guess` on.
#[inline(always)]
fn boundary(count: usize, guess: f64, is_before: impl Fn(usize) -> bool) -> usize {
    let mut end = (guess.max(0.0) as usize).min(count);
    while end < count && is_before(end) {
        end += 1;
    }
    while end > 0 && !is_before(end - 1) {
        end -= 1;
    }
    end
}

for_each_cpu! {
    /// Two by two pixels, linear.
    pub(super) fn bilinear(source: &Image, matrix: &Matrix, fill: [u8; 3], target: &mut Image) {
        let sample = |positions: &Positions, out: &mut [[u8; 3]]| {
            let neighbours = gather::<2>(source, positions, out.len(), 0);
            for channel in 0..3 {
                let [[upper_left, upper_right], [lower_left, lower_right]] = neighbours
                    .each_ref()
                    .map(|row| row.each_ref().map(|column| &column[channel]));
                let values = std::array::from_fn(|i| {
                    let along = |left: u8, right: u8| {
                        let (left, right) = (f64::from(left), f64::from(right));
                        left + (right - left) * positions.x[i]
                    };
                    let upper = along(upper_left[i], upper_right[i]);
                    let lower = along(lower_left[i], lower_right[i]);
                    upper + (lower - upper) * positions.y[i]
                });
                store(values, channel, out);
            }
        };
        warp(source, matrix, fill, target, |line, first, out| {
            #[cfg(target_arch = "x86_64")]
            if x86::bilinear(source.pixels(), (source.width(), source.height()), line, first, out) {
                return;
            }
            in_blocks(line, first, out, sample);
        });
    }
}

for_each_cpu! {
    /// Four by four pixels, cubic with a = -1.
    pub(super) fn bicubic(source: &Image, matrix: &Matrix, fill: [u8; 3], target: &mut Image) {
        let sample = |positions: &Positions, out: &mut [[u8; 3]]| {
            let neighbours = gather::<4>(source, positions, out.len(), 1);
            for channel in 0..3 {
                let rows = neighbours.each_ref().map(|row| {
                    let [v1, v2, v3, v4] = row.each_ref().map(|column| &column[channel]);
                    std::array::from_fn::<f64, LANES, _>(|i| {
                        let [v1, v2, v3, v4] =
                            [v1, v2, v3, v4].map(|values| i32::from(values[i]));
                        // Exact integers up to the fraction.
                        let p2 = f64::from(v3 - v1);
                        let p3 = f64::from(2 * (v1 - v2) + v3 - v4);
                        let p4 = f64::from(v2 - v1 + v4 - v3);
                        let x = positions.x[i];
                        f64::from(v2) + x * (p2 + x * (p3 + x * p4))
                    })
                });
                let values = std::array::from_fn(|i| {
                    // Rounded at every step, in Pillow's order.
                    let [v1, v2, v3, v4] = rows.each_ref().map(|row| row[i]);
                    let p2 = -v1 + v3;
                    let p3 = 2.0 * (v1 - v2) + v3 - v4;
                    let p4 = -v1 + v2 - v3 + v4;
                    let y = positions.y[i];
                    v2 + y * (p2 + y * (p3 + y * p4))
                });
                store(values, channel, out);
            }
        };
        warp(source, matrix, fill, target, |line, first, out| {
            #[cfg(target_arch = "x86_64")]
            if x86::bicubic(source.pixels(), (source.width(), source.height()), line, first, out) {
                return;
            }
            in_blocks(line, first, out, sample);
        });
    }
}

/// Fills what maps outside the image and hands the rest of each row to
/// `sample`, with the column it begins at. `target` has the size of `source`.
#[inline(always)]
fn warp(
    source: &Image,
    matrix: &Matrix,
    fill: [u8; 3],
    target: &mut Image,
    sample: impl Fn(&Line, usize, &mut [[u8; 3]]),
) {
    for row in 0..source.height() {
        let line = Line::new(matrix, row);
        let out = target.row_mut(row).as_chunks_mut::<3>().0;
        let inside = line.inside(out.len(), source.width(), source.height());
        out[..inside.start].fill(fill);
        out[inside.end..].fill(fill);
        sample(&line, inside.start, &mut out[inside]);
    }
}

/// Hands the pixels to `sample`, at most [`LANES`] at a time.
#[inline(always)]
fn in_blocks(
    line: &Line,
    first: usize,
    out: &mut [[u8; 3]],
    sample: impl Fn(&Positions, &mut [[u8; 3]]),
) {
    let mut positions = Positions {
        corners: [(0, 0); LANES],
        x: [0.0; LANES],
        y: [0.0; LANES],
    };
    for (block, out) in out.chunks_mut(LANES).enumerate() {
        for i in 0..out.len() {
            let column = first + block * LANES + i;
            let (left, x) = split(coordinate(line.x, column) - 0.5);
            let (upper, y) = split(coordinate(line.y, column) - 0.5);
            positions.corners[i] = (left, upper);
            positions.x[i] = x;
            positions.y[i] = y;
        }
        sample(&positions, out);
    }
}

/// Integer and fractional part of a position of at least -0.5.
#[inline(always)]
pub(super) fn split(position: f64) -> (i32, f64) {
    let floor = if position < 0.0 { -1 } else { position as i32 };
    (floor, position - f64::from(floor))
}

/// The neighbours of the first `count` positions, from `before` pixels up and
/// left of the corner on; those outside the image are the nearest ones inside.
#[inline(always)]
fn gather<const N: usize>(
    source: &Image,
    positions: &Positions,
    count: usize,
    before: i32,
) -> Neighbours<N> {
    let (width, height) = (source.width() as i32, source.height() as i32);
    let (bytes, stride) = (source.pixels(), source.stride());
    let mut neighbours = [[[[0; LANES]; 3]; N]; N];
    for (i, (x, y)) in positions.corners[..count].iter().enumerate() {
        let (x, y) = (x - before, y - before);
        let whole = x >= 0 && x + N as i32 <= width;
        for (row, columns) in neighbours.iter_mut().enumerate() {
            let row = (y + row as i32).clamp(0, height - 1) as usize;
            let row = &bytes[row * stride..][..stride];
            if whole {
                let row = &row[x as usize * 3..][..N * 3];
                for (column, channels) in columns.iter_mut().enumerate() {
                    for (channel, values) in channels.iter_mut().enumerate() {
                        values[i] = row[column * 3 + channel];
                    }
                }
            } else {
                for (column, channels) in columns.iter_mut().enumerate() {
                    let column = (x + column as i32).clamp(0, width - 1) as usize;
                    for (channel, values) in channels.iter_mut().enumerate() {
                        values[i] = row[column * 3 + channel];
                    }
                }
            }
        }
    }
    neighbours
}

/// Puts the values, truncated and clipped to 0..=255, into one channel.
#[inline(always)]
fn store(values: [f64; LANES], channel: usize, out: &mut [[u8; 3]]) {
    for (pixel, value) in out.iter_mut().zip(values) {
        pixel[channel] = value as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row of greys read at (`x`, 0.5).
    fn at(values: &[u8], x: f64, warp: impl Fn(&Image, &Matrix, [u8; 3], &mut Image)) -> u8 {
        let pixels = values.iter().flat_map(|&v| [v; 3]).collect();
        let source = Image::from_rgb(values.len() as u32, 1, pixels).unwrap();
        let mut target = source.clone();
        let matrix = [1.0, 0.0, x - 0.5, 0.0, 1.0, 0.0];
        warp(&source, &matrix, [77; 3], &mut target);
        target.pixels()[0]
    }

    #[test]
    fn bilinear_between_centres_and_at_the_border() {
        assert_eq!(at(&[10, 20, 40], 0.5, bilinear), 10);
        assert_eq!(at(&[10, 20, 40], 0.75, bilinear), 12); // 12.5
        assert_eq!(at(&[10, 20, 40], 2.0, bilinear), 30);
        assert_eq!(at(&[10, 20, 40], 0.1, bilinear), 10); // left of the first centre
        assert_eq!(at(&[10, 20, 40], 2.9, bilinear), 40);
        assert_eq!(at(&[10, 20, 40], 3.0, bilinear), 77);
        assert_eq!(at(&[10, 20, 40], -0.01, bilinear), 77);
    }

    /// `Line::inside` by trying every column.
    #[test]
    fn runs_equal_those_found_one_by_one() {
        let slopes = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.3,
            -0.3,
            1e-9,
            -1e-300,
            77.0,
            -1e18,
            f64::NAN,
        ];
        let starts = [
            0.0,
            -0.5,
            0.5,
            -3.2,
            7.0,
            6.999_999_999,
            40.0,
            -40.0,
            1e9,
            f64::INFINITY,
        ];
        for slope in slopes {
            for offset in starts {
                for constant in starts {
                    for (count, size) in [(1, 1.0), (8, 7.0), (30, 7.0)] {
                        let axis = (slope, offset, constant);
                        let found: Vec<usize> = inside(axis, count, size).collect();
                        let expected: Vec<usize> = (0..count)
                            .filter(|&i| (0.0..size).contains(&coordinate(axis, i)))
                            .collect();
                        assert_eq!(found, expected, "{axis:?} {count} {size}");
                    }
                }
            }
        }
    }

    #[test]
    fn bicubic_overshoots_and_is_clipped() {
        assert_eq!(at(&[10, 20, 40, 80], 1.5, bicubic), 20);
        // Halfway, a = -1 weighs -1/8, 5/8, 5/8, -1/8.
        assert_eq!(at(&[10, 20, 40, 80], 2.0, bicubic), 26); // 26.25
        assert_eq!(at(&[0, 255, 255, 0], 2.0, bicubic), 255);
        assert_eq!(at(&[255, 0, 0, 255], 2.0, bicubic), 0);
        assert_eq!(at(&[9], 0.3, bicubic), 9);
    }
}
