//! What a search space lists: operations, operations with a varied argument, and sequences of them.

mod json;
mod variation;

pub use variation::{Argument, Distribution, Round, Variation};

use crate::operation::{Operation, OperationKind};
use crate::operation_arguments::{Extent, SignRule};
use crate::{Error, Result};

/// Name of the kind that holds steps in a policy file.
pub(crate) const SEQUENCE: &str = "Sequence";

/// One operation as a policy draws it: with its arguments as they stand, or
/// with one of them drawn anew for each sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    operation: Operation,
    variation: Option<Variation>,
}

impl Candidate {
    /// An operation whose argument named by `variation` is drawn; its value in
    /// `operation` does not matter.
    ///
    /// ```
    /// use ddas_formats::{Argument, Candidate, Distribution, Operation, Round, SignRule, Variation, Warp};
    ///
    /// let rotate = Operation::Rotate { degrees: 0.0, sign: SignRule::Random, warp: Warp::default() };
    /// let variation = Variation::new(
    ///     Argument::Degrees,
    ///     Distribution::Uniform { low: 0.0, high: 30.0 },
    ///     (None, None),
    ///     Round::None,
    /// )?;
    /// let candidate = Candidate::varied(rotate, variation)?;
    /// assert_eq!(candidate.label(), "Rotate ±0..30°");
    /// assert!(matches!(candidate.with_value(12.5), Operation::Rotate { degrees: 12.5, .. }));
    /// # Ok::<(), ddas_formats::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Field`] when the operation has no such argument, or the
    /// argument may leave its range.
    pub fn varied(operation: Operation, variation: Variation) -> Result<Self> {
        if principal(&operation) != Some(variation.argument()) {
            return Err(Error::field(
                "varies.argument",
                match principal(&operation) {
                    Some(argument) => format!(
                        "`{}`; what {} can vary here is `{}`",
                        variation.argument().name(),
                        operation.kind(),
                        argument.name()
                    ),
                    None => format!("{} has no argument to vary", operation.kind()),
                },
            ));
        }
        let candidate = Candidate {
            operation,
            variation: Some(variation),
        };
        // The valid values of every argument are an interval: its ends stand for all.
        for value in [variation.range().0, variation.range().1, variation.middle()] {
            in_whole_range(variation.argument(), value)
                .and_then(|()| candidate.with_value(value).validate())
                .map_err(|error| error.within("varies"))?;
        }
        Ok(Candidate {
            operation: candidate.with_value(variation.middle()),
            variation: Some(variation),
        })
    }

    /// The operation; a varied argument stands at the middle of its distribution.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// How an argument is drawn, if one is.
    pub fn variation(&self) -> Option<&Variation> {
        self.variation.as_ref()
    }

    /// What is done, without the arguments.
    pub fn kind(&self) -> OperationKind {
        self.operation.kind()
    }

    /// The operation with `value` for its varied argument; without one, as it stands.
    #[must_use]
    pub fn with_value(&self, value: f64) -> Operation {
        let mut operation = self.operation;
        if self.variation.is_some() {
            set_principal(&mut operation, value);
        }
        operation
    }

    /// A short name for plots and tables, such as `Rotate ±15°` or `Rotate ±0..30°`.
    pub fn label(&self) -> String {
        let label = self.operation.label();
        let Some(variation) = &self.variation else {
            return label;
        };
        let mirrored = self.operation.sign() == SignRule::Random;
        let sign = if mirrored { "±" } else { "" };
        let of_extent = |extent: Extent| match extent {
            Extent::Pixels(_) => (sign, 0.0, 1.0, "px"),
            Extent::Fraction(_) => (sign, 0.0, 100.0, "%"),
        };
        let (before, origin, scale, unit) = match self.operation {
            Operation::Rotate { .. } => (sign, 0.0, 1.0, "°"),
            Operation::ShearX { .. } | Operation::ShearY { .. } => (sign, 0.0, 1.0, ""),
            Operation::TranslateX { offset, .. } | Operation::TranslateY { offset, .. } => {
                of_extent(offset)
            }
            Operation::Posterize { .. } => ("", 0.0, 1.0, "b"),
            Operation::Color { .. }
            | Operation::Contrast { .. }
            | Operation::Brightness { .. }
            | Operation::Sharpness { .. } => match mirrored {
                true => ("x1±", 1.0, 1.0, ""),
                false => ("x", 0.0, 1.0, ""),
            },
            Operation::Cutout { size, .. } => of_extent(size),
            Operation::GaussianBlur { .. } => ("", 0.0, 1.0, "px"),
            Operation::Desaturate { .. } => ("", 0.0, 100.0, "%"),
            _ => ("", 0.0, 1.0, ""),
        };
        let values = variation.label(origin, scale);
        format!("{} {before}{values}{unit}", self.kind())
    }
}

impl From<Operation> for Candidate {
    fn from(operation: Operation) -> Self {
        Candidate {
            operation,
            variation: None,
        }
    }
}

/// A part of a sequence: a candidate that is applied or left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    probability: f64,
    candidate: Candidate,
}

impl Step {
    /// A step that is applied with `probability`, independently of other steps.
    ///
    /// # Errors
    /// [`Error::Field`] when the probability is not in 0..=1.
    pub fn new(probability: f64, candidate: impl Into<Candidate>) -> Result<Self> {
        if !(0.0..=1.0).contains(&probability) {
            return Err(Error::field(
                "probability",
                format!("{probability} is not a probability between 0 and 1"),
            ));
        }
        Ok(Step {
            probability,
            candidate: candidate.into(),
        })
    }

    /// Chance that the step is applied when its sequence is drawn.
    pub fn probability(&self) -> f64 {
        self.probability
    }

    /// What is applied.
    pub fn candidate(&self) -> &Candidate {
        &self.candidate
    }
}

/// One entry of a search space: what one draw applies.
///
/// ```
/// use ddas_formats::{Entry, Operation, Step};
///
/// let pair = Entry::sequence(vec![
///     Step::new(0.8, Operation::Equalize)?,
///     Step::new(0.6, Operation::Posterize { bits: 4 })?,
/// ])?;
/// assert_eq!(pair.label(), "Equalize p0.8, Posterize 4b p0.6");
/// assert!(Entry::from(Operation::Invert).operation().is_some());
/// # Ok::<(), ddas_formats::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Entry {
    /// One operation.
    Single(Candidate),
    /// Operations one after the other, each with a probability of its own: the
    /// sub-policies of AutoAugment. Made by [`Entry::sequence`].
    Sequence(Steps),
}

/// The steps of a sequence, 1 to [`Entry::MAX_STEPS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Steps(Vec<Step>);

impl std::ops::Deref for Steps {
    type Target = [Step];

    fn deref(&self) -> &[Step] {
        &self.0
    }
}

impl Entry {
    /// Most steps of a sequence.
    pub const MAX_STEPS: usize = 16;

    /// A sequence of `steps`.
    ///
    /// # Errors
    /// [`Error::Field`] when there are none, or more than [`Entry::MAX_STEPS`].
    pub fn sequence(steps: Vec<Step>) -> Result<Entry> {
        if steps.is_empty() || steps.len() > Entry::MAX_STEPS {
            return Err(Error::field(
                "steps",
                format!(
                    "{} steps; a sequence has 1 to {}",
                    steps.len(),
                    Entry::MAX_STEPS
                ),
            ));
        }
        Ok(Entry::Sequence(Steps(steps)))
    }

    /// The operation, when the entry is one with all arguments fixed.
    pub fn operation(&self) -> Option<&Operation> {
        match self {
            Entry::Single(Candidate {
                operation,
                variation: None,
            }) => Some(operation),
            _ => None,
        }
    }

    /// The operations that the entry may apply, in order; one for a single operation.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        let (single, steps): (_, &[Step]) = match self {
            Entry::Single(candidate) => (Some(candidate), &[]),
            Entry::Sequence(steps) => (None, steps),
        };
        single.into_iter().chain(steps.iter().map(Step::candidate))
    }

    /// A short name for plots and tables.
    pub fn label(&self) -> String {
        match self {
            Entry::Single(candidate) => candidate.label(),
            Entry::Sequence(steps) => steps
                .iter()
                .map(|step| format!("{} p{}", step.candidate.label(), step.probability))
                .collect::<Vec<_>>()
                .join(", "),
        }
    }

    /// Checks every argument.
    pub(crate) fn validate(&self) -> Result<()> {
        match self {
            Entry::Single(candidate) => candidate.operation.validate(),
            Entry::Sequence(steps) => steps.iter().enumerate().try_for_each(|(index, step)| {
                step.candidate
                    .operation
                    .validate()
                    .map_err(|error| error.within(&format!("steps[{index}].operation")))
            }),
        }
    }
}

impl From<Operation> for Entry {
    fn from(operation: Operation) -> Self {
        Entry::Single(operation.into())
    }
}

impl From<Candidate> for Entry {
    fn from(candidate: Candidate) -> Self {
        Entry::Single(candidate)
    }
}

/// The argument of `operation` that can be varied.
fn principal(operation: &Operation) -> Option<Argument> {
    let extent = |extent: &Extent, pixels| match extent {
        Extent::Pixels(_) => pixels,
        Extent::Fraction(_) => Argument::Fraction,
    };
    Some(match operation {
        Operation::Rotate { .. } => Argument::Degrees,
        Operation::ShearX { .. } | Operation::ShearY { .. } => Argument::Shear,
        Operation::TranslateX { offset, .. } | Operation::TranslateY { offset, .. } => {
            extent(offset, Argument::Pixels)
        }
        Operation::Posterize { .. } => Argument::Bits,
        Operation::Solarize { .. } => Argument::Threshold,
        Operation::SolarizeAdd { .. } => Argument::Add,
        Operation::Color { .. }
        | Operation::Contrast { .. }
        | Operation::Brightness { .. }
        | Operation::Sharpness { .. } => Argument::Factor,
        Operation::Cutout { size, .. } => extent(size, Argument::Size),
        Operation::GaussianBlur { .. } => Argument::Radius,
        Operation::Desaturate { .. } => Argument::Amount,
        _ => return None,
    })
}

/// Sets the argument that [`principal`] names. Whole-numbered ones were
/// checked to stay in the range of their type.
fn set_principal(operation: &mut Operation, value: f64) {
    let in_unit = |extent: &mut Extent| match extent {
        Extent::Pixels(pixels) => *pixels = value,
        Extent::Fraction(fraction) => *fraction = value,
    };
    match operation {
        Operation::Rotate { degrees, .. } => *degrees = value,
        Operation::ShearX { shear, .. } | Operation::ShearY { shear, .. } => *shear = value,
        Operation::TranslateX { offset, .. } | Operation::TranslateY { offset, .. } => {
            in_unit(offset);
        }
        Operation::Posterize { bits } => *bits = value as u8,
        Operation::Solarize { threshold } => *threshold = value,
        Operation::SolarizeAdd { add, .. } => *add = value as i32,
        Operation::Color { factor, .. }
        | Operation::Contrast { factor, .. }
        | Operation::Brightness { factor, .. }
        | Operation::Sharpness { factor, .. } => *factor = value,
        Operation::Cutout { size, .. } => in_unit(size),
        Operation::GaussianBlur { radius } => *radius = value,
        Operation::Desaturate { amount } => *amount = value,
        _ => {}
    }
}

/// Refuses values that a conversion to a whole-numbered argument would bend into its range.
fn in_whole_range(argument: Argument, value: f64) -> Result<()> {
    let range = match argument {
        Argument::Bits => 0.0..=8.0,
        Argument::Add => -255.0..=255.0,
        _ => return Ok(()),
    };
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::field(
        argument.name(),
        format!(
            "may become {value}, which is not between {} and {}",
            range.start(),
            range.end()
        ),
    ))
}

#[cfg(test)]
mod tests;
