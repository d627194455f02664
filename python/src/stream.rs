//! A consumer of a daemon's ring, and the batches it leases.

use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ddas_loader::ring;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::prelude::*;

use crate::buffer::{LeasedBytes, copy_out};
use crate::errors;

/// Longest wait before Python's signal handlers (Ctrl-C) get their turn.
const SLICE: Duration = Duration::from_millis(100);
/// Pause between looks for a daemon that has not started yet.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A connection to a running daemon.
///
/// Leases keep what they need of it alive: the daemon sees this consumer leave
/// only when no array shows a batch any more.
#[pyclass(frozen, module = "ddas._ddas")]
pub(crate) struct Consumer {
    consumer: Mutex<Option<ring::Consumer>>,
    name: String,
    info: String,
    /// The process that connected. Looked at before the lock is: another thread
    /// may have held that at the moment of a fork.
    owner: u32,
}

#[pymethods]
impl Consumer {
    /// Joins the stream `name` as a consumer of `rank`.
    ///
    /// Looks `wait` seconds for a daemon that has not started yet, with the GIL released and
    /// Python's signal handlers running at least every 100 ms.
    #[new]
    #[pyo3(signature = (name, rank, wait))]
    fn new(py: Python<'_>, name: String, rank: u32, wait: f64) -> PyResult<Self> {
        let consumer = once_it_runs(py, wait, || {
            let options = ring::ConnectOptions {
                rank,
                ..ring::ConnectOptions::default()
            };
            ring::Consumer::connect(&name, options)
        })?;
        let info = serde_json::to_string(consumer.info())
            .map_err(|error| errors::Error::new_err(error.to_string()))?;
        Ok(Self {
            consumer: Mutex::new(Some(consumer)),
            name,
            info,
            owner: process::id(),
        })
    }

    /// What the daemon said about the stream, as JSON.
    #[getter]
    fn info(&self) -> &str {
        &self.info
    }

    /// Waits for the next batch with the GIL released; None when the stream has ended.
    ///
    /// `timeout` in seconds; None waits as long as the daemon lives. Signal
    /// handlers run at least every 100 ms.
    #[pyo3(signature = (timeout))]
    fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Lease>> {
        let timeout = timeout
            .map(|seconds| duration("timeout", seconds))
            .transpose()?;
        let begun = Instant::now();
        loop {
            self.check_process()?;
            let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            let received = py.detach(|| self.lock().as_mut().map(|open| open.receive(slice)));
            match received {
                None => {
                    return Err(errors::StreamClosed::new_err(
                        "the stream is closed; call ddas.connect again",
                    ));
                }
                Some(Ok(batch)) => return Ok(batch.map(Lease::new)),
                Some(Err(ring::Error::TimedOut { .. })) => {}
                Some(Err(error)) => return Err(errors::ring(error)),
            }
            py.check_signals()?;
            if let Some(timeout) = timeout
                && begun.elapsed() >= timeout
            {
                return Err(errors::TimedOut::new_err(format!(
                    "no batch came from daemon `{name}` within {seconds} s: it lives, so it is slow or \
                     waits for another consumer (`ddas-loader status {name}` tells); allow a longer timeout",
                    name = self.name,
                    seconds = timeout.as_secs_f64(),
                )));
            }
        }
    }

    /// Leaves the stream, once the last batch received from it is gone.
    fn close(&self, py: Python<'_>) {
        if self.check_process().is_ok() {
            py.detach(|| drop(self.lock().take()));
        }
    }
}

impl Consumer {
    fn lock(&self) -> MutexGuard<'_, Option<ring::Consumer>> {
        self.consumer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_process(&self) -> PyResult<()> {
        let user = process::id();
        if user == self.owner {
            return Ok(());
        }
        Err(errors::ring(ring::Error::Forked {
            owner: self.owner,
            user,
        }))
    }
}

/// Number of ranks of the stream `name`; waits like [`Consumer::new`].
#[pyfunction]
pub(crate) fn world_size(py: Python<'_>, name: &str, wait: f64) -> PyResult<usize> {
    let status = once_it_runs(py, wait, || ring::query_status(name, None))?;
    Ok(status.ranks.len())
}

/// Calls `ask` again while there is no daemon of the name and `wait` seconds are not over.
fn once_it_runs<T: Send>(
    py: Python<'_>,
    wait: f64,
    ask: impl Fn() -> ring::Result<T> + Sync,
) -> PyResult<T> {
    let wait = duration("wait", wait)?;
    let begun = Instant::now();
    loop {
        match py.detach(&ask) {
            Ok(answer) => return Ok(answer),
            Err(ring::Error::NoSuchDaemon { .. }) if begun.elapsed() < wait => {
                py.detach(|| std::thread::sleep(LOOK_AGAIN));
                py.check_signals()?;
            }
            Err(error) => return Err(errors::ring(error)),
        }
    }
}

fn duration(name: &str, seconds: f64) -> PyResult<Duration> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::new_err(format!(
            "`{name}` must be a number of seconds from 0 up, got {seconds}"
        )));
    }
    // More than a duration can hold, infinity among it, is for ever.
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Which of a batch's three arrays.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Images,
    Labels,
    Indices,
}

/// A batch whose slot this process holds until the object is dropped or released.
#[pyclass(frozen, module = "ddas._ddas")]
pub(crate) struct Lease {
    batch: Mutex<Option<ring::ReadBatch>>,
    /// Buffers handed out and not yet returned.
    exports: AtomicUsize,
    #[pyo3(get)]
    epoch: u32,
    #[pyo3(get)]
    step: u64,
    #[pyo3(get)]
    samples: usize,
    #[pyo3(get)]
    snapshot: Option<u32>,
}

impl Lease {
    fn new(batch: ring::ReadBatch) -> Self {
        Self {
            epoch: batch.epoch(),
            step: batch.step(),
            samples: batch.samples(),
            snapshot: batch.snapshot(),
            batch: Mutex::new(Some(batch)),
            exports: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<ring::ReadBatch>> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the bytes of `part` lie; they stay there and unchanged until the matching [`Lease::unexport`].
    pub(crate) fn export(&self, part: Part) -> PyResult<*const [u8]> {
        let guard = self.lock();
        let batch = guard.as_ref().ok_or_else(released)?;
        // Counted under the lock: `release` looks at the count under it.
        self.exports.fetch_add(1, Ordering::Relaxed);
        Ok(match part {
            Part::Images => std::ptr::from_ref(batch.images()),
            Part::Labels => as_bytes(batch.labels()),
            Part::Indices => as_bytes(batch.indices()),
        })
    }

    pub(crate) fn unexport(&self) {
        self.exports.fetch_sub(1, Ordering::Release);
    }
}

fn released() -> PyErr {
    PyBufferError::new_err("the batch was released; copy what is needed before calling release()")
}

/// The bytes of eight-byte numbers.
fn as_bytes<T>(numbers: &[T]) -> *const [u8] {
    std::ptr::slice_from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers))
}

#[pymethods]
impl Lease {
    /// A buffer over the images.
    fn images(slf: Py<Self>) -> LeasedBytes {
        LeasedBytes::new(slf, Part::Images)
    }

    /// A buffer over the labels.
    fn labels(slf: Py<Self>) -> LeasedBytes {
        LeasedBytes::new(slf, Part::Labels)
    }

    /// A buffer over the sample indices.
    fn indices(slf: Py<Self>) -> LeasedBytes {
        LeasedBytes::new(slf, Part::Indices)
    }

    /// Copies images and labels into writable buffers of exactly their sizes, with the GIL released.
    fn copy_into(
        slf: &Bound<'_, Self>,
        images: PyBuffer<u8>,
        labels: PyBuffer<u8>,
    ) -> PyResult<()> {
        let lease = slf.get();
        copy_out(slf.py(), lease, Part::Images, &images)?;
        copy_out(slf.py(), lease, Part::Labels, &labels)?;
        lease.validate()
    }

    /// Raises `Evicted` if the daemon has taken the slot back, so that what was read may be torn.
    fn validate(&self) -> PyResult<()> {
        let guard = self.lock();
        let batch = guard.as_ref().ok_or_else(released)?;
        batch.validate().map_err(errors::ring)
    }

    /// Gives the slot back; `BufferError` while a buffer is still in use.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        let batch = {
            let mut guard = self.lock();
            let exports = self.exports.load(Ordering::Acquire);
            if guard.is_some() && exports > 0 {
                return Err(PyBufferError::new_err(format!(
                    "{exports} arrays made from this batch are still alive; delete them before release()"
                )));
            }
            guard.take()
        };
        py.detach(|| drop(batch));
        Ok(())
    }
}
