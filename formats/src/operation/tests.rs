//! Names, mirroring and ranges.

use super::*;

#[test]
fn kind_names_read_back() {
    for kind in OperationKind::ALL {
        assert_eq!(kind.name().parse::<OperationKind>().unwrap(), kind);
    }
    let message = "Twirl".parse::<OperationKind>().unwrap_err().to_string();
    assert!(
        message.contains("Twirl") && message.contains("Rotate"),
        "{message}"
    );
}

#[test]
fn mirroring_twice_is_the_operation() {
    for operation in crate::SearchSpace::named("paper68")
        .unwrap()
        .plain_operations()
        .unwrap()
    {
        let twice = operation.mirrored().mirrored();
        assert_eq!(twice.kind(), operation.kind());
        if let (Operation::Color { factor: a, .. }, Operation::Color { factor: b, .. }) =
            (twice, operation)
        {
            assert!((a - b).abs() < 1e-12);
        }
    }
    let shear = Operation::ShearX {
        shear: 0.3,
        sign: SignRule::Random,
        warp: Warp::default(),
    };
    assert!(matches!(shear.mirrored(), Operation::ShearX { shear, .. } if shear == -0.3));
}

#[test]
fn out_of_range_arguments_are_named() {
    let gauss = |radius| Operation::GaussianBlur { radius };
    let grey = |amount| Operation::Desaturate { amount };
    let cases: [(Operation, &str); 10] = [
        (gauss(-0.1), "radius"),
        (gauss(f64::NAN), "radius"),
        (grey(-0.1), "amount"),
        (grey(1.1), "amount"),
        (Operation::CropBilinear { pixels: u32::MAX }, "pixels"),
        (Operation::Posterize { bits: 9 }, "bits"),
        (
            Operation::Rotate {
                degrees: f64::NAN,
                sign: SignRule::Fixed,
                warp: Warp::default(),
            },
            "degrees",
        ),
        (
            Operation::Color {
                factor: f64::INFINITY,
                sign: SignRule::Fixed,
            },
            "factor",
        ),
        (
            Operation::Cutout {
                size: Extent::Pixels(-1.0),
                shape: CutoutShape::Centered,
                fill: [0; 3],
            },
            "size",
        ),
        (
            Operation::SolarizeAdd {
                add: 400,
                threshold: 128,
                scope: SolarizeScope::Below,
            },
            "add",
        ),
    ];
    for (operation, field) in cases {
        let Err(Error::Field { field: named, .. }) = operation.validate() else {
            panic!("{operation:?} was accepted");
        };
        assert_eq!(named, field);
    }
}

#[test]
fn labels_tell_the_variants_apart() {
    for (operation, label) in [
        (Operation::Rotate270, "Rotate270"),
        (
            Operation::GaussianBlur { radius: 1.05 },
            "GaussianBlur 1.05px",
        ),
        (Operation::Desaturate { amount: 0.29 }, "Desaturate 29%"),
        (Operation::CropBilinear { pixels: 3 }, "CropBilinear 3px"),
        (
            Operation::SolarizeAdd {
                add: 22,
                threshold: 128,
                scope: SolarizeScope::All,
            },
            "SolarizeAdd 22, 128",
        ),
    ] {
        assert_eq!(operation.label(), label);
    }
}

#[test]
fn an_argument_out_of_range_is_shown_shortly() {
    let rotate = |degrees| Operation::Rotate {
        degrees,
        sign: SignRule::Fixed,
        warp: Warp::default(),
    };
    for (degrees, shown) in [
        (
            1e308,
            "degrees: 1e308 is not a number between -1000000 and 1000000",
        ),
        (-2e6, "degrees: -2000000 is not a number between"),
        (f64::INFINITY, "degrees: inf is not a number between"),
    ] {
        let message = rotate(degrees).validate().unwrap_err().to_string();
        assert!(message.contains(shown), "{message}");
    }
}
