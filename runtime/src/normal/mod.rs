//! Numbers of the standard normal distribution, in three ways, each of them part of the format of random numbers:
//!
//! | way | uniform numbers it takes | for |
//! |---|---|---|
//! | [`standard_normal`] | one, always | varied arguments of a policy |
//! | [`pair`] | two, for two numbers | a few numbers a sample: lighting, the colour of what is erased, mixing |
//! | [`Ziggurat`] | mostly half of one | a number for every value: noise |
//!
//! The first is arithmetic alone and has the same bits everywhere. The others
//! call the C library's logarithm and the like, whose last bit may differ from
//! one library to the next.

mod quantile;
mod ziggurat;

pub(crate) use quantile::standard_normal;
pub(crate) use ziggurat::Ziggurat;

use crate::rng::SampleRng;

/// Two independent numbers (Box and Muller, 1958).
#[inline]
pub(crate) fn pair(rng: &mut SampleRng) -> (f64, f64) {
    let radius = (-2.0 * (1.0 - rng.uniform()).ln()).sqrt();
    let (sine, cosine) = (std::f64::consts::TAU * rng.uniform()).sin_cos();
    (radius * cosine, radius * sine)
}
