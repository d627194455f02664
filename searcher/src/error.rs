//! The errors of this crate.

use std::path::PathBuf;

/// What can go wrong in a search.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is unknown, of the wrong type or out of range.
    #[error("setting `{key}`: {problem}")]
    Setting {
        /// The key as given.
        key: String,
        /// What is wrong, what was expected and what to do.
        problem: String,
    },

    /// A name that must be one of a list is none of it.
    #[error("unknown {what} `{given}`; known: {known}")]
    UnknownName {
        /// What the name stands for ("preset", "network").
        what: &'static str,
        /// The name as given.
        given: String,
        /// The names or the grammar accepted.
        known: String,
    },

    /// An argument of a function breaks its contract.
    #[error("{0}")]
    Invalid(String),

    /// The dataset cannot serve this search.
    #[error("{}: {problem}", path.display())]
    Dataset {
        /// The dataset.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },

    /// A loss or an inner product of gradients is not finite: the network has diverged.
    #[error("{what} is {value}")]
    NotFinite {
        /// The number that failed.
        what: &'static str,
        /// Its value: NaN or an infinity.
        value: f64,
    },

    /// The same, with its place in a search.
    #[error(
        "the search diverged at epoch {epoch}, step {step}: {what} is {value}; \
         lower `learning_rate` (now {learning_rate}) with --set"
    )]
    Diverged {
        /// Search epoch, from 0.
        epoch: u32,
        /// Step within the epoch, from 0.
        step: u32,
        /// The number that failed.
        what: &'static str,
        /// Its value: NaN or an infinity.
        value: f64,
        /// The configured learning rate of the network.
        learning_rate: f64,
    },

    /// A file of the run folder, or one given, is not as expected.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },

    /// Reading or writing failed.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried ("read", "create").
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },

    /// Another crate of the workspace refused a file or a value.
    #[error(transparent)]
    Format(#[from] ddas_formats::Error),

    /// libtorch refused a call.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// libtorch appends a C++ stack trace to its messages; only the first line speaks to the user.
fn first_line(error: &tch::TchError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

impl Error {
    /// An [`Error::Io`] for `map_err`.
    pub(crate) fn io(
        path: impl Into<PathBuf>,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io {
            path,
            action,
            source,
        }
    }
}
