//! Memory that is used again: of each thread, and of sums over parts of the work.

use std::sync::{Mutex, PoisonError};

use super::convolve::Sums;

/// One buffer per thread of the pool.
#[derive(Debug)]
pub(super) struct Scratch {
    threads: Vec<Mutex<Vec<f32>>>,
}

impl Scratch {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            threads: (0..threads.max(1)).map(|_| Mutex::default()).collect(),
        }
    }

    /// Calls `work` with `length` values of this thread's own; what they are is not said.
    pub(super) fn with<R>(&self, length: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
        let thread = rayon::current_thread_index().unwrap_or(0) % self.threads.len();
        // A panic elsewhere has spoilt numbers at most, and they are overwritten.
        let mut buffer = self.threads[thread]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if buffer.len() < length {
            buffer.resize(length, 0.0);
        }
        work(&mut buffer[..length])
    }
}

/// Two sums per channel for each part of the work, added in the parts' order at the end: the total
/// does not depend on which thread did which part.
#[derive(Debug, Default)]
pub(super) struct PartialSums {
    values: Vec<f64>,
}

impl PartialSums {
    /// Zeros for `parts` parts, each with the first sums of all channels, then the second ones.
    pub(super) fn start(&mut self, parts: usize, channels: usize) -> &mut [f64] {
        self.values.clear();
        self.values.resize(parts * 2 * channels, 0.0);
        &mut self.values
    }

    pub(super) fn finish(&self, sums: &mut Sums) {
        let channels = sums.first.len();
        sums.first.fill(0.0);
        sums.second.fill(0.0);
        for part in self.values.chunks_exact(2 * channels) {
            let (first, second) = part.split_at(channels);
            for (sum, part) in sums.first.iter_mut().zip(first) {
                *sum += part;
            }
            for (sum, part) in sums.second.iter_mut().zip(second) {
                *sum += part;
            }
        }
    }
}
