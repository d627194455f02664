//! Feeds trainers in other processes with decoded, augmented batches through shared memory.
//!
//! ```text
//! Dataset -> Engine (order, workers) -> ring::RingServer ==shared memory==> ring::Consumer -> trainer
//! ```
//!
//! - [`ring`] is the hand-over between processes; a trainer needs nothing else (build with
//!   `default-features = false`).
// A consumer's build has none of what is told here.
#![cfg_attr(
    feature = "daemon",
    doc = r"
- [`EpochOrder`] and [`RunPlan`] say which samples make up which batch: pure functions of the seed.
- [`Engine`] fills batches on worker threads, into a ring or into memory of this process.
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

#[cfg(feature = "daemon")]
mod check;
#[cfg(feature = "daemon")]
#[allow(unsafe_code, reason = "promises of slots to the workers")]
mod daemon;
#[cfg(feature = "daemon")]
mod engine;
#[cfg(feature = "daemon")]
mod error;
#[cfg(feature = "daemon")]
mod order;
#[cfg(feature = "daemon")]
mod plan;
#[cfg(feature = "daemon")]
mod preview;
#[cfg(feature = "daemon")]
mod stream;

#[cfg(feature = "daemon")]
pub use check::{Verdict, check_image, verify};
#[cfg(feature = "daemon")]
pub use daemon::{Daemon, DaemonOptions};
#[cfg(feature = "daemon")]
pub use engine::{
    BatchSink, BatchSlot, Engine, EpochReport, Limit, MemorySink, MemorySlot, Progress, StageTotals,
};
#[cfg(feature = "daemon")]
pub use error::{Error, Result, one_line};
#[cfg(feature = "daemon")]
pub use order::EpochOrder;
#[cfg(feature = "daemon")]
pub use plan::{BatchPart, LastBatch, PlanError, PlanOptions, Position, RunPlan, check_world_size};
#[cfg(feature = "daemon")]
pub use preview::{PreviewOptions, Sheet};
#[cfg(feature = "daemon")]
pub use stream::{Stream, StreamOptions};
