//! timm's RandAugment and AutoAugment (`timm/data/auto_augment.py`), by its configuration strings.
//!
//! Levels are on a scale of 10 and kept within 0 and `mmax` (10). A level is
//! fixed, normal around the magnitude (`mstd`), or uniform up to it (`mstd`
//! over 100). Grey (128, 128, 128) outside; geometric operations read bilinear
//! or bicubic, either with probability 1/2: two entries of half the weight.

use super::operations::{
    Enhancer, added_below, rotate, shear_x, shear_y, translate_x, translate_y,
};
use super::tensorflow::v0_pairs;
use super::{Definition, Weighted};
use crate::operation::Operation;
use crate::operation_arguments::{Extent, Interpolation, SignRule, Warp};
use crate::{
    Argument, Candidate, Distribution, Entry, Error, Result, Round, SearchSpace, Step, Variation,
};

/// Whether `name` is to be read as a configuration string.
pub(super) fn is_config(name: &str) -> bool {
    let first = name.split('-').next().unwrap_or_default();
    matches!(
        first,
        "rand" | "original" | "originalr" | "v0" | "v0r" | "augmix" | "3a"
    )
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    PosterizeIncreasing,
    PosterizeOriginal,
    Solarize,
    SolarizeIncreasing,
    SolarizeAdd,
    Enhance(Enhancer),
    EnhanceIncreasing(Enhancer),
    ShearX,
    ShearY,
    TranslateXRel,
    TranslateYRel,
}

/// How strong an operation is.
#[derive(Clone, Copy)]
struct Level {
    magnitude: f64,
    spread: Spread,
    /// Largest level (`mmax`).
    upper: f64,
}

#[derive(Clone, Copy)]
enum Spread {
    Fixed,
    Normal(f64),
    /// From 0 to the magnitude.
    Uniform,
}

impl Level {
    /// The largest level that can come up.
    fn largest(&self) -> f64 {
        match self.spread {
            Spread::Normal(_) => self.upper,
            Spread::Fixed | Spread::Uniform => self.magnitude.min(self.upper),
        }
    }
}

/// An argument as a function of the level: `base + direction * part`, where the part is
/// `level / 10 * full`, at most `most`, and cut to a whole number if `whole`.
#[derive(Clone, Copy)]
struct Scale {
    argument: Argument,
    base: f64,
    /// 1 or -1.
    direction: f64,
    full: f64,
    most: f64,
    whole: bool,
}

impl Scale {
    fn up(argument: Argument, full: f64) -> Self {
        Scale {
            argument,
            base: 0.0,
            direction: 1.0,
            full,
            most: f64::INFINITY,
            whole: false,
        }
    }

    fn from(self, base: f64) -> Self {
        Scale { base, ..self }
    }

    fn down(self) -> Self {
        Scale {
            direction: -1.0,
            ..self
        }
    }

    fn at_most(self, most: f64) -> Self {
        Scale { most, ..self }
    }

    fn whole(self) -> Self {
        Scale {
            whole: true,
            ..self
        }
    }

    /// The argument at a level, before it is cut to a whole number.
    fn real(&self, level: f64) -> f64 {
        self.base + self.direction * (level / 10.0 * self.full).min(self.most)
    }

    fn candidate(&self, operation: Operation, level: Level) -> Result<Candidate> {
        // The part is cut towards zero: down when added to the base, up when subtracted.
        let round = match (self.whole, self.direction > 0.0) {
            (false, _) => Round::None,
            (true, true) => Round::Floor,
            (true, false) => Round::Ceil,
        };
        let variation = |distribution, low: f64, high: f64| {
            let (low, high) = (low.min(high), low.max(high));
            Variation::new(self.argument, distribution, (Some(low), Some(high)), round)
        };
        let (first, last) = (self.real(0.0), self.real(level.upper));
        let magnitude = level.magnitude.min(level.upper);
        let variation = match level.spread {
            Spread::Fixed => {
                let value = self.real(magnitude);
                // A distribution of one value, of which the middle is taken.
                let distribution = Distribution::Uniform {
                    low: value,
                    high: value,
                };
                let fixed = Candidate::varied(operation, variation(distribution, value, value)?)?;
                return Ok((*fixed.operation()).into());
            }
            Spread::Normal(std) => variation(
                Distribution::Normal {
                    mean: self.base + self.direction * level.magnitude / 10.0 * self.full,
                    std: std / 10.0 * self.full,
                },
                first,
                last,
            )?,
            Spread::Uniform => {
                let end = self.base + self.direction * level.magnitude / 10.0 * self.full;
                variation(
                    Distribution::Uniform {
                        low: self.base.min(end),
                        high: self.base.max(end),
                    },
                    first,
                    last,
                )?
            }
        };
        Candidate::varied(operation, variation)
    }
}

/// What a draw of `kind` applies: alternatives with their shares, which sum to one.
fn alternatives(kind: Kind, level: Level) -> Result<Vec<(f64, Candidate)>> {
    let one = |candidate: Result<Candidate>| Ok(vec![(1.0, candidate?)]);
    let plain = |operation: Operation| Ok(vec![(1.0, operation.into())]);
    let warped = |operation: fn(f64, Warp) -> Operation, scale: Scale| {
        [Interpolation::Bilinear, Interpolation::Bicubic]
            .into_iter()
            .map(|interpolation| {
                let fill = [128; 3];
                let operation = operation(
                    0.0,
                    Warp {
                        fill,
                        interpolation,
                    },
                );
                Ok((0.5, scale.candidate(operation, level)?))
            })
            .collect()
    };
    let bits = Scale::up(Argument::Bits, 4.0).whole();
    let threshold = Scale::up(Argument::Threshold, 256.0).whole().at_most(256.0);
    let posterize = Operation::Posterize { bits: 0 };
    let solarize = Operation::Solarize { threshold: 0.0 };
    match kind {
        Kind::AutoContrast => plain(Operation::AutoContrast),
        Kind::Equalize => plain(Operation::Equalize),
        Kind::Invert => plain(Operation::Invert),
        Kind::Rotate => warped(rotate, Scale::up(Argument::Degrees, 30.0)),
        Kind::ShearX => warped(shear_x, Scale::up(Argument::Shear, 0.3)),
        Kind::ShearY => warped(shear_y, Scale::up(Argument::Shear, 0.3)),
        Kind::TranslateXRel => warped(
            |part, warp| translate_x(Extent::Fraction(part), warp),
            Scale::up(Argument::Fraction, 0.45),
        ),
        Kind::TranslateYRel => warped(
            |part, warp| translate_y(Extent::Fraction(part), warp),
            Scale::up(Argument::Fraction, 0.45),
        ),
        // Eight bits and more leave the image alone; below none it stays black.
        Kind::Posterize => one(bits.at_most(8.0).candidate(posterize, level)),
        Kind::PosterizeIncreasing => one(bits
            .from(4.0)
            .down()
            .at_most(4.0)
            .candidate(posterize, level)),
        Kind::PosterizeOriginal => one(bits.from(4.0).at_most(4.0).candidate(posterize, level)),
        Kind::Solarize => one(threshold.candidate(solarize, level)),
        Kind::SolarizeIncreasing => one(threshold.from(256.0).down().candidate(solarize, level)),
        Kind::SolarizeAdd => one(Scale::up(Argument::Add, 110.0)
            .whole()
            .at_most(128.0)
            .candidate(added_below(0), level)),
        Kind::Enhance(enhancer) => one(Scale::up(Argument::Factor, 1.8)
            .from(0.1)
            .candidate(enhancer.by(1.0, SignRule::Fixed), level)),
        Kind::EnhanceIncreasing(enhancer) => {
            let factor = Scale::up(Argument::Factor, 0.9).from(1.0);
            if level.largest() <= 10.0 {
                return one(factor.candidate(enhancer.by(1.0, SignRule::Random), level));
            }
            // The factor is not let below 0.1, so that up and down are no mirror images.
            let fixed = enhancer.by(1.0, SignRule::Fixed);
            Ok(vec![
                (0.5, factor.candidate(fixed, level)?),
                (0.5, factor.down().at_most(0.9).candidate(fixed, level)?),
            ])
        }
    }
}

const INCREASING: [Kind; 15] = [
    Kind::AutoContrast,
    Kind::Equalize,
    Kind::Invert,
    Kind::Rotate,
    Kind::PosterizeIncreasing,
    Kind::SolarizeIncreasing,
    Kind::SolarizeAdd,
    Kind::EnhanceIncreasing(Enhancer::Color),
    Kind::EnhanceIncreasing(Enhancer::Contrast),
    Kind::EnhanceIncreasing(Enhancer::Brightness),
    Kind::EnhanceIncreasing(Enhancer::Sharpness),
    Kind::ShearX,
    Kind::ShearY,
    Kind::TranslateXRel,
    Kind::TranslateYRel,
];

fn constant(kind: Kind) -> Kind {
    match kind {
        Kind::PosterizeIncreasing => Kind::Posterize,
        Kind::SolarizeIncreasing => Kind::Solarize,
        Kind::EnhanceIncreasing(enhancer) => Kind::Enhance(enhancer),
        other => other,
    }
}

/// Reads a configuration string as `rand_augment_transform` and `auto_augment_transform` do.
pub(super) fn from_config(config: &str) -> Result<Definition> {
    let mut sections = config.split('-');
    let first = sections.next().unwrap_or_default();
    if matches!(first, "augmix" | "3a") {
        return Err(Error::field(
            "timm",
            match first {
                "3a" => "`3a` is not known here; `rand-...`, `original...` and `v0...` are",
                _ => "augmix blends several images of one sample, which a policy does not",
            },
        ));
    }
    let mut settings = Settings::default();
    for section in sections {
        settings.read(first == "rand", section)?;
    }
    let entries = match first {
        "rand" => randaugment(&settings)?,
        "original" => pairs(&ORIGINAL, &settings, |kind| kind)?,
        "originalr" => pairs(&ORIGINAL, &settings, |kind| match kind {
            Kind::PosterizeOriginal => Kind::PosterizeIncreasing,
            other => other,
        })?,
        "v0" => pairs(&V0, &settings, |kind| kind)?,
        _ => pairs(&V0, &settings, |kind| match kind {
            Kind::Posterize => Kind::PosterizeIncreasing,
            other => other,
        })?,
    };
    Ok(Definition {
        draws: if first == "rand" { settings.layers } else { 1 },
        entries,
        source: ("timm", "1.0.31"),
    })
}

struct Settings {
    magnitude: f64,
    layers: u32,
    probability: f64,
    spread: Spread,
    upper: f64,
    increasing: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            magnitude: 10.0,
            layers: 2,
            probability: 0.5,
            spread: Spread::Fixed,
            upper: 10.0,
            increasing: false,
        }
    }
}

impl Settings {
    fn read(&mut self, rand: bool, section: &str) -> Result<()> {
        let digits = section
            .find(|letter: char| letter.is_ascii_digit())
            .unwrap_or(section.len());
        let (key, text) = section.split_at(digits);
        let wrong = |expected: &str| {
            Error::field("timm", format!("section `{section}`: expected {expected}"))
        };
        let real = |high: f64| {
            text.parse::<f64>()
                .ok()
                .filter(|value| (0.0..=high).contains(value))
                .ok_or_else(|| wrong(&format!("`{key}` and a number from 0 to {high}")))
        };
        let whole = |low: u32, high: u32| {
            text.parse::<u32>()
                .ok()
                .filter(|value| (low..=high).contains(value))
                .ok_or_else(|| wrong(&format!("`{key}` and a whole number from {low} to {high}")))
        };
        match key {
            "mstd" => {
                let std = real(f64::MAX)?;
                self.spread = match std {
                    0.0 => Spread::Fixed,
                    std if rand && std > 100.0 => Spread::Uniform,
                    std => Spread::Normal(std),
                };
            }
            "mmax" if rand => self.upper = f64::from(whole(1, 1000)?),
            "inc" if rand => self.increasing = whole(0, u32::MAX)? != 0,
            "m" if rand => self.magnitude = f64::from(whole(0, 1000)?),
            "n" if rand => self.layers = whole(1, SearchSpace::MAX_DRAWS)?,
            "p" if rand => self.probability = real(1.0)?,
            _ if rand && key.starts_with('t') => {
                return Err(Error::field(
                    "timm",
                    format!(
                        "section `{section}`: weighted choices are drawn without replacement there, which a policy does not do"
                    ),
                ));
            }
            _ if rand => return Err(wrong("m, n, p, mstd, mmax or inc with a number")),
            _ => return Err(wrong("mstd with a number")),
        }
        Ok(())
    }

    fn level(&self, magnitude: f64) -> Level {
        Level {
            magnitude,
            spread: self.spread,
            upper: self.upper,
        }
    }
}

fn randaugment(settings: &Settings) -> Result<Weighted> {
    let level = settings.level(settings.magnitude);
    let share = settings.probability / INCREASING.len() as f64;
    // The draws that are not applied.
    let mut entries: Weighted = vec![(1.0 - settings.probability, Operation::Identity.into())];
    for kind in INCREASING {
        let kind = if settings.increasing {
            kind
        } else {
            constant(kind)
        };
        for (part, candidate) in alternatives(kind, level)? {
            entries.push((share * part, candidate.into()));
        }
    }
    Ok(entries)
}

/// Kind, probability, level.
type PairStep = (Kind, f64, u32);

/// Pairs of steps, with an entry for each combination of alternatives.
fn pairs(
    policy: &[[PairStep; 2]],
    settings: &Settings,
    kind: impl Fn(Kind) -> Kind,
) -> Result<Weighted> {
    let mut entries = Weighted::new();
    for [first, second] in policy {
        let of = |step: &PairStep| alternatives(kind(step.0), settings.level(f64::from(step.2)));
        for (a, first_candidate) in of(first)? {
            for (b, second_candidate) in of(second)? {
                let steps = vec![
                    Step::new(first.1, first_candidate)?,
                    Step::new(second.1, second_candidate)?,
                ];
                entries.push((a * b, Entry::sequence(steps)?));
            }
        }
    }
    Ok(entries)
}

const COLOR: Kind = Kind::Enhance(Enhancer::Color);
const CONTRAST: Kind = Kind::Enhance(Enhancer::Contrast);
const SHARPNESS: Kind = Kind::Enhance(Enhancer::Sharpness);

/// The ImageNet policy of the AutoAugment paper.
#[rustfmt::skip]
const ORIGINAL: [[PairStep; 2]; 25] = {
    use Kind::*;
    [
        [(PosterizeOriginal, 0.4, 8), (Rotate, 0.6, 9)],
        [(Solarize, 0.6, 5), (AutoContrast, 0.6, 5)],
        [(Equalize, 0.8, 8), (Equalize, 0.6, 3)],
        [(PosterizeOriginal, 0.6, 7), (PosterizeOriginal, 0.6, 6)],
        [(Equalize, 0.4, 7), (Solarize, 0.2, 4)],
        [(Equalize, 0.4, 4), (Rotate, 0.8, 8)],
        [(Solarize, 0.6, 3), (Equalize, 0.6, 7)],
        [(PosterizeOriginal, 0.8, 5), (Equalize, 1.0, 2)],
        [(Rotate, 0.2, 3), (Solarize, 0.6, 8)],
        [(Equalize, 0.6, 8), (PosterizeOriginal, 0.4, 6)],
        [(Rotate, 0.8, 8), (COLOR, 0.4, 0)],
        [(Rotate, 0.4, 9), (Equalize, 0.6, 2)],
        [(Equalize, 0.0, 7), (Equalize, 0.8, 8)],
        [(Invert, 0.6, 4), (Equalize, 1.0, 8)],
        [(COLOR, 0.6, 4), (CONTRAST, 1.0, 8)],
        [(Rotate, 0.8, 8), (COLOR, 1.0, 2)],
        [(COLOR, 0.8, 8), (Solarize, 0.8, 7)],
        [(SHARPNESS, 0.4, 7), (Invert, 0.6, 8)],
        [(ShearX, 0.6, 5), (Equalize, 1.0, 9)],
        [(COLOR, 0.4, 0), (Equalize, 0.6, 3)],
        [(Equalize, 0.4, 7), (Solarize, 0.2, 4)],
        [(Solarize, 0.6, 5), (AutoContrast, 0.6, 5)],
        [(Invert, 0.6, 4), (Equalize, 1.0, 8)],
        [(COLOR, 0.6, 4), (CONTRAST, 1.0, 8)],
        [(Equalize, 0.8, 8), (Equalize, 0.6, 3)],
    ]
};

/// The ImageNet policy v0 of TensorFlow's EfficientNet.
const V0: [[PairStep; 2]; 25] = {
    use Kind::*;
    v0_pairs!(TranslateYRel)
};
