//! Packed RGB bytes between Python buffers and [`Image`].

use ddas_runtime::Image;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;

/// Copies `pixels` (height x width x 3 bytes) into a new image.
///
/// The bytes are copied while the GIL is held, so that no other Python code
/// changes them meanwhile.
pub(crate) fn to_image(
    py: Python<'_>,
    pixels: &PyBuffer<u8>,
    width: u32,
    height: u32,
) -> PyResult<Image> {
    let bytes = pixels.to_vec(py)?;
    Image::from_rgb(width, height, bytes).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// The pixels of `image` as a new bytearray: writable, and shared by the arrays made over it.
pub(crate) fn to_bytearray<'py>(py: Python<'py>, image: &Image) -> Bound<'py, PyByteArray> {
    PyByteArray::new(py, image.pixels())
}
