//! The convolutions that are few: any kernel and stride, as matrix products.
//!
//! The values under the kernel are laid out as a row per output pixel (once more for each pass:
//! that costs less than keeping them), for as many pixels at once as the cache holds.

use rayon::prelude::*;

use super::convolve::{Activation, Gradient, Mask, Sums};
use super::gemm::{COLUMNS, Left, Product, multiply};
use super::isa::{Isa, for_each_isa};
use super::passes::{mask_and_sum, read_gradient, sum_squares};
use super::scratch::{PartialSums, Scratch};

/// Sizes of a convolution whose padding is half its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) batch: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
}

/// Values of the rows laid out at once: 256 KiB.
const LAID_OUT: usize = 1 << 16;

/// Parts in which a gradient of weights is summed.
const WEIGHT_PARTS: usize = 16;

impl Shape {
    pub(super) fn out_height(&self) -> usize {
        (self.height - 1) / self.stride + 1
    }

    pub(super) fn out_width(&self) -> usize {
        (self.width - 1) / self.stride + 1
    }

    fn out_pixels(&self) -> usize {
        self.batch * self.out_height() * self.out_width()
    }

    fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Values under the kernel, filled up for the matrix product.
    fn row(&self) -> usize {
        (self.taps() * self.inputs).next_multiple_of(COLUMNS)
    }

    /// Output pixels laid out at once.
    fn chunk(&self) -> usize {
        (LAID_OUT / self.row()).clamp(16, 1024)
    }
}

/// Where the kernel stands at an output pixel.
#[derive(Clone, Copy)]
struct Place {
    image: usize,
    y: usize,
    x: usize,
}

impl Place {
    #[inline(always)]
    fn of(shape: &Shape, pixel: usize) -> Self {
        let (row, x) = (pixel / shape.out_width(), pixel % shape.out_width());
        Self {
            image: row / shape.out_height(),
            y: row % shape.out_height(),
            x,
        }
    }

    #[inline(always)]
    fn next(self, shape: &Shape) -> Self {
        let Self { image, y, x } = self;
        if x + 1 < shape.out_width() {
            Self { image, y, x: x + 1 }
        } else if y + 1 < shape.out_height() {
            Self {
                image,
                y: y + 1,
                x: 0,
            }
        } else {
            Self {
                image: image + 1,
                y: 0,
                x: 0,
            }
        }
    }

    /// The input pixel under a tap; none in the padding.
    #[inline(always)]
    fn under(self, shape: &Shape, tap: usize) -> Option<usize> {
        let padding = shape.kernel / 2;
        let y = (self.y * shape.stride + tap / shape.kernel).wrapping_sub(padding);
        let x = (self.x * shape.stride + tap % shape.kernel).wrapping_sub(padding);
        (y < shape.height && x < shape.width)
            .then(|| (self.image * shape.height + y) * shape.width + x)
    }
}

for_each_isa! {
    /// Lays out the values under the kernel at the output pixels from `first` on.
    fn lay_out(
        shape: Shape, x: &[f32], act: Option<Activation<'_>>, first: usize, rows: &mut [f32],
    ) {
        let inputs = shape.inputs;
        let mut place = Place::of(&shape, first);
        for row in rows.chunks_exact_mut(shape.row()) {
            let (taps, rest) = row.split_at_mut(shape.taps() * inputs);
            rest.fill(0.0);
            for (tap, to) in taps.chunks_exact_mut(inputs).enumerate() {
                match place.under(&shape, tap) {
                    None => to.fill(0.0),
                    Some(pixel) => {
                        let from = &x[pixel * inputs..][..inputs];
                        match act {
                            None => to.copy_from_slice(from),
                            Some(Activation { scale, shift }) => {
                                let (scale, shift) = (&scale[..inputs], &shift[..inputs]);
                                for c in 0..inputs {
                                    to[c] = (scale[c] * from[c] + shift[c]).max(0.0);
                                }
                            }
                        }
                    }
                }
            }
            place = place.next(&shape);
        }
    }
}

for_each_isa! {
    /// Adds gradients laid out as by [`lay_out`], from output pixel `first` of an image on, to
    /// the pixels of the image that they are of.
    fn add_back(shape: Shape, first: usize, rows: &[f32], image: &mut [f32]) {
        let inputs = shape.inputs;
        let mut place = Place::of(&shape, first);
        for row in rows.chunks_exact(shape.row()) {
            for (tap, from) in row.chunks_exact(inputs).enumerate() {
                if let Some(pixel) = place.under(&shape, tap) {
                    let to = &mut image[pixel * inputs..][..inputs];
                    for (to, from) in to.iter_mut().zip(from) {
                        *to += from;
                    }
                }
            }
            place = place.next(&shape);
        }
    }
}

/// The passes of such convolutions, with their memory.
#[derive(Debug)]
pub(super) struct Lowering {
    isa: Isa,
    scratch: Scratch,
    transposed: Vec<f32>,
    partial: PartialSums,
    parts: Vec<f32>,
}

impl Lowering {
    pub(super) fn new(isa: Isa, threads: usize) -> Self {
        Self {
            isa,
            scratch: Scratch::new(threads),
            transposed: Vec::new(),
            partial: PartialSums::default(),
            parts: Vec::new(),
        }
    }

    /// `out = conv(act(x))`; sums of `out` and of its squares when asked.
    pub(super) fn forward(
        &mut self,
        shape: Shape,
        x: &[f32],
        act: Option<Activation<'_>>,
        weights: &[f32],
        out: &mut [f32],
        sums: Option<&mut Sums>,
    ) {
        let (isa, outputs, row) = (self.isa, shape.outputs, shape.row());
        let used = shape.taps() * shape.inputs;
        self.transposed.clear();
        self.transposed.resize(row * outputs, 0.0);
        for (output, weights) in weights.chunks_exact(used).enumerate() {
            for (p, &weight) in weights.iter().enumerate() {
                self.transposed[p * outputs + output] = weight;
            }
        }
        let (scratch, transposed) = (&self.scratch, &self.transposed);
        let chunk = shape.chunk();
        let parts = shape.out_pixels().div_ceil(chunk);
        let wanted = sums.is_some();
        let partial = self.partial.start(parts, outputs);
        out.par_chunks_mut(chunk * outputs)
            .zip(partial.par_chunks_mut(2 * outputs))
            .enumerate()
            .for_each(|(part, (out, partial))| {
                let pixels = out.len() / outputs;
                scratch.with(pixels * row, |rows| {
                    lay_out(isa, shape, x, act, part * chunk, rows);
                    let product = Product {
                        m: pixels,
                        n: outputs,
                        k: row,
                    };
                    let left = Left {
                        values: rows,
                        row,
                        column: 1,
                    };
                    multiply(isa, product, left, transposed, out, false);
                });
                if wanted {
                    sum_squares(isa, out, partial);
                }
            });
        if let Some(sums) = sums {
            self.partial.finish(sums);
        }
    }

    /// The gradient with respect to the input as it is read, on top of what `da` holds when
    /// `accumulate`; with a mask then 0 where it does not let it pass, and the sums of
    /// [`Convolve::backward_data`](super::convolve::Convolve::backward_data).
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward_data(
        &mut self,
        shape: Shape,
        dy: Gradient<'_>,
        weights: &[f32],
        accumulate: bool,
        mask: Option<Mask<'_>>,
        da: &mut [f32],
        sums: &mut Sums,
    ) {
        let (isa, inputs, outputs) = (self.isa, shape.inputs, shape.outputs);
        let (row, chunk) = (shape.row(), shape.chunk());
        let image_pixels = shape.out_height() * shape.out_width();
        let image_length = shape.height * shape.width * inputs;
        let scratch = &self.scratch;
        let one = Shape { batch: 1, ..shape };
        let partial = self.partial.start(shape.batch, inputs);
        da.par_chunks_mut(image_length)
            .zip(partial.par_chunks_mut(2 * inputs))
            .enumerate()
            .for_each(|(image, (da, partial))| {
                if !accumulate {
                    da.fill(0.0);
                }
                for first in (0..image_pixels).step_by(chunk) {
                    let pixels = chunk.min(image_pixels - first);
                    scratch.with(pixels * (row + outputs), |buffer| {
                        let (rows, gradient) = buffer.split_at_mut(pixels * row);
                        let start = (image * image_pixels + first) * outputs;
                        read_gradient(isa, dy, start, gradient);
                        let product = Product {
                            m: pixels,
                            n: row,
                            k: outputs,
                        };
                        let left = Left {
                            values: gradient,
                            row: outputs,
                            column: 1,
                        };
                        multiply(isa, product, left, weights, rows, false);
                        add_back(isa, one, first, rows, da);
                    });
                }
                if let Some(mask) = mask {
                    mask_and_sum(isa, mask, image * image_length, da, partial);
                }
            });
        self.partial.finish(sums);
    }

    /// The gradient with respect to the weights, overwriting `dw`.
    pub(super) fn backward_weights(
        &mut self,
        shape: Shape,
        x: &[f32],
        act: Option<Activation<'_>>,
        dy: Gradient<'_>,
        dw: &mut [f32],
    ) {
        let (isa, outputs, row) = (self.isa, shape.outputs, shape.row());
        let (pixels, chunk) = (shape.out_pixels(), shape.chunk());
        let chunks = pixels.div_ceil(chunk);
        let parts = chunks.min(WEIGHT_PARTS);
        let length = outputs * row;
        if self.parts.len() < parts * length {
            self.parts.resize(parts * length, 0.0);
        }
        let scratch = &self.scratch;
        let sums = &mut self.parts[..parts * length];
        sums.par_chunks_mut(length)
            .enumerate()
            .for_each(|(part, sum)| {
                for number in part * chunks / parts..(part + 1) * chunks / parts {
                    let first = number * chunk;
                    let pixels = chunk.min(pixels - first);
                    scratch.with(pixels * (row + outputs), |buffer| {
                        let (rows, gradient) = buffer.split_at_mut(pixels * row);
                        lay_out(isa, shape, x, act, first, rows);
                        read_gradient(isa, dy, first * outputs, gradient);
                        let product = Product {
                            m: outputs,
                            n: row,
                            k: pixels,
                        };
                        let left = Left {
                            values: gradient,
                            row: 1,
                            column: outputs,
                        };
                        let begun = number > part * chunks / parts;
                        multiply(isa, product, left, rows, sum, begun);
                    });
                }
            });
        let used = shape.taps() * shape.inputs;
        for (output, dw) in dw.chunks_exact_mut(used).enumerate() {
            dw.fill(0.0);
            for part in sums.chunks_exact(length) {
                for (dw, part) in dw.iter_mut().zip(&part[output * row..]) {
                    *dw += part;
                }
            }
        }
    }
}
