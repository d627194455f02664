//! Built-in policies against what torchvision and timm themselves compute.

use super::*;
use crate::{Candidate, Distribution, SignRule};

/// Written by `tests/golden/builtin.py`.
const GOLDEN: &str = include_str!("../../tests/golden/builtin.txt");

fn builtin(name: &str) -> Policy {
    Policy::builtin(name, &BuiltinOptions::default()).unwrap()
}

/// Kind and arguments of each line of `family`.
fn golden(family: &str) -> Vec<(&'static str, Vec<f64>)> {
    GOLDEN
        .lines()
        .filter_map(|line| line.strip_prefix(family)?.strip_prefix(' '))
        .map(|line| {
            let mut fields = line.split(' ');
            let kind = fields.next().unwrap();
            (kind, fields.map(|field| field.parse().unwrap()).collect())
        })
        .collect()
}

/// The argument that says how strong an operation is.
fn argument(operation: &Operation) -> Option<f64> {
    let json = serde_json::to_value(operation).unwrap();
    let names = [
        "degrees",
        "bits",
        "shear",
        "pixels",
        "fraction",
        "factor",
        "size",
        "add",
        "radius",
        "amount",
        "threshold",
    ];
    names.iter().find_map(|&name| json.get(name)?.as_f64())
}

/// Compares one operation of torchvision's with the line of its kind.
fn assert_torchvision(operation: &Operation, kind: &str, value: f64) {
    let (kind, signed) = match kind.strip_suffix("+-") {
        Some(kind) => (kind, SignRule::Random),
        None => (kind, SignRule::Fixed),
    };
    assert_eq!(operation.kind().name(), kind);
    assert_eq!(operation.sign(), signed, "{kind}");
    let expected = match kind {
        "Brightness" | "Color" | "Contrast" | "Sharpness" => Some(1.0 + value),
        "Identity" | "AutoContrast" | "Equalize" | "Invert" => None,
        _ => Some(value),
    };
    let ours = match operation {
        Operation::TranslateX { offset, .. } | Operation::TranslateY { offset, .. } => {
            // The table is for images of eight times 331 pixels.
            assert_eq!(offset.pixels(331 * 8).trunc(), value.trunc(), "{kind}");
            return;
        }
        other => argument(other),
    };
    assert_eq!(ours, expected, "{kind}");
}

#[test]
fn randaugment_is_torchvisions_at_every_magnitude() {
    let lines = golden("randaugment");
    assert_eq!(lines.len(), 14);
    for magnitude in 0..31 {
        let options = BuiltinOptions {
            magnitude: Some(magnitude),
            ..Default::default()
        };
        let policy = Policy::builtin("randaugment", &options).unwrap();
        assert_eq!(policy.search_space().draws_per_sample(), 2);
        let snapshot = &policy.snapshots()[0];
        assert_eq!(snapshot.total_probability(), 1.0);
        assert_eq!(snapshot.operation_probabilities(), [1.0 / 14.0; 14]);
        for (operation, (kind, values)) in policy
            .search_space()
            .plain_operations()
            .unwrap()
            .iter()
            .zip(&lines)
        {
            assert_torchvision(operation, kind, values[magnitude as usize]);
        }
    }
}

#[test]
fn trivial_augment_has_each_strength_with_its_share() {
    let policy = builtin("trivialaugment-wide");
    let operations = policy.search_space().plain_operations().unwrap();
    let shares = policy.snapshots()[0].operation_probabilities();
    assert_eq!(policy.search_space().draws_per_sample(), 1);
    let mut at = 0;
    for (kind, values) in golden("wide") {
        let strongest_first = values.windows(2).all(|pair| pair[0] == pair[1]);
        let mut distinct: Vec<(f64, u32)> = Vec::new();
        for value in values {
            // Pixels are whole.
            let value = if kind.starts_with("Translate") {
                value.trunc()
            } else {
                value
            };
            match distinct.last_mut() {
                Some((last, count)) if *last == value => *count += 1,
                _ => distinct.push((value, 1)),
            }
        }
        assert!(!strongest_first || distinct.len() == 1);
        for (value, count) in distinct {
            let operation = &operations[at];
            match operation {
                Operation::TranslateX { .. } | Operation::TranslateY { .. } => {
                    assert_eq!(argument(operation), Some(value));
                    assert!(kind.starts_with(operation.kind().name()));
                }
                _ => assert_torchvision(operation, kind, value),
            }
            let share = f64::from(count) / 31.0 / 14.0;
            assert!((shares[at] - share).abs() < 1e-12, "{kind} {value}");
            at += 1;
        }
    }
    assert_eq!(at, operations.len());
    assert_eq!(
        policy.search_space().entries(),
        SearchSpace::named("trivialaugment-wide").unwrap().entries()
    );
}

#[test]
fn auto_augment_is_torchvisions() {
    let space = golden("autoaugment");
    for (name, table) in [
        ("autoaugment-cifar10", "CIFAR10"),
        ("autoaugment-svhn", "SVHN"),
        ("autoaugment-imagenet", "IMAGENET"),
    ] {
        let policy = builtin(name);
        let pairs: Vec<&str> = GOLDEN
            .lines()
            .filter_map(|line| line.strip_prefix(&format!("pairs {table} ")))
            .collect();
        assert_eq!(policy.search_space().len(), pairs.len());
        assert_eq!(
            policy.snapshots()[0].operation_probabilities(),
            [1.0 / 25.0; 25]
        );
        for (entry, pair) in policy.search_space().entries().iter().zip(pairs) {
            let Entry::Sequence(steps) = entry else {
                panic!("{entry:?}");
            };
            let texts: Vec<&str> = pair.split(' ').collect();
            assert_eq!(steps.len(), texts.len());
            for (step, text) in steps.iter().zip(texts) {
                let [kind, probability, bin] = text.split(':').collect::<Vec<_>>()[..] else {
                    panic!("{text}");
                };
                assert_eq!(step.probability(), probability.parse::<f64>().unwrap());
                let (signed, values) = space
                    .iter()
                    .find(|(name, _)| name.trim_end_matches("+-") == kind)
                    .unwrap();
                let value = values[bin.parse::<usize>().unwrap()];
                assert_torchvision(step.candidate().operation(), signed, value);
            }
        }
    }
}

/// A line of timm's, with the entries of a policy that are of its kind.
fn of_kind<'a>(policy: &'a Policy, kind: &str) -> Vec<(f64, &'a Candidate)> {
    let kind = kind
        .trim_end_matches("Increasing")
        .trim_end_matches("Original")
        .trim_end_matches("Rel");
    policy
        .search_space()
        .entries()
        .iter()
        .zip(policy.snapshots()[0].operation_probabilities())
        .flat_map(|(entry, &share)| entry.candidates().map(move |candidate| (share, candidate)))
        .filter(|(_, candidate)| candidate.kind().name() == kind)
        .collect()
}

/// Fixed, normal and uniform levels all go through timm's functions of the level.
#[test]
fn timm_levels_become_timms_arguments() {
    let lines = golden("timm");
    let levels = &lines[0].1;
    let constant = [
        "Posterize",
        "Solarize",
        "Color",
        "Contrast",
        "Brightness",
        "Sharpness",
    ];
    let mut compared = 0;
    for (kind, values) in &lines[1..] {
        // Not among the operations of RandAugment.
        if [
            "TranslateX",
            "TranslateY",
            "PosterizeOriginal",
            "Desaturate",
            "GaussianBlur",
        ]
        .contains(kind)
        {
            continue;
        }
        let increasing = u8::from(!constant.contains(kind));
        for (&level, &value) in levels.iter().zip(values) {
            let close = |ours: f64| (ours - value).abs() <= 1e-12 * value.abs().max(1.0);
            if level.fract() == 0.0 {
                let policy = builtin(&format!("rand-m{level}-inc{increasing}"));
                for (_, candidate) in of_kind(&policy, kind) {
                    assert!(candidate.variation().is_none());
                    let ours = argument(candidate.operation()).unwrap();
                    assert!(close(ours), "{kind} at {level}: {ours}, not {value}");
                    compared += 1;
                }
            }
            // The value at a level is that many standard deviations from the mean.
            for spread in ["mstd0.5", "mstd101"] {
                let policy = builtin(&format!("rand-m8-{spread}-inc{increasing}"));
                for (_, candidate) in of_kind(&policy, kind) {
                    let variation = candidate.variation().unwrap();
                    let downwards = ["PosterizeIncreasing", "SolarizeIncreasing"].contains(kind);
                    let raw = match variation.distribution() {
                        Distribution::Normal { mean, std } if downwards => {
                            mean - (level - 8.0) / 0.5 * std
                        }
                        Distribution::Normal { mean, std } => mean + (level - 8.0) / 0.5 * std,
                        Distribution::Uniform { low, high } if downwards => {
                            high - level / 8.0 * (high - low)
                        }
                        Distribution::Uniform { low, high } => low + level / 8.0 * (high - low),
                    };
                    let ours = variation.settle(raw);
                    // Whole numbers may fall to either side when the raw value is one itself.
                    let whole = variation.round() != crate::Round::None;
                    let on_the_edge =
                        whole && (raw - raw.round()).abs() < 1e-9 && (ours - value).abs() == 1.0;
                    assert!(
                        close(ours) || on_the_edge,
                        "{kind} at {level} ({spread}): {ours}, not {value}"
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 600, "{compared}");
}

#[test]
fn timm_draws_fire_and_read_at_random() {
    let policy = builtin("rand-m9-n3-mstd0.5-inc1-p0.25");
    assert_eq!(policy.search_space().draws_per_sample(), 3);
    let identity = of_kind(&policy, "Identity");
    assert_eq!(identity.len(), 1);
    assert!((identity[0].0 - 0.75).abs() < 1e-12);
    let rotations = of_kind(&policy, "Rotate");
    assert_eq!(rotations.len(), 2);
    let labels: Vec<String> = rotations.iter().map(|(_, c)| c.label()).collect();
    assert_eq!(labels, ["Rotate ±~27 (sd 1.5)°"; 2]);
    for (share, _) in &rotations {
        assert!((share - 0.25 / 30.0).abs() < 1e-12);
    }
    let json = serde_json::to_string(rotations[0].1).unwrap();
    assert!(
        json.contains("bilinear") && json.contains("[128,128,128]"),
        "{json}"
    );
    let json = serde_json::to_string(rotations[1].1).unwrap();
    assert!(json.contains("bicubic"), "{json}");
    assert_eq!(policy.search_space().len(), 1 + 15 + 5);
    // Without p, half of the draws; with p1, no draw is left out.
    assert_eq!(of_kind(&builtin("rand-m9"), "Identity")[0].0, 0.5, "half");
    assert_eq!(builtin("rand-m9-p1").search_space().len(), 20);
}

/// Beyond level 10 a factor of 1 - 0.09 l would go below 0.1, where timm stops it.
#[test]
fn timm_factors_stop_at_a_tenth() {
    let policy = builtin("rand-m15-mmax20-inc1");
    let factors: Vec<f64> = of_kind(&policy, "ColorIncreasing")
        .iter()
        .map(|(_, candidate)| argument(candidate.operation()).unwrap())
        .collect();
    assert!(
        (factors[0] - 2.35).abs() < 1e-12 && (factors[1] - 0.1).abs() < 1e-12,
        "{factors:?}"
    );
    let varied = builtin("rand-m15-mstd2-mmax20-inc1");
    let ranges: Vec<(f64, f64)> = of_kind(&varied, "ContrastIncreasing")
        .iter()
        .map(|(_, candidate)| candidate.variation().unwrap().range())
        .collect();
    let expected = [(1.0, 2.8), (0.1, 1.0)];
    for (ours, theirs) in ranges.iter().zip(expected) {
        assert!((ours.0 - theirs.0).abs() < 1e-12 && (ours.1 - theirs.1).abs() < 1e-12);
    }
}

#[test]
fn timm_pairs_have_an_entry_for_each_combination() {
    let policy = builtin("original-mstd0.5");
    let rotations = of_kind(&policy, "Rotate");
    // Six pairs with a rotation, each reading two ways; one geometric step in a pair at most.
    assert_eq!(rotations.len(), 12);
    let shares: f64 = policy.snapshots()[0].operation_probabilities().iter().sum();
    assert!((shares - 1.0).abs() < 1e-12);
    assert!(
        rotations
            .iter()
            .all(|(share, _)| (share - 0.02).abs() < 1e-12)
    );
    // Rotate and TranslateYRel of one pair: four ways.
    let v0 = builtin("v0");
    let translations = of_kind(&v0, "TranslateYRel");
    assert_eq!(translations.len(), 4);
    assert!(
        translations
            .iter()
            .all(|(share, _)| (share - 0.01).abs() < 1e-12)
    );
}

#[test]
fn bad_names_and_options_are_named() {
    let error = |name: &str, options: BuiltinOptions| {
        Policy::builtin(name, &options).unwrap_err().to_string()
    };
    let none = BuiltinOptions::default();
    let draws = BuiltinOptions {
        draws: Some(3),
        ..none
    };
    let magnitude = |magnitude| BuiltinOptions {
        magnitude: Some(magnitude),
        ..none
    };
    for (message, named) in [
        (error("randaugement", none), "randaugment-timm"),
        (
            error("autoaugment-svhn", draws),
            "draws: autoaugment-svhn has no such option",
        ),
        (error("rand-m9", draws), "draws"),
        (
            error("randaugment", magnitude(31)),
            "magnitude: 31; randaugment goes from 0 to 30",
        ),
        (error("randaugment-timm", magnitude(11)), "0 to 10"),
        (
            error(
                "uniformaugment",
                BuiltinOptions {
                    image_size: Some(0),
                    ..none
                },
            ),
            "image_size",
        ),
        (
            error(
                "randaugment",
                BuiltinOptions {
                    draws: Some(17),
                    ..none
                },
            ),
            "draws_per_sample: 17",
        ),
        (error("rand-m9-q3", none), "section `q3`"),
        (error("rand-m9.5", none), "section `m9.5`"),
        (error("rand-p1.5", none), "section `p1.5`"),
        (error("rand-m9-tweights", none), "without replacement"),
        (error("original-m9", none), "section `m9`"),
        (error("augmix-m5", none), "blends"),
        (error("rand-mstdNaN", none), "section `mstdNaN`"),
    ] {
        assert!(message.contains(named), "{message}\nlacks {named}");
    }
}

#[test]
fn every_builtin_is_a_sound_policy_that_names_its_source() {
    for Builtin { name, .. } in Builtin::ALL {
        let policy = builtin(name);
        assert_eq!(Policy::from_json(&policy.to_json()).unwrap(), policy);
        assert_eq!(policy.snapshots().len(), 1);
        assert_eq!(
            policy.provenance().preset.as_deref(),
            Some(&*format!("builtin {name}"))
        );
        assert_eq!(policy.provenance().versions.len(), 1, "{name}");
    }
}

/// Values worked out by hand from the definitions.
#[test]
fn other_families_stand_where_their_sources_put_them() {
    let labels = |policy: &Policy| -> Vec<String> {
        policy
            .search_space()
            .entries()
            .iter()
            .map(Entry::label)
            .collect()
    };
    let ildoonet = labels(&builtin("randaugment-ildoonet"));
    assert_eq!(ildoonet.len(), 16);
    for label in [
        "Rotate ±9°",
        "Posterize 1b",
        "Solarize 76.8",
        "Color x0.64",
        "ShearX ±0.09",
        "TranslateX ±30px",
        "Cutout 12px",
    ] {
        assert!(
            ildoonet.iter().any(|ours| ours == label),
            "{label} in {ildoonet:?}"
        );
    }
    let tf = labels(&builtin("randaugment-tf"));
    assert_eq!(tf.len(), 16);
    for label in [
        "Rotate ±30°",
        "Posterize 4b",
        "Solarize 256",
        "Color x1.9",
        "ShearX ±0.3",
        "TranslateX ±100px",
        "Cutout 80px",
    ] {
        assert!(tf.iter().any(|ours| ours == label), "{label} in {tf:?}");
    }
    let v0 = labels(&builtin("autoaugment-v0"));
    assert_eq!(v0[0], "Equalize p0.8, ShearY ±0.12 p0.8");
    assert_eq!(v0[15], "Rotate ±21° p1, TranslateY ±225px p0.8");
    assert_eq!(v0[22], "Posterize 0b p0.8, Solarize 256 p0.6");
    let uniform = builtin("uniformaugment");
    let shares = uniform.snapshots()[0].operation_probabilities();
    let uniform_labels = labels(&uniform);
    assert_eq!(uniform_labels[0], "Identity");
    assert!((shares[0] - (0.5 + 0.5 / 16.0)).abs() < 1e-12);
    let share = |label: &str| {
        let at = uniform_labels.iter().position(|ours| ours == label);
        shares[at.unwrap_or_else(|| panic!("{label} in {uniform_labels:?}"))]
    };
    let one = 0.5 / 16.0 / 31.0;
    // trunc(s * 6.4 / 30) is 6 for s = 29 and 30 alone; bits 4 for s = 30 alone.
    assert!((share("Cutout 6px") - 2.0 * one).abs() < 1e-12);
    assert!((share("Posterize 4b") - one).abs() < 1e-12);
    assert!((share("Rotate ±30°") - one).abs() < 1e-12);
    assert!((share("Equalize") - 31.0 * one).abs() < 1e-12);
}
