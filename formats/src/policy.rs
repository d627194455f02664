//! The policy file: a search space and one snapshot of probabilities per search epoch.

mod applications;

use std::collections::BTreeMap;
use std::path::Path;

pub use applications::Applications;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::atomic_file::write_atomically;
use crate::small_file::read_small_file;
use crate::{Error, Result, SearchSpace};

/// Name in the `format` field of every policy file.
const FORMAT: &str = "ddas-policy";
/// The only version of the format so far.
const VERSION: u32 = 1;
/// Policy files beyond this size are refused unread.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Most snapshots a policy may hold.
const MAX_SNAPSHOTS: usize = 100_000;
/// How far operation probabilities may sum from 1.
const SUM_TOLERANCE: f64 = 1e-4;

/// Both probabilities at the end of one search epoch.
///
/// ```
/// use ddas_formats::Snapshot;
///
/// let snapshot = Snapshot::new(0.35, vec![0.25, 0.75])?;
/// assert_eq!(snapshot.total_probability(), 0.35);
/// assert!(Snapshot::new(0.35, vec![0.25, 0.25]).is_err());
/// # Ok::<(), ddas_formats::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SnapshotFields", into = "SnapshotFields")]
pub struct Snapshot {
    total_probability: f64,
    operation_probabilities: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotFields {
    total_probability: f64,
    operation_probabilities: Vec<f64>,
}

impl Snapshot {
    /// # Errors
    /// [`Error::Field`] when a probability is not in 0..=1, there is no
    /// operation probability, or they do not sum to 1 within 1e-4.
    pub fn new(total_probability: f64, operation_probabilities: Vec<f64>) -> Result<Self> {
        check_probability("total_probability", total_probability)?;
        if operation_probabilities.is_empty() {
            return Err(Error::field(
                "operation_probabilities",
                "empty; one is needed for each operation",
            ));
        }
        for (index, &probability) in operation_probabilities.iter().enumerate() {
            check_probability(&format!("operation_probabilities[{index}]"), probability)?;
        }
        let sum: f64 = operation_probabilities.iter().sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(Error::field(
                "operation_probabilities",
                format!("they sum to {sum}; expected 1 within {SUM_TOLERANCE}"),
            ));
        }
        Ok(Snapshot {
            total_probability,
            operation_probabilities,
        })
    }

    /// Chance that a sample is augmented at all, in 0..=1.
    pub fn total_probability(&self) -> f64 {
        self.total_probability
    }

    /// Chance of each operation per draw, given that the sample is augmented;
    /// in the order of the search space, sums to 1 within 1e-4.
    pub fn operation_probabilities(&self) -> &[f64] {
        &self.operation_probabilities
    }
}

fn check_probability(field: &str, value: f64) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        Err(Error::field(
            field,
            format!("{value} is not a probability between 0 and 1"),
        ))
    }
}

impl TryFrom<SnapshotFields> for Snapshot {
    type Error = Error;

    fn try_from(fields: SnapshotFields) -> Result<Self> {
        Snapshot::new(fields.total_probability, fields.operation_probabilities)
    }
}

impl From<Snapshot> for SnapshotFields {
    fn from(snapshot: Snapshot) -> Self {
        SnapshotFields {
            total_probability: snapshot.total_probability,
            operation_probabilities: snapshot.operation_probabilities,
        }
    }
}

/// Where a policy comes from; for people, not used at replay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Provenance {
    /// Dataset the policy was searched on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Search preset, or the name of the imported file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Seed of the search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Versions of the programs involved.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    /// What the search cost (seconds, steps, device).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cost: BTreeMap<String, serde_json::Value>,
}

/// A search space with one snapshot per search epoch, oldest first.
///
/// ```
/// use ddas_formats::{Operation, Policy, SearchSpace, Snapshot};
///
/// let space = SearchSpace::new("mine", 2, vec![Operation::Identity, Operation::Invert])?;
/// let policy = Policy::new(
///     space.clone(),
///     vec![Snapshot::new(0.35, vec![0.5, 0.5])?, Snapshot::new(0.4, vec![0.2, 0.8])?],
/// )?;
/// assert_eq!(Policy::from_json(&policy.to_json())?, policy);
///
/// // A snapshot must cover the whole search space.
/// assert!(Policy::new(space, vec![Snapshot::new(0.35, vec![1.0])?]).is_err());
/// # Ok::<(), ddas_formats::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    search_space: SearchSpace,
    snapshots: Vec<Snapshot>,
    smoothing_window: u32,
    provenance: Provenance,
}

/// The JSON document, after `format` and `version` are known to fit.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyDocument {
    format: String,
    version: u32,
    search_space: SearchSpace,
    snapshots: Vec<Snapshot>,
    #[serde(default)]
    smoothing: Smoothing,
    #[serde(default)]
    provenance: Provenance,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Smoothing {
    window: u32,
}

impl Default for Smoothing {
    fn default() -> Self {
        Smoothing { window: 1 }
    }
}

/// Just enough of a document to see whether the rest can be understood.
#[derive(Deserialize)]
#[serde(expecting = "an object with `format` and `version`")]
struct Heading {
    format: Option<String>,
    version: Option<serde_json::Value>,
}

/// The whole document, its errors with the path of the field they stand in.
fn document(
    text: &str,
) -> std::result::Result<PolicyDocument, serde_path_to_error::Error<serde_json::Error>> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text))
}

/// The error of a text that is not JSON, with the field where it breaks off if it looks like a
/// policy up to there: Python's `json.dump` writes `NaN` and `Infinity`, which are no JSON.
fn not_json(text: &str, error: &serde_json::Error) -> Error {
    if let Err(inside) = document(text)
        && inside.inner().is_syntax()
        && inside.path().iter().next().is_some()
    {
        let field = inside.path().to_string();
        return Error::field(
            field,
            format!("no JSON value (NaN and Infinity are none): {error}"),
        );
    }
    Error::field("policy", format!("not a policy file: {error}"))
}

impl Policy {
    /// A policy without smoothing or provenance.
    ///
    /// # Errors
    /// [`Error::Field`] when there is no snapshot, or one does not have
    /// exactly one probability for each operation.
    pub fn new(search_space: SearchSpace, snapshots: Vec<Snapshot>) -> Result<Self> {
        if snapshots.is_empty() || snapshots.len() > MAX_SNAPSHOTS {
            return Err(Error::field(
                "snapshots",
                format!(
                    "{} snapshots; a policy has 1 to {MAX_SNAPSHOTS}",
                    snapshots.len()
                ),
            ));
        }
        for (index, snapshot) in snapshots.iter().enumerate() {
            let found = snapshot.operation_probabilities.len();
            if found != search_space.len() {
                return Err(Error::field(
                    format!("snapshots[{index}].operation_probabilities"),
                    format!(
                        "{found} probabilities for the {} operations of search space `{}`",
                        search_space.len(),
                        search_space.name()
                    ),
                ));
            }
        }
        Ok(Policy {
            search_space,
            snapshots,
            smoothing_window: 1,
            provenance: Provenance::default(),
        })
    }

    /// Sets the size F_s of the mean filter on the total probability at
    /// replay, in snapshots; 1 leaves it as it is.
    ///
    /// # Errors
    /// [`Error::Field`] when `window` is 0.
    pub fn with_smoothing(mut self, window: u32) -> Result<Self> {
        if window == 0 {
            return Err(Error::field(
                "smoothing.window",
                "0; the smallest window is 1 (no smoothing)",
            ));
        }
        self.smoothing_window = window;
        Ok(self)
    }

    /// Sets where the policy comes from.
    #[must_use]
    pub fn with_provenance(mut self, provenance: Provenance) -> Self {
        self.provenance = provenance;
        self
    }

    /// The operations and how many are drawn.
    pub fn search_space(&self) -> &SearchSpace {
        &self.search_space
    }

    /// One per search epoch, oldest first; never empty.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// Size of the mean filter on the total probability at replay; at least 1.
    pub fn smoothing_window(&self) -> u32 {
        self.smoothing_window
    }

    /// The total probability of each snapshot as it is replayed: the mean over
    /// the smoothing window from that snapshot on (the paper's F_s). The last
    /// ones, whose window would run past the end, keep the last full window's
    /// mean, as the authors' code pads. A window longer than the list is the list.
    pub fn smoothed_total_probabilities(&self) -> Vec<f64> {
        let window = usize::try_from(self.smoothing_window).unwrap_or(usize::MAX);
        let window = window.clamp(1, self.snapshots.len());
        let last_full = self.snapshots.len() - window;
        (0..self.snapshots.len())
            .map(|first| {
                let inside = &self.snapshots[first.min(last_full)..][..window];
                let sum: f64 = inside.iter().map(Snapshot::total_probability).sum();
                // A mean of probabilities, but for the rounding of the sum.
                (sum / window as f64).clamp(0.0, 1.0)
            })
            .collect()
    }

    /// Where the policy comes from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Identity of what a policy does to samples: XXH3-64 of the JSON of
    /// search space, snapshots and smoothing. Provenance does not count.
    pub fn digest(&self) -> u64 {
        let document = self.document(Provenance::default());
        xxh3_64(to_json_line(&document).as_bytes())
    }

    /// Reads and checks a policy file.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::File`] naming file and
    /// field when its content is not a policy of a version this build knows.
    pub fn read(path: &Path) -> Result<Policy> {
        // One byte beyond the limit is enough to know.
        let bytes = read_small_file(path, MAX_FILE_BYTES + 1).map_err(Error::io(path))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::file(
                path,
                format!(
                    "larger than the {} MiB a policy file may have",
                    MAX_FILE_BYTES >> 20
                ),
            ));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| Error::file(path, "not a policy file: it is not text"))?;
        Policy::from_json(&text).map_err(|error| error.in_file(path))
    }

    /// Writes the policy file, replacing what is there in one step: readers
    /// see the old content or the new.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, self.to_json().as_bytes())
    }

    /// Reads a policy from its JSON text.
    ///
    /// # Errors
    /// [`Error::Field`] naming the field that is wrong.
    pub fn from_json(text: &str) -> Result<Policy> {
        let heading: Heading =
            serde_json::from_str(text).map_err(|error| not_json(text, &error))?;
        match heading.format.as_deref() {
            Some(FORMAT) => {}
            Some(other) => {
                return Err(Error::field(
                    "format",
                    format!("`{other}`; a policy file has \"{FORMAT}\""),
                ));
            }
            None => {
                return Err(Error::field(
                    "format",
                    format!("missing; a policy file has \"{FORMAT}\""),
                ));
            }
        }
        match heading.version.as_ref().map(|version| version.as_u64()) {
            Some(Some(version)) if version == u64::from(VERSION) => {}
            Some(_) => {
                return Err(Error::field(
                    "version",
                    format!(
                        "{}; this build reads version {VERSION}. A newer ddas may be needed",
                        heading.version.unwrap_or_default()
                    ),
                ));
            }
            None => {
                return Err(Error::field(
                    "version",
                    format!("missing; this build reads version {VERSION}"),
                ));
            }
        }
        let document = document(text).map_err(|error| {
            let field = error.path().to_string();
            let reason = error.into_inner().to_string();
            match field.as_str() {
                "." => Error::field("policy", reason),
                _ => Error::field(field, reason),
            }
        })?;
        Ok(Policy::new(document.search_space, document.snapshots)?
            .with_smoothing(document.smoothing.window)?
            .with_provenance(document.provenance))
    }

    /// The policy file's text: JSON, a snapshot or an operation per line.
    pub fn to_json(&self) -> String {
        let document = self.document(self.provenance.clone());
        let lines = |items: Vec<String>| format!("[\n    {}\n  ]", items.join(",\n    "));
        let space = &document.search_space;
        format!(
            "{{\n  \"format\": \"{FORMAT}\",\n  \"version\": {VERSION},\n  \"search_space\": {{\"name\": {}, \"draws_per_sample\": {}, \"operations\": {}}},\n  \"snapshots\": {},\n  \"smoothing\": {},\n  \"provenance\": {}\n}}\n",
            to_json_line(space.name()),
            space.draws_per_sample(),
            lines(space.entries().iter().map(to_json_line).collect()),
            lines(document.snapshots.iter().map(to_json_line).collect()),
            to_json_line(&document.smoothing),
            to_json_line(&document.provenance),
        )
    }

    fn document(&self, provenance: Provenance) -> PolicyDocument {
        PolicyDocument {
            format: FORMAT.to_owned(),
            version: VERSION,
            search_space: self.search_space.clone(),
            snapshots: self.snapshots.clone(),
            smoothing: Smoothing {
                window: self.smoothing_window,
            },
            provenance,
        }
    }
}

/// JSON on one line. Our own types always have a JSON form: maps have string
/// keys, and numbers were checked to be finite.
fn to_json_line<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| unreachable!("{error}"))
}

#[cfg(test)]
mod tests;
