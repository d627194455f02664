//! RandAugment and policy v0 of TensorFlow's EfficientNet (tensorflow/tpu,
//! `models/official/efficientnet/autoaugment.py`).
//!
//! Levels are on a scale of 10 and not limited. Nearest neighbours, grey
//! (128, 128, 128) outside; Solarize and Posterize get weaker as the level grows.

use super::operations::{
    ENHANCERS, Enhancer, added_below, cutout_centered, rotate, shear_x, shear_y, tidy, translate_x,
    translate_y,
};
use super::{Definition, equal};
use crate::operation::Operation;
use crate::operation_arguments::{Extent, Interpolation, SignRule, Warp};
use crate::{Entry, Result, Step};

/// The policy v0 of AutoAugment on ImageNet: pairs of kind, probability and level, by the names of the kinds that are in
/// scope where it stands. timm has the same table for kinds of its own, of which one is named otherwise.
macro_rules! v0_pairs {
    ($translate_y:ident) => {
        [
            [(Equalize, 0.8, 1), (ShearY, 0.8, 4)],
            [(COLOR, 0.4, 9), (Equalize, 0.6, 3)],
            [(COLOR, 0.4, 1), (Rotate, 0.6, 8)],
            [(Solarize, 0.8, 3), (Equalize, 0.4, 7)],
            [(Solarize, 0.4, 2), (Solarize, 0.6, 2)],
            [(COLOR, 0.2, 0), (Equalize, 0.8, 8)],
            [(Equalize, 0.4, 8), (SolarizeAdd, 0.8, 3)],
            [(ShearX, 0.2, 9), (Rotate, 0.6, 8)],
            [(COLOR, 0.6, 1), (Equalize, 1.0, 2)],
            [(Invert, 0.4, 9), (Rotate, 0.6, 0)],
            [(Equalize, 1.0, 9), (ShearY, 0.6, 3)],
            [(COLOR, 0.4, 7), (Equalize, 0.6, 0)],
            [(Posterize, 0.4, 6), (AutoContrast, 0.4, 7)],
            [(Solarize, 0.6, 8), (COLOR, 0.6, 9)],
            [(Solarize, 0.2, 4), (Rotate, 0.8, 9)],
            [(Rotate, 1.0, 7), ($translate_y, 0.8, 9)],
            [(ShearX, 0.0, 0), (Solarize, 0.8, 4)],
            [(ShearY, 0.8, 0), (COLOR, 0.6, 4)],
            [(COLOR, 1.0, 0), (Rotate, 0.6, 2)],
            [(Equalize, 0.8, 4), (Equalize, 0.0, 8)],
            [(Equalize, 1.0, 4), (AutoContrast, 0.6, 2)],
            [(ShearY, 0.4, 7), (SolarizeAdd, 0.6, 7)],
            // Level 2 keeps no bit: a black image.
            [(Posterize, 0.8, 2), (Solarize, 0.6, 10)],
            [(Solarize, 0.6, 8), (Equalize, 0.6, 1)],
            [(COLOR, 0.8, 6), (Rotate, 0.4, 5)],
        ]
    };
}
pub(super) use v0_pairs;

const GREY: Warp = Warp {
    fill: [128; 3],
    interpolation: Interpolation::Nearest,
};

#[derive(Clone, Copy)]
enum Kind {
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    Solarize,
    SolarizeAdd,
    Enhance(Enhancer),
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Cutout,
}

/// `translate` and `cutout` are pixels at full level; they differ between AutoAugment and RandAugment.
fn at_level(kind: Kind, level: u32, translate: f64, cutout: f64) -> Operation {
    let to = |full: f64| f64::from(level) / 10.0 * full;
    match kind {
        Kind::AutoContrast => Operation::AutoContrast,
        Kind::Equalize => Operation::Equalize,
        Kind::Invert => Operation::Invert,
        Kind::Rotate => rotate(to(30.0), GREY),
        // From eight bits on nothing changes.
        Kind::Posterize => Operation::Posterize {
            bits: (to(4.0) as u8).min(8),
        },
        Kind::Solarize => Operation::Solarize {
            threshold: to(256.0).trunc(),
        },
        // From 255 on everything below the threshold is white.
        Kind::SolarizeAdd => added_below((to(110.0) as i32).min(255)),
        Kind::Enhance(enhancer) => enhancer.by(tidy(to(1.8) + 0.1), SignRule::Fixed),
        Kind::ShearX => shear_x(tidy(to(0.3)), GREY),
        Kind::ShearY => shear_y(tidy(to(0.3)), GREY),
        Kind::TranslateX => translate_x(Extent::Pixels(to(translate)), GREY),
        Kind::TranslateY => translate_y(Extent::Pixels(to(translate)), GREY),
        // The constant is half a side.
        Kind::Cutout => cutout_centered(2.0 * to(cutout).trunc(), [128; 3]),
    }
}

pub(super) fn randaugment(draws: u32, magnitude: u32) -> Definition {
    use Kind::*;
    let mut kinds = vec![AutoContrast, Equalize, Invert, Rotate, Posterize, Solarize];
    kinds.extend(ENHANCERS.map(Enhance));
    kinds.extend([ShearX, ShearY, TranslateX, TranslateY, Cutout, SolarizeAdd]);
    let operations = kinds
        .into_iter()
        .map(|kind| at_level(kind, magnitude, 100.0, 40.0).into());
    Definition {
        draws,
        entries: equal(operations.collect()),
        source: SOURCE,
    }
}

const SOURCE: (&str, &str) = ("tensorflow/tpu efficientnet", "7dc921f");

pub(super) fn policy_v0() -> Result<Definition> {
    let step = |&(kind, probability, level): &(Kind, f64, u32)| {
        Step::new(probability, at_level(kind, level, 250.0, 100.0))
    };
    let pair = |pair: &[(Kind, f64, u32); 2]| {
        Entry::sequence(pair.iter().map(step).collect::<Result<_>>()?)
    };
    Ok(Definition {
        draws: 1,
        entries: equal(V0.iter().map(pair).collect::<Result<_>>()?),
        source: SOURCE,
    })
}

const COLOR: Kind = Kind::Enhance(Enhancer::Color);

const V0: [[(Kind, f64, u32); 2]; 25] = {
    use Kind::*;
    v0_pairs!(TranslateY)
};
