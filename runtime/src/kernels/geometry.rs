//! Moves of whole pixels: flips and quarter turns. Nothing is resampled.

#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::image::Image;

/// Mirrors left and right.
pub(super) fn flip_left_right(image: &mut Image) {
    let stride = image.stride().max(1);
    #[cfg(target_arch = "x86_64")]
    if x86::mirror_rows(image.pixels_mut(), stride) {
        return;
    }
    for row in image.pixels_mut().chunks_exact_mut(stride) {
        row.as_chunks_mut::<3>().0.reverse();
    }
}

/// Mirrors top and bottom.
pub(super) fn flip_top_bottom(source: &Image, target: &mut Image) {
    target.reshape(source.width(), source.height());
    let stride = source.stride().max(1);
    let rows = target.pixels_mut().rchunks_exact_mut(stride);
    for (to, from) in rows.zip(source.pixels().chunks_exact(stride)) {
        to.copy_from_slice(from);
    }
}

/// Half a turn.
pub(super) fn turn_180(image: &mut Image) {
    #[cfg(target_arch = "x86_64")]
    if x86::reverse_pixels(image.pixels_mut()) {
        return;
    }
    image.pixels_mut().as_chunks_mut::<3>().0.reverse();
}

/// As [`flip_left_right`], into another image.
pub(super) fn flip_left_right_to(source: &Image, target: &mut Image) {
    target.reshape(source.width(), source.height());
    reverse_rows(source.pixels(), source.stride(), target.pixels_mut());
}

/// As [`turn_180`], into another image.
pub(super) fn turn_180_to(source: &Image, target: &mut Image) {
    target.reshape(source.width(), source.height());
    let pixels = source.pixels();
    reverse_rows(pixels, pixels.len(), target.pixels_mut());
}

/// The pixels of each row of `stride` bytes in reverse order.
fn reverse_rows(from: &[u8], stride: usize, to: &mut [u8]) {
    let stride = stride.max(1);
    #[cfg(target_arch = "x86_64")]
    if x86::reverse_rows_to(from, stride, to) {
        return;
    }
    for (from, to) in from.chunks_exact(stride).zip(to.chunks_exact_mut(stride)) {
        let pixels = from.as_chunks::<3>().0.iter().rev();
        for (to, from) in to.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
            *to = *from;
        }
    }
}

/// A quarter turn counter-clockwise; width and height change places.
pub(super) fn turn_90(source: &Image, target: &mut Image) {
    turn(source, false, target);
}

/// A quarter turn clockwise; width and height change places.
pub(super) fn turn_270(source: &Image, target: &mut Image) {
    turn(source, true, target);
}

fn turn(source: &Image, clockwise: bool, target: &mut Image) {
    /// Source columns in one pass: their target rows stay in the cache.
    const TILE: usize = 16;

    target.reshape(source.height(), source.width());
    let (width, height) = (source.width() as usize, source.height() as usize);
    #[cfg(target_arch = "x86_64")]
    if x86::turn(
        source.pixels(),
        (width, height),
        clockwise,
        target.pixels_mut(),
    ) {
        return;
    }
    let pixels = source.pixels().as_chunks::<3>().0;
    let target = target.pixels_mut().as_chunks_mut::<3>().0;
    for start in (0..width).step_by(TILE) {
        let end = (start + TILE).min(width);
        for row in 0..height {
            for (column, pixel) in (start..end).zip(&pixels[row * width + start..]) {
                let (out_row, out_column) = if clockwise {
                    (column, height - 1 - row)
                } else {
                    (width - 1 - column, row)
                };
                target[out_row * height + out_column] = *pixel;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::on_every_cpu;

    /// Pixels named by one number each.
    fn numbered(width: u32, numbers: &[u8]) -> Image {
        let pixels = numbers.iter().flat_map(|&n| [n, n + 100, 7]).collect();
        Image::from_rgb(width, numbers.len() as u32 / width, pixels).unwrap()
    }

    #[test]
    fn flips_and_half_turns() {
        let mut image = numbered(3, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        flip_left_right(&mut image);
        assert_eq!(image, numbered(3, &[3, 2, 1, 6, 5, 4, 9, 8, 7]));
        let mut flipped = Image::default();
        flip_top_bottom(&image, &mut flipped);
        let mut image = flipped;
        assert_eq!(image, numbered(3, &[9, 8, 7, 6, 5, 4, 3, 2, 1]));
        turn_180(&mut image);
        assert_eq!(image, numbered(3, &[1, 2, 3, 4, 5, 6, 7, 8, 9]));
        let mut even = Image::default();
        flip_top_bottom(&numbered(2, &[1, 2, 3, 4, 5, 6, 7, 8]), &mut even);
        assert_eq!(even, numbered(2, &[7, 8, 5, 6, 3, 4, 1, 2]));
    }

    #[test]
    fn quarter_turns() {
        let image = numbered(3, &[1, 2, 3, 4, 5, 6]);
        let mut turned = Image::default();
        turn_90(&image, &mut turned);
        assert_eq!(turned, numbered(2, &[3, 6, 2, 5, 1, 4]));
        turn_270(&image, &mut turned);
        assert_eq!(turned, numbered(2, &[4, 1, 5, 2, 6, 3]));
    }

    #[test]
    fn quarter_turns_of_every_shape() {
        let (mut once, mut back) = (Image::default(), Image::default());
        on_every_cpu(|cpu| {
            for (width, height) in [(37, 4), (4, 8), (5, 9), (8, 19), (3, 40), (12, 16)] {
                let numbers: Vec<u8> = (0..width * height).map(|n| (n % 151) as u8).collect();
                let image = numbered(width, &numbers);
                turn_90(&image, &mut once);
                for (x, y) in (0..height).flat_map(|x| (0..width).map(move |y| (x, y))) {
                    assert_eq!(once.pixel(x, y), image.pixel(width - 1 - y, x), "{cpu:?}");
                }
                turn_270(&once, &mut back);
                assert_eq!(back, image, "{cpu:?}");
            }
        });
    }
}
