//! How far a search could go, and how far it went.

use ddas_formats::{Policy, Snapshot};

use super::chart::number;
use crate::run_folder::RunRecord;

/// Entropy of probabilities as a share of the largest possible; 1 for a single choice.
fn normalised_entropy(probabilities: &[f64]) -> f64 {
    if probabilities.len() < 2 {
        return 1.0;
    }
    let terms = probabilities
        .iter()
        .filter(|&&p| p > 0.0)
        .map(|p| -p * p.ln());
    terms.sum::<f64>() / (probabilities.len() as f64).ln()
}

pub(super) fn reach(record: &RunRecord, policy: &Policy, last: &Snapshot) -> String {
    let settings = &record.settings;
    let steps = settings.steps() as f64;
    let start = (settings.total_probability / (1.0 - settings.total_probability)).ln();
    let sigmoid = |logit: f64| 1.0 / (1.0 + (-logit).exp());
    let way = settings.total_learning_rate * steps;
    let (low, high) = (sigmoid(start - way), sigmoid(start + way));
    let entropy = normalised_entropy(last.operation_probabilities());
    let uniform = 1.0 / policy.search_space().len() as f64;
    let farthest = last
        .operation_probabilities()
        .iter()
        .map(|p| (p / uniform).ln().abs())
        .fold(0.0, f64::max)
        .exp();
    format!(
        "<p>Adam moves a logit by about its learning rate per step at most, so {} steps bound what \
         these settings can find, whatever the data say: the total probability stays between {} \
         and {}, and no operation's odds against another move by more than a factor of {}.</p>\
         <p>Found: total probability {}; entropy of the operation probabilities {:.1}% of the \
         largest possible; the farthest operation lies a factor of {} from uniform. Raise \
         <code>total_learning_rate</code>, <code>operation_learning_rate</code> or \
         <code>epochs</code> to widen the reach.</p>",
        settings.steps(),
        number(low),
        number(high),
        number((2.0 * settings.operation_learning_rate * steps).exp()),
        number(last.total_probability()),
        100.0 * entropy,
        number(farthest),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_one_for_uniform_and_zero_for_certain() {
        assert!((normalised_entropy(&[0.25; 4]) - 1.0).abs() < 1e-12);
        assert_eq!(normalised_entropy(&[1.0, 0.0]), 0.0);
        assert_eq!(normalised_entropy(&[1.0]), 1.0);
    }
}
