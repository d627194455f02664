//! What DDAS writes to disk and reads back: policies, search spaces, packed datasets.
//!
//! - [`Operation`] is one augmentation with resolved arguments; a
//!   [`SearchSpace`] is an ordered list of them.
//! - A [`Policy`] gives a search space one [`Snapshot`] of probabilities per
//!   search epoch, and is what `ddas-search` writes and `ddas-loader` replays.
//! - A [`Dataset`] is a folder with an LMDB file and a [`Manifest`]; a
//!   [`DatasetWriter`] writes one, a [`DatasetReader`] reads its [`Sample`]s.
//! - [`pack_image_folder`], [`pack_webdataset`] and [`pack_cifar`] make datasets
//!   of images as they are found; [`import_authors_policy`] reads the authors' policy files.
//!
//! [`mod@format`] specifies what is written, byte for byte.
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

#![deny(unsafe_code)]

#[doc = include_str!("../FORMAT.md")]
pub mod format {}

mod atomic_file;
mod builtin;
mod dataset;
mod entry;
mod error;
mod export;
mod image_header;
mod import_npy;
mod operation;
mod operation_arguments;
mod operation_json;
mod pack;
mod pickle;
#[cfg(feature = "plot")]
mod plot;
mod policy;
mod search_space;
mod small_file;

pub use builtin::{Builtin, BuiltinOptions};
pub use dataset::{
    DamagedSample, Dataset, DatasetReader, DatasetWriter, Located, Manifest, Packed, Sample,
    VerifyReport, verify,
};
pub use entry::{Argument, Candidate, Distribution, Entry, Round, Step, Steps, Variation};
pub use error::{Error, Result};
pub use export::{ExportNote, ExportTarget, Exported, Fidelity};
pub use image_header::{
    Encoding, ImageHeader, MAX_PAYLOAD_BYTES, MAX_PIXELS, MAX_SIDE, read_image_header,
};
pub use import_npy::import_authors_policy;
pub use operation::{Operation, OperationKind};
pub use operation_arguments::{
    CutoutShape, Extent, Interpolation, Rounding, SignRule, SolarizeScope, Warp,
};
pub use operation_json::OperationFields;
pub use pack::{
    Apply, BadFile, Check, MakeIndex, PackOptions, PackProgress, PackSummary, ShardLabels, Split,
    Transform, expand_shards, pack_cifar, pack_image_folder, pack_webdataset, read_class_names,
};
#[cfg(feature = "plot")]
pub use plot::{policy_png, policy_svg};
pub use policy::{Applications, Policy, Provenance, Snapshot};
pub use search_space::SearchSpace;
pub use small_file::read_small_file;
