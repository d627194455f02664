//! Stored sample to augmented pixels.

mod error;
mod image;

pub use error::{Error, Result};
pub use image::Image;
