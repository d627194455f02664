//! The policy that a search has found so far.

use ddas_formats::{Policy, Provenance, Snapshot};

use super::Search;
use crate::error::Result;

/// Key of a policy's `provenance.cost` that says what an unfinished search still lacks.
pub const PARTIAL: &str = "partial";

impl Search {
    /// The policy of the epochs finished so far; before the first one is, a single snapshot of the
    /// probabilities as they stand.
    ///
    /// It holds nothing that depends on the clock: the same search gives the same file. Until the
    /// last epoch is finished, `provenance.cost` says under [`PARTIAL`] how far the search is.
    ///
    /// # Errors
    /// [`Error::Format`](crate::Error::Format) when the settings do not make a policy.
    pub fn policy(&self, dataset: &str, preset: &str) -> Result<Policy> {
        let finished = self.snapshots.len() as u32;
        let per_epoch = self.steps_per_epoch();
        let mut snapshots = self.snapshots.clone();
        let mut steps = u64::from(finished) * u64::from(per_epoch);
        let mut cost = vec![("network", self.config.network.clone().into())];
        if snapshots.is_empty() {
            steps = u64::from(self.steps_done());
            snapshots.push(Snapshot::new(
                self.parameters.total_probability(),
                self.parameters.operation_probabilities(),
            )?);
            let partial = format!(
                "no epoch is done: the only snapshot is from after {steps} of {per_epoch} steps of \
                 the first of {} epochs",
                self.config.epochs
            );
            cost.push((PARTIAL, partial.into()));
        } else if finished < self.config.epochs {
            let partial = format!("{finished} of {} epochs are done", self.config.epochs);
            cost.push((PARTIAL, partial.into()));
        }
        cost.push(("steps", steps.into()));
        let version = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let provenance = Provenance {
            dataset: Some(dataset.to_owned()),
            preset: Some(preset.to_owned()),
            seed: Some(self.config.seed),
            versions: [version("ddas-search", env!("CARGO_PKG_VERSION"))].into(),
            cost: cost
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        };
        Ok(Policy::new(self.space.clone(), snapshots)?
            .with_smoothing(self.config.smoothing_window)?
            .with_provenance(provenance))
    }
}
