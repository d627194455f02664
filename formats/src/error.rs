//! What can go wrong with a file, and where.

use std::path::{Path, PathBuf};

/// A result whose error is this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a file or a value was refused.
///
/// Every variant says where (file, field or key) and what was expected, so
/// that the message alone is enough to repair the input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder concerned.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its format asks for.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file concerned.
        path: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A field of a policy, search space or operation holds something it must not.
    #[error("{field}: {reason}")]
    Field {
        /// The field, as a path into the JSON document (`snapshots[3].total_probability`).
        field: String,
        /// What it holds, and what was expected.
        reason: String,
    },
    /// A name that nothing carries.
    #[error("unknown {what} `{name}`; known are {}", known.join(", "))]
    UnknownName {
        /// What kind of thing was named.
        what: &'static str,
        /// The name given.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// Bytes are not an image that can be stored.
    #[error("{reason}")]
    Image {
        /// What is wrong with them.
        reason: String,
    },
    /// A packing was stopped on request.
    #[error(
        "packing {} was stopped: {}", out.display(),
        match samples {
            0 => "nothing had been packed yet".to_owned(),
            _ => format!("{samples} of {total} images are packed; the same command with --resume goes on from there"),
        }
    )]
    Stopped {
        /// The dataset that was to be written.
        out: PathBuf,
        /// Samples that are kept.
        samples: u64,
        /// Items that the source has.
        total: u64,
    },
    /// A sample's bytes are not as they were written.
    #[error("{}: sample {index} is damaged: {reason}", dataset.display())]
    DamagedSample {
        /// The dataset.
        dataset: PathBuf,
        /// The sample's number.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A sample was asked for that the dataset does not have.
    #[error("{}: no sample {index}; the dataset has {samples}", dataset.display())]
    NoSuchSample {
        /// The dataset.
        dataset: PathBuf,
        /// The number asked for.
        index: u64,
        /// How many there are.
        samples: u64,
    },
}

/// Bytes that a file system has.
struct Room {
    free: u64,
    total: u64,
}

/// Free bytes below which a file system counts as full: LMDB writes up to 64 pages at once.
const NEARLY_NOTHING: u64 = 64 * 4096;

impl Error {
    /// An [`Error::Field`] for `field`.
    pub fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Field {
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// An [`Error::File`] for `path`.
    pub fn file(path: &Path, reason: impl Into<String>) -> Self {
        Error::File {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// An [`Error::Io`] for `path`; made for `map_err`.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| Error::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// An [`Error::Image`].
    pub(crate) fn image(reason: impl Into<String>) -> Self {
        Error::Image {
            reason: reason.into(),
        }
    }

    /// LMDB failed on the file in `folder`; made for `map_err`.
    pub(crate) fn lmdb(folder: &Path) -> impl FnOnce(heed::Error) -> Self + '_ {
        move |error| match error {
            // LMDB makes this of a write that the system cut short, and throws the reason away.
            heed::Error::Io(source)
                if source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) =>
            {
                let room = rustix::fs::statvfs(folder).ok().map(|disk| Room {
                    free: disk.f_bavail.saturating_mul(disk.f_frsize),
                    total: disk.f_blocks.saturating_mul(disk.f_frsize),
                });
                Error::cut_short(folder, source, room)
            }
            heed::Error::Io(source) => Error::io(folder)(source),
            error => Error::file(folder, format!("LMDB: {error}")),
        }
    }

    /// The system took only a part of a write to `folder`'s file system, where there is `room` now.
    fn cut_short(folder: &Path, source: std::io::Error, room: Option<Room>) -> Self {
        match room {
            // What is left is less than what was to be written at once.
            Some(Room { free, total }) if free < NEARLY_NOTHING => {
                Error::io(folder)(std::io::Error::new(
                    std::io::ErrorKind::StorageFull,
                    format!(
                        "{}: {free} of the file system's {total} bytes are free; make room there, or write elsewhere",
                        std::io::Error::from(rustix::io::Errno::NOSPC)
                    ),
                ))
            }
            Some(Room { free, total }) => Error::file(
                folder,
                format!(
                    "{source}; {free} of the file system's {total} bytes are free, so a quota or a limit on file sizes may \
                     be reached, or the disk broken"
                ),
            ),
            None => Error::file(
                folder,
                format!("{source}; the disk may be full, or a limit on file sizes reached"),
            ),
        }
    }

    /// Puts the field of an [`Error::Field`] under `parent`, leaves others alone.
    pub(crate) fn within(self, parent: &str) -> Self {
        match self {
            Error::Field { field, reason } => Error::field(format!("{parent}.{field}"), reason),
            other => other,
        }
    }

    /// Names the file that holds the field of an [`Error::Field`].
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            error @ (Error::Field { .. } | Error::UnknownName { .. }) => {
                Error::file(path, error.to_string())
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_cut_short_by_a_full_file_system_says_so_with_the_numbers() {
        let cut = |room| {
            let source = std::io::Error::from(rustix::io::Errno::IO);
            Error::cut_short(Path::new("out.lmdb"), source, room)
        };
        let full = cut(Some(Room {
            free: 8192,
            total: 2 << 20,
        }));
        let Error::Io { source, .. } = &full else {
            panic!("{full}")
        };
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        let text = full.to_string();
        assert!(
            text.starts_with("out.lmdb: No space left on device")
                && text.contains("8192 of the file system's 2097152 bytes are free"),
            "{text}"
        );
        let limited = cut(Some(Room {
            free: 1 << 30,
            total: 2 << 30,
        }));
        let text = limited.to_string();
        assert!(
            text.contains("Input/output error") && text.contains("quota"),
            "{text}"
        );
        assert!(cut(None).to_string().contains("may be full"));
    }
}
