//! Stored bytes to pixels. Strict: whatever a decoder merely warns about is an
//! error, so that a damaged sample is reported and never trained on.

mod baseline;
#[expect(unsafe_code, reason = "libjpeg is a C library")]
mod jpeg;
mod png;
mod raw;

use ddas_formats::{Encoding, ImageHeader, MAX_PAYLOAD_BYTES, MAX_PIXELS, MAX_SIDE, Sample};

use crate::error::{Error, Result};
use crate::image::Image;
use crate::resize::Rect;

/// Smallest side of images that get an index: smaller ones are read whole in a
/// few microseconds.
const LEAST_SIDE_INDEXED: u32 = 128;

/// Bounds on what one sample may ask for, checked before memory is allocated.
///
/// ```
/// use ddas_runtime::{DecodeLimits, Decoder};
///
/// let small = DecodeLimits { max_side: 1024, ..DecodeLimits::default() };
/// let decoder = Decoder::with_limits(small);
/// # let _ = decoder;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Largest width and height, pixels.
    pub max_side: u32,
    /// Largest width times height, pixels.
    pub max_pixels: u64,
    /// Largest encoded size, bytes.
    pub max_bytes: usize,
    /// Most scans of a progressive JPEG: each passes over the whole image, so
    /// that a small file with very many of them costs minutes.
    pub max_scans: u32,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            max_side: MAX_SIDE,
            max_pixels: MAX_PIXELS,
            max_bytes: MAX_PAYLOAD_BYTES,
            max_scans: 100,
        }
    }
}

impl DecodeLimits {
    fn check(&self, width: u32, height: u32, payload: &[u8]) -> Result<()> {
        let pixels = u64::from(width) * u64::from(height);
        let exceeded = if width == 0 || height == 0 {
            Some(("smallest side", 1, 0))
        } else if width.max(height) > self.max_side {
            Some((
                "side",
                u64::from(self.max_side),
                u64::from(width.max(height)),
            ))
        } else if pixels > self.max_pixels {
            Some(("pixels", self.max_pixels, pixels))
        } else if payload.len() > self.max_bytes {
            Some(("encoded bytes", self.max_bytes as u64, payload.len() as u64))
        } else {
            None
        };
        match exceeded {
            None => Ok(()),
            Some((what, limit, found)) => Err(Error::DecodeLimit {
                width,
                height,
                what,
                limit,
                found,
            }),
        }
    }
}

/// Turns the payload of a sample into an RGB image; keeps its scratch memory
/// from call to call (one decoder per thread).
///
/// - JPEG: bit-identical with Pillow (libjpeg-turbo's accurate integer DCT and
///   smooth chroma upsampling), through a decoder of our own for plain files
///   and libjpeg for all others: baseline and progressive, grey (replicated),
///   YCbCr, RGB, and CMYK/YCCK taken as Adobe's inverted form. Any warning of
///   libjpeg (premature end, corrupt data, stray bytes) is an error.
/// - PNG: 1 to 16 bits, grey, palette, interlaced. Alpha is dropped, 16 bits
///   become 8 by their high byte.
/// - Raw: RGB8, height x width x 3.
///
/// Embedded colour profiles and EXIF orientation are ignored, as Pillow's
/// `Image.open(..).convert("RGB")` ignores them.
///
/// ```
/// use ddas_formats::Encoding;
/// use ddas_runtime::{Decoder, Image};
///
/// let mut decoder = Decoder::new();
/// let mut image = Image::default(); // reused from sample to sample
/// decoder.decode(Encoding::Raw, 2, 1, &[1, 2, 3, 4, 5, 6], &mut image)?;
/// assert_eq!(image.pixel(1, 0), Some([4, 5, 6]));
///
/// let truncated = decoder.decode(Encoding::Raw, 2, 1, &[1, 2, 3], &mut image);
/// assert!(truncated.is_err());
/// # Ok::<(), ddas_runtime::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    limits: DecodeLimits,
    /// A few CMYK rows, or a PNG frame that is not 8-bit RGB.
    scratch: Vec<u8>,
    /// Made with the first JPEG.
    baseline: Option<Box<baseline::Baseline>>,
}

impl Decoder {
    /// A decoder with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder with other limits.
    #[must_use]
    pub fn with_limits(limits: DecodeLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Decodes `payload`, which must hold an image of exactly `width` x
    /// `height` pixels, into `image`, whose memory is reused. After an error
    /// the contents of `image` are unspecified.
    ///
    /// # Errors
    /// [`Error::DecodeLimit`] for a size outside the limits,
    /// [`Error::DecodedSize`] when the payload holds another size,
    /// [`Error::Decode`] for anything that is not a whole, undamaged image of
    /// that encoding.
    pub fn decode(
        &mut self,
        encoding: Encoding,
        width: u32,
        height: u32,
        payload: &[u8],
        image: &mut Image,
    ) -> Result<()> {
        let whole = Rect {
            x: 0,
            y: 0,
            width,
            height,
        };
        self.decode_region(encoding, width, height, payload, whole, image)?;
        Ok(())
    }

    /// Decodes at least the pixels of `region` out of an image of `width` x
    /// `height` pixels, and returns where they lie in `image`. They are the
    /// same as in a whole decode, but cost less: of a JPEG, blocks outside the
    /// region are not transformed, and nothing below it is read.
    ///
    /// ```
    /// use ddas_formats::Encoding;
    /// use ddas_runtime::{Decoder, Image, Rect};
    ///
    /// let payload = [[0; 9], [1; 9]].concat(); // 3x2 pixels
    /// let region = Rect { x: 1, y: 1, width: 2, height: 1 };
    /// let mut image = Image::default();
    /// let place = Decoder::new().decode_region(Encoding::Raw, 3, 2, &payload, region, &mut image)?;
    /// assert_eq!(image.pixel(place.x, place.y), Some([1, 1, 1]));
    /// # Ok::<(), ddas_runtime::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Decoder::decode`], but that damage below the region may go
    /// unnoticed; [`Error::Crop`] when the region is empty or reaches beyond
    /// the image.
    pub fn decode_region(
        &mut self,
        encoding: Encoding,
        width: u32,
        height: u32,
        payload: &[u8],
        region: Rect,
        image: &mut Image,
    ) -> Result<Rect> {
        let sample = Sample {
            label: 0,
            encoding,
            width,
            height,
            payload,
            index: &[],
        };
        self.decode_sample(&sample, region, image)
    }

    /// [`Decoder::decode_region`] of a dataset's sample. With the sample's index
    /// ([`Decoder::index`]) nothing before or beside the region is read either,
    /// and damage there may go unnoticed: a dataset's checksums tell of it.
    ///
    /// # Errors
    /// As [`Decoder::decode_region`].
    pub fn decode_sample(
        &mut self,
        sample: &Sample<'_>,
        region: Rect,
        image: &mut Image,
    ) -> Result<Rect> {
        let &Sample {
            width,
            height,
            payload,
            ..
        } = sample;
        self.check(width, height, payload)?;
        let within = |first: u32, length: u32, bound: u32| {
            length > 0 && first < bound && length <= bound - first
        };
        if !within(region.x, region.width, width) || !within(region.y, region.height, height) {
            return Err(Error::Crop {
                crop: region,
                width,
                height,
            });
        }
        let request = Request {
            width,
            height,
            payload,
            index: sample.index,
            max_scans: self.limits.max_scans,
        };
        match sample.encoding {
            Encoding::Jpeg => {
                let baseline = self.baseline.get_or_insert_default();
                match baseline.decode(&request, region, image) {
                    Some(place) => Ok(place),
                    None => jpeg::decode(&request, region, &mut self.scratch, image),
                }
            }
            Encoding::Png => {
                png::decode(&request, &mut self.scratch, image)?;
                Ok(region)
            }
            Encoding::Raw => {
                raw::decode(&request, region, image)?;
                Ok(Rect {
                    x: 0,
                    y: 0,
                    ..region
                })
            }
        }
    }

    /// Where in an image's bytes its parts begin, to be stored with them
    /// ([`Sample::index`]): 10 bytes for 64 x 16 pixels of a usual photograph.
    /// Empty where it would not pay or cannot be had: for small images, for
    /// what is not a plain JPEG, and for images that do not decode.
    ///
    /// ```
    /// use ddas_formats::{Encoding, ImageHeader};
    /// use ddas_runtime::Decoder;
    ///
    /// let header = ImageHeader { encoding: Encoding::Raw, width: 2, height: 1 };
    /// assert!(Decoder::new().index(&header, &[1, 2, 3, 4, 5, 6]).is_empty());
    /// ```
    pub fn index(&mut self, header: &ImageHeader, payload: &[u8]) -> Vec<u8> {
        let &ImageHeader {
            encoding,
            width,
            height,
        } = header;
        let pays = encoding == Encoding::Jpeg && width.min(height) >= LEAST_SIDE_INDEXED;
        if !pays || self.check(width, height, payload).is_err() {
            return Vec::new();
        }
        let request = Request {
            width,
            height,
            payload,
            index: &[],
            max_scans: self.limits.max_scans,
        };
        let baseline = self.baseline.get_or_insert_default();
        baseline.index(&request).unwrap_or_default()
    }

    /// Refuses what is outside the limits.
    pub(crate) fn check(&self, width: u32, height: u32, payload: &[u8]) -> Result<()> {
        self.limits.check(width, height, payload)
    }
}

/// One image to be decoded.
struct Request<'a> {
    width: u32,
    height: u32,
    payload: &'a [u8],
    index: &'a [u8],
    max_scans: u32,
}

impl Request<'_> {
    /// Refuses an image of another size than the one asked for.
    fn check_size(&self, width: u32, height: u32) -> Result<()> {
        if (width, height) == (self.width, self.height) {
            Ok(())
        } else {
            Err(Error::DecodedSize {
                expected: (self.width, self.height),
                found: (width, height),
            })
        }
    }
}

/// An [`Error::Decode`] of `format`.
fn damaged(format: &'static str, reason: impl Into<String>) -> Error {
    Error::Decode {
        format,
        reason: reason.into(),
    }
}
