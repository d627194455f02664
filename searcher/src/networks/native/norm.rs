//! Batch normalisation as numbers per channel: the convolutions apply them.

use super::convolve::{Activation, Mask, Sums};
use super::passes::Affine;
use crate::networks::parameters::BATCH_NORM_EPSILON;

/// A normalisation of a batch: x becomes `gamma (x - mean) rstd + beta = scale x + shift`.
#[derive(Debug)]
pub(super) struct Norm {
    mean: Vec<f32>,
    rstd: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// The same in f64, for the backward pass.
    exact: Vec<(f64, f64)>,
    count: f64,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Norm {
    pub(super) fn new(channels: usize) -> Self {
        let zeros = || vec![0.0; channels];
        Self {
            mean: zeros(),
            rstd: zeros(),
            scale: zeros(),
            shift: zeros(),
            exact: vec![(0.0, 0.0); channels],
            count: 0.0,
            a: zeros(),
            b: zeros(),
            c: zeros(),
        }
    }

    /// From the sums of `count` values per channel and of their squares. Says whether all went
    /// well: a network that has diverged gives numbers that are not finite, which a rectification
    /// would hide.
    pub(super) fn set(&mut self, sums: &Sums, count: usize, gamma: &[f32], beta: &[f32]) -> bool {
        self.count = count as f64;
        let mut finite = true;
        for channel in 0..self.mean.len() {
            let mean = sums.first[channel] / self.count;
            let variance = (sums.second[channel] / self.count - mean * mean).max(0.0);
            let rstd = (variance + BATCH_NORM_EPSILON).sqrt().recip();
            let scale = f64::from(gamma[channel]) * rstd;
            let shift = f64::from(beta[channel]) - mean * scale;
            // NaN does not survive `max`.
            finite &= scale.is_finite() && shift.is_finite() && sums.second[channel].is_finite();
            self.exact[channel] = (mean, rstd);
            self.mean[channel] = mean as f32;
            self.rstd[channel] = rstd as f32;
            self.scale[channel] = scale as f32;
            self.shift[channel] = shift as f32;
        }
        finite
    }

    pub(super) fn activation(&self) -> Activation<'_> {
        Activation {
            scale: &self.scale,
            shift: &self.shift,
        }
    }

    /// Of the rectification after it; `x` is what was normalised.
    pub(super) fn mask<'a>(&'a self, x: &'a [f32]) -> Mask<'a> {
        Mask {
            x,
            scale: &self.scale,
            shift: &self.shift,
            mean: &self.mean,
            rstd: &self.rstd,
        }
    }

    /// From the sums of the gradient with respect to its result and of that gradient's products
    /// with the normalised values: the gradients with respect to gamma and beta, and the
    /// coefficients of [`Norm::affine`].
    pub(super) fn backward(
        &mut self,
        sums: &Sums,
        gamma: &[f32],
        gamma_gradient: &mut [f32],
        beta_gradient: &mut [f32],
    ) {
        for (channel, &(mean, rstd)) in self.exact.iter().enumerate() {
            let (first, second) = (sums.first[channel], sums.second[channel]);
            gamma_gradient[channel] = second as f32;
            beta_gradient[channel] = first as f32;
            let a = f64::from(gamma[channel]) * rstd;
            let b = -a * rstd * second / self.count;
            self.a[channel] = a as f32;
            self.b[channel] = b as f32;
            self.c[channel] = (-a * first / self.count - b * mean) as f32;
        }
    }

    /// The mean and reciprocal standard deviation of a channel.
    pub(super) fn exact(&self, channel: usize) -> (f64, f64) {
        self.exact[channel]
    }

    /// How the gradient with respect to what was normalised is put together.
    pub(super) fn affine(&self) -> Affine<'_> {
        Affine {
            a: &self.a,
            b: &self.b,
            c: &self.c,
        }
    }
}
