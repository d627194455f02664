//! A policy's snapshot as a pipeline of another library, with a list of what differs.

mod albumentations;
mod openmmlab;

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use crate::{
    Candidate, Distribution, Entry, Error, Operation, Policy, Result, SignRule, Variation,
};

/// A library that [`Policy::export`] writes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportTarget {
    /// A JSON pipeline for `albumentations.from_dict` and `albumentations.load` (2.0).
    Albumentations,
    /// A list of transforms for a config of mmpretrain 1.x.
    Mmpretrain,
    /// A list of transforms for a config of mmdetection 3.x.
    Mmdetection,
}

impl ExportTarget {
    /// Every target.
    pub const ALL: [ExportTarget; 3] = [
        ExportTarget::Albumentations,
        ExportTarget::Mmpretrain,
        ExportTarget::Mmdetection,
    ];

    /// Name of the library.
    pub fn name(self) -> &'static str {
        match self {
            ExportTarget::Albumentations => "albumentations",
            ExportTarget::Mmpretrain => "mmpretrain",
            ExportTarget::Mmdetection => "mmdetection",
        }
    }
}

impl fmt::Display for ExportTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for ExportTarget {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        ExportTarget::ALL
            .into_iter()
            .find(|target| target.name() == name)
            .ok_or_else(|| Error::UnknownName {
                what: "export target",
                name: name.to_owned(),
                known: ExportTarget::ALL
                    .map(|target| target.name().to_owned())
                    .into(),
            })
    }
}

/// How well a target does an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fidelity {
    /// The same pixels.
    Exact,
    /// Nearly the same; what differs.
    Approximate(String),
    /// Not at all: the image stays as it is in its place; why.
    LeftOut(String),
}

/// What a target makes of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportNote {
    /// The operation's label.
    pub operation: String,
    /// How well the target does it.
    pub fidelity: Fidelity,
}

impl fmt::Display for ExportNote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fidelity {
            Fidelity::Exact => write!(formatter, "exact: {}", self.operation),
            Fidelity::Approximate(how) => {
                write!(formatter, "approximate: {}: {how}", self.operation)
            }
            Fidelity::LeftOut(why) => write!(formatter, "left out: {}: {why}", self.operation),
        }
    }
}

/// An exported snapshot.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The file's text.
    pub text: String,
    /// One for each operation, in the order of the search space.
    pub notes: Vec<ExportNote>,
}

/// How many values stand for a distribution.
const VALUES: usize = 8;
/// The standard normal distribution's quantiles at (i + 1/2) / 8.
const NORMAL_QUANTILES: [f64; VALUES] = [
    -1.534_120_544_352_546_4,
    -0.887_146_559_018_876_2,
    -0.488_776_411_114_669_5,
    -0.157_310_684_610_170_7,
    0.157_310_684_610_170_7,
    0.488_776_411_114_669_5,
    0.887_146_559_018_876_2,
    1.534_120_544_352_546_4,
];

/// Equally likely values in a distribution's place; equal ones as one, with their shares.
fn quantiles(variation: &Variation) -> Vec<(f64, f64)> {
    let mut values: Vec<(f64, f64)> = Vec::new();
    for (index, normal) in NORMAL_QUANTILES.iter().enumerate() {
        let value = variation.settle(match variation.distribution() {
            Distribution::Normal { mean, std } => mean + std * normal,
            Distribution::Uniform { low, high } => {
                low + (high - low) * (index as f64 + 0.5) / VALUES as f64
            }
        });
        let share = 1.0 / VALUES as f64;
        match values.last_mut() {
            Some((of, last)) if *last == value => *of += share,
            _ => values.push((share, value)),
        }
    }
    values
}

/// What a target's file offers the walk over a search space.
trait Writer {
    /// A part of the pipeline.
    type Part;

    /// One operation. Its sign is fixed, unless the target draws signs itself.
    fn operation(&self, operation: &Operation) -> (Self::Part, Fidelity);
    /// Whether [`Writer::operation`] takes operations of random sign.
    fn draws_signs(&self) -> bool;
    /// One of the parts, drawn with these shares.
    fn choice(&self, parts: Vec<(f64, Self::Part)>) -> Self::Part;
    /// All of the parts in turn, each with its probability.
    fn sequence(&self, parts: Vec<(f64, Self::Part)>) -> Self::Part;
}

/// Keeps the worst of several findings about one operation.
fn worst(a: Fidelity, b: Fidelity) -> Fidelity {
    let rank = |fidelity: &Fidelity| match fidelity {
        Fidelity::Exact => 0,
        Fidelity::Approximate(_) => 1,
        Fidelity::LeftOut(_) => 2,
    };
    match (&a, &b) {
        (Fidelity::LeftOut(_), Fidelity::Approximate(_) | Fidelity::Exact)
        | (Fidelity::Approximate(_) | Fidelity::Exact, Fidelity::LeftOut(_)) => {
            let why = match if rank(&a) > rank(&b) { a } else { b } {
                Fidelity::LeftOut(why) => why,
                _ => String::new(),
            };
            Fidelity::LeftOut(format!("in part: {why}"))
        }
        _ if rank(&b) > rank(&a) => b,
        _ => a,
    }
}

fn candidate<W: Writer>(writer: &W, candidate: &Candidate, notes: &mut Vec<ExportNote>) -> W::Part {
    let mut fidelity: Option<Fidelity> = None;
    let mut one = |operation: &Operation| {
        let (part, found) = writer.operation(operation);
        fidelity = Some(match fidelity.take() {
            None => found,
            Some(before) if before == found => before,
            Some(before) => worst(before, found),
        });
        part
    };
    let values = match candidate.variation() {
        None => vec![(1.0, *candidate.operation())],
        Some(variation) => quantiles(variation)
            .into_iter()
            .map(|(share, value)| (share, candidate.with_value(value)))
            .collect(),
    };
    let mut parts = Vec::new();
    for (share, operation) in values {
        match operation.sign() {
            SignRule::Random if !writer.draws_signs() => {
                parts.push((share / 2.0, one(&operation)));
                parts.push((share / 2.0, one(&operation.mirrored())));
            }
            _ => parts.push((share, one(&operation))),
        }
    }
    let mut fidelity = fidelity.unwrap_or(Fidelity::Exact);
    if candidate.variation().is_some() {
        let values = format!("{VALUES} equally likely values in the place of its distribution");
        fidelity = match fidelity {
            Fidelity::Exact => Fidelity::Approximate(values),
            Fidelity::Approximate(how) => Fidelity::Approximate(format!("{values}; {how}")),
            left_out => left_out,
        };
    }
    notes.push(ExportNote {
        operation: candidate.label(),
        fidelity,
    });
    match parts.len() {
        1 => parts.remove(0).1,
        _ => writer.choice(parts),
    }
}

/// The entries that can come up in `snapshot`, with their shares.
fn entries<W: Writer>(
    policy: &Policy,
    snapshot: usize,
    writer: &W,
) -> (Vec<(f64, W::Part)>, Vec<ExportNote>) {
    let mut notes = Vec::new();
    let shares = policy.snapshots()[snapshot].operation_probabilities();
    let parts = policy
        .search_space()
        .entries()
        .iter()
        .zip(shares)
        .filter(|(_, share)| **share > 0.0)
        .map(|(entry, &share)| {
            let part = match entry {
                Entry::Single(single) => candidate(writer, single, &mut notes),
                Entry::Sequence(steps) => writer.sequence(
                    steps
                        .iter()
                        .filter(|step| step.probability() > 0.0)
                        .map(|step| {
                            let part = candidate(writer, step.candidate(), &mut notes);
                            (step.probability(), part)
                        })
                        .collect(),
                ),
            };
            (share, part)
        })
        .collect();
    let mut seen = HashSet::new();
    notes.retain(|note| seen.insert((note.operation.clone(), note.fidelity.clone())));
    (parts, notes)
}

impl Policy {
    /// Snapshot `snapshot` as a pipeline of another library.
    ///
    /// The total probability, as it is replayed, decides over all draws at
    /// once, and each draw picks an entry by the operation probabilities.
    /// `image_size` is the side of the images in pixels, for targets that know
    /// lengths only as fractions of it.
    ///
    /// ```
    /// use ddas_formats::{BuiltinOptions, ExportTarget, Fidelity, Policy};
    ///
    /// let policy = Policy::builtin("randaugment", &BuiltinOptions::default())?;
    /// let exported = policy.export(ExportTarget::Albumentations, 0, None)?;
    /// let rotate = exported.notes.iter().find(|note| note.operation == "Rotate ±9°").unwrap();
    /// assert_eq!(rotate.fidelity, Fidelity::Exact);
    /// # Ok::<(), ddas_formats::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Field`] when there is no such snapshot.
    pub fn export(
        &self,
        target: ExportTarget,
        snapshot: usize,
        image_size: Option<u32>,
    ) -> Result<Exported> {
        let Some(&total) = self.smoothed_total_probabilities().get(snapshot) else {
            return Err(Error::field(
                "snapshot",
                format!(
                    "there is no snapshot {snapshot}; the policy has {}",
                    self.snapshots().len()
                ),
            ));
        };
        Ok(match target {
            ExportTarget::Albumentations => {
                albumentations::export(self, snapshot, total, image_size)
            }
            ExportTarget::Mmpretrain => openmmlab::export(
                self,
                snapshot,
                total,
                openmmlab::Dialect::Pretrain,
                image_size,
            ),
            ExportTarget::Mmdetection => openmmlab::export(
                self,
                snapshot,
                total,
                openmmlab::Dialect::Detection,
                image_size,
            ),
        })
    }

    /// What the exported file says about where it comes from.
    fn origin(&self, snapshot: usize) -> String {
        let name: String = self
            .search_space()
            .name()
            .chars()
            .filter(|letter| !letter.is_control())
            .collect();
        format!(
            "policy {name}, digest {:016x}, snapshot {snapshot} of 0..{}",
            self.digest(),
            self.snapshots().len() - 1
        )
    }
}

#[cfg(test)]
mod tests;
