//! How often a policy applies what.

use std::collections::HashMap;

use crate::{Entry, Policy};

/// How often one draw applies an operation, or operations of a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Applications {
    /// Label of the operation, or name of the kind.
    pub label: String,
    /// Mean number of applications per draw, given that the sample is augmented.
    pub per_draw: f64,
    /// Entries of the search space that contribute.
    pub entries: usize,
}

impl Policy {
    /// Most labels that [`Policy::applications`] gives one by one.
    const MOST_LABELS: usize = 32;

    /// How often a draw of snapshot `snapshot` applies each operation, in the
    /// order of the search space: by label where there are at most 32 and no
    /// sequences, else by kind. A step of a sequence counts with its
    /// probability. Empty when there is no such snapshot.
    ///
    /// ```
    /// use ddas_formats::{BuiltinOptions, Policy};
    ///
    /// let policy = Policy::builtin("autoaugment-cifar10", &BuiltinOptions::default())?;
    /// let invert = policy.applications(0).into_iter().find(|row| row.label == "Invert").unwrap();
    /// // With probability 0.1, 0 and 0.1 in three of 25 pairs.
    /// assert_eq!(invert.entries, 3);
    /// assert!((invert.per_draw - 0.2 / 25.0).abs() < 1e-12);
    /// # Ok::<(), ddas_formats::Error>(())
    /// ```
    pub fn applications(&self, snapshot: usize) -> Vec<Applications> {
        let Some(snapshot) = self.snapshots().get(snapshot) else {
            return Vec::new();
        };
        let entries = self.search_space().entries();
        let plain = !entries
            .iter()
            .any(|entry| matches!(entry, Entry::Sequence(_)));
        let by = |label: &dyn Fn(&crate::Candidate) -> String| {
            let mut places: HashMap<String, usize> = HashMap::new();
            let mut rows: Vec<Applications> = Vec::new();
            for (entry, share) in entries.iter().zip(snapshot.operation_probabilities()) {
                let mut counted = Vec::new();
                let mut count = |candidate, probability: f64| {
                    let label = label(candidate);
                    let place = *places.entry(label.clone()).or_insert_with(|| {
                        rows.push(Applications {
                            label,
                            per_draw: 0.0,
                            entries: 0,
                        });
                        rows.len() - 1
                    });
                    rows[place].per_draw += share * probability;
                    if !counted.contains(&place) {
                        counted.push(place);
                        rows[place].entries += 1;
                    }
                };
                match entry {
                    Entry::Single(candidate) => count(candidate, 1.0),
                    Entry::Sequence(steps) => {
                        for step in steps.iter() {
                            count(step.candidate(), step.probability());
                        }
                    }
                }
            }
            rows
        };
        if plain {
            let rows = by(&|candidate| candidate.label());
            if rows.len() <= Self::MOST_LABELS {
                return rows;
            }
        }
        by(&|candidate| candidate.kind().name().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::{BuiltinOptions, Policy};

    fn rows(name: &str) -> Vec<(String, f64, usize)> {
        Policy::builtin(name, &BuiltinOptions::default())
            .unwrap()
            .applications(0)
            .into_iter()
            .map(|row| (row.label, row.per_draw, row.entries))
            .collect()
    }

    #[test]
    fn many_entries_are_counted_by_kind() {
        let wide = rows("trivialaugment-wide");
        assert_eq!(wide.len(), 14);
        for (label, share, _) in &wide {
            assert!((share - 1.0 / 14.0).abs() < 1e-12, "{label}");
        }
        assert_eq!(wide[1].0, "ShearX");
        assert_eq!(wide[1].2, 31);
    }

    #[test]
    fn few_are_named_one_by_one_and_equal_names_counted_together() {
        let timm = rows("randaugment-timm");
        assert_eq!(timm.len(), 16);
        assert_eq!(timm[0].0, "Identity");
        let rotate = timm.iter().find(|row| row.0.starts_with("Rotate")).unwrap();
        assert_eq!(rotate.2, 2);
        assert!((rotate.1 - 0.5 / 15.0).abs() < 1e-12);
    }

    #[test]
    fn there_is_nothing_beyond_the_last_snapshot() {
        let policy = Policy::builtin("identity", &BuiltinOptions::default()).unwrap();
        assert!(policy.applications(1).is_empty());
    }
}
