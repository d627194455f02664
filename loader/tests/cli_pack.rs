//! `pack`, and what can be done with a packed dataset: inspect, verify, preview, bench; policies on the command line.

mod cli_support;

use std::fs;
use std::path::Path;

use cli_support::{Sandbox, pixels};
use ddas_formats::Dataset;
use ddas_runtime::{ChromaSubsampling, Image, encode_jpeg};

/// Three classes of four images; the odd ones are wider than high.
fn image_folder(root: &Path) {
    for (number, class) in ["zebra", "ant", "bee"].into_iter().enumerate() {
        fs::create_dir_all(root.join(class)).unwrap();
        for image in 0..4 {
            let index = (number * 4 + image) as u64;
            let width = 32 + 8 * (index as u32 % 2);
            let data = pixels(index).repeat(2);
            write_png(
                &root.join(class).join(format!("{image}.png")),
                width,
                32,
                &data[..(width * 32 * 3) as usize],
            );
        }
    }
}

fn write_png(path: &Path, width: u32, height: u32, rgb: &[u8]) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder
        .write_header()
        .unwrap()
        .write_image_data(rgb)
        .unwrap();
}

fn content_hash(sandbox: &Sandbox, dataset: &str) -> String {
    let manifest = sandbox
        .run(&format!("inspect {dataset} --json"))
        .succeeded();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    manifest["content_hash"].as_str().unwrap().to_owned()
}

#[test]
fn a_folder_of_images_becomes_a_dataset_that_can_be_served() {
    let sandbox = Sandbox::new();
    image_folder(&sandbox.path("images"));
    let summary = sandbox
        .run("pack image-folder images images.lmdb --jobs 3")
        .succeeded();
    assert!(
        summary.starts_with("images.lmdb: 12 samples in 3 classes, "),
        "{summary}"
    );
    assert!(
        summary.contains(" images/s, ") && summary.contains(" MB/s)"),
        "{summary}"
    );

    // Labels are the classes' places by name; the files are stored as they are.
    let dataset = Dataset::open(&sandbox.path("images.lmdb")).unwrap();
    assert_eq!(dataset.classes(), ["ant", "bee", "zebra"]);
    let reader = dataset.reader().unwrap();
    let first = reader.get(0).unwrap();
    assert_eq!(
        (first.label, first.payload),
        (0, &fs::read(sandbox.path("images/ant/0.png")).unwrap()[..])
    );

    let shown = sandbox.run("inspect images.lmdb").succeeded();
    assert!(
        shown.contains("samples       12\n") && shown.contains("zebra  4\n"),
        "{shown}"
    );
    assert!(
        sandbox
            .run("verify images.lmdb")
            .succeeded()
            .contains("all 12 samples are sound")
    );

    let serve = "images.lmdb --recipe imagenet --epochs 2 --batch-size 5 --dtype u8 --layout nhwc";
    let hashes = sandbox.hashes("images", serve);
    assert_eq!(hashes.len(), 8);
    assert_eq!(
        sandbox.hashes("again", &format!("{serve} --threads 3")),
        hashes
    );

    // The number of jobs leaves no trace, and a second packing needs a word.
    sandbox
        .run("pack image-folder images images.lmdb")
        .failed(1, &["images.lmdb", "--overwrite"]);
    let hash = content_hash(&sandbox, "images.lmdb");
    sandbox
        .run("pack image-folder images images.lmdb --overwrite --jobs 1")
        .succeeded();
    assert_eq!(content_hash(&sandbox, "images.lmdb"), hash);
    let limited = sandbox
        .run("pack image-folder images few.lmdb --limit 6")
        .succeeded();
    assert!(limited.contains("6 samples in 3 classes"), "{limited}");
}

#[test]
fn files_that_are_no_images_end_the_packing_or_are_left_out() {
    let sandbox = Sandbox::new();
    image_folder(&sandbox.path("images"));
    fs::write(sandbox.path("images/bee/notes.jpg"), "not an image at all").unwrap();
    let bad = sandbox.run("pack image-folder images images.lmdb");
    bad.failed(1, &["bee/notes.jpg", "not"]);
    assert!(
        !sandbox.path("images.lmdb").exists(),
        "a failed packing leaves nothing"
    );
    // Half an image: the header is sound, the pixels are missing.
    let whole = fs::read(sandbox.path("images/ant/1.png")).unwrap();
    fs::write(
        sandbox.path("images/ant/half.png"),
        &whole[..whole.len() / 2],
    )
    .unwrap();
    let summary = sandbox
        .run("pack image-folder images images.lmdb --allow-bad")
        .succeeded();
    assert!(
        summary.contains("12 samples") && summary.contains("2 samples left out:"),
        "{summary}"
    );
    assert!(
        summary.contains("bee/notes.jpg: ") && summary.contains("ant/half.png: "),
        "{summary}"
    );
}

#[test]
fn sources_without_images_are_refused() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("empty")).unwrap();
    sandbox
        .run("pack image-folder empty out.lmdb")
        .failed(1, &["empty"]);
    fs::create_dir_all(sandbox.path("hollow/class")).unwrap();
    sandbox
        .run("pack image-folder hollow out.lmdb")
        .failed(1, &["hollow"]);
    sandbox
        .run("pack image-folder nowhere out.lmdb")
        .failed(1, &["nowhere"]);
    fs::write(sandbox.path("text.tar"), "this is no tar archive").unwrap();
    sandbox
        .run("pack image-folder text.tar out.lmdb")
        .failed(1, &["text.tar", "a folder or a .tar of class folders"]);
    sandbox
        .run("pack cifar text.tar out.lmdb --split train")
        .failed(
            1,
            &["text.tar", "CIFAR-10 or CIFAR-100, or its .tar or .tar.gz"],
        );
    sandbox
        .run("pack image-folder hollow nowhere/out.lmdb")
        .failed(1, &["nowhere/out.lmdb", "does not exist; make it first"]);
    sandbox
        .run("pack cifar empty out.lmdb --split train")
        .failed(1, &["empty"]);
    assert!(!sandbox.path("out.lmdb").exists());
    assert_eq!(
        sandbox.run("pack cifar empty out.lmdb").status.code(),
        Some(2)
    );
}

#[test]
fn the_binary_version_of_cifar_becomes_a_dataset() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("cifar-10-batches-bin");
    fs::create_dir(&folder).unwrap();
    let names = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n";
    fs::write(folder.join("batches.meta.txt"), names).unwrap();
    // A record is a label and the red, green and blue planes.
    let record = |index: u64| [&[(index % 10) as u8][..], &pixels(index)].concat();
    for file in 1..=5u64 {
        let records: Vec<u8> = (0..10_000)
            .flat_map(|n| record(file * 10_000 + n % 20))
            .collect();
        fs::write(folder.join(format!("data_batch_{file}.bin")), records).unwrap();
    }
    sandbox
        .run("pack cifar cifar-10-batches-bin train.lmdb --split train --limit 200")
        .succeeded();
    let dataset = Dataset::open(&sandbox.path("train.lmdb")).unwrap();
    assert_eq!(
        (dataset.len(), dataset.classes()[9].as_str()),
        (200, "truck")
    );
    let reader = dataset.reader().unwrap();
    let sample = reader.get(0).unwrap();
    let planes = pixels(10_000);
    assert_eq!((sample.label, sample.width, sample.height), (0, 32, 32));
    assert_eq!(
        sample.payload[..6],
        [
            planes[0],
            planes[1024],
            planes[2048],
            planes[1],
            planes[1025],
            planes[2049]
        ]
    );
}

#[test]
fn a_contact_sheet_shows_the_stored_image_beside_its_augmentations() {
    let sandbox = Sandbox::new();
    sandbox.dataset("noise.lmdb", 20);
    sandbox.policy("policy.json");
    let said = sandbox
        .run("preview noise.lmdb --policy policy.json --epochs 9 --epoch 0 --epoch 8 --samples 3 -o sheet.png")
        .succeeded();
    let decoder = png::Decoder::new(std::io::BufReader::new(
        fs::File::open(sandbox.path("sheet.png")).unwrap(),
    ));
    let mut reader = decoder.read_info().unwrap();
    let mut sheet = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut sheet).unwrap();
    assert!(
        said.contains(&format!("{} x {} pixels", info.width, info.height)),
        "{said}"
    );
    // The stored column of the first row holds the sample that the order puts first, six times enlarged.
    let index = ddas_loader::EpochOrder::new(0, 0, 20).at(0);
    let expected = pixels(index);
    let (left, top, scale) = (8, 27, 6);
    for (y, x) in [(0, 0), (5, 17), (31, 31)] {
        let place = ((top + y * scale) * info.width as usize + left + x * scale) * 3;
        assert_eq!(
            sheet[place..place + 3],
            expected[(y * 32 + x) * 3..][..3],
            "pixel {x}, {y}"
        );
    }
}

#[test]
fn bench_accounts_for_the_time_of_every_stage() {
    let sandbox = Sandbox::new();
    sandbox.dataset("noise.lmdb", 64);
    sandbox.policy("policy.json");
    let json = sandbox
        .run(
            "bench noise.lmdb --recipe cifar --policy policy.json --seconds 0.2 --threads 2 --json",
        )
        .succeeded();
    let measured: serde_json::Value = serde_json::from_str(&json).unwrap();
    let samples = measured["samples"].as_u64().unwrap();
    assert!(samples >= 64);
    let number = |name: &str| measured[name].as_f64().unwrap();
    let images = number("images_per_core_second") * number("core_seconds");
    assert!((images / samples as f64 - 1.0).abs() < 1e-6, "{images}");
    let stages = measured["stages"].as_array().unwrap();
    let names: Vec<&str> = stages
        .iter()
        .map(|stage| stage["stage"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["read", "decode", "augment", "write", "wait"]);
    let shares: f64 = stages
        .iter()
        .map(|stage| stage["share"].as_f64().unwrap())
        .sum();
    assert!((shares - 1.0).abs() < 1e-6, "{shares}");
    let text = sandbox
        .run("bench noise.lmdb --recipe cifar --seconds 0.1")
        .succeeded();
    assert!(
        text.contains("images/s") && text.contains("the limit is the "),
        "{text}"
    );
}

#[test]
fn policies_are_shown_checked_and_refused_by_field() {
    let sandbox = Sandbox::new();
    let policy = sandbox.policy("policy.json");
    let checked = sandbox
        .run("policy check policy.json policy.json")
        .succeeded();
    assert_eq!(
        checked
            .lines()
            .filter(|line| line.contains("3 snapshots of 68 operations (paper68)"))
            .count(),
        2
    );
    let shown = sandbox.run("policy show policy.json --top 1").succeeded();
    assert!(shown.contains("lowest 0.600, highest 0.900"), "{shown}");
    let shown: serde_json::Value =
        serde_json::from_str(&sandbox.run("policy show policy.json --json").succeeded()).unwrap();
    let strongest = &shown["snapshots"][1]["operations"][0];
    assert!((strongest["probability"].as_f64().unwrap() - (0.5 + 0.5 / 68.0)).abs() < 1e-12);

    sandbox
        .run("policy plot policy.json -o plot.svg")
        .succeeded();
    let plot = fs::read_to_string(sandbox.path("plot.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.trim_end().ends_with("</svg>"));
    // What is drawn from a policy does not replace it, by whatever path it is named.
    let before = fs::read(&policy).unwrap();
    sandbox
        .run("policy plot policy.json -o ./policy.json")
        .failed(2, &["policy.json", "the file that is read"]);
    assert_eq!(fs::read(&policy).unwrap(), before);
    sandbox
        .run("policy plot policy.json -o nowhere/plot.svg")
        .failed(1, &["nowhere/plot.svg"]);

    let mut document: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&policy).unwrap()).unwrap();
    document["snapshots"][1]["operation_probabilities"][2] = 2.0.into();
    fs::write(sandbox.path("bad.json"), document.to_string()).unwrap();
    sandbox.run("policy check policy.json bad.json").failed(
        1,
        &["bad.json", "snapshots[1]", "operation_probabilities[2]"],
    );
    sandbox
        .run("policy show nowhere.json")
        .failed(1, &["nowhere.json"]);
    fs::write(sandbox.path("fake.npy"), "no array").unwrap();
    sandbox
        .run("policy import fake.npy -o out.json")
        .failed(1, &["fake.npy"]);
    assert!(!sandbox.path("out.json").exists());
}

/// `ddas-loader policy show ... | head -1` must not end in a panic or a failure.
#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let sandbox = Sandbox::new();
    sandbox.policy("policy.json");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = sandbox
        .command(["policy", "show", "policy.json", "--json"])
        .stdout(writer)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.is_empty(),
        "{} {stderr}",
        output.status
    );
}

/// Appends a file to an archive under construction.
fn add(tar: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut header = vec![0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[148..156].fill(b' ');
    header[156] = b'0';
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend(header);
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

#[test]
fn webdataset_shards_become_a_dataset() {
    let sandbox = Sandbox::new();
    image_folder(&sandbox.path("images"));
    for shard in 0..2 {
        let mut tar = Vec::new();
        for image in 0..4 {
            let png = fs::read(sandbox.path(&format!("images/bee/{image}.png"))).unwrap();
            add(&mut tar, &format!("{shard}{image}.png"), &png);
            add(
                &mut tar,
                &format!("{shard}{image}.cls"),
                if shard == image { b"1" } else { b"0" },
            );
        }
        tar.extend([0; 1024]);
        fs::write(sandbox.path(&format!("s-0{shard}.tar")), tar).unwrap();
    }
    fs::write(sandbox.path("classes.txt"), "ant\nbee\n").unwrap();
    let summary = sandbox
        .run("pack webdataset s-{00..01}.tar all.lmdb --classes classes.txt --jobs 2")
        .succeeded();
    assert!(
        summary.starts_with("all.lmdb: 8 samples in 2 classes, "),
        "{summary}"
    );
    let dataset = Dataset::open(&sandbox.path("all.lmdb")).unwrap();
    let reader = dataset.reader().unwrap();
    let labels: Vec<i64> = (0..8)
        .map(|index| reader.get(index).unwrap().label)
        .collect();
    assert_eq!(labels, [1, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(
        reader.get(6).unwrap().payload,
        fs::read(sandbox.path("images/bee/2.png")).unwrap()
    );

    sandbox
        .run("pack webdataset s-{00..02}.tar more.lmdb")
        .failed(1, &["s-02.tar", "No such file"]);
    sandbox
        .run("pack webdataset s-{00}.tar more.lmdb")
        .failed(1, &["s-{00}.tar", "neither a range"]);
    assert_eq!(
        sandbox.run("pack webdataset only-one-name").status.code(),
        Some(2)
    );
}

/// Twenty times killed at a random moment and continued: nothing is lost, nothing comes twice.
#[test]
fn a_packing_survives_any_number_of_kills() {
    let sandbox = Sandbox::new();
    for class in ["a", "b"] {
        fs::create_dir_all(sandbox.path("images").join(class)).unwrap();
    }
    // 36 MiB that do not compress: nine transactions.
    let mut state = 1u64;
    for image in 0..96 {
        let rgb: Vec<u8> = (0..256 * 128 * 3)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        let name = format!("images/{}/{image:03}.png", ["a", "b"][image / 48]);
        match image % 40 {
            17 => fs::write(sandbox.path(&name), "text").unwrap(),
            _ => write_png(&sandbox.path(&name), 256, 128, &rgb),
        }
        for copy in 1..4 {
            let copied = name.replace(".png", &format!("-{copy}.png"));
            fs::copy(sandbox.path(&name), sandbox.path(&copied)).unwrap();
        }
    }
    sandbox
        .run("pack image-folder images whole.lmdb --allow-bad")
        .succeeded();
    let pack = "pack image-folder images out.lmdb --allow-bad --resume --jobs 2";
    let (mut kills, mut finished, mut resumed) = (0, 0, 0);
    while kills < 20 {
        let mut packer = sandbox.start(pack);
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        std::thread::sleep(std::time::Duration::from_millis(state >> 56));
        packer.kill();
        let ended = packer.end();
        if ended.status.success() {
            finished += 1;
        } else {
            assert_eq!(ended.status.code(), None, "{}", ended.stderr);
            kills += 1;
        }
        if sandbox.path("out.lmdb").exists() {
            assert_eq!(
                content_hash(&sandbox, "out.lmdb"),
                content_hash(&sandbox, "whole.lmdb")
            );
            resumed += u32::from(ended.stdout.contains("packed before, and not read again"));
            fs::remove_dir_all(sandbox.path("out.lmdb")).unwrap();
        }
    }
    let summary = sandbox.run(pack).succeeded();
    println!(
        "20 kills, {finished} finished in between, {resumed} of them resumed; the last: {summary}"
    );
    assert!(summary.contains("8 samples left out"), "{summary}");
    assert_eq!(
        content_hash(&sandbox, "out.lmdb"),
        content_hash(&sandbox, "whole.lmdb")
    );
    assert!(sandbox.run("verify out.lmdb").status.success());
    assert!(!sandbox.path("out.lmdb.partial").exists());
}

#[test]
fn a_stopped_packing_says_how_to_go_on() {
    use rustix::process::Signal;
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("images/a")).unwrap();
    let noise: Vec<u8> = (0..1_500_000u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    write_png(&sandbox.path("images/a/000.png"), 1000, 500, &noise);
    for image in 1..150 {
        fs::copy(
            sandbox.path("images/a/000.png"),
            sandbox.path(&format!("images/a/{image:03}.png")),
        )
        .unwrap();
    }
    for signal in [Signal::INT, Signal::TERM] {
        let packer = sandbox.start("pack image-folder images out.lmdb --jobs 1 --overwrite");
        let journal = sandbox.path("out.lmdb.partial/journal.jsonl");
        while !journal.exists() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        packer.signal(signal);
        let ended = packer.end();
        if ended.status.success() {
            continue; // A fast machine was done.
        }
        ended.failed(1, &["out.lmdb was stopped: "]);
        let resumed = sandbox
            .run("pack image-folder images out.lmdb --resume --overwrite")
            .succeeded();
        assert!(resumed.contains("150 samples in 1 class, "), "{resumed}");
        assert_eq!(
            ended.stderr.contains("--resume goes on"),
            resumed.contains("packed before"),
            "{resumed}"
        );
    }
}

#[test]
fn photographs_are_packed_with_an_index() {
    let sandbox = Sandbox::new();
    let (width, height) = (200, 130);
    let data: Vec<u8> = (0..30).flat_map(pixels).collect();
    let image = Image::from_rgb(width, height, data[..200 * 130 * 3].to_vec()).unwrap();
    let photo = encode_jpeg(&image, 80, ChromaSubsampling::Quarter).unwrap();
    fs::create_dir_all(sandbox.path("images/class")).unwrap();
    fs::write(sandbox.path("images/class/photo.jpg"), &photo).unwrap();
    fs::write(sandbox.path("images/class/small.jpg"), {
        let small = Image::from_rgb(32, 32, pixels(1)).unwrap();
        encode_jpeg(&small, 80, ChromaSubsampling::Quarter).unwrap()
    })
    .unwrap();
    for (out, flags, places) in [
        ("plain.lmdb", "", 4 * 9),
        ("smaller.lmdb", "--resize-shorter 129", 4 * 9),
    ] {
        sandbox
            .run(&format!("pack image-folder images {out} {flags}"))
            .succeeded();
        sandbox.run(&format!("verify {out}")).succeeded();
        let dataset = Dataset::open(&sandbox.path(out)).unwrap();
        let reader = dataset.reader().unwrap();
        let [stored, small] = [0, 1].map(|number| reader.get(number).unwrap());
        assert_eq!(stored.payload == photo, flags.is_empty());
        assert_eq!(stored.index.len(), 4 + 10 * places, "{out}");
        assert!(small.index.is_empty());
    }
}

#[test]
fn images_are_made_smaller_on_request() {
    let sandbox = Sandbox::new();
    image_folder(&sandbox.path("images"));
    for jobs in [1, 3] {
        sandbox
            .run(&format!(
                "pack image-folder images small{jobs}.lmdb --resize-shorter 16 --jobs {jobs}"
            ))
            .succeeded();
    }
    assert_eq!(
        content_hash(&sandbox, "small1.lmdb"),
        content_hash(&sandbox, "small3.lmdb")
    );
    let dataset = Dataset::open(&sandbox.path("small1.lmdb")).unwrap();
    let reader = dataset.reader().unwrap();
    for index in 0..dataset.len() {
        let sample = reader.get(index).unwrap();
        assert_eq!(sample.width.min(sample.height), 16);
    }
    assert_eq!(
        dataset.manifest().packed.options["transform"],
        "shorter side 16 bilinear, JPEG quality 90 4:2:0"
    );
}
