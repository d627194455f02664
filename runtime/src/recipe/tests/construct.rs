//! Recipes made in Rust, and the built-in ones.

use super::super::*;
use crate::resize::{PassOrder, ResizeFilter};

fn normalize() -> Step {
    Step::Normalize(Normalization {
        mean: [0.5; 3],
        std: [0.5; 3],
    })
}

#[test]
fn named_recipes_stand() {
    for name in Recipe::NAMES {
        let recipe = Recipe::named(name).unwrap();
        assert_eq!(recipe.name(), name);
        assert_eq!(recipe.takes_policy(), !name.ends_with("-eval"));
        assert!(recipe.description().is_some());
    }
    assert_eq!(Recipe::named("cifar").unwrap().sample_size(), Some(32));
    assert_eq!(Recipe::named("imagenet").unwrap().sample_size(), None);
    let error = Recipe::named("coco").unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown recipe `coco`; known are cifar, cifar-eval, imagenet, imagenet-eval, imagenet-authors, imagenet-timm"
    );
}

#[test]
fn misplaced_and_impossible_steps_are_named() {
    let resized = |scale, ratio| Step::RandomResizedCrop {
        scale,
        ratio,
        filter: ResizeFilter::Bilinear,
        order: PassOrder::Pillow13,
    };
    let crop = Step::RandomCrop {
        padding: 4,
        border: Border::BLACK,
    };
    let cutout = Step::Cutout { size: 16, count: 1 };
    let flip = |probability| Step::RandomFlip { probability };
    let cases: [(Vec<Step>, usize, &str); 13] = [
        (vec![], 0, "no normalize"),
        (vec![cutout, normalize()], 0, "after normalize"),
        (vec![normalize(), Step::Policy], 1, "only cutout"),
        (vec![normalize(), normalize()], 1, "second"),
        (vec![Step::Policy, crop, crop, normalize()], 2, "second"),
        (
            vec![Step::Policy, resized([0.1, 1.0], [1.0, 1.0]), normalize()],
            1,
            "first",
        ),
        (
            vec![resized([0.0, 1.0], [1.0, 1.0]), normalize()],
            0,
            "scale",
        ),
        (
            vec![resized([0.5, 1.5], [1.0, 1.0]), normalize()],
            0,
            "scale",
        ),
        (
            vec![resized([0.5, 1.0], [2.0, 1.0]), normalize()],
            0,
            "ratio",
        ),
        (vec![flip(f64::NAN), normalize()], 0, "probability"),
        (
            vec![
                Step::RandomCrop {
                    padding: 33,
                    border: Border::BLACK,
                },
                normalize(),
            ],
            0,
            "padding",
        ),
        (
            vec![Step::Normalize(Normalization {
                mean: [0.0; 3],
                std: [0.0; 3],
            })],
            0,
            "std",
        ),
        (
            vec![Step::Normalize(Normalization {
                mean: [f32::NAN; 3],
                std: [1.0; 3],
            })],
            0,
            "mean",
        ),
    ];
    for (steps, place, word) in cases {
        let error = Recipe::new("mine", 32, steps).unwrap_err();
        let Error::Recipe { step, reason, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*step, place, "{error}");
        assert!(reason.contains(word), "{error}");
    }
    assert!(Recipe::new("mine", 0, vec![normalize()]).is_err());
    let twice = vec![flip(0.5), Step::Policy, flip(0.5), normalize(), cutout];
    assert!(Recipe::new("mine", 32, twice).is_ok());
}
