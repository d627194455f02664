//! `ddas-search`: learns an augmentation policy for a packed dataset.

mod args;
mod check;
mod progress;
mod run;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    // Wrong usage ends here with status 2.
    let args = Args::parse();
    let result = match &args.command {
        Command::Run(run) => run::run(run),
        Command::Resume(resume) => run::resume(resume),
        Command::Report(report) => run::report(report),
        Command::CheckStep(check) => check::check_step(check),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ddas-search: {error:#}");
            ExitCode::FAILURE
        }
    }
}
