//! The gradient of the validation loss with respect to the policy, in closed form.
//!
//! A step makes one augmented copy of the training batch per drawn policy ("branch"). Once the
//! network's gradients have been reduced to one inner product per branch, what remains is
//! arithmetic on about seventy numbers: no tensors here.

use crate::error::{Error, Result};
use crate::policy_parameters::PolicyParameters;

/// One augmented copy of the training batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// Indices into the search space, in the order applied.
    pub operations: Vec<usize>,
    /// `<g_branch, g_val> - <g_plain, g_val>`: positive when stepping along the branch instead
    /// of the plain batch lowers the validation loss (equation 9).
    pub advantage: f64,
}

/// The gradient to descend, and the normalisers that went into it.
#[derive(Debug, Clone, PartialEq)]
pub struct MetaGradient {
    /// Sum of the branches' policy probabilities (equation 12).
    pub z: f64,
    /// Sum of the absolute advantages (equation 15).
    pub z_g: f64,
    /// With respect to the operation probabilities, as if they were free (equation 16).
    pub operation_probabilities: Vec<f64>,
    /// With respect to the total probability (equation 17).
    pub total_probability: f64,
    /// The same through the softmax: what Adam descends.
    pub operation_logits: Vec<f64>,
    /// The same through the sigmoid.
    pub total_logit: f64,
}

/// Gradient of `-scale * p_tp * sum_l (a_l / Z_g) * P_l / Z`, where `a_l` is a branch's
/// advantage, `P_l` the product of its operation probabilities, `Z` the sum of all `P_l` (held
/// constant) and `Z_g` the sum of `|a_l|` (equations 14 to 17).
///
/// `scale` is the step size of the network's update where the paper's equations are wanted to
/// the letter, and 1 where the policy's step should not shrink with the learning rate. When
/// every advantage is zero, so is the gradient.
///
/// ```
/// use ddas_search::{Branch, PolicyParameters, meta_gradient};
///
/// let parameters = PolicyParameters::new(0.0, vec![0.0; 3])?;
/// let gradient = meta_gradient(&parameters, &[
///     Branch { operations: vec![0, 0], advantage: 2.0 },
///     Branch { operations: vec![1, 2], advantage: -2.0 },
/// ], 1.0)?;
/// assert!(gradient.operation_logits[0] < 0.0); // descending raises the helpful operation
/// assert!(0.0 < gradient.operation_logits[1]);
/// assert_eq!(gradient.total_logit, 0.0); // the branches cancel
/// # Ok::<(), ddas_search::Error>(())
/// ```
///
/// # Errors
/// [`Error::Invalid`] when there is no branch, an operation lies outside the search space, or an
/// advantage or `scale` is not finite.
pub fn meta_gradient(
    parameters: &PolicyParameters,
    branches: &[Branch],
    scale: f64,
) -> Result<MetaGradient> {
    if !scale.is_finite() {
        return Err(Error::Invalid(format!(
            "the scale must be finite, not {scale}"
        )));
    }
    if let Some(branch) = branches.iter().find(|branch| !branch.advantage.is_finite()) {
        return Err(Error::Invalid(format!(
            "the advantage of the branch {:?} must be finite, not {}",
            branch.operations, branch.advantage
        )));
    }
    let policies: Vec<&[usize]> = branches
        .iter()
        .map(|branch| &branch.operations[..])
        .collect();
    let weights = parameters.branch_weights(&policies)?;
    let probabilities = parameters.operation_probabilities();
    let total = parameters.total_probability();
    let count = probabilities.len();

    // Scaled by the largest advantage first: the sum of several huge ones must not overflow.
    let largest = branches
        .iter()
        .map(|branch| branch.advantage.abs())
        .fold(0.0, f64::max);
    if largest == 0.0 {
        return Ok(MetaGradient {
            z: weights.z,
            z_g: 0.0,
            operation_probabilities: vec![0.0; count],
            total_probability: 0.0,
            operation_logits: vec![0.0; count],
            total_logit: 0.0,
        });
    }
    let relative: f64 = branches
        .iter()
        .map(|branch| branch.advantage.abs() / largest)
        .sum();

    let mut gradient = MetaGradient {
        z: weights.z,
        z_g: largest * relative,
        operation_probabilities: vec![0.0; count],
        total_probability: 0.0,
        operation_logits: vec![0.0; count],
        total_logit: 0.0,
    };
    // d log P_l / d logit_k = (times k is drawn in l) - (draws of l) * p_k, so with the share
    // P_l / Z at hand neither a product of probabilities nor a division by Z is needed.
    let mut spread = 0.0;
    for (branch, share) in branches.iter().zip(&weights.shares) {
        let pull = -scale * (branch.advantage / largest / relative) * share;
        gradient.total_probability += pull;
        for &operation in &branch.operations {
            gradient.operation_logits[operation] += total * pull;
            let probability = probabilities[operation];
            if probability > 0.0 {
                gradient.operation_probabilities[operation] += total * pull / probability;
            }
        }
        spread += total * pull * branch.operations.len() as f64;
    }
    for (logit, probability) in gradient.operation_logits.iter_mut().zip(&probabilities) {
        *logit -= spread * probability;
    }
    gradient.total_logit = gradient.total_probability * total * (1.0 - total);
    Ok(gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(operations: &[usize], advantage: f64) -> Branch {
        Branch {
            operations: operations.to_vec(),
            advantage,
        }
    }

    /// The surrogate whose gradient is wanted, with `Z` and `Z_g` held constant.
    fn surrogate(
        total: f64,
        probabilities: &[f64],
        branches: &[Branch],
        z: f64,
        z_g: f64,
        scale: f64,
    ) -> f64 {
        branches
            .iter()
            .map(|branch| {
                let product: f64 = branch
                    .operations
                    .iter()
                    .map(|&k| probabilities[k])
                    .product();
                -scale * total * branch.advantage * product / (z * z_g)
            })
            .sum()
    }

    fn case() -> (PolicyParameters, Vec<Branch>, f64) {
        let parameters = PolicyParameters::new(-0.619, vec![0.3, -0.2, 0.0, 0.9, -1.1]).unwrap();
        let branches = vec![
            branch(&[0, 3], 0.7),
            branch(&[2, 2], -1.9), // the same operation twice
            branch(&[3, 1], 0.05),
        ];
        (parameters, branches, 0.1)
    }

    #[test]
    fn equals_central_differences_of_the_surrogate() {
        let (parameters, branches, scale) = case();
        let gradient = meta_gradient(&parameters, &branches, scale).unwrap();
        let (z, z_g) = (gradient.z, gradient.z_g);
        let h = 1e-5;

        let at_logits = |total_logit: f64, logits: Vec<f64>| {
            let moved = PolicyParameters::new(total_logit, logits).unwrap();
            let probabilities = moved.operation_probabilities();
            surrogate(
                moved.total_probability(),
                &probabilities,
                &branches,
                z,
                z_g,
                scale,
            )
        };
        let logits = parameters.operation_logits().to_vec();
        for k in 0..logits.len() {
            let (mut up, mut down) = (logits.clone(), logits.clone());
            up[k] += h;
            down[k] -= h;
            let t = parameters.total_logit();
            let difference = (at_logits(t, up) - at_logits(t, down)) / (2.0 * h);
            assert!(
                (difference - gradient.operation_logits[k]).abs() < 1e-10,
                "logit {k}"
            );
        }
        let t = parameters.total_logit();
        let difference =
            (at_logits(t + h, logits.clone()) - at_logits(t - h, logits.clone())) / (2.0 * h);
        assert!((difference - gradient.total_logit).abs() < 1e-10);

        let probabilities = parameters.operation_probabilities();
        let total = parameters.total_probability();
        for k in 0..probabilities.len() {
            let (mut up, mut down) = (probabilities.clone(), probabilities.clone());
            up[k] += h;
            down[k] -= h;
            let difference = (surrogate(total, &up, &branches, z, z_g, scale)
                - surrogate(total, &down, &branches, z, z_g, scale))
                / (2.0 * h);
            assert!(
                (difference - gradient.operation_probabilities[k]).abs() < 1e-9,
                "p_o {k}"
            );
        }
    }

    #[test]
    fn equals_numbers_computed_by_hand() {
        // p_tp = 1/2, p_o = (1/2, 1/4, 1/4); policies {0,1} and {2,2}: P = 1/8 and 1/16,
        // Z = 3/16, shares 2/3 and 1/3; advantages 3 and -1: Z_g = 4.
        let parameters = PolicyParameters::new(0.0, vec![2.0_f64.ln(), 0.0, 0.0]).unwrap();
        let branches = [branch(&[0, 1], 3.0), branch(&[2, 2], -1.0)];
        let gradient = meta_gradient(&parameters, &branches, 1.0).unwrap();
        let close = |got: f64, wanted: f64| assert!((got - wanted).abs() < 1e-14, "{got} {wanted}");
        close(gradient.z, 3.0 / 16.0);
        close(gradient.z_g, 4.0);
        // Pulls: -(3/4)(2/3) = -1/2 and +(1/4)(1/3) = 1/12.
        close(gradient.total_probability, -5.0 / 12.0);
        close(gradient.total_logit, -5.0 / 48.0);
        close(gradient.operation_probabilities[0], -0.5);
        close(gradient.operation_probabilities[1], -1.0);
        close(gradient.operation_probabilities[2], 1.0 / 3.0);
        // Spread: (1/2) * 2 * (-5/12) = -5/12.
        close(gradient.operation_logits[0], -0.25 + 5.0 / 24.0);
        close(gradient.operation_logits[1], -0.25 + 5.0 / 48.0);
        close(gradient.operation_logits[2], 1.0 / 12.0 + 5.0 / 48.0);
    }

    #[test]
    fn softmax_gradient_sums_to_zero_and_ignores_the_advantages_scale() {
        let (parameters, branches, scale) = case();
        let gradient = meta_gradient(&parameters, &branches, scale).unwrap();
        assert!(gradient.operation_logits.iter().sum::<f64>().abs() < 1e-15);

        for factor in [1e-200, 1e3, 1e300] {
            let scaled: Vec<Branch> = branches
                .iter()
                .map(|b| branch(&b.operations, b.advantage * factor))
                .collect();
            let other = meta_gradient(&parameters, &scaled, scale).unwrap();
            for (a, b) in gradient
                .operation_logits
                .iter()
                .zip(&other.operation_logits)
            {
                assert!((a - b).abs() < 1e-15, "{a} {b} at {factor}");
            }
        }
    }

    #[test]
    fn no_difference_between_the_branches_gives_a_zero_gradient() {
        let parameters = PolicyParameters::uniform(3, 0.35).unwrap();
        let branches = [branch(&[0, 1], 0.0), branch(&[2, 2], -0.0)];
        let gradient = meta_gradient(&parameters, &branches, 0.1).unwrap();
        assert_eq!(gradient.z_g, 0.0);
        assert!((gradient.z - 2.0 / 9.0).abs() < 1e-15);
        assert_eq!(gradient.operation_logits, [0.0; 3]);
        assert_eq!(gradient.operation_probabilities, [0.0; 3]);
        assert_eq!(
            (gradient.total_logit, gradient.total_probability),
            (0.0, 0.0)
        );
    }

    #[test]
    fn saturated_probabilities_give_finite_gradients() {
        let parameters = PolicyParameters::new(800.0, vec![0.0, -900.0, -901.0]).unwrap();
        let branches = [branch(&[1, 1], 1.0), branch(&[1, 2], -2.0)];
        let gradient = meta_gradient(&parameters, &branches, 1.0).unwrap();
        assert!(
            gradient
                .operation_logits
                .iter()
                .all(|value| value.is_finite())
        );
        assert!(
            gradient
                .operation_probabilities
                .iter()
                .all(|value| value.is_finite())
        );
        assert_eq!(gradient.total_logit, 0.0);
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        let parameters = PolicyParameters::uniform(3, 0.35).unwrap();
        assert!(meta_gradient(&parameters, &[branch(&[0, 1], f64::NAN)], 1.0).is_err());
        assert!(meta_gradient(&parameters, &[branch(&[0, 1], 1.0)], f64::INFINITY).is_err());
        assert!(meta_gradient(&parameters, &[branch(&[0, 3], 1.0)], 1.0).is_err());
        assert!(meta_gradient(&parameters, &[], 1.0).is_err());
    }
}
