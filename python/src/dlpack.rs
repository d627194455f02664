//! DLPack capsules: the structures of dlpack.h (version 1.0), filled in for memory of the CPU.

use std::ffi::{CStr, c_void};
use std::ptr;

use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::buffer::Element;
use crate::lease::Export;

/// kDLCPU, and its only device.
pub(crate) const CPU: (i32, i32) = (1, 0);

const FLAG_READ_ONLY: u64 = 1;
const FLAG_IS_COPIED: u64 = 2;

const NAME: &CStr = c"dltensor";
const NAME_VERSIONED: &CStr = c"dltensor_versioned";

#[repr(C)]
struct DlDataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    dtype: DlDataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// DLManagedTensor: what consumers before version 1.0 take.
#[repr(C)]
struct Managed {
    tensor: DlTensor,
    manager: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

/// DLManagedTensorVersioned.
#[repr(C)]
struct Versioned {
    major: u32,
    minor: u32,
    manager: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: DlTensor,
}

/// What a capsule keeps alive. None of it is Python's, so a consumer may let go of it on any thread.
struct Holder {
    shape: [i64; 4],
    strides: [i64; 4],
    #[expect(dead_code, reason = "held for its drop")]
    memory: Memory,
}

enum Memory {
    #[expect(dead_code, reason = "held for its drop")]
    Lent(Export),
    #[expect(dead_code, reason = "held for its drop")]
    Copied(Vec<Line>),
}

/// DLPack asks for alignment to 64 bytes.
#[derive(Clone)]
#[repr(C, align(64))]
struct Line([u8; 64]);

fn data_type(element: Element) -> DlDataType {
    let code = match element {
        Element::I64 => 0,
        Element::U8 | Element::U64 => 1,
        Element::F32 | Element::F16 => 2,
        Element::Bf16 => 4,
    };
    DlDataType {
        code,
        bits: 8 * element.bytes() as u8,
        lanes: 1,
    }
}

/// A capsule over `export`, or over a copy of it.
pub(crate) fn capsule<'py>(
    py: Python<'py>,
    export: Export,
    element: Element,
    lengths: &[isize],
    copy: bool,
    versioned: bool,
    readonly: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let bytes = export.bytes();
    let (data, memory) = if copy {
        let mut lines = vec![Line([0; 64]); bytes.length.div_ceil(64)];
        // SAFETY: `lines` has at least `length` bytes and is new; the source stays lent until `export` is dropped.
        unsafe { ptr::copy_nonoverlapping(bytes.start, lines.as_mut_ptr().cast(), bytes.length) };
        (lines.as_mut_ptr().cast(), Memory::Copied(lines))
    } else {
        (bytes.start, Memory::Lent(export))
    };
    let mut holder = Box::new(Holder {
        shape: [1; 4],
        strides: [1; 4],
        memory,
    });
    let mut stride = 1;
    for axis in (0..lengths.len()).rev() {
        holder.shape[axis] = lengths[axis] as i64;
        holder.strides[axis] = stride;
        stride *= holder.shape[axis];
    }
    let holder = Box::into_raw(holder);
    // SAFETY: just made, and not shared yet.
    let (shape, strides) = unsafe { (&raw mut (*holder).shape, &raw mut (*holder).strides) };
    let tensor = DlTensor {
        data: data.cast(),
        device_type: CPU.0,
        device_id: CPU.1,
        ndim: lengths.len() as i32,
        dtype: data_type(element),
        shape: shape.cast(),
        strides: strides.cast(),
        byte_offset: 0,
    };
    let (pointer, name, destructor): (*mut c_void, &CStr, ffi::PyCapsule_Destructor) = if versioned
    {
        let mut flags = 0;
        if copy {
            flags |= FLAG_IS_COPIED;
        } else if readonly {
            flags |= FLAG_READ_ONLY;
        }
        let managed = Box::new(Versioned {
            major: 1,
            minor: 0,
            manager: holder.cast(),
            deleter: Some(delete_versioned),
            flags,
            tensor,
        });
        (
            Box::into_raw(managed).cast(),
            NAME_VERSIONED,
            destroy_versioned,
        )
    } else {
        let managed = Box::new(Managed {
            tensor,
            manager: holder.cast(),
            deleter: Some(delete),
        });
        (Box::into_raw(managed).cast(), NAME, destroy)
    };
    // SAFETY: `pointer` is not null, the name is static, the destructor fits the name.
    let capsule = unsafe { ffi::PyCapsule_New(pointer, name.as_ptr(), Some(destructor)) };
    if capsule.is_null() {
        // SAFETY: no capsule has it, so it is ours to free, by the deleter of its kind.
        unsafe {
            if versioned {
                delete_versioned(pointer.cast());
            } else {
                delete(pointer.cast());
            }
        }
        return Err(PyErr::take(py).unwrap_or_else(|| PyMemoryError::new_err("no capsule")));
    }
    // SAFETY: a new reference to a capsule.
    Ok(unsafe { Bound::from_owned_ptr(py, capsule) })
}

/// The deleter that the consumer of a capsule calls, once.
///
/// # Safety
/// `managed` is what `capsule` made, and is not used afterwards.
unsafe extern "C" fn delete(managed: *mut Managed) {
    if managed.is_null() {
        return;
    }
    // SAFETY: both were made by `Box::into_raw` in `capsule` and are freed here alone.
    unsafe {
        let managed = Box::from_raw(managed);
        drop(Box::from_raw(managed.manager.cast::<Holder>()));
    }
}

/// As [`delete`].
///
/// # Safety
/// As [`delete`].
unsafe extern "C" fn delete_versioned(managed: *mut Versioned) {
    if managed.is_null() {
        return;
    }
    // SAFETY: as in `delete`.
    unsafe {
        let managed = Box::from_raw(managed);
        drop(Box::from_raw(managed.manager.cast::<Holder>()));
    }
}

/// Frees what a capsule holds if nobody has taken it: a consumer renames the capsule.
///
/// # Safety
/// Called by the interpreter with a capsule that `capsule` made.
unsafe extern "C" fn destroy(capsule: *mut ffi::PyObject) {
    // SAFETY: the name tells that the pointer is still ours.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, NAME.as_ptr()) == 1 {
            delete(ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()).cast());
        }
    }
}

/// As [`destroy`].
///
/// # Safety
/// As [`destroy`].
unsafe extern "C" fn destroy_versioned(capsule: *mut ffi::PyObject) {
    // SAFETY: as in `destroy`.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, NAME_VERSIONED.as_ptr()) == 1 {
            delete_versioned(ffi::PyCapsule_GetPointer(capsule, NAME_VERSIONED.as_ptr()).cast());
        }
    }
}
