//! Feeds trainers in other processes with decoded, augmented batches through shared memory.

#[cfg(feature = "daemon")]
mod order;
#[cfg(feature = "daemon")]
mod plan;
pub mod ring;

#[cfg(feature = "daemon")]
pub use order::EpochOrder;
#[cfg(feature = "daemon")]
pub use plan::{BatchPart, LastBatch, PlanError, PlanOptions, Position, RunPlan, check_world_size};
