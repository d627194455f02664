//! Stored sample to augmented pixels.

#![deny(unsafe_code)]

mod augmenter;
mod decode;
mod error;
mod image;
mod kernels;
mod resize;
mod rng;
mod sampler;
mod schedule;

pub use augmenter::Augmenter;
pub use decode::{DecodeLimits, Decoder};
pub use error::{Error, Result};
pub use image::Image;
pub use kernels::Kernels;
pub use resize::{PassOrder, Rect, ResizeFilter, Resizer};
pub use rng::{SampleRng, Stream, philox4x32};
pub use sampler::PolicySampler;
pub use schedule::EpochSchedule;
