//! The table at the head of a report: what was searched, its cost, how it ended.

use ddas_formats::Policy;

use super::chart::number;
use super::table;
use crate::dead_gradient::DeadSteps;
use crate::run_folder::{Metric, RunRecord};

pub(super) fn summary(record: &RunRecord, policy: &Policy, metrics: &[Metric]) -> String {
    let mut steps: Vec<f64> = metrics
        .iter()
        .filter_map(|metric| match metric {
            Metric::Step {
                seconds, waited, ..
            } => Some(seconds + waited),
            Metric::Epoch { .. } | Metric::Stopped { .. } => None,
        })
        .collect();
    let total: f64 = steps.iter().sum();
    steps.sort_by(f64::total_cmp);
    let median = steps.get(steps.len() / 2).copied().unwrap_or(0.0);
    let settings = &record.settings;
    let last = &policy.snapshots()[policy.snapshots().len() - 1];
    let done = finished(metrics);
    let rows = [
        ("Dataset", record.dataset.display().to_string()),
        (
            "Preset, seed",
            format!("{}, {}", record.preset, settings.seed),
        ),
        ("Network", settings.network.clone()),
        (
            "Search space",
            format!(
                "{}: {} operations, {} drawn per augmented sample",
                policy.search_space().name(),
                policy.search_space().len(),
                policy.search_space().draws_per_sample()
            ),
        ),
        ("Epochs", format!("{done} of {}", settings.epochs)),
        (
            "Cost",
            format!(
                "{} steps in {:.0} s on {} ({} CPU threads), {} s a step (median)",
                steps.len(),
                total,
                record.device,
                record.threads,
                number(median)
            ),
        ),
        ("Energy", energy(metrics)),
        ("Ended", ending(record, metrics)),
        (
            "Total probability at the end",
            format!(
                "{} (from {})",
                number(last.total_probability()),
                settings.total_probability
            ),
        ),
    ];
    let told = rows.iter().filter(|(_, value)| !value.is_empty());
    table(told.map(|(name, value)| (*name, value.as_str())))
}

/// What the processors took; empty where they do not tell.
fn energy(metrics: &[Metric]) -> String {
    let joules: Vec<f64> = metrics
        .iter()
        .filter_map(|metric| match metric {
            Metric::Epoch { joules, .. } => *joules,
            _ => None,
        })
        .collect();
    if joules.is_empty() {
        return String::new();
    }
    format!(
        "{} Wh of the machine's processors (RAPL), other programs' share included; graphics cards \
         and memory not",
        number(joules.iter().sum::<f64>() / 3600.0)
    )
}

/// Epochs that were finished; before the first the policy holds a snapshot all the same.
fn finished(metrics: &[Metric]) -> usize {
    let is_epoch = |metric: &&Metric| matches!(metric, Metric::Epoch { .. });
    metrics.iter().filter(is_epoch).count()
}

/// Why a run ended early, and in how many steps it could not learn.
fn ending(record: &RunRecord, metrics: &[Metric]) -> String {
    let finished = finished(metrics) as u32;
    let mut told = Vec::new();
    if finished < record.settings.epochs {
        told.push(match metrics.last() {
            Some(Metric::Stopped {
                epoch,
                step,
                reason,
            }) => format!("early, in epoch {} after {step} steps: {reason}", epoch + 1),
            _ => "not yet".to_owned(),
        });
    }
    let dead = DeadSteps::sum(metrics.iter().filter_map(|metric| match metric {
        Metric::Epoch { dead, .. } => Some(*dead),
        _ => None,
    }));
    told.extend(dead.warnings(finished * record.settings.steps_per_epoch()));
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{epoch, record};

    #[test]
    fn a_run_that_ended_early_says_why() {
        let record = record("/data/d.lmdb".as_ref());
        let stopped = Metric::Stopped {
            epoch: 2,
            step: 7,
            reason: "a training loss is NaN".to_owned(),
        };
        assert_eq!(
            ending(&record, &[stopped]),
            "early, in epoch 3 after 7 steps: a training loss is NaN"
        );
    }

    #[test]
    fn steps_that_taught_nothing_are_told_of() {
        let record = record("/data/d.lmdb".as_ref());
        let dead = DeadSteps {
            idle_steps: 3,
            dead_training_steps: 2,
            ..DeadSteps::default()
        };
        let healthy = epoch(0, 0.35, DeadSteps::default());
        assert_eq!(ending(&record, std::slice::from_ref(&healthy)), "not yet");
        let text = ending(&record, &[healthy, epoch(1, 0.35, dead)]);
        // 62 steps an epoch.
        assert!(
            text.contains("in 3 of 124 steps no copy differed"),
            "{text}"
        );
        assert!(
            text.contains("in 2 of 124 steps the network had no gradient"),
            "{text}"
        );
    }
}
