//! `ddas.Policy`, `ddas.Snapshot`, `ddas.search_space`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ddas_formats::{BuiltinOptions, SearchSpace};
use ddas_runtime::EpochSchedule;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyType};

use crate::{arguments, errors};

/// The content of a policy file: a search space and one snapshot per search epoch.
#[pyclass(frozen, module = "ddas")]
pub(crate) struct Policy {
    policy: Arc<ddas_formats::Policy>,
    /// Schedules by number of training epochs: loops ask for the same one again and again.
    schedule: Mutex<Option<(u32, Arc<EpochSchedule>)>>,
}

impl Policy {
    fn new(policy: ddas_formats::Policy) -> Self {
        Self {
            policy: Arc::new(policy),
            schedule: Mutex::new(None),
        }
    }

    pub(crate) fn content(&self) -> &ddas_formats::Policy {
        &self.policy
    }

    pub(crate) fn schedule(&self, epochs: u32) -> PyResult<Arc<EpochSchedule>> {
        let mut kept = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, schedule)) = &*kept
            && *of == epochs
        {
            return Ok(Arc::clone(schedule));
        }
        let schedule = EpochSchedule::new(&self.policy, epochs)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let schedule = Arc::new(schedule);
        *kept = Some((epochs, Arc::clone(&schedule)));
        Ok(schedule)
    }
}

#[pymethods]
impl Policy {
    /// Reads a policy file, with every check of the format.
    #[classmethod]
    fn load(_class: &Bound<'_, PyType>, py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let policy = py.detach(|| ddas_formats::Policy::read(&path));
        policy.map(Self::new).map_err(errors::policy)
    }

    /// Reads a policy from the text of a policy file.
    #[classmethod]
    fn from_json(_class: &Bound<'_, PyType>, text: &str) -> PyResult<Self> {
        ddas_formats::Policy::from_json(text)
            .map(Self::new)
            .map_err(errors::policy)
    }

    /// A policy known from elsewhere, such as `randaugment` or `autoaugment-cifar10`.
    #[classmethod]
    #[pyo3(signature = (name, *, draws=None, magnitude=None, image_size=None))]
    fn builtin(
        _class: &Bound<'_, PyType>,
        name: &str,
        draws: Option<Bound<'_, PyAny>>,
        magnitude: Option<Bound<'_, PyAny>>,
        image_size: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let whole = |value: Option<Bound<'_, PyAny>>, name: &str| {
            value
                .map(|value| arguments::up_to::<u32>(&value, name, u32::MAX.into()))
                .transpose()
        };
        let options = BuiltinOptions {
            draws: whole(draws, "draws")?,
            magnitude: whole(magnitude, "magnitude")?,
            image_size: whole(image_size, "image_size")?,
        };
        ddas_formats::Policy::builtin(name, &options)
            .map(Self::new)
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// The text of the policy file.
    fn to_json(&self) -> String {
        self.policy.to_json()
    }

    /// Writes a policy file in one step: readers see the old file or the new one.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.policy.write(&path))
            .map_err(errors::policy)
    }

    /// Name of the search space.
    #[getter]
    fn search_space(&self) -> &str {
        self.policy.search_space().name()
    }

    /// The candidate operations, each as the dict that stands in the policy file: an operation, one
    /// with `varies` in an argument's place, or a `Sequence` of `steps`.
    #[getter]
    fn operations<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        operations(py, self.policy.search_space())
    }

    /// One per search epoch, oldest first, as they stand in the file.
    #[getter]
    fn snapshots<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let snapshots = self.policy.snapshots().iter().enumerate();
        PyList::new(
            py,
            snapshots
                .map(|(index, snapshot)| Snapshot {
                    index,
                    total_probability: snapshot.total_probability(),
                    operation_probabilities: snapshot.operation_probabilities().to_vec(),
                })
                .map(|snapshot| Py::new(py, snapshot))
                .collect::<PyResult<Vec<_>>>()?,
        )
    }

    /// Operations drawn, with replacement, for one augmented sample.
    #[getter]
    fn draws_per_sample(&self) -> u32 {
        self.policy.search_space().draws_per_sample()
    }

    /// Snapshots over which the total probability is averaged at replay; 1 leaves it as it is.
    #[getter]
    fn smoothing_window(&self) -> u32 {
        self.policy.smoothing_window()
    }

    /// Fingerprint of what decides the pixels, 16 hex digits; a stream's `policy_digest` is the same.
    #[getter]
    fn digest(&self) -> String {
        format!("{:016x}", self.policy.digest())
    }

    /// What is in force in `epoch` (from 0) of a training run of `epochs` epochs.
    #[pyo3(signature = (epoch, epochs))]
    fn snapshot(&self, epoch: &Bound<'_, PyAny>, epochs: &Bound<'_, PyAny>) -> PyResult<Snapshot> {
        let epochs: u32 = arguments::up_to(epochs, "epochs", u32::MAX.into())?;
        let schedule = self.schedule(epochs)?;
        let epoch: u32 = arguments::up_to(epoch, "epoch", u64::from(epochs) - 1)?;
        let index = schedule.snapshot_index(epoch);
        Ok(Snapshot {
            index,
            total_probability: schedule.total_probability(epoch),
            operation_probabilities: self.policy.snapshots()[index]
                .operation_probabilities()
                .to_vec(),
        })
    }

    /// Number of snapshots.
    fn __len__(&self) -> usize {
        self.policy.snapshots().len()
    }

    fn __repr__(&self) -> String {
        format!(
            "<ddas.Policy {}: {} operations, {} snapshots, digest {}>",
            self.policy.search_space().name(),
            self.policy.search_space().len(),
            self.policy.snapshots().len(),
            self.digest()
        )
    }

    /// Whether both files would hold the same.
    fn __eq__(&self, other: &Bound<'_, PyAny>) -> Option<bool> {
        let other = other.cast::<Self>().ok()?;
        Some(self.policy == other.get().policy)
    }

    fn __hash__(&self) -> u64 {
        self.policy.digest()
    }

    fn __reduce__<'py>(
        slf: &Bound<'py, Self>,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, (String,))> {
        let from_json = py.get_type::<Self>().getattr("from_json")?;
        Ok((from_json, (slf.get().to_json(),)))
    }
}

/// Probabilities at the end of one search epoch, or in one training epoch.
#[pyclass(frozen, eq, module = "ddas", get_all)]
#[derive(PartialEq)]
pub(crate) struct Snapshot {
    /// Number of the snapshot in the policy.
    index: usize,
    /// Chance that a sample is augmented at all, 0 to 1. From `Policy.snapshot` it is smoothed as
    /// at replay; in `Policy.snapshots` it is the raw value.
    total_probability: f64,
    /// Chance of each operation per draw, given that the sample is augmented; sums to one.
    operation_probabilities: Vec<f64>,
}

#[pymethods]
impl Snapshot {
    /// Made by policies, and by pickle.
    #[new]
    fn new(index: usize, total_probability: f64, operation_probabilities: Vec<f64>) -> Self {
        Self {
            index,
            total_probability,
            operation_probabilities,
        }
    }

    fn __reduce__<'py>(
        slf: &Bound<'py, Self>,
        py: Python<'py>,
    ) -> (Bound<'py, PyAny>, (usize, f64, Vec<f64>)) {
        let this = slf.get();
        let arguments = (
            this.index,
            this.total_probability,
            this.operation_probabilities.clone(),
        );
        (py.get_type::<Self>().into_any(), arguments)
    }

    fn __hash__(&self) -> u64 {
        // Adding 0 makes one zero of both, which are equal.
        (self.total_probability + 0.0).to_bits() ^ self.index as u64
    }

    fn __repr__(&self) -> String {
        format!(
            "<ddas.Snapshot {}: total probability {:.4}, {} operations>",
            self.index,
            self.total_probability,
            self.operation_probabilities.len()
        )
    }
}

/// A named search space as a dict: `name`, `draws_per_sample` and `operations` as in a policy file.
#[pyfunction]
pub(crate) fn search_space<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let space = SearchSpace::named(name).map_err(errors::policy)?;
    let dict = pyo3::types::PyDict::new(py);
    dict.set_item("name", space.name())?;
    dict.set_item("draws_per_sample", space.draws_per_sample())?;
    dict.set_item("operations", operations(py, &space)?)?;
    Ok(dict.into_any())
}

fn operations<'py>(py: Python<'py>, space: &SearchSpace) -> PyResult<Bound<'py, PyAny>> {
    let text = serde_json::to_string(space.entries())
        .map_err(|error| errors::PolicyError::new_err(error.to_string()))?;
    py.import("json")?.call_method1("loads", (text,))
}
