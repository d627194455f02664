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
