//! `policy export`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum, value_parser};
use ddas_formats::{ExportNote, ExportTarget, Fidelity, Policy};
use ddas_runtime::EpochSchedule;

use crate::report;

/// The libraries that pipelines are written for.
#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// JSON for albumentations.load (2.0).
    Albumentations,
    /// Python for a config of mmpretrain 1.x.
    Mmpretrain,
    /// Python for a config of mmdetection 3.x.
    Mmdetection,
}

#[derive(Args)]
pub(crate) struct Export {
    /// The policy file.
    file: PathBuf,
    /// The library to write for.
    #[arg(long, value_name = "LIBRARY")]
    to: Target,
    /// Training epoch whose probabilities are wanted, from 0.
    #[arg(long, value_name = "E")]
    epoch: u32,
    /// Length of the training in epochs.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    epochs: u32,
    /// The file to write [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Side of the images in pixels, for lengths that the library knows as fractions only.
    #[arg(long, value_name = "PX", value_parser = value_parser!(u32).range(1..))]
    image_size: Option<u32>,
    /// Fail, and write nothing, when an operation would not be the same, pixel by pixel.
    #[arg(long)]
    strict: bool,
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<()> {
        if let Some(out) = &self.out {
            report::check_output(out, &self.file)?;
        }
        if self.epoch >= self.epochs {
            return Err(report::Usage(format!(
                "--epoch {} is not below --epochs {}; epochs count from 0",
                self.epoch, self.epochs
            ))
            .into());
        }
        let policy = Policy::read(&self.file)?;
        let snapshot = EpochSchedule::new(&policy, self.epochs)?.snapshot_index(self.epoch);
        let target = match self.to {
            Target::Albumentations => ExportTarget::Albumentations,
            Target::Mmpretrain => ExportTarget::Mmpretrain,
            Target::Mmdetection => ExportTarget::Mmdetection,
        };
        let exported = policy.export(target, snapshot, self.image_size)?;
        let inexact: Vec<&ExportNote> = exported
            .notes
            .iter()
            .filter(|note| note.fidelity != Fidelity::Exact)
            .collect();
        if self.strict && !inexact.is_empty() {
            let notes: Vec<String> = inexact.iter().map(ToString::to_string).collect();
            bail!(
                "{target} does not do {} of {} operations as they are here ({}); without --strict the nearest is written",
                inexact.len(),
                exported.notes.len(),
                notes.join("; ")
            );
        }
        for note in &inexact {
            report::tell(&note.to_string());
        }
        let Some(out) = self.out else {
            return report::print(&exported.text);
        };
        fs::write(&out, &exported.text).with_context(|| format!("writing {}", out.display()))?;
        report::print_line(&format!(
            "{}: snapshot {snapshot} for {target}; {} operations exact, {} not",
            out.display(),
            exported.notes.len() - inexact.len(),
            inexact.len()
        ))
    }
}
