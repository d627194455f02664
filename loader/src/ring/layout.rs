//! Byte layout of the shared segments; `docs/shared-memory.md` is its specification.
//!
//! Everything here is arithmetic on byte arrays. All numbers are little-endian.

use super::error::{Error, Result};
use super::protocol::StreamInfo;

pub(super) const MAGIC: [u8; 8] = *b"DDASRING";
/// A consumer refuses another major version; a minor version only adds fields.
pub(super) const MAJOR: u16 = 2;
pub(super) const MINOR: u16 = 0;

/// Bytes before the slot table.
pub(super) const HEADER_BYTES: usize = 2048;
/// Constant part of the header, protected by the checksum in its last four bytes.
pub(super) const FIXED_BYTES: usize = 128;
/// Sequence number of the newest published batch; 0 before the first.
pub(super) const HEAD: usize = 128;
/// Futex word, changed at each publish and state change.
pub(super) const WAKE: usize = 256;
/// One of the `STATE_` values.
pub(super) const STATE: usize = 384;
/// Length of the failure message in bytes.
pub(super) const MESSAGE_BYTES: usize = 388;
/// Failure message, UTF-8.
pub(super) const MESSAGE: usize = 512;
pub(super) const MESSAGE_CAPACITY: usize = HEADER_BYTES - MESSAGE;

pub(super) const STATE_RUNNING: u32 = 0;
pub(super) const STATE_FINISHED: u32 = 1;
pub(super) const STATE_FAILED: u32 = 2;

/// Bytes of one entry of the slot table.
pub(super) const SLOT_ENTRY_BYTES: usize = 128;
/// Alignment of each slot's payload in the segment.
pub(super) const SLOT_ALIGN: usize = 4096;
/// Alignment of each array in a slot.
pub(super) const ARRAY_ALIGN: usize = 64;
pub(super) const MAX_SLOTS: usize = 1024;

/// Acknowledgement segment: changed by the daemon when it evicts the consumer.
pub(super) const ACK_GENERATION: usize = 0;
/// Acknowledgement segment: first batch of this consumer.
pub(super) const ACK_FIRST: usize = 8;
/// Acknowledgement segment: newest batch this consumer has received, for the daemon to tell one that has seen
/// everything from one that has crashed; 0 from a consumer that does not say.
pub(super) const ACK_TAKEN: usize = 16;
/// Acknowledgement segment: nanoseconds this consumer has waited for batches, finished waits only. This word and the next
/// two are figures for people; 0 from a consumer that does not say.
pub(super) const ACK_WAITED: usize = 24;
/// Acknowledgement segment: since when it waits for a batch, by CLOCK_MONOTONIC in nanoseconds; 0 while it does not.
pub(super) const ACK_WAITING_SINCE: usize = 32;
/// Acknowledgement segment: when it received its newest batch, by CLOCK_MONOTONIC in nanoseconds.
pub(super) const ACK_TAKEN_AT: usize = 40;
/// Acknowledgement segment: one word per slot from here.
pub(super) const ACK_WORDS: usize = 64;

pub(super) const FLAG_LAST_OF_EPOCH: u32 = 1;
pub(super) const NO_SNAPSHOT: u32 = u32::MAX;

const fn align_up(value: usize, to: usize) -> usize {
    value.next_multiple_of(to)
}

/// How large a ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingShape {
    /// Batches that can be in flight, `2..=1024`.
    pub slots: usize,
    /// Samples of a full batch of one rank, at least 1.
    pub batch_size: usize,
    /// Bytes of one sample's image array, at least 1.
    pub sample_bytes: usize,
    /// Whether batches carry partners' labels and weights.
    pub mixes: bool,
}

impl RingShape {
    /// Bytes of shared memory one rank's ring takes.
    ///
    /// # Errors
    /// [`Error::BadShape`] when a number is out of range.
    pub fn segment_bytes(&self) -> Result<usize> {
        Ok(Geometry::new(*self)?.segment_bytes)
    }
}

/// Where everything lies, derived from a [`RingShape`]; all arithmetic checked once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) shape: RingShape,
    pub(super) labels: usize,
    pub(super) indices: usize,
    /// Labels of the partners and weights, in rings of mixed batches; else 0.
    pub(super) mixed_labels: usize,
    pub(super) weights: usize,
    pub(super) slot_bytes: usize,
    pub(super) payload: usize,
    pub(super) segment_bytes: usize,
}

impl Geometry {
    pub(super) fn new(shape: RingShape) -> Result<Self> {
        let bad = |reason: String| Error::BadShape { reason };
        if !(2..=MAX_SLOTS).contains(&shape.slots) {
            return Err(bad(format!(
                "slots = {}, expected 2..={MAX_SLOTS}",
                shape.slots
            )));
        }
        // 2^24 samples and 2^40 bytes a slot keep every sum below far from overflow.
        if !(1..=1 << 24).contains(&shape.batch_size) {
            return Err(bad(format!(
                "batch_size = {}, expected 1..={}",
                shape.batch_size,
                1 << 24
            )));
        }
        let images = shape
            .batch_size
            .checked_mul(shape.sample_bytes)
            .filter(|bytes| (1..=1 << 40).contains(bytes));
        let Some(images) = images else {
            return Err(bad(format!(
                "a batch of {} samples of {} bytes, expected 1 byte to 1 TiB",
                shape.batch_size, shape.sample_bytes
            )));
        };
        let labels = align_up(images, ARRAY_ALIGN);
        let indices = align_up(labels + 8 * shape.batch_size, ARRAY_ALIGN);
        let end = indices + 8 * shape.batch_size;
        let (mixed_labels, weights, end) = if shape.mixes {
            let mixed_labels = align_up(end, ARRAY_ALIGN);
            let weights = align_up(mixed_labels + 8 * shape.batch_size, ARRAY_ALIGN);
            (mixed_labels, weights, weights + 4 * shape.batch_size)
        } else {
            (0, 0, end)
        };
        let slot_bytes = align_up(end, SLOT_ALIGN);
        let payload = align_up(HEADER_BYTES + shape.slots * SLOT_ENTRY_BYTES, SLOT_ALIGN);
        let segment_bytes = payload + shape.slots * slot_bytes;
        Ok(Self {
            shape,
            labels,
            indices,
            mixed_labels,
            weights,
            slot_bytes,
            payload,
            segment_bytes,
        })
    }

    /// Slot of a batch; sequence numbers count from 1.
    pub(super) fn slot_of(&self, sequence: u64) -> usize {
        ((sequence.max(1) - 1) % self.shape.slots as u64) as usize
    }

    pub(super) fn entry(&self, slot: usize) -> usize {
        HEADER_BYTES + slot * SLOT_ENTRY_BYTES
    }

    pub(super) fn slot(&self, slot: usize) -> usize {
        self.payload + slot * self.slot_bytes
    }

    /// Bytes of one consumer's acknowledgement segment.
    pub(super) fn ack_bytes(slots: usize) -> usize {
        align_up(ACK_WORDS + 8 * slots, 4096)
    }
}

/// Numbers of the `dtype` field.
const DTYPES: [(&str, u8, usize); 4] = [("u8", 1, 1), ("f32", 2, 4), ("f16", 3, 2), ("bf16", 4, 2)];
/// Numbers of the `layout` field.
const LAYOUTS: [(&str, u8); 2] = [("nchw", 1), ("nhwc", 2)];

/// The constant first 128 bytes of a data segment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) generation: u64,
    pub(super) slots: u32,
    pub(super) slot_bytes: u64,
    pub(super) start_time: u64,
    pub(super) dataset_hash: u64,
    pub(super) policy_digest: u64,
    pub(super) mean: [f32; 3],
    pub(super) std: [f32; 3],
    pub(super) batch_size: u32,
    pub(super) dtype: u8,
    pub(super) layout: u8,
    pub(super) has_policy: u8,
    pub(super) mixes: u8,
    pub(super) shape: [u32; 3],
    pub(super) rank: u32,
    pub(super) world_size: u32,
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

fn hex64(text: &str) -> u64 {
    let head: String = text.chars().take(16).collect();
    u64::from_str_radix(&head, 16).unwrap_or(0)
}

impl Header {
    pub(super) fn new(
        info: &StreamInfo,
        geometry: &Geometry,
        generation: u64,
        start_time: u64,
    ) -> Result<Self> {
        let dtype = DTYPES.iter().find(|(name, ..)| *name == info.dtype);
        let layout = LAYOUTS.iter().find(|(name, _)| *name == info.layout);
        let (Some(&(_, dtype, bytes)), Some(&(_, layout))) = (dtype, layout) else {
            return Err(Error::BadShape {
                reason: format!("dtype `{}` or layout `{}` unknown", info.dtype, info.layout),
            });
        };
        let elements = info
            .shape
            .iter()
            .try_fold(1_usize, |product, &side| product.checked_mul(side));
        let sample_bytes = elements.and_then(|elements| elements.checked_mul(bytes));
        if sample_bytes != Some(geometry.shape.sample_bytes) {
            return Err(Error::BadShape {
                reason: format!(
                    "sample_bytes = {}, but shape {:?} of {} takes {sample_bytes:?}",
                    geometry.shape.sample_bytes, info.shape, info.dtype
                ),
            });
        }
        if info.batch_size as usize != geometry.shape.batch_size {
            return Err(Error::BadShape {
                reason: format!(
                    "stream of rank {} has batch_size {}, the ring {}",
                    info.rank, info.batch_size, geometry.shape.batch_size
                ),
            });
        }
        if info.mixes != geometry.shape.mixes {
            return Err(Error::BadShape {
                reason: format!(
                    "mixes is {} in the stream of rank {}, {} in its ring",
                    info.mixes, info.rank, geometry.shape.mixes
                ),
            });
        }
        Ok(Self {
            generation,
            slots: geometry.shape.slots as u32,
            slot_bytes: geometry.slot_bytes as u64,
            start_time,
            dataset_hash: hex64(&info.dataset_hash),
            policy_digest: info.policy_digest.as_deref().map_or(0, hex64),
            mean: info.normalization.mean,
            std: info.normalization.std,
            batch_size: info.batch_size,
            dtype,
            layout,
            has_policy: info.policy_digest.is_some().into(),
            mixes: info.mixes.into(),
            // Each side divides sample_bytes, which is at most 2^40; sides above 2^32 are refused with it.
            shape: info
                .shape
                .map(|side| u32::try_from(side).unwrap_or(u32::MAX)),
            rank: info.rank,
            world_size: info.world_size,
        })
    }

    pub(super) fn encode(&self) -> [u8; FIXED_BYTES] {
        let mut bytes = [0; FIXED_BYTES];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, MAJOR.to_le_bytes());
        put(&mut bytes, 10, MINOR.to_le_bytes());
        put(&mut bytes, 12, (HEADER_BYTES as u32).to_le_bytes());
        put(&mut bytes, 16, self.generation.to_le_bytes());
        put(&mut bytes, 24, self.slots.to_le_bytes());
        put(&mut bytes, 28, (SLOT_ALIGN as u32).to_le_bytes());
        put(&mut bytes, 32, self.slot_bytes.to_le_bytes());
        put(&mut bytes, 40, self.start_time.to_le_bytes());
        put(&mut bytes, 48, self.dataset_hash.to_le_bytes());
        put(&mut bytes, 56, self.policy_digest.to_le_bytes());
        for channel in 0..3 {
            put(
                &mut bytes,
                64 + 4 * channel,
                self.mean[channel].to_le_bytes(),
            );
            put(
                &mut bytes,
                76 + 4 * channel,
                self.std[channel].to_le_bytes(),
            );
            put(
                &mut bytes,
                96 + 4 * channel,
                self.shape[channel].to_le_bytes(),
            );
        }
        put(&mut bytes, 88, self.batch_size.to_le_bytes());
        put(
            &mut bytes,
            92,
            [self.dtype, self.layout, self.has_policy, self.mixes],
        );
        put(&mut bytes, 108, self.rank.to_le_bytes());
        put(&mut bytes, 112, self.world_size.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..124]);
        put(&mut bytes, 124, sum.to_le_bytes());
        bytes
    }

    /// Checks everything: after this the numbers can be used for addressing a
    /// segment of `segment_bytes`.
    pub(super) fn decode(
        bytes: &[u8; FIXED_BYTES],
        segment_bytes: usize,
    ) -> Result<(Self, Geometry)> {
        let wrong = |reason: String| Error::malformed("segment header", reason);
        if bytes[..8] != MAGIC {
            return Err(wrong(format!(
                "begins with {:02x?}, expected \"DDASRING\"",
                &bytes[..8]
            )));
        }
        let major = u16::from_le_bytes(get(bytes, 8));
        if major != MAJOR {
            return Err(Error::VersionMismatch {
                daemon: major.into(),
                consumer: MAJOR.into(),
            });
        }
        let sum = u32::from_le_bytes(get(bytes, 124));
        if sum != crc32c::crc32c(&bytes[..124]) {
            return Err(wrong(format!("checksum {sum:#010x} does not match")));
        }
        let word = |at: usize| u32::from_le_bytes(get(bytes, at));
        let long = |at: usize| u64::from_le_bytes(get(bytes, at));
        let header = Self {
            generation: long(16),
            slots: word(24),
            slot_bytes: long(32),
            start_time: long(40),
            dataset_hash: long(48),
            policy_digest: long(56),
            mean: [64, 68, 72].map(|at| f32::from_le_bytes(get(bytes, at))),
            std: [76, 80, 84].map(|at| f32::from_le_bytes(get(bytes, at))),
            batch_size: word(88),
            dtype: bytes[92],
            layout: bytes[93],
            has_policy: bytes[94],
            mixes: bytes[95],
            shape: [96, 100, 104].map(word),
            rank: word(108),
            world_size: word(112),
        };
        let element = DTYPES.iter().find(|(_, code, _)| *code == header.dtype);
        let Some(&(.., element_bytes)) = element else {
            return Err(wrong(format!("dtype {}, expected 1..=4", header.dtype)));
        };
        if header.mixes > 1 {
            return Err(wrong(format!("mixes is {}, expected 0 or 1", header.mixes)));
        }
        let sample_bytes = header
            .shape
            .iter()
            .try_fold(element_bytes, |product, &side| {
                product.checked_mul(side as usize)
            });
        let geometry = Geometry::new(RingShape {
            slots: header.slots as usize,
            batch_size: header.batch_size as usize,
            sample_bytes: sample_bytes
                .ok_or_else(|| wrong(format!("shape {:?} overflows", header.shape)))?,
            mixes: header.mixes == 1,
        })
        .map_err(|error| wrong(error.to_string()))?;
        if geometry.slot_bytes as u64 != header.slot_bytes
            || geometry.segment_bytes != segment_bytes
        {
            return Err(wrong(format!(
                "{} slots of {} bytes in a segment of {segment_bytes} bytes, expected slots of {} and a segment of {}",
                header.slots, header.slot_bytes, geometry.slot_bytes, geometry.segment_bytes
            )));
        }
        Ok((header, geometry))
    }
}

/// What a batch is, beside its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMeta {
    /// Training epoch, from 0.
    pub epoch: u32,
    /// Batch of the epoch, from 0.
    pub step: u64,
    /// Valid samples, at most the ring's batch size.
    pub samples: usize,
    /// Number of the policy snapshot used; `None` without a policy.
    pub snapshot: Option<u32>,
    /// Whether the epoch ends with this batch.
    pub last_of_epoch: bool,
}

/// Bytes 8..128 of a slot table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) sequence: u64,
    pub(super) meta: BatchMeta,
}

pub(super) const DESCRIPTOR_BYTES: usize = SLOT_ENTRY_BYTES - 8;

impl Descriptor {
    pub(super) fn encode(&self, geometry: &Geometry, header: &Header) -> [u8; DESCRIPTOR_BYTES] {
        let meta = &self.meta;
        let start = geometry.slot(geometry.slot_of(self.sequence));
        let mut bytes = [0; DESCRIPTOR_BYTES];
        put(&mut bytes, 0, self.sequence.to_le_bytes());
        put(&mut bytes, 8, meta.step.to_le_bytes());
        put(&mut bytes, 16, meta.epoch.to_le_bytes());
        put(&mut bytes, 20, (meta.samples as u32).to_le_bytes());
        put(
            &mut bytes,
            24,
            meta.snapshot.unwrap_or(NO_SNAPSHOT).to_le_bytes(),
        );
        let flags = if meta.last_of_epoch {
            FLAG_LAST_OF_EPOCH
        } else {
            0
        };
        put(&mut bytes, 28, flags.to_le_bytes());
        put(&mut bytes, 32, (start as u64).to_le_bytes());
        put(
            &mut bytes,
            40,
            ((meta.samples * geometry.shape.sample_bytes) as u64).to_le_bytes(),
        );
        put(
            &mut bytes,
            48,
            ((start + geometry.labels) as u64).to_le_bytes(),
        );
        put(
            &mut bytes,
            56,
            ((start + geometry.indices) as u64).to_le_bytes(),
        );
        put(&mut bytes, 64, (meta.samples as u32).to_le_bytes());
        for axis in 0..3 {
            put(&mut bytes, 68 + 4 * axis, header.shape[axis].to_le_bytes());
        }
        put(&mut bytes, 80, [header.dtype, header.layout, 4, 0]);
        if geometry.shape.mixes {
            for (at, array) in [(88, geometry.mixed_labels), (96, geometry.weights)] {
                put(&mut bytes, at, ((start + array) as u64).to_le_bytes());
            }
        }
        let sum = crc32c::crc32c(&bytes[..116]);
        put(&mut bytes, 116, sum.to_le_bytes());
        bytes
    }

    /// Reads the descriptor of batch `sequence`, refusing one that points
    /// anywhere but into that batch's slot.
    pub(super) fn decode(
        bytes: &[u8; DESCRIPTOR_BYTES],
        sequence: u64,
        geometry: &Geometry,
        header: &Header,
    ) -> Result<Self> {
        let word = |at: usize| u32::from_le_bytes(get(bytes, at));
        let flags = word(28);
        let snapshot = word(24);
        let descriptor = Self {
            sequence: u64::from_le_bytes(get(bytes, 0)),
            meta: BatchMeta {
                epoch: word(16),
                step: u64::from_le_bytes(get(bytes, 8)),
                samples: word(20) as usize,
                snapshot: (snapshot != NO_SNAPSHOT).then_some(snapshot),
                last_of_epoch: flags & FLAG_LAST_OF_EPOCH != 0,
            },
        };
        let expected =
            descriptor.sequence == sequence && descriptor.meta.samples <= geometry.shape.batch_size;
        // Offsets are redundant for this reader: it accepts only the ones it would compute itself.
        if !expected || descriptor.encode(geometry, header) != *bytes {
            return Err(Error::malformed(
                "batch descriptor",
                format!(
                    "of batch {sequence}: found {descriptor:?}, or its offsets or checksum do not match"
                ),
            ));
        }
        Ok(descriptor)
    }
}

#[cfg(test)]
mod tests;
