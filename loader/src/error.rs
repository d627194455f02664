//! Why a run of the loader ended early.

use std::error::Error as StdError;
use std::path::PathBuf;

use crate::plan::{PlanError, Position};

/// Result of the loader.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a run could not start or could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sizes asked for do not fit together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A dataset or policy cannot be read.
    #[error(transparent)]
    Format(#[from] ddas_formats::Error),
    /// A recipe or image cannot be processed.
    #[error(transparent)]
    Runtime(#[from] ddas_runtime::Error),
    /// A recipe that is neither known by name nor a file.
    #[error(
        "there is no recipe `{spec}`{note}; known are {known}, or give a file that ends in .toml"
    )]
    UnknownRecipe {
        /// What was asked for.
        spec: String,
        /// What there is to say about it.
        note: &'static str,
        /// The names that exist.
        known: String,
    },
    /// The ring cannot be set up or kept.
    #[error(transparent)]
    Ring(#[from] crate::ring::Error),
    /// A stream needs a dataset.
    #[error("no dataset is given; name at least one")]
    NoDataset,
    /// Datasets of one stream have different classes.
    #[error(
        "{}: class {class} is {found}, in {} it is {expected}: datasets of one stream need the same classes in the same \
         order; pack them from one list of classes", dataset.display(), first.display()
    )]
    Classes {
        /// The dataset that differs.
        dataset: PathBuf,
        /// The first dataset.
        first: PathBuf,
        /// The first class that differs, from 0.
        class: usize,
        /// Its name in the dataset.
        found: String,
        /// Its name in the first dataset.
        expected: String,
    },
    /// Samples cannot be selected as asked.
    #[error("{reason}")]
    Selection {
        /// What does not fit, and what would.
        reason: String,
    },
    /// More samples are bad than the budget allows.
    #[error("more than {most} bad {}, which is what --max-bad allows", if *most == 1 { "sample" } else { "samples" })]
    TooManyBad {
        /// The budget.
        most: u64,
        /// The one too many.
        source: Box<Error>,
    },
    /// A sample cannot be served. The run ends: no trainer should learn from a dataset that is not what it was.
    #[error("sample {index} of {}, needed at {at}, cannot be served", dataset.display())]
    Sample {
        /// The dataset.
        dataset: PathBuf,
        /// The sample's number.
        index: u64,
        /// Where in the run it was needed.
        at: Position,
        /// What is wrong with it.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The record of a sample is damaged.
    #[error(
        "{reason}; `ddas-loader verify` lists every damaged sample, and packing the source again repairs them"
    )]
    Damaged {
        /// What is wrong with it.
        reason: String,
    },
    /// A worker panicked: a defect of this program, not of its input.
    #[error("a worker panicked on sample {index} of {} (needed at {at}): {message}", dataset.display())]
    WorkerPanicked {
        /// The dataset.
        dataset: PathBuf,
        /// The sample being processed.
        index: u64,
        /// Where in the run it was needed.
        at: Position,
        /// The panic's message.
        message: String,
    },
    /// A thread of the run panicked outside any sample: a defect of this program or of a caller's function.
    #[error("thread `{thread}` panicked: {message}")]
    ThreadPanicked {
        /// The thread's name.
        thread: String,
        /// The panic's message.
        message: String,
    },
    /// A slot is smaller than the batch that belongs into it.
    #[error("a slot of rank {rank} holds {found} {what}, expected at least {expected}")]
    SlotTooSmall {
        /// The rank of the ring.
        rank: u32,
        /// What is short: bytes of images, labels or indices.
        what: &'static str,
        /// How many it holds.
        found: usize,
        /// How many the batch has.
        expected: usize,
    },
    /// The slots of an embedded loader do not fit into memory.
    #[error(
        "the loader needs {needed} bytes (slots = {slots}), but only {available} bytes are free ({limit}): take fewer \
         slots or a smaller batch, or give the process more memory"
    )]
    NoMemory {
        /// Bytes the slots need.
        needed: u64,
        /// Slots.
        slots: usize,
        /// Bytes that may still be used.
        available: u64,
        /// The limit that decides, in words.
        limit: String,
    },
    /// An embedded loader cannot be used here.
    #[error(transparent)]
    Embedded(#[from] crate::embedded::EmbeddedError),
    /// The operating system refused something.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// An error and its causes in one line, outermost first; a cause that the message before already quotes is not
/// repeated.
///
/// ```
/// use ddas_loader::{Error, one_line};
///
/// let source = std::io::Error::other("disk on fire");
/// let error = Error::Io { action: "reading".to_owned(), source };
/// assert_eq!(one_line(&error), "reading: disk on fire");
/// ```
pub fn one_line(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            text = message;
        } else if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        next = error.source();
    }
    text
}
