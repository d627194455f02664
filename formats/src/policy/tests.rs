//! Tests of the policy file.

use std::fs;

use proptest::prelude::*;

use super::*;

fn policy() -> Policy {
    let space = SearchSpace::named("sanity").unwrap();
    let uniform = vec![1.0 / space.len() as f64; space.len()];
    let snapshots = vec![
        Snapshot::new(0.35, uniform.clone()).unwrap(),
        Snapshot::new(0.5, uniform).unwrap(),
    ];
    Policy::new(space, snapshots)
        .unwrap()
        .with_smoothing(6)
        .unwrap()
        .with_provenance(Provenance {
            seed: Some(3),
            dataset: Some("a \"quoted\" name".into()),
            ..Provenance::default()
        })
}

/// The message for `policy()`'s text with `from` replaced by `to`.
fn refused(from: &str, to: &str) -> String {
    let text = policy().to_json();
    assert!(text.contains(from), "{from} is not in the text");
    Policy::from_json(&text.replacen(from, to, 1))
        .expect_err("accepted")
        .to_string()
}

#[test]
fn file_round_trip_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.json");
    policy().write(&path).unwrap();
    assert_eq!(Policy::read(&path).unwrap(), policy());
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "a temporary file is left");
}

#[test]
fn wrong_fields_are_named() {
    for (from, to, named) in [
        ("\"ddas-policy\"", "\"other\"", "format: `other`"),
        ("\"version\": 1", "\"version\": 2", "version: 2"),
        ("\"version\": 1", "\"version\": \"1\"", "version: \"1\""),
        ("0.35", "1.35", "snapshots[0]: total_probability: 1.35"),
        ("0.35", "-0.1", "total_probability: -0.1"),
        ("0.35", "\"x\"", "snapshots[0]"),
        ("\"total_probability\":0.35", "\"tp\":0.35", "tp"),
        ("\"window\":6", "\"window\":0", "smoothing.window"),
        (
            "\"draws_per_sample\": 2",
            "\"draws_per_sample\": 0",
            "draws_per_sample",
        ),
        (
            "{\"kind\":\"Invert\"}",
            "{\"kind\":\"Twirl\"}",
            "operations[5]",
        ),
        (
            "{\"kind\":\"Invert\"},\n",
            "",
            "snapshots[0].operation_probabilities: 19",
        ),
        ("}\n}\n", "}\n} trailing", "trailing characters"),
        ("\"snapshots\"", "\"snapshot\"", "snapshot"),
    ] {
        let message = refused(from, to);
        assert!(message.contains(named), "{to}: {message}");
    }
}

#[test]
fn probabilities_must_sum_to_one() {
    let text = policy().to_json();
    let start = text.find("\"operation_probabilities\":[").unwrap() + 27;
    let end = start + text[start..].find(',').unwrap();
    let mut wrong = text.clone();
    wrong.replace_range(start..end, "0.5");
    let message = Policy::from_json(&wrong).unwrap_err().to_string();
    assert!(message.contains("sum to 1.4"), "{message}");
}

#[test]
fn non_finite_numbers_are_refused() {
    assert!(Snapshot::new(f64::NAN, vec![1.0]).is_err());
    assert!(Snapshot::new(0.5, vec![f64::INFINITY]).is_err());
    assert!(refused("0.35", "1e999").contains("snapshots[0]"));
}

#[test]
fn oversize_and_binary_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.json");
    let file = fs::File::create(&path).unwrap();
    file.set_len(MAX_FILE_BYTES + 1).unwrap();
    assert!(
        Policy::read(&path)
            .unwrap_err()
            .to_string()
            .contains("64 MiB")
    );
    fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(
        Policy::read(&path)
            .unwrap_err()
            .to_string()
            .contains("not text")
    );
    fs::write(&path, "hello").unwrap();
    let message = Policy::read(&path).unwrap_err().to_string();
    assert!(
        message.contains("policy.json") && message.contains("not a policy file"),
        "{message}"
    );
    let message = Policy::from_json("[]").unwrap_err().to_string();
    assert!(
        message.contains("expected an object with `format` and `version`"),
        "{message}"
    );
    assert!(matches!(
        Policy::read(&folder.path().join("none")),
        Err(Error::Io { .. })
    ));
}

#[test]
fn what_json_cannot_say_is_reported_with_its_field() {
    let text = policy().to_json();
    for literal in ["NaN", "Infinity", "-Infinity", ""] {
        for (key, field) in [
            ("total_probability", "snapshots[0].total_probability"),
            ("window", "smoothing.window"),
        ] {
            let start = text.find(&format!("\"{key}\":")).unwrap() + key.len() + 3;
            let end = start + text[start..].find([',', '}']).unwrap();
            let broken = format!("{} {literal}{}", &text[..start], &text[end..]);
            let message = Policy::from_json(&broken).unwrap_err().to_string();
            assert!(message.starts_with(field), "{broken}\n{message}");
        }
    }
}

#[test]
fn smoothing_is_a_forward_mean_with_a_padded_tail() {
    let smoothed = |values: &[f64], window| {
        let snapshot = |&total| Snapshot::new(total, vec![1.0]).unwrap();
        let space = SearchSpace::new("one", 1, vec![crate::Operation::FlipLR]).unwrap();
        let policy = Policy::new(space, values.iter().map(snapshot).collect()).unwrap();
        let policy = policy.with_smoothing(window).unwrap();
        policy.smoothed_total_probabilities()
    };
    let values = [0.0, 0.25, 0.5, 1.0];
    assert_eq!(smoothed(&values, 1), values);
    assert_eq!(smoothed(&values, 2), [0.125, 0.375, 0.75, 0.75]);
    assert_eq!(smoothed(&values, u32::MAX), [0.4375; 4]);
    // Certain augmentation stays certain, whatever the rounding.
    assert_eq!(smoothed(&[1.0; 7], 3), [1.0; 7]);
}

#[test]
fn digest_sees_probabilities_but_not_provenance() {
    let one = policy();
    assert_eq!(
        one.digest(),
        one.clone().with_provenance(Provenance::default()).digest()
    );
    assert_ne!(
        one.digest(),
        one.clone().with_smoothing(1).unwrap().digest()
    );
}

proptest! {
    #[test]
    fn any_probabilities_survive_the_file(weights in proptest::collection::vec(1e-6..1.0f64, 1..40), total in 0.0..=1.0f64) {
        let sum: f64 = weights.iter().sum();
        let probabilities: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        let operations = vec![crate::Operation::Identity; probabilities.len()];
        let space = SearchSpace::new("mine", 1, operations).unwrap();
        let policy = Policy::new(space, vec![Snapshot::new(total, probabilities).unwrap()]).unwrap();
        prop_assert_eq!(Policy::from_json(&policy.to_json()).unwrap(), policy);
    }
}
