//! Stored sample to augmented pixels.

mod error;
mod image;
mod kernels;

pub use error::{Error, Result};
pub use image::Image;
pub use kernels::Kernels;
