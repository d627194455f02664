//! Stored sample to augmented pixels.

mod error;
mod image;
mod rng;

pub use error::{Error, Result};
pub use image::Image;
pub use rng::{SampleRng, Stream, philox4x32};
