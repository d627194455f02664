//! The search spaces known by name.

use crate::builtin::torchvision;
use crate::operation::Operation;
use crate::operation_arguments::{CutoutShape, Extent, Rounding, SignRule, Warp};

/// Draws per sample and operations of the search space `name`.
pub(super) fn operations(name: &str) -> Option<(u32, Vec<Operation>)> {
    let operations = match name {
        "paper68" => with_magnitudes(&PAPER_KINDS, &[2, 4, 6, 8, 9]),
        "released52" => with_magnitudes(&CIFAR_KINDS, &[0, 2, 10, 14]),
        "released52-as-run" => with_magnitudes(&CIFAR_KINDS, &[28, 28, 28, 28]),
        "imagenet32" => with_magnitudes(&PAPER_KINDS, &[7, 14]),
        "sanity" => with_magnitudes(&CIFAR_KINDS, &[6])
            .into_iter()
            .map(|operation| match operation {
                Operation::Rotate { .. } => Operation::Rotate90,
                other => other,
            })
            .collect(),
        "randaugment" => torchvision::randaugment(9),
        "trivialaugment-wide" => {
            let operations = torchvision::trivial_augment_wide();
            return Some((
                1,
                operations
                    .into_iter()
                    .map(|(_, operation)| operation)
                    .collect(),
            ));
        }
        _ => return None,
    };
    Some((2, operations))
}

/// Magnitude operations of the authors' CIFAR code, in its order.
const CIFAR_KINDS: [LevelledKind; 11] = [
    LevelledKind::Rotate,
    LevelledKind::Posterize,
    LevelledKind::ShearX,
    LevelledKind::ShearY,
    LevelledKind::TranslateX,
    LevelledKind::TranslateY,
    LevelledKind::Solarize,
    LevelledKind::Color,
    LevelledKind::Contrast,
    LevelledKind::Brightness,
    LevelledKind::Sharpness,
];

/// The same of their ImageNet code: with Cutout after Solarize.
const PAPER_KINDS: [LevelledKind; 12] = [
    LevelledKind::Rotate,
    LevelledKind::Posterize,
    LevelledKind::ShearX,
    LevelledKind::ShearY,
    LevelledKind::TranslateX,
    LevelledKind::TranslateY,
    LevelledKind::Solarize,
    LevelledKind::Cutout,
    LevelledKind::Color,
    LevelledKind::Contrast,
    LevelledKind::Brightness,
    LevelledKind::Sharpness,
];

/// A kind whose argument the authors' code derives from a level on a scale of 10.
#[derive(Clone, Copy)]
enum LevelledKind {
    Rotate,
    Posterize,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Solarize,
    Cutout,
    Color,
    Contrast,
    Brightness,
    Sharpness,
}

/// The eight operations without magnitude, then each of `kinds` at each level.
fn with_magnitudes(kinds: &[LevelledKind], levels: &[i32]) -> Vec<Operation> {
    let mut operations = vec![
        Operation::Identity,
        Operation::FlipLR,
        Operation::FlipUD,
        Operation::AutoContrast,
        Operation::Equalize,
        Operation::Invert,
        Operation::Blur,
        Operation::Smooth,
    ];
    for &kind in kinds {
        operations.extend(levels.iter().map(|&level| at_level(kind, level)));
    }
    operations
}

/// Resolves a level as the authors' `augmentations.py` does; levels beyond 10
/// overshoot the nominal range.
fn at_level(kind: LevelledKind, level: i32) -> Operation {
    let sign = SignRule::Random;
    let warp = Warp::default();
    // Integer division truncates towards zero, as int() does there.
    let whole = |maximum: i32| level * maximum / 10;
    // To 12 decimals: 0.46, not 0.45999999999999996, in the policy file. Far
    // below the float32 step at which kernels use it.
    let real = |maximum: f64| (f64::from(level) * maximum / 10.0 * 1e12).round() / 1e12;
    let factor = ((real(1.8) + 0.1) * 1e12).round() / 1e12;
    let enhance_sign = SignRule::Fixed;
    match kind {
        LevelledKind::Rotate => Operation::Rotate {
            degrees: f64::from(whole(30)),
            sign,
            warp,
        },
        // 0 bits and fewer come out black.
        LevelledKind::Posterize => Operation::Posterize {
            bits: (4 - whole(4)).clamp(0, 8) as u8,
        },
        LevelledKind::ShearX => Operation::ShearX {
            shear: real(0.3),
            sign,
            warp,
        },
        LevelledKind::ShearY => Operation::ShearY {
            shear: real(0.3),
            sign,
            warp,
        },
        LevelledKind::TranslateX => Operation::TranslateX {
            offset: Extent::Pixels(f64::from(whole(10))),
            rounding: Rounding::None,
            sign,
            warp,
        },
        LevelledKind::TranslateY => Operation::TranslateY {
            offset: Extent::Pixels(f64::from(whole(10))),
            rounding: Rounding::None,
            sign,
            warp,
        },
        LevelledKind::Solarize => Operation::Solarize {
            threshold: f64::from(256 - whole(256)),
        },
        LevelledKind::Cutout => Operation::Cutout {
            size: Extent::Pixels(f64::from(whole(20))),
            shape: CutoutShape::Centered,
            fill: [125, 122, 113],
        },
        LevelledKind::Color => Operation::Color {
            factor,
            sign: enhance_sign,
        },
        LevelledKind::Contrast => Operation::Contrast {
            factor,
            sign: enhance_sign,
        },
        LevelledKind::Brightness => Operation::Brightness {
            factor,
            sign: enhance_sign,
        },
        LevelledKind::Sharpness => Operation::Sharpness {
            factor,
            sign: enhance_sign,
        },
    }
}
