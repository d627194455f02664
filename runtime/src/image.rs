//! [`Image`], the one pixel buffer every stage of the runtime works on.

use crate::error::{Error, Result};

/// An RGB image of 8 bits a channel: height x width x 3 bytes, row by row,
/// without padding.
///
/// An image owns its memory and is meant to be reused: [`Image::reshape`] and
/// [`Image::copy_from`] keep the allocation when it is large enough, so a
/// worker that decodes sample after sample into one image stops allocating.
///
/// ```
/// use ddas_runtime::Image;
///
/// let image = Image::from_rgb(2, 1, vec![255, 0, 0, 0, 0, 255])?;
/// assert_eq!((image.width(), image.height()), (2, 1));
/// assert_eq!(image.row(0), &[255, 0, 0, 0, 0, 255]);
/// assert!(Image::from_rgb(2, 2, vec![0; 6]).is_err());
/// # Ok::<(), ddas_runtime::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Image {
    /// Bytes a pixel.
    pub const CHANNELS: usize = 3;

    /// A black image.
    pub fn new(width: u32, height: u32) -> Image {
        Image {
            width,
            height,
            pixels: vec![0; byte_len(width, height)],
        }
    }

    /// An image over `pixels`, which must hold height x width x 3 bytes.
    ///
    /// # Errors
    /// [`Error::PixelBytes`] when it does not.
    pub fn from_rgb(width: u32, height: u32, pixels: Vec<u8>) -> Result<Image> {
        let expected = u128::from(width) * u128::from(height) * Image::CHANNELS as u128;
        if pixels.len() as u128 != expected {
            return Err(Error::PixelBytes {
                width,
                height,
                expected,
                found: pixels.len(),
            });
        }
        Ok(Image {
            width,
            height,
            pixels,
        })
    }

    /// Columns.
    #[inline]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    #[inline]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Whether the image holds no pixel.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// Bytes of one row: width x 3.
    #[inline]
    pub fn stride(&self) -> usize {
        self.width as usize * Image::CHANNELS
    }

    /// All pixels, height x width x 3.
    #[inline]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// All pixels, height x width x 3, to be changed.
    #[inline]
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// Row `y`, width x 3 bytes; empty when there is no such row.
    #[inline]
    pub fn row(&self, y: u32) -> &[u8] {
        if y >= self.height {
            return &[];
        }
        let stride = self.stride();
        &self.pixels[y as usize * stride..][..stride]
    }

    /// Row `y`, width x 3 bytes, to be changed; empty when there is no such
    /// row.
    #[inline]
    pub fn row_mut(&mut self, y: u32) -> &mut [u8] {
        if y >= self.height {
            return &mut [];
        }
        let stride = self.stride();
        &mut self.pixels[y as usize * stride..][..stride]
    }

    /// Pixel (`x`, `y`), or `None` outside the image.
    #[inline]
    pub fn pixel(&self, x: u32, y: u32) -> Option<[u8; 3]> {
        if x >= self.width {
            return None;
        }
        self.row(y)
            .get(x as usize * Image::CHANNELS..)?
            .first_chunk()
            .copied()
    }

    /// Changes the size, keeping the memory. The contents are unspecified
    /// afterwards.
    pub fn reshape(&mut self, width: u32, height: u32) {
        self.pixels.resize(byte_len(width, height), 0);
        self.width = width;
        self.height = height;
    }

    /// Becomes a copy of `other`, keeping the memory.
    pub fn copy_from(&mut self, other: &Image) {
        self.reshape(other.width, other.height);
        self.pixels.copy_from_slice(&other.pixels);
    }

    /// Sets every pixel to `colour`.
    pub fn fill(&mut self, colour: [u8; 3]) {
        fill_pixels(&mut self.pixels, colour);
    }
}

/// Sets every pixel of `pixels` (a multiple of 3 bytes) to `colour`.
pub(crate) fn fill_pixels(pixels: &mut [u8], colour: [u8; 3]) {
    if colour[0] == colour[1] && colour[1] == colour[2] {
        pixels.fill(colour[0]);
    } else {
        for pixel in pixels.as_chunks_mut::<3>().0 {
            *pixel = colour;
        }
    }
}

/// Bytes of an RGB image. Saturates, so that a size no machine can hold ends
/// in the allocator's "capacity overflow" and not in a short buffer.
fn byte_len(width: u32, height: u32) -> usize {
    (width as usize)
        .saturating_mul(height as usize)
        .saturating_mul(Image::CHANNELS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_pixels_lie_where_the_layout_says() {
        let image = Image::from_rgb(2, 3, (0..18).collect()).unwrap();
        assert_eq!(image.row(1), &[6, 7, 8, 9, 10, 11]);
        assert_eq!(image.pixel(1, 2), Some([15, 16, 17]));
        assert_eq!(image.pixel(2, 0), None);
        assert_eq!(image.pixel(0, 3), None);
        assert!(image.row(3).is_empty());
    }

    #[test]
    fn a_wrong_byte_count_is_refused_with_both_numbers() {
        let error = Image::from_rgb(4, 5, vec![0; 59]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("4x5") && text.contains("60") && text.contains("59"),
            "{text}"
        );
        assert!(Image::from_rgb(u32::MAX, u32::MAX, Vec::new()).is_err());
    }

    #[test]
    fn reshaping_to_a_smaller_size_and_back_keeps_the_memory() {
        let mut image = Image::new(8, 8);
        let address = image.pixels().as_ptr();
        image.reshape(2, 3);
        assert_eq!(image.pixels().len(), 18);
        image.reshape(8, 8);
        assert_eq!(image.pixels().as_ptr(), address);
    }

    #[test]
    fn fill_sets_every_channel() {
        let mut image = Image::new(3, 2);
        image.fill([1, 2, 3]);
        assert_eq!(image.pixels(), [1, 2, 3].repeat(6));
        image.fill([9, 9, 9]);
        assert_eq!(image.pixels(), [9; 18]);
    }
}
