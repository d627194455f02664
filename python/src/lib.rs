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
//! | `stream` | `Consumer`, `Lease`: a daemon's batches |
//! | `buffer` | the buffers of a `Lease`; the only unsafe code |

mod arguments;
mod augment;
mod buffer;
mod errors;
mod pixels;
mod policy;
mod stream;

/// The extension module `ddas._ddas`.
#[pyo3::pymodule]
mod _ddas {
    #[pymodule_export]
    use crate::augment::{Augmenter, Operation};
    #[pymodule_export]
    use crate::buffer::LeasedBytes;
    #[pymodule_export]
    use crate::policy::{Policy, Snapshot, search_space};
    #[pymodule_export]
    use crate::stream::{Consumer, Lease, world_size};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
