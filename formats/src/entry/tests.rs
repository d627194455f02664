//! Tests of entries and of their JSON form.

use super::*;
use crate::{Policy, SearchSpace, SignRule, Snapshot, Warp};

/// A policy whose search space has the entry `json` after two plain ones.
fn document(json: &str) -> String {
    format!(
        r#"{{"format": "ddas-policy", "version": 1,
            "search_space": {{"name": "t", "draws_per_sample": 1, "operations": [{{"kind": "Invert"}}, {{"kind": "FlipLR"}}, {json}]}},
            "snapshots": [{{"total_probability": 1, "operation_probabilities": [0.5, 0.25, 0.25]}}]}}"#
    )
}

fn refused(json: &str) -> String {
    Policy::from_json(&document(json))
        .expect_err(json)
        .to_string()
}

const PAIR: &str = r#"{"kind": "Sequence", "steps": [
    {"probability": 0.8, "operation": {"kind": "Equalize"}},
    {"probability": 0.4, "operation": {"kind": "Rotate", "sign": "random", "varies": {
        "argument": "degrees", "distribution": "normal", "mean": 27, "std": 1.5, "min": 0, "max": 30}}}]}"#;

#[test]
fn entries_survive_the_file() {
    let policy = Policy::from_json(&document(PAIR)).unwrap();
    assert_eq!(Policy::from_json(&policy.to_json()).unwrap(), policy);
    let entry = &policy.search_space().entries()[2];
    assert_eq!(entry.label(), "Equalize p0.8, Rotate ±~27 (sd 1.5)° p0.4");
    let Entry::Sequence(steps) = entry else {
        panic!("{entry:?}");
    };
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[1].probability(), 0.4);
    assert_eq!(
        steps[1].candidate().variation().unwrap().range(),
        (0.0, 30.0)
    );
    assert_eq!(
        serde_json::to_string(entry).unwrap(),
        r#"{"kind":"Sequence","steps":[{"probability":0.8,"operation":{"kind":"Equalize"}},{"probability":0.4,"operation":{"kind":"Rotate","sign":"random","fill":[0,0,0],"interpolation":"nearest","varies":{"argument":"degrees","distribution":"normal","mean":27.0,"std":1.5,"min":0.0,"max":30.0}}}]}"#
    );
}

#[test]
fn every_argument_can_vary() {
    for (operation, argument) in [
        (r#""kind":"Rotate""#, "degrees"),
        (r#""kind":"ShearX""#, "shear"),
        (r#""kind":"ShearY""#, "shear"),
        (r#""kind":"TranslateX""#, "pixels"),
        (r#""kind":"TranslateY""#, "fraction"),
        (r#""kind":"Posterize""#, "bits"),
        (r#""kind":"Solarize""#, "threshold"),
        (r#""kind":"SolarizeAdd","threshold":128"#, "add"),
        (r#""kind":"Color""#, "factor"),
        (r#""kind":"Contrast""#, "factor"),
        (r#""kind":"Brightness""#, "factor"),
        (r#""kind":"Sharpness""#, "factor"),
        (r#""kind":"Cutout""#, "size"),
        (r#""kind":"Cutout""#, "fraction"),
    ] {
        let json = format!(
            r#"{{{operation},"varies":{{"argument":"{argument}","distribution":"uniform","low":1,"high":6,"round":"floor"}}}}"#
        );
        let entry: Entry = serde_json::from_str(&json).expect(&json);
        let Entry::Single(candidate) = &entry else {
            panic!("{json}");
        };
        assert!(entry.operation().is_none());
        // The middle stands for the argument; another value makes another operation.
        assert_eq!(candidate.with_value(3.0), *candidate.operation(), "{json}");
        assert_ne!(candidate.with_value(5.0), *candidate.operation(), "{json}");
        let back = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&back).unwrap(), entry);
    }
}

#[test]
fn wrong_entries_are_named() {
    let at = "search_space.operations[2]";
    let changed = |from: &str, to: &str| {
        assert!(PAIR.contains(from), "{from}");
        refused(&PAIR.replacen(from, to, 1))
    };
    for (message, named) in [
        (
            changed("0.4", "1.4"),
            format!("{at}.steps[1].probability: 1.4 is not a probability"),
        ),
        (
            changed("\"Equalize\"", "\"Twirl\""),
            format!("{at}.steps[0].operation: kind"),
        ),
        (
            changed("\"std\": 1.5", "\"std\": -1.5"),
            format!("{at}.steps[1].operation.varies: std"),
        ),
        (
            changed(", \"max\": 30", ""),
            format!("{at}.steps[1].operation.varies: max: missing"),
        ),
        (
            changed("\"max\": 30", "\"max\": 2e6"),
            format!("{at}.steps[1].operation: varies.degrees"),
        ),
        (
            changed("\"sign\": \"random\"", "\"degrees\": 3"),
            "degrees: given, and varied as well".into(),
        ),
        (
            changed("\"degrees\"", "\"shear\""),
            "Rotate has no such argument".into(),
        ),
        (
            changed("\"kind\": \"Equalize\"", "\"kind\": \"Sequence\""),
            "a Sequence inside a Sequence".into(),
        ),
        (
            changed("{\"kind\": \"Equalize\"}", PAIR),
            "unknown field `steps`".into(),
        ),
        (
            refused(r#"{"kind": "Sequence", "steps": []}"#),
            format!("{at}: steps: 0 steps"),
        ),
        (
            refused(r#"{"kind": "Sequence"}"#),
            format!("{at}: steps: missing"),
        ),
        (
            refused(r#"{"kind": "Sequence", "steps": [], "fill": [1, 2, 3]}"#),
            "takes `steps` and nothing else".into(),
        ),
        (
            refused(r#"{"kind": "Invert", "steps": []}"#),
            "only a Sequence has".into(),
        ),
        (
            refused(
                r#"{"kind": "Invert", "varies": {"argument": "degrees", "distribution": "uniform", "low": 0, "high": 1}}"#,
            ),
            "Invert takes no arguments".into(),
        ),
        (
            refused(
                r#"{"kind": "Posterize", "varies": {"argument": "bits", "distribution": "uniform", "low": 0, "high": 4}}"#,
            ),
            "varies: round: missing".into(),
        ),
        (
            refused(
                r#"{"kind": "Posterize", "varies": {"argument": "bits", "distribution": "uniform", "low": 0, "high": 9, "round": "ceil"}}"#,
            ),
            "bits: may become 9".into(),
        ),
        (
            refused(
                r#"{"kind": "Rotate", "varies": {"argument": "degrees", "distribution": "uniform", "mean": 0, "low": 1, "high": 4}}"#,
            ),
            "varies: mean: a uniform distribution has no such field".into(),
        ),
        (
            refused(
                r#"{"kind": "Rotate", "varies": {"argument": "degrees", "distribution": "uniform", "low": 4, "high": 1}}"#,
            ),
            "varies: high: 1 is below".into(),
        ),
        (
            refused(
                r#"{"kind": "Rotate", "varies": {"argument": "angle", "distribution": "uniform", "low": 4, "high": 1}}"#,
            ),
            "varies.argument: unknown variant `angle`".into(),
        ),
        (
            refused(r#"{"kind": "Rotate", "degrees": "x"}"#),
            format!("{at}.degrees: invalid type"),
        ),
    ] {
        assert!(message.contains(&named), "{message}\nlacks {named}");
    }
}

#[test]
fn hostile_lists_are_cut_short() {
    let step = r#"{"probability": 1, "operation": {"kind": "Invert"}}"#;
    let steps = |count: usize| {
        format!(
            r#"{{"kind": "Sequence", "steps": [{}]}}"#,
            vec![step; count].join(",")
        )
    };
    assert!(Policy::from_json(&document(&steps(Entry::MAX_STEPS))).is_ok());
    let message = refused(&steps(Entry::MAX_STEPS + 1));
    assert!(message.contains("more than the 16 steps"), "{message}");
    let many = vec![r#"{"kind": "Invert"}"#; SearchSpace::MAX_OPERATIONS].join(",");
    let message = refused(&many);
    assert!(
        message.contains("more than the 4096 operations"),
        "{message}"
    );
}

#[test]
fn a_space_with_entries_is_no_list_of_plain_operations() {
    let policy = Policy::from_json(&document(PAIR)).unwrap();
    let message = policy
        .search_space()
        .plain_operations()
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("operations[2]: `Equalize p0.8") && message.contains("is a sequence"),
        "{message}"
    );
}

/// The digest decides whether two programs replay the same: it must not move
/// for the files of today, and must see the new fields.
#[test]
fn digests() {
    let digest = |json: &str| Policy::from_json(&document(json)).unwrap().digest();
    // What versions without entries made of it.
    assert_eq!(digest(r#"{"kind":"Blur"}"#), 13_411_529_665_997_403_920);
    let pair = digest(PAIR);
    assert_ne!(pair, digest(&PAIR.replace("0.8", "0.7")));
    assert_ne!(pair, digest(&PAIR.replace("1.5", "1.6")));
    assert_eq!(pair, digest(&PAIR.replace("27", "27.0")));
}

#[test]
fn variations_are_checked_in_code_too() {
    let rotate = Operation::Rotate {
        degrees: 1.0,
        sign: SignRule::Fixed,
        warp: Warp::default(),
    };
    let uniform = |argument, low, high| {
        Variation::new(
            argument,
            Distribution::Uniform { low, high },
            (None, None),
            Round::None,
        )
    };
    assert!(uniform(Argument::Degrees, f64::NAN, 1.0).is_err());
    assert!(uniform(Argument::Degrees, 0.0, f64::INFINITY).is_err());
    let shear = uniform(Argument::Shear, 0.0, 0.3).unwrap();
    assert!(Candidate::varied(rotate, shear).is_err());
    assert!(Candidate::varied(Operation::Invert, shear).is_err());
    assert!(Step::new(f64::NAN, Operation::Invert).is_err());
    let step = Step::new(1.0, Operation::Posterize { bits: 9 }).unwrap();
    let space = SearchSpace::of_entries("x", 1, vec![Entry::sequence(vec![step]).unwrap()]);
    assert!(
        space
            .unwrap_err()
            .to_string()
            .contains("operations[0].steps[0].operation.bits")
    );
}

#[test]
fn rounding() {
    let settle = |round, value| {
        Variation::new(
            Argument::Threshold,
            Distribution::Uniform {
                low: -10.0,
                high: 10.0,
            },
            (Some(-2.0), None),
            round,
        )
        .unwrap()
        .settle(value)
    };
    assert_eq!(settle(Round::None, 1.25), 1.25);
    assert_eq!(settle(Round::Floor, -1.25), -2.0);
    assert_eq!(settle(Round::Ceil, 1.25), 2.0);
    assert_eq!(settle(Round::Nearest, 1.5), 2.0);
    assert_eq!(settle(Round::None, -7.0), -2.0);
}

#[test]
fn a_snapshot_of_the_wrong_length_is_refused() {
    let space = SearchSpace::of_entries("x", 1, vec![serde_json::from_str(PAIR).unwrap()]);
    let snapshot = Snapshot::new(1.0, vec![0.5, 0.5]).unwrap();
    assert!(Policy::new(space.unwrap(), vec![snapshot]).is_err());
}
