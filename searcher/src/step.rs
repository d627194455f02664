//! One meta-gradient step: the network along the expected gradient, then the policy's gradient.

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use crate::dead_gradient::GradientNorms;
use crate::error::{Error, Result};
use crate::meta_gradient::{Branch, MetaGradient, meta_gradient};
use crate::networks::Network;
use crate::policy_parameters::PolicyParameters;

/// How the losses of a batch's samples become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossReduction {
    /// Their sum, as in the authors' CIFAR code: a learning rate as many times larger as the
    /// batch is long.
    Sum,
    /// Their mean.
    Mean,
}

/// What one step learns from. Images are batch x 3 x height x width, normalised; labels i64.
#[derive(Debug)]
pub struct StepBatch {
    /// The training batch without augmentation by a policy.
    pub plain: Tensor,
    /// The same samples augmented, one copy per drawn policy.
    pub branches: Vec<Tensor>,
    /// Labels of the training batch.
    pub labels: Tensor,
    /// The drawn policies: indices into the search space, in the order applied.
    pub policies: Vec<Vec<usize>>,
    /// The validation batch.
    pub validation: Tensor,
    /// Its labels.
    pub validation_labels: Tensor,
}

/// The network's optimiser: stochastic gradient descent as PyTorch defines it.
#[derive(Debug)]
pub struct Sgd {
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
    velocity: Option<Tensor>,
}

impl Sgd {
    /// Without momentum and weight decay when both are 0.
    pub fn new(momentum: f64, nesterov: bool, weight_decay: f64) -> Self {
        Self {
            momentum,
            nesterov,
            weight_decay,
            velocity: None,
        }
    }

    /// The accumulated gradients; none before the first step or without momentum.
    pub fn velocity(&self) -> Option<&Tensor> {
        self.velocity.as_ref()
    }

    /// Continues with a checkpoint's velocity.
    pub fn restore(&mut self, velocity: Option<Tensor>) {
        self.velocity = velocity;
    }

    /// Moves the parameters against `gradient` (in the order of `Parameters::flat`), which is
    /// used up.
    fn update(&mut self, network: &Network, mut gradient: Tensor, rate: f64) -> Result<()> {
        let mut values = network.parameters().flat().shallow_clone();
        if self.weight_decay != 0.0 {
            let _ = gradient.f_add_(&values.f_mul_scalar(self.weight_decay)?)?;
        }
        if self.momentum != 0.0 {
            let velocity = match self.velocity.take() {
                None => {
                    let mut first = gradient.f_empty_like()?;
                    first.f_copy_(&gradient)?;
                    first
                }
                Some(mut velocity) => {
                    let _ = velocity.f_mul_scalar_(self.momentum)?;
                    let _ = velocity.f_add_(&gradient)?;
                    velocity
                }
            };
            if self.nesterov {
                let _ = gradient.f_add_(&velocity.f_mul_scalar(self.momentum)?)?;
            } else {
                gradient.f_copy_(&velocity)?;
            }
            self.velocity = Some(velocity);
        }
        let _ = values.f_sub_(&gradient.f_mul_scalar_(rate)?)?;
        Ok(())
    }
}

/// The numbers of a step that do not depend on the data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepOptions {
    /// Step size of the network's update.
    pub learning_rate: f64,
    /// How sample losses are put together.
    pub reduction: LossReduction,
    /// Factor of the policy's gradient: the learning rate in the paper's equations 16 and 17,
    /// 1 in the authors' code.
    pub meta_scale: f64,
    /// Whether a branch's advantage is its inner product with the validation gradient less the
    /// plain batch's (equation 9), or that inner product alone.
    pub subtract_plain: bool,
}

/// What a step found.
#[derive(Debug, Clone, PartialEq)]
pub struct StepOutcome {
    /// Loss of the plain batch before the update; mean over samples, as the other losses.
    pub plain_loss: f64,
    /// Loss of each augmented copy before the update.
    pub branch_losses: Vec<f64>,
    /// Loss of the validation batch after the update.
    pub validation_loss: f64,
    /// Correct predictions in the validation batch after the update; none for a network that
    /// gives losses instead of logits.
    pub validation_correct: Option<u64>,
    /// `<g_val, g_plain>`.
    pub plain_dot: f64,
    /// `<g_val, g_branch>` per branch.
    pub branch_dots: Vec<f64>,
    /// How large the gradients were.
    pub norms: GradientNorms,
    /// The policy's gradient.
    pub gradient: MetaGradient,
}

/// Updates the network with the expected gradient under the policy (equation 6) and returns the
/// gradient of the validation loss after that update with respect to the policy (equations 9
/// to 17). The policy itself is not changed.
///
/// On an accelerator, the host waits for the device once, at the end.
///
/// # Errors
/// [`Error::Invalid`] when there are not as many branches as policies or an operation lies outside
/// the policy; [`Error::NotFinite`] when a loss or inner product is not finite (the network has
/// diverged); [`Error::Torch`] when shapes or devices do not fit or memory runs out.
pub fn meta_step(
    network: &Network,
    sgd: &mut Sgd,
    policy: &PolicyParameters,
    batch: &StepBatch,
    options: &StepOptions,
) -> Result<StepOutcome> {
    if batch.branches.len() != batch.policies.len() {
        return Err(Error::Invalid(format!(
            "{} augmented copies for {} policies",
            batch.branches.len(),
            batch.policies.len()
        )));
    }
    let shares = policy.branch_weights(&batch.policies)?.shares;
    let total = policy.total_probability();

    let reduction = match options.reduction {
        LossReduction::Sum => Reduction::Sum,
        LossReduction::Mean => Reduction::Mean,
    };
    let copies: Vec<&Tensor> = std::iter::once(&batch.plain)
        .chain(&batch.branches)
        .collect();
    // One row per copy: the expected gradient and the inner products are matrix products.
    let training = network.differentiate(&copies, &batch.labels, reduction)?;
    let gradients = training.gradients;

    tch::no_grad(|| -> Result<()> {
        let mut weights = vec![1.0 - total];
        weights.extend(shares.iter().map(|share| total * share));
        let weights = like(&weights, &gradients)?;
        let expected = weights.f_matmul(&gradients)?;
        sgd.update(network, expected, options.learning_rate)
    })?;

    let validation =
        network.differentiate(&[&batch.validation], &batch.validation_labels, reduction)?;
    let validation_gradient = validation.gradients.f_reshape([-1])?;

    let numbers: Vec<f64> = tch::no_grad(|| -> Result<Vec<f64>> {
        // Equation 9 needs the differences to the plain copy; taken before the product, they
        // keep the digits that two nearly equal inner products would lose.
        let plain = gradients.f_narrow(0, 0, 1)?;
        let differences = gradients
            .f_narrow(0, 1, shares.len() as i64)?
            .f_sub(&plain)?;
        let weights = network.parameters().flat();
        let parts = [
            training.losses.f_to_kind(Kind::Double)?,
            validation.losses.f_to_kind(Kind::Double)?,
            plain
                .f_matmul(&validation_gradient)?
                .f_to_kind(Kind::Double)?,
            differences
                .f_matmul(&validation_gradient)?
                .f_to_kind(Kind::Double)?,
            square(&plain.f_reshape([-1])?)?,
            square(&validation_gradient)?,
            square(weights)?,
        ];
        let mut parts = Vec::from(parts);
        if let Some(correct) = &validation.correct {
            parts.push(correct.f_reshape([1])?.f_to_kind(Kind::Double)?);
        }
        Ok(Vec::try_from(Tensor::f_cat(&parts, 0)?)?)
    })?;
    read_outcome(&numbers, policy, batch, options)
}

/// Takes apart the numbers that came back from the device: losses, plain inner product,
/// differences to it, squared norms, correct predictions.
fn read_outcome(
    numbers: &[f64],
    policy: &PolicyParameters,
    batch: &StepBatch,
    options: &StepOptions,
) -> Result<StepOutcome> {
    let count = batch.policies.len();
    let (losses, rest) = numbers.split_at(count + 2);
    let mean = |loss: f64, samples: &Tensor| match options.reduction {
        LossReduction::Mean => loss,
        LossReduction::Sum => loss / samples.numel() as f64,
    };
    let (plain_dot, differences) = (rest[0], &rest[1..=count]);
    let squares = &rest[count + 1..count + 4];
    for (what, values) in [
        ("a training loss", &losses[..=count]),
        ("the validation loss", &losses[count + 1..]),
        ("an inner product of gradients", &rest[..=count]),
    ] {
        if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
            return Err(Error::NotFinite { what, value });
        }
    }
    let branches: Vec<Branch> = batch
        .policies
        .iter()
        .zip(differences)
        .map(|(operations, &difference)| Branch {
            operations: operations.clone(),
            advantage: match options.subtract_plain {
                true => difference,
                false => plain_dot + difference,
            },
        })
        .collect();
    Ok(StepOutcome {
        plain_loss: mean(losses[0], &batch.labels),
        branch_losses: losses[1..=count]
            .iter()
            .map(|&loss| mean(loss, &batch.labels))
            .collect(),
        validation_loss: mean(losses[count + 1], &batch.validation_labels),
        validation_correct: rest.get(count + 4).map(|&correct| correct as u64),
        plain_dot,
        branch_dots: differences
            .iter()
            .map(|difference| plain_dot + difference)
            .collect(),
        norms: GradientNorms {
            training: squares[0].sqrt(),
            validation: squares[1].sqrt(),
            weights: squares[2].sqrt(),
        },
        gradient: meta_gradient(policy, &branches, options.meta_scale)?,
    })
}

/// The squared norm of a vector, as a vector of one.
fn square(vector: &Tensor) -> Result<Tensor> {
    Ok(vector
        .f_dot(vector)?
        .f_reshape([1])?
        .f_to_kind(Kind::Double)?)
}

/// A vector of the kind and on the device of another tensor.
fn like(values: &[f64], other: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(values)?
        .f_to_kind(other.f_kind()?)?
        .f_to_device(other.device())?)
}

#[cfg(test)]
mod tests;
