//! What the program prints. A stream that nobody reads any more, or that is full, does not end a
//! search: what it found is in files.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::{Context, Result};

/// A line for people, on standard error.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The result of a command, on standard output, newline included.
///
/// # Errors
/// When it cannot be written; a reader that has gone is none.
pub(crate) fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}
