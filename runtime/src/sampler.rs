//! Drawing operations with the probabilities of one snapshot.

use std::sync::Arc;

use ddas_formats::{
    Candidate, Distribution, Entry, Operation, SearchSpace, SignRule, Snapshot, Variation,
};

use crate::error::{Error, Result};
use crate::normal::standard_normal;
use crate::rng::SampleRng;

/// One snapshot compiled for drawing.
///
/// A sample is augmented with the total probability, all or nothing; then each
/// of its `draws_per_sample` entries is drawn from the operation
/// probabilities, with replacement, and each drawn operation of random sign
/// is mirrored with probability 1/2 (DDAS, section 3.1). Each step of a drawn
/// sequence is applied or left out with its own probability, and a varied
/// argument is drawn before the sign.
///
/// ```
/// use ddas_formats::{SearchSpace, Snapshot};
/// use ddas_runtime::{PolicySampler, SampleRng, Stream};
///
/// let space = SearchSpace::named("sanity")?;
/// let mut probabilities = vec![0.0; space.len()];
/// probabilities[5] = 1.0; // Invert
/// let snapshot = Snapshot::new(0.5, probabilities)?;
///
/// let sampler = PolicySampler::new(&space, &snapshot, 1.0)?;
/// let mut drawn = Vec::new(); // reused from sample to sample
/// sampler.draw(&mut SampleRng::new(7, 0, 42, Stream::Policy), &mut drawn);
/// assert_eq!(drawn, [space.plain_operations()?[5]; 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PolicySampler {
    total_probability: f64,
    draws_per_sample: u32,
    /// Shared by the samplers of a policy.
    entries: Arc<[Entry]>,
    /// Running sums of the operation probabilities: entry `i` owns the
    /// half-open interval from the sum before it to its own.
    cumulative: Vec<f64>,
    /// The last entry that has a probability at all.
    last: usize,
}

impl PolicySampler {
    /// A sampler of `snapshot`, augmenting with `total_probability` (0 to 1),
    /// which replaces the snapshot's own: the schedule smooths it.
    ///
    /// # Errors
    /// [`Error::OperationCount`] when the snapshot is not one of this search
    /// space, [`Error::Probability`] for a total probability outside 0..=1.
    pub fn new(
        search_space: &SearchSpace,
        snapshot: &Snapshot,
        total_probability: f64,
    ) -> Result<Self> {
        let entries = search_space.entries().into();
        Self::of_entries(search_space, entries, snapshot, total_probability)
    }

    /// [`PolicySampler::new`] with the entries of the search space at hand.
    pub(crate) fn of_entries(
        search_space: &SearchSpace,
        entries: Arc<[Entry]>,
        snapshot: &Snapshot,
        total_probability: f64,
    ) -> Result<Self> {
        let probabilities = snapshot.operation_probabilities();
        if probabilities.len() != search_space.len() {
            return Err(Error::OperationCount {
                space: search_space.name().to_owned(),
                expected: search_space.len(),
                found: probabilities.len(),
            });
        }
        if !(0.0..=1.0).contains(&total_probability) {
            return Err(Error::Probability {
                found: total_probability,
            });
        }
        let mut sum = 0.0;
        let cumulative = probabilities
            .iter()
            .map(|probability| {
                sum += probability;
                sum
            })
            .collect();
        Ok(Self {
            total_probability,
            draws_per_sample: search_space.draws_per_sample(),
            entries,
            cumulative,
            last: probabilities
                .iter()
                .rposition(|&probability| probability > 0.0)
                .unwrap_or(0),
        })
    }

    /// Chance that a sample is augmented at all.
    #[must_use]
    pub fn total_probability(&self) -> f64 {
        self.total_probability
    }

    /// Replaces `drawn` by the operations for one sample, in the order they
    /// are to be applied, with varied arguments and signs resolved; leaves it
    /// empty when the sample is not augmented.
    pub fn draw(&self, rng: &mut SampleRng, drawn: &mut Vec<Operation>) {
        drawn.clear();
        if rng.uniform() >= self.total_probability {
            return;
        }
        for _ in 0..self.draws_per_sample {
            match &self.entries[self.draw_index(rng)] {
                Entry::Sequence(steps) => {
                    for step in steps.iter() {
                        if rng.uniform() < step.probability() {
                            drawn.push(resolve(step.candidate(), rng));
                        }
                    }
                }
                entry => drawn.extend(entry.candidates().map(|candidate| resolve(candidate, rng))),
            }
        }
    }

    /// Inverse of the cumulative distribution. The probabilities sum to 1 only
    /// as well as their file was written, so the draw is scaled to their sum.
    fn draw_index(&self, rng: &mut SampleRng) -> usize {
        let sum = self.cumulative[self.last];
        let point = rng.uniform() * sum;
        let index = self.cumulative.partition_point(|&end| end <= point);
        // The product above may round up to the sum itself.
        index.min(self.last)
    }
}

/// The operation of `candidate` for one sample: first its varied argument is drawn, then its sign.
fn resolve(candidate: &Candidate, rng: &mut SampleRng) -> Operation {
    match candidate.variation() {
        None => resolve_sign(candidate.operation(), rng),
        Some(variation) => resolve_sign(&candidate.with_value(value(variation, rng)), rng),
    }
}

/// A value of a varied argument.
fn value(variation: &Variation, rng: &mut SampleRng) -> f64 {
    let uniform = rng.uniform();
    variation.settle(match variation.distribution() {
        Distribution::Normal { mean, std } => mean + std * standard_normal(uniform),
        Distribution::Uniform { low, high } => low + (high - low) * uniform,
    })
}

/// `operation`, or its mirror image with probability 1/2 when its sign is
/// random.
pub(crate) fn resolve_sign(operation: &Operation, rng: &mut SampleRng) -> Operation {
    match operation.sign() {
        SignRule::Fixed => *operation,
        SignRule::Random => {
            if rng.coin() {
                operation.mirrored()
            } else {
                *operation
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;
    use ddas_formats::{Argument, Extent, Round, Rounding, Step, Warp};

    fn rng(index: u64) -> SampleRng {
        SampleRng::new(11, 2, index, Stream::Policy)
    }

    fn uniform_sampler(name: &str, total_probability: f64) -> (SearchSpace, PolicySampler) {
        let space = SearchSpace::named(name).unwrap();
        let count = space.len();
        let snapshot = Snapshot::new(1.0, vec![1.0 / count as f64; count]).unwrap();
        let sampler = PolicySampler::new(&space, &snapshot, total_probability).unwrap();
        (space, sampler)
    }

    #[test]
    fn operations_are_drawn_with_their_probabilities() {
        let space = SearchSpace::named("paper68").unwrap();
        // Skewed, with zeros at both ends and inside.
        let mut weights: Vec<f64> = (0..space.len()).map(|i| (i % 7) as f64).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        weights.reverse();
        let snapshot = Snapshot::new(1.0, weights.clone()).unwrap();
        let sampler = PolicySampler::new(&space, &snapshot, 1.0).unwrap();
        const DRAWS: u64 = 200_000;
        let mut counts = vec![0u32; space.len()];
        for index in 0..DRAWS {
            counts[sampler.draw_index(&mut rng(index))] += 1;
        }
        let mut chi_square = 0.0;
        let mut possible = 0;
        for (&count, &weight) in counts.iter().zip(&weights) {
            let expected = weight * DRAWS as f64;
            if weight == 0.0 {
                assert_eq!(count, 0);
            } else {
                possible += 1;
                chi_square += (f64::from(count) - expected).powi(2) / expected;
            }
        }
        assert_eq!(possible, 58);
        // 99.99 % quantile with 57 degrees of freedom.
        assert!(chi_square < 105.5, "{chi_square}");
    }

    #[test]
    fn samples_are_augmented_with_the_total_probability() {
        for total_probability in [0.0, 0.218, 0.65, 1.0] {
            let (space, sampler) = uniform_sampler("sanity", total_probability);
            let mut drawn = Vec::new();
            let mut augmented = 0u32;
            const SAMPLES: u32 = 40_000;
            for index in 0..SAMPLES {
                sampler.draw(&mut rng(u64::from(index)), &mut drawn);
                assert!(drawn.is_empty() || drawn.len() == space.draws_per_sample() as usize);
                augmented += u32::from(!drawn.is_empty());
            }
            let expected = f64::from(SAMPLES) * total_probability;
            // Four standard deviations; exact at the ends.
            let tolerance = 4.0 * (expected * (1.0 - total_probability)).sqrt();
            assert!((f64::from(augmented) - expected).abs() <= tolerance);
        }
    }

    /// The draws of one sample are independent: all pairs are equally likely.
    #[test]
    fn draws_of_a_sample_are_independent() {
        let (space, sampler) = uniform_sampler("sanity", 1.0);
        let kinds = space.len();
        let mut pairs = vec![0u32; kinds * kinds];
        let mut drawn = Vec::new();
        const SAMPLES: u64 = 100_000;
        for index in 0..SAMPLES {
            sampler.draw(&mut rng(index), &mut drawn);
            let position = |operation: &Operation| {
                space
                    .plain_operations()
                    .unwrap()
                    .iter()
                    .position(|candidate| candidate.kind() == operation.kind())
                    .unwrap()
            };
            pairs[position(&drawn[0]) * kinds + position(&drawn[1])] += 1;
        }
        let expected = SAMPLES as f64 / pairs.len() as f64;
        let chi_square: f64 = pairs
            .iter()
            .map(|&count| (f64::from(count) - expected).powi(2) / expected)
            .sum();
        // Mean + 4 standard deviations of chi-square with n degrees of freedom.
        let freedom = (pairs.len() - 1) as f64;
        assert!(chi_square < freedom + 4.0 * (2.0 * freedom).sqrt());
    }

    #[test]
    fn random_signs_are_fair_and_fixed_ones_stay() {
        let translate = |sign| Operation::TranslateX {
            offset: Extent::Pixels(3.0),
            rounding: Rounding::None,
            sign,
            warp: Warp::default(),
        };
        let mut mirrored = 0u32;
        const SAMPLES: u32 = 20_000;
        for index in 0..SAMPLES {
            let random = translate(SignRule::Random);
            let resolved = resolve_sign(&random, &mut rng(u64::from(index)));
            if resolved == random.mirrored() {
                mirrored += 1;
            } else {
                assert_eq!(resolved, random);
            }
            let fixed = translate(SignRule::Fixed);
            assert_eq!(resolve_sign(&fixed, &mut rng(u64::from(index))), fixed);
        }
        let deviation = (f64::from(mirrored) - f64::from(SAMPLES) / 2.0).abs();
        assert!(deviation < 4.0 * (f64::from(SAMPLES) / 4.0).sqrt());
    }

    fn sampler_of(entries: Vec<Entry>, draws: u32) -> PolicySampler {
        let count = entries.len();
        let space = SearchSpace::of_entries("test", draws, entries).unwrap();
        let snapshot = Snapshot::new(1.0, vec![1.0 / count as f64; count]).unwrap();
        PolicySampler::new(&space, &snapshot, 1.0).unwrap()
    }

    /// Pearson's statistic of `counts` against `shares` of `total`.
    fn chi_square(counts: &[u32], shares: &[f64], total: u32) -> f64 {
        let one = |(&count, &share): (&u32, &f64)| {
            let expected = share * f64::from(total);
            (f64::from(count) - expected).powi(2) / expected
        };
        counts.iter().zip(shares).map(one).sum()
    }

    /// Two sequences of three steps, two draws: each of the 2 * 8 outcomes of
    /// a draw comes up as often as the product of its steps' probabilities.
    #[test]
    fn steps_fire_each_with_its_own_probability() {
        let steps = |kinds: [Operation; 3], probabilities: [f64; 3]| {
            let steps = probabilities
                .iter()
                .zip(kinds)
                .map(|(&probability, kind)| Step::new(probability, kind).unwrap());
            Entry::sequence(steps.collect()).unwrap()
        };
        let probabilities = [[0.1, 0.6, 0.9], [0.5, 0.2, 0.7]];
        let first = [Operation::Invert, Operation::FlipLR, Operation::Equalize];
        let second = [Operation::Blur, Operation::FlipUD, Operation::Smooth];
        let sampler = sampler_of(
            vec![
                steps(first, probabilities[0]),
                steps(second, probabilities[1]),
            ],
            1,
        );
        const SAMPLES: u32 = 200_000;
        // Outcome: which of the steps fired; an empty one may be of either sequence.
        let mut counts = [0u32; 15];
        let mut drawn = Vec::new();
        for index in 0..SAMPLES {
            sampler.draw(&mut rng(u64::from(index)), &mut drawn);
            let bits = |kinds: &[Operation; 3]| {
                kinds
                    .iter()
                    .enumerate()
                    .filter(|(_, kind)| drawn.contains(kind))
                    .map(|(bit, _)| 1 << bit)
                    .sum::<usize>()
            };
            let (a, b) = (bits(&first), bits(&second));
            assert!(a == 0 || b == 0);
            counts[if b == 0 { a } else { 7 + b }] += 1;
        }
        let chance = |sequence: usize, outcome: usize| -> f64 {
            let of = |bit: usize| match (outcome >> bit & 1, probabilities[sequence][bit]) {
                (1, probability) => probability,
                (_, probability) => 1.0 - probability,
            };
            0.5 * of(0) * of(1) * of(2)
        };
        let shares: Vec<f64> = (0..15)
            .map(|outcome| match outcome {
                0 => chance(0, 0) + chance(1, 0),
                1..8 => chance(0, outcome),
                _ => chance(1, outcome - 7),
            })
            .collect();
        // 99.99 % quantile with 14 degrees of freedom.
        assert!(chi_square(&counts, &shares, SAMPLES) < 42.6, "{counts:?}");
    }

    /// Certain steps always fire, impossible ones never, and the order is kept.
    #[test]
    fn certain_and_impossible_steps() {
        let steps = vec![
            Step::new(1.0, Operation::Invert).unwrap(),
            Step::new(0.0, Operation::Blur).unwrap(),
            Step::new(1.0, Operation::FlipLR).unwrap(),
        ];
        let sampler = sampler_of(vec![Entry::sequence(steps).unwrap()], 2);
        let mut drawn = Vec::new();
        for index in 0..1000 {
            sampler.draw(&mut rng(index), &mut drawn);
            let pair = [Operation::Invert, Operation::FlipLR];
            assert_eq!(drawn, [pair, pair].concat());
        }
    }

    fn rotation(distribution: Distribution, limits: (Option<f64>, Option<f64>)) -> Entry {
        let rotate = Operation::Rotate {
            degrees: 0.0,
            sign: SignRule::Random,
            warp: Warp::default(),
        };
        let variation =
            Variation::new(Argument::Degrees, distribution, limits, Round::None).unwrap();
        Candidate::varied(rotate, variation).unwrap().into()
    }

    /// Sizes of the drawn angles, sorted; positive and negative ones are equally frequent.
    fn angles(entry: Entry, samples: u32) -> Vec<f64> {
        let sampler = sampler_of(vec![entry], 1);
        let mut drawn = Vec::new();
        let mut angles = Vec::new();
        let mut positive = 0u32;
        for index in 0..samples {
            sampler.draw(&mut rng(u64::from(index)), &mut drawn);
            let [Operation::Rotate { degrees, .. }] = drawn[..] else {
                panic!("{drawn:?}");
            };
            positive += u32::from(degrees > 0.0);
            angles.push(degrees.abs());
        }
        let half = f64::from(samples) / 2.0;
        assert!((f64::from(positive) - half).abs() < 4.0 * (half / 2.0).sqrt());
        angles.sort_by(f64::total_cmp);
        angles
    }

    /// Kolmogorov and Smirnov's distance of the sorted `values` from a distribution function.
    fn ks_distance(values: &[f64], function: impl Fn(f64) -> f64) -> f64 {
        let count = values.len() as f64;
        values
            .iter()
            .enumerate()
            .map(|(rank, &value)| {
                let expected = function(value);
                (expected - rank as f64 / count)
                    .abs()
                    .max((expected - (rank + 1) as f64 / count).abs())
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn uniform_arguments_are_uniform() {
        const SAMPLES: u32 = 100_000;
        let distribution = Distribution::Uniform {
            low: 3.0,
            high: 30.0,
        };
        let angles = angles(rotation(distribution, (None, None)), SAMPLES);
        // 99.99 % quantile of the distance: 2.23 / sqrt(n).
        let distance = ks_distance(&angles, |angle| (angle - 3.0) / 27.0);
        assert!(distance < 2.23 / f64::from(SAMPLES).sqrt(), "{distance}");
        assert!(angles[0] >= 3.0 && angles[angles.len() - 1] <= 30.0);
    }

    #[test]
    fn normal_arguments_are_normal_and_limited() {
        const SAMPLES: u32 = 100_000;
        let distribution = Distribution::Normal {
            mean: 27.0,
            std: 3.0,
        };
        let angles = angles(rotation(distribution, (Some(0.0), Some(30.0))), SAMPLES);
        // Everything beyond one standard deviation above is cut to 30.
        let below = angles.partition_point(|&angle| angle < 30.0);
        let beyond = f64::from(SAMPLES) - below as f64;
        let expected = 0.158_655_253_931_457_05;
        let deviation = (f64::from(SAMPLES) * expected * (1.0 - expected)).sqrt();
        assert!((beyond - f64::from(SAMPLES) * expected).abs() < 4.0 * deviation);
        assert!(angles[below..].iter().all(|&angle| angle == 30.0));
        // The rest follows the bell up to there. Its distribution function by Simpson's rule.
        let density = |z: f64| (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let normal = |z: f64| {
            const PANELS: i32 = 2000;
            let h = (z + 9.0) / f64::from(2 * PANELS);
            let sum: f64 = (0..=2 * PANELS)
                .map(|i| {
                    let weight = match i {
                        0 => 1.0,
                        i if i == 2 * PANELS => 1.0,
                        i if i % 2 == 1 => 4.0,
                        _ => 2.0,
                    };
                    weight * density(-9.0 + h * f64::from(i))
                })
                .sum();
            sum * h / 3.0
        };
        // A hundred points are enough to see a distance.
        let far = (1..100)
            .map(|percent| {
                let rank = below * percent / 100;
                let z = (angles[rank] - 27.0) / 3.0;
                (normal(z) / (1.0 - expected) - (rank as f64 + 0.5) / below as f64).abs()
            })
            .fold(0.0, f64::max);
        assert!(far < 2.23 / (below as f64).sqrt(), "{far}");
    }

    /// 4 - trunc(0.4 level) for a level that is normal around 9 (deviation 5) within 0..=10.
    #[test]
    fn rounded_arguments_have_the_right_shares() {
        let variation = Variation::new(
            Argument::Bits,
            Distribution::Normal {
                mean: 0.4,
                std: 2.0,
            },
            (Some(0.0), Some(4.0)),
            Round::Ceil,
        )
        .unwrap();
        let candidate = Candidate::varied(Operation::Posterize { bits: 0 }, variation).unwrap();
        let sampler = sampler_of(vec![candidate.into()], 1);
        const SAMPLES: u32 = 100_000;
        let mut counts = [0u32; 5];
        let mut drawn = Vec::new();
        for index in 0..SAMPLES {
            sampler.draw(&mut rng(u64::from(index)), &mut drawn);
            let [Operation::Posterize { bits }] = drawn[..] else {
                panic!("{drawn:?}");
            };
            counts[usize::from(bits)] += 1;
        }
        // Normal distribution function at (bits - 0.4) / 2, from SciPy.
        let below = [
            0.420_740_290_560_897,
            0.617_911_422_188_953,
            0.788_144_601_416_603,
            0.903_199_515_414_390,
            1.0,
        ];
        let shares: Vec<f64> = (0..5)
            .map(|bits| below[bits] - if bits == 0 { 0.0 } else { below[bits - 1] })
            .collect();
        // 99.99 % quantile with 4 degrees of freedom.
        assert!(chi_square(&counts, &shares, SAMPLES) < 23.5, "{counts:?}");
    }

    /// What a policy of plain operations draws must not change from version to version.
    #[test]
    fn plain_policies_draw_what_they_always_drew() {
        let (space, sampler) = uniform_sampler("paper68", 0.8);
        let mut drawn = Vec::new();
        let mut text = String::new();
        for index in 0..2000 {
            sampler.draw(&mut rng(index), &mut drawn);
            for operation in &drawn {
                text += &operation.label();
            }
        }
        assert_eq!(space.len(), 68);
        // FNV-1a of the text.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        assert_eq!(hash, 0x15fd_6788_17a7_28db);
    }

    #[test]
    fn wrong_inputs_are_named() {
        let space = SearchSpace::named("sanity").unwrap();
        let other = Snapshot::new(0.5, vec![0.5, 0.5]).unwrap();
        let error = PolicySampler::new(&space, &other, 0.5).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sanity") && text.contains("2 "), "{text}");
        let snapshot = Snapshot::new(0.5, vec![1.0 / 19.0; space.len()]).unwrap();
        for wrong in [-0.1, 1.1, f64::NAN] {
            assert!(PolicySampler::new(&space, &snapshot, wrong).is_err());
        }
    }
}
