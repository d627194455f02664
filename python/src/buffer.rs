//! A batch's arrays as the buffer protocol and DLPack lend them, without copying.

use std::ffi::{CStr, c_int, c_void};
use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::dlpack;
use crate::lease::{Export, Lent, Part};

/// The type of an array's values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    U8,
    F32,
    F16,
    Bf16,
    I64,
    U64,
}

impl Element {
    /// The type of a stream's images, by its name.
    pub(crate) fn of_images(dtype: &str) -> Option<Element> {
        Some(match dtype {
            "u8" => Element::U8,
            "f32" => Element::F32,
            "f16" => Element::F16,
            "bf16" => Element::Bf16,
            _ => return None,
        })
    }

    pub(crate) const fn bytes(self) -> usize {
        match self {
            Element::U8 => 1,
            Element::F16 | Element::Bf16 => 2,
            Element::F32 => 4,
            Element::I64 | Element::U64 => 8,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Element::U8 => "u8",
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::Bf16 => "bf16",
            Element::I64 => "i64",
            Element::U64 => "u64",
        }
    }

    /// The code of Python's `struct` module, which has none for bfloat16: its raw bits, then.
    const fn format(self) -> &'static CStr {
        match self {
            Element::U8 => c"B",
            Element::F32 => c"f",
            Element::F16 => c"e",
            Element::Bf16 => c"H",
            Element::I64 => c"q",
            Element::U64 => c"Q",
        }
    }
}

/// The images, labels or indices of a batch, for whoever speaks the buffer protocol or DLPack.
///
/// Every buffer and capsule handed out is counted on the batch, so that the slot is not given back under an array
/// that shows it.
#[pyclass(frozen, module = "ddas")]
pub(crate) struct Array {
    lent: Arc<Lent>,
    part: Part,
    element: Element,
    dimensions: usize,
    /// Lengths of the axes, as the protocols want them; the first `dimensions` count.
    shape: [ffi::Py_ssize_t; 4],
    /// Bytes from one element to the next, axis by axis.
    strides: [ffi::Py_ssize_t; 4],
}

impl Array {
    pub(crate) fn new(lent: Arc<Lent>, part: Part) -> Self {
        let (element, shape) = lent.layout(part);
        let mut array = Self {
            lent,
            part,
            element,
            dimensions: shape.len(),
            shape: [1; 4],
            strides: [0; 4],
        };
        for (place, length) in array.shape.iter_mut().zip(&shape) {
            *place = *length as ffi::Py_ssize_t;
        }
        let mut stride = element.bytes() as ffi::Py_ssize_t;
        for axis in (0..shape.len()).rev() {
            array.strides[axis] = stride;
            stride *= array.shape[axis];
        }
        array
    }

    fn lengths(&self) -> &[ffi::Py_ssize_t] {
        &self.shape[..self.dimensions]
    }

    fn total_bytes(&self) -> usize {
        self.lengths().iter().product::<ffi::Py_ssize_t>() as usize * self.element.bytes()
    }
}

#[pymethods]
impl Array {
    /// Lengths of the axes.
    #[getter]
    fn shape(&self) -> Vec<ffi::Py_ssize_t> {
        self.lengths().to_vec()
    }

    /// "u8", "f32", "f16", "bf16", "i64" or "u64".
    #[getter]
    fn dtype(&self) -> &'static str {
        self.element.name()
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.total_bytes()
    }

    /// Whether the memory must not be written to.
    #[getter]
    fn readonly(&self) -> bool {
        !self.lent.is_writable()
    }

    fn __len__(&self) -> usize {
        self.shape[0] as usize
    }

    fn __repr__(&self) -> String {
        format!(
            "<ddas.Array {} {:?}{}>",
            self.element.name(),
            self.lengths(),
            if self.readonly() { ", read-only" } else { "" }
        )
    }

    /// The DLPack device: (1, 0), the CPU.
    fn __dlpack_device__(&self) -> (i32, i32) {
        dlpack::CPU
    }

    /// A DLPack capsule over the same memory, or over a copy with `copy=True`.
    ///
    /// DLPack can say that memory is read-only since version 1.0: `BufferError` for a consumer that does not ask for it
    /// (`max_version`), where the memory is.
    #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<&Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if stream.is_some() {
            return Err(PyBufferError::new_err(
                "`stream` must be None: the memory is the CPU's",
            ));
        }
        if dl_device.is_some_and(|device| device != dlpack::CPU) {
            return Err(PyBufferError::new_err(
                "`dl_device` must be (1, 0), the CPU: take the array there and move it afterwards",
            ));
        }
        let versioned = max_version.is_some_and(|(major, _)| major >= 1);
        let copy = copy.unwrap_or(false);
        if self.readonly() && !copy && !versioned {
            return Err(PyBufferError::new_err(
                "the array is read-only, which DLPack can say only from version 1.0 on: ask with max_version=(1, 0), \
                 or with copy=True, or use a copy of the NumPy array",
            ));
        }
        let export = Export::new(&self.lent, self.part)?;
        dlpack::capsule(
            py,
            export,
            self.element,
            self.lengths(),
            copy,
            versioned,
            self.readonly(),
        )
    }

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
        if flags & ffi::PyBUF_WRITABLE != 0 && this.readonly() {
            return Err(PyBufferError::new_err(
                "the array is read-only: it shows the daemon's memory; copy it",
            ));
        }
        let bytes = this.lent.export(this.part)?;
        let asked = |flag: c_int| flags & flag == flag;
        // SAFETY: `view` is the interpreter's, to be filled in. The bytes lie in the batch's memory, which `export` keeps
        // lent and mapped until the matching `unexport` in `__releasebuffer__`; shape and strides are fields of `slf`,
        // which is frozen and referenced by the view itself; the format is static. What is marked writable is the
        // batch's own memory (`Lent::is_writable`), the rest is marked read-only.
        unsafe {
            (*view).buf = bytes.start.cast();
            (*view).len = bytes.length as ffi::Py_ssize_t;
            (*view).readonly = c_int::from(this.readonly());
            (*view).itemsize = this.element.bytes() as ffi::Py_ssize_t;
            (*view).format = std::ptr::null_mut();
            if asked(ffi::PyBUF_FORMAT) {
                (*view).format = this.element.format().as_ptr().cast_mut();
            }
            (*view).ndim = 1;
            (*view).shape = std::ptr::null_mut();
            if asked(ffi::PyBUF_ND) {
                (*view).ndim = this.dimensions as c_int;
                (*view).shape = this.shape.as_ptr().cast_mut();
            }
            (*view).strides = std::ptr::null_mut();
            if asked(ffi::PyBUF_STRIDES) {
                (*view).strides = this.strides.as_ptr().cast_mut();
            }
            (*view).suboffsets = std::ptr::null_mut();
            (*view).internal = std::ptr::null_mut::<c_void>();
            (*view).obj = slf.into_ptr();
        }
        Ok(())
    }

    /// # Safety
    /// Called by the interpreter only, once for each view handed out.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.lent.unexport();
    }
}

/// Copies `part` of a batch into `target`, which must have exactly its size, with the GIL released.
pub(crate) fn copy_out(
    py: Python<'_>,
    lent: &Arc<Lent>,
    part: Part,
    target: &PyBuffer<u8>,
) -> PyResult<()> {
    let target = target
        .as_slice_ptr()
        .filter(|_| !target.readonly())
        .ok_or_else(|| PyBufferError::new_err("expected a writable, contiguous buffer"))?;
    let source = Export::new(lent, part)?;
    if source.bytes().length != target.len() {
        return Err(PyValueError::new_err(format!(
            "expected a buffer of {} bytes, got one of {}",
            source.bytes().length,
            target.len()
        )));
    }
    let to = target.cast::<u8>().as_ptr() as usize;
    py.detach(|| {
        let bytes = source.bytes();
        // SAFETY: both ranges are `length` bytes long: the source stays lent until `source` is dropped, and `target` is
        // kept by the caller's PyBuffer, which is writable and contiguous. A caller that passes the batch's own memory
        // as target is why this is `copy` and not `copy_nonoverlapping`. Another thread that uses the target meanwhile
        // sees a part of the copy, as with NumPy's own copies.
        unsafe { std::ptr::copy(bytes.start.cast_const(), to as *mut u8, bytes.length) }
    });
    Ok(())
}
