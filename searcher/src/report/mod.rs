//! What a search found, as one page that stands alone.

mod chart;
mod command;
mod content;
mod html;
mod samples;

use std::fmt::Write;
use std::path::Path;

use ddas_formats::{Dataset, Policy, Snapshot};

use self::chart::{Series, line_chart, number};
use self::command::command;
use self::content::Content;
use self::html::escape;
use self::samples::SampleStrips;
use crate::error::{Error, Result};
use crate::run_folder::{Metric, RunFolder, RunRecord};

/// Distinct, and readable on white (Okabe and Ito's, darkened).
const COLOURS: [&str; 6] = [
    "#0b5fa5", "#c04a00", "#007a5a", "#a02c6d", "#8a6d00", "#5b3fa0",
];

/// Writes the report of a run's finished epochs: one HTML file without links to others.
///
/// Sample images are left out, with a remark, when the dataset is no longer where it was.
///
/// # Errors
/// [`Error::File`] or [`Error::Format`] when the run has no finished epoch or its files are
/// damaged; [`Error::Io`] when the report cannot be written.
pub fn write_report(folder: &RunFolder, record: &RunRecord, output: &Path) -> Result<()> {
    if !folder.policy().exists() {
        return Err(Error::File {
            path: folder.policy(),
            problem: "is not there: no epoch of this run is finished yet".to_owned(),
        });
    }
    let policy = Policy::read(&folder.policy())?;
    let metrics = folder.read_metrics()?;
    let strips = Dataset::open(&record.dataset)
        .map_err(Error::from)
        .and_then(|data| {
            let (space, settings) = (policy.search_space(), &record.settings);
            let strips = SampleStrips::draw(&data, space, settings)?;
            Ok((strips, content::measure(&data, space, settings)?))
        });
    let page = page(record, &policy, &metrics, strips);
    std::fs::write(output, page).map_err(Error::io(output, "write"))
}

fn page(
    record: &RunRecord,
    policy: &Policy,
    metrics: &[Metric],
    strips: Result<(SampleStrips, Vec<Content>)>,
) -> String {
    let labels: Vec<String> = policy
        .search_space()
        .entries()
        .iter()
        .map(|entry| entry.label())
        .collect();
    let last = &policy.snapshots()[policy.snapshots().len() - 1];
    let name = record
        .dataset
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let title = format!("Augmentation policy for {name}");
    let mut body = format!(
        "<h1>{}</h1>\n{}",
        escape(&title),
        summary(record, policy, metrics)
    );
    let section = |heading: &str, content: String| format!("<h2>{heading}</h2>\n{content}\n");
    body += &section("When to augment: total probability", total_chart(policy));
    body += &section(
        "How to augment: operation probabilities",
        operations_chart(policy, &labels),
    );
    body += &section(
        "Operations by final probability",
        ranking(policy, &labels, strips),
    );
    body += &section("How far the search could go", reach(record, policy, last));
    body += &section("Loss of the proxy network", losses(metrics));
    body += &section("Train with this policy", command(record));
    body += &section("Settings", settings(record));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n\
         <style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n",
        escape(&title)
    )
}

const STYLE: &str = "
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #ddd}
table{border-collapse:collapse}td,th{padding:.15rem .7rem .15rem 0;text-align:left;vertical-align:middle}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.bar{display:inline-block;height:.7rem;background:#0b5fa5}
svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif}.tick{fill:#666}.grid{stroke:#e4e4e4}
polyline{fill:none}.strong{stroke-width:2}.faint{stroke:#bbb;stroke-width:1}.faint:hover{stroke:#000;stroke-width:2}
pre{background:#f5f5f5;padding:.7rem;overflow-x:auto}img{image-rendering:pixelated;display:block}
.note{color:#555}";

fn summary(record: &RunRecord, policy: &Policy, metrics: &[Metric]) -> String {
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
    let done = policy.snapshots().len();
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
        ("Ended", ending(record, policy, metrics)),
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

/// Why a run ended early, and whether the policy could learn in every step.
fn ending(record: &RunRecord, policy: &Policy, metrics: &[Metric]) -> String {
    let mut told = Vec::new();
    if (policy.snapshots().len() as u64) < u64::from(record.settings.epochs) {
        told.push(match metrics.last() {
            Some(Metric::Stopped {
                epoch,
                step,
                reason,
            }) => format!("early, in epoch {} after {step} steps: {reason}", epoch + 1),
            _ => "not yet".to_owned(),
        });
    }
    let idle: u32 = metrics
        .iter()
        .map(|metric| match metric {
            Metric::Epoch { idle_steps, .. } => *idle_steps,
            _ => 0,
        })
        .sum();
    if idle > 0 {
        told.push(format!(
            "the policy learned nothing in {idle} steps, whose copies had all the same effect (Z_g = 0)"
        ));
    }
    told.join("; ")
}

fn table<'a>(rows: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut html = String::from("<table>");
    for (name, value) in rows {
        // Writing to a string cannot fail.
        let _ = write!(
            html,
            "<tr><th>{}</th><td>{}</td></tr>",
            escape(name),
            escape(value)
        );
    }
    html + "</table>"
}

fn total_chart(policy: &Policy) -> String {
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

/// Indices of the operations, the most probable at the end first.
fn ranked(policy: &Policy) -> Vec<usize> {
    let last = &policy.snapshots()[policy.snapshots().len() - 1];
    let probabilities = last.operation_probabilities();
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    order
}

fn operations_chart(policy: &Policy, labels: &[String]) -> String {
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
    ) + &format!(
        "<p class=\"note\">Chance of each operation per draw, given that the sample is \
             augmented; all began at {} (uniform). The four strongest and two weakest are named, \
             the others by pointing at their lines.</p>",
        number(uniform)
    )
}

fn ranking(
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

fn reach(record: &RunRecord, policy: &Policy, last: &Snapshot) -> String {
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

fn losses(metrics: &[Metric]) -> String {
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

fn settings(record: &RunRecord) -> String {
    // A struct of plain values becomes an object of plain values.
    let fields = match serde_json::to_value(&record.settings) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let rows: Vec<(String, String)> = fields
        .iter()
        .map(|(key, value)| (key.clone(), value.to_string()))
        .collect();
    let rows = table(
        rows.iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    );
    format!(
        "<details><summary>All {} settings</summary>{rows}</details>",
        fields.len()
    )
}

#[cfg(test)]
mod tests {
    use ddas_formats::{DatasetWriter, Encoding, Packed, SearchSpace};

    use super::*;
    use crate::config::Config;

    fn record(dataset: &Path) -> RunRecord {
        RunRecord {
            format: RunRecord::FORMAT.to_owned(),
            version: RunRecord::VERSION,
            program: "0.1.0".to_owned(),
            dataset: dataset.to_owned(),
            content_hash: String::new(),
            preset: "sanity".to_owned(),
            output: "/out/my policy.json".into(),
            device: "cpu".to_owned(),
            threads: 2,
            network_hash: None,
            settings: Config::preset("sanity").unwrap(),
        }
    }

    fn policy() -> Policy {
        let space = SearchSpace::named("sanity").unwrap();
        let count = space.len();
        let snapshot = |total, first: f64| {
            let mut probabilities = vec![(1.0 - first) / (count - 1) as f64; count];
            probabilities[0] = first;
            Snapshot::new(total, probabilities).unwrap()
        };
        Policy::new(space, vec![snapshot(0.35, 0.1), snapshot(0.45, 0.5)]).unwrap()
    }

    fn finished_run(folder: &Path, dataset: &Path) -> (RunFolder, RunRecord) {
        let record = record(dataset);
        let run = RunFolder::create(&folder.join("run"), &record, true).unwrap();
        policy().write(&run.policy()).unwrap();
        let mut metrics = run.append_metrics(0, 0).unwrap();
        for (number, snapshot) in (0..).zip(policy().snapshots()) {
            let metric = Metric::Epoch {
                epoch: number,
                total_probability: snapshot.total_probability(),
                operation_probabilities: snapshot.operation_probabilities().to_vec(),
                train_loss: 2.0,
                validation_loss: 2.25,
                validation_accuracy: Some(0.25),
                idle_steps: 3,
                seconds: 1.0,
                joules: Some(1800.0),
            };
            metrics.write(&metric).unwrap();
        }
        (run, record)
    }

    #[test]
    fn a_report_stands_alone_and_shows_every_operation() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = folder.path().join("tiny.lmdb");
        let mut writer = DatasetWriter::create(&dataset, false).unwrap();
        for label in 0..3 {
            writer
                .append(label, Encoding::Raw, 32, 32, &[50 * label as u8; 3072])
                .unwrap();
        }
        let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
        writer.finish(classes, Packed::default()).unwrap();
        let (run, record) = finished_run(folder.path(), &dataset);

        let output = folder.path().join("report.html");
        write_report(&run, &record, &output).unwrap();
        let page = std::fs::read_to_string(&output).unwrap();
        for operation in policy().search_space().entries() {
            assert!(
                page.contains(&escape(&operation.label())),
                "{}",
                operation.label()
            );
        }
        assert_eq!(page.matches("<svg").count(), 3);
        let strips = policy().search_space().len() + 1;
        assert_eq!(page.matches("src=\"data:image/png;base64,").count(), strips);
        assert!(!page.contains("http") && !page.contains("<link") && !page.contains("<script"));
        assert!(page.contains("--policy '/out/my policy.json'"));
        assert!(page.contains("Validation accuracy in the last epoch 25.0%"));
        assert!(
            page.contains("1 Wh of the machine"),
            "two epochs of half a watt-hour"
        );
        assert!(page.contains("learned nothing in 6 steps"));
        assert!(page.contains("<th>Ended</th><td>not yet;"));
        assert!(page.contains("--recipe cifar "));
    }

    #[test]
    fn a_missing_dataset_only_costs_the_images() {
        let folder = tempfile::tempdir().unwrap();
        let (run, record) = finished_run(folder.path(), Path::new("/nowhere/gone.lmdb"));
        let output = run.report();
        write_report(&run, &record, &output).unwrap();
        let page = std::fs::read_to_string(&output).unwrap();
        assert!(page.contains("Without sample images") && !page.contains("<img"));
    }

    #[test]
    fn a_run_without_a_finished_epoch_has_no_report() {
        let folder = tempfile::tempdir().unwrap();
        let record = record(folder.path());
        let run = RunFolder::create(folder.path(), &record, false).unwrap();
        let error = write_report(&run, &record, &run.report())
            .unwrap_err()
            .to_string();
        assert!(error.contains("no epoch"), "{error}");
    }

    #[test]
    fn a_run_that_ended_early_says_why() {
        let record = record(Path::new("/data/d.lmdb"));
        let stopped = Metric::Stopped {
            epoch: 2,
            step: 7,
            reason: "a training loss is NaN".to_owned(),
        };
        let text = ending(&record, &policy(), &[stopped]);
        assert_eq!(
            text,
            "early, in epoch 3 after 7 steps: a training loss is NaN"
        );
    }

    #[test]
    fn the_strongest_operation_comes_first() {
        assert_eq!(ranked(&policy())[0], 0);
    }

    #[test]
    fn entropy_is_one_for_uniform_and_zero_for_certain() {
        assert!((normalised_entropy(&[0.25; 4]) - 1.0).abs() < 1e-12);
        assert_eq!(normalised_entropy(&[1.0, 0.0]), 0.0);
        assert_eq!(normalised_entropy(&[1.0]), 1.0);
    }
}
