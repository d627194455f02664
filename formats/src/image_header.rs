//! What an encoded image says about itself, read without decoding it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Longest side, in pixels, that any reader of this project accepts.
pub const MAX_SIDE: u32 = 16_384;
/// Most pixels that any reader of this project accepts in one image.
pub const MAX_PIXELS: u64 = 64 << 20;
/// Most bytes that one stored image may take.
pub const MAX_PAYLOAD_BYTES: usize = 256 << 20;

/// How the payload of a sample is to be read.
///
/// ```
/// use ddas_formats::Encoding;
///
/// assert_eq!("jpeg".parse::<Encoding>()?, Encoding::Jpeg);
/// assert_eq!(Encoding::Raw.to_string(), "raw");
/// # Ok::<(), ddas_formats::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// A JPEG file, byte for byte as given.
    Jpeg,
    /// A PNG file, byte for byte as given.
    Png,
    /// Pixels: RGB, 8 bits each, row-major `height x width x 3`, without padding.
    Raw,
}

impl Encoding {
    /// Every encoding.
    pub const ALL: [Encoding; 3] = [Encoding::Jpeg, Encoding::Png, Encoding::Raw];

    /// Lower-case name, as in manifests and reports.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Jpeg => "jpeg",
            Encoding::Png => "png",
            Encoding::Raw => "raw",
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Encoding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Encoding::ALL
            .into_iter()
            .find(|encoding| encoding.name() == text)
            .ok_or_else(|| Error::UnknownName {
                what: "encoding",
                name: text.to_owned(),
                known: Encoding::ALL
                    .iter()
                    .map(|encoding| encoding.name().to_owned())
                    .collect(),
            })
    }
}

/// Encoding and size of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// How the bytes are to be read.
    pub encoding: Encoding,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

impl ImageHeader {
    /// Refuses sides and areas beyond [`MAX_SIDE`] and [`MAX_PIXELS`], and empty images.
    ///
    /// # Errors
    /// [`Error::Image`] with the size found and the limit.
    pub fn check_size(&self) -> Result<()> {
        let ImageHeader { width, height, .. } = *self;
        if width == 0 || height == 0 {
            return Err(Error::image(format!(
                "the image is {width} x {height}: without pixels"
            )));
        }
        if width > MAX_SIDE
            || height > MAX_SIDE
            || u64::from(width) * u64::from(height) > MAX_PIXELS
        {
            return Err(Error::image(format!(
                "the image claims {width} x {height} pixels; at most {MAX_SIDE} on a side and {MAX_PIXELS} in all are accepted"
            )));
        }
        Ok(())
    }
}

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Reads encoding and size from the first bytes of a JPEG or PNG file.
///
/// The file's name plays no part. Nothing is decoded: a header that reads well
/// does not promise that the pixels will.
///
/// # Errors
/// [`Error::Image`] when the bytes begin as neither JPEG nor PNG, when the header is cut
/// short or malformed, and when the size is beyond the limits.
///
/// ```
/// use ddas_formats::{Encoding, read_image_header};
///
/// let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x20\0\0\0\x10\x08\x02\0\0\0";
/// let header = read_image_header(png)?;
/// assert_eq!((header.encoding, header.width, header.height), (Encoding::Png, 32, 16));
///
/// let error = read_image_header(b"hello, world").unwrap_err();
/// assert_eq!(error.to_string(), "not a JPEG or PNG: begins with \"hello, world\"");
/// # Ok::<(), ddas_formats::Error>(())
/// ```
pub fn read_image_header(bytes: &[u8]) -> Result<ImageHeader> {
    let header = if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        jpeg_header(bytes)?
    } else if bytes.starts_with(PNG_SIGNATURE) {
        png_header(bytes)?
    } else {
        return Err(Error::image(not_an_image(bytes)));
    };
    header.check_size()?;
    Ok(header)
}

fn not_an_image(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "not a JPEG or PNG: the file is empty".into();
    }
    let known = match bytes {
        [b'G', b'I', b'F', b'8', ..] => " (a GIF image)",
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => " (a WebP image)",
        [b'B', b'M', ..] => " (a BMP image)",
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => " (a TIFF image)",
        _ => "",
    };
    let first = &bytes[..bytes.len().min(16)];
    format!(
        "not a JPEG or PNG: begins with \"{}\"{known}",
        first.escape_ascii()
    )
}

fn png_header(bytes: &[u8]) -> Result<ImageHeader> {
    let cut = || {
        Error::image(format!(
            "PNG cut short after {} bytes, before its size is given",
            bytes.len()
        ))
    };
    let chunk = bytes.get(8..24).ok_or_else(cut)?;
    if chunk[..8] != *b"\0\0\0\rIHDR" {
        return Err(Error::image(
            "PNG does not begin with an IHDR chunk of 13 bytes",
        ));
    }
    Ok(ImageHeader {
        encoding: Encoding::Png,
        width: be_u32(&chunk[8..12]),
        height: be_u32(&chunk[12..16]),
    })
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |value, &byte| value << 8 | u32::from(byte))
}

/// Walks the marker segments up to the frame header (ITU-T T.81, B.2.2).
fn jpeg_header(bytes: &[u8]) -> Result<ImageHeader> {
    let cut = || {
        Error::image(format!(
            "JPEG cut short after {} bytes, before its size is given",
            bytes.len()
        ))
    };
    let mut at = 2;
    loop {
        if *bytes.get(at).ok_or_else(cut)? != 0xFF {
            return Err(Error::image(format!(
                "JPEG damaged: no marker at byte {at}"
            )));
        }
        // Any number of 0xFF may fill the space before a marker (B.1.1.2).
        while *bytes.get(at).ok_or_else(cut)? == 0xFF {
            at += 1;
        }
        let marker = bytes[at];
        at += 1;
        match marker {
            0x01 | 0xD0..=0xD7 => continue, // stand alone, without a length
            0x00 | 0xD8 | 0xD9 | 0xDA => {
                return Err(Error::image(format!(
                    "JPEG damaged: marker FF{marker:02X} at byte {} before the frame header",
                    at - 2
                )));
            }
            _ => {}
        }
        let length = bytes.get(at..at + 2).ok_or_else(cut)?;
        let length = usize::from(length[0]) << 8 | usize::from(length[1]);
        if length < 2 {
            return Err(Error::image(format!(
                "JPEG damaged: segment of length {length} at byte {at}"
            )));
        }
        // C4, C8 and CC share the range of the frame headers but are tables.
        if matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC) {
            let frame = bytes.get(at + 2..at + 8).ok_or_else(cut)?;
            let [
                precision,
                height_high,
                height_low,
                width_high,
                width_low,
                components,
            ] = *frame
            else {
                return Err(cut());
            };
            if precision != 8 {
                return Err(Error::image(format!(
                    "JPEG with {precision} bits a sample; 8 are supported"
                )));
            }
            if !matches!(components, 1 | 3 | 4) {
                return Err(Error::image(format!(
                    "JPEG with {components} components; 1, 3 or 4 are supported"
                )));
            }
            return Ok(ImageHeader {
                encoding: Encoding::Jpeg,
                width: u32::from(width_high) << 8 | u32::from(width_low),
                height: u32::from(height_high) << 8 | u32::from(height_low),
            });
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// SOI, an APP0 segment, fill bytes, then SOF0 of 40 x 30 in three components.
    const JPEG: &[u8] = b"\xFF\xD8\xFF\xE0\0\x04ab\xFF\xFF\xC0\0\x11\x08\0\x1E\0\x28\x03\x01\x22\0\x02\x11\x01\x03\x11\x01";

    #[test]
    fn jpeg_size_is_found_behind_other_segments() {
        let header = read_image_header(JPEG).unwrap();
        assert_eq!(
            header,
            ImageHeader {
                encoding: Encoding::Jpeg,
                width: 40,
                height: 30
            }
        );
    }

    #[test]
    fn a_jpeg_cut_anywhere_before_its_size_is_an_error() {
        for length in 0..19 {
            assert!(
                read_image_header(&JPEG[..length]).is_err(),
                "cut at {length}"
            );
        }
        assert!(read_image_header(&JPEG[..20]).is_ok());
    }

    #[test]
    fn damaged_jpeg_headers_say_what_is_wrong() {
        let with = |at: usize, byte: u8| {
            let mut bytes = JPEG.to_vec();
            bytes[at] = byte;
            read_image_header(&bytes).unwrap_err().to_string()
        };
        assert!(with(13, 12).contains("12 bits a sample"));
        assert!(with(18, 2).contains("2 components"));
        assert!(with(5, 1).contains("segment of length 1"));
        assert!(with(8, 0x10).contains("no marker at byte 8"));
        assert!(with(10, 0xDA).contains("marker FFDA"));
    }

    #[test]
    fn empty_images_and_bombs_are_refused() {
        let png = |width: u32, height: u32| {
            let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
            bytes.extend(width.to_be_bytes());
            bytes.extend(height.to_be_bytes());
            read_image_header(&bytes).map_err(|error| error.to_string())
        };
        assert!(png(1, 1).is_ok());
        assert!(png(MAX_SIDE, (MAX_PIXELS / u64::from(MAX_SIDE)) as u32).is_ok());
        assert!(
            png(MAX_SIDE, (MAX_PIXELS / u64::from(MAX_SIDE)) as u32 + 1)
                .unwrap_err()
                .contains("in all")
        );
        assert!(png(MAX_SIDE + 1, 1).unwrap_err().contains("16385 x 1"));
        assert!(png(0, 5).unwrap_err().contains("without pixels"));
        assert!(png(u32::MAX, u32::MAX).is_err());
    }

    #[test]
    fn other_files_are_named_by_what_they_begin_with() {
        let error = |bytes: &[u8]| read_image_header(bytes).unwrap_err().to_string();
        assert_eq!(error(b""), "not a JPEG or PNG: the file is empty");
        assert_eq!(
            error(b"GIF89a\x01"),
            "not a JPEG or PNG: begins with \"GIF89a\\x01\" (a GIF image)"
        );
        assert!(error(b"RIFF\0\0\0\0WEBP").contains("(a WebP image)"));
        assert!(error(b"0123456789abcdefgh").contains("\"0123456789abcdef\""));
    }

    proptest! {
        /// No byte string makes the reader panic, and what it accepts is within the limits.
        #[test]
        fn any_bytes_give_a_verdict(prefix in 0..3usize, tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = [&b""[..], PNG_SIGNATURE, b"\xFF\xD8\xFF"][prefix].to_vec();
            bytes.extend(tail);
            if let Ok(header) = read_image_header(&bytes) {
                prop_assert!(header.check_size().is_ok());
            }
        }
    }
}
