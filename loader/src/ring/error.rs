//! What can go wrong between a daemon and its consumers.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Result of ring operations.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a daemon could not start, or a consumer could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No daemon listens under this name.
    #[error(
        "no daemon named `{name}`: looked in {}; {}. Start one with `ddas-loader serve DATASET --name {name} ...`, \
         or set DDAS_RUNTIME_DIR to where it runs",
        looked_in.display(), Running(running)
    )]
    NoSuchDaemon {
        /// The name asked for.
        name: String,
        /// The directory searched for `NAME.sock`.
        looked_in: PathBuf,
        /// Names of the daemons that answer in that directory.
        running: Vec<String>,
    },
    /// Another living daemon holds the name.
    #[error(
        "the name `{name}` is held by a running daemon ({}): stop it, or choose another --name",
        Process(*pid)
    )]
    NameHeld {
        /// The name asked for.
        name: String,
        /// The holder, when its lock file says so.
        pid: Option<u32>,
    },
    /// The name cannot be a file name part.
    #[error(
        "bad daemon name `{name}`: expected 1 to 64 of the characters A-Z a-z 0-9 . _ -, not beginning with a dot"
    )]
    BadName {
        /// The name given.
        name: String,
    },
    /// The daemon went away without finishing its stream.
    #[error(
        "the daemon ({}) died: its stream is not finished; look at its log, restart it and connect again",
        Process(*pid)
    )]
    DaemonDied {
        /// The daemon's process, when known.
        pid: Option<u32>,
    },
    /// The daemon gave up and said why.
    #[error("the daemon stopped the stream: {message}")]
    Failed {
        /// The daemon's own words.
        message: String,
    },
    /// Nothing arrived in time.
    #[error(
        "waited {:.1} s for {what}: {advice}",
        waited.as_secs_f64()
    )]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        waited: Duration,
        /// What to look at or change.
        advice: &'static str,
    },
    /// The consumer itself holds the slot that the next batch needs.
    #[error(
        "you hold {held} of {slots} slots, among them the one the next batch needs: release (drop) older batches \
         after copying what you need, or serve with more --slots"
    )]
    HoldsAllSlots {
        /// Batches this consumer has received and not released.
        held: usize,
        /// Slots of the ring.
        slots: usize,
    },
    /// Daemon and consumer were built for different protocols.
    #[error(
        "the daemon speaks ring protocol {daemon}, this program speaks {consumer}: \
         use the same ddas version on both sides"
    )]
    VersionMismatch {
        /// The daemon's version.
        daemon: u32,
        /// This program's version.
        consumer: u32,
    },
    /// The daemon answered, and said no.
    #[error("the daemon refused: {reason}")]
    Refused {
        /// The daemon's own words.
        reason: String,
    },
    /// The daemon took this consumer's slots back because it held them too long.
    #[error(
        "the daemon evicted this consumer: it held back the ring longer than --evict-after allows \
         (or its acknowledgements made no sense); connect again to go on at the current batch"
    )]
    Evicted,
    /// A consumer or batch was used in a forked child.
    #[error(
        "this ring was connected in process {owner} and is used in process {user}: \
         a connection does not survive fork; connect in the child"
    )]
    Forked {
        /// Who connected.
        owner: u32,
        /// Who asked.
        user: u32,
    },
    /// Not enough memory for the slots.
    #[error(
        "the ring needs {needed} bytes (slots = {slots}, ranks = {ranks}), but only {available} bytes are free \
         ({limit}): lower --slots or --batch-size, or give the daemon more memory"
    )]
    NoMemory {
        /// Bytes the segments need.
        needed: u64,
        /// Bytes that may still be used.
        available: u64,
        /// The limit that decides, in words.
        limit: String,
        /// Slots per rank.
        slots: usize,
        /// Rings.
        ranks: usize,
    },
    /// The caller asked for a ring that cannot be.
    #[error("bad ring settings: {reason}")]
    BadShape {
        /// Which number, and what was expected.
        reason: String,
    },
    /// A shared segment or message does not follow the layout.
    #[error("the daemon's {what} is malformed: {reason}")]
    Malformed {
        /// Which structure.
        what: &'static str,
        /// What was found and expected.
        reason: String,
    },
    /// A write slot was dropped unpublished while later ones were already taken.
    #[error(
        "batch {sequence} of the ring was given up while later batches were being filled: the stream cannot go on"
    )]
    Abandoned {
        /// Sequence number of the missing batch.
        sequence: u64,
    },
    /// The stream has ended; nothing more may be written.
    #[error("the stream is closed: no batch can be written after finish or abort")]
    Closed,
    /// The operating system said no.
    #[error("{action}{}: {source}", At(path))]
    Io {
        /// What was being done.
        action: &'static str,
        /// On which file, if any.
        path: Option<PathBuf>,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn io(action: &'static str, source: impl Into<io::Error>) -> Self {
        Error::Io {
            action,
            path: None,
            source: source.into(),
        }
    }

    pub(super) fn io_at(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Error::Io {
            action,
            path: Some(path.to_owned()),
            source: source.into(),
        }
    }

    pub(super) fn malformed(what: &'static str, reason: impl Into<String>) -> Self {
        Error::Malformed {
            what,
            reason: reason.into(),
        }
    }
}

struct Running<'a>(&'a [String]);

impl fmt::Display for Running<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("no daemon runs there"),
            names => write!(f, "running there: {}", names.join(", ")),
        }
    }
}

struct Process(Option<u32>);

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("process unknown"),
        }
    }
}

struct At<'a>(&'a Option<PathBuf>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(path) => write!(f, " {}", path.display()),
            None => Ok(()),
        }
    }
}
