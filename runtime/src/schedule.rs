//! Which snapshot of a policy drives which training epoch.

use std::sync::Arc;

use ddas_formats::{Entry, Policy};

use crate::error::{Error, Result};
use crate::sampler::PolicySampler;

/// Spreads a policy's snapshots evenly over the epochs of a training run.
///
/// Training epoch `e` of `E`, from 0, uses snapshot `floor(e * T / E)` of `T`,
/// so that a search of 20 epochs drives a training of 200 in steps of ten.
/// The total probability is smoothed by the policy's mean filter; operation
/// probabilities are not.
///
/// ```
/// use ddas_formats::{Policy, SearchSpace, Snapshot};
/// use ddas_runtime::EpochSchedule;
///
/// let space = SearchSpace::named("sanity")?;
/// let uniform = vec![1.0 / space.len() as f64; space.len()];
/// let snapshots = vec![Snapshot::new(0.2, uniform.clone())?, Snapshot::new(0.4, uniform)?];
/// let policy = Policy::new(space, snapshots)?;
///
/// let schedule = EpochSchedule::new(&policy, 10)?;
/// assert_eq!(schedule.snapshot_index(4), 0);
/// assert_eq!(schedule.snapshot_index(5), 1);
/// assert_eq!(schedule.total_probability(5), 0.4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct EpochSchedule {
    epochs: u32,
    /// One per snapshot; never empty.
    samplers: Vec<PolicySampler>,
}

impl EpochSchedule {
    /// The schedule of `policy` over a training run of `epochs` epochs.
    ///
    /// # Errors
    /// [`Error::NoEpochs`] when `epochs` is 0.
    pub fn new(policy: &Policy, epochs: u32) -> Result<Self> {
        if epochs == 0 {
            return Err(Error::NoEpochs);
        }
        let space = policy.search_space();
        let entries: Arc<[Entry]> = space.entries().into();
        let samplers = policy
            .snapshots()
            .iter()
            .zip(policy.smoothed_total_probabilities())
            .map(|(snapshot, total_probability)| {
                PolicySampler::of_entries(space, entries.clone(), snapshot, total_probability)
            })
            .collect::<Result<_>>()?;
        Ok(Self { epochs, samplers })
    }

    /// Length of the training run.
    #[must_use]
    pub fn epochs(&self) -> u32 {
        self.epochs
    }

    /// The snapshot of training epoch `epoch`, from 0; past the end of the run
    /// the last one stays in force.
    #[must_use]
    pub fn snapshot_index(&self, epoch: u32) -> usize {
        let count = self.samplers.len();
        // In 128 bits no epoch and no number of snapshots overflow.
        let index = u128::from(epoch) * count as u128 / u128::from(self.epochs);
        usize::try_from(index).map_or(count - 1, |index| index.min(count - 1))
    }

    /// The smoothed chance that a sample of `epoch` is augmented at all.
    #[must_use]
    pub fn total_probability(&self, epoch: u32) -> f64 {
        self.sampler(epoch).total_probability()
    }

    /// The sampler of `epoch`.
    #[must_use]
    pub fn sampler(&self, epoch: u32) -> &PolicySampler {
        &self.samplers[self.snapshot_index(epoch)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ddas_formats::{SearchSpace, Snapshot};

    fn policy(total_probabilities: &[f64], window: u32) -> Policy {
        let space = SearchSpace::named("sanity").unwrap();
        let uniform = vec![1.0 / space.len() as f64; space.len()];
        let snapshots = total_probabilities
            .iter()
            .map(|&total| Snapshot::new(total, uniform.clone()).unwrap())
            .collect();
        Policy::new(space, snapshots)
            .unwrap()
            .with_smoothing(window)
            .unwrap()
    }

    #[test]
    fn snapshots_are_spread_evenly() {
        let twenty: Vec<f64> = (0..20).map(|i| f64::from(i) / 20.0).collect();
        let schedule = EpochSchedule::new(&policy(&twenty, 1), 200).unwrap();
        for epoch in 0..200 {
            assert_eq!(schedule.snapshot_index(epoch), epoch as usize / 10);
            assert_eq!(
                schedule.total_probability(epoch),
                f64::from(epoch / 10) / 20.0
            );
        }
        // More snapshots than epochs: some are left out, the first is not.
        let schedule = EpochSchedule::new(&policy(&twenty, 1), 3).unwrap();
        let indices: Vec<usize> = (0..3).map(|epoch| schedule.snapshot_index(epoch)).collect();
        assert_eq!(indices, [0, 6, 13]);
    }

    #[test]
    fn past_the_end_the_last_snapshot_stays() {
        let schedule = EpochSchedule::new(&policy(&[0.1, 0.2, 0.3], 1), 7).unwrap();
        for epoch in [7, 8, 1000, u32::MAX] {
            assert_eq!(schedule.snapshot_index(epoch), 2);
        }
        let schedule = EpochSchedule::new(&policy(&[0.1, 0.2, 0.3], 1), u32::MAX).unwrap();
        assert_eq!(schedule.snapshot_index(u32::MAX - 1), 2);
        assert_eq!(schedule.snapshot_index(u32::MAX / 2), 1);
    }

    #[test]
    fn total_probabilities_are_smoothed_as_the_policy_says() {
        let values = [0.0, 0.25, 0.5, 1.0];
        let schedule = EpochSchedule::new(&policy(&values, 2), 4).unwrap();
        assert_eq!(schedule.total_probability(1), 0.375);
        assert_eq!(schedule.total_probability(3), 0.75);
    }

    #[test]
    fn a_run_without_epochs_is_refused() {
        let error = EpochSchedule::new(&policy(&[0.5], 1), 0).unwrap_err();
        assert!(matches!(error, Error::NoEpochs), "{error}");
    }
}
