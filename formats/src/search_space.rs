//! Ordered lists of operations that a policy gives probabilities to.

use serde::{Deserialize, Serialize};

use crate::operation::Operation;
use crate::operation_arguments::{CutoutShape, Extent, Rounding, SignRule, Warp};
use crate::{Error, Result};

/// The ordered operations a policy chooses from, and how many it draws per sample.
///
/// ```
/// use ddas_formats::SearchSpace;
///
/// let space = SearchSpace::named("paper68")?;
/// assert_eq!(space.len(), 68);
/// assert_eq!(space.draws_per_sample(), 2);
/// # Ok::<(), ddas_formats::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SearchSpaceFields", into = "SearchSpaceFields")]
pub struct SearchSpace {
    name: String,
    draws_per_sample: u32,
    operations: Vec<Operation>,
}

/// The JSON form, before its checks.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchSpaceFields {
    name: String,
    draws_per_sample: u32,
    operations: Vec<Operation>,
}

impl SearchSpace {
    /// Most operations a search space may hold.
    pub const MAX_OPERATIONS: usize = 4096;
    /// Most operations drawn for one sample.
    pub const MAX_DRAWS: u32 = 16;
    /// The names [`SearchSpace::named`] knows.
    pub const NAMES: [&'static str; 4] = ["paper68", "sanity", "released52", "released52-as-run"];

    /// A search space of the user's own.
    ///
    /// # Errors
    /// [`Error::Field`] when there is no operation or too many, when
    /// `draws_per_sample` is not in 1..=[`Self::MAX_DRAWS`], or an argument is
    /// out of range.
    pub fn new(
        name: impl Into<String>,
        draws_per_sample: u32,
        operations: Vec<Operation>,
    ) -> Result<Self> {
        if operations.is_empty() || operations.len() > Self::MAX_OPERATIONS {
            return Err(Error::field(
                "operations",
                format!(
                    "{} operations; a search space has 1 to {}",
                    operations.len(),
                    Self::MAX_OPERATIONS
                ),
            ));
        }
        if draws_per_sample == 0 || draws_per_sample > Self::MAX_DRAWS {
            return Err(Error::field(
                "draws_per_sample",
                format!(
                    "{draws_per_sample} is not between 1 and {}",
                    Self::MAX_DRAWS
                ),
            ));
        }
        for (index, operation) in operations.iter().enumerate() {
            operation
                .validate()
                .map_err(|error| error.within(&format!("operations[{index}]")))?;
        }
        Ok(SearchSpace {
            name: name.into(),
            draws_per_sample,
            operations,
        })
    }

    /// A search space known by name.
    ///
    /// - `paper68`: the 8 operations without magnitude and 12 with five
    ///   magnitudes each, the size the paper states (K = 68). The paper does
    ///   not print the list; operations are those of the authors' ImageNet
    ///   code, the levels 2, 4, 6, 8, 9 of 10 are our choice: none of them
    ///   blackens the image or repeats another operation.
    /// - `released52`: the list of the authors' CIFAR code with the levels it
    ///   names (0, 2, 10, 14).
    /// - `released52-as-run`: the same as it really ran. A closure in that code
    ///   reads the level when called, when it is 28 for every entry; so the
    ///   four copies of an operation are alike, Posterize is black and
    ///   Solarize inverts.
    /// - `sanity`: the paper's section 4.1, with the quarter turn in the place
    ///   of Rotate and one magnitude (level 6) per operation.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for any other name.
    pub fn named(name: &str) -> Result<Self> {
        let operations = match name {
            "paper68" => with_magnitudes(&PAPER_KINDS, &[2, 4, 6, 8, 9]),
            "released52" => with_magnitudes(&CIFAR_KINDS, &[0, 2, 10, 14]),
            "released52-as-run" => with_magnitudes(&CIFAR_KINDS, &[28, 28, 28, 28]),
            "sanity" => with_magnitudes(&CIFAR_KINDS, &[6])
                .into_iter()
                .map(|operation| match operation {
                    Operation::Rotate { .. } => Operation::Rotate90,
                    other => other,
                })
                .collect(),
            _ => {
                return Err(Error::UnknownName {
                    what: "search space",
                    name: name.to_owned(),
                    known: Self::NAMES.map(str::to_owned).into(),
                });
            }
        };
        SearchSpace::new(name, 2, operations)
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Operations drawn, with replacement, for one augmented sample.
    pub fn draws_per_sample(&self) -> u32 {
        self.draws_per_sample
    }

    /// The operations; operation probabilities follow this order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Number of operations, K.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.operations.len()
    }
}

impl TryFrom<SearchSpaceFields> for SearchSpace {
    type Error = Error;

    fn try_from(fields: SearchSpaceFields) -> Result<Self> {
        SearchSpace::new(fields.name, fields.draws_per_sample, fields.operations)
    }
}

impl From<SearchSpace> for SearchSpaceFields {
    fn from(space: SearchSpace) -> Self {
        SearchSpaceFields {
            name: space.name,
            draws_per_sample: space.draws_per_sample,
            operations: space.operations,
        }
    }
}

/// Magnitude operations of the authors' CIFAR code, in its order.
const CIFAR_KINDS: [LevelledKind; 11] = [
    LevelledKind::Rotate,
    LevelledKind::Posterize,
    LevelledKind::ShearX,
    LevelledKind::ShearY,
    LevelledKind::TranslateX,
    LevelledKind::TranslateY,
    LevelledKind::Solarize,
    LevelledKind::Color,
    LevelledKind::Contrast,
    LevelledKind::Brightness,
    LevelledKind::Sharpness,
];

/// The same of their ImageNet code: with Cutout after Solarize.
const PAPER_KINDS: [LevelledKind; 12] = [
    LevelledKind::Rotate,
    LevelledKind::Posterize,
    LevelledKind::ShearX,
    LevelledKind::ShearY,
    LevelledKind::TranslateX,
    LevelledKind::TranslateY,
    LevelledKind::Solarize,
    LevelledKind::Cutout,
    LevelledKind::Color,
    LevelledKind::Contrast,
    LevelledKind::Brightness,
    LevelledKind::Sharpness,
];

/// A kind whose argument the authors' code derives from a level on a scale of 10.
#[derive(Clone, Copy)]
enum LevelledKind {
    Rotate,
    Posterize,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Solarize,
    Cutout,
    Color,
    Contrast,
    Brightness,
    Sharpness,
}

/// The eight operations without magnitude, then each of `kinds` at each level.
fn with_magnitudes(kinds: &[LevelledKind], levels: &[i32]) -> Vec<Operation> {
    let mut operations = vec![
        Operation::Identity,
        Operation::FlipLR,
        Operation::FlipUD,
        Operation::AutoContrast,
        Operation::Equalize,
        Operation::Invert,
        Operation::Blur,
        Operation::Smooth,
    ];
    for &kind in kinds {
        operations.extend(levels.iter().map(|&level| at_level(kind, level)));
    }
    operations
}

/// Resolves a level as the authors' `augmentations.py` does; levels beyond 10
/// overshoot the nominal range.
fn at_level(kind: LevelledKind, level: i32) -> Operation {
    let sign = SignRule::Random;
    let warp = Warp::default();
    // Integer division truncates towards zero, as int() does there.
    let whole = |maximum: i32| level * maximum / 10;
    // To 12 decimals: 0.46, not 0.45999999999999996, in the policy file. Far
    // below the float32 step at which kernels use it.
    let real = |maximum: f64| (f64::from(level) * maximum / 10.0 * 1e12).round() / 1e12;
    let factor = ((real(1.8) + 0.1) * 1e12).round() / 1e12;
    let enhance_sign = SignRule::Fixed;
    match kind {
        LevelledKind::Rotate => Operation::Rotate {
            degrees: f64::from(whole(30)),
            sign,
            warp,
        },
        // 0 bits and fewer come out black.
        LevelledKind::Posterize => Operation::Posterize {
            bits: (4 - whole(4)).clamp(0, 8) as u8,
        },
        LevelledKind::ShearX => Operation::ShearX {
            shear: real(0.3),
            sign,
            warp,
        },
        LevelledKind::ShearY => Operation::ShearY {
            shear: real(0.3),
            sign,
            warp,
        },
        LevelledKind::TranslateX => Operation::TranslateX {
            offset: Extent::Pixels(f64::from(whole(10))),
            rounding: Rounding::None,
            sign,
            warp,
        },
        LevelledKind::TranslateY => Operation::TranslateY {
            offset: Extent::Pixels(f64::from(whole(10))),
            rounding: Rounding::None,
            sign,
            warp,
        },
        LevelledKind::Solarize => Operation::Solarize {
            threshold: f64::from(256 - whole(256)),
        },
        LevelledKind::Cutout => Operation::Cutout {
            size: Extent::Pixels(f64::from(whole(20))),
            shape: CutoutShape::Centered,
            fill: [125, 122, 113],
        },
        LevelledKind::Color => Operation::Color {
            factor,
            sign: enhance_sign,
        },
        LevelledKind::Contrast => Operation::Contrast {
            factor,
            sign: enhance_sign,
        },
        LevelledKind::Brightness => Operation::Brightness {
            factor,
            sign: enhance_sign,
        },
        LevelledKind::Sharpness => Operation::Sharpness {
            factor,
            sign: enhance_sign,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::OperationKind;

    fn named(name: &str) -> SearchSpace {
        SearchSpace::named(name).unwrap()
    }

    #[test]
    fn sizes_are_those_of_the_paper_and_the_authors_code() {
        assert_eq!(named("paper68").len(), 68);
        assert_eq!(named("released52").len(), 52);
        assert_eq!(named("released52-as-run").len(), 52);
        assert_eq!(named("sanity").len(), 19);
    }

    #[test]
    fn paper68_entries_are_distinct() {
        let space = named("paper68");
        // Posterize has only four distinct strengths at those levels.
        let distinct: HashSet<String> = space
            .operations()
            .iter()
            .map(|operation| operation.label())
            .collect();
        assert_eq!(distinct.len(), 67);
    }

    #[test]
    fn levels_resolve_as_in_the_authors_code() {
        let space = named("released52");
        let at = |index: usize| space.operations()[index].label();
        // Flat index = 8 + 4 * kind + level index.
        assert_eq!(at(8 + 1), "Rotate ±6°");
        assert_eq!(at(8 + 3), "Rotate ±42°");
        assert_eq!(at(8 + 4), "Posterize 4b");
        assert_eq!(at(8 + 4 + 2), "Posterize 0b");
        assert_eq!(at(8 + 8 + 3), "ShearX ±0.42");
        assert_eq!(at(8 + 16 + 2), "TranslateX ±10px");
        assert_eq!(at(8 + 24 + 1), "Solarize 205");
        assert_eq!(at(8 + 24 + 3), "Solarize -102");
        assert_eq!(at(8 + 28), "Color x0.1");
        assert_eq!(at(8 + 28 + 1), "Color x0.46");
        assert_eq!(at(8 + 40 + 3), "Sharpness x2.62");
    }

    #[test]
    fn as_run_repeats_level_28() {
        let space = named("released52-as-run");
        for (kind, copies) in space.operations()[8..].chunks(4).enumerate() {
            assert!(copies.iter().all(|copy| *copy == copies[0]), "kind {kind}");
        }
        assert_eq!(space.operations()[8].label(), "Rotate ±84°");
        assert_eq!(space.operations()[12].label(), "Posterize 0b");
        assert_eq!(space.operations()[32].label(), "Solarize -460");
        assert_eq!(space.operations()[36].label(), "Color x5.14");
    }

    #[test]
    fn sanity_has_the_quarter_turn_and_no_rotate() {
        let kinds: Vec<OperationKind> = named("sanity")
            .operations()
            .iter()
            .map(Operation::kind)
            .collect();
        assert!(kinds.contains(&OperationKind::Rotate90));
        assert!(!kinds.contains(&OperationKind::Rotate));
    }

    #[test]
    fn unknown_name_lists_the_known() {
        let message = SearchSpace::named("paper69").unwrap_err().to_string();
        assert!(
            message.contains("paper69") && message.contains("paper68"),
            "{message}"
        );
    }

    #[test]
    fn empty_and_drawless_spaces_are_refused() {
        assert!(SearchSpace::new("mine", 2, vec![]).is_err());
        assert!(SearchSpace::new("mine", 0, vec![Operation::Invert]).is_err());
    }
}
