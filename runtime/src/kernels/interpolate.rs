//! Affine warps that interpolate (`Geometry.c`, the generic transform): each
//! source position is computed afresh in double precision.

use super::affine::Matrix;
use crate::image::Image;

/// A source position within the image, relative to pixel centres.
pub(super) struct Position {
    /// Column and row of the pixel up and left of the position, at least -1.
    corner: (i32, i32),
    /// Distance from that pixel, in 0..1.
    fraction: (f64, f64),
}

/// Warps `source` into `target`, which has its size, with pixels from
/// `sample`.
pub(super) fn warp(
    source: &Image,
    &[a, b, c, d, e, f]: &Matrix,
    fill: [u8; 3],
    sample: impl Fn(&Image, &Position) -> [u8; 3],
    target: &mut Image,
) {
    let (width, height) = (f64::from(source.width()), f64::from(source.height()));
    for row in 0..source.height() {
        let v = f64::from(row) + 0.5;
        for (column, pixel) in (0u32..).zip(target.row_mut(row).as_chunks_mut::<3>().0) {
            let u = f64::from(column) + 0.5;
            let x = a * u + b * v + c;
            let y = d * u + e * v + f;
            // Not a number is outside.
            let inside = x >= 0.0 && x < width && y >= 0.0 && y < height;
            *pixel = if inside {
                let (column, x) = split(x - 0.5);
                let (row, y) = split(y - 0.5);
                let position = Position {
                    corner: (column, row),
                    fraction: (x, y),
                };
                sample(source, &position)
            } else {
                fill
            };
        }
    }
}

/// Integer and fractional part of a position of at least -0.5.
#[inline(always)]
fn split(position: f64) -> (i32, f64) {
    let floor = if position < 0.0 { -1 } else { position as i32 };
    (floor, position - f64::from(floor))
}

/// Two by two pixels, along the rows first.
#[inline(always)]
pub(super) fn bilinear(source: &Image, position: &Position) -> [u8; 3] {
    let (x, y) = position.fraction;
    let [upper, lower] = neighbours::<2>(position.corner.1, source.height())
        .map(|row| pixels(source, neighbours(position.corner.0, source.width()), row));
    std::array::from_fn(|channel| {
        let along = |[left, right]: [&[u8; 3]; 2]| {
            let (left, right) = (f64::from(left[channel]), f64::from(right[channel]));
            left + (right - left) * x
        };
        let (upper, lower) = (along(upper), along(lower));
        (upper + (lower - upper) * y) as u8
    })
}

/// Four by four pixels, along the rows first; the cubic with a = -1.
#[inline(always)]
pub(super) fn bicubic(source: &Image, position: &Position) -> [u8; 3] {
    let (x, y) = position.fraction;
    let rows = neighbours::<4>(position.corner.1 - 1, source.height()).map(|row| {
        let columns = neighbours::<4>(position.corner.0 - 1, source.width());
        pixels(source, columns, row)
    });
    std::array::from_fn(|channel| {
        let along = rows.map(|row| cubic(row.map(|pixel| f64::from(pixel[channel])), x));
        cubic(along, y) as u8 // truncates and clips
    })
}

/// The cubic through four values at -1, 0, 1, 2, in Pillow's order of
/// operations.
#[inline(always)]
fn cubic([v1, v2, v3, v4]: [f64; 4], d: f64) -> f64 {
    let p2 = -v1 + v3;
    let p3 = 2.0 * (v1 - v2) + v3 - v4;
    let p4 = -v1 + v2 - v3 + v4;
    v2 + d * (p2 + d * (p3 + d * p4))
}

/// `N` indices from `first` on, those outside the axis moved to its ends.
#[inline(always)]
fn neighbours<const N: usize>(first: i32, size: u32) -> [u32; N] {
    std::array::from_fn(|i| {
        let index = i64::from(first) + i as i64;
        index.clamp(0, i64::from(size) - 1) as u32
    })
}

#[inline(always)]
fn pixels<const N: usize>(source: &Image, columns: [u32; N], row: u32) -> [&[u8; 3]; N] {
    let row = source.row(row).as_chunks::<3>().0;
    columns.map(|column| &row[column as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row of greys read at (`x`, 0.5).
    fn at(values: &[u8], x: f64, sample: impl Fn(&Image, &Position) -> [u8; 3]) -> u8 {
        let pixels = values.iter().flat_map(|&v| [v; 3]).collect();
        let source = Image::from_rgb(values.len() as u32, 1, pixels).unwrap();
        let mut target = source.clone();
        let matrix = [1.0, 0.0, x - 0.5, 0.0, 1.0, 0.0];
        warp(&source, &matrix, [77; 3], sample, &mut target);
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
