use super::*;

fn refused(json: &str) -> String {
    serde_json::from_str::<Operation>(json)
        .expect_err(json)
        .to_string()
}

#[test]
fn wrong_arguments_are_named() {
    for (json, named) in [
        (r#"{"kind":"Rotate"}"#, "degrees"),
        (r#"{"kind":"Rotate","degrees":3,"shear":1}"#, "shear"),
        (r#"{"kind":"Invert","factor":3}"#, "takes no arguments"),
        (r#"{"kind":"TranslateX"}"#, "`pixels` or `fraction`"),
        (
            r#"{"kind":"TranslateX","pixels":1,"fraction":0.1}"#,
            "not both",
        ),
        (r#"{"kind":"Posterize","bits":-2}"#, "bits"),
        (
            r#"{"kind":"Posterize","bits":"4"}"#,
            "expected a whole number",
        ),
        (
            r#"{"kind":"Posterize","bits":4.5}"#,
            "expected a whole number",
        ),
        (r#"{"kind":"Rotate","degrees":"15"}"#, "expected a number"),
        (
            r#"{"kind":"Rotate","degrees":1,"fill":[1,2]}"#,
            "three whole numbers from 0 to 255",
        ),
        (
            r#"{"kind":"Rotate","degrees":1,"fill":[1,2,256]}"#,
            "three whole numbers from 0 to 255",
        ),
        (
            r#"{"kind":"Rotate","degrees":1,"fill":[1,2,3,4]}"#,
            "three whole numbers from 0 to 255",
        ),
        (
            r#"{"kind":"SolarizeAdd","add":9999999999,"threshold":1}"#,
            "out of range",
        ),
        (r#"{"kind":"CropBilinear","pixels":1.5}"#, "pixels"),
        (r#"{"kind":"CropBilinear","pixels":-1}"#, "negative"),
        (r#"{"kind":"CropBilinear","fraction":0.1}"#, "fraction"),
        (r#"{"kind":"GaussianBlur"}"#, "radius"),
        (r#"{"kind":"Desaturate","amount":2}"#, "amount"),
        (r#"{"kind":"Rotate180","degrees":2}"#, "no arguments"),
        (
            r#"{"kind":"ShearX","shear":0.1,"rounding":"truncate"}"#,
            "rounding",
        ),
        (r#"{"kind":"Cutout","size":3,"shape":"round"}"#, "round"),
        (r#"{"kind":"Twirl"}"#, "Twirl"),
        (r#"{"kind":"Color","factor":1.2,"level":3}"#, "level"),
    ] {
        let message = refused(json);
        assert!(message.contains(named), "{json}: {message}");
    }
}

#[test]
fn defaults_are_fixed_black_nearest() {
    let operation: Operation = serde_json::from_str(r#"{"kind":"ShearX","shear":0.3}"#).unwrap();
    assert_eq!(
        operation,
        Operation::ShearX {
            shear: 0.3,
            sign: SignRule::Fixed,
            warp: Warp::default()
        }
    );
}

/// Defaults of arguments that came later stay out of the file, so that old
/// files keep their bytes.
#[test]
fn every_form_is_written_as_it_was_read() {
    for json in [
        r#"{"kind":"Rotate180"}"#,
        r#"{"kind":"GaussianBlur","radius":1.5}"#,
        r#"{"kind":"Desaturate","amount":0.25}"#,
        r#"{"kind":"CropBilinear","pixels":3.0}"#,
        r#"{"kind":"SolarizeAdd","threshold":128.0,"add":40}"#,
        r#"{"kind":"SolarizeAdd","threshold":128.0,"add":40,"scope":"all"}"#,
        r#"{"kind":"Cutout","size":16.0,"fill":[1,2,3]}"#,
        r#"{"kind":"Cutout","fraction":0.2,"shape":"rectangle","fill":[1,2,3]}"#,
        r#"{"kind":"TranslateX","pixels":3.5,"sign":"random","fill":[0,0,0],"interpolation":"nearest"}"#,
        r#"{"kind":"TranslateY","fraction":0.1,"rounding":"truncate","sign":"fixed","fill":[0,0,0],"interpolation":"bicubic"}"#,
    ] {
        let operation: Operation = serde_json::from_str(json).expect(json);
        assert_eq!(serde_json::to_string(&operation).unwrap(), json);
    }
    // A default that is spelled out means the same.
    let spelled = r#"{"kind":"TranslateX","pixels":1,"rounding":"none"}"#;
    let plain = r#"{"kind":"TranslateX","pixels":1}"#;
    let read = |json| serde_json::from_str::<Operation>(json).unwrap();
    assert_eq!(read(spelled), read(plain));
}
