//! A lease's bytes as a Python buffer: what NumPy's arrays are made over.

use std::ffi::c_int;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::stream::{Lease, Part};

/// The images, labels or indices of a batch, as a read-only buffer.
///
/// Every buffer handed out is counted on the lease, so that the slot is not
/// given back under an array that shows it.
#[pyclass(frozen, module = "ddas._ddas")]
pub(crate) struct LeasedBytes {
    lease: Py<Lease>,
    part: Part,
}

impl LeasedBytes {
    pub(crate) fn new(lease: Py<Lease>, part: Part) -> Self {
        Self { lease, part }
    }
}

#[pymethods]
impl LeasedBytes {
    /// # Safety
    /// Called by the interpreter only, with a `view` it will later release.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("the view is null"));
        }
        let this = slf.get();
        let lease = this.lease.bind(slf.py()).get();
        let bytes = lease.export(this.part)?;
        // SAFETY: `bytes` lies in the batch's mapping, which `export` keeps leased and mapped until
        // the matching `unexport` in `__releasebuffer__`. The view takes its own reference to `slf`,
        // is marked read-only (the fourth argument from the end, 1), and the consumer's mapping is
        // read-only too; PyBuffer_FillInfo refuses a request for a writable view.
        let status = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                bytes.cast_mut().cast(),
                bytes.len() as ffi::Py_ssize_t,
                1,
                flags,
            )
        };
        if status != 0 {
            lease.unexport();
            return Err(PyErr::fetch(slf.py()));
        }
        Ok(())
    }

    /// # Safety
    /// Called by the interpreter only, once for each view handed out.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.lease.get().unexport();
    }
}

/// Copies `part` of a batch into `target`, which must have exactly its size, with the GIL released.
pub(crate) fn copy_out(
    py: Python<'_>,
    lease: &Lease,
    part: Part,
    target: &PyBuffer<u8>,
) -> PyResult<()> {
    let target = target
        .as_slice_ptr()
        .filter(|_| !target.readonly())
        .ok_or_else(|| PyBufferError::new_err("expected a writable, contiguous buffer"))?;
    let source = lease.export(part)?;
    let _exported = Exported(lease);
    if source.len() != target.len() {
        return Err(PyValueError::new_err(format!(
            "expected a buffer of {} bytes, got one of {}",
            source.len(),
            target.len()
        )));
    }
    let (from, to, bytes) = (
        source.cast::<u8>() as usize,
        target.cast::<u8>().as_ptr() as usize,
        source.len(),
    );
    py.detach(|| {
        // SAFETY: both ranges are `bytes` long: `source` stays leased until `_exported` is dropped,
        // and `target` is kept by the caller's PyBuffer, which is writable and contiguous. They do
        // not overlap, for the batch's mapping is read-only. Another thread that uses the target
        // meanwhile sees a part of the copy, as with NumPy's own copies.
        unsafe {
            std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes);
        }
    });
    Ok(())
}

/// Ends an export when dropped, on every way out.
struct Exported<'a>(&'a Lease);

impl Drop for Exported<'_> {
    fn drop(&mut self) {
        self.0.unexport();
    }
}
