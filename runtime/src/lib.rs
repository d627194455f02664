//! Stored sample to augmented pixels.

mod error;
mod image;
mod kernels;
mod rng;

pub use error::{Error, Result};
pub use image::Image;
pub use kernels::Kernels;
pub use rng::{SampleRng, Stream, philox4x32};
