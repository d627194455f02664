//! Stored sample to augmented pixels.
//!
//! A [`Pipeline`] joins a [`Recipe`], a policy and an [`OutputFormat`] and
//! processes samples one by one: a [`Decoder`] turns the payload into an
//! [`Image`], a [`Resizer`] crops it, an [`Augmenter`] applies what the
//! [`PolicySampler`] of the epoch draws, and the normalised values go straight
//! to their place in the batch. Random choices come from a [`SampleRng`] keyed
//! by seed, epoch and index; an [`EpochSchedule`] says which snapshot of the
//! policy is in force.
//!
//! No file is opened here, no thread started, and there is no global state but
//! the answer which instructions the machine has: callers own the memory, and
//! each thread its scratch.

#![deny(unsafe_code)]

mod augmenter;
mod cpu;
mod decode;
#[expect(unsafe_code, reason = "libjpeg is a C library")]
mod encode;
mod error;
mod image;
mod kernels;
mod mix;
mod normal;
mod output;
mod pipeline;
mod recipe;
mod resize;
mod rng;
mod sampler;
mod schedule;

pub use augmenter::Augmenter;
pub use decode::{DecodeLimits, Decoder};
pub use encode::{ChromaSubsampling, encode_jpeg};
pub use error::{Error, Result};
pub use image::Image;
pub use kernels::Kernels;
pub use mix::{Blend, CutMix, Mix, MixPer, MixUp};
pub use output::{Dtype, Layout, Normalization, OutputFormat};
pub use pipeline::{Pipeline, PipelineScratch, StageTimes};
pub use recipe::{
    Action, Border, ColorJitter, Erase, Lighting, RandomErasing, Recipe, ResizeTo, Step,
};
pub use resize::{PassOrder, Rect, ResizeFilter, Resizer};
pub use rng::{SampleRng, Stream, philox4x32};
pub use sampler::PolicySampler;
pub use schedule::EpochSchedule;
