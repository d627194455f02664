//! A consumer of a daemon's ring.

use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ddas_loader::ring;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors;
use crate::lease::{Batch, Lease, Memory};
use crate::waiting::{Look, duration, wait};

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
    stream: ring::StreamInfo,
    info: String,
    /// The process that connected. Looked at before the lock is: another thread
    /// may have held that at the moment of a fork.
    owner: u32,
}

#[pymethods]
impl Consumer {
    /// Joins the stream `name` as a consumer of `rank`, at its current batch or at its `next-epoch`.
    ///
    /// Looks `wait` seconds for a daemon that has not started yet, with the GIL released and
    /// Python's signal handlers running at least every 100 ms.
    #[new]
    #[pyo3(signature = (name, rank, wait, start = "current"))]
    fn new(py: Python<'_>, name: String, rank: u32, wait: f64, start: &str) -> PyResult<Self> {
        let start = match start {
            "current" => ring::StartFrom::Current,
            "next-epoch" => ring::StartFrom::NextEpoch,
            other => {
                return Err(PyValueError::new_err(format!(
                    "`start` must be \"current\" or \"next-epoch\", got {other:?}"
                )));
            }
        };
        let consumer = once_it_runs(py, wait, || {
            let options = ring::ConnectOptions {
                rank,
                start,
                ..ring::ConnectOptions::default()
            };
            ring::Consumer::connect(&name, options)
        })?;
        let stream = consumer.info().clone();
        let info = serde_json::to_string(&stream)
            .map_err(|error| errors::Error::new_err(error.to_string()))?;
        Ok(Self {
            consumer: Mutex::new(Some(consumer)),
            name,
            stream,
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
    /// handlers run at least every 100 ms. While others get the batches before
    /// this consumer's first, the time begins anew with each.
    #[pyo3(signature = (timeout))]
    fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Lease>> {
        let timeout = timeout
            .map(|seconds| duration("timeout", seconds))
            .transpose()?;
        self.check_process()?;
        let ahead_now = || self.lock().as_ref().map_or(0, ring::Consumer::ahead);
        let mut ahead = ahead_now();
        let received = loop {
            let received = wait(py, timeout, |slice| {
                self.check_process()?;
                let received = py.detach(|| self.lock().as_mut().map(|open| open.receive(slice)));
                match received {
                    None => Err(closed()),
                    Some(Ok(batch)) => Ok(Look::Found(batch)),
                    Some(Err(ring::Error::TimedOut { .. })) => Ok(Look::Nothing),
                    Some(Err(error)) => Err(errors::ring(error)),
                }
            })?;
            let now = ahead_now();
            if received.is_some() || now == 0 || now >= ahead {
                break received;
            }
            ahead = now;
        };
        match received {
            Some(Some(batch)) => Lease::new(Batch::Ring(batch), &self.stream).map(Some),
            Some(None) => Ok(None),
            None => Err(errors::TimedOut::new_err(format!(
                "no batch came from daemon `{name}` within {seconds} s: it lives, so it is slow or \
                 waits for another consumer (`ddas-loader status {name}` tells); allow a longer timeout",
                name = self.name,
                seconds = timeout.unwrap_or_default().as_secs_f64(),
            ))),
        }
    }

    /// The shared memory that batches lie in.
    fn memory(&self) -> PyResult<Memory> {
        self.check_process()?;
        match self.lock().as_ref() {
            Some(consumer) => Ok(Memory(consumer.memory())),
            None => Err(closed()),
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

fn closed() -> PyErr {
    errors::StreamClosed::new_err("the stream is closed; call ddas.connect again")
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
