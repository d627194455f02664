//! Mixtures against torchvision's MixUp and CutMix, and by their definition.

use half::{bf16, f16};

use super::*;

const SIDE: usize = 5;
const VALUES: usize = 3 * SIDE * SIDE;

/// Multiples of 1/128 from -500/128 to 500/128: exact in single and half precision.
fn values(salt: u64) -> Vec<f32> {
    (0..VALUES as u64)
        .map(|i| {
            let word = ((i * 2_654_435_761 + salt) % (1 << 32)) >> 8;
            ((word % 1001) as f32 - 500.0) / 128.0
        })
        .collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect()
}

fn format(dtype: Dtype, layout: Layout) -> OutputFormat {
    OutputFormat { dtype, layout }
}

/// 64-bit FNV-1a of both samples, one after the other.
fn hash(first: &[u8], second: &[u8]) -> u64 {
    first
        .iter()
        .chain(second)
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// Hashes of `torchvision.transforms.v2.MixUp` (0.26) on the batch of `values(1)` and `values(77)`, its Beta
/// distribution replaced by the weight given.
#[test]
fn sums_are_those_of_torchvision() {
    let cases = [
        (0.0, 0x2cbd_ab3d_8167_f5e1),
        (0.3, 0x72fa_4542_c99c_841b),
        (0.731_058_578_630_004_9, 0x532a_0b07_cbb1_05fa),
        (1.0, 0xf494_17c3_a0f8_2f91),
    ];
    for layout in Layout::ALL {
        for (weight, expected) in cases {
            let (mut first, mut second) = (bytes(&values(1)), bytes(&values(77)));
            let blend = Blend::sum(weight);
            blend.apply(
                format(Dtype::F32, layout),
                SIDE as u32,
                &mut first,
                &mut second,
            );
            assert_eq!(hash(&first, &second), expected, "weight {weight}");
            assert_eq!(blend.weight(), weight as f32);
        }
    }
}

/// `CutMix.make_params` of torchvision 0.26 with the draws given: ((weight, centre, size), (columns, rows, weight)).
#[test]
fn rectangles_are_those_of_torchvision() {
    let cases = [
        ((0.3, (10, 20), 32), ([0, 23], [7, 32], 0.438_476_562_5)),
        ((0.9, (0, 31), 32), ([0, 5], [26, 32], 0.970_703_125)),
        ((0.0, (16, 16), 32), ([0, 32], [0, 32], 0.0)),
        ((1.0, (5, 5), 32), ([5, 5], [5, 5], 1.0)),
        (
            (0.5, (223, 100), 224),
            ([144, 224], [21, 179], 0.748_086_734_693_877_5),
        ),
        (
            (0.123, (3, 200), 224),
            ([0, 107], [96, 224], 0.727_040_816_326_530_6),
        ),
        (
            (0.75, (112, 112), 225),
            ([56, 168], [56, 168], 0.752_217_283_950_617_3),
        ),
        ((0.9999, (7, 7), 32), ([7, 7], [7, 7], 1.0)),
    ];
    for ((share, center, size), (columns, rows, weight)) in cases {
        let expected = Blend::Rectangle {
            columns,
            rows,
            weight,
        };
        assert_eq!(Blend::rectangle(share, center, size), expected);
    }
    // The whole of torchvision's CutMix: centre (3, 1), a share of one half.
    let (mut first, mut second) = (bytes(&values(1)), bytes(&values(77)));
    let blend = Blend::rectangle(0.5, (3, 1), SIDE as u32);
    let nchw = format(Dtype::F32, Layout::Nchw);
    blend.apply(nchw, SIDE as u32, &mut first, &mut second);
    assert_eq!(hash(&first, &second), 0xfba6_8e82_3271_0f79);
    assert_eq!(blend.weight(), 0.84);
}

/// The layouts hold the same numbers in another order.
#[test]
fn both_layouts_exchange_the_same_pixels() {
    let transpose = |sample: &[u8], width: usize| -> Vec<u8> {
        let pixels = SIDE * SIDE;
        let place = |i: usize| (i % 3 * pixels + i / 3) * width;
        (0..VALUES)
            .flat_map(|i| &sample[place(i)..place(i) + width])
            .copied()
            .collect()
    };
    let blend = Blend::rectangle(0.6, (1, 3), SIDE as u32);
    for dtype in Dtype::ALL {
        let width = dtype.size();
        let make = |salt: u8| -> Vec<u8> {
            (0..VALUES * width)
                .map(|i| (i % 251) as u8 ^ salt)
                .collect()
        };
        let (mut a, mut b) = (make(0), make(0x80));
        let (mut a_last, mut b_last) = (transpose(&a, width), transpose(&b, width));
        let apply = |layout, a: &mut Vec<u8>, b: &mut Vec<u8>| {
            blend.apply(format(dtype, layout), SIDE as u32, a, b);
        };
        apply(Layout::Nchw, &mut a, &mut b);
        apply(Layout::Nhwc, &mut a_last, &mut b_last);
        assert_ne!(a, make(0));
        assert_eq!(
            (transpose(&a, width), transpose(&b, width)),
            (a_last, b_last)
        );
    }
}

/// Every pair of levels: within half a level of the exact sum, and the two sums add up.
#[test]
fn levels_are_rounded_to_the_nearest() {
    let size = 148; // 3 * 148 * 148 = 65,712 values, room for all 65,536 pairs
    let count = 3 * size * size;
    for weight in [0.0, 1e-4, 0.123, 0.5, 0.7, 0.999, 1.0] {
        let a: Vec<u8> = (0..count).map(|i| i as u8).collect();
        let b: Vec<u8> = (0..count).map(|i| (i >> 8) as u8).collect();
        let (mut first, mut second) = (a.clone(), b.clone());
        Blend::sum(weight).apply(
            format(Dtype::U8, Layout::Nchw),
            size as u32,
            &mut first,
            &mut second,
        );
        for i in 0..count {
            let (a, b) = (f64::from(a[i]), f64::from(b[i]));
            let (x, y) = (
                weight * a + (1.0 - weight) * b,
                weight * b + (1.0 - weight) * a,
            );
            assert!(
                (f64::from(first[i]) - x).abs() <= 0.52,
                "{a} {b} {weight} {}",
                first[i]
            );
            assert!(
                (f64::from(second[i]) - y).abs() <= 0.52,
                "{a} {b} {weight} {}",
                second[i]
            );
        }
        if weight == 0.0 || weight == 1.0 {
            let whole = if weight == 1.0 { (a, b) } else { (b, a) };
            assert!((first, second) == whole, "weight {weight}");
        }
    }
}

/// The half-width types are the sums in single precision, rounded once.
#[test]
fn half_width_sums_are_rounded_once() {
    const SIDE: usize = 20; // more than one piece of values
    let count = 3 * SIDE * SIDE;
    let value = |i: usize, salt: usize| ((i * 7919 + salt) % 4001) as f32 / 512.0 - 3.9;
    for weight in [0.0f64, 0.37, 0.811, 1.0] {
        let (own, other) = (weight as f32, (1.0 - weight) as f32);
        let check = |dtype, encode: &dyn Fn(f32) -> [u8; 2], decode: &dyn Fn([u8; 2]) -> f32| {
            let make =
                |salt| -> Vec<u8> { (0..count).flat_map(|i| encode(value(i, salt))).collect() };
            let (a, b) = (make(1), make(1234));
            let (mut first, mut second) = (a.clone(), b.clone());
            Blend::sum(weight).apply(
                format(dtype, Layout::Nhwc),
                SIDE as u32,
                &mut first,
                &mut second,
            );
            for i in (0..2 * count).step_by(2) {
                let (a, b) = (decode([a[i], a[i + 1]]), decode([b[i], b[i + 1]]));
                assert_eq!([first[i], first[i + 1]], encode(b * other + a * own));
                assert_eq!([second[i], second[i + 1]], encode(a * other + b * own));
            }
        };
        check(
            Dtype::F16,
            &|value| f16::from_f32(value).to_ne_bytes(),
            &|bytes| f16::from_ne_bytes(bytes).to_f32(),
        );
        check(
            Dtype::Bf16,
            &|value| bf16::from_f32(value).to_ne_bytes(),
            &|bytes| bf16::from_ne_bytes(bytes).to_f32(),
        );
    }
}

/// Conversions against those of the crate `half`: every half, and single-precision numbers about every rounding.
#[test]
fn halves_are_converted_as_ieee_says() {
    for bits in 0..=u16::MAX {
        let half = f16::from_bits(bits);
        if half.is_finite() {
            let value = widen(bits.to_ne_bytes());
            assert_eq!(value.to_bits(), half.to_f32().to_bits());
            // Numbers near some of them, in steps that are no multiple of the rounding's.
            let steps = if bits % 61 == 0 { 5000 } else { 0 };
            for step in -steps..=steps {
                let near = f32::from_bits(value.to_bits().wrapping_add_signed(step * 37));
                if near.is_finite() {
                    let expected = f16::from_f32(near);
                    assert_eq!(narrow(near), expected.to_ne_bytes(), "{near:e}");
                }
            }
            assert_eq!(narrow(value), bits.to_ne_bytes());
        }
    }
    for value in [
        0.0,
        65_504.0,
        65_519.9,
        65_520.0,
        1e30,
        f32::MAX,
        2.9e-8,
        3.0e-8,
        f32::MIN_POSITIVE,
    ] {
        for value in [value, -value] {
            assert_eq!(
                narrow(value),
                f16::from_f32(value).to_ne_bytes(),
                "{value:e}"
            );
        }
    }
}

#[test]
#[should_panic(expected = "samples of 75 bytes, not 74 and 75")]
fn samples_of_another_size_are_refused() {
    let (mut first, mut second) = (vec![0; 74], vec![0; 75]);
    Blend::sum(0.5).apply(
        format(Dtype::U8, Layout::Nchw),
        SIDE as u32,
        &mut first,
        &mut second,
    );
}
