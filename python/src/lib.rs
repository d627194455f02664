//! The extension module behind the Python package `ddas`.
//!
//! A thin binding: policies and operations come from `ddas-formats` and
//! `ddas-runtime`, batches from the ring of `ddas-loader`. What is decided here
//! is only how Python sees them: exceptions by type, buffers without copies,
//! the GIL released while waiting or computing.
//!
//! | module | Python sees |
//! |---|---|
//! | `policy` | `Policy`, `Snapshot`, `search_space` |
//! | `augment` | `Operation`, `Augmenter`: operations and policies on packed pixels |
//! | `stream` | `Consumer`: a daemon's batches |
//! | `loader` | `Embedded`: the same batches made in this process; `placement`: its rank |
//! | `lease` | `Lease`: a batch that this process holds; `Memory`: where batches lie |
//! | `buffer`, `dlpack` | `Array`: its arrays, lent without copies; with `lease` the only unsafe code |

#![deny(unsafe_code)]

mod arguments;
mod augment;
#[expect(unsafe_code, reason = "buffers are C structs with pointers")]
mod buffer;
#[expect(unsafe_code, reason = "tensors are handed over as C structs")]
mod dlpack;
mod errors;
#[expect(unsafe_code, reason = "memory that a lease keeps alive")]
mod lease;
mod loader;
mod pixels;
mod policy;
mod stream;
mod waiting;

/// The extension module `ddas._ddas`.
#[pyo3::pymodule]
mod _ddas {
    #[pymodule_export]
    use crate::augment::{Augmenter, Operation};
    #[pymodule_export]
    use crate::buffer::Array;
    #[pymodule_export]
    use crate::lease::{Lease, Memory};
    #[pymodule_export]
    use crate::loader::{Embedded, placement};
    #[pymodule_export]
    use crate::policy::{Policy, Snapshot, search_space};
    #[pymodule_export]
    use crate::stream::{Consumer, world_size};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
