//! `compare`.

use std::path::Path;

use ddas_formats::{Operation, Policy, SearchSpace, Snapshot};

use crate::{Fixture, finish, stderr};

/// A policy over three operations with these final probabilities.
fn write_policy(path: &Path, total: f64, probabilities: [f64; 3]) {
    let operations = vec![Operation::Identity, Operation::Invert, Operation::Equalize];
    let space = SearchSpace::new("three", 1, operations).unwrap();
    let snapshots = [(0.35, [1.0 / 3.0; 3]), (total, probabilities)]
        .map(|(total, of)| Snapshot::new(total, of.to_vec()).unwrap());
    Policy::new(space, snapshots.to_vec())
        .unwrap()
        .write(path)
        .unwrap();
}

#[test]
fn policies_are_compared() {
    let fixture = Fixture::new();
    write_policy(&fixture.path("a.json"), 0.25, [0.5, 0.3, 0.2]);
    write_policy(&fixture.path("b.json"), 0.20, [0.4, 0.25, 0.35]);
    write_policy(&fixture.path("c.json"), 0.30, [0.2, 0.3, 0.5]);
    let compare = |arguments: &[&str]| {
        let all = [&["compare", "a.json", "b.json"], arguments].concat();
        let output = finish(fixture.command(&all));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text, stderr(&output))
    };
    let (status, text, _) = compare(&["--top", "1", "--operations"]);
    assert_eq!(status, Some(0));
    for wanted in [
        "1  a.json: three, 2 epochs, total probability 0.350 to 0.250",
        "total probability at the end: 0.250 and 0.200, difference -0.050; at most 0.050 apart",
        // Ranks 1 2 3 and 1 3 2; of the six rankings of three, three correlate at least as well: 50% but for the
        // error of 10,000 random ones.
        "Spearman's rho of operations: 0.500 over 3 (as high by chance: 49.",
        "strongest 1: 1 in common (0.3 by chance)",
        "distance of the distributions: 0.150",
        "Equalize        0.600       1.050        3        2",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let (status, text, _) = compare(&["c.json", "--json"]);
    assert_eq!(status, Some(0));
    let pairs: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rhos: Vec<_> = (0..3)
        .map(|pair| {
            let pair = &pairs[pair];
            let name = |key: &str| pair[key].as_str().unwrap().to_owned();
            (name("first"), name("second"), pair["rank"]["rho"].as_f64())
        })
        .collect();
    let wanted = [
        ("a.json", "b.json", 0.5),
        ("a.json", "c.json", -1.0),
        ("b.json", "c.json", -0.5),
    ];
    for (found, (first, second, rho)) in rhos.into_iter().zip(wanted) {
        assert_eq!(found, (first.to_owned(), second.to_owned(), Some(rho)));
    }
    assert_eq!(compare(&["--min-rho", "0.4"]).0, Some(0));
    let (status, _, error) = compare(&["--min-rho", "0.6"]);
    assert_eq!(status, Some(1));
    assert!(
        error.contains("a.json and b.json agree by a rho of 0.500"),
        "{error}"
    );
}
