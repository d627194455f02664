//! Makes images smaller before they are packed.

use std::cell::RefCell;

use ddas_formats::{Encoding, ImageHeader};
use ddas_runtime::{
    ChromaSubsampling, Decoder, Image, PassOrder, Rect, ResizeFilter, Resizer, encode_jpeg,
};

use crate::check::check_image;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

#[derive(Default)]
struct Scratch {
    decoder: Decoder,
    image: Image,
    resizer: Resizer,
    smaller: Image,
}

/// Makes the shorter side of images a given number of pixels; never the other way round.
///
/// The image is decoded, resized as Pillow's `Image.resize` does with its antialiased bilinear filter (to the size of
/// torchvision's `Resize`), and encoded again: a JPEG as JPEG, a PNG as PNG, which loses nothing. An image whose shorter
/// side is not longer than asked for keeps its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shrink {
    /// The shorter side, in pixels.
    pub shorter: u32,
    /// Quality of JPEGs, 1 to 100.
    pub quality: u8,
    /// How much of the colour JPEGs keep.
    pub subsampling: ChromaSubsampling,
}

impl Shrink {
    /// Quality of JPEGs when nothing else is asked for.
    pub const QUALITY: u8 = 90;

    /// What it does, in words that name every setting.
    pub fn name(&self) -> String {
        let subsampling = match self.subsampling {
            ChromaSubsampling::Full => "4:4:4",
            ChromaSubsampling::Quarter => "4:2:0",
        };
        format!(
            "shorter side {} bilinear, JPEG quality {} {subsampling}",
            self.shorter, self.quality
        )
    }

    /// The image to store for the one given; its bytes are checked as strictly as by [`check_image`].
    ///
    /// # Errors
    /// What is wrong with the image, in words.
    pub fn apply(&self, header: &ImageHeader, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        let (width, height) = (header.width, header.height);
        if width.min(height) <= self.shorter {
            return check_image(header, &bytes).map(|()| bytes);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            // After a panic, which the packer catches, nothing of it is used again: the next image overwrites all.
            let Scratch {
                decoder,
                image,
                resizer,
                smaller,
            } = scratch;
            let failed = |error: ddas_runtime::Error| error.to_string();
            decoder
                .decode(header.encoding, width, height, &bytes, image)
                .map_err(failed)?;
            let whole = Rect {
                x: 0,
                y: 0,
                width,
                height,
            };
            let size = self.size(width, height);
            resizer
                .resize_crop(
                    image,
                    whole,
                    size,
                    ResizeFilter::Bilinear,
                    PassOrder::Pillow13,
                    smaller,
                )
                .map_err(failed)?;
            match header.encoding {
                Encoding::Jpeg => {
                    encode_jpeg(smaller, self.quality, self.subsampling).map_err(failed)
                }
                Encoding::Png => png(smaller),
                Encoding::Raw => Err("raw pixels are not resized".into()),
            }
        })
    }

    /// The longer side is rounded down, as torchvision does.
    fn size(&self, width: u32, height: u32) -> (u32, u32) {
        let longer = |long: u32, short: u32| {
            (u64::from(self.shorter) * u64::from(long) / u64::from(short)) as u32
        };
        if width <= height {
            (self.shorter, longer(height, width))
        } else {
            (longer(width, height), self.shorter)
        }
    }
}

fn png(image: &Image) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(image.pixels()))
        .map_err(|error| format!("cannot encode the image: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_side_is_as_asked_and_nothing_grows() {
        let shrink = |shorter| Shrink {
            shorter,
            quality: 90,
            subsampling: ChromaSubsampling::Quarter,
        };
        // torchvision 0.26: `Resize(256)` of these sizes.
        assert_eq!(shrink(256).size(500, 375), (341, 256));
        assert_eq!(shrink(256).size(375, 500), (256, 341));
        assert_eq!(shrink(256).size(300, 300), (256, 256));
        assert_eq!(shrink(256).size(4000, 257), (3984, 256));

        let noise = (0..40 * 30 * 3)
            .map(|at| ((at * 7919) >> 3) as u8)
            .collect();
        let image = Image::from_rgb(40, 30, noise).unwrap();
        for (encoding, bytes) in [
            (
                Encoding::Jpeg,
                encode_jpeg(&image, 95, ChromaSubsampling::Full).unwrap(),
            ),
            (Encoding::Png, png(&image).unwrap()),
        ] {
            let header = ddas_formats::read_image_header(&bytes).unwrap();
            assert_eq!(
                (header.encoding, header.width, header.height),
                (encoding, 40, 30)
            );
            for kept in [30, 31, 1000] {
                assert_eq!(shrink(kept).apply(&header, bytes.clone()).unwrap(), bytes);
            }
            let smaller = shrink(20).apply(&header, bytes.clone()).unwrap();
            let found = ddas_formats::read_image_header(&smaller).unwrap();
            assert_eq!(
                (found.encoding, found.width, found.height),
                (encoding, 26, 20)
            );
            check_image(&found, &smaller).unwrap();
            let cut = bytes[..bytes.len() - 30].to_vec();
            assert!(shrink(20).apply(&header, cut.clone()).is_err());
            assert!(shrink(30).apply(&header, cut).is_err());
        }
    }
}
