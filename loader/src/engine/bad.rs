//! What becomes of samples that cannot be read or decoded while a run is under way.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::Engine;
use super::stats::StageTotals;
use crate::error::{Error, Result, one_line};
use crate::plan::Position;

/// Substitutes tried before a sample is given up; all of them bad is no matter of a few samples.
const MOST_ATTEMPTS: u64 = 100;

/// Why a sample could not be made.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What becomes of a sample that cannot be read or decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum OnBad {
    /// The run ends with [`Error::Sample`].
    #[default]
    Fail,
    /// Another sample of the epoch takes its place.
    Substitute(Substitutes),
}

/// How bad samples are replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Substitutes {
    /// So many different samples may be bad in a run; one more ends it with [`Error::TooManyBad`].
    pub most: BadBudget,
    /// File to which a line of JSON is appended for every bad sample, once an epoch.
    pub log: Option<PathBuf>,
}

/// A number of samples, or a share of all.
///
/// ```
/// use ddas_loader::BadBudget;
///
/// assert_eq!("12".parse::<BadBudget>()?.of(1000), 12);
/// assert_eq!("0.1%".parse::<BadBudget>()?.of(50_000), 50);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BadBudget {
    /// So many.
    Samples(u64),
    /// So many of a hundred, rounded up.
    Percent(f64),
}

impl BadBudget {
    /// The number of samples that it allows of `samples`.
    pub fn of(self, samples: u64) -> u64 {
        match self {
            BadBudget::Samples(most) => most,
            BadBudget::Percent(percent) => (samples as f64 * percent / 100.0).ceil() as u64,
        }
    }
}

impl FromStr for BadBudget {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<BadBudget, String> {
        let wrong = || {
            format!(
                "expected a number of samples such as 12, or a share such as 0.1%; found {text:?}"
            )
        };
        match text.strip_suffix('%') {
            None => text.parse().map(BadBudget::Samples).map_err(|_| wrong()),
            Some(share) => match share.parse() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(BadBudget::Percent(percent)),
                _ => Err(wrong()),
            },
        }
    }
}

/// Bad samples of a run.
#[derive(Default)]
pub(super) struct BadSamples {
    rule: Option<Rule>,
    found: Mutex<Found>,
}

struct Rule {
    most: u64,
    log: Option<(PathBuf, File)>,
}

#[derive(Default)]
struct Found {
    /// Every bad sample of the run; no more than the budget allows, and one.
    samples: HashSet<u64>,
    /// Those already noted, by epoch.
    noted: HashSet<(u32, u64)>,
    substituted: u64,
    events: VecDeque<BadSampleEvent>,
}

/// A bad sample that was replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct BadSampleEvent {
    /// Where in the run it was needed.
    pub at: Position,
    /// Its number in the stream.
    pub index: u64,
    /// Its dataset.
    pub dataset: PathBuf,
    /// Its number in the dataset.
    pub key: u64,
    /// What is wrong with it.
    pub reason: String,
    /// The number, in the stream, of the sample that came in its place.
    pub substitute: u64,
}

/// Events that nobody has asked for yet; without anybody the oldest are dropped.
const MOST_EVENTS: usize = 256;

/// A line of the log.
#[derive(Serialize)]
struct Line<'a> {
    epoch: u32,
    step: u64,
    /// Number in the stream.
    index: u64,
    dataset: String,
    /// Number in its dataset.
    key: u64,
    reason: &'a str,
    /// The number, in the stream, of the sample that was delivered.
    substitute: u64,
}

impl BadSamples {
    /// # Errors
    /// [`Error::Io`] when the log cannot be opened.
    pub(super) fn new(on_bad: OnBad, samples: u64) -> Result<BadSamples> {
        let OnBad::Substitute(Substitutes { most, log }) = on_bad else {
            return Ok(BadSamples::default());
        };
        let log = log.map(
            |path| match File::options().create(true).append(true).open(&path) {
                Ok(file) => Ok((path, file)),
                Err(source) => Err(Error::Io {
                    action: format!("opening the log of bad samples {}", path.display()),
                    source,
                }),
            },
        );
        Ok(BadSamples {
            rule: Some(Rule {
                most: most.of(samples),
                log: log.transpose()?,
            }),
            found: Mutex::default(),
        })
    }

    /// Different samples found bad, and samples replaced.
    pub(super) fn counts(&self) -> (u64, u64) {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        (found.samples.len() as u64, found.substituted)
    }

    pub(super) fn take_events(&self) -> Vec<BadSampleEvent> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.events.drain(..).collect()
    }

    /// Counts a bad sample; whether that is still allowed.
    fn count(&self, most: u64, index: u64) -> bool {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.samples.insert(index);
        found.samples.len() as u64 <= most
    }

    /// Writes a line, unless the sample has one for this epoch.
    fn note(
        &self,
        rule: &Rule,
        engine: &Engine,
        at: Position,
        index: u64,
        reason: &str,
        substitute: u64,
    ) -> Result<()> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.substituted += 1;
        // Batches of two epochs may be under way at once, not of three.
        found.noted.retain(|noted| noted.0 + 2 > at.epoch);
        if !found.noted.insert((at.epoch, index)) {
            return Ok(());
        }
        let (dataset, key) = engine.dataset.locate(index);
        if found.events.len() >= MOST_EVENTS {
            found.events.pop_front();
        }
        found.events.push_back(BadSampleEvent {
            at,
            index,
            dataset: dataset.path().to_owned(),
            key,
            reason: reason.to_owned(),
            substitute,
        });
        let Some((path, file)) = &rule.log else {
            return Ok(());
        };
        let line = Line {
            epoch: at.epoch,
            step: at.step,
            index,
            dataset: dataset.path().display().to_string(),
            key,
            reason,
            substitute,
        };
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        // In one piece, so that several daemons may share a log.
        let mut file = file;
        file.write_all(text.as_bytes()).map_err(|source| Error::Io {
            action: format!("writing the log of bad samples {}", path.display()),
            source,
        })
    }
}

impl Engine {
    /// The error for sample `index`, which could not be made.
    pub(super) fn sample_error(&self, at: Position, index: u64, source: Cause) -> Error {
        let (dataset, index) = self.dataset.locate(index);
        Error::Sample {
            dataset: dataset.path().to_owned(),
            index,
            at,
            source,
        }
    }

    /// Makes another sample in the place of `index`, if that is wanted. Which one depends on the seed, the epoch and `index`
    /// alone, so that the stream is the same for any threads, ranks and restarts.
    ///
    /// # Errors
    /// [`Error::Sample`] when the run is to end; [`Error::TooManyBad`]; [`Error::Io`] when the log cannot be written.
    pub(super) fn replace(
        &self,
        at: Position,
        index: u64,
        cause: Cause,
        make: &mut dyn FnMut(u64) -> std::result::Result<StageTotals, Cause>,
    ) -> Result<StageTotals> {
        let Some(rule) = &self.bad.rule else {
            return Err(self.sample_error(at, index, cause));
        };
        let too_many = |index, cause| Error::TooManyBad {
            most: rule.most,
            source: Box::new(self.sample_error(at, index, cause)),
        };
        if !self.bad.count(rule.most, index) {
            return Err(too_many(index, cause));
        }
        let samples = self.plan.order(at.epoch);
        for attempt in 0..MOST_ATTEMPTS {
            let substitute = samples.substitute(self.plan.options().seed, index, attempt);
            if substitute == index {
                continue;
            }
            match make(substitute) {
                Ok(times) => {
                    let reason = one_line(&*cause);
                    self.bad.note(rule, self, at, index, &reason, substitute)?;
                    return Ok(times);
                }
                // It has a line of its own when its turn comes.
                Err(cause) if !self.bad.count(rule.most, substitute) => {
                    return Err(too_many(substitute, cause));
                }
                Err(_) => {}
            }
        }
        Err(self.sample_error(at, index, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_numbers_or_shares() {
        for (text, samples, most) in [
            ("0", 100, 0),
            ("7", 3, 7),
            ("0%", 100, 0),
            ("0.1%", 100, 1),
            ("1.5%", 1000, 15),
            ("100%", 9, 9),
        ] {
            assert_eq!(
                text.parse::<BadBudget>().unwrap().of(samples),
                most,
                "{text}"
            );
        }
        for text in ["", "%", "-1", "1.5", "101%", "nan%", "many"] {
            assert!(
                text.parse::<BadBudget>().unwrap_err().contains("0.1%"),
                "{text}"
            );
        }
    }
}
