//! Once the first batches are made, nothing is allocated per sample.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ddas_loader::{BatchPart, MemoryBatch, MemorySink};
use ddas_tests::{Run, noise_dataset};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: hands everything to the system's allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn steady_state_allocates_a_few_times_a_batch_whatever_its_size() {
    let (_folder, path) = noise_dataset(512);
    let per_batch = |batch_size: u32| {
        let run = Run {
            batch_size,
            epochs: 40,
            ..Run::default()
        };
        let engine = run.engine(&path);
        let counts = Mutex::new(Vec::with_capacity(100_000));
        let received = |_: &BatchPart, _: MemoryBatch<'_>| {
            counts
                .lock()
                .unwrap()
                .push(ALLOCATIONS.load(Ordering::Relaxed));
        };
        let sink = MemorySink::new(
            4,
            batch_size as usize,
            run.pipeline().sample_bytes(),
            received,
        );
        engine
            .run(vec![sink], &AtomicBool::new(false), &|_| ())
            .unwrap();
        let counts = counts.into_inner().unwrap();
        // The first quarter grows buffers; snapshots change twice after it.
        let from = counts.len() / 4;
        (counts[counts.len() - 1] - counts[from]) as f64 / (counts.len() - 1 - from) as f64
    };
    let (small, large) = (per_batch(16), per_batch(128));
    assert!(small < 10.0, "{small} allocations for a batch of 16");
    assert!(large < 10.0, "{large} allocations for a batch of 128");
}
