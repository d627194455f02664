//! Draws against the probabilities they are made with: chi-square tests on a
//! million samples, and that a draw depends on its sample alone.

use std::sync::OnceLock;

use ddas_formats::{
    CutoutShape, Extent, Interpolation, Operation, Policy, SearchSpace, SignRule, Snapshot, Warp,
};
use ddas_runtime::{Augmenter, EpochSchedule, Image, PolicySampler, SampleRng, Stream};

const SAMPLES: u64 = 1_000_000;
const TOTAL_PROBABILITY: f64 = 0.37;

fn rng(index: u64) -> SampleRng {
    SampleRng::new(2026, 5, index, Stream::Policy)
}

/// Pearson's statistic for counts of what has these probabilities.
fn chi_square(counts: &[u64], probabilities: &[f64]) -> f64 {
    let total: u64 = counts.iter().sum();
    counts
        .iter()
        .zip(probabilities)
        .map(|(&count, probability)| {
            let expected = probability * total as f64;
            if expected == 0.0 {
                assert_eq!(count, 0, "what has no probability was drawn");
                return 0.0;
            }
            (count as f64 - expected).powi(2) / expected
        })
        .sum()
}

/// The 99.9 % quantile for `freedom` degrees (Wilson and Hilferty's
/// approximation, good to a percent from two degrees on; for one, the square
/// of the normal quantile).
fn limit(freedom: usize) -> f64 {
    if freedom == 1 {
        return 3.2905f64.powi(2);
    }
    let n = freedom as f64;
    let spread = 2.0 / (9.0 * n);
    n * (1.0 - spread + 3.0902 * spread.sqrt()).powi(3)
}

fn assert_fits(what: &str, counts: &[u64], probabilities: &[f64]) {
    let possible = probabilities.iter().filter(|&&p| p > 0.0).count();
    let (found, limit) = (chi_square(counts, probabilities), limit(possible - 1));
    assert!(found < limit, "{what}: {found:.1} is not below {limit:.1}");
}

/// Skewed, with zeros at both ends and inside.
fn probabilities(count: usize) -> Vec<f64> {
    let weights: Vec<f64> = (0..count).rev().map(|i| (i % 7) as f64).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// [`probabilities`] of the operations of [`space`], all of equal ones (0 bits
/// of two levels) at the first of them.
fn probabilities_of_operations() -> Vec<f64> {
    let space = space();
    let operations = space.plain_operations().unwrap();
    let mut sums = vec![0.0; space.len()];
    for (operation, probability) in operations.iter().zip(probabilities(space.len())) {
        sums[operations
            .iter()
            .position(|first| first == operation)
            .unwrap()] += probability;
    }
    sums
}

fn space() -> SearchSpace {
    SearchSpace::named("paper68").unwrap()
}

/// What a million samples drew.
struct Drawn {
    augmented: u64,
    /// Per place in the sample and entry.
    operations: Vec<Vec<u64>>,
    /// Per entry of random sign: as written, mirrored.
    signs: Vec<[u64; 2]>,
}

fn drawn() -> &'static Drawn {
    static DRAWN: OnceLock<Drawn> = OnceLock::new();
    DRAWN.get_or_init(|| {
        let space = space();
        let candidates = space.plain_operations().unwrap();
        let snapshot = Snapshot::new(1.0, probabilities(space.len())).unwrap();
        let sampler = PolicySampler::new(&space, &snapshot, TOTAL_PROBABILITY).unwrap();
        let draws = space.draws_per_sample() as usize;
        let mut result = Drawn {
            augmented: 0,
            operations: vec![vec![0; space.len()]; draws],
            signs: vec![[0; 2]; space.len()],
        };
        let mut drawn = Vec::new();
        for index in 0..SAMPLES {
            sampler.draw(&mut rng(index), &mut drawn);
            result.augmented += u64::from(!drawn.is_empty());
            for (counts, operation) in result.operations.iter_mut().zip(&drawn) {
                let same = |candidate: &Operation| {
                    *candidate == *operation
                        || candidate.sign() == SignRule::Random
                            && candidate.mirrored() == *operation
                };
                let entry = candidates.iter().position(same).unwrap();
                counts[entry] += 1;
                let mirrored = usize::from(candidates[entry] != *operation);
                result.signs[entry][mirrored] += 1;
            }
        }
        result
    })
}

#[test]
fn operations_have_their_probabilities_at_every_place() {
    let drawn = drawn();
    for (place, counts) in drawn.operations.iter().enumerate() {
        assert_eq!(counts.iter().sum::<u64>(), drawn.augmented);
        assert_fits(
            &format!("place {place}"),
            counts,
            &probabilities_of_operations(),
        );
    }
    // The test can fail: a probability moved by a tenth shows.
    let mut wrong = probabilities_of_operations();
    let from = wrong.iter().position(|&p| p > 0.0).unwrap();
    let moved = wrong[from] / 10.0;
    wrong[from] -= moved;
    wrong[from + 2] += moved;
    assert!(chi_square(&drawn.operations[0], &wrong) > limit(57));
}

#[test]
fn samples_are_augmented_with_the_total_probability() {
    let augmented = drawn().augmented;
    let counts = [augmented, SAMPLES - augmented];
    assert_fits(
        "total",
        &counts,
        &[TOTAL_PROBABILITY, 1.0 - TOTAL_PROBABILITY],
    );
    let near = TOTAL_PROBABILITY + 0.002;
    assert!(chi_square(&counts, &[near, 1.0 - near]) > limit(1));
}

#[test]
fn random_signs_are_fair() {
    let space = space();
    let mut random = 0;
    for (operation, counts) in space.plain_operations().unwrap().iter().zip(&drawn().signs) {
        if counts[0] + counts[1] == 0 {
            continue;
        }
        match operation.sign() {
            SignRule::Fixed => assert_eq!(counts[1], 0, "{operation:?}"),
            SignRule::Random => {
                random += 1;
                assert_fits(&operation.label(), counts, &[0.5, 0.5]);
            }
        }
    }
    assert!(random > 15, "{random}");
}

/// The pixel a square of one pixel fills, a million times.
fn centers(shape: CutoutShape, size: f64, (width, height): (u32, u32)) -> Vec<u64> {
    let cutout = Operation::Cutout {
        size: Extent::Pixels(size),
        shape,
        fill: [255; 3],
    };
    let mut augmenter = Augmenter::default();
    let mut image = Image::new(width, height);
    let mut counts = vec![0; (width * height) as usize];
    for index in 0..SAMPLES {
        augmenter.apply(&[cutout], &mut rng(index), &mut image);
        let filled = image.pixels().iter().position(|&value| value == 255);
        if let Some(byte) = filled {
            counts[byte / 3] += 1;
            image.pixels_mut()[byte..byte + 3].fill(0);
        }
    }
    counts
}

#[test]
fn centres_of_cutout_are_uniform() {
    let counts = centers(CutoutShape::Centered, 1.0, (9, 5));
    assert_eq!(counts.iter().sum::<u64>(), SAMPLES);
    assert_fits("centred", &counts, &[1.0 / 45.0; 45]);

    // Reals between 1 and the side: never in the first row or column.
    let counts = centers(CutoutShape::Rectangle, 0.0, (9, 5));
    let inside = |i: usize| !i.is_multiple_of(9) && i >= 9;
    let expected: Vec<f64> = (0..45)
        .map(|i| if inside(i) { 1.0 / 32.0 } else { 0.0 })
        .collect();
    assert!(counts.iter().sum::<u64>() > SAMPLES - 10);
    assert_fits("rectangle", &counts, &expected);
}

/// One augmenter asked in order, and several on threads asked in another:
/// operations and pixels are the same for the same sample.
#[test]
fn draws_depend_on_the_sample_alone() {
    const INDICES: u64 = 4_000;
    let mut operations = space().plain_operations().unwrap().to_vec();
    for shape in [CutoutShape::Centered, CutoutShape::Rectangle] {
        operations.push(Operation::Cutout {
            size: Extent::Fraction(0.4),
            shape,
            fill: [1, 2, 3],
        });
    }
    operations.push(Operation::Rotate {
        degrees: 33.0,
        sign: SignRule::Random,
        warp: Warp {
            fill: [9; 3],
            interpolation: Interpolation::Bicubic,
        },
    });
    let count = operations.len();
    let space = SearchSpace::new("with cutout", 3, operations).unwrap();
    let snapshots = [0.4, 0.9]
        .map(|total| Snapshot::new(total, vec![1.0 / count as f64; count]).unwrap())
        .to_vec();
    let policy = Policy::new(space, snapshots).unwrap();
    let schedule = EpochSchedule::new(&policy, 7).unwrap();
    let source: Vec<u8> = (0..20 * 14 * 3).map(|i| (i * 37 % 251) as u8).collect();
    let one = |augmenter: &mut Augmenter, index: u64| {
        let epoch = (index % 7) as u32;
        let mut rng = SampleRng::new(3, epoch, index, Stream::Policy);
        let mut image = Image::from_rgb(20, 14, source.clone()).unwrap();
        let drawn = augmenter.augment(schedule.sampler(epoch), &mut rng, &mut image);
        (drawn.to_vec(), image)
    };
    let mut augmenter = Augmenter::default();
    let in_order: Vec<_> = (0..INDICES)
        .map(|index| one(&mut augmenter, index))
        .collect();
    assert!(in_order.iter().any(|(drawn, _)| drawn.is_empty()));

    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (one, in_order) = (&one, &in_order);
            scope.spawn(move || {
                let mut augmenter = Augmenter::default();
                // 1,777 and 4,000 have no common divisor: every index, in no order.
                for step in (thread..INDICES).step_by(4) {
                    let index = step * 1_777 % INDICES;
                    assert!(
                        one(&mut augmenter, index) == in_order[index as usize],
                        "{index}"
                    );
                }
            });
        }
    });
}
