//! Time of every operation and of the resize, one thread.
//!
//!     cargo bench -p ddas-benches --bench kernels
//!     python benches/pillow_kernels.py          the same cases in Pillow
//!
//! Cases are named `op=NAME/size=WxH`; the throughput is bytes of the image.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use ddas_formats::Operation;
use ddas_runtime::{Image, Kernels, PassOrder, Rect, ResizeFilter, Resizer};

/// Operations as they stand in a policy file; `pillow_kernels.py` reads them
/// from here.
const OPERATIONS: &[&str] = &[
    r#"{"kind":"FlipLR"}"#,
    r#"{"kind":"FlipUD"}"#,
    r#"{"kind":"AutoContrast"}"#,
    r#"{"kind":"Equalize"}"#,
    r#"{"kind":"Invert"}"#,
    r#"{"kind":"Blur"}"#,
    r#"{"kind":"Smooth"}"#,
    r#"{"kind":"GaussianBlur","radius":1.2}"#,
    r#"{"kind":"Rotate90"}"#,
    r#"{"kind":"Rotate180"}"#,
    r#"{"kind":"Rotate270"}"#,
    r#"{"kind":"Rotate","degrees":18}"#,
    r#"{"kind":"Rotate","degrees":18,"interpolation":"bilinear"}"#,
    r#"{"kind":"Rotate","degrees":18,"interpolation":"bicubic"}"#,
    r#"{"kind":"ShearX","shear":0.18}"#,
    r#"{"kind":"ShearX","shear":0.18,"interpolation":"bilinear"}"#,
    r#"{"kind":"ShearY","shear":0.18}"#,
    r#"{"kind":"TranslateX","pixels":6}"#,
    r#"{"kind":"TranslateY","pixels":6}"#,
    r#"{"kind":"Posterize","bits":3}"#,
    r#"{"kind":"Solarize","threshold":103}"#,
    r#"{"kind":"Color","factor":1.36}"#,
    r#"{"kind":"Contrast","factor":1.36}"#,
    r#"{"kind":"Brightness","factor":1.36}"#,
    r#"{"kind":"Sharpness","factor":1.36}"#,
    r#"{"kind":"Desaturate","amount":0.3}"#,
    r#"{"kind":"CropBilinear","pixels":5}"#,
    r#"{"kind":"SolarizeAdd","add":77,"threshold":128}"#,
    r#"{"kind":"Cutout","fraction":0.25,"fill":[125,122,113]}"#,
];

/// What the name of a case shows of an operation.
fn name(operation: &Operation, json: &str) -> String {
    let warp = ["bilinear", "bicubic"]
        .into_iter()
        .find(|warp| json.contains(warp));
    let kind = operation.kind();
    warp.map_or(kind.to_string(), |warp| format!("{kind}-{warp}"))
}

/// Smooth structure with noise on it, so that tables and branches see a photo's
/// spread of values.
fn image(width: u32, height: u32) -> Image {
    let mut noise = 1u32;
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let slope = (x * 160 / width + y * (channel + 1) * 20 / height) as u8;
                pixels.push(slope + (noise >> 27) as u8);
            }
        }
    }
    Image::from_rgb(width, height, pixels).expect("as many bytes as pixels")
}

fn operations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kernels");
    group.warm_up_time(Duration::from_millis(100));
    group.measurement_time(Duration::from_millis(500));
    group.sample_size(20);
    for side in [32, 224] {
        let image = image(side, side);
        let mut work = image.clone();
        group.throughput(Throughput::Bytes(image.pixels().len() as u64));
        for json in OPERATIONS {
            let operation: Operation = serde_json::from_str(json).expect("an operation");
            let mut kernels = Kernels::default();
            let id = format!("op={}/size={side}x{side}", name(&operation, json));
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    // Into another image, as Pillow's calls make one.
                    kernels.apply_to(black_box(&operation), None, &image, &mut work);
                });
            });
        }
    }
    group.finish();
}

/// Of a photo of 500x375, the part that becomes 224x224: `operations.py` times
/// the same.
const PHOTO: (u32, u32) = (500, 375);
const CROP: Rect = Rect {
    x: 62,
    y: 40,
    width: 375,
    height: 300,
};

fn resizes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resize");
    group.warm_up_time(Duration::from_millis(100));
    group.measurement_time(Duration::from_millis(500));
    group.sample_size(20);
    let source = image(PHOTO.0, PHOTO.1);
    let crop = Rect {
        x: 0,
        y: 0,
        width: PHOTO.0,
        height: PHOTO.1,
    };
    group.throughput(Throughput::Bytes(source.pixels().len() as u64));
    for (name, filter) in [
        ("bilinear", ResizeFilter::Bilinear),
        ("bicubic", ResizeFilter::Bicubic),
    ] {
        let mut resizer = Resizer::default();
        let mut target = Image::default();
        let id = BenchmarkId::from_parameter(format!("filter={name}/size=500x375to224x224"));
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                let order = PassOrder::Pillow13;
                resizer
                    .resize_crop(&source, crop, (224, 224), filter, order, &mut target)
                    .expect("the crop is the image");
            });
        });
    }
    group.finish();
}

/// Microseconds of one call: the fastest of many rounds, which other work on
/// the machine disturbs least.
fn fastest(mut call: impl FnMut()) -> f64 {
    let mut time = |calls: u32| {
        let begin = Instant::now();
        (0..calls).for_each(|_| call());
        begin.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
    };
    time(3);
    let calls = (500.0 / time(3)).clamp(1.0, 5000.0) as u32;
    (0..60).map(|_| time(calls)).fold(f64::INFINITY, f64::min)
}

/// What `cargo bench -p ddas-benches --bench kernels -- --minima [PART OF A NAME]`
/// prints. One line a case: `op=NAME/size=WxH CALL ALONE`, the microseconds of
/// making a changed image of another, and of changing one (with a copy of it
/// before, of which the time is subtracted).
fn print_minima(filter: &str) {
    for side in [32, 224] {
        let image = image(side, side);
        let mut work = image.clone();
        let copy = fastest(|| black_box(&mut work).copy_from(black_box(&image)));
        for json in OPERATIONS {
            let operation: Operation = serde_json::from_str(json).expect("an operation");
            let name = format!("op={}/size={side}x{side}", name(&operation, json));
            if !name.contains(filter) {
                continue;
            }
            let mut kernels = Kernels::default();
            let call = fastest(|| {
                kernels.apply_to(black_box(&operation), None, &image, &mut work);
            });
            let both = fastest(|| {
                work.copy_from(&image);
                kernels.apply(black_box(&operation), None, &mut work);
            });
            println!("{name} {call:.3} {:.3}", (both - copy).max(0.0));
        }
    }
    let name = "op=ResizedCrop/size=224x224";
    if name.contains(filter) {
        let source = image(PHOTO.0, PHOTO.1);
        let (mut resizer, mut target) = (Resizer::default(), Image::default());
        let call = fastest(|| {
            let (filter, order) = (ResizeFilter::Bilinear, PassOrder::Pillow13);
            resizer
                .resize_crop(
                    black_box(&source),
                    CROP,
                    (224, 224),
                    filter,
                    order,
                    &mut target,
                )
                .expect("the crop lies within the image");
        });
        println!("{name} {call:.3} {call:.3}");
    }
}

criterion_group!(benches, operations, resizes);

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--minima");
    if arguments.next().is_some() {
        let filter = arguments.find(|argument| !argument.starts_with('-'));
        print_minima(&filter.unwrap_or_default());
    } else {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}
