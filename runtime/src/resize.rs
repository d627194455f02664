//! Crop and resize with antialiasing, bit-exact with Pillow's
//! `Image.crop(box).resize(size, filter)` (`Resample.c`).
//!
//! Each axis is a pass of its own: every output position weighs the input
//! positions under a filter stretched by the reduction. Weights are integers
//! of 22 fraction bits; the image between the passes has 8 bits again, so the
//! order of the passes shows in the result.

use std::ops::Range;

use crate::cpu::for_each_cpu;
use crate::error::{Error, Result};
use crate::image::Image;

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector loads and stores go through pointers")]
mod vnni;
mod weights;

use weights::{Axis, HALF, PRECISION};

/// The filter that weighs input pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResizeFilter {
    /// A triangle, one input pixel (of the reduced image) to each side.
    Bilinear,
    /// The cubic with a = -0.5, two to each side.
    Bicubic,
    /// The triangle, never stretched: a reduction skips pixels instead of
    /// weighing them all (no antialiasing).
    PlainBilinear,
    /// The cubic, never stretched.
    PlainBicubic,
}

impl ResizeFilter {
    /// Whether a reduction stretches it over all the pixels it merges.
    #[must_use]
    pub const fn antialiases(self) -> bool {
        matches!(self, ResizeFilter::Bilinear | ResizeFilter::Bicubic)
    }
}

/// Which axis is resized first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PassOrder {
    /// Along the rows, then along the columns: Pillow up to 12.
    HorizontalFirst,
    /// Along the columns first where the height shrinks, and by more than
    /// twice what the width shrinks by: Pillow 13.0.
    Pillow13,
}

/// A rectangle of pixels within an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rect {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Resizes crops of images; holds the weights and the image between the
/// passes, so that nothing is allocated once they are large enough.
///
/// ```
/// use ddas_runtime::{Image, PassOrder, Rect, ResizeFilter, Resizer};
///
/// let image = Image::from_rgb(2, 2, vec![0, 0, 0, 100, 100, 100, 100, 100, 100, 200, 200, 200])?;
/// let whole = Rect { x: 0, y: 0, width: 2, height: 2 };
/// let mut out = Image::default();
/// let mut resizer = Resizer::default();
/// resizer.resize_crop(&image, whole, (1, 1), ResizeFilter::Bilinear, PassOrder::Pillow13, &mut out)?;
/// assert_eq!(out.pixels(), [100, 100, 100]);
/// # Ok::<(), ddas_runtime::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Resizer {
    columns: Axis,
    rows: Axis,
    between: Image,
    gathered: Vec<[u8; COLUMN]>,
}

impl Resizer {
    /// Resizes the pixels of `source` within `crop` to `size` (width, height)
    /// and puts them into `target`.
    ///
    /// # Errors
    /// [`Error::Crop`] when `crop` is empty or reaches beyond the image,
    /// [`Error::EmptySize`] when `size` holds no pixel.
    pub fn resize_crop(
        &mut self,
        source: &Image,
        crop: Rect,
        size: (u32, u32),
        filter: ResizeFilter,
        order: PassOrder,
        target: &mut Image,
    ) -> Result<()> {
        let view = View::new(source, crop)?;
        let (width, height) = size;
        if width == 0 || height == 0 {
            return Err(Error::EmptySize { width, height });
        }
        let Resizer {
            columns,
            rows,
            between,
            gathered,
        } = self;
        match (crop.width != width, crop.height != height) {
            (false, false) => view.copy(target),
            (true, false) => {
                columns.prepare(crop.width, width, filter);
                horizontal(&view, columns, gathered, target);
            }
            (false, true) => {
                rows.prepare(crop.height, height, filter);
                vertical(&view, rows, target);
            }
            (true, true) => {
                columns.prepare(crop.width, width, filter);
                rows.prepare(crop.height, height, filter);
                if vertical_first(order, crop, size) {
                    vertical(&view, rows, between);
                    horizontal(&View::whole(between), columns, gathered, target);
                } else {
                    horizontal(&view, columns, gathered, between);
                    vertical(&View::whole(between), rows, target);
                }
            }
        }
        Ok(())
    }
}

fn vertical_first(order: PassOrder, crop: Rect, (width, height): (u32, u32)) -> bool {
    let rows_lost = i64::from(crop.height) - i64::from(height);
    let columns_lost = i64::from(crop.width) - i64::from(width);
    order == PassOrder::Pillow13 && rows_lost > 0 && rows_lost > 2 * columns_lost
}

/// A rectangle of an image, read row by row.
struct View<'a> {
    rows: std::slice::ChunksExact<'a, u8>,
    bytes: Range<usize>,
    width: u32,
    height: u32,
}

impl<'a> View<'a> {
    fn new(image: &'a Image, crop: Rect) -> Result<View<'a>> {
        let fits = |first: u32, count: u32, size: u32| {
            count > 0 && first.checked_add(count).is_some_and(|end| end <= size)
        };
        if !fits(crop.x, crop.width, image.width()) || !fits(crop.y, crop.height, image.height()) {
            return Err(Error::Crop {
                crop,
                width: image.width(),
                height: image.height(),
            });
        }
        let stride = image.stride();
        let (y, height) = (crop.y as usize, crop.height as usize);
        Ok(View {
            rows: image.pixels()[y * stride..][..height * stride].chunks_exact(stride),
            bytes: crop.x as usize * 3..(crop.x + crop.width) as usize * 3,
            width: crop.width,
            height: crop.height,
        })
    }

    /// All of an image that holds at least one pixel.
    fn whole(image: &'a Image) -> View<'a> {
        View {
            rows: image.pixels().chunks_exact(image.stride()),
            bytes: 0..image.stride(),
            width: image.width(),
            height: image.height(),
        }
    }

    /// The rows from `first` on.
    fn rows_from(&self, first: u32) -> impl Iterator<Item = &'a [u8]> {
        let bytes = self.bytes.clone();
        let mut rows = self.rows.clone();
        if let Some(skipped) = first.checked_sub(1) {
            rows.nth(skipped as usize);
        }
        rows.map(move |row| &row[bytes.clone()])
    }

    fn copy(&self, target: &mut Image) {
        target.reshape(self.width, self.height);
        let stride = target.stride();
        for (out, row) in target
            .pixels_mut()
            .chunks_exact_mut(stride)
            .zip(self.rows_from(0))
        {
            out.copy_from_slice(row);
        }
    }
}

/// Resizes along the rows. What `axis` was made for is the source's width.
fn horizontal(
    source: &View<'_>,
    axis: &mut Axis,
    columns: &mut Vec<[u8; COLUMN]>,
    target: &mut Image,
) {
    #[cfg(target_arch = "x86_64")]
    if vnni::available() {
        let mut digits = std::mem::take(&mut axis.digits);
        let gathered = digits.prepare_gathers(axis, source.width);
        if gathered {
            target.reshape(axis.spans.len() as u32, source.height);
            // SAFETY: the one condition, that the machine can, has been checked.
            #[allow(unsafe_code)]
            unsafe {
                vnni::horizontal(source, &digits, target);
            }
        }
        axis.digits = digits;
        if gathered {
            return;
        }
    }
    horizontal_by_columns(source, axis, columns, target);
}

/// Resizes along the columns.
fn vertical(source: &View<'_>, axis: &Axis, target: &mut Image) {
    #[cfg(target_arch = "x86_64")]
    if vnni::available() {
        target.reshape(source.width, axis.spans.len() as u32);
        // SAFETY: the one condition, that the machine can, has been checked.
        #[allow(unsafe_code)]
        unsafe {
            vnni::vertical(source, axis, &axis.digits, target);
        }
        return;
    }
    vertical_by_blocks(source, axis, target);
}

/// Rows resized together along the rows.
const ROWS: usize = 16;
/// Their bytes in one column.
const COLUMN: usize = ROWS * 3;

for_each_cpu! {
    /// Resizes along the rows: weighed sums of columns, of [`ROWS`] rows at a
    /// time, brought together in `columns` first.
    fn horizontal_by_columns(
        source: &View<'_>,
        axis: &Axis,
        columns: &mut Vec<[u8; COLUMN]>,
        target: &mut Image,
    ) {
        target.reshape(axis.spans.len() as u32, source.height);
        columns.resize(source.width as usize, [0; COLUMN]);
        let stride = target.stride();
        let mut rows = source.rows_from(0);
        for out in target.pixels_mut().chunks_mut(ROWS * stride) {
            for (i, row) in rows.by_ref().take(out.len() / stride).enumerate() {
                for (column, pixel) in columns.iter_mut().zip(row.as_chunks::<3>().0) {
                    column[3 * i] = pixel[0];
                    column[3 * i + 1] = pixel[1];
                    column[3 * i + 2] = pixel[2];
                }
            }
            for (x, (first, weights)) in axis.positions().enumerate() {
                let mut sums = [HALF; COLUMN];
                for (column, &weight) in columns[first as usize..].iter().zip(weights) {
                    for (sum, &value) in sums.iter_mut().zip(column) {
                        *sum = add_product(*sum, value, weight);
                    }
                }
                let values = sums.map(clip);
                for (row, pixel) in out.chunks_exact_mut(stride).zip(values.as_chunks::<3>().0) {
                    row[3 * x..][..3].copy_from_slice(pixel);
                }
            }
        }
    }
}

for_each_cpu! {
    /// Resizes along the columns: weighed sums of rows, a few bytes at a time.
    fn vertical_by_blocks(source: &View<'_>, axis: &Axis, target: &mut Image) {
        const BLOCK: usize = 32;
        target.reshape(source.width, axis.spans.len() as u32);
        let stride = target.stride();
        for (out, (first, weights)) in target
            .pixels_mut()
            .chunks_exact_mut(stride)
            .zip(axis.positions())
        {
            let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
            for (i, out) in blocks.iter_mut().enumerate() {
                let mut sums = [HALF; BLOCK];
                for (row, &weight) in source.rows_from(first).zip(weights) {
                    for (sum, &value) in sums.iter_mut().zip(&row[i * BLOCK..][..BLOCK]) {
                        *sum = add_product(*sum, value, weight);
                    }
                }
                *out = sums.map(clip);
            }
            let start = blocks.len() * BLOCK;
            for (i, out) in rest.iter_mut().enumerate() {
                let rows = source.rows_from(first).zip(weights);
                *out = clip(rows.fold(HALF, |sum, (row, &weight)| {
                    add_product(sum, row[start + i], weight)
                }));
            }
        }
    }
}

/// Never overflows: the weights of a position sum to one, and the negative
/// ones of the cubic add less than another half.
#[inline(always)]
fn add_product(sum: i32, value: u8, weight: i32) -> i32 {
    sum.wrapping_add(i32::from(value).wrapping_mul(weight))
}

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::test_images::Kind;

    const FILTERS: [ResizeFilter; 4] = [
        ResizeFilter::Bilinear,
        ResizeFilter::Bicubic,
        ResizeFilter::PlainBilinear,
        ResizeFilter::PlainBicubic,
    ];

    fn resize(image: &Image, crop: Rect, size: (u32, u32), order: PassOrder) -> Image {
        let mut target = Image::default();
        Resizer::default()
            .resize_crop(image, crop, size, ResizeFilter::Bicubic, order, &mut target)
            .unwrap();
        target
    }

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    #[test]
    fn a_crop_reads_only_its_own_pixels() {
        let image = Image::from_rgb(20, 16, Kind::Random.pixels(20, 16)).unwrap();
        let crop = rect(3, 5, 9, 7);
        let mut cut = Image::new(9, 7);
        for y in 0..7 {
            cut.row_mut(y).copy_from_slice(&image.row(5 + y)[9..9 + 27]);
        }
        for size in [(9, 7), (4, 7), (9, 3), (5, 4), (18, 3), (4, 20)] {
            for order in [PassOrder::HorizontalFirst, PassOrder::Pillow13] {
                let of_cut = resize(&cut, rect(0, 0, 9, 7), size, order);
                assert_eq!(resize(&image, crop, size, order), of_cut, "{size:?}");
                assert_eq!((of_cut.width(), of_cut.height()), size);
            }
        }
    }

    #[test]
    fn weights_sum_to_one_and_spans_stay_inside() {
        let mut axis = Axis::default();
        for filter in FILTERS {
            for (size, count) in [
                (1, 1),
                (1, 9),
                (9, 1),
                (33, 32),
                (32, 33),
                (500, 7),
                (7, 500),
            ] {
                axis.prepare(size, count, filter);
                assert_eq!(axis.spans.len(), count as usize);
                for (first, weights) in axis.positions() {
                    assert!(first as usize + weights.len() <= size as usize);
                    let sum: i32 = weights.iter().sum();
                    assert!((sum - (1 << PRECISION)).unsigned_abs() as usize <= weights.len());
                    // What `add_product` relies on.
                    let magnitude: i64 = weights.iter().map(|w| i64::from(w.abs())).sum();
                    assert!(magnitude * 255 + i64::from(HALF) < i64::from(i32::MAX));
                }
            }
        }
    }

    /// What the vector code of this machine does, against the plain loops; from
    /// one column to more than a vector reaches over.
    #[test]
    fn every_way_gives_the_same_bytes() {
        let mut axis = Axis::default();
        let (mut plain, mut fast) = (Image::default(), Image::default());
        for (width, height) in [(1, 1), (2, 9), (23, 5), (97, 40), (300, 7), (41, 301)] {
            let image = Image::from_rgb(width, height, Kind::Random.pixels(width, height)).unwrap();
            let view = View::new(&image, rect(0, 0, width, height)).unwrap();
            for count in [1, 2, 4, 5, 6, 11, 32, 57] {
                for filter in FILTERS {
                    axis.prepare(width, count, filter);
                    horizontal_by_columns(&view, &axis, &mut Vec::new(), &mut plain);
                    horizontal(&view, &mut axis, &mut Vec::new(), &mut fast);
                    assert_eq!(plain, fast, "{width} columns to {count}");
                    axis.prepare(height, count, filter);
                    vertical_by_blocks(&view, &axis, &mut plain);
                    vertical(&view, &axis, &mut fast);
                    assert_eq!(plain, fast, "{height} rows to {count}");
                }
            }
        }
    }

    #[test]
    fn a_reused_resizer_gives_the_same_bytes() {
        let image = Image::from_rgb(33, 17, Kind::Random.pixels(33, 17)).unwrap();
        let mut resizer = Resizer::default();
        let mut target = Image::default();
        for crop in [rect(0, 0, 33, 17), rect(2, 1, 30, 5), rect(0, 0, 33, 17)] {
            for filter in [ResizeFilter::Bicubic, ResizeFilter::Bilinear] {
                let order = PassOrder::Pillow13;
                resizer
                    .resize_crop(&image, crop, (16, 16), filter, order, &mut target)
                    .unwrap();
                let mut fresh = Image::default();
                Resizer::default()
                    .resize_crop(&image, crop, (16, 16), filter, order, &mut fresh)
                    .unwrap();
                assert_eq!(target, fresh);
            }
        }
    }

    #[test]
    fn the_order_follows_pillow_13() {
        let order = PassOrder::Pillow13;
        assert!(vertical_first(order, rect(0, 0, 10, 10), (10, 9)));
        assert!(vertical_first(order, rect(0, 0, 10, 10), (12, 9)));
        assert!(!vertical_first(order, rect(0, 0, 10, 10), (9, 8)));
        assert!(vertical_first(order, rect(0, 0, 10, 10), (9, 7)));
        assert!(!vertical_first(order, rect(0, 0, 10, 10), (1, 11)));
        assert!(!vertical_first(order, rect(0, 0, 10, 10), (20, 10)));
        let before = PassOrder::HorizontalFirst;
        assert!(!vertical_first(before, rect(0, 0, 10, 10), (10, 9)));
    }

    #[test]
    fn crops_outside_the_image_are_refused() {
        let image = Image::new(4, 3);
        let mut target = Image::default();
        for crop in [
            rect(0, 0, 5, 3),
            rect(4, 0, 1, 1),
            rect(0, 3, 1, 1),
            rect(0, 0, 0, 1),
            rect(u32::MAX, 0, 2, 1),
        ] {
            let error = Resizer::default()
                .resize_crop(
                    &image,
                    crop,
                    (2, 2),
                    ResizeFilter::Bilinear,
                    PassOrder::Pillow13,
                    &mut target,
                )
                .unwrap_err();
            assert!(error.to_string().contains("4x3"), "{error}");
        }
        let error = Resizer::default()
            .resize_crop(
                &image,
                rect(0, 0, 4, 3),
                (0, 2),
                ResizeFilter::Bilinear,
                PassOrder::Pillow13,
                &mut target,
            )
            .unwrap_err();
        assert!(error.to_string().contains("0x2"), "{error}");
    }
}
