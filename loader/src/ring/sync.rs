//! Waiting and waking between processes, and the one unusual memory access.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use rustix::thread::futex;
use rustix::time::Timespec;

/// Loads a word of a segment that this process may have mapped read-only.
///
/// Rust guarantees only relaxed loads on read-only memory, hence the fence:
/// together they are an acquire load. The partner is the daemon's release
/// store of the same word.
pub(super) fn load_acquire(word: &AtomicU64) -> u64 {
    let value = word.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    value
}

/// As [`load_acquire`], for 32-bit words.
pub(super) fn load_acquire_u32(word: &AtomicU32) -> u32 {
    let value = word.load(Ordering::Relaxed);
    fence(Ordering::Acquire);
    value
}

/// Nanoseconds of CLOCK_MONOTONIC, which all processes of a machine read alike; never 0.
pub(super) fn monotonic_nanoseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64).max(1)
}

/// Sleeps while `word` is `seen`, at most `timeout`; may return early.
///
/// The futex is shared between processes and so never private. A process
/// with a read-only map may wait on it.
pub(super) fn wait(word: &AtomicU32, seen: u32, timeout: Duration) {
    let timeout = Timespec {
        tv_sec: timeout.as_secs().min(i32::MAX as u64) as i64,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // Every outcome (woken, changed before, interrupted, timed out) means: look again.
    let _ = futex::wait(word, futex::Flags::empty(), seen, Some(&timeout));
}

/// Wakes everyone who waits on `word`.
pub(super) fn wake(word: &AtomicU32) {
    // The kernel takes the count as a signed number.
    let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
}
