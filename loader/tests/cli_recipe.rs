//! Recipes by name and from files, from the command line to the batches.

mod cli_support;

use std::fs;

use cli_support::Sandbox;
use ddas_runtime::Recipe;

#[test]
fn what_show_prints_is_the_same_recipe() {
    let sandbox = Sandbox::new();
    let list = sandbox.run("recipe show --list").succeeded();
    for name in Recipe::NAMES {
        assert!(list.lines().any(|line| line.starts_with(name)), "{list}");
        let text = sandbox.run(&format!("recipe show {name}")).succeeded();
        fs::write(sandbox.path("copy.toml"), &text).unwrap();
        let again = sandbox.run("recipe show copy.toml").succeeded();
        assert_eq!(again, text);
        let sound = sandbox.run("recipe check copy.toml").succeeded();
        let digest = Recipe::named(name).unwrap().digest();
        assert!(sound.contains(&format!("digest {digest:016x}")), "{sound}");
        let one = name == "cifar-eval";
        assert_eq!(sound.contains(" 1 step, "), one, "{sound}");
    }
}

#[test]
fn a_file_is_served_as_the_recipe_it_is() {
    let sandbox = Sandbox::new();
    sandbox.dataset("noise.lmdb", 40);
    let text = sandbox.run("recipe show cifar").succeeded();
    fs::write(
        sandbox.path("same.toml"),
        text.replace("\"cifar\"", "\"mine\""),
    )
    .unwrap();
    fs::write(
        sandbox.path("large.toml"),
        text.replace("size = 16", "size = 20"),
    )
    .unwrap();
    let hashes = |name: &str, recipe: &str| {
        let serve = format!("noise.lmdb --recipe {recipe} --epochs 1 --batch-size 16 --seed 3");
        sandbox.hashes(name, &serve)
    };
    let named = hashes("named", "cifar");
    assert_eq!(hashes("same", "same.toml"), named);
    assert_ne!(hashes("large", "large.toml"), named);

    let daemon = sandbox
        .serve("noise.lmdb --name told --recipe same.toml --epochs 1 --batch-size 16 --grace 0.2");
    let consumer = sandbox.connect("told", 0);
    let info = consumer.info();
    assert_eq!(info.recipe, "mine");
    let digest = Recipe::named("cifar").unwrap().digest();
    assert_eq!(info.recipe_digest, format!("{digest:016x}"));
    drop(consumer);
    drop(daemon);

    sandbox
        .run("bench noise.lmdb --recipe large.toml --seconds 0.1")
        .succeeded();
    sandbox
        .run("preview noise.lmdb --recipe large.toml -o sheet.png --samples 2")
        .succeeded();
}

#[test]
fn bad_recipes_are_named_with_their_line() {
    let sandbox = Sandbox::new();
    sandbox.dataset("noise.lmdb", 4);
    let text = sandbox.run("recipe show imagenet").succeeded();
    fs::write(sandbox.path("bad.toml"), text.replace("scale", "scal")).unwrap();
    let words = [
        "bad.toml",
        "line 7",
        "steps[0].scal",
        "did you mean `scale`?",
    ];
    for command in [
        "recipe check bad.toml",
        "recipe show bad.toml",
        "serve noise.lmdb --name bad --recipe bad.toml --epochs 1 --batch-size 4",
        "bench noise.lmdb --recipe bad.toml",
        "preview noise.lmdb --recipe bad.toml -o sheet.png",
    ] {
        sandbox.run(command).failed(1, &words);
    }
    sandbox
        .run("recipe check missing.toml")
        .failed(1, &["missing.toml"]);
    sandbox
        .run("recipe show imagnet")
        .failed(2, &["imagnet", "imagenet-eval", ".toml"]);
    sandbox.run("recipe show detection").failed(2, &["boxes"]);
    sandbox
        .run("recipe draw cifar --image 40x30")
        .failed(2, &["--image", "32x32"]);
}

#[test]
fn draws_are_those_of_the_stream() {
    let sandbox = Sandbox::new();
    let lines = sandbox
        .run("recipe draw imagenet --image 500x375 --seed 6 --epoch 2 --first 11 --samples 2")
        .succeeded();
    let mut actions = Vec::new();
    let recipe = Recipe::named("imagenet").unwrap();
    for (line, index) in lines.lines().zip(11..) {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["index"], index);
        recipe.draw(6, 2, index, (500, 375), &mut actions);
        let drawn = value["actions"].as_array().unwrap();
        assert_eq!(drawn.len(), actions.len());
        let ddas_runtime::Action::ResizeCrop { crop, .. } = actions[0] else {
            panic!("{:?}", actions[0]);
        };
        let expected = serde_json::json!(["resized-crop", crop.x, crop.y, crop.width, crop.height]);
        assert_eq!(drawn[0], expected);
    }
    assert_eq!(lines.lines().count(), 2);
}
