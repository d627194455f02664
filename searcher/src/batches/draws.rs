//! What a step draws: its samples and its policies.

use ddas_formats::SearchSpace;
use ddas_runtime::{SampleRng, Stream};

use crate::config::Config;
use crate::split::shuffle;

/// Draws of every step, each from the seed and its place alone.
#[derive(Debug)]
pub(super) struct Draws {
    seed: u64,
    samples: usize,
    batch: usize,
    branches: usize,
    choices: u32,
    per_policy: usize,
    exploit_probability: f64,
}

impl Draws {
    /// Draws of batches out of `samples` training samples.
    pub(super) fn new(config: &Config, space: &SearchSpace, samples: usize) -> Self {
        Self {
            seed: config.seed,
            samples,
            batch: config.train_batch as usize,
            branches: config.branches as usize,
            choices: space.len() as u32,
            per_policy: space.draws_per_sample() as usize,
            exploit_probability: config.exploit_probability,
        }
    }

    /// Where the batch's samples stand in the training samples: a part of the epoch's shuffle.
    pub(super) fn positions(&self, epoch: u32, step: u32) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.samples).collect();
        shuffle(
            &mut order,
            &mut SampleRng::new(self.seed, epoch, 0, Stream::Order),
        );
        let start = step as usize * self.batch;
        order.into_iter().skip(start).take(self.batch).collect()
    }

    /// The step's policies; none where one is drawn from probabilities that are not known.
    ///
    /// Without `exploit_probability` no number is drawn for the choice between the two, so that
    /// searches from before there was one keep their draws.
    pub(super) fn policies(
        &self,
        epoch: u32,
        step: u32,
        probabilities: Option<&[f64]>,
    ) -> Option<Vec<Vec<usize>>> {
        let mut rng = SampleRng::new(self.seed, epoch, u64::from(step), Stream::Policy);
        let mut policies = Vec::with_capacity(self.branches);
        for _ in 0..self.branches {
            let exploits =
                self.exploit_probability > 0.0 && rng.uniform() < self.exploit_probability;
            let mut policy = Vec::with_capacity(self.per_policy);
            for _ in 0..self.per_policy {
                policy.push(match exploits {
                    true => weighted(probabilities?, rng.uniform()),
                    false => rng.below(self.choices) as usize,
                });
            }
            policies.push(policy);
        }
        Some(policies)
    }
}

/// The index whose share of the line from 0 to 1 holds `place`.
fn weighted(probabilities: &[f64], place: f64) -> usize {
    let mut end = 0.0;
    for (index, probability) in probabilities.iter().enumerate() {
        end += probability;
        if place < end {
            return index;
        }
    }
    // The sum may stay below 1 by its rounding.
    let possible = probabilities.iter().rposition(|&p| p > 0.0);
    possible.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(exploit_probability: &str) -> (Draws, usize) {
        let mut config = Config::preset("sanity").unwrap();
        config
            .set(&format!("exploit_probability={exploit_probability}"))
            .unwrap();
        let space = config.resolve_search_space().unwrap();
        (Draws::new(&config, &space, 2000), space.len())
    }

    /// Within five standard deviations of what the chances let expect; draws are fixed by seeds.
    fn assert_counts(counts: &[u32], chances: &[f64]) {
        let total = f64::from(counts.iter().sum::<u32>());
        let chi_square: f64 = counts
            .iter()
            .zip(chances)
            .map(|(&count, chance)| (f64::from(count) - chance * total).powi(2) / (chance * total))
            .sum();
        let freedom = counts.len() as f64 - 1.0;
        assert!(
            chi_square < freedom + 5.0 * (2.0 * freedom).sqrt(),
            "{chi_square}: {counts:?}"
        );
    }

    #[test]
    fn policies_are_drawn_uniformly() {
        let (draws, operations) = draws("0");
        let mut counts = vec![0; operations];
        for step in 0..2000 {
            for policy in draws.policies(0, step, None).unwrap() {
                assert_eq!(policy.len(), 2);
                policy.iter().for_each(|&index| counts[index] += 1);
            }
        }
        assert_counts(&counts, &vec![1.0 / operations as f64; operations]);
    }

    #[test]
    fn a_share_of_the_policies_is_drawn_from_the_probabilities() {
        let (draws, operations) = draws("0.25");
        // Operation 3 three times as probable as 5, and nothing else.
        let mut probabilities = vec![0.0; operations];
        (probabilities[3], probabilities[5]) = (0.75, 0.25);
        let (mut counts, mut waiting) = (vec![0; operations], 0);
        for step in 0..4000 {
            waiting += u32::from(draws.policies(2, step, None).is_none());
            for policy in draws.policies(2, step, Some(&probabilities)).unwrap() {
                policy.iter().for_each(|&index| counts[index] += 1);
            }
        }
        let chances: Vec<f64> = probabilities
            .iter()
            .map(|p| 0.75 / operations as f64 + 0.25 * p)
            .collect();
        // Both draws of a policy go together: as many independent ones as there are policies.
        let halves: Vec<u32> = counts.iter().map(|count| count / 2).collect();
        assert_counts(&halves, &chances);
        // A step waits when any of its three policies is drawn so.
        let none = 0.75_f64.powi(3);
        assert_counts(&[waiting, 4000 - waiting], &[1.0 - none, none]);
    }

    #[test]
    fn policies_that_are_not_drawn_from_probabilities_do_not_depend_on_them() {
        let (draws, operations) = draws("0.1");
        let uniform = vec![1.0 / operations as f64; operations];
        let mut certain = vec![0.0; operations];
        certain[7] = 1.0;
        let mut differing = 0;
        for step in 0..300 {
            let policies = [&uniform, &certain].map(|p| draws.policies(0, step, Some(p)).unwrap());
            for (one, other) in policies[0].iter().zip(&policies[1]) {
                if one != other {
                    assert_eq!(*other, [7, 7]);
                    differing += 1;
                }
            }
            if let Some(known) = draws.policies(0, step, None) {
                assert_eq!(known, policies[0]);
            }
        }
        assert!(
            (50..150).contains(&differing),
            "{differing} of 900, 90 expected"
        );
    }

    #[test]
    fn a_place_on_the_line_names_its_operation() {
        let probabilities = [0.0, 0.5, 0.0, 0.25, 0.25, 0.0];
        for (place, index) in [
            (0.0, 1),
            (0.49, 1),
            (0.5, 3),
            (0.74, 3),
            (0.75, 4),
            (1.0, 4),
        ] {
            assert_eq!(weighted(&probabilities, place), index, "{place}");
        }
    }
}
