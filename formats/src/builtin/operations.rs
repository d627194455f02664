//! Short ways to write operations down.

use crate::operation::Operation;
use crate::operation_arguments::{
    CutoutShape, Extent, Interpolation, Rounding, SignRule, SolarizeScope, Warp,
};

/// A kind that is written with one real number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enhancer {
    Color,
    Contrast,
    Brightness,
    Sharpness,
}

pub(super) const ENHANCERS: [Enhancer; 4] = [
    Enhancer::Color,
    Enhancer::Contrast,
    Enhancer::Brightness,
    Enhancer::Sharpness,
];

impl Enhancer {
    pub(super) fn by(self, factor: f64, sign: SignRule) -> Operation {
        match self {
            Enhancer::Color => Operation::Color { factor, sign },
            Enhancer::Contrast => Operation::Contrast { factor, sign },
            Enhancer::Brightness => Operation::Brightness { factor, sign },
            Enhancer::Sharpness => Operation::Sharpness { factor, sign },
        }
    }
}

/// Nearest neighbours, black outside.
pub(super) const BLACK: Warp = Warp {
    fill: [0; 3],
    interpolation: Interpolation::Nearest,
};

pub(super) fn rotate(degrees: f64, warp: Warp) -> Operation {
    Operation::Rotate {
        degrees,
        sign: SignRule::Random,
        warp,
    }
}

pub(super) fn shear_x(shear: f64, warp: Warp) -> Operation {
    Operation::ShearX {
        shear,
        sign: SignRule::Random,
        warp,
    }
}

pub(super) fn shear_y(shear: f64, warp: Warp) -> Operation {
    Operation::ShearY {
        shear,
        sign: SignRule::Random,
        warp,
    }
}

pub(super) fn translate_x(offset: Extent, warp: Warp) -> Operation {
    Operation::TranslateX {
        offset,
        rounding: Rounding::None,
        sign: SignRule::Random,
        warp,
    }
}

pub(super) fn translate_y(offset: Extent, warp: Warp) -> Operation {
    Operation::TranslateY {
        offset,
        rounding: Rounding::None,
        sign: SignRule::Random,
        warp,
    }
}

/// To 12 decimals: 0.46, not 0.45999999999999996, in the policy file.
pub(super) fn tidy(value: f64) -> f64 {
    (value * 1e12).round() / 1e12
}

/// The translation to whole pixels, towards zero.
pub(super) fn truncated(mut operation: Operation) -> Operation {
    if let Operation::TranslateX { rounding, .. } | Operation::TranslateY { rounding, .. } =
        &mut operation
    {
        *rounding = Rounding::Truncate;
    }
    operation
}

pub(super) fn added_below(add: i32) -> Operation {
    Operation::SolarizeAdd {
        add,
        threshold: 128,
        scope: SolarizeScope::Below,
    }
}

pub(super) fn added_everywhere(add: i32) -> Operation {
    Operation::SolarizeAdd {
        add,
        threshold: 128,
        scope: SolarizeScope::All,
    }
}

pub(super) fn cutout_centered(size: f64, fill: [u8; 3]) -> Operation {
    Operation::Cutout {
        size: Extent::Pixels(size),
        shape: CutoutShape::Centered,
        fill,
    }
}

pub(super) fn cutout_rectangle(size: f64, fill: [u8; 3]) -> Operation {
    Operation::Cutout {
        size: Extent::Pixels(size),
        shape: CutoutShape::Rectangle,
        fill,
    }
}
