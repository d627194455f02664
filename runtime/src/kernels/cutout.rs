//! Cutout: a square of one colour over the image.

use crate::image::{Image, fill_pixels};

/// Fills rows and columns `c - side / 2 .. c - side / 2 + side` (integer
/// half) around the centre, clipped to the image.
pub(super) fn cutout(image: &mut Image, (x, y): (u32, u32), side: u32, fill: [u8; 3]) {
    let columns = span(x, side, image.width());
    let bytes = columns.start as usize * 3..columns.end as usize * 3;
    for row in span(y, side, image.height()) {
        fill_pixels(&mut image.row_mut(row)[bytes.clone()], fill);
    }
}

/// The square's extent along an axis of `size` pixels.
fn span(center: u32, side: u32, size: u32) -> std::ops::Range<u32> {
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
    fn only_the_square_changes() {
        let mut image = Image::new(4, 3);
        cutout(&mut image, (3, 0), 2, [1, 2, 3]);
        let mut expected = [0; 36];
        expected[6..12].copy_from_slice(&[1, 2, 3, 1, 2, 3]);
        assert_eq!(image.pixels(), expected);
    }
}
