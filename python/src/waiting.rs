//! Waits that release the GIL, end on time, and let Ctrl-C through.

use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Longest wait before Python's signal handlers (Ctrl-C) get their turn.
const SLICE: Duration = Duration::from_millis(100);

/// What one look found.
pub(crate) enum Look<T> {
    /// What was waited for.
    Found(T),
    /// Nothing yet.
    Nothing,
}

/// Calls `look` with the longest time it may wait, until it finds something; `None` after `timeout`.
///
/// `look` itself releases the GIL. Signal handlers run between two calls.
pub(crate) fn wait<T>(
    py: Python<'_>,
    timeout: Option<Duration>,
    mut look: impl FnMut(Duration) -> PyResult<Look<T>>,
) -> PyResult<Option<T>> {
    let begun = Instant::now();
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        if let Look::Found(found) = look(left.map_or(SLICE, |left| left.min(SLICE)))? {
            return Ok(Some(found));
        }
        py.check_signals()?;
        if timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
            return Ok(None);
        }
    }
}

/// A number of seconds, as an argument.
pub(crate) fn duration(name: &str, seconds: f64) -> PyResult<Duration> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::new_err(format!(
            "`{name}` must be a number of seconds from 0 up, got {seconds}"
        )));
    }
    // More than a duration can hold, infinity among it, is for ever.
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}
