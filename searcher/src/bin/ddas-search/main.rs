//! `ddas-search`: learns an augmentation policy for a packed dataset.

mod args;
mod check;
mod compare;
mod output;
mod progress;
mod run;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command, Usage};
use output::say;

fn main() -> ExitCode {
    // Wrong usage ends here with status 2.
    let args = Args::parse();
    let result = match &args.command {
        Command::Run(run) => run::run(run),
        Command::Resume(resume) => run::resume(resume),
        Command::Report(report) => run::report(report),
        Command::Compare(policies) => compare::compare(policies),
        Command::CheckStep(check) => check::check_step(check),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("error: {}", one_line(&error)));
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// The chain of causes; one that the message before it already ends with is not said twice.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let root = anyhow::anyhow!("no space").context("cannot write: no space");
        assert_eq!(one_line(&root), "cannot write: no space");
        assert_eq!(
            one_line(&root.context("p.json")),
            "p.json: cannot write: no space"
        );
    }
}
