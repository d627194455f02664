//! Results to standard output, errors to standard error.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// Arguments that contradict one another: exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}; `--help` lists every flag")]
pub(crate) struct Usage(pub(crate) String);

/// Refuses to write over a file that is read: what is drawn from a policy is not to replace the policy.
pub(crate) fn check_output(out: &Path, input: &Path) -> Result<(), Usage> {
    match (out.canonicalize(), input.canonicalize()) {
        (Ok(out_file), Ok(in_file)) if out_file == in_file => Err(Usage(format!(
            "--out {} is the file that is read; give another name",
            out.display()
        ))),
        _ => Ok(()),
    }
}

/// Writes a result. A closed pipe is an error like any other, and is silent in `main`.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("writing to standard output")
}

/// Writes a result and ends its line.
pub(crate) fn print_line(text: &str) -> anyhow::Result<()> {
    print(&format!("{text}\n"))
}

/// Writes a result as indented JSON.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print_line(&serde_json::to_string_pretty(value).context("writing JSON")?)
}

/// Tells the user something on standard error, in the form of the log.
pub(crate) fn tell(text: &str) {
    tracing::info!(event = "note", "{text}");
}

/// Logs the chain of causes in one line.
pub(crate) fn print_error(error: &anyhow::Error) {
    let text = ddas_loader::one_line(error.as_ref());
    tracing::error!(event = "error", "{text}");
}

/// As [`print_error`], when the log could not begin.
pub(crate) fn print_usage(error: &Usage) {
    let _ = writeln!(io::stderr().lock(), "error: {error}");
}

/// Whether standard output was closed by its reader.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    }) && error
        .chain()
        .any(|cause| cause.to_string() == "writing to standard output")
}

/// `1 image`, `2 images`.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// `1.5 MiB`, for a number of bytes.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} bytes")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_joined_once_and_in_one_line() {
        let root = io::Error::other("disk\n on fire");
        let error = anyhow::Error::new(root)
            .context("cannot read a.lmdb: disk on fire")
            .context("serving failed");
        assert_eq!(
            ddas_loader::one_line(error.as_ref()),
            "serving failed: cannot read a.lmdb: disk on fire"
        );
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 << 40), "3.0 TiB");
    }
}
