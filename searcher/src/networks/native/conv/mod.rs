//! Convolutions of 3 x 3, stride 1 and padding 1 by Winograd's F(4x4, 3x3): a
//! quarter of the multiplications of the definition (see [`points`]).
//!
//! Images are batch x height x width x channel, weights output x 3 x 3 x input,
//! all f32; channels come in multiples of 16. A call cuts the tiles of its
//! images into blocks whose products fit the second cache, and works through
//! the blocks on the threads of the pool it runs in: transform the inputs,
//! multiply by the transformed weights, one small matrix product per point,
//! transform back. What comes before a convolution in the network is done as
//! its input is read, and what comes after as its output is written.
//!
//! Blocks and chunks are cut by shape alone and sums added in their order: the
//! results do not depend on the number of threads.

#![allow(unsafe_code)]

mod filters;
mod format;
mod lanes;
mod points;
mod product;
mod read;
mod scratch;
mod stages;
#[cfg(test)]
mod tests;
mod tiling;
mod write;

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

use self::format::Operands;
pub(super) use self::lanes::Isa;
use self::lanes::{LANES, has_bf16, run};
use self::points::PRODUCTS;
use self::product::{Ahead, Left, Products, ROWS};
pub(super) use self::scratch::Aligned;
use self::scratch::PerThread;
use self::stages::{Finishing, Held, Input, Shared, Target, ahead, multiply, transform};
use self::tiling::{Layout, PANEL, Tiling};

/// Shape of a convolution of 3 x 3, stride 1, padding 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Images.
    pub(super) batch: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Channels of the input, a multiple of 16.
    pub(super) inputs: usize,
    /// Channels of the output, a multiple of 16.
    pub(super) outputs: usize,
}

/// How a convolution's input is read: as relu(`scale` x + `shift`), one of each
/// per channel. What lies outside the image counts as 0 after that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Activation<'a> {
    pub(super) scale: &'a [f32],
    pub(super) shift: &'a [f32],
}

/// The gradient of a convolution's output.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gradient<'a> {
    /// As it is.
    Plain(&'a [f32]),
    /// `a` da + `b` y + `c`, one of each per channel. What lies outside the
    /// image counts as 0 after that.
    Normalised {
        da: &'a [f32],
        y: &'a [f32],
        a: &'a [f32],
        b: &'a [f32],
        c: &'a [f32],
    },
}

/// Where a gradient passes: where `scale` x + `shift` is above 0. The mean and
/// the inverse standard deviation of x are for the sums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask<'a> {
    pub(super) x: &'a [f32],
    pub(super) scale: &'a [f32],
    pub(super) shift: &'a [f32],
    pub(super) mean: &'a [f32],
    pub(super) rstd: &'a [f32],
}

/// Two sums per channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sums {
    pub(super) first: Vec<f64>,
    pub(super) second: Vec<f64>,
}

/// Convolves; keeps the memory that it needs between calls.
///
/// The functions run on the pool of threads they are called in. Slices have the
/// lengths that the geometry says, which is checked.
#[derive(Debug)]
pub(super) struct Convolver {
    isa: Isa,
    operands: Operands,
    /// Transformed weights.
    weights: Aligned,
    /// Gradients of the transformed weights, a set per chunk.
    chunks: Aligned,
    /// Two sums per channel and block.
    sums: Aligned,
    scratch: PerThread,
}

/// Numbers that the two matrices of a block may take: they and what is fetched
/// ahead meanwhile should about fit the second cache.
const BLOCK_NUMBERS: usize = 300 * 1024;
/// Fewest tiles of a block, and most of an image's and of a weight's gradient.
const FEWEST: usize = 16;
const MOST: usize = 32;
const MOST_OF_GRADIENT: usize = 48;
/// Numbers that the chunks of a weight's gradient may take together.
const CHUNK_NUMBERS: usize = 2400 << 10;
/// Outputs of so many numbers are stored past the caches.
const STREAM_NUMBERS: usize = 6 << 20;

/// The three passes of a 3x3 convolution of stride 1 and padding 1: [`Convolver`]'s, or those by
/// definition in tests. Sums must have the right length; they are overwritten.
pub(super) trait Convolve {
    /// `out = conv(act(x)) (+ residual)`; sums of `out` and of its squares when asked.
    #[expect(clippy::too_many_arguments, reason = "all that is fused into the pass")]
    fn forward(
        &mut self,
        g: Geometry,
        x: &[f32],
        act: Option<Activation<'_>>,
        weights: &[f32],
        residual: Option<&[f32]>,
        out: &mut [f32],
        sums: Option<&mut Sums>,
    );

    /// The gradient with respect to the input as it is read, 0 where `mask` does not let it pass;
    /// sums of it and of its products with the normalised input when asked (then with a mask).
    fn backward_data(
        &mut self,
        g: Geometry,
        dy: Gradient<'_>,
        weights: &[f32],
        mask: Option<Mask<'_>>,
        da: &mut [f32],
        sums: Option<&mut Sums>,
    );

    /// The gradient with respect to the weights, overwriting `dw`.
    fn backward_weights(
        &mut self,
        g: Geometry,
        x: &[f32],
        act: Option<Activation<'_>>,
        dy: Gradient<'_>,
        dw: &mut [f32],
    );
}

#[cfg(test)]
impl Default for Convolver {
    fn default() -> Convolver {
        let fastest = Isa::available().into_iter().last();
        Convolver::new(fastest.unwrap_or(Isa::Portable))
    }
}

impl Convolve for Convolver {
    fn forward(
        &mut self,
        geometry: Geometry,
        x: &[f32],
        activation: Option<Activation>,
        weights: &[f32],
        residual: Option<&[f32]>,
        out: &mut [f32],
        sums: Option<&mut Sums>,
    ) {
        geometry.check(x, out, weights);
        if let Some(residual) = residual {
            assert_eq!(residual.len(), out.len());
        }
        let input = Input::activated(x, activation, geometry.inputs);
        self.transform_weights(geometry, weights, false);
        let finish = residual.map_or(Finishing::Squared, Finishing::Added);
        self.convolve(
            geometry.shape(),
            (geometry.inputs, geometry.outputs),
            input,
            finish,
            out,
        );
        self.add_sums(geometry.outputs, sums);
    }

    fn backward_data(
        &mut self,
        geometry: Geometry,
        dy: Gradient,
        weights: &[f32],
        mask: Option<Mask>,
        da: &mut [f32],
        sums: Option<&mut Sums>,
    ) {
        let input = Input::gradient(dy, geometry.outputs);
        geometry.check(da, input.values(), weights);
        let finish = mask.map_or(Finishing::Squared, |mask| {
            assert_eq!(mask.x.len(), da.len());
            for values in [mask.scale, mask.shift, mask.mean, mask.rstd] {
                assert_eq!(values.len(), geometry.inputs);
            }
            Finishing::Masked(mask)
        });
        self.transform_weights(geometry, weights, true);
        self.convolve(
            geometry.shape(),
            (geometry.outputs, geometry.inputs),
            input,
            finish,
            da,
        );
        self.add_sums(geometry.inputs, sums);
    }

    fn backward_weights(
        &mut self,
        geometry: Geometry,
        x: &[f32],
        activation: Option<Activation>,
        dy: Gradient,
        dw: &mut [f32],
    ) {
        let input = Input::activated(x, activation, geometry.inputs);
        let gradient = Input::gradient(dy, geometry.outputs);
        geometry.check(x, gradient.values(), dw);
        let Geometry {
            batch,
            height,
            width,
            inputs,
            outputs,
        } = geometry;
        let isa = self.isa;
        let tiling = Tiling::new(height, width);
        let all = batch * tiling.per_image();
        let block = tiles_of_block(inputs, outputs, MOST_OF_GRADIENT);
        let product = inputs.div_ceil(PANEL) * outputs * PANEL;
        let most = (CHUNK_NUMBERS / (product * PRODUCTS)).clamp(1, 8);
        // A power of two: as much for each of 2, 4 or 8 threads.
        let chunks = 1 << all.div_ceil(2 * block).min(most).ilog2();
        let per_chunk = all.div_ceil(chunks);
        let chunks = all.div_ceil(per_chunk);
        self.chunks.resize(chunks * product * PRODUCTS);
        self.scratch.prepare();
        let scratch = &self.scratch;
        let operands = self.operands;
        let pairs = operands.per_place();
        let held = Held::new(operands, Held::PairsOfRows);
        let of_x = Layout::panels(block / pairs, inputs);
        let of_dy = Layout::panels(block / pairs, outputs);
        let sets = self.chunks.par_chunks_exact_mut(product * PRODUCTS);
        sets.enumerate().for_each(|(chunk, to)| {
            let mut memory = scratch.get((of_x.product + of_dy.product) * PRODUCTS);
            let (v, m) = memory.split_at_mut(of_x.product * PRODUCTS);
            let first = chunk * per_chunk;
            for start in (first..all.min(first + per_chunk)).step_by(block) {
                let tiles = start..all.min(first + per_chunk).min(start + block);
                input.transform(isa, held, false, inputs, tiling, tiles.clone(), v, of_x);
                gradient.transform(isa, held, true, outputs, tiling, tiles.clone(), m, of_dy);
                let products = Products {
                    products: PRODUCTS,
                    rows: outputs,
                    inner: tiles.len().div_ceil(pairs),
                    columns: inputs,
                    a: Left {
                        from: m.as_ptr(),
                        product: of_dy.product,
                        panel: of_dy.panel,
                        row: 1,
                        column: PANEL,
                    },
                    b: v.as_ptr(),
                    b_product: of_x.product,
                    b_panel: of_x.panel,
                    c: to.as_mut_ptr(),
                    c_product: product,
                    c_panel: outputs * PANEL,
                    accumulate: start != first,
                    ahead: {
                        let next = tiling.pixels(tiles.end..all.min(tiles.end + block));
                        let [x, _] = input.ahead(&next, inputs);
                        let [dy, y] = gradient.ahead(&next, outputs);
                        [x, dy, y, Ahead::NONE]
                    },
                };
                // SAFETY: the machine has `isa`; the layouts are those of the
                // matrices, and `to` takes the products of a chunk.
                unsafe { multiply(isa, operands, products) };
            }
        });
        let chunks = &*self.chunks;
        let outputs_of_dw = dw.par_chunks_exact_mut(filters::TAPS * inputs);
        outputs_of_dw
            .enumerate()
            .with_min_len(8)
            .for_each(|(output, to)| {
                let gradients = filters::FilterGradients {
                    chunks,
                    inputs,
                    outputs,
                    output,
                    to,
                };
                // SAFETY: the machine has `isa`; the lengths fit.
                unsafe { run(isa, gradients) };
            });
    }
}

impl Convolver {
    /// With instructions that the machine has.
    pub(super) fn new(isa: Isa) -> Convolver {
        assert!(
            Isa::available().contains(&isa),
            "the machine does not have {isa:?}"
        );
        Convolver {
            isa,
            operands: Operands::Full,
            weights: Aligned::default(),
            chunks: Aligned::default(),
            sums: Aligned::default(),
            scratch: PerThread::default(),
        }
    }

    /// Multiplies in bf16: transformed inputs, weights and gradients are rounded
    /// to 8 significant bits, their products summed in f32. Images stay f32.
    /// Without instructions for it that takes as long as f32.
    pub(super) fn in_bf16(self) -> Convolver {
        let operands = if has_bf16() && Isa::available().last() == Some(&self.isa) {
            Operands::Pairs
        } else {
            Operands::Rounded
        };
        Convolver { operands, ..self }
    }

    /// As [`Convolver::in_bf16`] where there are no instructions for bf16.
    #[cfg(test)]
    fn rounding_to_bf16(self) -> Convolver {
        Convolver {
            operands: Operands::Rounded,
            ..self
        }
    }

    fn transform_weights(&mut self, geometry: Geometry, weights: &[f32], turned: bool) {
        let Geometry {
            inputs, outputs, ..
        } = geometry;
        let (rows, columns) = if turned {
            (outputs, inputs)
        } else {
            (inputs, outputs)
        };
        let operands = self.operands;
        let pairs = operands.per_place();
        self.weights
            .resize(columns.div_ceil(PANEL) * PRODUCTS * rows / pairs * PANEL);
        let isa = self.isa;
        let panels = self
            .weights
            .par_chunks_exact_mut(PRODUCTS * rows / pairs * PANEL);
        panels.enumerate().for_each(|(panel, to)| {
            let to = to.as_mut_ptr();
            let column = panel * PANEL;
            let filters = filters::Filters {
                weights,
                inputs,
                outputs,
                turned,
                column,
                to,
            };
            // SAFETY: the machine has `isa`; `to` takes the rows of a panel.
            unsafe { transform(isa, operands, filters) };
        });
    }

    /// Reads `from` channels, writes `to` channels and the sums of the blocks.
    fn convolve(
        &mut self,
        (batch, height, width): (usize, usize, usize),
        (from, to): (usize, usize),
        input: Input,
        finish: Finishing,
        out: &mut [f32],
    ) {
        let isa = self.isa;
        let tiling = Tiling::new(height, width);
        let all = batch * tiling.per_image();
        let block = tiles_of_block(from, to, MOST);
        let blocks = all.div_ceil(block);
        self.sums.resize(blocks * 2 * to);
        self.scratch.prepare();
        let (scratch, weights) = (&self.scratch, &*self.weights);
        let operands = self.operands;
        let pairs = operands.per_place();
        let held = Held::new(operands, Held::PairsOfChannels);
        let of_v = Layout::rows(block, from / pairs);
        let of_m = Layout::panels(block, to);
        let stream = out.len() >= STREAM_NUMBERS && out.as_ptr().addr().is_multiple_of(64);
        let out = Shared(out.as_mut_ptr());
        let sums = self.sums.par_chunks_exact_mut(2 * to);
        (0..blocks)
            .into_par_iter()
            .zip(sums)
            .for_each(|(index, sums)| {
                let mut memory = scratch.get((of_v.product + of_m.product) * PRODUCTS);
                let (v, m) = memory.split_at_mut(of_v.product * PRODUCTS);
                let tiles = index * block..all.min((index + 1) * block);
                input.transform(isa, held, false, from, tiling, tiles.clone(), v, of_v);
                let products = Products {
                    products: PRODUCTS,
                    // Rows past the last tile hold what was there before.
                    rows: tiles.len().next_multiple_of(ROWS),
                    inner: from / pairs,
                    columns: to,
                    a: Left {
                        from: v.as_ptr(),
                        product: of_v.product,
                        panel: PANEL * of_v.tile,
                        row: of_v.tile,
                        column: 1,
                    },
                    b: weights.as_ptr(),
                    b_product: from / pairs * PANEL,
                    b_panel: PRODUCTS * from / pairs * PANEL,
                    c: m.as_mut_ptr(),
                    c_product: of_m.product,
                    c_panel: of_m.panel,
                    accumulate: false,
                    ahead: {
                        let next = tiling.pixels(tiles.end..all.min(tiles.end + block));
                        let [first, second] = input.ahead(&next, from);
                        let here = tiling.pixels(tiles.clone());
                        let third = finish.ahead(&here, to);
                        let fourth = if stream {
                            Ahead::NONE
                        } else {
                            ahead(out.0, &here, to)
                        };
                        [first, second, third, fourth]
                    },
                };
                // SAFETY: the machine has `isa`; the layouts are those of the matrices.
                unsafe { multiply(isa, operands, products) };
                let target = Target {
                    channels: to,
                    tiling,
                    tiles,
                    stream,
                    out: &out,
                };
                finish.write(isa, target, m, of_m, sums);
            });
    }

    fn add_sums(&self, channels: usize, sums: Option<&mut Sums>) {
        let Some(sums) = sums else { return };
        for (to, which) in [(&mut sums.first, 0), (&mut sums.second, 1)] {
            to.clear();
            to.resize(channels, 0.0);
            for block in self.sums.chunks_exact(2 * channels) {
                let block = &block[which * channels..][..channels];
                to.iter_mut()
                    .zip(block)
                    .for_each(|(to, &sum)| *to += f64::from(sum));
            }
        }
    }
}

impl Geometry {
    fn shape(&self) -> (usize, usize, usize) {
        (self.batch, self.height, self.width)
    }

    fn check(&self, input: &[f32], output: &[f32], weights: &[f32]) {
        let Geometry {
            batch,
            height,
            width,
            inputs,
            outputs,
        } = *self;
        assert!(
            batch > 0 && height > 0 && width > 0 && inputs > 0 && outputs > 0,
            "{self:?}"
        );
        assert!(
            inputs.is_multiple_of(LANES) && outputs.is_multiple_of(LANES),
            "{self:?}"
        );
        assert_eq!(input.len(), batch * height * width * inputs);
        assert_eq!(output.len(), batch * height * width * outputs);
        assert_eq!(weights.len(), outputs * filters::TAPS * inputs);
    }
}

/// Tiles whose products are computed at a time, a multiple of [`ROWS`], at most `most`.
fn tiles_of_block(inputs: usize, outputs: usize, most: usize) -> usize {
    let tiles = BLOCK_NUMBERS / (PRODUCTS * (inputs + outputs));
    (tiles / ROWS * ROWS).clamp(FEWEST, most)
}
