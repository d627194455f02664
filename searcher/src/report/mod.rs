//! What a search found, as one page that stands alone.

mod chart;
mod command;
mod content;
mod curves;
mod html;
mod operations;
mod reach;
mod samples;
mod summary;

use std::fmt::Write;
use std::path::Path;

use ddas_formats::{Dataset, Policy};

use self::command::{StoredSizes, command};
use self::content::Content;
use self::curves::{losses, total_chart};
use self::html::escape;
use self::operations::{operations_chart, ranking};
use self::reach::reach;
use self::samples::SampleStrips;
use self::summary::summary;
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
    let dataset = Dataset::open(&record.dataset).map_err(Error::from);
    let stored = match &dataset {
        Ok(data) => StoredSizes::of(data, &record.settings),
        Err(_) => StoredSizes::Unknown,
    };
    let strips = dataset.and_then(|data| {
        let (space, settings) = (policy.search_space(), &record.settings);
        let strips = SampleStrips::draw(&data, space, settings)?;
        Ok((strips, content::measure(&data, space, settings)?))
    });
    let page = page(record, &policy, &metrics, strips, stored);
    std::fs::write(output, page).map_err(Error::io(output, "write"))
}

fn page(
    record: &RunRecord,
    policy: &Policy,
    metrics: &[Metric],
    strips: Result<(SampleStrips, Vec<Content>)>,
    stored: StoredSizes,
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
    body += &section(
        "When to augment: total probability",
        total_chart(policy, &record.settings),
    );
    body += &section(
        "How to augment: operation probabilities",
        operations_chart(policy, &labels),
    );
    body += &section(
        "Operations by final probability",
        ranking(policy, &labels, strips),
    );
    body += &section("How far the search could go", reach(record, policy, last));
    body += &section("Loss and accuracy of the proxy network", losses(metrics));
    body += &section("Train with this policy", command(record, stored));
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
pre{background:#f5f5f5;padding:.7rem;overflow-x:auto}img{display:block}img.enlarged{image-rendering:pixelated}
.note{color:#555}";

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
    use ddas_formats::{DatasetWriter, Encoding, Packed, SearchSpace, Snapshot};

    use super::*;
    use crate::config::Config;
    use crate::dead_gradient::DeadSteps;

    pub(super) fn record(dataset: &Path) -> RunRecord {
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
            search_space_hash: None,
            settings: Config::preset("sanity").unwrap(),
        }
    }

    pub(super) fn policy() -> Policy {
        let space = SearchSpace::named("sanity").unwrap();
        let count = space.len();
        let snapshot = |total, first: f64| {
            let mut probabilities = vec![(1.0 - first) / (count - 1) as f64; count];
            probabilities[0] = first;
            Snapshot::new(total, probabilities).unwrap()
        };
        Policy::new(space, vec![snapshot(0.35, 0.1), snapshot(0.45, 0.5)]).unwrap()
    }

    /// The operations' probabilities in it do not matter here.
    pub(super) fn epoch(epoch: u32, total_probability: f64, dead: DeadSteps) -> Metric {
        Metric::Epoch {
            epoch,
            total_probability,
            operation_probabilities: Vec::new(),
            train_loss: 2.0,
            validation_loss: 2.25,
            validation_accuracy: Some(0.25),
            dead,
            seconds: 1.0,
            joules: Some(1800.0),
        }
    }

    fn finished_run(folder: &Path, dataset: &Path) -> (RunFolder, RunRecord) {
        let record = record(dataset);
        let run = RunFolder::create(&folder.join("run"), &record, true).unwrap();
        policy().write(&run.policy()).unwrap();
        let mut metrics = run.append_metrics(0, 0).unwrap();
        for (number, snapshot) in (0..).zip(policy().snapshots()) {
            let dead = DeadSteps {
                idle_steps: 3,
                ..DeadSteps::default()
            };
            let metric = epoch(number, snapshot.total_probability(), dead);
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
        assert_eq!(page.matches("<svg").count(), 4);
        let strips = policy().search_space().len() + 1;
        assert_eq!(page.matches("src=\"data:image/png;base64,").count(), strips);
        assert!(!page.contains("http") && !page.contains("<link") && !page.contains("<script"));
        assert!(page.contains("--policy '/out/my policy.json'"));
        assert!(page.contains("Validation accuracy in the last epoch 25.0%"));
        assert!(
            page.contains("1 Wh of the machine"),
            "two epochs of half a watt-hour"
        );
        assert!(page.contains("in 6 of 124 steps no copy differed"));
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
        assert!(page.contains("--recipe recipe.toml ") && page.contains("in case stored images"));
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
}
