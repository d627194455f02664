//! Tests of exports.

use serde_json::Value;

use super::*;
use crate::{BuiltinOptions, SearchSpace, Snapshot, Step};

fn builtin(name: &str) -> Policy {
    Policy::builtin(name, &BuiltinOptions::default()).unwrap()
}

fn every_target(policy: &Policy) -> Vec<(ExportTarget, Exported)> {
    ExportTarget::ALL
        .into_iter()
        .map(|target| (target, policy.export(target, 0, Some(32)).unwrap()))
        .collect()
}

#[test]
fn albumentations_gets_the_probabilities() {
    let entries = vec![
        Operation::Invert.into(),
        Entry::sequence(vec![
            Step::new(0.25, Operation::FlipLR).unwrap(),
            Step::new(0.5, Operation::Posterize { bits: 3 }).unwrap(),
        ])
        .unwrap(),
        Operation::FlipUD.into(),
    ];
    let space = SearchSpace::of_entries("x", 2, entries).unwrap();
    let snapshots = vec![
        Snapshot::new(0.2, vec![0.25, 0.75, 0.0]).unwrap(),
        Snapshot::new(0.4, vec![1.0, 0.0, 0.0]).unwrap(),
    ];
    let policy = Policy::new(space, snapshots)
        .unwrap()
        .with_smoothing(2)
        .unwrap();
    let exported = policy
        .export(ExportTarget::Albumentations, 0, None)
        .unwrap();
    let document: Value = serde_json::from_str(&exported.text).unwrap();
    let augmented = &document["transform"]["transforms"][0];
    // As it is replayed: the mean of 0.2 and 0.4.
    assert!((augmented["p"].as_f64().unwrap() - 0.3).abs() < 1e-12);
    assert_eq!(augmented["transforms"].as_array().unwrap().len(), 2);
    let draw = &augmented["transforms"][1];
    assert_eq!(draw["__class_fullname__"], "OneOf");
    // What cannot come up is not there.
    assert_eq!(draw["transforms"].as_array().unwrap().len(), 2);
    assert_eq!(draw["transforms"][0]["p"], 0.25);
    let sequence = &draw["transforms"][1];
    assert_eq!(sequence["p"], 0.75);
    assert_eq!(
        sequence["transforms"][0]["__class_fullname__"],
        "HorizontalFlip"
    );
    assert_eq!(sequence["transforms"][0]["p"], 0.25);
    assert_eq!(
        sequence["transforms"][1]["num_bits"],
        serde_json::json!([3, 3])
    );
    assert!(
        exported
            .notes
            .iter()
            .all(|note| note.fidelity == Fidelity::Exact)
    );
    let only = policy
        .export(ExportTarget::Albumentations, 1, None)
        .unwrap();
    assert!(only.text.contains("InvertImg") && !only.text.contains("Posterize"));
    assert!(
        policy
            .export(ExportTarget::Albumentations, 2, None)
            .is_err()
    );
}

#[test]
fn every_operation_of_a_policy_has_a_note() {
    for name in [
        "randaugment",
        "randaugment-timm",
        "uniformaugment",
        "autoaugment-v0",
    ] {
        let policy = builtin(name);
        let labels: HashSet<String> = policy
            .search_space()
            .entries()
            .iter()
            .flat_map(|entry| match entry {
                Entry::Sequence(steps) => steps
                    .iter()
                    .filter(|step| step.probability() > 0.0)
                    .map(|step| step.candidate().label())
                    .collect(),
                Entry::Single(single) => vec![single.label()],
            })
            .collect();
        for (target, exported) in every_target(&policy) {
            let noted: HashSet<String> = exported
                .notes
                .iter()
                .map(|note| note.operation.clone())
                .collect();
            assert_eq!(noted, labels, "{name} for {target}");
            for note in &exported.notes {
                assert!(exported.text.contains(&note.to_string()), "{note}");
            }
        }
    }
}

#[test]
fn what_cannot_be_expressed_is_said() {
    let policy = builtin("randaugment-ildoonet");
    for (target, exported) in every_target(&policy) {
        let add = exported
            .notes
            .iter()
            .find(|note| note.operation.starts_with("SolarizeAdd"))
            .unwrap();
        assert!(
            matches!(add.fidelity, Fidelity::LeftOut(_)),
            "{target}: {add}"
        );
    }
    let timm = builtin("randaugment-timm");
    let exported = timm.export(ExportTarget::Albumentations, 0, None).unwrap();
    let posterize = exported
        .notes
        .iter()
        .find(|note| note.operation.starts_with("Posterize"))
        .unwrap();
    let Fidelity::Approximate(how) = &posterize.fidelity else {
        panic!("{posterize}");
    };
    assert!(how.contains("8 equally likely values"), "{how}");
}

#[test]
fn quantiles_are_of_equal_weight_and_settled() {
    let variation = Variation::new(
        crate::Argument::Bits,
        Distribution::Normal {
            mean: 0.4,
            std: 0.2,
        },
        (Some(0.0), Some(4.0)),
        crate::Round::Ceil,
    )
    .unwrap();
    let values = quantiles(&variation);
    // Only the lowest of eight, 0.4 - 1.53 * 0.2 = 0.09, and all above are in (0, 1].
    assert_eq!(values, [(1.0, 1.0)]);
    let uniform = Variation::new(
        crate::Argument::Degrees,
        Distribution::Uniform {
            low: 0.0,
            high: 16.0,
        },
        (None, None),
        crate::Round::None,
    )
    .unwrap();
    let values: Vec<f64> = quantiles(&uniform).iter().map(|value| value.1).collect();
    assert_eq!(values, [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0]);
}

/// Signs, units and directions that differ between the libraries.
#[test]
fn openmmlab_turns_and_moves_the_other_way() {
    let warp = crate::Warp {
        fill: [1, 2, 3],
        interpolation: crate::Interpolation::Bilinear,
    };
    let sign = SignRule::Fixed;
    let operations = vec![
        Operation::Rotate {
            degrees: 12.5,
            sign,
            warp,
        },
        Operation::TranslateX {
            offset: crate::Extent::Pixels(8.0),
            rounding: crate::Rounding::None,
            sign: SignRule::Random,
            warp,
        },
        Operation::Color {
            factor: 1.4,
            sign: SignRule::Random,
        },
    ];
    let space = SearchSpace::new("x", 1, operations).unwrap();
    let share = 1.0 / 3.0;
    let snapshot = Snapshot::new(1.0, vec![share; 3]).unwrap();
    let policy = Policy::new(space, vec![snapshot]).unwrap();
    let pretrain = policy
        .export(ExportTarget::Mmpretrain, 0, Some(32))
        .unwrap()
        .text;
    for expected in [
        "dict(type='Rotate', angle=-12.5, pad_val=(3, 2, 1), interpolation='bilinear', random_negative_prob=0.0, prob=1.0)",
        "dict(type='Translate', magnitude=-0.25, direction='horizontal', pad_val=(3, 2, 1), interpolation='bilinear', random_negative_prob=0.5, prob=1.0)",
        "dict(type='ColorTransform', magnitude=0.3999999999999999, random_negative_prob=0.5, prob=1.0)",
        "dict(type='RandomApply', prob=1.0, transforms=[draw] * 1)",
    ] {
        assert!(pretrain.contains(expected), "{expected}\n{pretrain}");
    }
    let detection = policy
        .export(ExportTarget::Mmdetection, 0, Some(32))
        .unwrap()
        .text;
    for expected in [
        "dict(type='Rotate', min_mag=12.5, max_mag=12.5, reversal_prob=0.0, img_border_value=(3, 2, 1), interpolation='bilinear', prob=1.0)",
        "dict(type='TranslateX', min_mag=0.25, max_mag=0.25, reversal_prob=0.5",
        "dict(type='Color', min_mag=1.4, max_mag=1.4, prob=1.0)",
    ] {
        assert!(detection.contains(expected), "{expected}\n{detection}");
    }
    let without = policy.export(ExportTarget::Mmpretrain, 0, None).unwrap();
    assert!(
        without
            .notes
            .iter()
            .any(|note| note.to_string().contains("--image-size"))
    );
}
