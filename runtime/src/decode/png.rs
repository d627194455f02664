//! PNG, through the `png` crate with every check switched on.

use std::io::Cursor;

use png::{BitDepth, ColorType, DecodeOptions, DecodingError, Limits, Transformations};

use super::{Request, damaged};
use crate::error::Result;
use crate::image::Image;

/// Bound on the decoder's own buffers (lines and ancillary chunks), bytes.
const BUFFER_LIMIT: usize = 64 << 20;

/// Decodes a PNG to RGB8: palettes and 1, 2 and 4 bit grey are expanded, alpha
/// is dropped, of 16 bits the high byte is kept.
pub(super) fn decode(
    request: &Request<'_>,
    scratch: &mut Vec<u8>,
    image: &mut Image,
) -> Result<()> {
    let mut options = DecodeOptions::default();
    options.set_ignore_checksums(false);
    options.set_skip_ancillary_crc_failures(false);
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = png::Decoder::new_with_options(Cursor::new(request.payload), options);
    decoder.set_limits(Limits {
        bytes: BUFFER_LIMIT,
    });
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let header = decoder.read_header_info().map_err(png_error)?;
    request.check_size(header.width, header.height)?;
    let mut reader = decoder.read_info().map_err(png_error)?;

    image.reshape(request.width, request.height);
    let (color, depth) = reader.output_color_type();
    if depth != BitDepth::Eight {
        return Err(damaged("PNG", format!("unexpected bit depth {depth:?}")));
    }
    let frame = if color == ColorType::Rgb {
        reader.next_frame(image.pixels_mut()).map_err(png_error)?
    } else {
        let bytes = request.width as usize * request.height as usize * color.samples();
        scratch.resize(bytes, 0);
        reader.next_frame(scratch).map_err(png_error)?
    };
    // The first frame of an animation may cover a part of the picture only.
    request.check_size(frame.width, frame.height)?;
    reader.finish().map_err(png_error)?;

    let pixels = image.pixels_mut().as_chunks_mut::<3>().0;
    match color {
        ColorType::Rgb => {}
        ColorType::Rgba => {
            for (pixel, source) in pixels.iter_mut().zip(scratch.as_chunks::<4>().0) {
                *pixel = [source[0], source[1], source[2]];
            }
        }
        ColorType::Grayscale => {
            for (pixel, &grey) in pixels.iter_mut().zip(scratch.iter()) {
                *pixel = [grey; 3];
            }
        }
        ColorType::GrayscaleAlpha => {
            for (pixel, source) in pixels.iter_mut().zip(scratch.as_chunks::<2>().0) {
                *pixel = [source[0]; 3];
            }
        }
        // EXPAND turns palettes into RGB or RGBA.
        ColorType::Indexed => return Err(damaged("PNG", "palette was not expanded")),
    }
    Ok(())
}

fn png_error(error: DecodingError) -> crate::Error {
    match error {
        DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            damaged(
                "PNG",
                "the data end before the image does (truncated file?)",
            )
        }
        error => damaged("PNG", error.to_string()),
    }
}
