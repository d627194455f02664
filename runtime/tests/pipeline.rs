//! The pipeline against its parts put together by hand, and its promise that
//! pixels depend on nothing but their key.

use std::path::Path;

use ddas_formats::{Encoding, Operation, Policy, Sample, SearchSpace, Snapshot};
use ddas_runtime::{
    Augmenter, ChromaSubsampling, Decoder, Dtype, Error, Image, Kernels, Layout, Normalization,
    OutputFormat, PassOrder, Pipeline, PipelineScratch, PolicySampler, Recipe, ResizeFilter,
    SampleRng, Step, Stream, encode_jpeg,
};

fn golden_payload(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images");
    std::fs::read(folder.join(name)).unwrap()
}

const F32: OutputFormat = OutputFormat {
    dtype: Dtype::F32,
    layout: Layout::Nchw,
};
const U8: OutputFormat = OutputFormat {
    dtype: Dtype::U8,
    layout: Layout::Nhwc,
};
const EPOCHS: u32 = 3;

fn policy(total_probability: f64) -> Policy {
    let space = SearchSpace::named("paper68").unwrap();
    let uniform = vec![1.0 / space.len() as f64; space.len()];
    let snapshot = Snapshot::new(total_probability, uniform).unwrap();
    Policy::new(space, vec![snapshot]).unwrap()
}

fn pixels(width: u32, height: u32, seed: u32) -> Vec<u8> {
    (0..width * height * 3)
        .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 24) as u8)
        .collect()
}

fn raw(payload: &[u8], width: u32, height: u32) -> Sample<'_> {
    Sample {
        label: 0,
        encoding: Encoding::Raw,
        width,
        height,
        payload,
        index: &[],
    }
}

fn pipeline(recipe: &str, policy: Option<&Policy>, seed: u64, output: OutputFormat) -> Pipeline {
    Pipeline::new(Recipe::named(recipe).unwrap(), policy, EPOCHS, seed, output).unwrap()
}

fn process(pipeline: &Pipeline, sample: &Sample<'_>, epoch: u32, index: u64) -> Vec<u8> {
    let mut out = vec![0; pipeline.sample_bytes()];
    pipeline
        .process(
            &mut PipelineScratch::default(),
            sample,
            epoch,
            index,
            &mut out,
        )
        .unwrap();
    out
}

/// The image as `policy` augments it, through the public parts alone.
fn augmented(policy: &Policy, image: &Image, seed: u64, epoch: u32, index: u64) -> Image {
    let snapshot = &policy.snapshots()[0];
    let sampler = PolicySampler::new(
        policy.search_space(),
        snapshot,
        snapshot.total_probability(),
    )
    .unwrap();
    let mut rng = SampleRng::new(seed, epoch, index, Stream::Policy);
    let mut image = image.clone();
    Augmenter::default().augment(&sampler, &mut rng, &mut image);
    image
}

/// The authors' order and settings, written down naively: policy, crop out of
/// a border of 4, flip, normalise, cutout of 16.
#[test]
fn cifar_recipe_is_its_steps() {
    let policy = policy(0.6);
    let seed = 5;
    let floats = pipeline("cifar", Some(&policy), seed, F32);
    let bytes = pipeline("cifar", Some(&policy), seed, U8);
    let normalization = floats.normalization();
    let (mut flips, mut moved, mut touched) = (0, 0, 0);
    for index in 0..60 {
        let payload = pixels(32, 32, index as u32);
        let sample = raw(&payload, 32, 32);
        let epoch = index as u32 % EPOCHS;
        let source = Image::from_rgb(32, 32, payload.clone()).unwrap();
        let image = augmented(&policy, &source, seed, epoch, index);
        touched += u32::from(image != source);

        let mut rng = SampleRng::new(seed, epoch, index, Stream::Crop);
        let (dx, dy) = (rng.below(9) as i64 - 4, rng.below(9) as i64 - 4);
        let flip = rng.uniform() < 0.5;
        let (cx, cy) = (rng.below(32) as i64, rng.below(32) as i64);
        flips += u32::from(flip);
        moved += u32::from((dx, dy) != (0, 0));

        let values = process(&floats, &sample, epoch, index);
        let values: Vec<f32> = values
            .chunks_exact(4)
            .map(|bytes| f32::from_ne_bytes(bytes.try_into().unwrap()))
            .collect();
        let levels = process(&bytes, &sample, epoch, index);
        for y in 0..32i64 {
            for x in 0..32i64 {
                let cropped_x = if flip { 31 - x } else { x };
                let from = (u32::try_from(cropped_x + dx), u32::try_from(y + dy));
                let pixel = match from {
                    (Ok(x), Ok(y)) => image.pixel(x, y).unwrap_or_default(),
                    _ => [0; 3],
                };
                let hole = (cx - 8..cx + 8).contains(&x) && (cy - 8..cy + 8).contains(&y);
                for channel in 0..3 {
                    let mut value = f32::from(pixel[channel]) / 255.0;
                    value = (value - normalization.mean[channel]) / normalization.std[channel];
                    let mut level = pixel[channel];
                    if hole {
                        value = 0.0;
                        level = [125, 123, 114][channel];
                    }
                    let place = (x + 32 * y) as usize;
                    assert_eq!(values[channel * 1024 + place], value);
                    assert_eq!(levels[place * 3 + channel], level);
                }
            }
        }
    }
    assert!(flips > 15 && flips < 45 && moved > 50 && touched > 20);
}

/// A crop that is the whole image, so that only this test's own arithmetic is
/// needed; then flip, policy, normalise in the order of the recipe.
#[test]
fn a_flip_before_the_policy_is_applied_before_it() {
    let policy = policy(0.7);
    let recipe = Recipe::new(
        "whole",
        40,
        vec![
            Step::RandomResizedCrop {
                scale: [1.0, 1.0],
                ratio: [1.0, 1.0],
                filter: ResizeFilter::Bilinear,
                order: PassOrder::Pillow13,
            },
            Step::RandomFlip { probability: 0.5 },
            Step::Policy,
            Step::Normalize(Normalization {
                mean: [0.5; 3],
                std: [0.25; 3],
            }),
        ],
    )
    .unwrap();
    let seed = 9;
    let pipeline = Pipeline::new(recipe, Some(&policy), 1, seed, U8).unwrap();
    let payload = pixels(40, 40, 3);
    let source = Image::from_rgb(40, 40, payload.clone()).unwrap();
    let mut flipped = source.clone();
    Kernels::default().apply(&Operation::FlipLR, None, &mut flipped);
    let plain = (0..200).filter(|&index| {
        let found = process(&pipeline, &raw(&payload, 40, 40), 0, index);
        let unflipped = augmented(&policy, &source, seed, 0, index);
        let flipped = augmented(&policy, &flipped, seed, 0, index);
        assert!(
            found == unflipped.pixels() || found == flipped.pixels(),
            "sample {index}"
        );
        found == unflipped.pixels()
    });
    let plain = plain.count();
    assert!(plain > 60 && plain < 140, "{plain}");
}

/// Threads, scratch memory and the samples before make no difference; every
/// part of the key does.
#[test]
fn pixels_depend_on_their_key_alone() {
    let policy = policy(1.0);
    for recipe in ["cifar", "imagenet", "imagenet-authors", "imagenet-timm"] {
        let first = pipeline(recipe, Some(&policy), 1, F32);
        let payload = pixels(32, 32, 1);
        let sample = raw(&payload, 32, 32);
        let expected: Vec<Vec<u8>> = (0..20)
            .map(|index| process(&first, &sample, 1, index))
            .collect();
        std::thread::scope(|scope| {
            for order in [[3, 7, 11], [19, 0, 5]] {
                let (first, expected, sample) = (&first, &expected, &sample);
                scope.spawn(move || {
                    let mut scratch = PipelineScratch::default();
                    let mut out = vec![0; first.sample_bytes()];
                    for index in order {
                        first
                            .process(&mut scratch, sample, 1, index, &mut out)
                            .unwrap();
                        assert_eq!(out, expected[index as usize]);
                    }
                });
            }
        });
        let all_of = |pipeline: &Pipeline, epoch| -> Vec<Vec<u8>> {
            (0..20)
                .map(|index| process(pipeline, &sample, epoch, index))
                .collect()
        };
        assert_ne!(all_of(&first, 0), expected);
        let other_seed = pipeline(recipe, Some(&policy), 2, F32);
        assert_ne!(all_of(&other_seed, 1), expected);
        let no_policy = pipeline(recipe, None, 1, F32);
        assert_ne!(all_of(&no_policy, 1), expected);
    }
}

#[test]
fn the_operations_of_the_last_sample_can_be_asked_for() {
    let certain = policy(1.0);
    let pipeline = pipeline("cifar", Some(&certain), 4, U8);
    let payload = pixels(32, 32, 1);
    let mut scratch = PipelineScratch::default();
    let mut out = vec![0; pipeline.sample_bytes()];
    pipeline
        .process(&mut scratch, &raw(&payload, 32, 32), 0, 8, &mut out)
        .unwrap();
    let mut drawn = Vec::new();
    let mut rng = SampleRng::new(4, 0, 8, Stream::Policy);
    let sampler = pipeline.schedule().unwrap().sampler(0);
    sampler.draw(&mut rng, &mut drawn);
    assert_eq!(scratch.operations(), drawn);
    assert_eq!(drawn.len(), 2);
}

#[test]
fn shapes_follow_the_format() {
    let nhwc = OutputFormat {
        dtype: Dtype::Bf16,
        layout: Layout::Nhwc,
    };
    let pipeline = pipeline("imagenet", None, 0, nhwc);
    assert_eq!(pipeline.sample_shape(), [224, 224, 3]);
    assert_eq!(pipeline.sample_bytes(), 224 * 224 * 3 * 2);
    fn shared_between_threads<T: Send + Sync>(_: &T) {}
    fn moved_to_threads<T: Send>(_: &T) {}
    shared_between_threads(&pipeline);
    moved_to_threads(&PipelineScratch::default());
}

#[test]
fn errors_name_the_sample() {
    let pipeline = pipeline("cifar", None, 0, F32);
    let mut scratch = PipelineScratch::default();
    let mut out = vec![0; pipeline.sample_bytes()];
    let small = pixels(28, 28, 0);
    let error = pipeline
        .process(&mut scratch, &raw(&small, 28, 28), 0, 77, &mut out)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "sample 77: recipe `cifar` takes images of 32x32 pixels, this one has 28x28: \
         use a recipe that resizes, or pack images of that size"
    );
    let text = Sample {
        encoding: Encoding::Jpeg,
        ..raw(b"not a picture", 32, 32)
    };
    let error = pipeline
        .process(&mut scratch, &text, 0, 78, &mut out)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("sample 78: cannot decode the JPEG")
    );
    let payload = pixels(32, 32, 0);
    let error = pipeline
        .process(&mut scratch, &raw(&payload, 32, 32), 0, 79, &mut out[1..])
        .unwrap_err();
    assert!(matches!(error, Error::Sample { index: 79, .. }), "{error}");
}

#[test]
fn impossible_pipelines_are_refused() {
    let recipe = || Recipe::named("cifar").unwrap();
    let outcome = Pipeline::new(recipe(), None, 0, 0, F32);
    assert!(matches!(outcome, Err(Error::NoEpochs)));
    let normalize = Step::Normalize(recipe().normalization());
    let bare = Recipe::new("bare", 32, vec![normalize]).unwrap();
    let outcome = Pipeline::new(bare, Some(&policy(0.5)), 1, 0, F32);
    assert!(matches!(outcome, Err(Error::NoPolicyStep { .. })));
}

/// Decoding, resizing and writing put together by hand.
#[test]
fn imagenet_recipe_decodes_crops_and_resizes() {
    let payload = golden_payload("yuv420.jpg");
    let sample = Sample {
        encoding: Encoding::Jpeg,
        ..raw(&payload, 45, 37)
    };
    let pipeline = pipeline("imagenet", None, 6, U8);
    let mut image = Image::default();
    Decoder::new()
        .decode(Encoding::Jpeg, 45, 37, &payload, &mut image)
        .unwrap();
    let mut resizer = ddas_runtime::Resizer::default();
    let mut expected = Image::default();
    let mut compared = 0;
    for index in 0..20 {
        let found = process(&pipeline, &sample, 2, index);
        let mut rng = SampleRng::new(6, 2, index, Stream::Crop);
        // The first attempt of torchvision's rule; samples it fails for are
        // left out here.
        let area = 45.0 * 37.0 * rng.between(0.08, 1.0);
        let aspect = rng.between(0.75f64.ln(), (4.0f64 / 3.0).ln()).exp();
        let width = (area * aspect).sqrt().round_ties_even() as u32;
        let height = (area / aspect).sqrt().round_ties_even() as u32;
        if width > 45 || height > 37 {
            continue;
        }
        let y = rng.below(37 - height + 1);
        let x = rng.below(45 - width + 1);
        let crop = ddas_runtime::Rect {
            x,
            y,
            width,
            height,
        };
        resizer
            .resize_crop(
                &image,
                crop,
                (224, 224),
                ResizeFilter::Bilinear,
                PassOrder::Pillow13,
                &mut expected,
            )
            .unwrap();
        if rng.uniform() < 0.5 {
            Kernels::default().apply(&Operation::FlipLR, None, &mut expected);
        }
        assert_eq!(found, expected.pixels(), "sample {index}");
        compared += 1;
    }
    assert!(compared > 10);
}

/// The bytes of the built-in recipes are a promise to whoever resumes a run or
/// compares hashes: XXH3-64 over 40 samples of each, taken when the recipes
/// were first released.
#[test]
fn built_in_streams_keep_their_bytes() {
    let jpeg = golden_payload("yuv420.jpg");
    let noise = pixels(32, 32, 1);
    let hash = |recipe: &str, policy: Option<&Policy>, output, sample: &Sample<'_>| {
        let pipeline = pipeline(recipe, policy, 11, output);
        let bytes: Vec<u8> = (0..40)
            .flat_map(|index| process(&pipeline, sample, index as u32 % EPOCHS, index))
            .collect();
        xxhash_rust::xxh3::xxh3_64(&bytes)
    };
    let policy = policy(0.6);
    let small = raw(&noise, 32, 32);
    let photo = Sample {
        encoding: Encoding::Jpeg,
        ..raw(&jpeg, 45, 37)
    };
    let found = [
        hash("cifar", None, F32, &small),
        hash("cifar", Some(&policy), F32, &small),
        hash("cifar", Some(&policy), U8, &small),
        hash("imagenet", None, F32, &photo),
        hash("imagenet", Some(&policy), U8, &photo),
    ];
    assert_eq!(
        found.map(|hash| format!("{hash:016x}")),
        [
            "12ccc1aff204180e",
            "4146750702e3b06f",
            "90004001415003fb",
            "c5b866e530a46650",
            "5573e37c02b582f3",
        ]
    );
}

/// A stored index changes what is read of a photograph, and not one pixel.
#[test]
fn samples_with_an_index_give_the_same_bytes() {
    let (width, height) = (331, 270);
    let image = Image::from_rgb(width, height, pixels(width, height, 9)).unwrap();
    let jpeg = encode_jpeg(&image, 60, ChromaSubsampling::Quarter).unwrap();
    let plain = Sample {
        encoding: Encoding::Jpeg,
        ..raw(&jpeg, width, height)
    };
    let index = Decoder::new().index(&plain.header(), &jpeg);
    // 21 units of 16 pixels across: 6 places in each of 17 rows.
    assert_eq!(index.len(), 4 + 6 * 17 * 10);
    let indexed = Sample {
        index: &index,
        ..plain
    };
    let pipeline = pipeline("imagenet", None, 3, F32);
    for number in 0..60 {
        let expected = process(&pipeline, &plain, 0, number);
        assert!(
            process(&pipeline, &indexed, 0, number) == expected,
            "{number}"
        );
    }
}

/// The policy sees the whole of a resized image, and exactly what is shown of
/// a cropped one, wherever the crop lies.
#[test]
fn the_policy_stands_before_or_after_the_crop() {
    let policy = policy(0.8);
    let payload = pixels(61, 40, 5);
    let source = Image::from_rgb(61, 40, payload.clone()).unwrap();
    let cut = |image: &Image, x: u32, y: u32| {
        let mut cut = Image::new(32, 32);
        for row in 0..32 {
            let from = &image.row(y + row)[x as usize * 3..][..96];
            cut.row_mut(row).copy_from_slice(from);
        }
        cut
    };
    let resize = "[[steps]]\nkind = \"resize\"\nexact = [40, 61]\n";
    let crop = "[[steps]]\nkind = \"random-crop\"\n";
    let draws = "[[steps]]\nkind = \"policy\"\n";
    let end = "[[steps]]\nkind = \"normalize\"\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n";
    for policy_first in [true, false] {
        let middle = if policy_first {
            format!("{draws}{crop}")
        } else {
            format!("{crop}{draws}")
        };
        let text = format!("size = 32\n{resize}{middle}{end}");
        let recipe = Recipe::from_toml(&text, "mine").unwrap();
        let pipeline = Pipeline::new(recipe, Some(&policy), 1, 3, U8).unwrap();
        for index in 0..120 {
            let found = process(&pipeline, &raw(&payload, 61, 40), 0, index);
            let mut rng = SampleRng::new(3, 0, index, Stream::Crop);
            let (x, y) = (rng.below(30), rng.below(9));
            let expected = if policy_first {
                cut(&augmented(&policy, &source, 3, 0, index), x, y)
            } else {
                augmented(&policy, &cut(&source, x, y), 3, 0, index)
            };
            assert_eq!(found, expected.pixels(), "sample {index} at {x}, {y}");
        }
    }
}

/// One thread's scratch serves pipelines of other sizes, types and recipes.
#[test]
fn scratch_memory_carries_nothing_from_pipeline_to_pipeline() {
    let payload = pixels(50, 44, 2);
    let sample = raw(&payload, 50, 44);
    let text = Recipe::named("imagenet-authors").unwrap().to_toml();
    let pipelines = [(F32, "24"), (U8, "24"), (F32, "30")].map(|(output, size)| {
        let recipe = Recipe::from_toml(&text.replace("224", size), "small").unwrap();
        Pipeline::new(recipe, None, 1, 3, output).unwrap()
    });
    let mut scratch = PipelineScratch::default();
    for index in 0..12 {
        for pipeline in &pipelines {
            let mut out = vec![0; pipeline.sample_bytes()];
            pipeline
                .process(&mut scratch, &sample, 0, index, &mut out)
                .unwrap();
            assert_eq!(out, process(pipeline, &sample, 0, index), "sample {index}");
        }
    }
}

/// A pixel wide and as high as can be: the shorter side cannot be made 256.
#[test]
fn resizes_beyond_all_bounds_are_refused() {
    let payload = pixels(1, 9000, 2);
    let pipeline = pipeline("imagenet-eval", None, 0, U8);
    let mut out = vec![0; pipeline.sample_bytes()];
    let error = pipeline
        .process(
            &mut PipelineScratch::default(),
            &raw(&payload, 1, 9000),
            0,
            4,
            &mut out,
        )
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("sample 4") && error.contains("256x2304000"),
        "{error}"
    );
}
