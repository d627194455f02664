//! Single numbers over the search epochs: the total probability, losses, the accuracy.

use ddas_formats::{Policy, Snapshot};

use super::COLOURS;
use super::chart::{Series, line_chart, number};
use crate::config::{Config, SnapshotAt};
use crate::run_folder::Metric;

pub(super) fn total_chart(policy: &Policy, settings: &Config) -> String {
    let values = policy
        .snapshots()
        .iter()
        .map(Snapshot::total_probability)
        .collect();
    let series = Series {
        name: "total probability".to_owned(),
        values,
        colour: Some(COLOURS[0]),
    };
    let meaning = match (settings.learn_total_probability, settings.snapshot) {
        (false, _) => format!(
            "Chance that a training sample is augmented at all: fixed at {} in this search.",
            number(settings.total_probability)
        ),
        (true, SnapshotAt::End) => "Chance that a training sample is augmented at all, at the end \
                                    of each search epoch."
            .to_owned(),
        (true, SnapshotAt::Start) => {
            "Chance that a training sample is augmented at all, at the start of each search epoch \
             (<code>snapshot=start</code>): what the last epoch learned is in none."
                .to_owned()
        }
    };
    line_chart("Total probability over search epochs", &[series], &[], "")
        + &format!(
            "<p class=\"note\">{meaning} A training run of any length steps through these values \
             in order.</p>"
        )
}

pub(super) fn losses(metrics: &[Metric]) -> String {
    let (mut train, mut validation, mut accuracy) = (Vec::new(), Vec::new(), Vec::new());
    for metric in metrics {
        if let Metric::Epoch {
            train_loss,
            validation_loss,
            validation_accuracy,
            ..
        } = metric
        {
            train.push(*train_loss);
            validation.push(*validation_loss);
            accuracy.push(validation_accuracy.map(|share| 100.0 * share));
        }
    }
    let series = |name: &str, values, colour| Series {
        name: name.to_owned(),
        values,
        colour: Some(colour),
    };
    if train.is_empty() {
        return "<p class=\"note\">No epoch is finished.</p>".to_owned();
    }
    let mut html = line_chart(
        "Losses over search epochs",
        &[
            series("training loss", train, COLOURS[0]),
            series("validation loss", validation, COLOURS[1]),
        ],
        &[],
        "",
    );
    // A network that gives no predictions has none.
    let accuracy: Option<Vec<f64>> = accuracy.into_iter().collect();
    let mut last_accuracy = String::new();
    if let Some(accuracy) = accuracy {
        if let Some(last) = accuracy.last() {
            last_accuracy = format!(" Validation accuracy in the last epoch {last:.1}%.");
        }
        html += &line_chart(
            "Validation accuracy over search epochs",
            &[series("validation accuracy", accuracy, COLOURS[1])],
            &[],
            "%",
        );
    }
    html + &format!(
        "<p class=\"note\">Means over the steps of each epoch, in training mode: of plain training \
         batches before the update, of validation batches after it.{last_accuracy}</p>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_gradient::DeadSteps;
    use crate::report::tests::{epoch, policy};

    #[test]
    fn the_total_probabilitys_note_follows_the_settings() {
        let note = |settings: &[&str]| {
            let mut config = Config::preset("sanity").unwrap();
            for setting in settings {
                config.set(setting).unwrap();
            }
            total_chart(&policy(), &config)
        };
        assert!(note(&[]).contains("at the end of each search epoch"));
        let start = note(&["snapshot=start"]);
        assert!(start.contains("at the start of each search epoch") && !start.contains("the end"));
        assert!(note(&["learn_total_probability=false"]).contains("fixed at 0.35"));
    }

    #[test]
    fn the_accuracy_is_drawn_where_every_epoch_has_one() {
        let mut metrics = [0, 1].map(|number| epoch(number, 0.35, DeadSteps::default()));
        let html = losses(&metrics);
        assert_eq!(html.matches("<svg").count(), 2);
        assert!(html.contains(">25%</text>"), "{html}");
        assert!(html.contains("Validation accuracy in the last epoch 25.0%."));
        if let Metric::Epoch {
            validation_accuracy,
            ..
        } = &mut metrics[1]
        {
            *validation_accuracy = None;
        }
        let html = losses(&metrics);
        assert_eq!(html.matches("<svg").count(), 1);
        assert!(!html.contains("accuracy"), "{html}");
    }
}
