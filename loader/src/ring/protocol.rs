//! Messages on the daemon's socket: one JSON object each.

use serde::{Deserialize, Serialize};

/// Version of the socket protocol and of the segment layout.
pub const PROTOCOL: u32 = super::layout::MAJOR as u32;

/// Longest message from a client, in bytes.
pub(super) const MAX_REQUEST: usize = 4096;
/// Longest message from a daemon, in bytes.
pub(super) const MAX_REPLY: usize = 128 * 1024;

/// Per-channel normalisation on the 0..1 scale: `value = (v / 255 - mean) / std`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamNormalization {
    /// Mean of red, green, blue.
    pub mean: [f32; 3],
    /// Standard deviation of red, green, blue.
    pub std: [f32; 3],
}

/// A place in a training run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPosition {
    /// Epoch, from 0.
    pub epoch: u32,
    /// Batch of the epoch, from 0.
    pub step: u64,
}

/// What a consumer learns about its stream when it joins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamInfo {
    /// [`PROTOCOL`] of the daemon.
    pub protocol: u32,
    /// Process number of the daemon; [`RingServer::start`](super::RingServer::start) fills it in.
    pub daemon_pid: u32,
    /// The dataset, as named to the daemon; of several, or of a part of one, a description with the numbers of their first
    /// samples.
    pub dataset: String,
    /// Content hash of the dataset, hexadecimal; may be empty. Of several datasets or a part of one, it covers all that decides
    /// which samples come.
    #[serde(default)]
    pub dataset_hash: String,
    /// Samples of the dataset, or of all: indices are below this.
    pub samples: u64,
    /// Number of classes.
    pub classes: u32,
    /// Epochs of the training run.
    pub epochs: u32,
    /// Samples of a full batch of this rank.
    pub batch_size: u32,
    /// Samples of a full batch over all ranks.
    pub global_batch_size: u32,
    /// Batches of an epoch.
    pub steps_per_epoch: u64,
    /// Number of ranks.
    pub world_size: u32,
    /// This ring's rank, `0..world_size`.
    pub rank: u32,
    /// Element type: `u8`, `f32`, `f16` or `bf16`.
    pub dtype: String,
    /// Order of the axes: `nchw` or `nhwc`.
    pub layout: String,
    /// Shape of one sample, in the order of `layout`.
    pub shape: [usize; 3],
    /// Normalisation already applied (floating types) or to be applied (`u8`).
    pub normalization: StreamNormalization,
    /// Name of the recipe.
    pub recipe: String,
    /// Digest of what the recipe does, 16 hexadecimal digits; may be empty.
    #[serde(default)]
    pub recipe_digest: String,
    /// Digest of the policy file, 16 hexadecimal digits; `None` without a policy.
    pub policy_digest: Option<String>,
    /// Seed of the run.
    pub seed: u64,
    /// Slots of the ring.
    pub slots: u32,
    /// Where the stream began.
    pub start: StreamPosition,
    /// What becomes of the last, incomplete batch of an epoch: `pad` or `drop`.
    pub last: String,
    /// Whether batches are mixed (MixUp, CutMix) and carry partners' labels and weights.
    #[serde(default)]
    pub mixes: bool,
}

impl StreamInfo {
    /// Where batch `sequence` (from 1) of a rank stands in the run.
    pub fn position(&self, sequence: u64) -> StreamPosition {
        let steps = self.steps_per_epoch.max(1);
        let first = u64::from(self.start.epoch) * steps + self.start.step;
        let number = first + sequence.saturating_sub(1);
        StreamPosition {
            epoch: u32::try_from(number / steps).unwrap_or(u32::MAX),
            step: number % steps,
        }
    }
}

/// Where a consumer begins that joins a stream under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartFrom {
    /// At the oldest batch that nobody has lost: the stream's first before any slot is used a second time, the first
    /// unread one where all earlier consumers have gone, else the next one published.
    #[default]
    Current,
    /// At the first whole epoch from there on.
    NextEpoch,
}

/// What a client may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Request {
    /// To become a consumer of a rank's ring.
    #[default]
    Join,
    /// To see the daemon's status once.
    Status,
}

/// First message on a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    #[serde(default)]
    pub(super) request: Request,
    #[serde(default)]
    pub(super) rank: u32,
    #[serde(default)]
    pub(super) start: StartFrom,
}

/// The daemon's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Reply {
    /// Three file descriptors come with it: data, acknowledgements, eventfd.
    Joined {
        info: Box<StreamInfo>,
        /// Sequence number of the consumer's first batch.
        first: u64,
    },
    Status(serde_json::Value),
    /// The protocol version of the daemon, when the client's is another.
    Version(u32),
    Refused(String),
}
