//! An argument that is drawn anew for each sample.

use serde::{Deserialize, Serialize};

use crate::operation_json::OperationFields;
use crate::{Error, Result};

/// The argument that says how strongly an operation acts; every kind that has one has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
#[allow(missing_docs)] // the argument of the same name in the policy file
pub enum Argument {
    Degrees,
    Bits,
    Threshold,
    Add,
    Shear,
    Pixels,
    Fraction,
    Size,
    Factor,
    Radius,
    Amount,
}

impl Argument {
    /// The name in the policy file.
    pub fn name(self) -> &'static str {
        match self {
            Argument::Degrees => "degrees",
            Argument::Bits => "bits",
            Argument::Threshold => "threshold",
            Argument::Add => "add",
            Argument::Shear => "shear",
            Argument::Pixels => "pixels",
            Argument::Fraction => "fraction",
            Argument::Size => "size",
            Argument::Factor => "factor",
            Argument::Radius => "radius",
            Argument::Amount => "amount",
        }
    }

    /// Sets the argument in `fields`; whole numbers are rounded down to.
    pub(super) fn set(self, fields: &mut OperationFields, value: Option<f64>) {
        match self {
            Argument::Degrees => fields.degrees = value,
            Argument::Bits => fields.bits = value.map(|value| value as i64),
            Argument::Threshold => fields.threshold = value,
            Argument::Add => fields.add = value.map(|value| value as i32),
            Argument::Shear => fields.shear = value,
            Argument::Pixels => fields.pixels = value,
            Argument::Fraction => fields.fraction = value,
            Argument::Size => fields.size = value,
            Argument::Factor => fields.factor = value,
            Argument::Radius => fields.radius = value,
            Argument::Amount => fields.amount = value,
        }
    }

    /// Whether `fields` holds the argument.
    pub(super) fn is_in(self, fields: &OperationFields) -> bool {
        match self {
            Argument::Degrees => fields.degrees.is_some(),
            Argument::Bits => fields.bits.is_some(),
            Argument::Threshold => fields.threshold.is_some(),
            Argument::Add => fields.add.is_some(),
            Argument::Shear => fields.shear.is_some(),
            Argument::Pixels => fields.pixels.is_some(),
            Argument::Fraction => fields.fraction.is_some(),
            Argument::Size => fields.size.is_some(),
            Argument::Factor => fields.factor.is_some(),
            Argument::Radius => fields.radius.is_some(),
            Argument::Amount => fields.amount.is_some(),
        }
    }
}

/// How the values of a varied argument are spread, before they are limited and rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Gauss's bell.
    Normal {
        /// Its middle.
        mean: f64,
        /// Its standard deviation, 0 or more.
        std: f64,
    },
    /// Every value between the two equally likely.
    Uniform {
        /// The smallest value.
        low: f64,
        /// The largest value.
        high: f64,
    },
}

/// How a drawn value becomes a whole number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Round {
    /// It stays as drawn.
    #[default]
    None,
    /// The next whole number below.
    Floor,
    /// The next whole number above.
    Ceil,
    /// The nearest whole number, halves away from zero.
    Nearest,
}

/// The rule by which one argument is drawn for each sample: a value of the
/// distribution, limited to `min..=max`, then rounded.
///
/// ```
/// use ddas_formats::{Argument, Distribution, Round, Variation};
///
/// // 4 - trunc(0.4 * level), where the level is normal around 9 and kept within 0..=10.
/// let bits = Variation::new(
///     Argument::Bits,
///     Distribution::Normal { mean: 0.4, std: 0.2 },
///     (Some(0.0), Some(4.0)),
///     Round::Ceil,
/// )?;
/// assert_eq!(bits.settle(0.35), 1.0);
/// assert_eq!(bits.settle(-0.2), 0.0);
/// # Ok::<(), ddas_formats::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "VariationFields", into = "VariationFields")]
pub struct Variation {
    argument: Argument,
    distribution: Distribution,
    min: Option<f64>,
    max: Option<f64>,
    round: Round,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DistributionName {
    Normal,
    Uniform,
}

/// The JSON form, before its checks.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VariationFields {
    argument: Argument,
    distribution: DistributionName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mean: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    std: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    low: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    high: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    #[serde(default, skip_serializing_if = "is_none")]
    round: Round,
}

fn is_none(round: &Round) -> bool {
    *round == Round::None
}

impl Variation {
    /// A rule for `argument`, with values limited to `limits` (smallest, largest).
    ///
    /// # Errors
    /// [`Error::Field`] when a number is not finite, a range is empty, a
    /// standard deviation is negative, a normal distribution has no limits, or a
    /// whole-numbered argument has no rounding.
    pub fn new(
        argument: Argument,
        distribution: Distribution,
        limits: (Option<f64>, Option<f64>),
        round: Round,
    ) -> Result<Self> {
        let finite = |name: &str, value: f64| {
            if value.is_finite() {
                Ok(value)
            } else {
                Err(Error::field(name, format!("{value} is not a number")))
            }
        };
        match distribution {
            Distribution::Normal { mean, std } => {
                finite("mean", mean)?;
                if finite("std", std)? < 0.0 {
                    return Err(Error::field("std", format!("{std} is negative")));
                }
                for (name, limit) in [("min", limits.0), ("max", limits.1)] {
                    if limit.is_none() {
                        return Err(Error::field(
                            name,
                            "missing: a normal distribution needs `min` and `max`, which its values are limited to",
                        ));
                    }
                }
            }
            Distribution::Uniform { low, high } => {
                if finite("low", low)? > finite("high", high)? {
                    return Err(Error::field(
                        "high",
                        format!("{high} is below `low`, {low}"),
                    ));
                }
            }
        }
        let (min, max) = limits;
        if let Some(min) = min {
            finite("min", min)?;
        }
        if let Some(max) = max
            && finite("max", max)? < min.unwrap_or(max)
        {
            return Err(Error::field("max", format!("{max} is below `min`")));
        }
        if round == Round::None && matches!(argument, Argument::Bits | Argument::Add) {
            return Err(Error::field(
                "round",
                format!(
                    "missing: `{}` is a whole number; give floor, ceil or nearest",
                    argument.name()
                ),
            ));
        }
        Ok(Variation {
            argument,
            distribution,
            min,
            max,
            round,
        })
    }

    /// The argument drawn.
    pub fn argument(&self) -> Argument {
        self.argument
    }

    /// How its values are spread before they are limited.
    pub fn distribution(&self) -> Distribution {
        self.distribution
    }

    /// How a value becomes a whole number.
    pub fn round(&self) -> Round {
        self.round
    }

    /// Smallest and largest value the argument can have.
    pub fn range(&self) -> (f64, f64) {
        let (low, high) = match self.distribution {
            Distribution::Normal { .. } => (f64::NEG_INFINITY, f64::INFINITY),
            Distribution::Uniform { low, high } => (low, high),
        };
        (self.settle(low), self.settle(high))
    }

    /// What becomes of a value of the distribution: limited, then rounded.
    #[inline]
    pub fn settle(&self, value: f64) -> f64 {
        let value = value
            .max(self.min.unwrap_or(f64::NEG_INFINITY))
            .min(self.max.unwrap_or(f64::INFINITY));
        match self.round {
            Round::None => value,
            Round::Floor => value.floor(),
            Round::Ceil => value.ceil(),
            Round::Nearest => value.round(),
        }
    }

    /// The middle of the distribution, limited and rounded.
    pub(super) fn middle(&self) -> f64 {
        self.settle(match self.distribution {
            Distribution::Normal { mean, .. } => mean,
            Distribution::Uniform { low, high } => low + (high - low) / 2.0,
        })
    }

    /// For labels: `~27 (sd 1.5)` or `0..30`.
    /// Values are shown minus `origin`, times `scale`.
    pub(super) fn label(&self, origin: f64, scale: f64) -> String {
        let tidy = |value: f64| (value * scale * 1e4).round() / 1e4;
        match self.distribution {
            Distribution::Normal { mean, std } => {
                format!("~{} (sd {})", tidy(mean - origin), tidy(std))
            }
            Distribution::Uniform { .. } => {
                let (low, high) = self.range();
                format!("{}..{}", tidy(low - origin), tidy(high - origin))
            }
        }
    }
}

impl TryFrom<VariationFields> for Variation {
    type Error = Error;

    fn try_from(fields: VariationFields) -> Result<Self> {
        let (name, other) = match fields.distribution {
            DistributionName::Normal => ("normal", [("low", fields.low), ("high", fields.high)]),
            DistributionName::Uniform => ("uniform", [("mean", fields.mean), ("std", fields.std)]),
        };
        if let Some((field, _)) = other.iter().find(|(_, value)| value.is_some()) {
            return Err(Error::field(
                *field,
                format!("a {name} distribution has no such field"),
            ));
        }
        let required = |field: &str, value: Option<f64>| {
            value.ok_or_else(|| {
                Error::field(field, format!("missing: a {name} distribution needs it"))
            })
        };
        let distribution = match fields.distribution {
            DistributionName::Normal => Distribution::Normal {
                mean: required("mean", fields.mean)?,
                std: required("std", fields.std)?,
            },
            DistributionName::Uniform => Distribution::Uniform {
                low: required("low", fields.low)?,
                high: required("high", fields.high)?,
            },
        };
        Variation::new(
            fields.argument,
            distribution,
            (fields.min, fields.max),
            fields.round,
        )
    }
}

impl From<Variation> for VariationFields {
    fn from(variation: Variation) -> Self {
        let (mut mean, mut std, mut low, mut high) = (None, None, None, None);
        let distribution = match variation.distribution {
            Distribution::Normal { mean: m, std: s } => {
                (mean, std) = (Some(m), Some(s));
                DistributionName::Normal
            }
            Distribution::Uniform { low: l, high: h } => {
                (low, high) = (Some(l), Some(h));
                DistributionName::Uniform
            }
        };
        VariationFields {
            argument: variation.argument,
            distribution,
            mean,
            std,
            low,
            high,
            min: variation.min,
            max: variation.max,
            round: variation.round,
        }
    }
}
