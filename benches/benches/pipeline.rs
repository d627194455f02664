//! Samples per second of one thread, from the stored payload to the batch.
//!
//! `cargo bench -p ddas-benches --bench pipeline`
//!
//! The pictures are made here: CIFAR's size stored raw and as JPEG, and
//! 500x375 as JPEG. `policy=certain` applies two operations of the authors'
//! list as it ran to every sample. Rates are per sample; bytes are those
//! delivered.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ddas_formats::{Encoding, Policy, Sample, SearchSpace, Snapshot};
use ddas_runtime::{
    Decoder, Dtype, Image, Layout, OutputFormat, PassOrder, Pipeline, PipelineScratch, Recipe,
    Rect, ResizeFilter, Resizer,
};

/// Two JPEGs of smooth colours, edges and grain, encoded once by
/// `benches/images/make.py`: 32x32 and 500x375 pixels, 4:2:0.
const SMALL: &[u8] = include_bytes!("images/32x32.jpg");
const LARGE: &[u8] = include_bytes!("images/500x375.jpg");

fn certain_policy() -> Policy {
    let space = SearchSpace::named("released52-as-run").expect("a known space");
    let uniform = vec![1.0 / space.len() as f64; space.len()];
    let snapshot = Snapshot::new(1.0, uniform).expect("probabilities");
    Policy::new(space, vec![snapshot]).expect("as many probabilities as operations")
}

fn sample(encoding: Encoding, (width, height): (u32, u32), payload: &[u8]) -> Sample<'_> {
    Sample {
        label: 0,
        encoding,
        width,
        height,
        payload,
        index: &[],
    }
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let mut decoder = Decoder::new();
    let mut image = Image::default();
    for (name, size, payload) in [
        ("jpeg-32x32", (32, 32), SMALL),
        ("jpeg-500x375", (500, 375), LARGE),
    ] {
        let sample = sample(Encoding::Jpeg, size, payload);
        group.throughput(Throughput::Bytes(u64::from(size.0 * size.1 * 3)));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                decoder
                    .decode(
                        sample.encoding,
                        sample.width,
                        sample.height,
                        black_box(sample.payload),
                        &mut image,
                    )
                    .expect("a whole image")
            });
        });
    }
    // As much of it as a random resized crop asks for on average.
    let region = Rect {
        x: 70,
        y: 50,
        width: 360,
        height: 280,
    };
    group.throughput(Throughput::Bytes(u64::from(
        region.width * region.height * 3,
    )));
    group.bench_function("jpeg-500x375-region", |bencher| {
        bencher.iter(|| {
            decoder
                .decode_region(
                    Encoding::Jpeg,
                    500,
                    375,
                    black_box(LARGE),
                    region,
                    &mut image,
                )
                .expect("a whole image")
        });
    });
    group.finish();
}

fn resize(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resize");
    let mut image = Image::default();
    Decoder::new()
        .decode(Encoding::Jpeg, 500, 375, LARGE, &mut image)
        .expect("a whole image");
    let whole = Rect {
        x: 0,
        y: 0,
        width: 500,
        height: 375,
    };
    let mut resizer = Resizer::default();
    let mut target = Image::default();
    for (name, filter) in [
        ("bilinear", ResizeFilter::Bilinear),
        ("bicubic", ResizeFilter::Bicubic),
    ] {
        group.bench_function(BenchmarkId::new("500x375-to-224", name), |bencher| {
            bencher.iter(|| {
                let order = PassOrder::Pillow13;
                resizer
                    .resize_crop(
                        black_box(&image),
                        whole,
                        (224, 224),
                        filter,
                        order,
                        &mut target,
                    )
                    .expect("a crop within the image")
            });
        });
    }
    group.finish();
}

fn process(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("process");
    let policy = certain_policy();
    let raw: Vec<u8> = (0..32 * 32 * 3u32).map(|i| (i * 7 % 251) as u8).collect();
    let f32_nchw = (Dtype::F32, Layout::Nchw);
    let cases = [
        ("cifar-raw", "cifar", sample(Encoding::Raw, (32, 32), &raw)),
        (
            "cifar-jpeg",
            "cifar",
            sample(Encoding::Jpeg, (32, 32), SMALL),
        ),
        (
            "imagenet-jpeg",
            "imagenet",
            sample(Encoding::Jpeg, (500, 375), LARGE),
        ),
    ];
    for (name, recipe, sample) in &cases {
        for (policy_name, policy) in [("none", None), ("certain", Some(&policy))] {
            for (dtype, layout) in [
                f32_nchw,
                (Dtype::F32, Layout::Nhwc),
                (Dtype::U8, Layout::Nhwc),
            ] {
                // The output format matters where little else is done.
                let matters = match *name {
                    "cifar-raw" => policy.is_none(),
                    "imagenet-jpeg" => policy.is_none() && dtype == Dtype::U8,
                    _ => false,
                };
                if (dtype, layout) != f32_nchw && !matters {
                    continue;
                }
                let recipe = Recipe::named(recipe).expect("a known recipe");
                let output = OutputFormat { dtype, layout };
                let pipeline = Pipeline::new(recipe, policy, 1, 0, output).expect("it fits");
                let mut scratch = PipelineScratch::default();
                let mut out = vec![0; pipeline.sample_bytes()];
                let mut index = 0;
                group.throughput(Throughput::Elements(1));
                let parameter = format!("policy={policy_name}/{dtype}/{layout}");
                group.bench_function(BenchmarkId::new(*name, parameter), |bencher| {
                    bencher.iter(|| {
                        index += 1; // other draws each time, as in training
                        pipeline
                            .process(&mut scratch, sample, 0, index, black_box(&mut out))
                            .expect("a whole sample")
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, decode, resize, process);
criterion_main!(benches);
