//! Bad input of every kind: one clear message and an exit status, never a panic, a signal or a hang.

mod cli_support;

use std::fs;

use cli_support::{Sandbox, flip_byte, pixels};
use ddas_formats::{DatasetWriter, Encoding, Packed};
use ddas_loader::EpochOrder;

#[test]
fn a_truncated_dataset_is_refused_by_every_command() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("cut.lmdb", 50);
    let data = dataset.join("data.mdb");
    let bytes = fs::read(&data).unwrap();
    for length in [bytes.len() / 2, bytes.len() - 1, 4096, 100, 0] {
        fs::write(&data, &bytes[..length]).unwrap();
        for command in [
            "inspect cut.lmdb",
            "verify cut.lmdb",
            "preview cut.lmdb -o sheet.png",
            "bench cut.lmdb --recipe cifar",
            "serve cut.lmdb --name cut --recipe cifar --epochs 1 --batch-size 8",
        ] {
            sandbox.run(command).failed(1, &["data.mdb"]);
        }
    }
}

#[test]
fn verify_names_the_flipped_sample() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("flipped.lmdb", 50);
    let sound = sandbox.run("verify flipped.lmdb").succeeded();
    assert!(sound.contains("all 50 samples are sound"), "{sound}");
    flip_byte(&dataset, 31);
    let ended = sandbox.run("verify flipped.lmdb");
    ended.failed(
        1,
        &["flipped.lmdb", "1 of 50 samples is damaged", "content hash"],
    );
    assert!(
        ended.stdout.starts_with("sample 31: damaged: "),
        "{}",
        ended.stdout
    );
    assert_eq!(ended.stdout.lines().count(), 1);
}

#[test]
fn a_flipped_sample_fails_the_daemon_and_its_consumers_with_its_name() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("flipped.lmdb", 100);
    // Late in the first epoch: the consumer is there when the daemon meets it.
    let bad = EpochOrder::new(9, 0, 100).at(95);
    flip_byte(&dataset, bad);
    let daemon = sandbox
        .serve("flipped.lmdb --name flipped --recipe cifar --epochs 1 --batch-size 4 --seed 9");
    let consumer = sandbox.run("consume flipped");
    let sample = format!("sample {bad} of");
    consumer.failed(
        1,
        &["the daemon stopped the stream", &sample, "flipped.lmdb"],
    );
    daemon
        .end()
        .failed(1, &[&sample, "flipped.lmdb", "needed at 0:23"]);
}

#[test]
fn datasets_that_are_none_are_refused() {
    let sandbox = Sandbox::new();
    let dataset = sandbox.dataset("half.lmdb", 20);
    fs::remove_file(dataset.join("manifest.json")).unwrap();
    sandbox
        .run("inspect half.lmdb")
        .failed(1, &["half.lmdb", "manifest.json"]);
    sandbox
        .run("serve half.lmdb --name half --recipe cifar --epochs 1 --batch-size 8")
        .failed(1, &["manifest.json"]);
    sandbox
        .run("verify nowhere.lmdb")
        .failed(1, &["nowhere.lmdb"]);
    fs::create_dir(sandbox.path("empty.lmdb")).unwrap();
    sandbox
        .run("inspect empty.lmdb")
        .failed(1, &["empty.lmdb", "manifest.json"]);
}

#[test]
fn serve_refuses_a_bad_policy_with_its_field() {
    let sandbox = Sandbox::new();
    sandbox.dataset("noise.lmdb", 20);
    let policy = sandbox.policy("policy.json");
    let sound: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&policy).unwrap()).unwrap();
    let change = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut document = sound.clone();
        change(&mut document);
        fs::write(sandbox.path("bad.json"), document.to_string()).unwrap();
    };
    let serve =
        "serve noise.lmdb --name bad --recipe cifar --epochs 1 --batch-size 8 --policy bad.json";
    change(&|document| {
        let probabilities = document["snapshots"][1]["operation_probabilities"]
            .as_array_mut()
            .unwrap();
        let last = probabilities.pop().unwrap().as_f64().unwrap();
        probabilities[0] = (probabilities[0].as_f64().unwrap() + last).into();
    });
    sandbox.run(serve).failed(
        1,
        &[
            "bad.json",
            "snapshots[1]",
            "operation_probabilities",
            "67",
            "68",
        ],
    );
    change(&|document| document["snapshots"][2]["operation_probabilities"][5] = 0.9.into());
    sandbox
        .run(serve)
        .failed(1, &["bad.json", "snapshots[2]", "operation_probabilities"]);
    change(&|document| document["snapshots"][0]["total_probability"] = 1.5.into());
    sandbox
        .run(serve)
        .failed(1, &["bad.json", "snapshots[0]", "total_probability"]);
    fs::write(sandbox.path("bad.json"), "{").unwrap();
    sandbox.run(serve).failed(1, &["bad.json"]);
    fs::remove_file(sandbox.path("bad.json")).unwrap();
    sandbox.run(serve).failed(1, &["bad.json"]);
}

#[test]
fn unknown_and_held_daemon_names_are_reported() {
    let sandbox = Sandbox::new();
    sandbox.dataset("noise.lmdb", 20);
    sandbox
        .run("consume nobody")
        .failed(1, &["no daemon named `nobody`"]);
    sandbox
        .run("consume nobody --connect-timeout 0")
        .failed(1, &["no daemon named `nobody`"]);
    sandbox
        .run("status nobody --json")
        .failed(1, &["no daemon named `nobody`"]);
    let serve = "noise.lmdb --name held --recipe cifar --epochs 1 --batch-size 8";
    let holder = sandbox.serve(serve);
    let process = format!("process {}", holder.pid());
    sandbox
        .run(&format!("serve {serve}"))
        .failed(1, &["`held`", "running daemon", &process]);
    sandbox
        .run("consume nobody")
        .failed(1, &["no daemon named `nobody`", "held"]);
    sandbox.run("consume held --rank 3").failed(1, &["rank 3"]);
    // None of this has disturbed it.
    sandbox.run("consume held").succeeded();
    holder.end().succeeded();
}

#[test]
fn names_that_no_daemon_can_have_are_wrong_usage() {
    let sandbox = Sandbox::new();
    sandbox.dataset("noise.lmdb", 20);
    let serve = "serve noise.lmdb --recipe cifar --epochs 1 --batch-size 8 --name";
    for name in ["a b", "no/slash", ".hidden"] {
        for command in [serve, "consume", "status", "top"] {
            let words = command.split(' ').chain([name]);
            let ended = sandbox.command(words).output().unwrap();
            let said = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(2), "{command} {name}: {said}");
            let expected = format!("bad daemon name `{name}`: expected 1 to 64");
            assert!(said.contains(&expected), "{command} {name}: {said}");
        }
    }
}

#[test]
fn runs_that_cannot_be_are_refused_with_what_could() {
    let sandbox = Sandbox::new();
    sandbox.dataset("noise.lmdb", 20);
    let serve = |more: &str| {
        sandbox.run(&format!(
            "serve noise.lmdb --name run --recipe cifar --epochs 3 {more}"
        ))
    };
    serve("--batch-size 12 --world-size 5").failed(2, &["legal world sizes: 1, 2, 3, 4, 6, 12"]);
    serve("--batch-size 64 --last drop").failed(1, &["20 samples", "64"]);
    serve("--batch-size 8 --start 3:0").failed(2, &["cannot start at 3:0", "epochs 0 to 2"]);
    // In a longer dataset there would be such a step.
    serve("--batch-size 8 --start 0:3").failed(1, &["cannot start at 0:3", "steps 0 to 2"]);
    sandbox
        .run("bench noise.lmdb --recipe cifar --epochs 5 --start 5:0 --batch-size 8")
        .failed(2, &["cannot start at 5:0"]);
    let mixing = format!(
        "{}\n[mix]\nmixup = {{ alpha = 0.4 }}\n",
        sandbox.run("recipe show cifar").succeeded()
    );
    fs::write(sandbox.path("mixing.toml"), mixing).unwrap();
    for (batch, legal) in [
        ("--batch-size 7", "none, take an even batch size"),
        (
            "--batch-size 12 --world-size 4",
            "legal world sizes: 1, 2, 3, 6",
        ),
    ] {
        sandbox
            .run(&format!(
                "serve noise.lmdb --name run --recipe mixing.toml --epochs 3 {batch}"
            ))
            .failed(2, &["two by two", legal]);
    }
    // More than any machine has: refused before anything is offered.
    serve("--batch-size 2000000000 --slots 64").failed(1, &[""]);
    for wrong in [
        "--batch-size 0",
        "--batch-size x",
        "--batch-size 8 --start 3",
        "--batch-size 8 --dtype f64",
        "",
    ] {
        assert_eq!(serve(wrong).status.code(), Some(2), "{wrong}");
    }
    assert_eq!(
        sandbox
            .run("serve noise.lmdb --name run --recipe no --epochs 1 --batch-size 8")
            .status
            .code(),
        Some(2)
    );
    sandbox
        .run("preview noise.lmdb -o sheet.png --epochs 5 --epoch 5")
        .failed(2, &["--epoch 5"]);
}

/// Sound checksums over bytes that are no image: only decoding finds it.
#[test]
fn a_sample_that_does_not_decode_is_named() {
    let sandbox = Sandbox::new();
    let mut writer = DatasetWriter::create(&sandbox.path("torn.lmdb"), false).unwrap();
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 32, 32);
    encoder.set_color(png::ColorType::Rgb);
    encoder
        .write_header()
        .unwrap()
        .write_image_data(&pixels(1))
        .unwrap();
    for index in 0..12 {
        let payload = if index == 7 {
            &png[..png.len() / 2]
        } else {
            &png[..]
        };
        writer.append(0, Encoding::Png, 32, 32, payload).unwrap();
    }
    writer
        .finish(vec!["only".to_owned()], Packed::default())
        .unwrap();
    let ended = sandbox.run("verify torn.lmdb");
    ended.failed(1, &["torn.lmdb", "1 of 12 samples does not decode"]);
    assert!(
        ended.stdout.starts_with("sample 7: does not decode: "),
        "{}",
        ended.stdout
    );
    sandbox
        .run("bench torn.lmdb --recipe cifar --seconds 0.1")
        .failed(1, &["sample 7 of torn.lmdb", "cannot be served"]);
}
