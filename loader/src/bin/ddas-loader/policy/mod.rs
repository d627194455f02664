//! `policy`: looking into policy files, making, importing and exporting them.

mod builtin;
mod export;
mod show;

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use ddas_formats::{Entry, Policy, SearchSpace, import_authors_policy, policy_png, policy_svg};

use crate::options::search_space;
use crate::report;

/// Shows, checks, plots, makes, imports and exports policy files.
#[derive(Subcommand)]
pub(crate) enum Arguments {
    /// Shows the total probability over time and the strongest operations of each snapshot.
    Show(show::Show),
    /// Checks policy files; a bad one is named with its field, and the exit status is 1.
    Check(Check),
    /// Draws total probability and operation probabilities over the snapshots, as SVG or PNG.
    Plot(Plot),
    /// Writes a policy known from elsewhere: RandAugment, TrivialAugment, AutoAugment and others.
    Builtin(builtin::Make),
    /// Writes what is in force in one epoch as a pipeline for another library, and says what it cannot express.
    Export(export::Export),
    /// Converts a policy that the method's authors published (a pickled .npy; read, never executed).
    Import(Import),
}

#[derive(Args)]
pub(crate) struct Check {
    /// The policy files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Plot {
    /// The policy file.
    file: PathBuf,
    /// The file to write; its ending decides between the two.
    #[arg(short, long, value_name = "FILE.svg|FILE.png")]
    out: PathBuf,
}

#[derive(Args)]
pub(crate) struct Import {
    /// The authors' file: a dict of `dis_ps`, `w0s_mt` and `tps`.
    file: PathBuf,
    /// The policy file to write.
    #[arg(short, long, value_name = "FILE.json")]
    out: PathBuf,
    /// Search space whose operations the columns stand for [default: released52-as-run for 52 columns].
    #[arg(long, value_name = "NAME", value_parser = search_space)]
    search_space: Option<SearchSpace>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments {
        Arguments::Show(show) => show.run(),
        Arguments::Check(check) => check.run(),
        Arguments::Plot(plot) => plot.run(),
        Arguments::Builtin(make) => make.run(),
        Arguments::Export(export) => export.run(),
        Arguments::Import(import) => import.run(),
    }
}

/// A policy in one line.
fn summary(policy: &Policy) -> String {
    let space = policy.search_space();
    let (mut sequences, mut varied) = (0, 0);
    for entry in space.entries() {
        match entry {
            Entry::Sequence(_) => sequences += 1,
            _ => varied += usize::from(entry.operation().is_none()),
        }
    }
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let mut about = space.name().to_owned();
    if sequences > 0 {
        about += &format!("; {sequences} sequence{}", plural(sequences));
    }
    if varied > 0 {
        about += &format!("; {varied} with a varied argument");
    }
    let (snapshots, operations) = (policy.snapshots().len(), space.len());
    format!(
        "{snapshots} snapshot{} of {operations} operation{} ({about}), digest {:016x}",
        plural(snapshots),
        plural(operations),
        policy.digest()
    )
}

impl Check {
    fn run(self) -> anyhow::Result<()> {
        for file in &self.files {
            let policy = Policy::read(file)?;
            report::print_line(&format!("{}: sound: {}", file.display(), summary(&policy)))?;
        }
        Ok(())
    }
}

impl Plot {
    fn run(self) -> anyhow::Result<()> {
        report::check_output(&self.out, &self.file)?;
        let extension = self
            .out
            .extension()
            .map(|extension| extension.to_ascii_lowercase());
        let draw = match extension.as_ref().and_then(|extension| extension.to_str()) {
            Some("svg") => |policy: &Policy| policy_svg(policy).map(String::into_bytes),
            Some("png") => policy_png,
            _ => {
                return Err(report::Usage(format!(
                    "--out {}: give a name that ends in .svg or .png",
                    self.out.display()
                ))
                .into());
            }
        };
        let policy = Policy::read(&self.file)?;
        let picture = draw(&policy).with_context(|| format!("drawing {}", self.file.display()))?;
        fs::write(&self.out, &picture)
            .with_context(|| format!("writing {}", self.out.display()))?;
        report::print_line(&format!(
            "{}: {}",
            self.out.display(),
            report::bytes(picture.len() as u64)
        ))
    }
}

impl Import {
    fn run(self) -> anyhow::Result<()> {
        report::check_output(&self.out, &self.file)?;
        let policy = import_authors_policy(&self.file, self.search_space)?;
        policy.write(&self.out)?;
        report::print_line(&format!("{}: {}", self.out.display(), summary(&policy)))
    }
}
