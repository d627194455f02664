//! Memory that is allocated once and used again, at multiples of 64 bytes so
//! that no vector straddles two lines of the cache.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Numbers at a multiple of 64 bytes.
#[derive(Debug, Default)]
pub(in super::super) struct Aligned {
    lines: Vec<Line>,
    length: usize,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Aligned {
    /// So many zeros.
    #[cfg(test)]
    pub(in super::super) fn zeros(length: usize) -> Aligned {
        let mut zeros = Aligned::default();
        zeros.resize(length);
        zeros
    }

    /// Makes it so long, keeping memory when it shrinks. What is new is 0 or was there before.
    pub(in super::super) fn resize(&mut self, length: usize) {
        let lines = length.div_ceil(16);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0.0; 16]));
        }
        self.length = length;
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the lines are as many numbers side by side, at least `length`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

/// Memory for each thread of the pool.
#[derive(Debug, Default)]
pub(super) struct PerThread(Vec<Mutex<Aligned>>);

impl PerThread {
    /// For the threads of the pool that the caller runs in.
    pub(super) fn prepare(&mut self) {
        let threads = rayon::current_num_threads();
        if self.0.len() < threads {
            self.0.resize_with(threads, Mutex::default);
        }
    }

    /// That of the calling thread, so long.
    pub(super) fn get(&self, length: usize) -> MutexGuard<'_, Aligned> {
        let thread = rayon::current_thread_index().unwrap_or(0);
        // What a thread that panicked left there is as good as anything.
        let mut memory = self.0[thread]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        memory.resize(length);
        memory
    }
}
