//! Stored sample to augmented pixels.

mod augmenter;
mod error;
mod image;
mod kernels;
mod rng;
mod sampler;
mod schedule;

pub use augmenter::Augmenter;
pub use error::{Error, Result};
pub use image::Image;
pub use kernels::Kernels;
pub use rng::{SampleRng, Stream, philox4x32};
pub use sampler::PolicySampler;
pub use schedule::EpochSchedule;
