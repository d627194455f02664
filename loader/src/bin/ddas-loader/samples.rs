//! Flags about which samples come, and what becomes of bad ones.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ddas_loader::{
    BadBudget, Error, HashSplit, OnBad, PlanError, SampleOptions, Sampling, SplitPart, Stream,
    StreamOptions, Substitutes,
};

use crate::report::Usage;

/// Which samples of which datasets.
#[derive(Args)]
pub(crate) struct SampleArguments {
    /// A further dataset of the same classes: WEIGHT of its samples come for one of DATASET (0.5: one for two). May be
    /// given several times. Sample numbers go on from one dataset to the next.
    #[arg(long, value_name = "DATASET=WEIGHT", value_parser = weighted)]
    mix: Vec<(PathBuf, f64)>,

    /// How samples are drawn: uniform, each as often as any other; class-balanced, each class as often as any other (reads
    /// every label at the start, and keeps four bytes for each sample).
    #[arg(long, value_enum, default_value = "uniform")]
    sampling: SamplingName,

    /// Take only this part of every dataset: train or validation, told apart by a hash of the sample's number, so that
    /// samples stay where they are when others are appended [default: all].
    #[arg(long, value_name = "PART")]
    split: Option<SplitPart>,

    /// Share of the samples that --split puts aside for validation.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = fraction)]
    validation_fraction: f64,

    /// Seed of --split: the same for training and validation, whatever --seed is.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    split_seed: u64,

    /// Samples of an epoch [default: as many as there are]. What an epoch leaves out comes in the next.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    epoch_samples: Option<u64>,

    /// What becomes of a sample that cannot be read or decoded: fail ends the run; substitute takes another sample of the
    /// epoch, the same one whatever the number of threads and ranks.
    #[arg(long, value_enum, default_value = "fail")]
    on_bad: OnBadName,

    /// With --on-bad substitute: so many different samples may be bad, or such a share of all; one more ends the run
    /// [default: 0.1%].
    #[arg(long, value_name = "N|P%")]
    max_bad: Option<BadBudget>,

    /// With --on-bad substitute: append a line of JSON for every bad sample and epoch to this file [default:
    /// bad_samples.jsonl].
    #[arg(long, value_name = "FILE")]
    bad_log: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SamplingName {
    /// Each sample as often as any other.
    Uniform,
    /// Each class as often as any other.
    ClassBalanced,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnBadName {
    /// The run ends.
    Fail,
    /// Another sample comes in its place.
    Substitute,
}

fn weighted(text: &str) -> Result<(PathBuf, f64), String> {
    let wrong = || {
        format!(
            "expected DATASET=WEIGHT with a weight above 0, such as more.lmdb=0.5; found {text:?}"
        )
    };
    let (path, weight) = text.rsplit_once('=').ok_or_else(wrong)?;
    match weight.parse::<f64>() {
        Ok(weight) if weight > 0.0 && weight.is_finite() && !path.is_empty() => {
            Ok((path.into(), weight))
        }
        _ => Err(wrong()),
    }
}

fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err(format!(
            "expected a share between 0 and 1, such as 0.1; found {text:?}"
        )),
    }
}

/// A stream as the flags describe it.
#[derive(Clone)]
pub(crate) struct StreamToOpen {
    pub(crate) options: StreamOptions,
    pub(crate) samples: SampleOptions,
    pub(crate) on_bad: OnBad,
}

impl StreamToOpen {
    pub(crate) fn open(self) -> anyhow::Result<Stream> {
        let mut stream = Stream::with_samples(self.options, self.samples).map_err(told)?;
        stream.on_bad = self.on_bad;
        Ok(stream)
    }
}

/// Flags that no dataset could make fit are wrong usage; what does not fit this dataset is a failure.
fn told(error: Error) -> anyhow::Error {
    match error {
        Error::Plan(PlanError::Start { start, epochs, .. }) if start.epoch >= epochs => {
            Usage(error.to_string()).into()
        }
        Error::Plan(PlanError::OddParts { .. }) => Usage(error.to_string()).into(),
        _ => error.into(),
    }
}

impl SampleArguments {
    pub(crate) fn resolve(self) -> Result<(SampleOptions, OnBad), Usage> {
        let samples = SampleOptions {
            more: self.mix,
            sampling: match self.sampling {
                SamplingName::Uniform => Sampling::Uniform,
                SamplingName::ClassBalanced => Sampling::ClassBalanced,
            },
            split: self.split.map(|part| HashSplit {
                part,
                validation_fraction: self.validation_fraction,
                seed: self.split_seed,
            }),
            epoch_samples: self.epoch_samples,
        };
        let on_bad = match self.on_bad {
            OnBadName::Fail if self.max_bad.is_some() || self.bad_log.is_some() => {
                let flags = "--max-bad and --bad-log go with --on-bad substitute";
                return Err(Usage(flags.to_owned()));
            }
            OnBadName::Fail => OnBad::Fail,
            OnBadName::Substitute => OnBad::Substitute(Substitutes {
                most: self.max_bad.unwrap_or(BadBudget::Percent(0.1)),
                log: Some(self.bad_log.unwrap_or_else(|| "bad_samples.jsonl".into())),
            }),
        };
        Ok((samples, on_bad))
    }
}
