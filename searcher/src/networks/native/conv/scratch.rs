//! Memory that is allocated once and used again, at multiples of 64 bytes so
//! that no vector straddles two lines of the cache, and in huge pages where
//! there is much of it: a step reads and writes gigabytes, and finding their
//! pages took 4% of its time when these were of 4 KiB.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

/// Numbers at a multiple of 64 bytes.
#[derive(Debug, Default)]
pub(in super::super) struct Aligned {
    memory: Memory,
    length: usize,
}

#[derive(Debug)]
enum Memory {
    Lines(Vec<Line>),
    /// Pages of the system's.
    Pages(MmapMut),
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; NUMBERS]);

/// Numbers of a line.
const NUMBERS: usize = 16;

/// Bytes from which on memory is asked for in huge pages, which are of 2 MiB on
/// most machines.
const MUCH: usize = 4 << 20;

impl Default for Memory {
    fn default() -> Memory {
        Memory::Lines(Vec::new())
    }
}

impl Memory {
    /// So many lines of zeros.
    fn zeros(lines: usize) -> Memory {
        let bytes = lines.saturating_mul(size_of::<Line>());
        // Where there are no such pages to be had, others do.
        let pages = (bytes >= MUCH).then(|| MmapMut::map_anon(bytes).ok());
        match pages.flatten() {
            Some(pages) => {
                #[cfg(target_os = "linux")]
                let _ = pages.advise(memmap2::Advice::HugePage);
                Memory::Pages(pages)
            }
            None => Memory::Lines(vec![Line([0.0; NUMBERS]); lines]),
        }
    }

    fn lines(&self) -> usize {
        match self {
            Memory::Lines(lines) => lines.len(),
            Memory::Pages(pages) => pages.len() / size_of::<Line>(),
        }
    }

    fn start(&self) -> *const f32 {
        match self {
            Memory::Lines(lines) => lines.as_ptr().cast(),
            Memory::Pages(pages) => pages.as_ptr().cast(),
        }
    }
}

impl Aligned {
    /// So many zeros.
    #[cfg(test)]
    pub(in super::super) fn zeros(length: usize) -> Aligned {
        let mut zeros = Aligned::default();
        zeros.resize(length);
        zeros
    }

    /// Makes it so long, keeping memory when it shrinks. What it holds then is
    /// not said: zeros, or what was there before.
    pub(in super::super) fn resize(&mut self, length: usize) {
        let lines = length.div_ceil(NUMBERS);
        if self.memory.lines() < lines {
            // The old memory is given back first: the new need not fit beside it.
            self.memory = Memory::default();
            self.memory = Memory::zeros(lines);
        }
        self.length = length;
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the memory is as many numbers side by side, at least `length`.
        unsafe { std::slice::from_raw_parts(self.memory.start(), self.length) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        let start = match &mut self.memory {
            Memory::Lines(lines) => lines.as_mut_ptr().cast(),
            Memory::Pages(pages) => pages.as_mut_ptr().cast(),
        };
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(start, self.length) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_and_much_memory_is_aligned_zeroed_and_kept() {
        for length in [1, 1000, MUCH / 4 + 5] {
            let mut numbers = Aligned::zeros(length);
            assert!(numbers.as_ptr().addr().is_multiple_of(64));
            assert_eq!(numbers.len(), length);
            assert!(numbers.iter().all(|&number| number == 0.0));
            numbers.fill(2.0);
            let start = numbers.as_ptr();
            numbers.resize(1);
            numbers.resize(length);
            assert_eq!(numbers.as_ptr(), start);
            assert!(numbers.iter().all(|&number| number == 2.0));
        }
        let mut grown = Aligned::zeros(3);
        grown.resize(MUCH);
        assert_eq!(grown.iter().sum::<f32>(), 0.0);
        assert!(matches!(grown.memory, Memory::Pages(_)));
    }
}
