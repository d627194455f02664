//! Nothing is allocated per image once the scratch memory has grown.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ddas_formats::{Extent, Interpolation, Operation, SearchSpace, SignRule, Warp};
use ddas_runtime::{Image, Kernels, PassOrder, Rect, ResizeFilter, Resizer};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: hands every request to the system's allocator unchanged; counting
// touches only a thread-local number without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract of `dealloc`, and every
        // pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn kernels_and_resizer_reuse_their_memory() {
    let sign = SignRule::Fixed;
    let mut operations: Vec<Operation> = ["paper68", "sanity"]
        .iter()
        .flat_map(|name| SearchSpace::named(name).unwrap().operations().to_vec())
        .collect();
    for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
        let fill = [125, 122, 113];
        let warp = Warp {
            fill,
            interpolation,
        };
        operations.push(Operation::Rotate {
            degrees: 33.3,
            sign,
            warp,
        });
        operations.push(Operation::TranslateX {
            offset: Extent::Fraction(0.45),
            sign,
            warp,
        });
    }
    let mut kernels = Kernels::default();
    let mut resizer = Resizer::default();
    let mut image = Image::new(64, 48);
    let mut resized = Image::default();
    let mut round = || {
        for operation in &operations {
            kernels.apply(operation, Some((3, 4)), &mut image);
        }
        for order in [PassOrder::HorizontalFirst, PassOrder::Pillow13] {
            for (width, height) in [(64, 48), (20, 48), (13, 40)] {
                let crop = Rect {
                    x: 0,
                    y: 0,
                    width,
                    height,
                };
                let filter = ResizeFilter::Bicubic;
                resizer
                    .resize_crop(&image, crop, (32, 16), filter, order, &mut resized)
                    .unwrap();
            }
        }
    };
    // The image and the scratch change places, so both must have grown.
    let first = allocations(&mut round);
    allocations(&mut round);
    assert_eq!(allocations(&mut round), 0);
    assert!(first > 0, "the counter counts");
}
