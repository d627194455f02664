//! Steps in which a gradient is too small to mean anything.
//!
//! The policy's gradient is normalised (equation 15): of inner products that are rounding errors
//! it would make a step as long as any other. So such steps are told from the rest.

use serde::{Deserialize, Serialize};

use crate::meta_gradient::MetaGradient;
use crate::step::StepOutcome;

/// A gradient of less than this share of the weights is dead: even at a learning rate of 1 its
/// step is lost in their rounding (6e-8 in f32).
const DEAD: f64 = 1e-8;
/// Inner products of less than this share of the gradients' norms are rounding errors of f32.
const ROUNDING: f64 = 1e-7;

/// Euclidean norms, of sums or means over the samples as the loss is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradientNorms {
    /// Gradient of the plain training batch, before the update.
    pub training: f64,
    /// Gradient of the validation batch, after it.
    pub validation: f64,
    /// The network's parameters, after it.
    pub weights: f64,
}

impl GradientNorms {
    /// Whether the network learns nothing from the training batch.
    pub fn training_is_dead(&self) -> bool {
        self.training <= DEAD * self.weights
    }

    /// Whether the validation batch says nothing about the weights, and so nothing about policies.
    pub fn validation_is_dead(&self) -> bool {
        self.validation <= DEAD * self.weights
    }
}

impl StepOutcome {
    /// Whether the copies differed in their effect on the validation loss by more than rounding.
    pub fn teaches(&self) -> bool {
        let norms = &self.norms;
        let noise = ROUNDING * norms.training * norms.validation * self.branch_dots.len() as f64;
        !norms.validation_is_dead() && self.gradient.z_g > noise
    }
}

impl MetaGradient {
    /// Leaves the policy as it is.
    pub(crate) fn silence(&mut self) {
        self.total_logit = 0.0;
        self.total_probability = 0.0;
        self.operation_logits.fill(0.0);
        self.operation_probabilities.fill(0.0);
    }
}

/// How many steps of an epoch could not teach what they should.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadSteps {
    /// All copies had the same effect on the validation loss (Z_g = 0, or as small as rounding):
    /// the policy learned nothing.
    pub idle_steps: u32,
    /// The network's gradient on the training batch vanished.
    pub dead_training_steps: u32,
    /// The network's gradient on the validation batch vanished; such a step is idle, too.
    pub dead_validation_steps: u32,
    /// No operation probability had a gradient; idle steps are among them.
    pub flat_operation_steps: u32,
}

impl DeadSteps {
    /// Counts a step.
    pub(crate) fn add(&mut self, outcome: &StepOutcome) {
        let flat = |gradient: &[f64]| gradient.iter().all(|&value| value == 0.0);
        self.idle_steps += u32::from(!outcome.teaches());
        self.dead_training_steps += u32::from(outcome.norms.training_is_dead());
        self.dead_validation_steps += u32::from(outcome.norms.validation_is_dead());
        self.flat_operation_steps += u32::from(flat(&outcome.gradient.operation_logits));
    }

    /// The counts of several epochs together.
    pub(crate) fn sum(epochs: impl Iterator<Item = Self>) -> Self {
        epochs.fold(Self::default(), |sum, epoch| Self {
            idle_steps: sum.idle_steps + epoch.idle_steps,
            dead_training_steps: sum.dead_training_steps + epoch.dead_training_steps,
            dead_validation_steps: sum.dead_validation_steps + epoch.dead_validation_steps,
            flat_operation_steps: sum.flat_operation_steps + epoch.flat_operation_steps,
        })
    }

    /// What a user should know of `steps` steps, one sentence each; empty where all is well.
    pub fn warnings(&self, steps: u32) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |count: u32, text: &str| {
            if count > 0 {
                warnings.push(format!("in {count} of {steps} steps {text}"));
            }
        };
        warn(
            self.dead_training_steps,
            "the network had no gradient on its training batch: it learned nothing; look for an \
             output that is constant or detached, or lower `learning_rate`",
        );
        warn(
            self.dead_validation_steps,
            "the network had no gradient on the validation batch: the policy learned nothing",
        );
        warn(
            self.idle_steps.saturating_sub(self.dead_validation_steps),
            "no copy differed from the plain batch in its effect (Z_g = 0): the policy learned \
             nothing",
        );
        // Single steps of this kind are chance: copies of the same operations.
        if self.flat_operation_steps == steps && self.idle_steps < steps {
            warn(
                self.flat_operation_steps,
                "no operation had a gradient: their probabilities stayed as they are",
            );
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(norms: [f64; 3], z_g: f64, operation_logits: [f64; 2]) -> StepOutcome {
        let [training, validation, weights] = norms;
        StepOutcome {
            plain_loss: 1.0,
            branch_losses: vec![1.0; 2],
            validation_loss: 1.0,
            validation_correct: None,
            plain_dot: 1.0,
            branch_dots: vec![1.0; 2],
            norms: GradientNorms {
                training,
                validation,
                weights,
            },
            gradient: MetaGradient {
                z: 1.0,
                z_g,
                operation_probabilities: vec![0.5; 2],
                total_probability: 0.5,
                operation_logits: operation_logits.to_vec(),
                total_logit: 0.5,
            },
        }
    }

    #[test]
    fn steps_are_counted_by_what_was_dead() {
        let alive = outcome([3.0, 2.0, 50.0], 1e-3, [0.1, -0.1]);
        assert!(alive.teaches());
        let mut counts = DeadSteps::default();
        counts.add(&alive);
        assert_eq!(counts, DeadSteps::default());
        assert!(counts.warnings(1).is_empty());
        // A network that does not train still has a validation gradient.
        counts.add(&outcome([4e-7, 2.0, 50.0], 1e-3, [0.1, -0.1]));
        assert_eq!((counts.dead_training_steps, counts.idle_steps), (1, 0));
        counts.add(&outcome([3.0, 4e-7, 50.0], 1e-9, [0.1, -0.1]));
        assert_eq!((counts.dead_validation_steps, counts.idle_steps), (1, 1));
        // Two branches, 1e-7 * 3 * 2 each.
        counts.add(&outcome([3.0, 2.0, 50.0], 1.1e-6, [0.1, -0.1]));
        assert_eq!(counts.idle_steps, 2);
        assert!(outcome([3.0, 2.0, 50.0], 1.3e-6, [0.1, -0.1]).teaches());
        counts.add(&outcome([0.0; 3], 0.0, [0.0; 2]));
        assert_eq!(
            counts,
            DeadSteps {
                idle_steps: 3,
                dead_training_steps: 2,
                dead_validation_steps: 2,
                flat_operation_steps: 1,
            }
        );
        let doubled = DeadSteps::sum([counts, counts].into_iter());
        assert_eq!((doubled.idle_steps, doubled.flat_operation_steps), (6, 2));
    }

    #[test]
    fn warnings_say_how_often_and_each_cause_once() {
        let counts = DeadSteps {
            idle_steps: 3,
            dead_training_steps: 4,
            dead_validation_steps: 2,
            flat_operation_steps: 3,
        };
        let warnings = counts.warnings(8);
        assert_eq!(warnings.len(), 3);
        assert!(warnings[0].starts_with("in 4 of 8 steps the network had no gradient"));
        assert!(warnings[2].starts_with("in 1 of 8 steps no copy differed"));
        let flat = DeadSteps {
            flat_operation_steps: 8,
            ..DeadSteps::default()
        };
        assert!(flat.warnings(8)[0].contains("no operation had a gradient"));
        assert!(flat.warnings(9).is_empty());
    }

    #[test]
    fn a_silenced_gradient_moves_nothing() {
        let mut gradient = outcome([1.0; 3], 1.0, [0.1, -0.1]).gradient;
        gradient.silence();
        assert_eq!((gradient.total_logit, gradient.z_g), (0.0, 1.0));
        assert_eq!(gradient.operation_logits, [0.0; 2]);
    }
}
