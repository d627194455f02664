//! What a search learns: the logits of the policy's two kinds of probabilities.

use crate::error::{Error, Result};

/// The logits behind a policy: one for the total probability, one per operation.
///
/// The total probability is the sigmoid of its logit, the operation
/// probabilities are the softmax of theirs (paper, section 3.2).
///
/// ```
/// use ddas_search::PolicyParameters;
///
/// let parameters = PolicyParameters::uniform(4, 0.35)?;
/// assert!((parameters.total_probability() - 0.35).abs() < 1e-15);
/// assert_eq!(parameters.operation_probabilities(), [0.25; 4]);
/// # Ok::<(), ddas_search::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyParameters {
    total_logit: f64,
    operation_logits: Vec<f64>,
}

/// How the copies of a batch made by a few drawn policies enter the expected gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct BranchWeights {
    /// Sum of the policies' probabilities, `Z` of equation 12.
    pub z: f64,
    /// `P(phi_l) / Z` per policy; sums to one.
    pub shares: Vec<f64>,
}

/// A logit at which the sigmoid is exactly 1, and at its negative exactly 0.
const SATURATED: f64 = 800.0;

impl PolicyParameters {
    /// Takes both kinds of logits as they are.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no operation or a logit is not finite.
    pub fn new(total_logit: f64, operation_logits: Vec<f64>) -> Result<Self> {
        if operation_logits.is_empty() {
            return Err(Error::Invalid(
                "a policy needs at least one operation".to_owned(),
            ));
        }
        if !total_logit.is_finite() {
            return Err(Error::Invalid(format!(
                "the logit of the total probability must be finite, not {total_logit}"
            )));
        }
        if let Some(index) = operation_logits.iter().position(|logit| !logit.is_finite()) {
            return Err(Error::Invalid(format!(
                "the logit of operation {index} must be finite, not {}",
                operation_logits[index]
            )));
        }
        Ok(Self {
            total_logit,
            operation_logits,
        })
    }

    /// All `operations` equally probable, with a given total probability: where a search begins.
    ///
    /// At 0 and 1 the total probability has no gradient: it stays there.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `operations` is 0 or `total_probability` is not from 0 to 1.
    pub fn uniform(operations: usize, total_probability: f64) -> Result<Self> {
        let logit = match total_probability {
            // Finite, and so far out that the sigmoid is 0 and 1 in f64.
            0.0 => -SATURATED,
            1.0 => SATURATED,
            total if total > 0.0 && total < 1.0 => (total / (1.0 - total)).ln(),
            other => {
                return Err(Error::Invalid(format!(
                    "the initial total probability must lie from 0 to 1, not {other}"
                )));
            }
        };
        Self::new(logit, vec![0.0; operations])
    }

    /// Logit of the total probability.
    pub fn total_logit(&self) -> f64 {
        self.total_logit
    }

    /// Logits of the operation probabilities, in the order of the search space.
    pub fn operation_logits(&self) -> &[f64] {
        &self.operation_logits
    }

    /// For the optimiser, which adds finite numbers to both.
    pub(crate) fn logits_mut(&mut self) -> (&mut f64, &mut [f64]) {
        (&mut self.total_logit, &mut self.operation_logits)
    }

    /// Chance that a sample is augmented at all, between 0 and 1.
    pub fn total_probability(&self) -> f64 {
        1.0 / (1.0 + (-self.total_logit).exp())
    }

    /// Chance of each operation per draw; sums to one.
    pub fn operation_probabilities(&self) -> Vec<f64> {
        self.log_probabilities().into_iter().map(f64::exp).collect()
    }

    /// Probability `P(phi)` that the draws of one sample give exactly `operations`, in this order
    /// (equation 3): the product of their probabilities.
    ///
    /// # Errors
    /// [`Error::Invalid`] when an index lies outside the search space.
    pub fn policy_probability(&self, operations: &[usize]) -> Result<f64> {
        let logs = self.log_probabilities();
        Ok(log_probability(&logs, operations)?.exp())
    }

    /// The share of each drawn policy among all of them (equations 11 and 12).
    ///
    /// Computed from logarithms, so that probabilities too small for a product still have
    /// their correct shares.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no policy or an index lies outside the search space.
    pub fn branch_weights<P: AsRef<[usize]>>(&self, policies: &[P]) -> Result<BranchWeights> {
        let logs = self.log_probabilities();
        let policies = policies
            .iter()
            .map(|operations| log_probability(&logs, operations.as_ref()))
            .collect::<Result<Vec<_>>>()?;
        let largest = policies.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if largest == f64::NEG_INFINITY {
            return Err(Error::Invalid(
                "a step needs at least one drawn policy".to_owned(),
            ));
        }
        let relative: Vec<f64> = policies.iter().map(|log| (log - largest).exp()).collect();
        let sum: f64 = relative.iter().sum();
        Ok(BranchWeights {
            z: largest.exp() * sum,
            shares: relative.into_iter().map(|value| value / sum).collect(),
        })
    }

    fn log_probabilities(&self) -> Vec<f64> {
        let largest = self
            .operation_logits
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = self
            .operation_logits
            .iter()
            .map(|logit| (logit - largest).exp())
            .sum();
        let log_sum = sum.ln();
        self.operation_logits
            .iter()
            .map(|logit| logit - largest - log_sum)
            .collect()
    }
}

fn log_probability(logs: &[f64], operations: &[usize]) -> Result<f64> {
    let mut total = 0.0;
    for &operation in operations {
        total += logs.get(operation).ok_or_else(|| {
            Error::Invalid(format!(
                "operation {operation} is outside the search space of {} operations",
                logs.len()
            ))
        })?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_match_hand_computed_numbers() {
        let parameters =
            PolicyParameters::new(-3.0_f64.ln(), vec![0.0, 2.0_f64.ln(), 5.0_f64.ln()]).unwrap();
        assert!((parameters.total_probability() - 0.25).abs() < 1e-15);
        let expected = [1.0 / 8.0, 2.0 / 8.0, 5.0 / 8.0];
        for (got, wanted) in parameters.operation_probabilities().iter().zip(expected) {
            assert!((got - wanted).abs() < 1e-15, "{got} against {wanted}");
        }
        let probability = parameters.policy_probability(&[1, 2]).unwrap();
        assert!((probability - 10.0 / 64.0).abs() < 1e-15);
        assert_eq!(parameters.policy_probability(&[]).unwrap(), 1.0);
    }

    #[test]
    fn shares_are_the_policies_parts_of_z() {
        let parameters = PolicyParameters::new(0.0, vec![0.0, 2.0_f64.ln(), 5.0_f64.ln()]).unwrap();
        let weights = parameters
            .branch_weights(&[[0, 0], [1, 2], [2, 2]])
            .unwrap();
        // 1/64, 10/64 and 25/64.
        assert!((weights.z - 36.0 / 64.0).abs() < 1e-15);
        for (share, wanted) in weights
            .shares
            .iter()
            .zip([1.0 / 36.0, 10.0 / 36.0, 25.0 / 36.0])
        {
            assert!((share - wanted).abs() < 1e-15);
        }
    }

    #[test]
    fn shares_survive_probabilities_below_the_smallest_float() {
        let parameters = PolicyParameters::new(0.0, vec![0.0, -800.0, -801.0]).unwrap();
        let weights = parameters.branch_weights(&[[1, 1], [1, 2]]).unwrap();
        let wanted = 1.0 / (1.0 + (-1.0_f64).exp());
        assert!((weights.shares[0] - wanted).abs() < 1e-12);
        assert_eq!(weights.z, 0.0);
    }

    #[test]
    fn a_total_probability_of_nothing_or_all_is_exact() {
        for total in [0.0, 1.0] {
            let parameters = PolicyParameters::uniform(3, total).unwrap();
            assert_eq!(parameters.total_probability(), total);
            assert!(parameters.total_logit().is_finite());
        }
    }

    #[test]
    fn what_cannot_be_a_policy_is_refused() {
        assert!(PolicyParameters::new(0.0, vec![]).is_err());
        assert!(PolicyParameters::new(f64::NAN, vec![0.0]).is_err());
        assert!(PolicyParameters::new(0.0, vec![0.0, f64::INFINITY]).is_err());
        for total in [1.1, -0.1, f64::NAN] {
            assert!(PolicyParameters::uniform(3, total).is_err(), "{total}");
        }
        let parameters = PolicyParameters::uniform(3, 0.5).unwrap();
        let error = parameters
            .policy_probability(&[0, 3])
            .unwrap_err()
            .to_string();
        assert!(error.contains("operation 3"), "{error}");
        assert!(parameters.branch_weights::<Vec<usize>>(&[]).is_err());
    }
}
