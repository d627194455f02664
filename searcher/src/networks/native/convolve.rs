//! What the network asks of its 3x3 convolutions of stride 1.

use super::conv::Convolver;
pub(super) use super::conv::{Activation, Geometry, Gradient, Mask, Sums};
use super::isa::Isa;
use crate::networks::Precision;

/// The three passes of a 3x3 convolution of stride 1 and padding 1: [`Convolver`]'s, or those by
/// definition in tests. Sums must have the right length; they are overwritten.
pub(super) trait Convolve {
    /// `out = conv(act(x)) (+ residual)`; sums of `out` and of its squares when asked.
    #[allow(clippy::too_many_arguments)]
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

impl Convolve for Convolver {
    fn forward(
        &mut self,
        g: Geometry,
        x: &[f32],
        act: Option<Activation<'_>>,
        weights: &[f32],
        residual: Option<&[f32]>,
        out: &mut [f32],
        sums: Option<&mut Sums>,
    ) {
        Convolver::forward(self, g, x, act, weights, residual, out, sums);
    }

    fn backward_data(
        &mut self,
        g: Geometry,
        dy: Gradient<'_>,
        weights: &[f32],
        mask: Option<Mask<'_>>,
        da: &mut [f32],
        sums: Option<&mut Sums>,
    ) {
        Convolver::backward_data(self, g, dy, weights, mask, da, sums);
    }

    fn backward_weights(
        &mut self,
        g: Geometry,
        x: &[f32],
        act: Option<Activation<'_>>,
        dy: Gradient<'_>,
        dw: &mut [f32],
    ) {
        Convolver::backward_weights(self, g, x, act, dy, dw);
    }
}

/// The fastest that the instructions allow; they must allow bf16 where it is wanted.
pub(super) fn convolver(isa: Isa, precision: Precision) -> Box<dyn Convolve + Send> {
    #[cfg(target_arch = "x86_64")]
    let isa = match isa {
        Isa::Avx2 => super::conv::Isa::Avx2,
        Isa::Avx512 => super::conv::Isa::Avx512,
    };
    #[cfg(not(target_arch = "x86_64"))]
    let isa = match isa {
        Isa::Avx2 | Isa::Avx512 => super::conv::Isa::Portable,
    };
    let convolver = Convolver::new(isa);
    Box::new(match precision {
        Precision::F32 => convolver,
        Precision::Bf16 => convolver.in_bf16(),
    })
}

/// Zeros for so many channels.
pub(super) fn sums(channels: usize) -> Sums {
    Sums {
        first: vec![0.0; channels],
        second: vec![0.0; channels],
    }
}
