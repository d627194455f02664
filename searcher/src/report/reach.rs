//! How far a search could go, and how far it went.

use ddas_formats::{Policy, Snapshot};

use super::chart::number;
use crate::config::{Config, SnapshotAt};
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

/// Steps that can show in the last snapshot.
fn told_steps(settings: &Config) -> u64 {
    let epochs = match settings.snapshot {
        SnapshotAt::Start => settings.epochs.saturating_sub(1),
        SnapshotAt::End => settings.epochs,
    };
    u64::from(epochs) * u64::from(settings.steps_per_epoch())
}

pub(super) fn reach(record: &RunRecord, policy: &Policy, last: &Snapshot) -> String {
    let settings = &record.settings;
    let (total, operations) = (
        settings.learn_total_probability,
        settings.learn_operation_probabilities,
    );
    let initial = number(settings.total_probability);
    let mut fixed = Vec::new();
    if !total {
        fixed.push(format!(
            "The total probability was fixed at {initial} (<code>learn_total_probability=false</code>)."
        ));
    }
    if !operations {
        fixed.push(
            "The operation probabilities were fixed, uniform \
             (<code>learn_operation_probabilities=false</code>)."
                .to_owned(),
        );
    }
    let mut html = match fixed.is_empty() {
        true => String::new(),
        false => format!("<p>{}</p>", fixed.join(" ")),
    };
    if !total && !operations {
        return html
            + "<p>This search had nothing to find: it trained the proxy network alone.</p>";
    }

    let count = told_steps(settings);
    let steps = count as f64;
    let (mut bounds, mut found, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    if total {
        let start = (settings.total_probability / (1.0 - settings.total_probability)).ln();
        let sigmoid = |logit: f64| 1.0 / (1.0 + (-logit).exp());
        let way = settings.total_learning_rate * steps;
        bounds.push(format!(
            "the total probability stays between {} and {}",
            number(sigmoid(start - way)),
            number(sigmoid(start + way))
        ));
        found.push(format!(
            "total probability {}",
            number(last.total_probability())
        ));
        rates.push("<code>total_learning_rate</code>");
    }
    if operations {
        bounds.push(format!(
            "no operation's odds against another move by more than a factor of {}",
            number((2.0 * settings.operation_learning_rate * steps).exp())
        ));
        let uniform = 1.0 / policy.search_space().len() as f64;
        let probabilities = last.operation_probabilities();
        let farthest = probabilities
            .iter()
            .map(|p| (p / uniform).ln().abs())
            .fold(0.0, f64::max)
            .exp();
        found.push(format!(
            "entropy of the operation probabilities {:.1}% of the largest possible",
            100.0 * normalised_entropy(probabilities)
        ));
        found.push(format!(
            "the farthest operation lies a factor of {} from uniform",
            number(farthest)
        ));
        rates.push("<code>operation_learning_rate</code>");
    }
    let before = match settings.snapshot {
        SnapshotAt::Start => " before the last snapshot (<code>snapshot=start</code>)",
        SnapshotAt::End => "",
    };
    html += &format!(
        "<p>Adam moves a logit by about its learning rate per step at most, so {count} steps\
         {before} bound what these settings can find, whatever the data say: {}.</p>\
         <p>Found: {}. Raise {} or <code>epochs</code> to widen the reach.</p>",
        bounds.join(", and "),
        found.join("; "),
        rates.join(", "),
    );
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{policy, record};

    #[test]
    fn entropy_is_one_for_uniform_and_zero_for_certain() {
        assert!((normalised_entropy(&[0.25; 4]) - 1.0).abs() < 1e-12);
        assert_eq!(normalised_entropy(&[1.0, 0.0]), 0.0);
        assert_eq!(normalised_entropy(&[1.0]), 1.0);
    }

    #[test]
    fn what_is_fixed_has_no_reach() {
        let told = |settings: &[&str]| {
            let mut record = record("/data/d.lmdb".as_ref());
            for setting in settings {
                record.settings.set(setting).unwrap();
            }
            let policy = policy();
            reach(&record, &policy, &policy.snapshots()[1])
        };
        let learned = told(&[]);
        assert!(learned.contains("so 1240 steps bound"), "{learned}");
        assert!(learned.contains("between 0.1348 and 0.6504"), "{learned}");
        assert!(!learned.contains("fixed"), "{learned}");

        let total = told(&["learn_total_probability=false"]);
        assert!(
            total.contains("total probability was fixed at 0.35"),
            "{total}"
        );
        assert!(!total.contains("stays between") && !total.contains("total_learning_rate"));
        assert!(total.contains("Raise <code>operation_learning_rate</code> or"));

        let operations = told(&["learn_operation_probabilities=false"]);
        assert!(operations.contains("were fixed, uniform"), "{operations}");
        assert!(!operations.contains("entropy") && !operations.contains("operation_learning_rate"));
        assert!(operations.contains("Raise <code>total_learning_rate</code> or"));

        let both = told(&[
            "learn_total_probability=false",
            "learn_operation_probabilities=false",
        ]);
        assert!(both.contains("nothing to find") && !both.contains("Raise"));

        let start = told(&["snapshot=start"]);
        assert!(
            start.contains("so 1178 steps before the last snapshot"),
            "{start}"
        );
    }
}
