//! Nothing is allocated per image once the scratch memory has grown.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ddas_formats::{
    BuiltinOptions, Encoding, Extent, Interpolation, Operation, Policy, Rounding, Sample,
    SearchSpace, SignRule, Snapshot, Warp,
};
use ddas_runtime::{
    Augmenter, Dtype, EpochSchedule, Image, Kernels, Layout as Axes, OutputFormat, PassOrder,
    Pipeline, PipelineScratch, Recipe, Rect, ResizeFilter, Resizer, SampleRng, Stream,
};

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
        .flat_map(|name| {
            SearchSpace::named(name)
                .unwrap()
                .plain_operations()
                .unwrap()
        })
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
            rounding: Rounding::None,
            sign,
            warp,
        });
    }
    operations.push(Operation::GaussianBlur { radius: 1.7 });
    operations.push(Operation::CropBilinear { pixels: 5 });
    let mut kernels = Kernels::default();
    let mut resizer = Resizer::default();
    let mut image = Image::new(64, 48);
    let mut resized = Image::default();
    let mut round = || {
        for operation in &operations {
            kernels.apply(operation, Some((3.0, 4.0)), &mut image);
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

const EVERY_STEP: &str = r#"
    size = 40
    [[steps]]
    kind = "resize"
    shorter = 44
    antialias = false
    [[steps]]
    kind = "policy"
    [[steps]]
    kind = "horizontal-flip"
    [[steps]]
    kind = "random-crop"
    padding = 3
    padding_mode = "reflect"
    [[steps]]
    kind = "vertical-flip"
    [[steps]]
    kind = "color-jitter"
    brightness = 0.4
    contrast = 0.4
    saturation = 0.4
    hue = 0.1
    [[steps]]
    kind = "grayscale"
    [[steps]]
    kind = "gaussian-blur"
    [[steps]]
    kind = "lighting"
    [[steps]]
    kind = "normalize"
    mean = [0.5, 0.5, 0.5]
    std = [0.5, 0.5, 0.5]
    [[steps]]
    kind = "cutout"
    size = 9
    count = 3
    [[steps]]
    kind = "random-erasing"
    value = "noise"
    count = 2
"#;

#[test]
fn a_pipeline_reuses_its_memory() {
    let space = SearchSpace::named("paper68").unwrap();
    let uniform = vec![1.0 / space.len() as f64; space.len()];
    let snapshot = Snapshot::new(1.0, uniform).unwrap();
    let policy = Policy::new(space, vec![snapshot]).unwrap();
    let output = OutputFormat {
        dtype: Dtype::F32,
        layout: Axes::Nchw,
    };
    let pixels = vec![77; 32 * 32 * 3];
    let jpeg = include_bytes!("images/restart.jpg");
    let cmyk = include_bytes!("images/cmyk.jpg");
    let named = |name| Recipe::named(name).unwrap();
    let everything = Recipe::from_toml(EVERY_STEP, "every step").unwrap();
    for (recipe, encoding, (width, height), payload) in [
        (named("cifar"), Encoding::Raw, (32, 32), &pixels[..]),
        (named("imagenet"), Encoding::Raw, (32, 32), &pixels),
        (named("imagenet"), Encoding::Jpeg, (70, 40), jpeg),
        (named("imagenet"), Encoding::Jpeg, (35, 26), cmyk),
        (named("imagenet-authors"), Encoding::Jpeg, (70, 40), jpeg),
        (named("imagenet-eval"), Encoding::Jpeg, (70, 40), jpeg),
        (named("imagenet-timm"), Encoding::Raw, (32, 32), &pixels),
        (everything, Encoding::Raw, (32, 32), &pixels),
    ] {
        let sample = Sample {
            label: 0,
            encoding,
            width,
            height,
            payload,
            index: &[],
        };
        let policy = recipe.takes_policy().then_some(&policy);
        let pipeline = Pipeline::new(recipe, policy, 1, 4, output).unwrap();
        let mut scratch = PipelineScratch::default();
        let mut out = vec![0; pipeline.sample_bytes()];
        let mut run = |indices: std::ops::Range<u64>| {
            for index in indices {
                pipeline
                    .process(&mut scratch, &sample, 0, index, &mut out)
                    .unwrap();
            }
        };
        // Long enough for every operation and the largest crop to come up.
        let first = allocations(|| run(0..600));
        assert!(first > 0, "the counter counts");
        let later = allocations(|| run(600..1000));
        assert_eq!(later, 0, "{} {encoding}", pipeline.recipe().name());
    }
}

/// Sequences and varied arguments are drawn into the same memory, too.
#[test]
fn policies_of_every_kind_reuse_their_memory() {
    for name in [
        "rand-m9-n3-mstd0.5-inc1",
        "original-mstd0.5",
        "uniformaugment",
    ] {
        let policy = Policy::builtin(name, &BuiltinOptions::default()).unwrap();
        let schedule = EpochSchedule::new(&policy, 1).unwrap();
        let mut augmenter = Augmenter::default();
        let mut image = Image::new(32, 32);
        let mut run = |indices: std::ops::Range<u64>| {
            for index in indices {
                let mut rng = SampleRng::new(3, 0, index, Stream::Policy);
                augmenter.augment(schedule.sampler(0), &mut rng, &mut image);
            }
        };
        let first = allocations(|| run(0..1000));
        assert!(first > 0, "the counter counts");
        assert_eq!(allocations(|| run(1000..2000)), 0, "{name}");
    }
}
