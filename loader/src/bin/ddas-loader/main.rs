//! Packs datasets, serves them to trainers through shared memory, and looks into both.
//!
//! Every subcommand has a file: raw arguments, what they resolve to, and what is done with it. Results go to standard
//! output, everything else is logged to standard error. The exit status is decided here alone: 0 done, 1 failed, 2 wrong usage.

mod bench;
mod consume;
mod http;
mod inspect;
mod log;
mod metrics;
mod notify;
mod observe;
mod options;
mod pack;
mod policy;
mod preview;
mod progress;
mod recipe;
mod recommend;
mod report;
mod samples;
mod screen;
mod serve;
mod status;
mod top;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use report::Usage;

/// Packs image datasets and feeds trainers with augmented batches through shared memory.
#[derive(Parser)]
#[command(name = "ddas-loader", version, max_term_width = 110, after_help = EXIT_STATUS)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: log::LogArguments,
}

const EXIT_STATUS: &str = "Exit status: 0 done, 1 failed, 2 wrong usage.";

#[derive(Subcommand)]
enum Command {
    #[command(subcommand)]
    Pack(pack::Arguments),
    Inspect(inspect::Arguments),
    Verify(verify::Arguments),
    Preview(preview::Arguments),
    Serve(serve::Arguments),
    Consume(consume::Arguments),
    Status(status::Arguments),
    Top(top::Arguments),
    Bench(bench::Arguments),
    #[command(subcommand)]
    Policy(policy::Arguments),
    #[command(subcommand)]
    Recipe(recipe::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = arguments.log.start() {
        report::print_usage(&error);
        return ExitCode::from(2);
    }
    let outcome = match arguments.command {
        Command::Pack(arguments) => pack::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Preview(arguments) => preview::run(arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Consume(arguments) => consume::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Top(arguments) => top::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Policy(arguments) => policy::run(arguments),
        Command::Recipe(arguments) => recipe::run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the results has seen enough (`| head`): not a failure.
        Err(error) if report::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report::print_error(&error);
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    /// `--help` explains every flag: no argument of any subcommand is without a text.
    #[test]
    fn every_argument_is_explained() {
        fn check(command: &clap::Command, path: &str) {
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{path} {}: no help",
                    argument.get_id()
                );
            }
            for subcommand in command.get_subcommands() {
                assert!(
                    subcommand.get_about().is_some(),
                    "{path} {}: no help",
                    subcommand.get_name()
                );
                check(subcommand, &format!("{path} {}", subcommand.get_name()));
            }
        }
        let mut command = Arguments::command();
        command.build();
        check(&command, "ddas-loader");
    }
}
