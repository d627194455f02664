//! The table at the head of a report: what was searched, its cost, how it ended.

use ddas_formats::{Policy, Snapshot};

use super::chart::number;
use super::table;
use crate::config::SnapshotAt;
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
        ("Energy", energy(record, metrics)),
        ("Ended", ending(record, metrics)),
        total_probability(record, last, done),
    ];
    let told = rows.iter().filter(|(_, value)| !value.is_empty());
    table(told.map(|(name, value)| (*name, value.as_str())))
}

/// What the policy ends with, and when in the search that was.
fn total_probability(
    record: &RunRecord,
    last: &Snapshot,
    finished: usize,
) -> (&'static str, String) {
    let settings = &record.settings;
    let (value, initial) = (number(last.total_probability()), settings.total_probability);
    if !settings.learn_total_probability {
        return ("Total probability", format!("{value}, fixed"));
    }
    let name = match settings.snapshot {
        _ if finished == 0 => "Total probability as it stands",
        SnapshotAt::Start => "Total probability at the start of the last epoch",
        SnapshotAt::End => "Total probability at the end",
    };
    (name, format!("{value} (from {initial})"))
}

/// What the processors took, or that they do not tell; empty before an epoch was counted.
fn energy(record: &RunRecord, metrics: &[Metric]) -> String {
    let epochs: Vec<Option<f64>> = metrics
        .iter()
        .filter_map(|metric| match metric {
            Metric::Epoch { joules, .. } => Some(*joules),
            _ => None,
        })
        .collect();
    let counted: Vec<f64> = epochs.iter().copied().flatten().collect();
    if counted.is_empty() {
        return match (epochs.is_empty(), record.device.starts_with("cuda")) {
            (true, _) => String::new(),
            (false, false) => "not readable here (RAPL)".to_owned(),
            (false, true) => {
                "not readable here (RAPL); the graphics card's is not counted".to_owned()
            }
        };
    }
    // A search may go on where the counters cannot be read.
    let part = match counted.len() == epochs.len() {
        true => String::new(),
        false => format!(" in {} of {} epochs", counted.len(), epochs.len()),
    };
    format!(
        "{} Wh of the machine's processors (RAPL){part}, other programs' share included; graphics \
         cards and memory not",
        number(counted.iter().sum::<f64>() / 3600.0)
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
    use crate::report::tests::{epoch, policy, record};

    #[test]
    fn energy_that_is_not_readable_is_said_to_be_so() {
        let mut record = record("/data/d.lmdb".as_ref());
        let counted = epoch(0, 0.35, DeadSteps::default());
        let mut unread = epoch(1, 0.35, DeadSteps::default());
        if let Metric::Epoch { joules, .. } = &mut unread {
            *joules = None;
        }
        let told = |record: &RunRecord, metrics: &[&Metric]| {
            let metrics: Vec<Metric> = metrics.iter().copied().cloned().collect();
            energy(record, &metrics)
        };
        assert_eq!(told(&record, &[]), "");
        assert_eq!(told(&record, &[&unread]), "not readable here (RAPL)");
        assert!(told(&record, &[&counted, &counted]).starts_with("1 Wh of the machine's"));
        let part = told(&record, &[&counted, &unread]);
        assert!(part.contains("(RAPL) in 1 of 2 epochs,"), "{part}");
        record.device = "cuda:0".to_owned();
        let text = told(&record, &[&unread]);
        assert!(
            text.contains("the graphics card's is not counted"),
            "{text}"
        );
        let text = told(&record, &[&counted]);
        assert!(text.contains("graphics cards and memory not"), "{text}");
    }

    #[test]
    fn the_total_probability_is_said_to_be_of_its_time() {
        let mut record = record("/data/d.lmdb".as_ref());
        let (policy, end) = (policy(), "Total probability at the end");
        let last = &policy.snapshots()[1];
        let row = |record: &RunRecord, done| total_probability(record, last, done);
        assert_eq!(row(&record, 2), (end, "0.45 (from 0.35)".to_owned()));
        record.settings.snapshot = SnapshotAt::Start;
        assert!(
            row(&record, 2)
                .0
                .ends_with("at the start of the last epoch")
        );
        assert!(row(&record, 0).0.ends_with("as it stands"));
        record.settings.learn_total_probability = false;
        assert_eq!(row(&record, 2).1, "0.45, fixed");
    }

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
