//! Recipe files: what they mean, that they come back, and how they are refused.

mod construct;

use super::*;
use crate::mix::{CutMix, MixPer, MixUp};
use crate::resize::{PassOrder, ResizeFilter};

const NORMALIZE: &str =
    "[[steps]]\nkind = \"normalize\"\nmean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.5, 1.0]\n";

fn read(text: &str) -> Result<Recipe> {
    Recipe::from_toml(text, "mine")
}

fn with_steps(steps: &str) -> String {
    format!("size = 32\n{steps}{NORMALIZE}")
}

/// The line and reason a text is refused with.
fn refusal(text: &str) -> (usize, String) {
    match read(text) {
        Err(Error::RecipeText { line, reason, .. }) => (line, reason),
        other => panic!("{other:?}\n{text}"),
    }
}

#[test]
fn every_built_in_recipe_comes_back_from_its_text() {
    let mut digests = Vec::new();
    for name in Recipe::NAMES {
        let recipe = Recipe::named(name).unwrap();
        assert_eq!(recipe.name(), name);
        assert_eq!(
            Recipe::from_toml(&recipe.to_toml(), "other").unwrap(),
            recipe
        );
        digests.push(recipe.digest());
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), Recipe::NAMES.len());
}

/// The recipes of the first release, as they were written in Rust.
#[test]
fn the_first_recipes_are_unchanged() {
    let cifar = Recipe::named("cifar").unwrap();
    assert_eq!(
        cifar.steps(),
        [
            Step::Policy,
            Step::RandomCrop {
                padding: 4,
                border: Border::BLACK
            },
            Step::RandomFlip { probability: 0.5 },
            Step::Normalize(Normalization {
                mean: [0.4914, 0.4822, 0.4465],
                std: [0.2023, 0.1994, 0.2010],
            }),
            Step::Cutout { size: 16, count: 1 },
        ]
    );
    let imagenet = Recipe::named("imagenet").unwrap();
    assert_eq!(
        imagenet.steps(),
        [
            Step::RandomResizedCrop {
                scale: [0.08, 1.0],
                ratio: [3.0 / 4.0, 4.0 / 3.0],
                filter: ResizeFilter::Bilinear,
                order: PassOrder::Pillow13,
            },
            Step::RandomFlip { probability: 0.5 },
            Step::Policy,
            Step::Normalize(Normalization {
                mean: [0.485, 0.456, 0.406],
                std: [0.229, 0.224, 0.225],
            }),
        ]
    );
}

const EVERYTHING: &str = r#"
name = "every \"thing\""
description = "all there is, é"
size = 48

[[steps]]
kind = "resize"
exact = [60, 64]
interpolation = "bicubic"
antialias = false

[[steps]]
kind = "policy"

[[steps]]
kind = "random-crop"
padding = 3
padding_mode = "reflect"

[[steps]]
kind = "horizontal-flip"
probability = 0.25

[[steps]]
kind = "vertical-flip"
probability = 1

[[steps]]
kind = "horizontal-flip"

[[steps]]
kind = "color-jitter"
probability = 0.8
brightness = 0.4
contrast = [0.5, 3]
saturation = 1.5
hue = 0.1

[[steps]]
kind = "grayscale"
probability = 0.2

[[steps]]
kind = "gaussian-blur"

[[steps]]
kind = "lighting"

[[steps]]
kind = "normalize"
mean = [0.1, 0.3, 1e-3]
std = [0.7, 1, 0.2]

[[steps]]
kind = "random-erasing"
value = [0.1, -2, 3]
count = 3

[[steps]]
kind = "cutout"
size = 0x10
count = 2

[mix]
mixup = { alpha = 0.2 }
cutmix = { alpha = 1 }
probability = 0.9
switch_probability = 0.3
per = "pair"
"#;

#[test]
fn every_field_is_read_and_comes_back() {
    let recipe = read(EVERYTHING).unwrap();
    assert_eq!(recipe.name(), "every \"thing\"");
    let flip = |probability| Step::RandomFlip { probability };
    assert_eq!(
        recipe.steps(),
        [
            Step::Resize {
                to: ResizeTo::Exact {
                    height: 60,
                    width: 64
                },
                filter: ResizeFilter::PlainBicubic,
                order: PassOrder::HorizontalFirst,
            },
            Step::Policy,
            Step::RandomCrop {
                padding: 3,
                border: Border::Reflect
            },
            flip(0.25),
            Step::RandomVerticalFlip { probability: 1.0 },
            flip(0.5),
            Step::ColorJitter(ColorJitter {
                probability: 0.8,
                brightness: [0.6, 1.4],
                contrast: [0.5, 3.0],
                saturation: [0.0, 2.5],
                hue: [-0.1, 0.1],
            }),
            Step::RandomGrayscale { probability: 0.2 },
            Step::GaussianBlur {
                probability: 0.5,
                sigma: [0.1, 2.0]
            },
            Step::Lighting(Lighting::imagenet(0.1)),
            Step::Normalize(Normalization {
                mean: [0.1, 0.3, 1e-3],
                std: [0.7, 1.0, 0.2],
            }),
            Step::RandomErasing(RandomErasing {
                count: 3,
                value: Erase::Constant([0.1, -2.0, 3.0]),
                ..RandomErasing::default()
            }),
            Step::Cutout { size: 16, count: 2 },
        ]
    );
    let mix = Mix {
        mixup: Some(MixUp { alpha: 0.2 }),
        cutmix: Some(CutMix { alpha: 1.0 }),
        probability: 0.9,
        switch_probability: 0.3,
        per: MixPer::Pair,
    };
    assert_eq!(recipe.mix(), Some(&mix));
    let text = recipe.to_toml();
    assert_eq!(read(&text).unwrap(), recipe, "{text}");
    assert_eq!(read(&text).unwrap().to_toml(), text);
}

#[test]
fn choices_come_back() {
    let steps = [
        "[[steps]]\nkind = \"random-crop\"\npadding = 4\nfill = [1, 2, 3]\n",
        "[[steps]]\nkind = \"random-crop\"\npadding = 4\nfill = 7\npadding_mode = \"constant\"\n",
        "[[steps]]\nkind = \"random-crop\"\npadding = 4\npadding_mode = \"edge\"\n",
        "[[steps]]\nkind = \"random-crop\"\npadding = 4\npadding_mode = \"symmetric\"\n",
        "[[steps]]\nkind = \"random-resized-crop\"\nantialias = false\n",
        "[[steps]]\nkind = \"random-resized-crop\"\npass_order = \"horizontal-first\"\n",
        "[[steps]]\nkind = \"resize\"\nshorter = 40\n[[steps]]\nkind = \"center-crop\"\n",
        "[[steps]]\nkind = \"resize\"\nexact = [32, 32]\n",
        "[[steps]]\nkind = \"center-crop\"\n",
    ];
    for steps in steps {
        let recipe = read(&with_steps(steps)).unwrap();
        assert_eq!(read(&recipe.to_toml()).unwrap(), recipe, "{steps}");
    }
    for value in ["\"zero\"", "\"color\"", "\"noise\"", "0.5", "-1"] {
        let erasing = format!("[[steps]]\nkind = \"random-erasing\"\nvalue = {value}\n");
        let recipe = read(&(with_steps("") + &erasing)).unwrap();
        assert_eq!(read(&recipe.to_toml()).unwrap(), recipe, "{value}");
    }
    for mix in [
        "mixup = { alpha = 0.2 }",
        "cutmix = { alpha = 1.0 }\nper = \"pair\"",
    ] {
        let recipe = read(&(with_steps("") + "[mix]\n" + mix)).unwrap();
        assert_eq!(read(&recipe.to_toml()).unwrap(), recipe, "{mix}");
    }
}

#[test]
fn the_digest_is_of_what_is_done() {
    let text = with_steps("[[steps]]\nkind = \"policy\"\n");
    let digest = |text: &str| read(text).unwrap().digest();
    let named = format!("name = \"other\"\ndescription = \"said\"\n{text}");
    assert_eq!(digest(&named), digest(&text));
    assert_eq!(
        digest(&text.replace('\n', "\n\n# a comment\n")),
        digest(&text)
    );
    assert_ne!(digest(&text.replace("32", "33")), digest(&text));
    assert_ne!(digest(&text.replace("0.25", "0.26")), digest(&text));
    let mixed = text.clone() + "[mix]\nmixup = { alpha = 0.2 }\n";
    assert_ne!(digest(&mixed), digest(&text));
}

/// Text of steps, then the line (of the whole text) and the words of the refusal.
#[test]
fn unknown_and_contradictory_fields_are_refused_by_name_and_line() {
    let step = |fields: &str| format!("[[steps]]\n{fields}\n");
    let rrc = |fields: &str| step(&format!("kind = \"random-resized-crop\"\n{fields}"));
    let kind = |kind: &str| step(&format!("kind = \"{kind}\""));
    let cases = [
        (
            rrc("scal = [0.1, 1]"),
            4,
            "steps[0].scal: unknown field, did you mean `scale`?",
        ),
        (
            rrc("fish = 1"),
            4,
            "steps[0].fish: unknown field; known are kind, scale, ratio",
        ),
        (
            rrc("scale = [0.5, 0.2]"),
            4,
            "steps[0].scale: [0.5, 0.2]: expected 0 < low <= high <= 1",
        ),
        (
            rrc("scale = [0.5]"),
            4,
            "steps[0].scale: expected a list of 2 numbers",
        ),
        (
            rrc("scale = \"all\""),
            4,
            "steps[0].scale: expected a list of 2 numbers, found string",
        ),
        (rrc("scale = [nan, 1]"), 4, "steps[0].scale: [NaN, 1.0]"),
        (rrc("ratio = [0, 1]"), 4, "steps[0].ratio: [0.0, 1.0]"),
        (
            rrc("interpolation = \"bicubc\""),
            4,
            "unknown value `bicubc`, did you mean `bicubic`?",
        ),
        (
            rrc("antialias = false\npass_order = \"pillow13\""),
            5,
            "steps[0].pass_order: contradicts antialias = false",
        ),
        (
            rrc("antialias = 1"),
            4,
            "steps[0].antialias: expected true or false, found integer",
        ),
        (
            step("kind = \"cut-out\""),
            3,
            "steps[0].kind: unknown kind `cut-out`, did you mean `cutout`?",
        ),
        (
            step("kind = 3"),
            3,
            "steps[0].kind: expected one of the texts",
        ),
        (step("size = 3"), 2, "steps[0].kind: missing"),
        (kind("cutout"), 2, "steps[0].size: missing"),
        (
            step("kind = \"cutout\"\nsize = 8"),
            2,
            "steps[0]: cutout must come after normalize",
        ),
        (
            kind("policy") + &kind("policy"),
            4,
            "steps[1]: a second policy",
        ),
        (
            kind("policy") + &rrc(""),
            4,
            "steps[1]: random-resized-crop must be the first step",
        ),
        (
            kind("lighting") + &kind("policy"),
            4,
            "steps[1]: policy after lighting",
        ),
        (
            rrc("") + &kind("center-crop"),
            5,
            "steps[1]: center-crop after random-resized-crop",
        ),
        (
            kind("center-crop") + &kind("random-crop"),
            4,
            "steps[1]: a recipe crops once",
        ),
        (step("kind = \"resize\""), 2, "steps[0]: expected `shorter`"),
        (
            step("kind = \"resize\"\nshorter = 40\nexact = [40, 40]"),
            5,
            "steps[0].exact: contradicts `shorter`",
        ),
        (
            step("kind = \"resize\"\nshorter = 40"),
            4,
            "steps[0].shorter: nothing brings the resized image to 32x32",
        ),
        (
            step("kind = \"resize\"\nshorter = 0"),
            4,
            "steps[0].shorter: 0: expected 1 to",
        ),
        (
            step("kind = \"resize\"\nshorter = 20") + &step("kind = \"random-crop\"\npadding = 5"),
            7,
            "steps[1].padding: a side of 20 pixels",
        ),
        (
            step("kind = \"random-crop\"\npadding = -1"),
            4,
            "steps[0].padding: expected a whole number from 0 on",
        ),
        (
            step("kind = \"random-crop\"\npadding = 33"),
            4,
            "steps[0].padding: 33: expected at most 32",
        ),
        (
            step("kind = \"random-crop\"\nfill = 3"),
            2,
            "steps[0].padding: missing: padding_mode and fill say what a border is like",
        ),
        (
            step("kind = \"random-crop\"\npadding_mode = \"edge\""),
            2,
            "steps[0].padding: missing: padding_mode and fill",
        ),
        (
            step("kind = \"random-crop\"\nfill = 256"),
            4,
            "steps[0].fill: expected 0 to 255",
        ),
        (
            step("kind = \"random-crop\"\npadding_mode = \"edge\"\nfill = 0"),
            5,
            "steps[0].fill: contradicts padding_mode = \"edge\"",
        ),
        (
            step("kind = \"horizontal-flip\"\nprobability = 1.5"),
            4,
            "steps[0].probability: 1.5: expected 0 to 1",
        ),
        (
            step("kind = \"color-jitter\"\nhue = 0.6"),
            4,
            "steps[0].hue: [-0.6, 0.6]: expected -0.5",
        ),
        (
            step("kind = \"color-jitter\"\nbrightness = -1"),
            4,
            "steps[0].brightness: -1.0: expected 0 or more",
        ),
        (
            step("kind = \"color-jitter\"\ncontrast = [2, 1]"),
            4,
            "steps[0].contrast: [2.0, 1.0]",
        ),
        (
            step("kind = \"gaussian-blur\"\nsigma = [2, inf]"),
            4,
            "steps[0].sigma: [2.0, inf]",
        ),
        (
            step("kind = \"lighting\"\neigenvectors = [[1, 2, 3]]"),
            4,
            "steps[0].eigenvectors: expected a list of 3 lists of 3 numbers",
        ),
        (
            step("kind = \"lighting\"\nstd = -1"),
            4,
            "steps[0].std: -1.0: expected 0 or more",
        ),
    ];
    for (steps, line, words) in cases {
        let text = with_steps(&steps);
        let (found, reason) = refusal(&text);
        assert!(
            reason.starts_with(words) || reason.contains(words),
            "{reason}\n{text}"
        );
        assert_eq!(found, line, "{reason}\n{text}");
    }
}

#[test]
fn what_is_wrong_with_the_whole_is_refused() {
    let end = with_steps("").lines().count();
    let cases = [
        (with_steps("").replace("size = 32", ""), 1, "size: missing"),
        (
            with_steps("").replace("32", "0"),
            1,
            "size: 0: expected 1 to",
        ),
        (
            with_steps("").replace("32", "\"32\""),
            1,
            "size: expected a whole number",
        ),
        (
            with_steps("").replace("32", "99999999999"),
            1,
            "size: expected a whole number",
        ),
        ("size = 32\n".into(), 1, "steps: missing"),
        (
            "size = 32\nsteps = []".into(),
            2,
            "steps: there is no normalize step",
        ),
        ("size = 32\nsteps = 3".into(), 2, "steps: expected tables"),
        (
            "size = 32\nsteps = [3]".into(),
            2,
            "steps[0]: expected a table",
        ),
        (
            format!("step = 1\n{}", with_steps("")),
            1,
            "step: unknown field, did you mean `steps`?",
        ),
        (
            format!("name = \"\"\n{}", with_steps("")),
            1,
            "name: expected one line of 1 to 100",
        ),
        (
            with_steps("").replace("std", "sdt"),
            5,
            "steps[0].sdt: unknown field, did you mean `std`?",
        ),
        (with_steps("").replace("0.25", "0"), 5, "steps[0].std: "),
        (
            with_steps("").replace("mean", "# mean"),
            2,
            "steps[0].mean: missing",
        ),
        (with_steps("") + "kind = \"policy\"", end + 1, "not TOML: "),
        (
            with_steps("") + NORMALIZE,
            end + 1,
            "steps[1]: a second normalize",
        ),
        (
            with_steps("") + "[[steps]]\nkind = \"policy\"",
            end + 1,
            "steps[1]: policy after normalize",
        ),
        (with_steps("") + "[mix]", end + 1, "mix.mixup: neither"),
        (
            with_steps("") + "[mix]\nmixup = 0.2",
            end + 2,
            "mix.mixup: expected a table with alpha",
        ),
        (
            with_steps("") + "[mix]\nmixup = { alpha = 0 }",
            end + 2,
            "mix.mixup.alpha: 0: expected a number above 0",
        ),
        (
            with_steps("") + "[mix]\nmixup = { alhpa = 0 }",
            end + 2,
            "mix.mixup.alhpa: unknown field, did you mean `alpha`?",
        ),
        (
            with_steps("") + "[mix]\nmixup = {}",
            end + 2,
            "mix.mixup.alpha: missing",
        ),
        (
            with_steps("") + "[mix]\nmixup = { alpha = 1 }\nswitch_probability = 0.5",
            end + 3,
            "mix.switch_probability: contradicts",
        ),
        (
            with_steps("") + "[mix]\nmixup = { alpha = 1 }\nper = \"bach\"",
            end + 3,
            "mix.per: unknown value `bach`, did you mean `batch`?",
        ),
        (
            "size = ".to_owned() + &"9".repeat(100_000),
            1,
            "100007 bytes of text",
        ),
    ];
    for (text, line, words) in cases {
        let (found, reason) = refusal(&text);
        assert!(reason.starts_with(words), "{reason}\n{words}");
        assert_eq!(found, line, "{reason}");
    }
}

/// The document's example is one, and nothing is left out.
#[test]
fn the_document_is_complete() {
    let document = include_str!("../../../../docs/recipes.md");
    let example = document.split("```toml\n").nth(1).unwrap();
    let recipe = read(example.split("```").next().unwrap()).unwrap();
    assert_eq!((recipe.name(), recipe.steps().len()), ("mine", 5));
    for kind in Step::KINDS {
        assert!(document.contains(&format!("**`{kind}`**")), "{kind}");
    }
    for name in Recipe::NAMES {
        assert!(document.contains(&format!("| `{name}` |")), "{name}");
        let text = Recipe::named(name).unwrap().to_toml();
        for field in text.lines().filter_map(|line| line.split_once(" = ")) {
            assert!(
                document.contains(&format!("`{}`", field.0))
                    || document.contains(&format!("\n{} = ", field.0)),
                "{field:?}"
            );
        }
    }
}

/// Truncated and garbled texts are refused or read, never a panic.
#[test]
fn no_text_panics() {
    for cut in 0..EVERYTHING.len() {
        if let (Some(head), Some(tail)) = (EVERYTHING.get(..cut), EVERYTHING.get(cut..)) {
            let _ = read(head);
            let _ = read(tail);
            let _ = read(&format!("{head}]\u{0}{tail}"));
        }
    }
}
