//! Cutout: a square of one colour over the image.

use std::ops::Range;

use ddas_formats::Extent;

use crate::image::{Image, fill_pixels};

/// Fills rows and columns `c - side / 2 .. c - side / 2 + side` (integer
/// half) around the centre, clipped to the image.
pub(super) fn cutout(image: &mut Image, (x, y): (u32, u32), side: u32, fill: [u8; 3]) {
    let (columns, rows) = (span(x, side, image.width()), span(y, side, image.height()));
    fill_rectangle(image, columns, rows, fill);
}

/// Fills the rectangle of the Pillow versions of RandAugment and its
/// relatives: corner and far corner from a centre in reals, the far edge
/// included (`ImageDraw.rectangle`). `size` is a side, or a fraction of the
/// width; a fraction of 0 is no rectangle, as in their code, a side of 0 one
/// pixel.
pub(super) fn rectangle(image: &mut Image, (x, y): (f64, f64), size: Extent, fill: [u8; 3]) {
    if size == Extent::Fraction(0.0) {
        return;
    }
    let side = size.pixels(image.width());
    let columns = inclusive_span(x, side, image.width());
    let rows = inclusive_span(y, side, image.height());
    fill_rectangle(image, columns, rows, fill);
}

fn fill_rectangle(image: &mut Image, columns: Range<u32>, rows: Range<u32>, fill: [u8; 3]) {
    let bytes = columns.start as usize * 3..columns.end as usize * 3;
    if rows.is_empty() {
        return;
    }
    fill_pixels(&mut image.row_mut(rows.start)[bytes.clone()], fill);
    // The other rows are copies of the first.
    let stride = image.stride();
    let start = rows.start as usize * stride;
    let first = start + bytes.start..start + bytes.end;
    for row in rows.start + 1..rows.end {
        let to = row as usize * stride + bytes.start;
        image.pixels_mut().copy_within(first.clone(), to);
    }
}

/// The rectangle's extent along an axis of `size` pixels: from
/// trunc(max(0, center - side / 2)) up to and with trunc(min(size, first + side)).
fn inclusive_span(center: f64, side: f64, size: u32) -> Range<u32> {
    let first = (center - side / 2.0).max(0.0) as u32; // truncates
    let last = (f64::from(first) + side).min(f64::from(size)) as u32;
    first.min(size)..last.saturating_add(1).clamp(first.min(size), size)
}

/// The square's extent along an axis of `size` pixels.
fn span(center: u32, side: u32, size: u32) -> Range<u32> {
    let first = i64::from(center) - i64::from(side / 2);
    let clip = |position: i64| position.clamp(0, i64::from(size)) as u32;
    clip(first)..clip(first + i64::from(side))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_square_is_clipped_at_the_border() {
        assert_eq!(span(5, 4, 10), 3..7);
        assert_eq!(span(5, 5, 10), 3..8);
        assert_eq!(span(0, 4, 10), 0..2);
        assert_eq!(span(9, 4, 10), 7..10);
        assert_eq!(span(5, 0, 10), 5..5);
        assert_eq!(span(5, u32::MAX, 10), 0..10);
        assert_eq!(span(u32::MAX, 4, 10), 10..10);
    }

    #[test]
    fn the_rectangle_includes_its_far_edge() {
        assert_eq!(inclusive_span(5.0, 4.0, 10), 3..8);
        assert_eq!(inclusive_span(5.9, 4.0, 10), 3..8);
        // Cut at the left it keeps its size, at the right it loses.
        assert_eq!(inclusive_span(0.3, 4.0, 10), 0..5);
        assert_eq!(inclusive_span(9.9, 4.0, 10), 7..10);
        assert_eq!(inclusive_span(10.0, 0.0, 10), 10..10);
        assert_eq!(inclusive_span(4.2, 0.0, 10), 4..5);
        assert_eq!(inclusive_span(4.2, 2.5, 10), 2..5);
        assert_eq!(inclusive_span(f64::NAN, 1e300, 10), 0..10);
        assert_eq!(inclusive_span(1e300, 3.0, 10), 10..10);
    }

    #[test]
    fn only_the_square_changes() {
        let mut image = Image::new(4, 3);
        cutout(&mut image, (3, 0), 2, [1, 2, 3]);
        let mut expected = [0; 36];
        expected[6..12].copy_from_slice(&[1, 2, 3, 1, 2, 3]);
        assert_eq!(image.pixels(), expected);
    }
}
