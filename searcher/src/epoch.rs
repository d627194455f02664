//! What happens over the steps of an epoch.

use crate::dead_gradient::DeadSteps;
use crate::step::StepOutcome;

/// What happened in one epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochReport {
    /// Search epoch, from 0.
    pub epoch: u32,
    /// Mean over the epoch's steps of the loss of the plain batch before the update.
    pub train_loss: f64,
    /// Mean over the epoch's steps of the loss of the validation batch after the update.
    pub validation_loss: f64,
    /// Share of correct predictions in these batches; none for a network that gives losses
    /// instead of logits.
    pub validation_accuracy: Option<f64>,
    /// Steps in which a gradient was too small to teach anything.
    pub dead: DeadSteps,
    /// Seconds since the epoch began.
    pub seconds: f64,
}

/// What has happened in an epoch so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct EpochProgress {
    pub(crate) steps: u32,
    /// Sums over the steps.
    pub(crate) train_loss: f64,
    pub(crate) validation_loss: f64,
    pub(crate) correct: u64,
    /// Steps whose network gave no predictions to count.
    pub(crate) uncounted_steps: u32,
    pub(crate) dead: DeadSteps,
    /// The policy before the first step.
    pub(crate) initial_total: f64,
    pub(crate) initial_operations: Vec<f64>,
}

impl EpochProgress {
    pub(crate) fn add(&mut self, outcome: &StepOutcome) {
        self.steps += 1;
        self.train_loss += outcome.plain_loss;
        self.validation_loss += outcome.validation_loss;
        match outcome.validation_correct {
            Some(correct) => self.correct += correct,
            None => self.uncounted_steps += 1,
        }
        self.dead.add(outcome);
    }

    pub(crate) fn report(&self, epoch: u32, seconds: f64, validation_batch: u64) -> EpochReport {
        let steps = f64::from(self.steps.max(1));
        EpochReport {
            epoch,
            train_loss: self.train_loss / steps,
            validation_loss: self.validation_loss / steps,
            validation_accuracy: (self.uncounted_steps == 0)
                .then(|| self.correct as f64 / (steps * validation_batch as f64)),
            dead: self.dead,
            seconds,
        }
    }
}
