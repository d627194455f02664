//! The shared-memory ring between a daemon and trainers in other processes.
//!
//! A daemon owns a [`RingServer`] and fills slots through a [`RingWriter`] per
//! rank; a trainer joins with [`Consumer::connect`] and receives [`ReadBatch`]es,
//! which are views of the shared memory and release their slot when dropped.
//!
//! ```text
//! daemon                               trainer
//! RingWriter::acquire -> WriteSlot     Consumer::receive -> ReadBatch
//!        ^     fill, publish --------------^      | drop
//!        `----------------------------------------'
//! ```
//!
//! Every consumer of a rank sees every batch; a slot is written again when all
//! living consumers have released it. Each consumer's releases are words that
//! only it writes, so a consumer that dies is simply no longer asked. Nothing
//! but a socket and a lock file has a name, so nothing is left in `/dev/shm`
//! after any crash. `docs/shared-memory.md` specifies the bytes.

pub(crate) mod budget;
#[allow(unsafe_code, reason = "shared memory")]
mod consumer;
mod control;
mod error;
pub(crate) mod figures;
mod greeting;
mod layout;
mod ledger;
mod names;
#[allow(unsafe_code, reason = "shared memory")]
mod producer;
mod protocol;
#[allow(unsafe_code, reason = "shared memory")]
mod segment;
mod server;
#[allow(unsafe_code, reason = "descriptors from the kernel")]
mod socket;
mod status;
mod sync;

pub use consumer::{ConnectOptions, Consumer, ReadBatch};
pub use error::{Error, Result};
pub use figures::{Durations, Rates};
pub use greeting::query_status;
pub use layout::{BatchMeta, RingShape};
pub use names::{check_daemon_name, running_daemons, runtime_dir};
pub use producer::{RingWriter, WriteSlot};
pub use protocol::{PROTOCOL, StartFrom, StreamInfo, StreamNormalization, StreamPosition};
pub use server::{RingServer, ServerOptions, StatusHandle};
pub use status::{
    ConsumerChange, ConsumerEvent, ConsumerStatus, MemoryStatus, RankStatus, ServerStatus,
};

/// Most consumers one rank's ring admits at a time.
pub const MAX_CONSUMERS: usize = 64;
