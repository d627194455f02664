//! Every version of every kernel against the plain one.

use ddas_formats::{
    CutoutShape, Extent, Interpolation, Operation, Rounding, SignRule, SolarizeScope, Warp,
};

use super::Kernels;
use super::test_images::Kind;
use crate::cpu::{Cpu, on_every_cpu};
use crate::image::Image;

/// Widths around the lengths of vectors, in pixels, and shapes without room
/// for a kernel or a vector.
const SIZES: [(u32, u32); 22] = [
    (0, 0),
    (1, 1),
    (1, 2),
    (2, 1),
    (3, 1),
    (1, 40),
    (5, 3),
    (7, 7),
    (8, 9),
    (15, 4),
    (16, 16),
    (17, 33),
    (21, 5),
    (22, 6),
    (32, 32),
    (33, 12),
    (43, 8),
    (64, 64),
    (65, 21),
    (97, 64),
    (700, 3),
    (3, 700),
];

fn operations() -> Vec<Operation> {
    let sign = SignRule::Fixed;
    let mut operations = vec![
        Operation::FlipLR,
        Operation::FlipUD,
        Operation::AutoContrast,
        Operation::Equalize,
        Operation::Invert,
        Operation::Blur,
        Operation::Smooth,
        Operation::Rotate90,
        Operation::Rotate180,
        Operation::Posterize { bits: 3 },
        Operation::Solarize { threshold: 103.0 },
        Operation::SolarizeAdd {
            add: 77,
            threshold: 128,
            scope: SolarizeScope::Below,
        },
        Operation::SolarizeAdd {
            add: -77,
            threshold: 256,
            scope: SolarizeScope::Below,
        },
        Operation::SolarizeAdd {
            add: 77,
            threshold: 128,
            scope: SolarizeScope::All,
        },
        Operation::GaussianBlur { radius: 0.3 },
        Operation::GaussianBlur { radius: 2.0 },
        Operation::GaussianBlur { radius: 30.0 },
        Operation::CropBilinear { pixels: 3 },
        Operation::Cutout {
            size: Extent::Pixels(7.0),
            shape: CutoutShape::Centered,
            fill: [1, 2, 3],
        },
    ];
    for factor in [
        0.0,
        0.1,
        0.46,
        0.999_999_9,
        1.000_000_1,
        1.36,
        1.9,
        5.14,
        -0.7,
        -3.0,
        300.5,
        1e-30,
        1e38,
        f64::MAX,
        f64::NEG_INFINITY,
        f64::NAN,
    ] {
        operations.push(Operation::Color { factor, sign });
        operations.push(Operation::Contrast { factor, sign });
        operations.push(Operation::Brightness { factor, sign });
        operations.push(Operation::Sharpness { factor, sign });
    }
    let fill = [9, 200, 30];
    for interpolation in [
        Interpolation::Nearest,
        Interpolation::Bilinear,
        Interpolation::Bicubic,
    ] {
        let warp = Warp {
            fill,
            interpolation,
        };
        for degrees in [0.3, 18.0, 45.0, 90.0, 135.0, 180.0, 270.0, 359.0, -77.7] {
            operations.push(Operation::Rotate {
                degrees,
                sign,
                warp,
            });
        }
        for shear in [0.05, 0.3, -0.3, 0.99, -1.0, 3.7, 200.0, 40_000.0] {
            operations.push(Operation::ShearX { shear, sign, warp });
            operations.push(Operation::ShearY { shear, sign, warp });
        }
        for pixels in [6.0, -6.0, 0.4, -0.7, 31.5, 1e6] {
            let (offset, rounding) = (Extent::Pixels(pixels), Rounding::None);
            operations.push(Operation::TranslateX {
                offset,
                rounding,
                sign,
                warp,
            });
            operations.push(Operation::TranslateY {
                offset,
                rounding,
                sign,
                warp,
            });
        }
    }
    operations
}

#[test]
fn every_version_gives_the_same_bytes() {
    let operations = operations();
    for (width, height) in SIZES {
        for kind in [Kind::Random, Kind::LowContrast, Kind::Gradient] {
            let image =
                Image::from_rgb(width, height, kind.pixels(width, height)).expect("whole pixels");
            let mut expected = Vec::new();
            on_every_cpu(|cpu| {
                let mut kernels = Kernels::default();
                let mut written = Image::default();
                let center = (f64::from(width / 3), f64::from(height / 2));
                for (i, operation) in operations.iter().enumerate() {
                    let mut changed = image.clone();
                    kernels.apply(operation, Some(center), &mut changed);
                    kernels.apply_to(operation, Some(center), &image, &mut written);
                    assert!(written == changed, "{operation:?} into another image");
                    if cpu == Cpu::Baseline {
                        expected.push(changed);
                    } else {
                        assert!(
                            changed == expected[i],
                            "{operation:?} of {kind:?} {width}x{height} on {cpu:?}"
                        );
                    }
                }
            });
        }
    }
}
