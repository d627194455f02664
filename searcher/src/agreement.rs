//! How far two policies agree at their end: the ranking of operations, and when to augment.

use std::collections::HashMap;

use ddas_formats::{Entry, Policy};
use ddas_runtime::{SampleRng, Stream};
use serde::Serialize;

use crate::split::shuffle;

/// Random rankings that a correlation is held against.
const SHUFFLES: u64 = 9_999;

/// What two policies have in common in their last snapshots.
///
/// Operations are matched by kind and arguments, not by position, so that policies of different
/// search spaces can be compared as far as these share operations. An operation that a search
/// space lists several times (the four alike copies of `released52-as-run`) counts once. Its
/// weight is the mean probability of its copies relative to uniform: 1 where nothing was learned,
/// whatever the number of copies and of operations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// The operations in both policies, in the first one's order.
    pub operations: Vec<Compared>,
    /// How their weights correlate.
    pub rank: RankCorrelation,
    /// Names of operations in both policies, whatever the arguments; the weight of a name is the
    /// mean over all entries of that name.
    pub names: Vec<Compared>,
    /// How these weights correlate.
    pub names_rank: RankCorrelation,
    /// Operations of the first policy that the other does not have.
    pub only_first: usize,
    /// Operations of the other policy that the first does not have.
    pub only_second: usize,
    /// How many operations are compared as the strongest: as asked for, but at most all common ones.
    pub top: usize,
    /// How many of the strongest common operations of one policy are among those of the other.
    pub top_common: usize,
    /// Half the sum of the absolute differences of all operations' probabilities: 0 for the same
    /// distribution, 1 for distributions without a common operation.
    pub distance: f64,
    /// Total probability at the end, in both.
    pub total_probability: [f64; 2],
    /// Largest difference of the total probabilities of any epoch; none where the policies have
    /// different numbers of epochs.
    pub largest_total_difference: Option<f64>,
}

/// One operation or name in two policies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// Short name with arguments, or the bare name.
    pub label: String,
    /// Mean probability of its entries relative to uniform, in both.
    pub weights: [f64; 2],
    /// Rank of that weight among the compared, the largest being 1, ties sharing their mean.
    pub ranks: [f64; 2],
}

/// Spearman's rank correlation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RankCorrelation {
    /// How many were ranked.
    pub count: usize,
    /// Correlation of the ranks, -1 to 1; none below two operations or where one policy gives all
    /// the same weight.
    pub rho: Option<f64>,
    /// Chance of a rho at least as high between rankings that have nothing to do with one another,
    /// by random permutations.
    pub chance: Option<f64>,
}

/// Compares the last snapshots of two policies; `top` is how many operations count as strongest.
///
/// ```
/// use ddas_formats::{Operation, Policy, SearchSpace, Snapshot};
/// use ddas_search::agreement;
///
/// let operations = vec![Operation::Identity, Operation::Invert, Operation::Equalize];
/// let space = SearchSpace::new("three", 1, operations)?;
/// let policy = |total, operations: [f64; 3]| {
///     Policy::new(space.clone(), vec![Snapshot::new(total, operations.to_vec())?])
/// };
/// let (first, second) = (policy(0.3, [0.5, 0.3, 0.2])?, policy(0.2, [0.4, 0.25, 0.35])?);
/// let found = agreement(&first, &second, 1);
/// assert_eq!(found.rank.rho, Some(0.5)); // ranks 1 2 3 against 1 3 2
/// assert_eq!(found.top_common, 1);
/// # Ok::<(), ddas_formats::Error>(())
/// ```
pub fn agreement(first: &Policy, second: &Policy, top: usize) -> Agreement {
    let (ours, theirs) = (Weights::of(first, identity), Weights::of(second, identity));
    let operations = compare(&ours, &theirs);
    let names = compare(&Weights::of(first, name), &Weights::of(second, name));
    let top = top.min(operations.len());
    let strongest = [0, 1].map(|policy| strongest(&operations, policy, top));
    let totals = [first, second].map(|policy| {
        policy
            .snapshots()
            .iter()
            .map(|snapshot| snapshot.total_probability())
            .collect::<Vec<_>>()
    });
    let distance: f64 = ours
        .order
        .iter()
        .chain(theirs.order.iter().filter(|key| !ours.has(key)))
        .map(|key| (ours.probability(key) - theirs.probability(key)).abs())
        .sum();
    Agreement {
        rank: correlation(&operations),
        names_rank: correlation(&names),
        only_first: ours.order.len() - operations.len(),
        only_second: theirs.order.len() - operations.len(),
        top,
        top_common: strongest[0]
            .iter()
            .filter(|index| strongest[1].contains(index))
            .count(),
        distance: distance / 2.0,
        total_probability: [0, 1].map(|policy| totals[policy][totals[policy].len() - 1]),
        largest_total_difference: (totals[0].len() == totals[1].len()).then(|| {
            let pairs = totals[0].iter().zip(&totals[1]);
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        }),
        operations,
        names,
    }
}

/// What tells an entry from all that do something else: kind and arguments.
fn identity(entry: &Entry) -> String {
    // The form of policy files, where each argument is written out.
    serde_json::to_string(entry).unwrap_or_else(|_| entry.label())
}

/// The names alone, those of a sequence in its order.
fn name(entry: &Entry) -> String {
    let names: Vec<&str> = entry
        .candidates()
        .map(|candidate| candidate.kind().name())
        .collect();
    names.join(" + ")
}

/// A policy's last probabilities, entries of one key taken together.
struct Weights {
    order: Vec<String>,
    /// Sum of the probabilities, number of entries, label of the first.
    of: HashMap<String, (f64, usize, String)>,
    entries: usize,
}

impl Weights {
    fn of(policy: &Policy, key: fn(&Entry) -> String) -> Self {
        let last = &policy.snapshots()[policy.snapshots().len() - 1];
        let entries = policy.search_space().entries();
        let mut weights = Self {
            order: Vec::new(),
            of: HashMap::new(),
            entries: entries.len(),
        };
        for (entry, probability) in entries.iter().zip(last.operation_probabilities()) {
            let key = key(entry);
            let (sum, count, _) = weights.of.entry(key.clone()).or_insert_with(|| {
                weights.order.push(key);
                (0.0, 0, entry.label())
            });
            *sum += probability;
            *count += 1;
        }
        weights
    }

    fn has(&self, key: &str) -> bool {
        self.of.contains_key(key)
    }

    fn probability(&self, key: &str) -> f64 {
        self.of.get(key).map_or(0.0, |(sum, _, _)| *sum)
    }

    /// Mean probability relative to uniform.
    fn weight(&self, key: &str) -> Option<f64> {
        let (sum, count, _) = self.of.get(key)?;
        Some(sum / *count as f64 * self.entries as f64)
    }
}

/// Keys in both, in the first one's order. Bare names are their own labels.
fn compare(first: &Weights, second: &Weights) -> Vec<Compared> {
    let mut compared: Vec<Compared> = first
        .order
        .iter()
        .filter_map(|key| {
            let weights = [first.weight(key)?, second.weight(key)?];
            let label = match key.starts_with('{') {
                true => first.of.get(key).map(|(_, _, label)| label.clone())?,
                false => key.clone(),
            };
            Some(Compared {
                label,
                weights,
                ranks: [0.0; 2],
            })
        })
        .collect();
    for policy in 0..2 {
        let weights: Vec<f64> = compared.iter().map(|one| one.weights[policy]).collect();
        for (one, rank) in compared.iter_mut().zip(ranks(&weights)) {
            one.ranks[policy] = rank;
        }
    }
    compared
}

/// Ranks from 1 for the largest; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && alike(values[order[end]], values[order[start]]) {
            end += 1;
        }
        // Ranks start + 1 to end.
        let mean = (start + 1 + end) as f64 / 2.0;
        for &index in &order[start..end] {
            ranks[index] = mean;
        }
        start = end;
    }
    ranks
}

/// Whether two weights differ by rounding alone: sums of different numbers of copies do.
fn alike(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

/// The places of the `count` strongest; of equally strong ones the first.
fn strongest(compared: &[Compared], policy: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..compared.len()).collect();
    order.sort_by(|&a, &b| compared[a].ranks[policy].total_cmp(&compared[b].ranks[policy]));
    order.truncate(count);
    order
}

fn correlation(compared: &[Compared]) -> RankCorrelation {
    let [first, mut second] = [0, 1].map(|policy| {
        compared
            .iter()
            .map(|one| one.ranks[policy])
            .collect::<Vec<f64>>()
    });
    let rho = pearson(&first, &second);
    let chance = rho.map(|rho| {
        let mut rng = SampleRng::new(0, 0, 0, Stream::Search);
        let as_high = (0..SHUFFLES)
            .filter(|_| {
                shuffle(&mut second, &mut rng);
                pearson(&first, &second).is_some_and(|random| random >= rho - 1e-12)
            })
            .count();
        // The ranking found is one of those that chance could have given.
        (as_high + 1) as f64 / (SHUFFLES + 1) as f64
    });
    RankCorrelation {
        count: compared.len(),
        rho,
        chance,
    }
}

/// None where one of the lists does not vary.
fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut both, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        both += a * b;
        of_a += a * a;
        of_b += b * b;
    }
    (of_a > 0.0 && of_b > 0.0).then(|| both / (of_a * of_b).sqrt())
}

#[cfg(test)]
mod tests {
    use ddas_formats::{Operation, SearchSpace, SignRule, Snapshot, Warp};

    use super::*;

    fn policy(operations: Vec<Operation>, totals: &[f64], last: &[f64]) -> Policy {
        let space = SearchSpace::new("test", 1, operations).unwrap();
        let snapshot = |total: &f64| Snapshot::new(*total, last.to_vec()).unwrap();
        Policy::new(space, totals.iter().map(snapshot).collect()).unwrap()
    }

    fn five() -> Vec<Operation> {
        vec![
            Operation::Identity,
            Operation::FlipLR,
            Operation::Invert,
            Operation::Equalize,
            Operation::Blur,
        ]
    }

    fn close(found: Option<f64>, wanted: f64) {
        let found = found.unwrap();
        assert!((found - wanted).abs() < 1e-12, "{found}, expected {wanted}");
    }

    #[test]
    fn rho_without_ties_is_one_minus_six_sums_of_squares() {
        let first = policy(five(), &[0.35], &[0.30, 0.25, 0.20, 0.15, 0.10]);
        let second = policy(five(), &[0.35], &[0.25, 0.30, 0.10, 0.20, 0.15]);
        let found = agreement(&first, &second, 2);
        // Ranks 1 2 3 4 5 and 2 1 5 3 4: d = 1 1 2 1 1, rho = 1 - 6 * 8 / (5 * 24).
        close(found.rank.rho, 0.6);
        assert_eq!(found.names_rank.rho, found.rank.rho);
        // Of the 120 permutations of five, 21 have a sum of squares of at most 8: one of 0, four of
        // 2, three of 4, six of 6, seven of 8.
        let chance = found.rank.chance.unwrap();
        assert!((chance - 21.0 / 120.0).abs() < 0.015, "{chance}");
        assert_eq!((found.top, found.top_common), (2, 2));
        // |differences| = .05 .05 .10 .05 .05
        close(Some(found.distance), 0.15);
        let itself = agreement(&first, &first, 10);
        close(itself.rank.rho, 1.0);
        assert_eq!((itself.top, itself.top_common), (5, 5));
        assert_eq!(itself.distance, 0.0);
    }

    #[test]
    fn ties_share_their_mean_rank() {
        let first = policy(five(), &[0.35], &[0.30, 0.20, 0.20, 0.15, 0.15]);
        let second = policy(five(), &[0.35], &[0.28, 0.26, 0.18, 0.18, 0.10]);
        let found = agreement(&first, &second, 5);
        let ranks = |policy: usize| {
            found
                .operations
                .iter()
                .map(|one| one.ranks[policy])
                .collect()
        };
        let (a, b): (Vec<f64>, Vec<f64>) = (ranks(0), ranks(1));
        assert_eq!(a, [1.0, 2.5, 2.5, 4.5, 4.5]);
        assert_eq!(b, [1.0, 2.0, 3.5, 3.5, 5.0]);
        // From the mean 3: a = -2 -.5 -.5 1.5 1.5, b = -2 -1 .5 .5 2;
        // sum of products 4 + .5 - .25 + .75 + 3 = 8, of squares 9 and 9.5.
        close(found.rank.rho, 8.0 / (9.0_f64 * 9.5).sqrt());
    }

    #[test]
    fn a_policy_that_learned_nothing_ranks_nothing() {
        let uniform = policy(five(), &[0.35], &[0.2; 5]);
        let other = policy(five(), &[0.35], &[0.30, 0.25, 0.20, 0.15, 0.10]);
        let found = agreement(&uniform, &other, 3);
        assert_eq!((found.rank.rho, found.rank.chance), (None, None));
        assert_eq!(found.operations[0].weights, [1.0, 1.5]);
    }

    fn rotate(degrees: f64) -> Operation {
        Operation::Rotate {
            degrees,
            sign: SignRule::Random,
            warp: Warp::default(),
        }
    }

    #[test]
    fn operations_are_matched_by_arguments_and_copies_count_once() {
        // Two copies of a rotation and its double angle, against another order and other angles.
        let first = policy(
            vec![rotate(15.0), Operation::Invert, rotate(15.0), rotate(30.0)],
            &[0.4, 0.3],
            &[0.30, 0.35, 0.10, 0.25],
        );
        let second = policy(
            vec![
                Operation::Invert,
                rotate(15.0),
                rotate(5.0),
                Operation::Blur,
                rotate(6.0),
            ],
            &[0.4, 0.1],
            &[0.10, 0.30, 0.20, 0.15, 0.25],
        );
        let found = agreement(&first, &second, 10);
        let labels: Vec<&str> = found.operations.iter().map(|one| &one.label[..]).collect();
        assert_eq!(labels, ["Rotate ±15°", "Invert"]);
        // 4 * (.30 + .10) / 2 and 5 * .30; 4 * .35 and 5 * .10.
        for (one, wanted) in found.operations.iter().zip([[0.8, 1.5], [1.4, 0.5]]) {
            close(Some(one.weights[0]), wanted[0]);
            close(Some(one.weights[1]), wanted[1]);
        }
        close(found.rank.rho, -1.0);
        assert_eq!((found.only_first, found.only_second), (1, 3));
        let names: Vec<&str> = found.names.iter().map(|one| &one.label[..]).collect();
        assert_eq!(names, ["Rotate", "Invert"]);
        // Rotate: 4 * (.30 + .10 + .25) / 3 and 5 * (.30 + .20 + .25) / 3.
        close(Some(found.names[0].weights[0]), 4.0 * 0.65 / 3.0);
        close(Some(found.names[0].weights[1]), 5.0 * 0.75 / 3.0);
        // .40 - .30, .35 - .10, and what one of them does not have: .25, .20, .15, .25.
        close(
            Some(found.distance),
            (0.10 + 0.25 + 0.25 + 0.20 + 0.15 + 0.25) / 2.0,
        );
        assert_eq!(found.total_probability, [0.3, 0.1]);
        close(found.largest_total_difference, 0.2);
    }

    #[test]
    fn policies_without_a_common_operation_have_nothing_to_rank() {
        let first = policy(vec![Operation::Invert], &[0.4, 0.3], &[1.0]);
        let second = policy(vec![Operation::Blur], &[0.4], &[1.0]);
        let found = agreement(&first, &second, 10);
        assert_eq!((found.rank.count, found.rank.rho, found.top), (0, None, 0));
        assert_eq!(found.distance, 1.0);
        assert_eq!(found.largest_total_difference, None);
    }
}
