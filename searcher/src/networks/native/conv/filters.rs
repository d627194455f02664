//! The passes that transform weights and their gradients.
//!
//! Weights lie as output x 3 x 3 x input.

#![expect(
    clippy::needless_range_loop,
    reason = "rows of columns are columns of rows"
)]

use std::marker::PhantomData;

use super::format::{Format, Rounding, Single};
use super::lanes::{LANES, Lanes, Narrow, NarrowPass, Pass};
use super::points::{self, POINTS, PRODUCTS};
use super::tiling::{Layout, PANEL};

/// Taps of a filter.
pub(super) const TAPS: usize = 9;

/// Transforms a panel of the weights to the right matrices of the products:
/// product x row (in bf16: pair of rows) x [`PANEL`].
pub(super) struct Filters<'a> {
    pub(super) weights: &'a [f32],
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// For gradients of the input: rows are outputs and columns inputs, and the
    /// filter is turned by half; otherwise rows are inputs and columns outputs.
    pub(super) turned: bool,
    /// First column of the panel.
    pub(super) column: usize,
    pub(super) to: *mut f32,
}

/// Them, held in a format.
pub(super) struct Held<'a, F>(Filters<'a>, PhantomData<F>);

impl<R: Rounding> Pass for Held<'_, Single<R>> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: as the caller promised.
        unsafe { self.0.transform::<L, Single<R>>() }
    }
}

impl<F: Format<Narrow>> NarrowPass for Held<'_, F> {
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: as the caller promised.
        unsafe { self.0.transform::<Narrow, F>() }
    }
}

impl<'a> Filters<'a> {
    pub(super) fn held<F>(self) -> Held<'a, F> {
        Held(self, PhantomData)
    }

    #[inline(always)]
    unsafe fn transform<L: Lanes, F: Format<L>>(self) {
        let Filters {
            weights,
            inputs,
            outputs,
            turned,
            column: first,
            to,
        } = self;
        let (rows, columns) = if turned {
            (outputs, inputs)
        } else {
            (inputs, outputs)
        };
        let from = weights.as_ptr();
        let layout = Layout::filters(rows * F::BYTES / size_of::<f32>());
        for column in (first..columns.min(first + PANEL)).step_by(LANES) {
            for row in 0..rows {
                // SAFETY: the caller's promises; row and columns are within the weights.
                unsafe {
                    let mut taps = [L::splat(0.0); TAPS];
                    for (tap, value) in taps.iter_mut().enumerate() {
                        *value = if turned {
                            let tap = TAPS - 1 - tap;
                            L::load(from.add((row * TAPS + tap) * inputs + column))
                        } else {
                            let mut lanes = [0.0; LANES];
                            for (lane, value) in lanes.iter_mut().enumerate() {
                                *value = *from.add(((column + lane) * TAPS + tap) * inputs + row);
                            }
                            L::load(lanes.as_ptr())
                        };
                    }
                    let half = [
                        points::filter([taps[0], taps[3], taps[6]]),
                        points::filter([taps[1], taps[4], taps[7]]),
                        points::filter([taps[2], taps[5], taps[8]]),
                    ];
                    for y in 0..POINTS {
                        let values = points::filter([half[0][y], half[1][y], half[2][y]]);
                        for (x, value) in values.into_iter().enumerate() {
                            let place = F::place(&layout, row, column - first);
                            F::keep(
                                value,
                                row,
                                to.add((y * POINTS + x) * layout.product + place),
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Adds the chunks of the products' gradients in their order and transforms
/// them to the gradients of an output's filter.
pub(super) struct FilterGradients<'a> {
    /// Chunk x product x panel of inputs x output x [`PANEL`].
    pub(super) chunks: &'a [f32],
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) output: usize,
    /// 3 x 3 x input.
    pub(super) to: &'a mut [f32],
}

impl Pass for FilterGradients<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let FilterGradients {
            chunks,
            inputs,
            outputs,
            output,
            to,
        } = self;
        let product = inputs.div_ceil(PANEL) * outputs * PANEL;
        for input in (0..inputs).step_by(LANES) {
            let place = (input / PANEL * outputs + output) * PANEL + input % PANEL;
            // SAFETY: the caller's promises; output and inputs are within the chunks.
            unsafe {
                let mut sums = [[L::splat(0.0); POINTS]; POINTS];
                for chunk in chunks.chunks_exact(product * PRODUCTS) {
                    for (y, sums) in sums.iter_mut().enumerate() {
                        for (x, sum) in sums.iter_mut().enumerate() {
                            let from = chunk.as_ptr().add((y * POINTS + x) * product + place);
                            *sum = sum.add(L::load(from));
                        }
                    }
                }
                let mut half = [[L::splat(0.0); 3]; POINTS];
                for (x, half) in half.iter_mut().enumerate() {
                    let column = [
                        sums[0][x], sums[1][x], sums[2][x], sums[3][x], sums[4][x], sums[5][x],
                    ];
                    *half = points::filter_adjoint(column);
                }
                for y in 0..3 {
                    let row = [
                        half[0][y], half[1][y], half[2][y], half[3][y], half[4][y], half[5][y],
                    ];
                    let values = points::filter_adjoint(row);
                    for (x, value) in values.into_iter().enumerate() {
                        value.store(to.as_mut_ptr().add((y * 3 + x) * inputs + input));
                    }
                }
            }
        }
    }
}
