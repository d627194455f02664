//! Pixels stored as they are.

use super::{Request, damaged};
use crate::error::Result;
use crate::image::Image;

/// Copies RGB8 pixels, height x width x 3.
pub(super) fn decode(request: &Request<'_>, image: &mut Image) -> Result<()> {
    let expected = u64::from(request.width) * u64::from(request.height) * Image::CHANNELS as u64;
    if request.payload.len() as u64 != expected {
        return Err(damaged(
            "raw",
            format!(
                "{}x{} RGB pixels take {expected} bytes, the payload has {}",
                request.width,
                request.height,
                request.payload.len()
            ),
        ));
    }
    image.reshape(request.width, request.height);
    image.pixels_mut().copy_from_slice(request.payload);
    Ok(())
}
