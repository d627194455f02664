//! Rust errors as the exceptions of `ddas/_errors.py`.

use std::path::PathBuf;

use ddas_loader::{EmbeddedError, one_line, ring};
use pyo3::PyErr;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyValueError};

pyo3::import_exception!(ddas._errors, DaemonDied);
pyo3::import_exception!(ddas._errors, DaemonFailed);
pyo3::import_exception!(ddas._errors, DatasetError);
pyo3::import_exception!(ddas._errors, Error);
pyo3::import_exception!(ddas._errors, Evicted);
pyo3::import_exception!(ddas._errors, ForkedProcess);
pyo3::import_exception!(ddas._errors, HoldsAllSlots);
pyo3::import_exception!(ddas._errors, LoaderFailed);
pyo3::import_exception!(ddas._errors, NoSuchDaemon);
pyo3::import_exception!(ddas._errors, PolicyError);
pyo3::import_exception!(ddas._errors, RankError);
pyo3::import_exception!(ddas._errors, Refused);
pyo3::import_exception!(ddas._errors, StreamClosed);
pyo3::import_exception!(ddas._errors, TimedOut);
pyo3::import_exception!(ddas._errors, VersionMismatch);

/// A policy or search space that was not accepted; the text names the field.
///
/// What the operating system refused is an `OSError` of the right kind, as from `open()`.
pub(crate) fn policy(error: ddas_formats::Error) -> PyErr {
    match error {
        ddas_formats::Error::Io { path, source } => os_error(&source, path),
        error => PolicyError::new_err(error.to_string()),
    }
}

fn os_error(error: &std::io::Error, path: PathBuf) -> PyErr {
    let Some(number) = error.raw_os_error() else {
        return PyOSError::new_err(format!("{}: {error}", path.display()));
    };
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text).to_owned();
    // With number, text and file name, OSError becomes FileNotFoundError and its siblings.
    PyOSError::new_err((number, text, path))
}

/// What a ring reports, as the exception of the same name.
pub(crate) fn ring(error: ring::Error) -> PyErr {
    let text = error.to_string();
    match error {
        ring::Error::NoSuchDaemon { .. } => NoSuchDaemon::new_err(text),
        ring::Error::BadName { .. } => PyValueError::new_err(text),
        ring::Error::DaemonDied { .. } => DaemonDied::new_err(text),
        ring::Error::Failed { .. } => DaemonFailed::new_err(text),
        ring::Error::TimedOut { .. } => TimedOut::new_err(text),
        ring::Error::HoldsAllSlots { .. } => HoldsAllSlots::new_err(text),
        ring::Error::VersionMismatch { .. } => VersionMismatch::new_err(text),
        ring::Error::Refused { .. } => Refused::new_err(text),
        ring::Error::Evicted => Evicted::new_err(text),
        ring::Error::Forked { .. } => ForkedProcess::new_err(text),
        _ => Error::new_err(text),
    }
}

/// Why an embedded loader cannot be made, or moved.
pub(crate) fn loader(error: ddas_loader::Error) -> PyErr {
    use ddas_loader::Error as E;
    match error {
        E::Plan(error) => PyValueError::new_err(error.to_string()),
        E::Runtime(error) => PyValueError::new_err(one_line(&error)),
        E::Format(ddas_formats::Error::Io { path, source }) => os_error(&source, path),
        E::Format(error) => DatasetError::new_err(one_line(&error)),
        E::UnknownRecipe { .. } => PyValueError::new_err(error.to_string()),
        E::NoMemory { .. } => PyMemoryError::new_err(error.to_string()),
        E::Embedded(error) => embedded(error),
        error => Error::new_err(one_line(&error)),
    }
}

/// Why an embedded loader has no batch.
pub(crate) fn embedded(error: EmbeddedError) -> PyErr {
    let text = error.to_string();
    match error {
        EmbeddedError::Failed { .. } => LoaderFailed::new_err(text),
        EmbeddedError::TimedOut { .. } => TimedOut::new_err(text),
        EmbeddedError::HoldsAllSlots { .. } => HoldsAllSlots::new_err(text),
        EmbeddedError::Forked { .. } => ForkedProcess::new_err(text),
        _ => Error::new_err(text),
    }
}
