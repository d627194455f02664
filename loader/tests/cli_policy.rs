//! `ddas-loader policy`: built-in policies, pictures, exports.

mod cli_support;

use std::fs;

use cli_support::Sandbox;

#[test]
fn builtin_policies_are_written_shown_and_drawn() {
    let sandbox = Sandbox::new();
    let list = sandbox.run("policy builtin --list").succeeded();
    for name in ["identity", "randaugment-timm", "autoaugment-v0"] {
        assert!(list.contains(name), "{list}");
    }
    let made = sandbox
        .run("policy builtin randaugment --draws 3 --magnitude 12 -o ra.json")
        .succeeded();
    assert!(
        made.contains("1 snapshot of 14 operations (randaugment-n3-m12)"),
        "{made}"
    );
    let shown = sandbox.run("policy show ra.json").succeeded();
    assert!(
        shown.contains("3 draws per sample") && shown.contains("0.0714  Rotate ±12°"),
        "{shown}"
    );

    let made = sandbox
        .run("policy builtin rand-m9-n3-mstd0.5-inc1 -o timm.json")
        .succeeded();
    assert!(made.contains("17 with a varied argument"), "{made}");
    let shown = sandbox.run("policy show timm.json").succeeded();
    assert!(shown.contains("Rotate ±~27 (sd 1.5)°"), "{shown}");

    sandbox
        .run("policy builtin autoaugment-cifar10 -o aa.json")
        .succeeded();
    let checked = sandbox.run("policy check aa.json").succeeded();
    assert!(
        checked.contains("sound: 1 snapshot of 25 operations"),
        "{checked}"
    );
    let shown = sandbox.run("policy show aa.json").succeeded();
    assert!(
        shown.contains("0.0400  Invert p0.1, Contrast x1±0.6 p0.2"),
        "{shown}"
    );
    assert!(shown.contains("0.2000        7  AutoContrast"), "{shown}");
    let json: serde_json::Value =
        serde_json::from_str(&sandbox.run("policy show aa.json --json").succeeded()).unwrap();
    let first = &json["snapshots"][0]["operations"][0];
    assert_eq!(first["entry"]["steps"][0]["probability"], 0.1);

    sandbox.run("policy plot aa.json -o aa.PNG").succeeded();
    let png = fs::read(sandbox.path("aa.PNG")).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    sandbox
        .run("policy plot aa.json -o aa.pdf")
        .failed(2, &["aa.pdf", ".svg or .png"]);
}

#[test]
fn wrong_builtin_policies_are_wrong_usage() {
    let sandbox = Sandbox::new();
    for (arguments, named) in [
        ("policy builtin randaugement -o x.json", "randaugment-tf"),
        (
            "policy builtin randaugment --magnitude 31 -o x.json",
            "magnitude: 31",
        ),
        (
            "policy builtin autoaugment-svhn --draws 2 -o x.json",
            "draws",
        ),
        (
            "policy builtin rand-m9-tweights -o x.json",
            "without replacement",
        ),
    ] {
        sandbox.run(arguments).failed(2, &[named]);
    }
    assert!(!sandbox.path("x.json").exists());
}

#[test]
fn exports_say_what_differs() {
    let sandbox = Sandbox::new();
    sandbox
        .run("policy builtin autoaugment-imagenet -o aa.json")
        .succeeded();
    let said = sandbox
        .run("policy export aa.json --to albumentations --epoch 3 --epochs 10 -o aa.albumentations.json")
        .succeeded();
    assert!(said.contains("snapshot 0 for albumentations;"), "{said}");
    let document: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(sandbox.path("aa.albumentations.json")).unwrap())
            .unwrap();
    assert_eq!(document["transform"]["__class_fullname__"], "Compose");
    assert!(document["ddas"]["notes"].as_array().unwrap().len() > 10);
    sandbox
        .run("policy export aa.json --to albumentations --epoch 3 --epochs 10 --strict -o strict.json")
        .failed(1, &["Equalize", "--strict"]);
    assert!(!sandbox.path("strict.json").exists());
    for library in ["mmpretrain", "mmdetection"] {
        let text = sandbox
            .run(&format!(
                "policy export aa.json --to {library} --epoch 0 --epochs 1"
            ))
            .succeeded();
        assert!(
            text.contains("type='RandomChoice'") && text.contains("# exact: Invert"),
            "{text}"
        );
    }
    sandbox
        .run("policy export aa.json --to mmpretrain --epoch 10 --epochs 10")
        .failed(2, &["--epoch 10"]);

    // Nothing to excuse: strict is content.
    sandbox
        .run("policy builtin identity -o none.json")
        .succeeded();
    sandbox
        .run("policy export none.json --to albumentations --epoch 0 --epochs 1 --strict")
        .succeeded();
}
