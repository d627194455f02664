//! Drawing operations with the probabilities of one snapshot.

use ddas_formats::{Operation, SearchSpace, SignRule, Snapshot};

use crate::error::{Error, Result};
use crate::rng::SampleRng;

/// One snapshot compiled for drawing.
///
/// A sample is augmented with the total probability, all or nothing; then each
/// of its `draws_per_sample` operations is drawn from the operation
/// probabilities, with replacement, and each drawn operation of random sign
/// is mirrored with probability 1/2 (DDAS, section 3.1).
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
/// assert_eq!(drawn, [space.operations()[5]; 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PolicySampler {
    total_probability: f64,
    draws_per_sample: u32,
    operations: Vec<Operation>,
    /// Running sums of the operation probabilities: operation `i` owns the
    /// half-open interval from the sum before it to its own.
    cumulative: Vec<f64>,
    /// The last operation that has a probability at all.
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
            operations: search_space.operations().to_vec(),
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
    /// are to be applied and with their sign resolved; leaves it empty when the
    /// sample is not augmented.
    pub fn draw(&self, rng: &mut SampleRng, drawn: &mut Vec<Operation>) {
        drawn.clear();
        if rng.uniform() >= self.total_probability {
            return;
        }
        for _ in 0..self.draws_per_sample {
            let operation = &self.operations[self.draw_index(rng)];
            drawn.push(resolve_sign(operation, rng));
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
    use ddas_formats::{Extent, Rounding, Warp};

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
                    .operations()
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
