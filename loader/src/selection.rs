//! Which samples an epoch visits: parts of datasets, several datasets by weight, classes equally often.
//!
//! ```text
//! position --epoch's permutation--> ticket --quotas--> pool, draw --pool's own permutation--> sample
//! ```
//!
//! Every pool (a dataset, or a class of one) has a quota of the epoch's tickets. The permutation of the epoch deals the
//! tickets out, so that pools are mixed at random and each has exactly its quota. The draws of a pool go on from epoch to
//! epoch through permutations of its samples: each is seen once before any is seen twice. All of it is arithmetic on (seed, epoch,
//! position), so that any position can be entered at once.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::order::{EpochOrder, mix};
use crate::sources::Sources;

/// How samples are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sampling {
    /// Each sample as often as any other of its dataset.
    #[default]
    Uniform,
    /// Each class that has samples as often as any other, whatever its size.
    ClassBalanced,
}

/// One of the two parts that [`HashSplit`] makes of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitPart {
    /// What is not for validation.
    Train,
    /// About the fraction asked for.
    Validation,
}

impl SplitPart {
    /// The name used in options.
    pub fn name(self) -> &'static str {
        match self {
            SplitPart::Train => "train",
            SplitPart::Validation => "validation",
        }
    }
}

impl FromStr for SplitPart {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<SplitPart, String> {
        [SplitPart::Train, SplitPart::Validation]
            .into_iter()
            .find(|part| part.name() == text)
            .ok_or_else(|| format!("expected train or validation; found {text:?}"))
    }
}

/// A part of a dataset, by a hash of (seed, number of the sample). A sample stays in its part when others are appended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HashSplit {
    /// Which part.
    pub part: SplitPart,
    /// Share of the samples that are for validation, between 0 and 1.
    pub validation_fraction: f64,
    /// Another seed, another split.
    pub seed: u64,
}

impl HashSplit {
    /// Whether sample `index` of a dataset is in this part.
    pub fn contains(&self, index: u64) -> bool {
        let salt = mix(self.seed ^ 0x7370_6c69_7400_0000);
        let hash = mix(salt.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        // The upper 53 bits as a fraction, exactly.
        let below = ((hash >> 11) as f64) < self.validation_fraction * (1u64 << 53) as f64;
        below == (self.part == SplitPart::Validation)
    }
}

/// Which samples come, and how often.
#[derive(Clone, Debug, Default)]
pub struct SampleOptions {
    /// Further datasets of the same classes, and how often their samples come for one of the first dataset.
    pub more: Vec<(PathBuf, f64)>,
    /// How samples are drawn.
    pub sampling: Sampling,
    /// The part of every dataset that is taken; `None` takes all.
    pub split: Option<HashSplit>,
    /// Samples of an epoch; `None` takes as many as there are.
    pub epoch_samples: Option<u64>,
}

impl SampleOptions {
    /// Whether every sample of one dataset comes once an epoch.
    pub(crate) fn is_plain(&self) -> bool {
        self.more.is_empty()
            && self.sampling == Sampling::Uniform
            && self.split.is_none()
            && self.epoch_samples.is_none()
    }
}

/// In words and numbers, complete: two selections of the same text select the same.
impl fmt::Display for SampleOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(split) = &self.split {
            parts.push(format!(
                "{} part ({} for validation, seed {})",
                split.part.name(),
                split.validation_fraction,
                split.seed
            ));
        }
        if self.sampling == Sampling::ClassBalanced {
            parts.push("class-balanced".to_owned());
        }
        if let Some(samples) = self.epoch_samples {
            parts.push(format!("{samples} samples an epoch"));
        }
        f.write_str(&parts.join(", "))
    }
}

/// The samples of all epochs, ready to be looked up.
///
/// Memory: a bit for each sample when a part is taken, four bytes for each when classes are balanced, else none.
#[derive(Debug)]
pub(crate) struct Selection {
    pools: Vec<Pool>,
    /// First ticket of each pool, and the length of an epoch.
    tickets: Vec<u64>,
    /// One pool that is gone through once an epoch: tickets are its samples.
    single: bool,
}

#[derive(Debug)]
struct Pool {
    /// Number of the dataset's first sample.
    first: u64,
    members: Members,
    seed: u64,
}

#[derive(Debug)]
enum Members {
    All(u64),
    Marked(Arc<Marks>),
    /// A range of a list of sample numbers.
    Listed(Arc<Vec<u32>>, std::ops::Range<usize>),
}

impl Members {
    fn len(&self) -> u64 {
        match self {
            Members::All(len) => *len,
            Members::Marked(marks) => marks.len(),
            Members::Listed(_, range) => range.len() as u64,
        }
    }

    fn nth(&self, n: u64) -> u64 {
        match self {
            Members::All(_) => n,
            Members::Marked(marks) => marks.nth(n),
            Members::Listed(list, range) => u64::from(list[range.start + n as usize]),
        }
    }
}

impl Selection {
    /// # Errors
    /// [`Error::Selection`] for weights and fractions that are none, and when a part or an epoch is empty;
    /// [`Error::Format`] when labels cannot be read.
    pub(crate) fn new(sources: &Sources, options: &SampleOptions, seed: u64) -> Result<Selection> {
        let refuse = |reason: String| Error::Selection { reason };
        if let Some(split) = &options.split
            && !(split.validation_fraction > 0.0 && split.validation_fraction < 1.0)
        {
            let found = split.validation_fraction;
            return Err(refuse(format!(
                "validation fraction {found}: expected a number between 0 and 1"
            )));
        }
        let mut pools = Vec::new();
        let mut weights = Vec::new();
        let mut available = 0;
        for (number, dataset) in sources.datasets().iter().enumerate() {
            let weight = match number {
                0 => 1.0,
                _ => options.more[number - 1].1,
            };
            if !(weight > 0.0 && weight.is_finite()) {
                let path = dataset.path().display();
                return Err(refuse(format!(
                    "weight {weight} of {path}: expected a number above 0"
                )));
            }
            let marks = options
                .split
                .map(|split| Arc::new(Marks::new(dataset.len(), |index| split.contains(index))));
            let members = match options.sampling {
                Sampling::Uniform => vec![match marks {
                    Some(marks) => Members::Marked(marks),
                    None => Members::All(dataset.len()),
                }],
                Sampling::ClassBalanced => by_class(dataset, options.split.as_ref())?,
            };
            let filled: Vec<Members> = members
                .into_iter()
                .filter(|members| members.len() > 0)
                .collect();
            if filled.is_empty() {
                let part = options.split.map_or("", |split| split.part.name());
                return Err(refuse(format!(
                    "the {part} part of {} has no sample",
                    dataset.path().display()
                )));
            }
            let share = weight / filled.len() as f64;
            for members in filled {
                available += members.len();
                weights.push(share);
                pools.push(Pool {
                    first: sources.first(number),
                    seed: mix(mix(seed ^ 0x706f_6f6c_0000_0000).wrapping_add(pools.len() as u64)),
                    members,
                });
            }
        }
        let length = options.epoch_samples.unwrap_or(available);
        if length == 0 || length > EpochOrder::MAX_LEN {
            return Err(refuse(format!(
                "{length} samples an epoch: expected 1 to {}",
                EpochOrder::MAX_LEN
            )));
        }
        let single = pools.len() == 1 && length == available;
        Ok(Selection {
            tickets: tickets(&weights, length),
            pools,
            single,
        })
    }

    /// Samples of an epoch.
    pub(crate) fn len(&self) -> u64 {
        self.tickets[self.pools.len()]
    }

    fn at(&self, epoch: u32, ticket: u64) -> u64 {
        let number = self.tickets[1..self.pools.len()].partition_point(|&first| first <= ticket);
        let pool = &self.pools[number];
        let members = pool.members.len();
        let place = if self.single {
            ticket
        } else {
            let quota = self.tickets[number + 1] - self.tickets[number];
            let draw =
                u128::from(epoch) * u128::from(quota) + u128::from(ticket - self.tickets[number]);
            let (pass, place) = (
                draw / u128::from(members),
                (draw % u128::from(members)) as u64,
            );
            let seed = pool.seed ^ (pass >> 32) as u64;
            EpochOrder::new(seed, pass as u32, members).at(place)
        };
        pool.first + pool.members.nth(place)
    }
}

/// First ticket of each pool, and their number: quotas as the weights say, the rest to the largest remainders.
fn tickets(weights: &[f64], length: u64) -> Vec<u64> {
    let sum: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights
        .iter()
        .map(|weight| weight / sum * length as f64)
        .collect();
    let mut quotas: Vec<u64> = exact.iter().map(|share| share.floor() as u64).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    let remainder = |pool: usize| exact[pool] - exact[pool].floor();
    order.sort_by(|&a, &b| remainder(b).total_cmp(&remainder(a)).then(a.cmp(&b)));
    let given: u64 = quotas.iter().sum();
    for &pool in order
        .iter()
        .cycle()
        .take(length.saturating_sub(given) as usize)
    {
        quotas[pool] += 1;
    }
    // Rounding of sums can only give too many by a few; the largest can spare them.
    let mut surplus = quotas.iter().sum::<u64>() - length;
    while surplus > 0
        && let Some(largest) = quotas.iter_mut().max()
    {
        let taken = surplus.min(*largest);
        *largest -= taken;
        surplus -= taken;
    }
    let mut tickets = vec![0];
    for quota in quotas {
        tickets.push(tickets[tickets.len() - 1] + quota);
    }
    tickets
}

/// The samples of each class; labels are read from the records' headers, whose checksums are checked when they are served.
fn by_class(dataset: &ddas_formats::Dataset, split: Option<&HashSplit>) -> Result<Vec<Members>> {
    let refuse = |reason: String| Error::Selection {
        reason: format!("{}: {reason}", dataset.path().display()),
    };
    let len = u32::try_from(dataset.len()).map_err(|_| {
        refuse(format!(
            "{} samples; classes are balanced over at most 2^32",
            dataset.len()
        ))
    })?;
    let classes = dataset.classes().len();
    let reader = dataset.reader()?;
    let mut labels = vec![u32::MAX; len as usize];
    let mut starts = vec![0usize; classes + 1];
    let mut beyond = None;
    reader.for_each_label(&mut |index, label| {
        if split.is_some_and(|split| !split.contains(index)) {
            return;
        }
        match usize::try_from(label) {
            Ok(class) if class < classes => {
                labels[index as usize] = class as u32;
                starts[class + 1] += 1;
            }
            _ => beyond = beyond.or(Some((index, label))),
        }
    })?;
    if let Some((index, label)) = beyond {
        return Err(refuse(format!(
            "sample {index} has label {label}, of {classes} classes"
        )));
    }
    for class in 0..classes {
        starts[class + 1] += starts[class];
    }
    let mut list = vec![0u32; starts[classes]];
    let mut next = starts.clone();
    for (index, &class) in labels.iter().enumerate() {
        if class != u32::MAX {
            list[next[class as usize]] = index as u32;
            next[class as usize] += 1;
        }
    }
    let list = Arc::new(list);
    Ok((0..classes)
        .map(|class| Members::Listed(Arc::clone(&list), starts[class]..starts[class + 1]))
        .collect())
}

/// Some of the numbers `0..len`: a bit for each, and a count for each 512.
#[derive(Debug)]
struct Marks {
    words: Vec<u64>,
    /// Marked numbers before each block of eight words, and of all.
    before: Vec<u64>,
}

const BLOCK: usize = 8;

impl Marks {
    fn new(len: u64, is_marked: impl Fn(u64) -> bool) -> Marks {
        let mut words = vec![0u64; len.div_ceil(64) as usize];
        for (number, word) in words.iter_mut().enumerate() {
            let first = number as u64 * 64;
            for bit in 0..64.min(len - first) {
                *word |= u64::from(is_marked(first + bit)) << bit;
            }
        }
        let mut before = vec![0];
        for block in words.chunks(BLOCK) {
            let ones: u64 = block.iter().map(|word| u64::from(word.count_ones())).sum();
            before.push(before[before.len() - 1] + ones);
        }
        Marks { words, before }
    }

    fn len(&self) -> u64 {
        self.before[self.before.len() - 1]
    }

    /// The marked number that has `n` marked ones before it.
    fn nth(&self, n: u64) -> u64 {
        let block = self.before.partition_point(|&before| before <= n) - 1;
        let mut left = n - self.before[block];
        let mut number = block * BLOCK;
        while left >= u64::from(self.words[number].count_ones()) {
            left -= u64::from(self.words[number].count_ones());
            number += 1;
        }
        let mut word = self.words[number];
        for _ in 0..left {
            word &= word - 1;
        }
        number as u64 * 64 + u64::from(word.trailing_zeros())
    }
}

/// The samples of one epoch, in their order: a pure function of the seed, the epoch and what was selected.
#[derive(Clone, Debug)]
pub struct EpochSamples {
    order: EpochOrder,
    epoch: u32,
    selection: Option<Arc<Selection>>,
}

impl EpochSamples {
    pub(crate) fn new(
        seed: u64,
        epoch: u32,
        len: u64,
        selection: Option<&Arc<Selection>>,
    ) -> EpochSamples {
        EpochSamples {
            order: EpochOrder::new(seed, epoch, len),
            epoch,
            selection: selection.cloned(),
        }
    }

    /// Number of samples in the epoch.
    pub fn len(&self) -> u64 {
        self.order.len()
    }

    /// Whether the epoch has no sample at all.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The index of the sample at `position` of the epoch.
    ///
    /// # Panics
    /// When `position` is not in `0..len`.
    pub fn at(&self, position: u64) -> u64 {
        let ticket = self.order.at(position);
        match &self.selection {
            None => ticket,
            Some(selection) => selection.at(self.epoch, ticket),
        }
    }

    /// A sample of the epoch to take in the place of `index`: another for every `attempt`, the same for the same numbers.
    pub(crate) fn substitute(&self, seed: u64, index: u64, attempt: u64) -> u64 {
        let salt = mix(seed ^ 0x7375_6273_7400_0000).wrapping_add(u64::from(self.epoch));
        let hash = mix(mix(mix(salt).wrapping_add(index)).wrapping_add(attempt));
        self.at(((u128::from(hash) * u128::from(self.len())) >> 64) as u64)
    }
}

impl From<EpochOrder> for EpochSamples {
    fn from(order: EpochOrder) -> EpochSamples {
        EpochSamples {
            order,
            epoch: 0,
            selection: None,
        }
    }
}

#[cfg(test)]
mod tests;
