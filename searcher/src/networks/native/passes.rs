//! Passes over activations that no convolution takes along.

use rayon::prelude::*;

use super::convolve::{Activation, Gradient, Mask};
use super::isa::{Isa, for_each_isa};

/// Pixels that a thread takes at once.
const CHUNK: usize = 512;

/// Channels whose sums stay in registers while the pixels pass; all numbers of channels here are
/// multiples of it.
const GROUP: usize = 16;

/// A group of channels, from channel `first` on.
#[inline(always)]
fn group<T: Copy>(values: &[T], first: usize) -> [T; GROUP] {
    std::array::from_fn(|c| values[first + c])
}

/// The group of each pixel.
#[inline(always)]
fn groups(pixels: &[f32], channels: usize, first: usize) -> impl Iterator<Item = &[f32; GROUP]> {
    let pixels = pixels.chunks_exact(channels);
    pixels.filter_map(move |pixel| pixel[first..].first_chunk())
}

/// The group of each pixel, to be changed.
#[inline(always)]
fn groups_mut(
    pixels: &mut [f32],
    channels: usize,
    first: usize,
) -> impl Iterator<Item = &mut [f32; GROUP]> {
    let pixels = pixels.chunks_exact_mut(channels);
    pixels.filter_map(move |pixel| pixel[first..].first_chunk_mut())
}

#[inline(always)]
fn add(to: &mut [f64], sums: [f64; GROUP]) {
    for (to, sum) in to.iter_mut().zip(sums) {
        *to += sum;
    }
}

for_each_isa! {
    /// Adds each channel's sum to the first half of `partial`, the sum of squares to the second.
    pub(super) fn sum_squares(values: &[f32], partial: &mut [f64]) {
        let channels = partial.len() / 2;
        for at in (0..channels).step_by(GROUP) {
            let (mut first, mut second) = ([0.0; GROUP], [0.0; GROUP]);
            for values in groups(values, channels, at) {
                for c in 0..GROUP {
                    let value = f64::from(values[c]);
                    first[c] += value;
                    second[c] += value * value;
                }
            }
            add(&mut partial[at..], first);
            add(&mut partial[channels + at..], second);
        }
    }
}

for_each_isa! {
    /// Values `start..` of a gradient.
    pub(super) fn read_gradient(dy: Gradient<'_>, start: usize, out: &mut [f32]) {
        match dy {
            Gradient::Plain(dy) => out.copy_from_slice(&dy[start..][..out.len()]),
            Gradient::Normalised { da, y, a, b, c } => {
                let channels = a.len();
                let (b, c) = (&b[..channels], &c[..channels]);
                let da = da[start..][..out.len()].chunks_exact(channels);
                let y = y[start..][..out.len()].chunks_exact(channels);
                for ((out, da), y) in out.chunks_exact_mut(channels).zip(da).zip(y) {
                    for i in 0..channels {
                        out[i] = a[i] * da[i] + b[i] * y[i] + c[i];
                    }
                }
            }
        }
    }
}

for_each_isa! {
    /// Sets values `start..` of a gradient to 0 where the mask does not let them pass, and adds
    /// each channel's sum and its sum of products with the normalised input to `partial`.
    pub(super) fn mask_and_sum(mask: Mask<'_>, start: usize, da: &mut [f32], partial: &mut [f64]) {
        let channels = partial.len() / 2;
        let x = &mask.x[start..][..da.len()];
        for at in (0..channels).step_by(GROUP) {
            let (scale, shift) = (group(mask.scale, at), group(mask.shift, at));
            let (mean, rstd) = (group(mask.mean, at), group(mask.rstd, at));
            let (mut first, mut second) = ([0.0; GROUP], [0.0; GROUP]);
            for (da, x) in groups_mut(da, channels, at).zip(groups(x, channels, at)) {
                for c in 0..GROUP {
                    let passed = if scale[c] * x[c] + shift[c] > 0.0 { da[c] } else { 0.0 };
                    da[c] = passed;
                    first[c] += f64::from(passed);
                    second[c] += f64::from(passed) * f64::from((x[c] - mean[c]) * rstd[c]);
                }
            }
            add(&mut partial[at..], first);
            add(&mut partial[channels + at..], second);
        }
    }
}

/// Coefficients of a batch normalisation's backward pass, per channel: the gradient with respect
/// to its input `x` is `a * da + b * x + c`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine<'a> {
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
    pub(super) c: &'a [f32],
}

for_each_isa! {
    fn affine_in_place(affine: Affine<'_>, x: &[f32], da: &mut [f32]) {
        let channels = affine.a.len();
        let (a, b, c) = (affine.a, &affine.b[..channels], &affine.c[..channels]);
        for (da, x) in da.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            for i in 0..channels {
                da[i] = a[i] * da[i] + b[i] * x[i] + c[i];
            }
        }
    }
}

for_each_isa! {
    fn add_affine(affine: Affine<'_>, x: &[f32], da: &[f32], out: &mut [f32]) {
        let channels = affine.a.len();
        let (a, b, c) = (affine.a, &affine.b[..channels], &affine.c[..channels]);
        let inputs = da.chunks_exact(channels).zip(x.chunks_exact(channels));
        for (out, (da, x)) in out.chunks_exact_mut(channels).zip(inputs) {
            for i in 0..channels {
                out[i] += a[i] * da[i] + b[i] * x[i] + c[i];
            }
        }
    }
}

/// `da = a da + b x + c`.
pub(super) fn normalised_gradient(isa: Isa, affine: Affine<'_>, x: &[f32], da: &mut [f32]) {
    let chunk = CHUNK * affine.a.len();
    da.par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .for_each(|(da, x)| affine_in_place(isa, affine, x, da));
}

/// `out += a da + b x + c`.
pub(super) fn add_normalised_gradient(
    isa: Isa,
    affine: Affine<'_>,
    x: &[f32],
    da: &[f32],
    out: &mut [f32],
) {
    let chunk = CHUNK * affine.a.len();
    out.par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk).zip(da.par_chunks(chunk)))
        .for_each(|(out, (x, da))| add_affine(isa, affine, x, da, out));
}

for_each_isa! {
    /// Of one image, per channel: the sum of what passes the rectification, how many pixels pass
    /// it, and the sum of their inputs, one after the other in `sums`.
    pub(super) fn pool(act: Activation<'_>, image: &[f32], sums: &mut [f64]) {
        let channels = sums.len() / 3;
        for at in (0..channels).step_by(GROUP) {
            let (scale, shift) = (group(act.scale, at), group(act.shift, at));
            let [mut total, mut count, mut inputs] = [[0.0; GROUP]; 3];
            for x in groups(image, channels, at) {
                for c in 0..GROUP {
                    let value = scale[c] * x[c] + shift[c];
                    let passes = value > 0.0;
                    total[c] += if passes { f64::from(value) } else { 0.0 };
                    count[c] += if passes { 1.0 } else { 0.0 };
                    inputs[c] += if passes { f64::from(x[c]) } else { 0.0 };
                }
            }
            for (part, values) in [total, count, inputs].iter().enumerate() {
                sums[part * channels + at..][..GROUP].copy_from_slice(values);
            }
        }
    }
}

for_each_isa! {
    /// Back through pooling, rectification and normalisation of one image: `gradient` is that of
    /// each pixel's rectified value, per channel.
    pub(super) fn unpool(
        act: Activation<'_>, affine: Affine<'_>, gradient: &[f32], x: &[f32], out: &mut [f32],
    ) {
        let channels = gradient.len();
        let (scale, shift) = (&act.scale[..channels], &act.shift[..channels]);
        let (a, b, c) = (&affine.a[..channels], &affine.b[..channels], &affine.c[..channels]);
        for (out, x) in out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            for i in 0..channels {
                let passes = scale[i] * x[i] + shift[i] > 0.0;
                let da = if passes { gradient[i] } else { 0.0 };
                out[i] = a[i] * da + b[i] * x[i] + c[i];
            }
        }
    }
}
