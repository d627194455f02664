//! A wide residual network's loss and gradient, written out by hand.
//!
//! Of the activations, only each block's input and its first convolution's output are kept. What
//! stands between (normalised, rectified) is computed again wherever it is read.

use super::conv::Aligned;
use super::convolve::{Convolve, Geometry, Gradient, Sums, sums};
use super::head::{Head, Reduce};
use super::isa::Isa;
use super::layout::{BlockPart, FIRST_CHANNELS, Layout, NormPart};
use super::lowered::{Lowering, Shape};
use super::norm::Norm;
use super::passes::{add_normalised_gradient, normalised_gradient};

/// A batch: images as `[batch][height][width][3]`, one label each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch<'a> {
    pub(super) images: &'a [f32],
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) labels: &'a [usize],
}

/// A block with what a forward pass leaves for the backward pass.
#[derive(Debug)]
struct Block {
    part: BlockPart,
    norm1: Norm,
    norm2: Norm,
    /// Sums over the block's input, then over the gradient with respect to it.
    sums1: Sums,
    /// The same of the first convolution's output.
    sums2: Sums,
    input: Aligned,
    inner: Aligned,
}

/// The network, its buffers and its convolutions.
pub(super) struct WideNetwork {
    isa: Isa,
    layout: Layout,
    blocks: Vec<Block>,
    norm: Norm,
    head: Head,
    sums: Sums,
    last: Aligned,
    /// Gradients of the backward pass (the first also takes what a shortcut gives forward).
    gradients: [Aligned; 3],
    convolver: Box<dyn Convolve + Send>,
    lowering: Lowering,
}

impl WideNetwork {
    pub(super) fn new(
        isa: Isa,
        layout: Layout,
        classes: usize,
        threads: usize,
        convolver: Box<dyn Convolve + Send>,
    ) -> Self {
        let block = |part: &BlockPart| Block {
            part: part.clone(),
            norm1: Norm::new(part.inputs),
            norm2: Norm::new(part.outputs),
            sums1: sums(part.inputs),
            sums2: sums(part.outputs),
            input: Aligned::default(),
            inner: Aligned::default(),
        };
        Self {
            isa,
            blocks: layout.blocks.iter().map(block).collect(),
            norm: Norm::new(layout.channels),
            head: Head::new(isa, layout.channels, classes),
            sums: sums(layout.channels),
            last: Aligned::default(),
            gradients: Default::default(),
            convolver,
            lowering: Lowering::new(isa, threads),
            layout,
        }
    }

    /// Loss, number of correct predictions, and the gradient of all parameters.
    pub(super) fn differentiate(
        &mut self,
        parameters: &[f32],
        batch: Batch<'_>,
        reduce: Reduce,
        gradient: &mut [f32],
    ) -> (f64, usize) {
        self.fit(batch);
        let finite = self.forward(parameters, batch);
        let (loss, correct) = self.head.forward(
            &self.norm,
            &self.last,
            batch.labels,
            reduce,
            &parameters[self.layout.linear.clone()],
            &mut gradient[self.layout.linear.clone()],
            &mut self.sums,
        );
        self.backward(parameters, batch, gradient);
        (if finite { loss } else { f64::NAN }, correct)
    }

    /// Makes the buffers as long as the batch needs them.
    fn fit(&mut self, batch: Batch<'_>) {
        let mut pixels = batch.labels.len() * batch.height * batch.width;
        let (mut height, mut width) = (batch.height, batch.width);
        let mut longest = pixels * FIRST_CHANNELS;
        for block in &mut self.blocks {
            block.input.resize(pixels * block.part.inputs);
            height = (height - 1) / block.part.stride + 1;
            width = (width - 1) / block.part.stride + 1;
            longest = longest.max(pixels * block.part.inputs);
            pixels = batch.labels.len() * height * width;
            longest = longest.max(pixels * block.part.outputs);
            block.inner.resize(pixels * block.part.outputs);
        }
        self.last.resize(pixels * self.layout.channels);
        for gradient in &mut self.gradients {
            gradient.resize(longest);
        }
    }

    /// Up to the last block. Says whether all normalisations are finite.
    fn forward(&mut self, parameters: &[f32], batch: Batch<'_>) -> bool {
        let Self {
            layout,
            blocks,
            norm,
            sums,
            last,
            gradients: [spare, ..],
            convolver,
            lowering,
            ..
        } = self;
        let count = batch.labels.len();
        let (mut height, mut width) = (batch.height, batch.width);
        let mut finite = true;
        let normalise = |norm: &mut Norm, part: &NormPart, sums: &Sums, pixels: usize| {
            let (gamma, beta) = (
                &parameters[part.gamma.clone()],
                &parameters[part.beta.clone()],
            );
            norm.set(sums, pixels, gamma, beta)
        };
        if let Some(first) = blocks.first_mut() {
            let (shape, weights) = (first_shape(batch), &parameters[layout.conv.clone()]);
            let (out, sums) = (&mut first.input, &mut first.sums1);
            lowering.forward(shape, batch.images, None, weights, out, Some(sums));
        }
        for number in 0..blocks.len() {
            let (block, rest) = blocks[number..].split_at_mut(1);
            let Block {
                part,
                norm1,
                norm2,
                sums1,
                sums2,
                input,
                inner,
            } = &mut block[0];
            let (out, out_sums) = match rest.first_mut() {
                Some(next) => (&mut next.input, &mut next.sums1),
                None => (&mut *last, &mut *sums),
            };
            finite &= normalise(norm1, &part.norm1, sums1, count * height * width);
            let act = norm1.activation();
            let shape = part.first_shape(count, height, width);
            let weights = &parameters[part.conv1.clone()];
            let (to, to_sums) = (&mut inner[..], Some(&mut *sums2));
            match part.stride {
                1 => {
                    let g = geometry(&shape);
                    convolver.forward(g, input, Some(act), weights, None, to, to_sums);
                }
                _ => lowering.forward(shape, input, Some(act), weights, to, to_sums),
            }
            let residual = match &part.shortcut {
                None => &input[..],
                Some(weights) => {
                    let (shape, weights) = (shape.shortcut(), &parameters[weights.clone()]);
                    let to = &mut spare[..inner.len()];
                    lowering.forward(shape, input, Some(act), weights, to, None);
                    to
                }
            };
            (height, width) = (shape.out_height(), shape.out_width());
            finite &= normalise(norm2, &part.norm2, sums2, count * height * width);
            convolver.forward(
                part.second_geometry(count, height, width),
                inner,
                Some(norm2.activation()),
                &parameters[part.conv2.clone()],
                Some(residual),
                out,
                Some(out_sums),
            );
        }
        finite & normalise(norm, &layout.norm, sums, count * height * width)
    }

    /// From the head's gradients down to the first convolution.
    fn backward(&mut self, parameters: &[f32], batch: Batch<'_>, gradient: &mut [f32]) {
        let Self {
            isa,
            layout,
            blocks,
            norm,
            head,
            sums,
            last,
            gradients: [outer, inner_gradient, input_gradient],
            convolver,
            lowering,
        } = self;
        let isa = *isa;
        let count = batch.labels.len();
        norm_backward(norm, &layout.norm, sums, parameters, gradient);
        head.backward(
            norm.activation(),
            norm.affine(),
            last,
            &mut outer[..last.len()],
        );

        let sizes: Vec<(usize, usize)> = blocks
            .iter()
            .scan((batch.height, batch.width), |size, block| {
                let before = *size;
                let down = |length: usize| (length - 1) / block.part.stride + 1;
                *size = (down(size.0), down(size.1));
                Some(before)
            })
            .collect();
        for (block, (height, width)) in blocks.iter_mut().zip(sizes).rev() {
            let Block {
                part,
                norm1,
                norm2,
                sums1,
                sums2,
                input,
                inner,
            } = block;
            let shape = part.first_shape(count, height, width);
            let g = part.second_geometry(count, shape.out_height(), shape.out_width());
            let dout = &mut outer[..inner.len()];
            let da2 = &mut inner_gradient[..inner.len()];
            let da1 = &mut input_gradient[..input.len()];

            let act = norm2.activation();
            let dy = Gradient::Plain(dout);
            let dw = &mut gradient[part.conv2.clone()];
            convolver.backward_weights(g, inner, Some(act), dy, dw);
            let weights = &parameters[part.conv2.clone()];
            let mask = norm2.mask(inner);
            convolver.backward_data(g, dy, weights, Some(mask), da2, Some(sums2));
            norm_backward(norm2, &part.norm2, sums2, parameters, gradient);

            let affine = norm2.affine();
            let dy = Gradient::Normalised {
                da: da2,
                y: inner,
                a: affine.a,
                b: affine.b,
                c: affine.c,
            };
            let act = norm1.activation();
            let mask = norm1.mask(input);
            let weights = &parameters[part.conv1.clone()];
            let dw = &mut gradient[part.conv1.clone()];
            match (part.stride, &part.shortcut) {
                (1, None) => {
                    let g = geometry(&shape);
                    convolver.backward_weights(g, input, Some(act), dy, dw);
                    convolver.backward_data(g, dy, weights, Some(mask), da1, Some(sums1));
                }
                (1, Some(_)) => {
                    let g = geometry(&shape);
                    convolver.backward_weights(g, input, Some(act), dy, dw);
                    convolver.backward_data(g, dy, weights, None, da1, None);
                }
                _ => {
                    lowering.backward_weights(shape, input, Some(act), dy, dw);
                    let mask = part.shortcut.is_none().then_some(mask);
                    lowering.backward_data(shape, dy, weights, false, mask, da1, sums1);
                }
            }
            if let Some(shortcut) = &part.shortcut {
                let (shape, dy) = (shape.shortcut(), Gradient::Plain(dout));
                let dw = &mut gradient[shortcut.clone()];
                lowering.backward_weights(shape, input, Some(act), dy, dw);
                let weights = &parameters[shortcut.clone()];
                lowering.backward_data(shape, dy, weights, true, Some(mask), da1, sums1);
            }
            norm_backward(norm1, &part.norm1, sums1, parameters, gradient);
            match &part.shortcut {
                None => add_normalised_gradient(isa, norm1.affine(), input, da1, dout),
                Some(_) => {
                    normalised_gradient(isa, norm1.affine(), input, da1);
                    std::mem::swap(outer, input_gradient);
                }
            }
        }
        if let Some(first) = blocks.first() {
            let (shape, dy) = (
                first_shape(batch),
                Gradient::Plain(&outer[..first.input.len()]),
            );
            let dw = &mut gradient[layout.conv.clone()];
            lowering.backward_weights(shape, batch.images, None, dy, dw);
        }
    }
}

/// The parameters' gradients and the coefficients of a normalisation's backward pass.
fn norm_backward(
    norm: &mut Norm,
    part: &NormPart,
    sums: &Sums,
    parameters: &[f32],
    gradient: &mut [f32],
) {
    let both = &mut gradient[part.gamma.start..part.beta.end];
    let (gamma_gradient, beta_gradient) = both.split_at_mut(part.gamma.len());
    let gamma = &parameters[part.gamma.clone()];
    norm.backward(sums, gamma, gamma_gradient, beta_gradient);
}

fn first_shape(batch: Batch<'_>) -> Shape {
    Shape {
        batch: batch.labels.len(),
        height: batch.height,
        width: batch.width,
        inputs: 3,
        outputs: FIRST_CHANNELS,
        kernel: 3,
        stride: 1,
    }
}

impl BlockPart {
    /// Of its first convolution.
    fn first_shape(&self, batch: usize, height: usize, width: usize) -> Shape {
        Shape {
            batch,
            height,
            width,
            inputs: self.inputs,
            outputs: self.outputs,
            kernel: 3,
            stride: self.stride,
        }
    }

    fn second_geometry(&self, batch: usize, height: usize, width: usize) -> Geometry {
        Geometry {
            batch,
            height,
            width,
            inputs: self.outputs,
            outputs: self.outputs,
        }
    }
}

impl Shape {
    /// Of the shortcut beside a first convolution.
    fn shortcut(self) -> Self {
        Self { kernel: 1, ..self }
    }
}

fn geometry(shape: &Shape) -> Geometry {
    Geometry {
        batch: shape.batch,
        height: shape.height,
        width: shape.width,
        inputs: shape.inputs,
        outputs: shape.outputs,
    }
}
