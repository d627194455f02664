//! How to augment: the operations' probabilities over the epochs, and ranked at the end.

use std::fmt::Write;

use ddas_formats::Policy;

use super::COLOURS;
use super::chart::{Series, line_chart, number};
use super::content::Content;
use super::html::escape;
use super::samples::SampleStrips;
use crate::error::Result;

/// Indices of the operations, the most probable at the end first.
fn ranked(policy: &Policy) -> Vec<usize> {
    let last = &policy.snapshots()[policy.snapshots().len() - 1];
    let probabilities = last.operation_probabilities();
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    order
}

pub(super) fn operations_chart(policy: &Policy, labels: &[String]) -> String {
    let order = ranked(policy);
    let series: Vec<Series> = (0..labels.len())
        .map(|operation| {
            // The strongest and the weakest stand out.
            let rank = order
                .iter()
                .position(|&other| other == operation)
                .unwrap_or(0);
            let place = match rank {
                0..4 => Some(rank),
                _ if rank + 2 >= order.len() => Some(4 + order.len() - 1 - rank),
                _ => None,
            };
            Series {
                name: labels[operation].clone(),
                values: policy
                    .snapshots()
                    .iter()
                    .map(|snapshot| snapshot.operation_probabilities()[operation])
                    .collect(),
                colour: place.map(|place| COLOURS[place]),
            }
        })
        .collect();
    let uniform = 1.0 / labels.len() as f64;
    line_chart(
        "Operation probabilities over search epochs",
        &series,
        &[uniform],
        "",
    ) + &format!(
        "<p class=\"note\">Chance of each operation per draw, given that the sample is \
             augmented; all began at {} (uniform). The four strongest and two weakest are named, \
             the others by pointing at their lines.</p>",
        number(uniform)
    )
}

pub(super) fn ranking(
    policy: &Policy,
    labels: &[String],
    strips: Result<(SampleStrips, Vec<Content>)>,
) -> String {
    let last = &policy.snapshots()[policy.snapshots().len() - 1];
    let probabilities = last.operation_probabilities();
    let order = ranked(policy);
    let largest = order.first().map_or(1.0, |&first| probabilities[first]);
    let mut html = String::new();
    let strips = match strips {
        Ok((strips, contents)) => {
            html += &destroyed(&contents, probabilities);
            let _ = write!(html, "<p>Samples as they are:</p>{}", strips.plain);
            Some((strips, contents))
        }
        Err(error) => {
            let reason = escape(&error.to_string());
            let _ = write!(
                html,
                "<p class=\"note\">Without sample images: {reason}</p>"
            );
            None
        }
    };
    html += "<table><tr><th></th><th>operation</th><th>probability</th><th>to uniform</th>\
             <th></th><th></th><th></th></tr>";
    for (rank, &operation) in order.iter().enumerate() {
        let probability = probabilities[operation];
        let _ = write!(
            html,
            "<tr><td class=\"n\">{}</td><td>{}</td><td class=\"n\">{probability:.4}</td>\
             <td class=\"n\">{:.2}</td><td><span class=\"bar\" style=\"width:{:.0}px\"></span></td>\
             <td>{}</td><td>{}</td></tr>",
            rank + 1,
            escape(&labels[operation]),
            probability * labels.len() as f64,
            100.0 * probability / largest,
            strips
                .as_ref()
                .map_or("", |(strips, _)| &strips.operations[operation]),
            strips
                .as_ref()
                .and_then(|(_, contents)| contents[operation].warning())
                .map_or(String::new(), |text| format!("<strong>{text}</strong>")),
        );
    }
    html + "</table>"
}

/// Says how much of the policy goes to operations that leave little or nothing of an image.
fn destroyed(contents: &[Content], probabilities: &[f64]) -> String {
    let flagged: Vec<f64> = contents
        .iter()
        .zip(probabilities)
        .filter(|(content, _)| content.warning().is_some())
        .map(|(_, &probability)| probability)
        .collect();
    if flagged.is_empty() {
        return "<p class=\"note\">No operation of this search space destroys the images: of each, \
                most pixels still depend on the image.</p>"
            .to_owned();
    }
    format!(
        "<p><strong>{} of {} operations leave little or nothing of an image</strong> and hold {:.1}% of \
         the probability; they are marked. An image without content has no class to learn: weight on \
         such an operation acts like a smaller step, and labels that no longer fit. Take them out of \
         the search space unless that is wanted.</p>",
        flagged.len(),
        contents.len(),
        100.0 * flagged.iter().sum::<f64>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::policy;

    #[test]
    fn the_strongest_operation_comes_first() {
        assert_eq!(ranked(&policy())[0], 0);
    }
}
