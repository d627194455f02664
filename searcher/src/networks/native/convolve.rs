//! The 3x3 convolutions of stride 1 that a network gets.

use super::conv::Convolver;
pub(super) use super::conv::{Activation, Convolve, Geometry, Gradient, Mask, Sums};
use super::isa::Isa;
use crate::networks::Precision;

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
