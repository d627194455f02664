//! WebDataset shards, plain and compressed.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use ddas_formats::{
    Dataset, PackOptions, PackSummary, Result, ShardLabels, pack_webdataset, read_class_names,
    verify,
};

use crate::place::{Place, add};

/// A PNG as far as its header goes, different for each `mark`.
fn png(mark: &str) -> Vec<u8> {
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x05\0\0\0\x04\x08\x02\0\0\0",
        mark.as_bytes(),
    ]
    .concat()
}

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn pack(
    place: &Place,
    shards: &[PathBuf],
    labels: &ShardLabels,
    options: PackOptions<'_>,
) -> Result<(PackSummary, Dataset)> {
    let out = place.path("out.lmdb");
    let options = PackOptions {
        overwrite: true,
        ..options
    };
    let summary = pack_webdataset(shards, labels, &out, &options)?;
    let dataset = Dataset::open(&out)?;
    assert!(verify(&dataset, &|_| {})?.is_sound());
    assert_eq!(dataset.manifest(), &summary.manifest);
    Ok((summary, dataset))
}

fn compress(place: &Place, shard: &Path) -> PathBuf {
    let path = place.path(&format!(
        "{}.gz",
        shard.file_name().unwrap().to_str().unwrap()
    ));
    let mut encoder = flate2::write::GzEncoder::new(
        fs::File::create(&path).unwrap(),
        flate2::Compression::fast(),
    );
    encoder.write_all(&fs::read(shard).unwrap()).unwrap();
    encoder.finish().unwrap();
    path
}

/// Label and mark of each sample.
fn content(dataset: &Dataset) -> Vec<(i64, String)> {
    let reader = dataset.reader().unwrap();
    (0..dataset.len())
        .map(|index| {
            let sample = reader.get(index).unwrap();
            let mark = sample.payload[png("").len()..].to_vec();
            (sample.label, String::from_utf8(mark).unwrap())
        })
        .collect()
}

fn expect(pairs: &[(i64, &str)]) -> Vec<(i64, String)> {
    pairs
        .iter()
        .map(|&(label, mark)| (label, mark.to_owned()))
        .collect()
}

/// One shard, one error: the message names the shard, and what else is given.
fn refused(place: &Place, shard: &Path, labels: &ShardLabels, parts: &[&str]) {
    let before = place.names();
    let out = place.path("refused.lmdb");
    let error = pack_webdataset(&[shard.to_owned()], labels, &out, &PackOptions::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        place.names(),
        before,
        "left something behind after: {error}"
    );
    for part in parts.iter().chain(&[shard.to_str().unwrap()]) {
        assert!(error.contains(part), "{error}\nlacks {part}");
    }
}

#[test]
fn samples_come_in_the_order_of_shards_and_members() {
    let place = Place::new();
    let second = place.tar(
        "b.tar",
        "",
        &[
            ("train/9.cls", text("2\n")),
            ("train/9.JPEG", png("nine")),
            ("train/1.png", png("one")),
            ("train/1.json", text("{\"not\": \"looked at\"}")),
            ("train/1.cls", text(" 0")),
            ("train/1.seg.png", png("another member")),
            ("__index__.txt", text("of the archive itself")),
        ],
    );
    let first = place.tar(
        "a.tar",
        "./",
        &[
            ("9.jpg", png("first")),
            ("9.txt", text("text")),
            ("9.cls", text("1")),
        ],
    );
    let (summary, dataset) = pack(
        &place,
        &[second.clone(), first.clone()],
        &ShardLabels::default(),
        PackOptions::default(),
    )
    .unwrap();
    assert_eq!(
        content(&dataset),
        expect(&[(2, "nine"), (0, "one"), (1, "first")])
    );
    assert_eq!(dataset.classes(), ["0", "1", "2"]);
    assert_eq!(dataset.manifest().packed.source, "webdataset");
    assert_eq!(dataset.manifest().packed.options["label"], "cls");
    assert_eq!(summary.ignored, 3);

    // Compression, threads and their number change nothing; a limit takes samples at equal distances.
    let shards = [compress(&place, &second), compress(&place, &first)];
    for jobs in [1, 3] {
        let options = PackOptions {
            jobs,
            ..PackOptions::default()
        };
        let (again, _) = pack(&place, &shards, &ShardLabels::default(), options).unwrap();
        assert_eq!(again.manifest.content_hash, summary.manifest.content_hash);
    }
    let options = PackOptions {
        limit: Some(2),
        ..PackOptions::default()
    };
    let (_, dataset) = pack(&place, &[second, first], &ShardLabels::default(), options).unwrap();
    assert_eq!(content(&dataset), expect(&[(2, "nine"), (0, "one")]));
    assert_eq!(
        place.names(),
        ["a.tar", "a.tar.gz", "b.tar", "b.tar.gz", "out.lmdb"]
    );
}

#[test]
fn many_shards_of_many_samples_keep_their_order_on_many_threads() {
    let place = Place::new();
    let mut shards = Vec::new();
    let mut expected = Vec::new();
    for shard in 0..7 {
        let mut files = Vec::new();
        let names: Vec<(String, String)> = (0..150)
            .map(|sample| (format!("{sample:04}.png"), format!("{sample:04}.cls")))
            .collect();
        for (sample, (image, cls)) in names.iter().enumerate() {
            let mark = format!("{shard} {sample}");
            files.push((image.as_str(), png(&mark)));
            files.push((cls.as_str(), text(&(sample % 5).to_string())));
            expected.push(((sample % 5) as i64, mark));
        }
        let plain = place.tar(&format!("s{shard}.tar"), "", &files);
        shards.push(if shard % 2 == 0 {
            plain
        } else {
            compress(&place, &plain)
        });
    }
    for jobs in [1, 4] {
        let options = PackOptions {
            jobs,
            ..PackOptions::default()
        };
        let (_, dataset) = pack(&place, &shards, &ShardLabels::default(), options).unwrap();
        assert!(content(&dataset) == expected);
    }
}

#[test]
fn labels_come_as_numbers_as_names_or_from_a_field() {
    let place = Place::new();
    let shard = place.tar(
        "a.tar",
        "",
        &[
            ("1.png", png("1")),
            ("1.txt", text("wolf\n")),
            ("1.json", text(r#"{"kind": 1, "name": "b"}"#)),
            ("2.png", png("2")),
            ("2.txt", text("ant")),
            ("2.json", text(r#"{"kind": 0, "name": "c"}"#)),
        ],
    );
    let shards = [shard.clone()];
    let with = |classes: Option<&[&str]>, field: Option<&str>| ShardLabels {
        classes: classes.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
        field: field.map(str::to_owned),
    };
    for (labels, expected, classes) in [
        (with(None, None), [1, 0], &["ant", "wolf"][..]),
        (
            with(Some(&["wolf", "cow", "ant"]), None),
            [0, 2],
            &["wolf", "cow", "ant"],
        ),
        (with(None, Some("kind")), [1, 0], &["0", "1"]),
        (
            with(Some(&["x", "y", "z"]), Some("kind")),
            [1, 0],
            &["x", "y", "z"],
        ),
        (with(None, Some("name")), [0, 1], &["b", "c"]),
    ] {
        let (_, dataset) = pack(&place, &shards, &labels, PackOptions::default()).unwrap();
        assert_eq!(
            content(&dataset),
            expect(&[(expected[0], "1"), (expected[1], "2")]),
            "{labels:?}"
        );
        assert_eq!(dataset.classes(), classes);
    }
    refused(
        &place,
        &shard,
        &with(Some(&["wolf"]), None),
        &["sample `2`", "class `ant` is not among"],
    );
    refused(
        &place,
        &shard,
        &with(Some(&["x"]), Some("kind")),
        &["sample `1`", "class 1; 1 class is named"],
    );
    refused(
        &place,
        &shard,
        &with(None, Some("colour")),
        &["sample `1`", "field `colour`", "missing"],
    );

    let list = place.path("classes.txt");
    fs::write(&list, "tench\n tabby cat \n").unwrap();
    assert_eq!(read_class_names(&list).unwrap(), ["tench", "tabby cat"]);
    for (content, part) in [
        ("", "no class names"),
        ("a\n\nb", "line 2 is empty"),
        ("a\nb\na\n", "line 3 names `a` again"),
    ] {
        fs::write(&list, content).unwrap();
        let error = read_class_names(&list).unwrap_err().to_string();
        assert!(
            error.contains(part) && error.contains("classes.txt"),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_sample_is_named_by_shard_and_key() {
    let place = Place::new();
    let good = || vec![("0.png", png("good")), ("0.cls", text("0"))];
    let with = |more: &[(&'static str, Vec<u8>)]| {
        good()
            .into_iter()
            .chain(more.iter().cloned())
            .collect::<Vec<_>>()
    };
    let numbers = ShardLabels::default();
    for (more, parts) in [
        (
            vec![
                ("1.cls", text("0")),
                ("1.webp", text("")),
                ("1.json", text("{}")),
            ],
            [
                "sample `1`",
                "no image: expected a member `jpg`, `jpeg` or `png`, found `cls`, `webp` and `json`",
            ],
        ),
        (
            vec![("1.png", png(""))],
            ["sample `1`", "or `txt` with the name, found `png`"],
        ),
        (
            vec![("1.png", png("")), ("1.txt", text("cat"))],
            ["sample `1`", "no member `cls`, which other samples have"],
        ),
        (
            vec![("1.png", png("")), ("1.cls", text("cat"))],
            ["sample `1`", "`cls` holds \"cat\"; expected the number"],
        ),
        (
            vec![("1.png", png("")), ("1.cls", text("1")), ("1.PNG", png(""))],
            ["sample `1`", "the member `png` comes twice"],
        ),
        (
            vec![("1.png", png("")), ("1.cls", text("1")), ("1.jpg", png(""))],
            ["sample `1`", "two images, `png` and `jpg`"],
        ),
        (
            vec![
                ("x/1.png", png("")),
                ("x/1.cls", text("1")),
                ("0.png", png("")),
            ],
            ["sample `0`", "came before in this shard"],
        ),
        (
            vec![("1.png", text("no PNG")), ("1.cls", text("1"))],
            ["sample `1`", "not a JPEG or PNG"],
        ),
    ] {
        let shard = place.tar("bad.tar", "", &with(&more));
        refused(&place, &shard, &numbers, &parts);
        refused(&place, &compress(&place, &shard), &numbers, &parts);

        let options = PackOptions {
            allow_bad: true,
            ..PackOptions::default()
        };
        let (summary, _) = pack(&place, &[shard], &numbers, options).unwrap();
        assert!(summary.samples >= 1);
        assert_eq!(summary.skipped.len(), 1, "{:?}", summary.skipped);
        assert!(
            summary.skipped[0].path.contains(parts[0]),
            "{:?}",
            summary.skipped
        );
        assert!(
            summary.skipped[0].reason.contains(parts[1]),
            "{:?}",
            summary.skipped
        );
    }
    let only_bad = place.tar("bad.tar", "", &[("1.cls", text("0"))]);
    let options = PackOptions {
        allow_bad: true,
        ..PackOptions::default()
    };
    let error = pack(&place, &[only_bad], &numbers, options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("the only image is bad: no image"), "{error}");
}

#[test]
fn what_is_no_shard_is_refused() {
    let place = Place::new();
    let numbers = ShardLabels::default();
    let shard = place.tar(
        "good.tar",
        "",
        &[("0.png", png("good")), ("0.cls", text("0"))],
    );
    let (plain, packed) = (
        fs::read(&shard).unwrap(),
        fs::read(compress(&place, &shard)).unwrap(),
    );
    let bad = place.path("bad.tar");
    for (bytes, part) in [
        (&b""[..], "cut short"),
        (&[7; 2000], "not a tar archive"),
        (&plain[..600], "cut short"),
        (&plain[..1536], "cut short"),
        (&packed[..packed.len() - 6], "not a sound .tar.gz"),
    ] {
        fs::write(&bad, bytes).unwrap();
        refused(&place, &bad, &numbers, &[part]);
    }
    let folder = place.folder("folder", &[("0.png", png(""))]);
    refused(
        &place,
        &folder,
        &numbers,
        &["a folder; expected .tar shards"],
    );
    refused(
        &place,
        &place.path("absent.tar"),
        &numbers,
        &["No such file"],
    );
    for (name, part) in [("../0.png", "`..`"), ("/0.png", "absolute")] {
        let mut tar = tar::Builder::new(fs::File::create(&bad).unwrap());
        add(&mut tar, name, b"x");
        tar.finish().unwrap();
        refused(&place, &bad, &numbers, &[part]);
    }
    let error = pack_webdataset(
        &[],
        &numbers,
        &place.path("out.lmdb"),
        &PackOptions::default(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("no shards"), "{error}");
}
