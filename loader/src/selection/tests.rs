use std::collections::BTreeMap;

use ddas_formats::{Dataset, DatasetWriter, Encoding, Packed};
use proptest::prelude::*;

use super::*;

fn dataset(folder: &std::path::Path, name: &str, labels: &[i64], classes: usize) -> Dataset {
    let path = folder.join(name);
    let mut writer = DatasetWriter::create(&path, false).unwrap();
    for &label in labels {
        writer.append(label, Encoding::Raw, 1, 1, &[0; 3]).unwrap();
    }
    let classes = (0..classes).map(|class| class.to_string()).collect();
    writer.finish(classes, Packed::default()).unwrap();
    Dataset::open(&path).unwrap()
}

fn visited(selection: &Arc<Selection>, seed: u64, epoch: u32) -> Vec<u64> {
    let samples = EpochSamples::new(seed, epoch, selection.len(), Some(selection));
    (0..samples.len())
        .map(|position| samples.at(position))
        .collect()
}

proptest! {
    #[test]
    fn marked_numbers_are_found_by_their_place(marked in proptest::collection::vec(any::<bool>(), 0..3000), sparse: bool) {
        let is_marked = |number: u64| marked[number as usize] && (!sparse || number.is_multiple_of(97));
        let marks = Marks::new(marked.len() as u64, is_marked);
        let expected: Vec<u64> = (0..marked.len() as u64).filter(|&number| is_marked(number)).collect();
        prop_assert_eq!(marks.len(), expected.len() as u64);
        prop_assert_eq!((0..marks.len()).map(|n| marks.nth(n)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn quotas_follow_the_weights_and_fill_the_epoch(weights in proptest::collection::vec(1e-6..1e6f64, 1..50), length in 1u64..1 << 40) {
        let tickets = tickets(&weights, length);
        prop_assert_eq!((tickets[0], tickets[weights.len()]), (0, length));
        let sum: f64 = weights.iter().sum();
        for (pool, weight) in weights.iter().enumerate() {
            let quota = (tickets[pool + 1] - tickets[pool]) as f64;
            let exact = weight / sum * length as f64;
            prop_assert!((quota - exact).abs() <= 1.0 + length as f64 * 1e-12, "{} {}", quota, exact);
        }
    }

    #[test]
    fn parts_are_disjoint_complete_and_stay_when_samples_are_appended(seed: u64, fraction in 0.01..0.99f64, len in 1u64..2000, more in 0u64..500) {
        let part = |part| HashSplit { part, validation_fraction: fraction, seed };
        let (train, validation) = (part(SplitPart::Train), part(SplitPart::Validation));
        let members = |split: &HashSplit, len| {
            let marks = Marks::new(len, |index| split.contains(index));
            (0..marks.len()).map(|n| marks.nth(n)).collect::<Vec<_>>()
        };
        let mut all = members(&train, len);
        all.extend(members(&validation, len));
        all.sort_unstable();
        prop_assert_eq!(all, (0..len).collect::<Vec<_>>());
        let before = members(&validation, len);
        prop_assert_eq!(&members(&validation, len + more)[..before.len()], &before[..]);
    }
}

#[test]
fn a_part_has_about_the_share_asked_for() {
    for (fraction, expected) in [(0.1, 10_000.0), (0.5, 50_000.0), (0.001, 100.0)] {
        let split = HashSplit {
            part: SplitPart::Validation,
            validation_fraction: fraction,
            seed: 4,
        };
        let found = (0..100_000).filter(|&index| split.contains(index)).count() as f64;
        // Five standard deviations of a binomial count.
        assert!(
            (found - expected).abs() < 5.0 * (expected * (1.0 - fraction)).sqrt(),
            "{fraction}: {found}"
        );
    }
}

/// Computed by an independent implementation (12 lines of Python over unbounded integers).
#[test]
fn golden_parts() {
    let split = HashSplit {
        part: SplitPart::Validation,
        validation_fraction: 0.25,
        seed: 7,
    };
    let found: Vec<u64> = (0..60).filter(|&index| split.contains(index)).collect();
    assert_eq!(found, GOLDEN_PART);
}

const GOLDEN_PART: &[u64] = &[
    6, 11, 13, 14, 15, 28, 31, 34, 36, 40, 41, 42, 52, 55, 57, 59,
];

#[test]
fn every_sample_comes_once_before_any_comes_twice() {
    let folder = tempfile::tempdir().unwrap();
    let sources = Sources::new(vec![
        dataset(folder.path(), "a", &[0; 100], 1),
        dataset(folder.path(), "b", &[0; 30], 1),
    ])
    .unwrap();
    let options = SampleOptions {
        more: vec![("b".into(), 0.5)],
        ..SampleOptions::default()
    };
    let selection = Arc::new(Selection::new(&sources, &options, 5).unwrap());
    let mut counts = BTreeMap::new();
    for epoch in 0..30 {
        let indices = visited(&selection, 5, epoch);
        assert_eq!(indices.len(), 130);
        assert_eq!(
            indices.iter().filter(|&&index| index >= 100).count(),
            43,
            "a third of 130"
        );
        for index in indices {
            *counts.entry(index).or_insert(0u32) += 1;
        }
        let (mut a, mut b): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        for index in 0..130 {
            let count = counts.get(&index).copied().unwrap_or(0);
            if index < 100 {
                a.push(count)
            } else {
                b.push(count)
            }
        }
        for counts in [a, b] {
            assert!(
                counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1,
                "{counts:?}"
            );
        }
    }
    assert_ne!(
        visited(&selection, 5, 0)[..20],
        visited(&selection, 5, 1)[..20]
    );
}

/// One dataset, all of it, as long as it is: the order that streams always had.
#[test]
fn a_whole_dataset_keeps_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let sources = Sources::from(dataset(folder.path(), "a", &[0; 77], 1));
    let options = SampleOptions {
        epoch_samples: Some(77),
        ..SampleOptions::default()
    };
    let selection = Arc::new(Selection::new(&sources, &options, 3).unwrap());
    let order = EpochOrder::new(3, 2, 77);
    assert_eq!(
        visited(&selection, 3, 2),
        (0..77)
            .map(|position| order.at(position))
            .collect::<Vec<_>>()
    );
}

#[test]
fn what_cannot_be_selected_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| dataset(folder.path(), name, &[0; 3], 1));
    let sources = Sources::new(vec![a.clone(), b]).unwrap();
    let error = |options: SampleOptions| {
        Selection::new(&sources, &options, 0)
            .unwrap_err()
            .to_string()
    };
    let more = |weight| vec![("b".into(), weight)];
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let options = SampleOptions {
            more: more(weight),
            ..SampleOptions::default()
        };
        assert!(error(options).contains("expected a number above 0"));
    }
    let split = |validation_fraction| {
        Some(HashSplit {
            part: SplitPart::Validation,
            validation_fraction,
            seed: 0,
        })
    };
    for fraction in [0.0, 1.0, f64::NAN] {
        let options = SampleOptions {
            more: more(1.0),
            split: split(fraction),
            ..SampleOptions::default()
        };
        assert!(error(options).contains("between 0 and 1"));
    }
    for sampling in [Sampling::Uniform, Sampling::ClassBalanced] {
        let options = SampleOptions {
            more: more(1.0),
            split: split(1e-9),
            sampling,
            ..SampleOptions::default()
        };
        assert!(error(options).contains("the validation part of"));
    }
    let options = SampleOptions {
        more: more(1.0),
        epoch_samples: Some(1 << 41),
        ..SampleOptions::default()
    };
    assert!(error(options).contains("samples an epoch"));
    let other = dataset(folder.path(), "c", &[0; 3], 2);
    let error = Sources::new(vec![a, other]).unwrap_err().to_string();
    assert!(
        error.contains("class 1 is `1`, in") && error.contains("it is none"),
        "{error}"
    );
    assert!(matches!(Sources::new(Vec::new()), Err(Error::NoDataset)));
}
