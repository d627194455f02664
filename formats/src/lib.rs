//! What DDAS writes to disk and reads back: policies, search spaces, packed datasets.
//!
//! - [`Operation`] is one augmentation with resolved arguments; a
//!   [`SearchSpace`] is an ordered list of them.
//! - A [`Policy`] gives a search space one [`Snapshot`] of probabilities per
//!   search epoch, and is what `ddas-search` writes and `ddas-loader` replays.
//!
//! No pixels are decoded here, nothing is random, and only packers start threads.
//!
//! ```
//! use ddas_formats::{Policy, SearchSpace, Snapshot};
//!
//! let space = SearchSpace::named("sanity")?;
//! let uniform = vec![1.0 / space.len() as f64; space.len()];
//! let policy = Policy::new(space, vec![Snapshot::new(0.35, uniform)?])?;
//! assert_eq!(Policy::from_json(&policy.to_json())?, policy);
//! # Ok::<(), ddas_formats::Error>(())
//! ```

mod atomic_file;
mod error;
mod operation;
mod operation_json;
mod policy;
mod search_space;

pub use error::{Error, Result};
pub use operation::{Extent, Interpolation, Operation, OperationKind, SignRule, Warp};
pub use operation_json::OperationFields;
pub use policy::{Policy, Provenance, Snapshot};
pub use search_space::SearchSpace;
