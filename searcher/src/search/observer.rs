//! What a search tells while it runs, and how it ends.

use super::Search;
use crate::epoch::EpochReport;
use crate::error::Result;
use crate::step::StepOutcome;

/// What happened in one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Search epoch, from 0.
    pub epoch: u32,
    /// Step within the epoch, from 0.
    pub step: u32,
    /// Learning rate of the network in this step.
    pub learning_rate: f64,
    /// The drawn policies.
    pub policies: Vec<Vec<usize>>,
    /// Losses, inner products and the policy's gradient.
    pub outcome: StepOutcome,
    /// Total probability after the step.
    pub total_probability: f64,
    /// Seconds of the step, without waiting for its batch.
    pub seconds: f64,
    /// Seconds waited for its batch.
    pub waited: f64,
}

/// Told of everything that happens in a search.
pub trait Observer {
    /// After each step.
    ///
    /// # Errors
    /// Ends the search.
    fn step(&mut self, report: &StepReport) -> Result<()>;

    /// After each epoch, its snapshot taken.
    ///
    /// # Errors
    /// Ends the search.
    fn epoch(&mut self, search: &Search, report: &EpochReport) -> Result<()>;
}

/// How [`Search::run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All epochs are done.
    Finished,
    /// The stop flag was raised; the epochs finished before it have their snapshots.
    Stopped,
}
