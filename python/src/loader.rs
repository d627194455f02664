//! The engine in this process, and where this process stands among others.

use std::path::PathBuf;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ddas_loader::ring::StreamInfo;
use ddas_loader::{
    BadBudget, EmbeddedError, EmbeddedLoader, EmbeddedOptions, HashSplit, LastBatch, OnBad,
    Placement, Position, SampleOptions, Sampling, Stream, StreamOptions, Substitutes,
};
use ddas_runtime::OutputFormat;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::arguments::up_to;
use crate::errors;
use crate::lease::{Batch, Lease, Memory};
use crate::policy::Policy;
use crate::waiting::{Look, duration, wait};

/// A dataset's batches, made by threads of this process.
#[pyclass(frozen, module = "ddas._ddas")]
pub(crate) struct Embedded {
    loader: Mutex<Option<EmbeddedLoader>>,
    stream: StreamInfo,
    info: String,
    /// Lines about epochs that ended and were not asked for yet.
    reports: Arc<Mutex<Vec<String>>>,
    /// The process that made it. Looked at before the locks are.
    owner: u32,
}

#[pymethods]
impl Embedded {
    /// Opens and checks everything; threads start with the first batch.
    #[new]
    #[pyo3(signature = (dataset, *, recipe, policy, epochs, batch_size, seed, threads, slots, dtype, layout, rank, world_size, start, last, samples))]
    #[expect(clippy::too_many_arguments, reason = "Python's keywords")]
    fn new(
        py: Python<'_>,
        dataset: PathBuf,
        recipe: String,
        policy: Option<&Bound<'_, PyAny>>,
        epochs: &Bound<'_, PyAny>,
        batch_size: &Bound<'_, PyAny>,
        seed: &Bound<'_, PyAny>,
        threads: Option<&Bound<'_, PyAny>>,
        slots: Option<&Bound<'_, PyAny>>,
        dtype: &str,
        layout: &str,
        rank: u32,
        world_size: u32,
        start: (u32, u64),
        last: &str,
        samples: Samples,
    ) -> PyResult<Self> {
        let small = |value: Option<&Bound<'_, PyAny>>, name: &str| {
            value
                .map(|value| up_to::<u32>(value, name, 1024))
                .transpose()
        };
        let options = StreamOptions {
            dataset,
            recipe,
            policy: None,
            epochs: up_to(epochs, "epochs", u32::MAX.into())?,
            batch_size: up_to(batch_size, "batch_size", u32::MAX.into())?,
            world_size,
            seed: up_to(seed, "seed", u64::MAX)?,
            output: OutputFormat {
                dtype: dtype
                    .parse()
                    .map_err(|error| PyValueError::new_err(format!("`dtype`: {error}")))?,
                layout: layout
                    .parse()
                    .map_err(|error| PyValueError::new_err(format!("`layout`: {error}")))?,
            },
            last: match last {
                "pad" => LastBatch::Pad,
                "drop" => LastBatch::Drop,
                other => {
                    return Err(PyValueError::new_err(format!(
                        "`last` must be \"pad\" or \"drop\", got {other:?}"
                    )));
                }
            },
            start: Position {
                epoch: start.0,
                step: start.1,
            },
        };
        let embedded = EmbeddedOptions {
            rank,
            threads: small(threads, "threads")?.map(|threads| threads as usize),
            slots: small(slots, "slots")?.map(|slots| slots as usize),
        };
        let policy = policy.map(|policy| read_policy(py, policy)).transpose()?;
        let (samples, on_bad) = samples.resolve()?;
        let reports = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&reports);
        let loader = py
            .detach(|| {
                let mut stream = Stream::with_policy(options, policy, samples)?;
                stream.on_bad = on_bad;
                EmbeddedLoader::new(stream, embedded)
            })
            .map_err(errors::loader)?
            .on_epoch(move |report| {
                let mut reports = written.lock().unwrap_or_else(PoisonError::into_inner);
                // Nobody may ever ask.
                if reports.len() < 1000 {
                    reports.push(report.to_string());
                }
            });
        let stream = loader.info().clone();
        let info = serde_json::to_string(&stream)
            .map_err(|error| errors::Error::new_err(error.to_string()))?;
        Ok(Self {
            loader: Mutex::new(Some(loader)),
            stream,
            info,
            reports,
            owner: process::id(),
        })
    }

    /// What a daemon's consumer would be told, as JSON.
    #[getter]
    fn info(&self) -> &str {
        &self.info
    }

    /// Waits for the next batch with the GIL released; None after the last one.
    ///
    /// `timeout` in seconds; None waits for as long as it takes. Signal handlers run at least every 100 ms.
    #[pyo3(signature = (timeout))]
    fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Lease>> {
        let timeout = timeout
            .map(|seconds| duration("timeout", seconds))
            .transpose()?;
        let received = wait(py, timeout, |slice| {
            self.check_process()?;
            match py.detach(|| self.lock().as_mut().map(|loader| loader.receive(slice))) {
                None => Err(closed()),
                Some(Ok(batch)) => Ok(Look::Found(batch)),
                Some(Err(EmbeddedError::TimedOut { .. })) => Ok(Look::Nothing),
                Some(Err(error)) => Err(errors::embedded(error)),
            }
        })?;
        match received {
            Some(Some(batch)) => Lease::new(Batch::Embedded(batch), &self.stream).map(Some),
            Some(None) => Ok(None),
            None => Err(errors::embedded(EmbeddedError::TimedOut {
                waited: timeout.unwrap_or_default(),
            })),
        }
    }

    /// Goes on at another place, backwards too.
    fn seek(&self, py: Python<'_>, epoch: u32, step: u64) -> PyResult<()> {
        self.check_process()?;
        py.detach(|| {
            self.lock()
                .as_mut()
                .map(|loader| loader.seek(Position { epoch, step }))
        })
        .ok_or_else(closed)?
        .map_err(errors::loader)
    }

    /// Epoch and step of the batch that comes next.
    fn position(&self, py: Python<'_>) -> PyResult<(u32, u64)> {
        self.check_process()?;
        let next = py
            .detach(|| self.lock().as_ref().map(EmbeddedLoader::next_position))
            .ok_or_else(closed)?;
        Ok((next.epoch, next.step))
    }

    /// The memory that batches lie in.
    fn memory(&self, py: Python<'_>) -> PyResult<Memory> {
        self.check_process()?;
        py.detach(|| self.lock().as_ref().map(EmbeddedLoader::memory))
            .map(Memory)
            .ok_or_else(closed)
    }

    /// How far the workers are and what they spent their time on, as JSON; None after a defect that lost them.
    fn progress(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.check_process()?;
        let progress = py
            .detach(|| self.lock().as_ref().map(EmbeddedLoader::progress))
            .ok_or_else(closed)?;
        Ok(progress.and_then(|progress| serde_json::to_string(&progress).ok()))
    }

    /// One line for each epoch that was finished since the last call.
    fn reports(&self) -> PyResult<Vec<String>> {
        self.check_process()?;
        Ok(std::mem::take(
            &mut *self.reports.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }

    /// Ends the threads. Batches that are still held stay valid.
    fn close(&self, py: Python<'_>) {
        if self.check_process().is_ok() {
            py.detach(|| drop(self.lock().take()));
        }
    }
}

impl Embedded {
    fn lock(&self) -> MutexGuard<'_, Option<EmbeddedLoader>> {
        self.loader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_process(&self) -> PyResult<()> {
        let user = process::id();
        if user == self.owner {
            return Ok(());
        }
        Err(errors::embedded(EmbeddedError::Forked {
            owner: self.owner,
            user,
        }))
    }
}

/// Which samples come and what becomes of bad ones, as `Loader` gathers its arguments.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Samples {
    mix: Vec<(PathBuf, f64)>,
    sampling: String,
    split: Option<String>,
    validation_fraction: f64,
    split_seed: u64,
    epoch_samples: Option<u64>,
    on_bad: String,
    max_bad: Option<String>,
    bad_log: Option<PathBuf>,
}

impl Samples {
    fn resolve(self) -> PyResult<(SampleOptions, OnBad)> {
        let wrong = |name: &str, expected: &str, got: &str| {
            Err(PyValueError::new_err(format!(
                "`{name}` must be {expected}, got {got}"
            )))
        };
        for (path, weight) in &self.mix {
            if !(weight.is_finite() && *weight > 0.0) {
                let pair = format!("{weight} for {}", path.display());
                return wrong("mix", "pairs of a path and a weight above 0", &pair);
            }
        }
        let sampling = match self.sampling.as_str() {
            "uniform" => Sampling::Uniform,
            "class-balanced" => Sampling::ClassBalanced,
            other => {
                let got = format!("{other:?}");
                return wrong("sampling", "\"uniform\" or \"class-balanced\"", &got);
            }
        };
        let fraction = self.validation_fraction;
        if !(fraction > 0.0 && fraction < 1.0) {
            let expected = "between 0 and 1";
            return wrong("validation_fraction", expected, &fraction.to_string());
        }
        let split = match self.split.map(|part| part.parse()).transpose() {
            Ok(part) => part.map(|part| HashSplit {
                part,
                validation_fraction: fraction,
                seed: self.split_seed,
            }),
            Err(error) => return Err(PyValueError::new_err(format!("`split`: {error}"))),
        };
        if self.epoch_samples == Some(0) {
            return wrong("epoch_samples", "at least 1", "0");
        }
        let most = match self.max_bad.map(|most| most.parse()).transpose() {
            Ok(most) => most.unwrap_or(BadBudget::Percent(0.1)),
            Err(error) => return Err(PyValueError::new_err(format!("`max_bad`: {error}"))),
        };
        let on_bad = match self.on_bad.as_str() {
            "fail" => OnBad::Fail,
            "substitute" => OnBad::Substitute(Substitutes {
                most,
                log: self.bad_log,
            }),
            other => {
                let got = format!("{other:?}");
                return wrong("on_bad", "\"fail\" or \"substitute\"", &got);
            }
        };
        let samples = SampleOptions {
            more: self.mix,
            sampling,
            split,
            epoch_samples: self.epoch_samples,
        };
        Ok((samples, on_bad))
    }
}

fn closed() -> PyErr {
    errors::StreamClosed::new_err("the loader is closed; make another one")
}

/// A policy that was loaded already, or the path of one.
fn read_policy(py: Python<'_>, policy: &Bound<'_, PyAny>) -> PyResult<ddas_formats::Policy> {
    if let Ok(policy) = policy.cast::<Policy>() {
        return Ok(policy.get().content().clone());
    }
    let path: PathBuf = policy.extract().map_err(|_| {
        PyTypeError::new_err(format!(
            "`policy` must be a path, a ddas.Policy or None, got {}",
            policy.get_type()
        ))
    })?;
    py.detach(|| ddas_formats::Policy::read(&path))
        .map_err(errors::policy)
}

/// Rank, world size, and the source of both in words; see `Placement` of the loader.
#[pyfunction]
pub(crate) fn placement(
    rank: Option<u32>,
    world_size: Option<u32>,
    served: Option<u32>,
    environment: bool,
) -> PyResult<(u32, u32, String)> {
    Placement::of_this_process(rank, world_size, served, environment)
        .map(|found| (found.rank, found.world_size, found.source))
        .map_err(|error| errors::RankError::new_err(error.to_string()))
}
