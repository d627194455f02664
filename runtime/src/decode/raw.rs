//! Pixels stored as they are.

use super::{Request, damaged};
use crate::error::Result;
use crate::image::Image;
use crate::resize::Rect;

/// Copies `region` out of RGB8 pixels, height x width x 3.
pub(super) fn decode(request: &Request<'_>, region: Rect, image: &mut Image) -> Result<()> {
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
    image.reshape(region.width, region.height);
    let stride = request.width as usize * Image::CHANNELS;
    let rows = request.payload.chunks_exact(stride).skip(region.y as usize);
    let first = region.x as usize * Image::CHANNELS;
    let length = image.stride();
    for (target, row) in image.pixels_mut().chunks_exact_mut(length).zip(rows) {
        target.copy_from_slice(&row[first..first + length]);
    }
    Ok(())
}
