//! A batch that this process holds, from a daemon or from an embedded loader.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ddas_loader::{EmbeddedBatch, SlotMemory, ring};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;

use crate::buffer::{Array, Element, copy_out};
use crate::errors;

/// Which of a batch's arrays.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Images,
    Labels,
    Indices,
    /// Of mixed batches only.
    MixedLabels,
    /// Of mixed batches only.
    Weights,
}

/// Where the batch comes from.
pub(crate) enum Batch {
    /// Shared memory of a daemon, read-only.
    Ring(ring::ReadBatch),
    /// Memory of this process, the trainer's alone while it has it.
    Embedded(EmbeddedBatch),
}

/// Where the batches of a stream lie, mapped for as long as the object lives.
#[pyclass(frozen, module = "ddas._ddas")]
pub(crate) struct Memory(pub(crate) SlotMemory);

#[pymethods]
impl Memory {
    /// Address and bytes of each mapping.
    #[getter]
    fn regions(&self) -> Vec<(usize, usize)> {
        self.0.regions().to_vec()
    }

    /// Whether the pages may be written to.
    #[getter]
    fn writable(&self) -> bool {
        self.0.is_writable()
    }
}

/// Bytes that stay where they are, and lent, as long as they are exported.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    pub(crate) start: *mut u8,
    pub(crate) length: usize,
}

impl Batch {
    /// Where `part` lies; nothing for a part that the stream's batches do not have.
    fn bytes(&self, part: Part) -> Bytes {
        fn of<T>(start: *mut T, length: usize) -> Bytes {
            Bytes {
                start: start.cast(),
                length: length * size_of::<T>(),
            }
        }
        match self {
            Batch::Ring(batch) => match part {
                Part::Images => of(batch.images().as_ptr().cast_mut(), batch.images().len()),
                Part::Labels => of(batch.labels().as_ptr().cast_mut(), batch.samples()),
                Part::Indices => of(batch.indices().as_ptr().cast_mut(), batch.samples()),
                Part::MixedLabels => {
                    let labels = batch.mixed_labels().unwrap_or_default();
                    of(labels.as_ptr().cast_mut(), labels.len())
                }
                Part::Weights => {
                    let weights = batch.weights().unwrap_or_default();
                    of(weights.as_ptr().cast_mut(), weights.len())
                }
            },
            Batch::Embedded(batch) => match part {
                Part::Images => of(batch.images_ptr(), batch.image_bytes()),
                Part::Labels => of(batch.labels_ptr(), batch.samples()),
                Part::Indices => of(batch.indices_ptr(), batch.samples()),
                Part::MixedLabels => match batch.mixing_ptrs() {
                    Some((labels, _)) => of(labels, batch.samples()),
                    None => of(std::ptr::dangling_mut::<i64>(), 0),
                },
                Part::Weights => match batch.mixing_ptrs() {
                    Some((_, weights)) => of(weights, batch.samples()),
                    None => of(std::ptr::dangling_mut::<f32>(), 0),
                },
            },
        }
    }
}

/// The batch and who looks at it; kept by the lease and by every array, buffer and capsule made from it.
pub(crate) struct Lent {
    batch: Mutex<Option<Batch>>,
    /// Buffers and capsules handed out and not yet returned.
    exports: AtomicUsize,
    writable: bool,
    mixes: bool,
    samples: usize,
    shape: [usize; 3],
    element: Element,
}

impl Lent {
    fn lock(&self) -> MutexGuard<'_, Option<Batch>> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the memory may be written to.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Type and shape of one of the arrays.
    pub(crate) fn layout(&self, part: Part) -> (Element, Vec<usize>) {
        match part {
            Part::Images => {
                let [a, b, c] = self.shape;
                (self.element, vec![self.samples, a, b, c])
            }
            Part::Labels => (Element::I64, vec![self.samples]),
            Part::Indices => (Element::U64, vec![self.samples]),
            Part::MixedLabels => (Element::I64, vec![self.mixing_samples()]),
            Part::Weights => (Element::F32, vec![self.mixing_samples()]),
        }
    }

    fn mixing_samples(&self) -> usize {
        if self.mixes { self.samples } else { 0 }
    }

    /// Where the bytes of `part` lie; they stay there and lent until the matching [`Lent::unexport`].
    pub(crate) fn export(&self, part: Part) -> PyResult<Bytes> {
        let guard = self.lock();
        let batch = guard.as_ref().ok_or_else(released)?;
        // Counted under the lock: `release` looks at the count under it.
        self.exports.fetch_add(1, Ordering::Relaxed);
        Ok(batch.bytes(part))
    }

    pub(crate) fn unexport(&self) {
        self.exports.fetch_sub(1, Ordering::Release);
    }
}

/// An export that ends when dropped.
pub(crate) struct Export {
    lent: Arc<Lent>,
    bytes: Bytes,
}

// SAFETY: the pointer leads into memory that no thread is special to and that `lent` keeps.
unsafe impl Send for Export {}
// SAFETY: as above; through a shared reference there is only the pointer to be had.
unsafe impl Sync for Export {}

impl Export {
    pub(crate) fn new(lent: &Arc<Lent>, part: Part) -> PyResult<Export> {
        Ok(Export {
            bytes: lent.export(part)?,
            lent: Arc::clone(lent),
        })
    }

    pub(crate) fn bytes(&self) -> Bytes {
        self.bytes
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        self.lent.unexport();
    }
}

fn released() -> PyErr {
    PyBufferError::new_err("the batch was released; copy what is needed before calling release()")
}

/// A batch whose slot this process holds until the object is dropped or released.
#[pyclass(frozen, module = "ddas._ddas")]
pub(crate) struct Lease {
    lent: Arc<Lent>,
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
    /// A batch of the stream that `info` describes.
    pub(crate) fn new(batch: Batch, info: &ring::StreamInfo) -> PyResult<Self> {
        let (epoch, step, samples, snapshot) = match &batch {
            Batch::Ring(batch) => (
                batch.epoch(),
                batch.step(),
                batch.samples(),
                batch.snapshot(),
            ),
            Batch::Embedded(batch) => (
                batch.epoch(),
                batch.step(),
                batch.samples(),
                batch.snapshot(),
            ),
        };
        let element = Element::of_images(&info.dtype).ok_or_else(|| {
            errors::Error::new_err(format!(
                "the stream's dtype is `{}`, which this version of the package does not know",
                info.dtype
            ))
        })?;
        Ok(Self {
            lent: Arc::new(Lent {
                writable: matches!(batch, Batch::Embedded(_)),
                batch: Mutex::new(Some(batch)),
                exports: AtomicUsize::new(0),
                mixes: info.mixes,
                samples,
                shape: info.shape,
                element,
            }),
            epoch,
            step,
            samples,
            snapshot,
        })
    }
}

#[pymethods]
impl Lease {
    /// The images.
    fn images(&self) -> Array {
        Array::new(Arc::clone(&self.lent), Part::Images)
    }

    /// The labels.
    fn labels(&self) -> Array {
        Array::new(Arc::clone(&self.lent), Part::Labels)
    }

    /// The samples' numbers in the dataset.
    fn indices(&self) -> Array {
        Array::new(Arc::clone(&self.lent), Part::Indices)
    }

    /// The labels of the samples' partners; None in a stream that does not mix.
    fn mixed_labels(&self) -> Option<Array> {
        let mixes = self.lent.mixes;
        mixes.then(|| Array::new(Arc::clone(&self.lent), Part::MixedLabels))
    }

    /// The share of each sample's own label; None in a stream that does not mix.
    fn weights(&self) -> Option<Array> {
        let mixes = self.lent.mixes;
        mixes.then(|| Array::new(Arc::clone(&self.lent), Part::Weights))
    }

    /// Copies the arrays into writable buffers of exactly their sizes, with the GIL released.
    #[pyo3(signature = (images, labels, mixed_labels = None, weights = None))]
    fn copy_into(
        &self,
        py: Python<'_>,
        images: PyBuffer<u8>,
        labels: PyBuffer<u8>,
        mixed_labels: Option<PyBuffer<u8>>,
        weights: Option<PyBuffer<u8>>,
    ) -> PyResult<()> {
        let parts = [
            (Part::Images, Some(images)),
            (Part::Labels, Some(labels)),
            (Part::MixedLabels, mixed_labels),
            (Part::Weights, weights),
        ];
        for (part, target) in parts {
            if let Some(target) = target {
                copy_out(py, &self.lent, part, &target)?;
            }
        }
        self.validate()
    }

    /// Buffers and capsules made from the batch and not yet given up.
    #[getter]
    fn exports(&self) -> usize {
        self.lent.exports.load(Ordering::Acquire)
    }

    /// Raises `Evicted` if the daemon has taken the slot back, so that what was read may be torn.
    fn validate(&self) -> PyResult<()> {
        match self.lent.lock().as_ref().ok_or_else(released)? {
            Batch::Ring(batch) => batch.validate().map_err(errors::ring),
            Batch::Embedded(batch) => batch.check_process().map_err(errors::embedded),
        }
    }

    /// Gives the slot back; `BufferError` while a buffer is still in use.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        let batch = {
            let mut guard = self.lent.lock();
            let exports = self.lent.exports.load(Ordering::Acquire);
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
