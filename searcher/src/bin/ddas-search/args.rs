//! The command line as typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use ddas_search::{Config, DeviceChoice};

/// Learns when and how to augment a dataset, by one-step meta-gradient on a small proxy task.
#[derive(Debug, Parser)]
#[command(name = "ddas-search", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Search a policy for a dataset packed by `ddas-loader pack`.
    #[command(after_long_help = settings_help())]
    Run(Box<RunArgs>),
    /// Go on with a run that was stopped (from its last step) or killed (from its last epoch).
    Resume(ResumeArgs),
    /// Write a run's report anew.
    Report(ReportArgs),
    /// Compare policies: the ranking of operations, and when to augment.
    #[command(
        long_about = "Compare policies: the ranking of operations, and when to augment.\n\n\
        Takes the last epoch of each policy file, every file with every other: Spearman's rank \
        correlation of the operation probabilities (operations matched by kind and arguments, \
        copies in one search space taken together, the mean of their probabilities relative to \
        uniform ranked, ties sharing their mean rank), how many of the strongest operations both \
        have, the distance of the distributions, and the difference of the total probabilities. \
        Policies of other methods come in by `ddas-loader policy import` and `policy builtin`."
    )]
    Compare(CompareArgs),
    /// Compare one step with the numbers of another implementation.
    #[command(
        long_about = "Compare one step with the numbers of another implementation.\n\n\
        Runs a meta-gradient step in f64 on the inputs of a safetensors file and prints how far \
        every result lies from the file's; exit status 1 when any is further than the tolerance."
    )]
    CheckStep(CheckStepArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Packed dataset (a folder NAME.lmdb).
    pub(crate) dataset: PathBuf,

    /// Settings to start from. `-released`: the authors' code where it differs from the paper.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(Config::PRESETS))]
    pub(crate) preset: String,

    /// Where the policy goes.
    #[arg(short, long, value_name = "FILE", default_value = "policy.json")]
    pub(crate) output: PathBuf,

    /// Folder of the run: settings, metrics, checkpoint, report [default: OUTPUT without its
    /// extension, with `-run` appended].
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,

    /// Replace an earlier run in the folder.
    #[arg(long)]
    pub(crate) overwrite: bool,

    /// Change a setting of the preset; may be given many times (`--help` lists the keys).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// Operations to choose from: the name of a search space, or a JSON file with one
    /// [default: the preset's].
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) search_space: Option<String>,

    /// Proxy network: wrn-DEPTH-WIDTH, resnet-18, resnet-50, proxy, or the file of a TorchScript
    /// module (.pt) whose forward(images) gives logits, or forward(images, labels) one loss per
    /// sample [default: the preset's].
    #[arg(long, value_name = "NAME|FILE.pt")]
    pub(crate) model: Option<String>,

    /// Decides the split, the initial weights and every draw [default: the preset's: 0, or 20 for
    /// `-released`].
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,

    #[command(flatten)]
    pub(crate) ablations: AblationArgs,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// Settings that are often changed, as flags.
#[derive(Debug, clap::Args)]
pub(crate) struct AblationArgs {
    /// What the network's convolutions compute in: f32 (the reference) or bf16 (processors and
    /// GPUs that have it) [default: the preset's].
    #[arg(long, value_name = "KIND")]
    precision: Option<String>,

    /// What computes the network's gradients: native (wide residual networks on the CPU), libtorch,
    /// or auto, native where there is one and libtorch is not faster [default: auto].
    #[arg(long, value_name = "ENGINE")]
    engine: Option<String>,

    /// Keep the total probability at P instead of learning it.
    #[arg(long, value_name = "P")]
    fix_total_probability: Option<f64>,

    /// Keep the operation probabilities uniform instead of learning them.
    #[arg(long)]
    fix_operation_probabilities: bool,

    /// Epochs over which training smooths the total probability (F_s; 1 is off) [default: the
    /// preset's].
    #[arg(long, value_name = "EPOCHS")]
    smoothing: Option<u32>,

    /// Crop, flip and cutout of a sample's copies: shared by all, or each copy's own [default: the
    /// preset's].
    #[arg(long, value_name = "HOW", value_parser = ["shared", "own"])]
    crops: Option<String>,

    /// Policies drawn in a step, one augmented copy each (L-hat) [default: the preset's].
    #[arg(long, value_name = "N")]
    branches: Option<u32>,

    /// Operations per augmented sample (N_o) [default: the search space's].
    #[arg(long, value_name = "N")]
    draws: Option<u32>,
}

impl AblationArgs {
    /// The same as `--set` takes it.
    pub(crate) fn settings(&self) -> Vec<String> {
        let mut settings = Vec::new();
        if let Some(precision) = &self.precision {
            settings.push(format!("precision={precision}"));
        }
        if let Some(engine) = &self.engine {
            settings.push(format!("engine={engine}"));
        }
        if let Some(total) = self.fix_total_probability {
            settings.push(format!("total_probability={total:?}"));
            settings.push("learn_total_probability=false".to_owned());
        }
        if self.fix_operation_probabilities {
            settings.push("learn_operation_probabilities=false".to_owned());
        }
        if let Some(crops) = &self.crops {
            settings.push(format!("shared_crop={}", crops == "shared"));
        }
        for (key, value) in [
            ("smoothing_window", self.smoothing),
            ("branches", self.branches),
            ("draws_per_sample", self.draws),
        ] {
            settings.extend(value.map(|value| format!("{key}={value}")));
        }
        settings
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct MachineArgs {
    /// Where to compute: auto, cpu, cuda or cuda:N. `auto` takes the first CUDA device where
    /// there is one.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: DeviceChoice,

    /// CPU threads of the network; 0 is one per core. Results are repeatable bit for bit for the
    /// same number of threads.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// Folder of the run (`--run-dir` of `run`).
    pub(crate) run_dir: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Folder of the run (`--run-dir` of `run`).
    pub(crate) run_dir: PathBuf,

    /// Where the report goes [default: RUN_DIR/report.html].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// Policy files, two or more.
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    pub(crate) policies: Vec<PathBuf>,

    /// Operations that count as the strongest.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,

    /// List the common operations of each pair with their weights and ranks.
    #[arg(long)]
    pub(crate) operations: bool,

    /// Print JSON: a list with an object for each pair, operations included.
    #[arg(long)]
    pub(crate) json: bool,

    /// Exit status 1 when any two policies have a lower rho.
    #[arg(long, value_name = "RHO", value_parser = correlation, allow_negative_numbers = true)]
    pub(crate) min_rho: Option<f64>,
}

/// NaN would fail every comparison silently.
fn correlation(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (-1.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from -1 to 1, such as 0.5".to_owned()),
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckStepArgs {
    /// Safetensors file with the inputs of a step and its results.
    pub(crate) file: PathBuf,

    /// Largest relative difference accepted.
    #[arg(long, value_name = "X", default_value_t = 1e-9, value_parser = tolerance)]
    pub(crate) tolerance: f64,
}

/// With NaN for a tolerance every difference would pass.
fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..f64::INFINITY).contains(&value) => Ok(value),
        _ => Err("expected a number from 0, such as 1e-9".to_owned()),
    }
}

/// Flags that ask for what cannot be: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Usage(pub(crate) ddas_search::Error);

fn settings_help() -> String {
    let mut help = String::from("Keys of --set:\n");
    for setting in Config::SETTINGS {
        let line = format!("  {:<30} {}", setting.key, setting.about);
        // What it takes stands on a line of its own where the first would be too long to read.
        let gap = match line.len() + setting.expects.len() > 94 {
            true => format!("\n{:33}", ""),
            false => " ".to_owned(),
        };
        help += &format!("{line}{gap}({})\n", setting.expects);
    }
    help + "\nCtrl-C ends a run and leaves the policy of its finished epochs, or,\nbefore the first is done, one of the probabilities as they stand."
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_full_command_is_understood() {
        let args = Args::try_parse_from([
            "ddas-search",
            "run",
            "c.lmdb",
            "--preset",
            "cifar10",
            "-o",
            "p.json",
            "--set",
            "epochs=1",
            "--set",
            "branches=2",
            "--device",
            "cuda:1",
            "--seed",
            "7",
            "--threads",
            "2",
        ])
        .unwrap();
        let Command::Run(run) = args.command else {
            panic!("another command")
        };
        assert_eq!(run.set, ["epochs=1", "branches=2"]);
        assert_eq!(run.machine.device, DeviceChoice::Cuda(1));
        assert_eq!(run.seed, Some(7));
        assert!(run.ablations.settings().is_empty());
    }

    #[test]
    fn ablations_are_settings() {
        let args = Args::try_parse_from(
            "ddas-search run c.lmdb --preset cifar10 --precision bf16 --fix-total-probability 0.6 \
             --fix-operation-probabilities --smoothing 6 --crops shared --branches 1 --draws 3"
                .split_whitespace(),
        )
        .unwrap();
        let Command::Run(run) = args.command else {
            panic!("another command")
        };
        let mut config = Config::preset("cifar10").unwrap();
        for assignment in run.ablations.settings() {
            config.set(&assignment).unwrap();
        }
        config.validate().unwrap();
        assert_eq!(config.precision, ddas_search::Precision::Bf16);
        assert!(!config.learn_total_probability && !config.learn_operation_probabilities);
        assert!(config.shared_crop);
        assert_eq!(
            (config.total_probability, config.smoothing_window),
            (0.6, 6)
        );
        assert_eq!((config.branches, config.draws_per_sample), (1, Some(3)));
    }

    #[test]
    fn wrong_usage_is_refused() {
        for wrong in [
            &["ddas-search", "run", "c.lmdb"][..],
            &["ddas-search", "run", "c.lmdb", "--preset", "cifar11"],
            &[
                "ddas-search",
                "run",
                "c.lmdb",
                "--preset",
                "cifar10",
                "--device",
                "gpu",
            ],
            &["ddas-search", "resume"],
        ] {
            assert!(Args::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
