//! torchvision 0.26: `RandAugment`, `TrivialAugmentWide` and `AutoAugment` (`torchvision/transforms/autoaugment.py`).
//!
//! Strengths are numbered bins of `torch.linspace`, which computes in f32; the
//! values here are those f32 values, so that the same draw makes the same pixels.

use super::operations::{
    BLACK, Enhancer, rotate, shear_x, shear_y, translate_x, translate_y, truncated,
};
use crate::operation::Operation;
use crate::operation_arguments::{Extent, SignRule};
use crate::{Entry, Result, Step};

/// Bins of RandAugment and TrivialAugmentWide.
const BINS: u32 = 31;
/// Bins of AutoAugment.
const AUTO_BINS: u32 = 10;

/// `torch.linspace(first, last, bins)[bin]`: the product and the sum are rounded once, to f32.
fn linspace(first: f64, last: f64, bins: u32, bin: u32) -> f64 {
    let (first, last) = (first as f32, last as f32);
    let step = f64::from((last - first) / (bins - 1) as f32);
    let value = if bin < bins / 2 {
        f64::from(first) + step * f64::from(bin)
    } else {
        f64::from(last) - step * f64::from(bins - 1 - bin)
    };
    f64::from(value as f32)
}

/// The kinds of the three families; what a bin means differs.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
    Invert,
}

const KINDS: [Kind; 14] = [
    Kind::Identity,
    Kind::ShearX,
    Kind::ShearY,
    Kind::TranslateX,
    Kind::TranslateY,
    Kind::Rotate,
    Kind::Brightness,
    Kind::Color,
    Kind::Contrast,
    Kind::Sharpness,
    Kind::Posterize,
    Kind::Solarize,
    Kind::AutoContrast,
    Kind::Equalize,
];

/// `8 - round(bin / ((bins - 1) / steps))`; no tie occurs.
fn posterize_bits(bins: u32, bin: u32, steps: f64) -> u8 {
    8 - (f64::from(bin) / (f64::from(bins - 1) / steps)).round() as u8
}

fn enhance(enhancer: Enhancer, distance: f64) -> Operation {
    enhancer.by(1.0 + distance, SignRule::Random)
}

/// RandAugment and AutoAugment, where all but the number of bins is alike.
fn at_bin(kind: Kind, bins: u32, bin: u32) -> Operation {
    let to = |last: f64| linspace(0.0, last, bins, bin);
    // 150 / 331 of the side, then to whole pixels. torchvision multiplies first and in f32; the
    // last factor makes products that are whole there not come out just below (compared for all
    // sides up to 2048).
    let shift = Extent::Fraction(
        150.0 / 331.0 * f64::from(bin) / f64::from(bins - 1) * (1.0 + 4.0 * f64::EPSILON),
    );
    match kind {
        Kind::Identity => Operation::Identity,
        Kind::ShearX => shear_x(to(0.3), BLACK),
        Kind::ShearY => shear_y(to(0.3), BLACK),
        Kind::TranslateX => truncated(translate_x(shift, BLACK)),
        Kind::TranslateY => truncated(translate_y(shift, BLACK)),
        Kind::Rotate => rotate(to(30.0), BLACK),
        Kind::Brightness => enhance(Enhancer::Brightness, to(0.9)),
        Kind::Color => enhance(Enhancer::Color, to(0.9)),
        Kind::Contrast => enhance(Enhancer::Contrast, to(0.9)),
        Kind::Sharpness => enhance(Enhancer::Sharpness, to(0.9)),
        Kind::Posterize => Operation::Posterize {
            bits: posterize_bits(bins, bin, 4.0),
        },
        Kind::Solarize => Operation::Solarize {
            threshold: linspace(255.0, 0.0, bins, bin),
        },
        Kind::AutoContrast => Operation::AutoContrast,
        Kind::Equalize => Operation::Equalize,
        Kind::Invert => Operation::Invert,
    }
}

/// The 14 operations of RandAugment at `magnitude`, a bin below 31.
pub(crate) fn randaugment(magnitude: u32) -> Vec<Operation> {
    KINDS
        .iter()
        .map(|&kind| at_bin(kind, BINS, magnitude))
        .collect()
}

/// The operations of TrivialAugmentWide, each with its share: 14 kinds at 31
/// bins, where bins that mean the same are one operation.
pub(crate) fn trivial_augment_wide() -> Vec<(f64, Operation)> {
    let wide = |kind: Kind, bin: u32| {
        let to = |last: f64| linspace(0.0, last, BINS, bin);
        match kind {
            Kind::ShearX => shear_x(to(0.99), BLACK),
            Kind::ShearY => shear_y(to(0.99), BLACK),
            Kind::TranslateX => translate_x(Extent::Pixels(to(32.0).trunc()), BLACK),
            Kind::TranslateY => translate_y(Extent::Pixels(to(32.0).trunc()), BLACK),
            Kind::Rotate => rotate(to(135.0), BLACK),
            Kind::Brightness => enhance(Enhancer::Brightness, to(0.99)),
            Kind::Color => enhance(Enhancer::Color, to(0.99)),
            Kind::Contrast => enhance(Enhancer::Contrast, to(0.99)),
            Kind::Sharpness => enhance(Enhancer::Sharpness, to(0.99)),
            Kind::Posterize => Operation::Posterize {
                bits: posterize_bits(BINS, bin, 6.0),
            },
            other => at_bin(other, BINS, bin),
        }
    };
    let mut operations: Vec<(f64, Operation)> = Vec::new();
    let share = 1.0 / f64::from(BINS) / KINDS.len() as f64;
    for kind in KINDS {
        for bin in 0..BINS {
            let operation = wide(kind, bin);
            match operations.last_mut() {
                Some((of, last)) if *last == operation => *of += share,
                _ => operations.push((share, operation)),
            }
        }
    }
    operations
}

/// A step of a sub-policy: kind, probability, bin.
pub(super) type AutoStep = (Kind, f64, u32);

/// The sub-policies of AutoAugment as pairs.
pub(super) fn auto_augment(policy: &[[AutoStep; 2]]) -> Result<super::Weighted> {
    let step =
        |&(kind, probability, bin): &AutoStep| Step::new(probability, at_bin(kind, AUTO_BINS, bin));
    policy
        .iter()
        .map(|pair| {
            let steps = pair.iter().map(step).collect::<Result<_>>()?;
            Ok((1.0, Entry::sequence(steps)?))
        })
        .collect()
}

/// One snapshot of torchvision's behaviour.
pub(super) fn definition(draws: u32, entries: super::Weighted) -> super::Definition {
    super::Definition {
        draws,
        entries,
        source: ("torchvision", "0.26.0"),
    }
}
