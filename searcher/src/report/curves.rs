//! Single numbers over the search epochs: the total probability, the losses.

use ddas_formats::{Policy, Snapshot};

use super::COLOURS;
use super::chart::{Series, line_chart};
use crate::run_folder::Metric;

pub(super) fn total_chart(policy: &Policy) -> String {
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
    line_chart("Total probability over search epochs", &[series], &[])
        + "<p class=\"note\">Chance that a training sample is augmented at all, at the end of each \
           search epoch. A training run of any length steps through these values in order.</p>"
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
            accuracy.push(*validation_accuracy);
        }
    }
    let series = |name: &str, values, colour| Series {
        name: name.to_owned(),
        values,
        colour: Some(colour),
    };
    let last_accuracy = match accuracy.last() {
        Some(Some(accuracy)) => {
            let percent = 100.0 * accuracy;
            format!(" Validation accuracy in the last epoch {percent:.1}%.")
        }
        _ => String::new(),
    };
    if train.is_empty() {
        return "<p class=\"note\">No epoch is finished.</p>".to_owned();
    }
    line_chart(
        "Losses over search epochs",
        &[
            series("training", train, COLOURS[0]),
            series("validation", validation, COLOURS[1]),
        ],
        &[],
    ) + &format!(
        "<p class=\"note\">Means over the steps of each epoch, in training mode: of plain training \
         batches before the update, of validation batches after it.{last_accuracy}</p>"
    )
}
