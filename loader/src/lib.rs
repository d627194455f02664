//! Feeds trainers in other processes with decoded, augmented batches through shared memory.
//!
//! ```text
//! Dataset -> Engine (order, workers) -> ring::RingServer ==shared memory==> ring::Consumer -> trainer
//! ```
//!
//! - [`ring`] is the hand-over between processes; a trainer needs nothing else (build with
//!   `default-features = false`).
//! - [`Placement`] finds the rank of this process, from arguments or what a launcher left in the environment.
// A consumer's build has none of what is told here.
#![cfg_attr(
    feature = "engine",
    doc = r"
- [`EpochOrder`] and [`RunPlan`] say which samples make up which batch: pure functions of the seed.
- [`Engine`] fills batches on worker threads, into a ring or into memory of this process.
- [`EmbeddedLoader`] is the same stream inside the trainer's own process, without a daemon.
- [`Daemon`] puts these together, as `ddas-loader serve` does.

```
use ddas_loader::{EpochOrder, LastBatch, PlanOptions, Position, RunPlan};

let plan = RunPlan::new(PlanOptions {
    samples: 60_000, batch_size: 128, world_size: 1, epochs: 200, last: LastBatch::Pad, start: Position::default(), seed: 7,
})?;
let batch = plan.part(10, 3, 0);
let first = plan.order(10).at(batch.first);
assert_eq!(first, EpochOrder::new(7, 10, 60_000).at(3 * 128));
# Ok::<(), ddas_loader::PlanError>(())
```
"
)]
#![deny(unsafe_code)]

pub mod ring;

#[cfg(feature = "engine")]
mod check;
#[cfg(feature = "engine")]
#[allow(unsafe_code, reason = "promises of slots to the workers")]
mod daemon;
#[cfg(feature = "engine")]
mod embedded;
#[cfg(feature = "engine")]
mod engine;
#[cfg(feature = "engine")]
mod error;
#[cfg(feature = "engine")]
mod order;
#[cfg(feature = "engine")]
mod plan;
#[cfg(feature = "daemon")]
mod preview;
mod rank_environment;
#[cfg(feature = "engine")]
mod recipe_file;
#[cfg(feature = "engine")]
mod selection;
#[cfg(feature = "daemon")]
mod shrink;
mod slot_memory;
#[cfg(feature = "engine")]
mod sources;
#[cfg(feature = "engine")]
mod stream;

#[cfg(feature = "engine")]
pub use check::{Verdict, check_image, index_image, verify};
#[cfg(feature = "engine")]
pub use daemon::{Daemon, DaemonOptions, Observer};
#[cfg(feature = "engine")]
pub use embedded::{EmbeddedBatch, EmbeddedError, EmbeddedLoader, EmbeddedOptions};
#[cfg(feature = "engine")]
pub use engine::{
    BadBudget, BadSampleEvent, BatchSink, BatchSlot, Engine, EpochReport, Limit, MemoryBatch,
    MemorySink, MemorySlot, MixingRoom, OnBad, Progress, RankStages, StageTotals, Substitutes,
};
#[cfg(feature = "engine")]
pub use error::{Error, Result, one_line};
#[cfg(feature = "engine")]
pub use order::EpochOrder;
#[cfg(feature = "engine")]
pub use plan::{BatchPart, LastBatch, PlanError, PlanOptions, Position, RunPlan, check_world_size};
#[cfg(feature = "daemon")]
pub use preview::{PreviewOptions, Sheet};
pub use rank_environment::{Placement, RankError};
#[cfg(feature = "engine")]
pub use recipe_file::{check_recipe_name, read_recipe};
#[cfg(feature = "engine")]
pub use selection::{EpochSamples, HashSplit, SampleOptions, Sampling, SplitPart};
#[cfg(feature = "daemon")]
pub use shrink::Shrink;
pub use slot_memory::SlotMemory;
#[cfg(feature = "engine")]
pub use sources::{Sources, SourcesReader};
#[cfg(feature = "engine")]
pub use stream::{Stream, StreamOptions};
