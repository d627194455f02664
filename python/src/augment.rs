//! Operations and policies on packed pixels; `ddas/_augment.py` puts image types around them.

use std::sync::{Arc, Mutex, PoisonError};

use ddas_formats::CutoutShape;
use ddas_runtime::{EpochSchedule, Kernels, SampleRng, Stream};
use pyo3::buffer::PyBuffer;
use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict};

use crate::arguments;
use crate::pixels::{to_bytearray, to_image};
use crate::policy::Policy;

/// One operation with resolved arguments.
#[pyclass(frozen, module = "ddas._ddas")]
pub(crate) struct Operation(ddas_formats::Operation);

#[pymethods]
impl Operation {
    #[new]
    fn new(kind: &str, arguments: &Bound<'_, PyDict>) -> PyResult<Self> {
        arguments::operation(kind, arguments).map(Self)
    }

    /// Applies the operation to `pixels` (height x width x 3 bytes) as given, without a sign flip.
    ///
    /// `center` is the point (x, y) on which Cutout is centred, the middle of the image if None: a
    /// pixel, or for its shape `rectangle` any point within the image.
    #[pyo3(signature = (pixels, width, height, center))]
    fn apply<'py>(
        &self,
        py: Python<'py>,
        pixels: PyBuffer<u8>,
        width: u32,
        height: u32,
        center: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyByteArray>> {
        let center = self.center(center.as_ref(), width, height)?;
        let mut image = to_image(py, &pixels, width, height)?;
        py.detach(|| Kernels::default().apply(&self.0, center, &mut image));
        Ok(to_bytearray(py, &image))
    }

    fn __repr__(&self) -> String {
        format!("<ddas operation {}>", self.0.label())
    }
}

impl Operation {
    fn center(
        &self,
        center: Option<&Bound<'_, PyAny>>,
        width: u32,
        height: u32,
    ) -> PyResult<Option<(f64, f64)>> {
        let ddas_formats::Operation::Cutout { shape, .. } = self.0 else {
            return match center {
                None => Ok(None),
                Some(_) => Err(arguments::unexpected(self.0.kind(), "center")),
            };
        };
        let Some(center) = center else {
            return Ok(None);
        };
        let size = format!("the image, which is {width} wide and {height} high");
        let (right, bottom) = (f64::from(width), f64::from(height));
        let (what, (x, y)) = match shape {
            CutoutShape::Centered => match pair::<i64>(center) {
                Some((x, y))
                    if (0..i64::from(width)).contains(&x)
                        && (0..i64::from(height)).contains(&y) =>
                {
                    return Ok(Some((x as f64, y as f64)));
                }
                Some((x, y)) => (
                    format!("a pixel (x, y) of {size}"),
                    (x.to_string(), y.to_string()),
                ),
                None => return Err(no_pair(center, "a pixel (x, y), two whole numbers")?),
            },
            CutoutShape::Rectangle => match pair::<f64>(center) {
                Some((x, y)) if (0.0..=right).contains(&x) && (0.0..=bottom).contains(&y) => {
                    return Ok(Some((x, y)));
                }
                Some((x, y)) => (
                    format!("a point (x, y) within {size}"),
                    (x.to_string(), y.to_string()),
                ),
                None => return Err(no_pair(center, "a point (x, y), two numbers")?),
            },
        };
        Err(PyValueError::new_err(format!(
            "Cutout: argument `center` must be {what}, got ({x}, {y})"
        )))
    }
}

/// Two numbers from anything that yields them: a tuple, a list, an array.
fn pair<'py, T: FromPyObjectOwned<'py>>(center: &Bound<'py, PyAny>) -> Option<(T, T)> {
    let numbers: PyResult<Vec<T>> = center.try_iter().and_then(|items| {
        items
            .map(|item| item?.extract().map_err(Into::into))
            .collect()
    });
    let [x, y] = <[T; 2]>::try_from(numbers.ok()?).ok()?;
    Some((x, y))
}

fn no_pair(center: &Bound<'_, PyAny>, what: &str) -> PyResult<PyErr> {
    Ok(PyTypeError::new_err(format!(
        "Cutout: argument `center` must be {what}, got {}",
        center.repr()?
    )))
}

/// A policy replayed on single images.
#[pyclass(frozen, module = "ddas._ddas")]
pub(crate) struct Augmenter {
    schedule: Arc<EpochSchedule>,
    policy: Py<Policy>,
    #[pyo3(get)]
    epochs: u32,
    #[pyo3(get)]
    seed: u64,
    /// Scratch of the threads that are augmenting now, kept for the next call.
    scratch: Mutex<Vec<ddas_runtime::Augmenter>>,
}

#[pymethods]
impl Augmenter {
    #[new]
    fn new(
        policy: &Bound<'_, PyAny>,
        epochs: &Bound<'_, PyAny>,
        seed: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let Ok(policy) = policy.cast::<Policy>() else {
            return Err(PyTypeError::new_err(format!(
                "`policy` must be a ddas.Policy, got {}; ddas.Policy.load(path) reads one from a file",
                policy.get_type().name()?
            )));
        };
        let epochs = arguments::up_to(epochs, "epochs", u32::MAX.into())?;
        let seed = arguments::up_to(seed, "seed", u64::MAX)?;
        let schedule = policy.get().schedule(epochs)?;
        Ok(Self {
            schedule,
            policy: policy.clone().unbind(),
            epochs,
            seed,
            scratch: Mutex::default(),
        })
    }

    /// Draws for (seed, `epoch`, `index`) and applies what was drawn to `pixels`.
    fn apply<'py>(
        &self,
        py: Python<'py>,
        pixels: PyBuffer<u8>,
        width: u32,
        height: u32,
        epoch: u32,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyByteArray>> {
        let index = arguments::up_to(index, "index", u64::MAX)?;
        let mut image = to_image(py, &pixels, width, height)?;
        py.detach(|| {
            let kept = self.scratch().pop();
            let mut augmenter = kept.unwrap_or_default();
            let mut rng = SampleRng::new(self.seed, epoch, index, Stream::Policy);
            augmenter.augment(self.schedule.sampler(epoch), &mut rng, &mut image);
            self.scratch().push(augmenter);
        });
        Ok(to_bytearray(py, &image))
    }

    /// What is drawn for (seed, `epoch`, `index`): operations as they stand in a policy file, the
    /// sign resolved, in the order they are applied.
    fn drawn<'py>(
        &self,
        py: Python<'py>,
        epoch: u32,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let index = arguments::up_to(index, "index", u64::MAX)?;
        let mut rng = SampleRng::new(self.seed, epoch, index, Stream::Policy);
        let mut drawn = Vec::new();
        self.schedule.sampler(epoch).draw(&mut rng, &mut drawn);
        let text = serde_json::to_string(&drawn)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        py.import("json")?.call_method1("loads", (text,))
    }

    fn __reduce__<'py>(
        slf: &Bound<'py, Self>,
        py: Python<'py>,
    ) -> (Bound<'py, PyAny>, (Py<Policy>, u32, u64)) {
        let this = slf.get();
        let arguments = (this.policy.clone_ref(py), this.epochs, this.seed);
        (py.get_type::<Self>().into_any(), arguments)
    }
}

impl Augmenter {
    fn scratch(&self) -> std::sync::MutexGuard<'_, Vec<ddas_runtime::Augmenter>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
