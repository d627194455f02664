//! Ordered lists of what a policy gives probabilities to.

mod named;

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Entry, Error, Operation, Result};

/// The ordered entries a policy chooses from, and how many it draws per sample.
///
/// Most spaces are plain lists of operations, and a search knows only those;
/// policies known from elsewhere also need operations with a varied argument,
/// and sequences (see [`Entry`]).
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
    entries: Vec<Entry>,
}

/// The JSON form, before its checks.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchSpaceFields {
    name: String,
    draws_per_sample: u32,
    operations: Entries,
}

/// A list of entries that is read only up to the limit.
#[derive(Serialize)]
#[serde(transparent)]
struct Entries(Vec<Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Limited;

        impl<'de> Visitor<'de> for Limited {
            type Value = Entries;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of operations")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> std::result::Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = items.next_element()? {
                    if entries.len() == SearchSpace::MAX_OPERATIONS {
                        return Err(serde::de::Error::custom(format!(
                            "more than the {} operations a search space may have",
                            SearchSpace::MAX_OPERATIONS
                        )));
                    }
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_seq(Limited)
    }
}

impl SearchSpace {
    /// Most entries a search space may hold.
    pub const MAX_OPERATIONS: usize = 4096;
    /// Most operations drawn for one sample.
    pub const MAX_DRAWS: u32 = 16;
    /// The names [`SearchSpace::named`] knows.
    pub const NAMES: [&'static str; 7] = [
        "paper68",
        "sanity",
        "released52",
        "released52-as-run",
        "imagenet32",
        "randaugment",
        "trivialaugment-wide",
    ];

    /// A search space of plain operations.
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
        let entries = operations.into_iter().map(Entry::from).collect();
        SearchSpace::of_entries(name, draws_per_sample, entries)
    }

    /// A search space of entries of any sort.
    ///
    /// # Errors
    /// As [`SearchSpace::new`].
    pub fn of_entries(
        name: impl Into<String>,
        draws_per_sample: u32,
        entries: Vec<Entry>,
    ) -> Result<Self> {
        if entries.is_empty() || entries.len() > Self::MAX_OPERATIONS {
            return Err(Error::field(
                "operations",
                format!(
                    "{} operations; a search space has 1 to {}",
                    entries.len(),
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
        for (index, entry) in entries.iter().enumerate() {
            entry
                .validate()
                .map_err(|error| error.within(&format!("operations[{index}]")))?;
        }
        Ok(SearchSpace {
            name: name.into(),
            draws_per_sample,
            entries,
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
    /// - `imagenet32`: the list of the authors' ImageNet code with the levels it
    ///   names (7, 14), Cutout among them.
    /// - `sanity`: the paper's section 4.1, with the quarter turn in the place
    ///   of Rotate and one magnitude (level 6) per operation.
    /// - `randaugment`: the 14 operations of torchvision's RandAugment at its
    ///   default magnitude, 9 of 30.
    /// - `trivialaugment-wide`: those of torchvision's TrivialAugmentWide at each
    ///   of its 31 strengths, one draw per sample; K = 320, because Posterize has
    ///   only seven that differ and three operations have none.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for any other name.
    pub fn named(name: &str) -> Result<Self> {
        let (draws, operations) = named::operations(name).ok_or_else(|| Error::UnknownName {
            what: "search space",
            name: name.to_owned(),
            known: Self::NAMES.map(str::to_owned).into(),
        })?;
        SearchSpace::new(name, draws, operations)
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Entries drawn, with replacement, for one augmented sample.
    pub fn draws_per_sample(&self) -> u32 {
        self.draws_per_sample
    }

    /// The entries; operation probabilities follow this order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The operations, when all entries are plain ones: what a search needs.
    ///
    /// # Errors
    /// [`Error::Field`] naming the first entry that is a sequence or varies an argument.
    pub fn plain_operations(&self) -> Result<Vec<Operation>> {
        let plain = |(index, entry): (usize, &Entry)| {
            entry.operation().copied().ok_or_else(|| {
                Error::field(
                    format!("operations[{index}]"),
                    format!(
                        "`{}` {}; this needs a search space of plain operations",
                        entry.label(),
                        match entry {
                            Entry::Sequence(_) => "is a sequence",
                            Entry::Single(_) => "varies an argument",
                        }
                    ),
                )
            })
        };
        self.entries.iter().enumerate().map(plain).collect()
    }

    /// Number of entries, K.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

impl TryFrom<SearchSpaceFields> for SearchSpace {
    type Error = Error;

    fn try_from(fields: SearchSpaceFields) -> Result<Self> {
        SearchSpace::of_entries(fields.name, fields.draws_per_sample, fields.operations.0)
    }
}

impl From<SearchSpace> for SearchSpaceFields {
    fn from(space: SearchSpace) -> Self {
        SearchSpaceFields {
            name: space.name,
            draws_per_sample: space.draws_per_sample,
            operations: Entries(space.entries),
        }
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
        assert_eq!(named("imagenet32").len(), 32);
        assert_eq!(named("randaugment").len(), 14);
        assert_eq!(named("trivialaugment-wide").len(), 320);
        for name in SearchSpace::NAMES {
            assert_eq!(named(name).name(), name);
        }
    }

    #[test]
    fn paper68_entries_are_distinct() {
        let space = named("paper68");
        // Posterize has only four distinct strengths at those levels.
        let distinct: HashSet<String> = space.entries().iter().map(Entry::label).collect();
        assert_eq!(distinct.len(), 67);
    }

    #[test]
    fn levels_resolve_as_in_the_authors_code() {
        let space = named("released52");
        let at = |index: usize| space.entries()[index].label();
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
        for (kind, copies) in space.entries()[8..].chunks(4).enumerate() {
            assert!(copies.iter().all(|copy| *copy == copies[0]), "kind {kind}");
        }
        assert_eq!(space.entries()[8].label(), "Rotate ±84°");
        assert_eq!(space.entries()[12].label(), "Posterize 0b");
        assert_eq!(space.entries()[32].label(), "Solarize -460");
        assert_eq!(space.entries()[36].label(), "Color x5.14");
    }

    #[test]
    fn sanity_has_the_quarter_turn_and_no_rotate() {
        let kinds: Vec<OperationKind> = named("sanity")
            .plain_operations()
            .unwrap()
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
