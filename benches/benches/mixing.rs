//! MixUp and CutMix of two finished samples of 224x224 pixels:
//!
//! ```text
//! cargo bench -p ddas-benches --bench mixing
//! ```
//!
//! A pair is mixed while it is in the worker's cache, as here.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ddas_runtime::{Blend, Dtype, Layout, OutputFormat};

const SIZE: u32 = 224;

fn mixing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mixing");
    group.throughput(Throughput::Elements(2)); // samples
    let rectangle = Blend::Rectangle {
        columns: [40, 180],
        rows: [30, 200],
        weight: 0.53,
    };
    for (kind, blend) in [
        ("mixup", Blend::Sum { weight: 0.37 }),
        ("cutmix", rectangle),
    ] {
        for dtype in Dtype::ALL {
            let bytes = 3 * (SIZE * SIZE) as usize * dtype.size();
            // Small numbers in every type: no denormal, no infinity.
            let mut first = vec![0x33; bytes];
            let mut second = vec![0x3a; bytes];
            let format = OutputFormat {
                dtype,
                layout: Layout::Nchw,
            };
            group.bench_function(format!("{kind} {dtype}"), |bencher| {
                bencher.iter(|| black_box(blend).apply(format, SIZE, &mut first, &mut second));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, mixing);
criterion_main!(benches);
