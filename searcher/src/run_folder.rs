//! The folder of a run: its settings, what happened, and how to go on.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::dead_gradient::DeadSteps;
use crate::epoch::EpochReport;
use crate::error::{Error, Result};
use crate::search::StepReport;

/// Content of `config.json`: everything a run was told, with every setting resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// Always `"ddas-search-run"`.
    pub format: String,
    /// Version of this layout; this build reads 1.
    pub version: u32,
    /// Version of the program that began the run.
    pub program: String,
    /// The dataset, as an absolute path.
    pub dataset: PathBuf,
    /// Its content hash: a run is not resumed on other data.
    pub content_hash: String,
    /// Name of the preset.
    pub preset: String,
    /// Where the policy goes, as an absolute path.
    pub output: PathBuf,
    /// Device computed on (`cpu`, `cuda:0`).
    pub device: String,
    /// CPU threads of the network.
    pub threads: u32,
    /// XXH3-64 of the TorchScript file the network came from, hexadecimal; none for a network
    /// built in. A run is not resumed with another network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_hash: Option<String>,
    /// XXH3-64 of the file that the search space was read from, hexadecimal; none for one known by
    /// name. A run is not resumed with another search space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search_space_hash: Option<String>,
    /// Every setting.
    pub settings: Config,
}

impl RunRecord {
    /// Value of [`RunRecord::format`].
    pub const FORMAT: &str = "ddas-search-run";
    /// Value of [`RunRecord::version`].
    pub const VERSION: u32 = 1;
}

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Metric {
    /// After a step.
    Step {
        /// Search epoch, from 0.
        epoch: u32,
        /// Step within the epoch, from 0.
        step: u32,
        /// Learning rate of the network.
        learning_rate: f64,
        /// Loss of the plain batch before the update.
        train_loss: f64,
        /// Loss of each augmented copy before the update.
        branch_losses: Vec<f64>,
        /// Operations of each drawn policy.
        policies: Vec<Vec<usize>>,
        /// Loss of the validation batch after the update.
        validation_loss: f64,
        /// Sum of the absolute differences of inner products.
        z_g: f64,
        /// Norm of the plain batch's gradient before the update; none in files from before it
        /// was kept.
        #[serde(default)]
        training_gradient_norm: Option<f64>,
        /// Norm of the validation batch's gradient after the update.
        #[serde(default)]
        validation_gradient_norm: Option<f64>,
        /// Total probability after the step.
        total_probability: f64,
        /// Seconds of the step without waiting for its batch.
        seconds: f64,
        /// Seconds waited for its batch.
        waited: f64,
    },
    /// After an epoch.
    Epoch {
        /// Search epoch, from 0.
        epoch: u32,
        /// Total probability of the snapshot.
        total_probability: f64,
        /// Operation probabilities of the snapshot.
        operation_probabilities: Vec<f64>,
        /// Mean loss of the plain batches.
        train_loss: f64,
        /// Mean loss of the validation batches.
        validation_loss: f64,
        /// Share of correct predictions in them; null for a network that gives no predictions.
        validation_accuracy: Option<f64>,
        /// Steps in which a gradient was too small to teach anything; 0 in files from before
        /// they were counted.
        #[serde(flatten)]
        dead: DeadSteps,
        /// Seconds of the epoch.
        seconds: f64,
        /// Joules of the machine's processors meanwhile, where they can be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        joules: Option<f64>,
    },
    /// The run ended before its last epoch.
    Stopped {
        /// Search epoch that was not finished, from 0.
        epoch: u32,
        /// Steps of it that were done.
        step: u32,
        /// Why: a signal, or what failed.
        reason: String,
    },
}

impl Metric {
    /// The line of a step.
    pub fn step(report: &StepReport) -> Self {
        let outcome = &report.outcome;
        Self::Step {
            epoch: report.epoch,
            step: report.step,
            learning_rate: report.learning_rate,
            train_loss: outcome.plain_loss,
            branch_losses: outcome.branch_losses.clone(),
            policies: report.policies.clone(),
            validation_loss: outcome.validation_loss,
            z_g: outcome.gradient.z_g,
            training_gradient_norm: Some(outcome.norms.training),
            validation_gradient_norm: Some(outcome.norms.validation),
            total_probability: report.total_probability,
            seconds: report.seconds,
            waited: report.waited,
        }
    }

    /// The line of an epoch with the snapshot taken at its end.
    pub fn epoch(
        report: &EpochReport,
        snapshot: &ddas_formats::Snapshot,
        joules: Option<f64>,
    ) -> Self {
        Self::Epoch {
            epoch: report.epoch,
            total_probability: snapshot.total_probability(),
            operation_probabilities: snapshot.operation_probabilities().to_vec(),
            train_loss: report.train_loss,
            validation_loss: report.validation_loss,
            validation_accuracy: report.validation_accuracy,
            dead: report.dead,
            seconds: report.seconds,
            joules,
        }
    }

    /// Whether it tells of what happened before a step of an epoch that is not finished.
    fn is_before(&self, first_epoch: u32, first_step: u32) -> bool {
        match self {
            Self::Step { epoch, step, .. } => (*epoch, *step) < (first_epoch, first_step),
            Self::Epoch { epoch, .. } => *epoch < first_epoch,
            // The run goes on.
            Self::Stopped { .. } => false,
        }
    }
}

/// A run's folder: `config.json`, `metrics.jsonl`, `checkpoint.safetensors`, `policy.json`,
/// `report.html`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Begins a run in a folder that is made if need be.
    ///
    /// # Errors
    /// [`Error::File`] when the folder holds an earlier run and `overwrite` is false; [`Error::Io`]
    /// when it cannot be written.
    pub fn create(path: &Path, record: &RunRecord, overwrite: bool) -> Result<Self> {
        let folder = Self {
            path: path.to_owned(),
        };
        if folder.config().exists() && !overwrite {
            return Err(Error::File {
                path: path.to_owned(),
                problem: "holds an earlier run; go on with it (`ddas-search resume`), choose \
                          another --run-dir, or replace it with --overwrite"
                    .to_owned(),
            });
        }
        std::fs::create_dir_all(path).map_err(Error::io(path, "create"))?;
        for old in [
            folder.checkpoint(),
            folder.policy(),
            folder.report(),
            folder.metrics(),
        ] {
            match std::fs::remove_file(&old) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::Io {
                        path: old,
                        action: "remove",
                        source: error,
                    });
                }
                _ => {}
            }
        }
        let text = serde_json::to_string_pretty(record)
            .map_err(|error| Error::Invalid(format!("the settings cannot be written: {error}")))?;
        let config = folder.config();
        std::fs::write(&config, text + "\n").map_err(Error::io(&config, "write"))?;
        Ok(folder)
    }

    /// An existing run and what it was told.
    ///
    /// # Errors
    /// [`Error::File`] when the folder holds no run, or one of another version.
    pub fn open(path: &Path) -> Result<(Self, RunRecord)> {
        let folder = Self {
            path: path.to_owned(),
        };
        let config = folder.config();
        let fail = |problem: String| Error::File {
            path: config.clone(),
            problem,
        };
        let text = std::fs::read_to_string(&config).map_err(|error| {
            fail(format!(
                "{error}; expected the folder of a `ddas-search run` (--run-dir)"
            ))
        })?;
        let record: RunRecord =
            serde_json::from_str(&text).map_err(|error| fail(error.to_string()))?;
        if record.format != RunRecord::FORMAT || record.version != RunRecord::VERSION {
            return Err(fail(format!(
                "is `{}` version {}; this build reads `{}` version {}",
                record.format,
                record.version,
                RunRecord::FORMAT,
                RunRecord::VERSION
            )));
        }
        Ok((folder, record))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn config(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// Where the state after the last finished epoch lies.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint.safetensors")
    }

    /// Where the policy of the finished epochs lies.
    pub fn policy(&self) -> PathBuf {
        self.path.join("policy.json")
    }

    /// Where the report lies.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// Where the metrics lie: one JSON object per line.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Opens the metrics for further lines, dropping those from step `first_step` of epoch
    /// `first_epoch` on: what came after the checkpoint is run again.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read or written.
    pub fn append_metrics(&self, first_epoch: u32, first_step: u32) -> Result<MetricsWriter> {
        let path = self.metrics();
        let kept: Vec<Metric> = match path.exists() {
            true => self.read_metrics()?,
            false => Vec::new(),
        };
        let temporary = path.with_extension("tmp");
        let mut writer = MetricsWriter {
            path: path.clone(),
            file: create(&temporary)?,
        };
        for metric in kept
            .iter()
            .filter(|metric| metric.is_before(first_epoch, first_step))
        {
            writer.write(metric)?;
        }
        // The open file goes on under its new name.
        std::fs::rename(&temporary, &path).map_err(Error::io(&path, "write"))?;
        Ok(writer)
    }

    /// All metrics so far; a last line that was cut short is left out.
    ///
    /// # Errors
    /// [`Error::Io`] when there are none; [`Error::File`] when a line is no metric.
    pub fn read_metrics(&self) -> Result<Vec<Metric>> {
        let path = self.metrics();
        let file = File::open(&path).map_err(Error::io(&path, "read"))?;
        let lines: Vec<String> = BufReader::new(file)
            .lines()
            .collect::<std::io::Result<_>>()
            .map_err(Error::io(&path, "read"))?;
        let mut metrics = Vec::with_capacity(lines.len());
        for (number, line) in lines.iter().enumerate() {
            match serde_json::from_str(line) {
                Ok(metric) => metrics.push(metric),
                Err(_) if number + 1 == lines.len() => {}
                Err(error) => {
                    let problem = format!("line {}: {error}", number + 1);
                    return Err(Error::File { path, problem });
                }
            }
        }
        Ok(metrics)
    }
}

fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(path)
        .map_err(Error::io(path, "create"))
}

/// Writes `metrics.jsonl`, line by line, so that it can be watched.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

impl MetricsWriter {
    /// Adds a line.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn write(&mut self, metric: &Metric) -> Result<()> {
        let line = serde_json::to_string(metric)
            .map_err(|error| Error::Invalid(format!("a metric cannot be written: {error}")))?;
        self.file
            .write_all(format!("{line}\n").as_bytes())
            .map_err(Error::io(&self.path, "write"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> RunRecord {
        RunRecord {
            format: RunRecord::FORMAT.to_owned(),
            version: RunRecord::VERSION,
            program: "0.1.0".to_owned(),
            dataset: "/data/cifar10.lmdb".into(),
            content_hash: "00ff".to_owned(),
            preset: "cifar10".to_owned(),
            output: "/policy.json".into(),
            device: "cpu".to_owned(),
            threads: 2,
            network_hash: None,
            search_space_hash: None,
            settings: Config::preset("cifar10").unwrap(),
        }
    }

    fn epoch(epoch: u32) -> Metric {
        Metric::Epoch {
            epoch,
            total_probability: 0.3,
            operation_probabilities: vec![0.25; 4],
            train_loss: 2.0,
            validation_loss: 2.5,
            validation_accuracy: Some(0.125),
            dead: DeadSteps::default(),
            seconds: 60.0,
            joules: None,
        }
    }

    #[test]
    fn a_run_is_found_again_as_it_was_begun() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let written = RunFolder::create(&path, &record(), false).unwrap();
        assert_eq!(RunFolder::open(&path).unwrap(), (written, record()));
    }

    #[test]
    fn an_earlier_run_is_not_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path(), &record(), false).unwrap();
        std::fs::write(run.policy(), "old").unwrap();
        let error = RunFolder::create(folder.path(), &record(), false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("--overwrite"), "{error}");
        assert!(run.policy().exists());
        RunFolder::create(folder.path(), &record(), true).unwrap();
        assert!(!run.policy().exists());
    }

    #[test]
    fn folders_that_are_no_run_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = RunFolder::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("config.json") && error.contains("ddas-search run"),
            "{error}"
        );
        let newer = RunRecord {
            version: 2,
            ..record()
        };
        RunFolder::create(folder.path(), &newer, false).unwrap();
        let error = RunFolder::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("reads `ddas-search-run` version 1"),
            "{error}"
        );
    }

    #[test]
    fn metrics_of_an_unfinished_epoch_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path(), &record(), false).unwrap();
        let mut writer = run.append_metrics(0, 0).unwrap();
        for number in 0..3 {
            writer.write(&epoch(number)).unwrap();
        }
        // A line cut short by a kill.
        let mut text = std::fs::read_to_string(run.metrics()).unwrap();
        text.push_str("{\"kind\":\"ep");
        std::fs::write(run.metrics(), text).unwrap();
        assert_eq!(run.read_metrics().unwrap(), [epoch(0), epoch(1), epoch(2)]);

        run.append_metrics(2, 0).unwrap().write(&epoch(2)).unwrap();
        assert_eq!(run.read_metrics().unwrap(), [epoch(0), epoch(1), epoch(2)]);
        run.append_metrics(1, 0).unwrap();
        assert_eq!(run.read_metrics().unwrap(), [epoch(0)]);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path(), &record(), false).unwrap();
        std::fs::write(run.metrics(), "nothing\n{\"kind\":\"ep").unwrap();
        let error = run.read_metrics().unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
