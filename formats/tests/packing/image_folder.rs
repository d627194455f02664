//! Class folders, as folders and as archives.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ddas_formats::{Dataset, Encoding, Error, ImageHeader, PackOptions, pack_image_folder, verify};

use crate::place::{Place, add};

/// A JPEG as far as its header goes, 8 x 6, different for each `mark`.
fn jpeg(mark: &str) -> Vec<u8> {
    [
        b"\xFF\xD8\xFF\xC0\0\x0B\x08\0\x06\0\x08\x01\x01\x11\0",
        mark.as_bytes(),
    ]
    .concat()
}

fn png(mark: &str) -> Vec<u8> {
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x05\0\0\0\x04\x08\x02\0\0\0",
        mark.as_bytes(),
    ]
    .concat()
}

/// Files that every packer of this test should understand in the same way.
fn pets() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("dog/b.JPG", jpeg("dog b")),
        ("dog/a.jpeg", jpeg("dog a")),
        ("cat/z.png", png("cat z")),
        ("cat/deep/er/y.Jpg", png("cat y: a PNG by its bytes")),
        ("cat.house/x.PNG", png("house x")),
        ("cat/.hidden.jpg", b"not looked at".to_vec()),
        (".cache/1.jpg", b"not looked at".to_vec()),
        ("cat/notes.txt", b"ignored".to_vec()),
        ("README", b"ignored".to_vec()),
    ]
}

/// Label and what follows the header of each sample.
fn content(dataset: &Dataset) -> Vec<(i64, String)> {
    let reader = dataset.reader().unwrap();
    (0..dataset.len())
        .map(|index| {
            let sample = reader.get(index).unwrap();
            let header = if sample.encoding == Encoding::Png {
                png("")
            } else {
                jpeg("")
            }
            .len();
            (
                sample.label,
                String::from_utf8(sample.payload[header..].to_vec()).unwrap(),
            )
        })
        .collect()
}

#[test]
fn folders_and_archives_give_the_same_dataset() {
    let place = Place::new();
    let (summary, dataset) = place.pack(&place.folder("pets", &pets()), None);
    let expected = [
        (0, "cat y: a PNG by its bytes"),
        (0, "cat z"),
        (1, "house x"),
        (2, "dog a"),
        (2, "dog b"),
    ];
    let expected: Vec<(i64, String)> = expected
        .map(|(label, mark)| (label, mark.to_owned()))
        .to_vec();
    assert_eq!(content(&dataset), expected);
    assert_eq!(dataset.classes(), ["cat", "cat.house", "dog"]);
    assert_eq!(dataset.manifest().samples_per_class, [2, 1, 2]);
    assert_eq!(
        (summary.samples, summary.classes, summary.ignored),
        (5, 3, 2)
    );
    let manifest = &summary.manifest;
    assert_eq!(
        (
            manifest.packed.source.as_str(),
            manifest.packed.name.as_str()
        ),
        ("image-folder", "pets")
    );
    let sample = dataset.reader().unwrap();
    let sample = sample.get(0).unwrap();
    assert_eq!(
        (sample.encoding, sample.width, sample.height),
        (Encoding::Png, 5, 4)
    );

    let mut reversed = pets();
    reversed.reverse();
    for (name, prefix, files) in [
        ("plain.tar", "", pets()),
        ("dotted.tar", "./", reversed),
        ("slashes.tar", ".//", pets()),
    ] {
        let (summary, dataset) = place.pack(&place.tar(name, prefix, &files), None);
        assert_eq!(content(&dataset), expected, "{name}");
        assert_eq!(
            summary.manifest.content_hash, manifest.content_hash,
            "{name}"
        );
        assert_eq!(summary.ignored, 2, "{name}");
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let place = Place::new();
    let mut files = Vec::new();
    let names: Vec<String> = (0..500)
        .map(|number| format!("class{}/{number}.jpg", number % 3))
        .collect();
    for (number, name) in names.iter().enumerate() {
        files.push((name.as_str(), jpeg(&"x".repeat(number * 37 % 9000))));
    }
    let source = place.tar("many.tar", "", &files);
    let mut hashes = Vec::new();
    for jobs in [1, 2, 7, 0] {
        let done = Mutex::new(Vec::new());
        let options = PackOptions {
            jobs,
            overwrite: true,
            progress: &|progress| done.lock().unwrap().push((progress.done, progress.total)),
            ..PackOptions::default()
        };
        let summary = pack_image_folder(&source, None, &place.path("out.lmdb"), &options).unwrap();
        hashes.push(summary.manifest.content_hash);
        let done = done.into_inner().unwrap();
        assert!(done.is_sorted() && done.len() > 5);
        assert_eq!(done.last(), Some(&(500, 500)));
    }
    assert!(hashes.iter().all(|hash| hash == &hashes[0]));
}

#[test]
fn splits_are_put_together_or_chosen() {
    let place = Place::new();
    let files = [
        ("train/dog/1.jpg", jpeg("train dog")),
        ("train/cat/1.jpg", jpeg("train cat")),
        ("test/dog/1.jpg", jpeg("test dog")),
        ("test/cat/1.jpg", jpeg("test cat")),
    ];
    let all: Vec<(i64, String)> = [
        (0, "test cat"),
        (1, "test dog"),
        (0, "train cat"),
        (1, "train dog"),
    ]
    .map(|(l, m)| (l, m.into()))
    .to_vec();
    let test: Vec<(i64, String)> = [(0, "test cat"), (1, "test dog")]
        .map(|(l, m)| (l, m.into()))
        .to_vec();
    for source in [
        place.folder("data", &files),
        place.tar("data.tar", "./", &files),
    ] {
        let (summary, dataset) = place.pack(&source, None);
        assert_eq!(dataset.classes(), ["cat", "dog"]);
        assert_eq!(content(&dataset), all);
        assert!(
            summary.notes[0].contains("the splits test, train are packed together"),
            "{:?}",
            summary.notes
        );
        for root in ["test", "./test/"] {
            let (summary, dataset) = place.pack(&source, Some(root));
            assert_eq!(
                (dataset.classes(), content(&dataset)),
                (&["cat".into(), "dog".into()][..], test.clone())
            );
            assert!(summary.notes.is_empty());
        }
        // The top itself, taken at its word: two classes with folders below.
        let (_, dataset) = place.pack(&source, Some("."));
        assert_eq!(dataset.classes(), ["test", "train"]);
        let missing = place.error(&source, Some("validation"));
        assert!(
            missing.contains("no folder `validation`; its folders are: test, train"),
            "{missing}"
        );
        assert!(place.error(&source, Some("../data")).contains("`..`"));
        assert!(
            place
                .error(&source, Some("/etc"))
                .contains("an absolute path")
        );
    }
    // Inside a wrapping folder, as many archives have one.
    let wrapped = place.tar("wrapped.tar", "dataset-1.0/", &files);
    let (summary, dataset) = place.pack(&wrapped, None);
    assert_eq!(content(&dataset), all);
    assert!(
        summary.notes[0].contains("the folder `dataset-1.0`"),
        "{:?}",
        summary.notes
    );

    let uneven = place.folder(
        "uneven",
        &[("train/a/1.jpg", jpeg("")), ("test/b/1.jpg", jpeg(""))],
    );
    let message = place.error(&uneven, None);
    assert!(
        message
            .contains("look like splits, but their classes differ: a, b; choose one with --root"),
        "{message}"
    );
    // Folders of the same names in every class are no splits.
    let sides = [
        ("cat/left/1.jpg", jpeg("cat left")),
        ("cat/right/1.jpg", jpeg("cat right")),
        ("dog/left/1.jpg", jpeg("dog left")),
        ("dog/right/1.jpg", jpeg("dog right")),
    ];
    let (_, dataset) = place.pack(&place.folder("sides", &sides), None);
    assert_eq!(dataset.classes(), ["cat", "dog"]);
}

#[test]
fn sources_without_classes_are_refused() {
    let place = Place::new();
    let empty = place.path("empty");
    fs::create_dir(&empty).unwrap();
    assert!(
        place
            .error(&empty, None)
            .contains("empty: no class folders; expected one folder for each class")
    );
    let flat = place.folder("flat", &[("1.jpg", jpeg("")), ("2.jpg", jpeg(""))]);
    assert!(
        place
            .error(&flat, None)
            .contains("2 images, but no class folders")
    );
    let hollow = place.folder("hollow", &[("a/1.jpg", jpeg("")), ("b/1.txt", Vec::new())]);
    fs::create_dir(hollow.join("c")).unwrap();
    let message = place.error(&hollow, None);
    assert!(
        message.contains("hollow/b: no images in the class folder, nor in 1 others"),
        "{message}"
    );
    let missing = place.path("missing");
    assert!(matches!(
        pack_image_folder(
            &missing,
            None,
            &place.path("x.lmdb"),
            &PackOptions::default()
        ),
        Err(Error::Io { .. })
    ));
    let inside = pack_image_folder(
        &hollow,
        None,
        &hollow.join("a/out.lmdb"),
        &PackOptions::default(),
    );
    assert!(
        inside
            .unwrap_err()
            .to_string()
            .contains("inside the source")
    );
}

#[test]
fn a_bad_file_is_named_or_left_out() {
    let place = Place::new();
    let mut files = pets();
    files.push(("dog/aa.jpg", b"hello world, this is text".to_vec()));
    files.push(("dog/ab.jpg", Vec::new()));
    for source in [
        place.folder("pets", &files),
        place.tar("pets.tar", "", &files),
    ] {
        let message = place.error(&source, None);
        assert!(
            message.contains("dog/aa.jpg: not a JPEG or PNG: begins with \"hello world, thi\""),
            "{message}"
        );
        assert!(message.contains("--allow-bad"), "{message}");

        let options = PackOptions {
            allow_bad: true,
            overwrite: true,
            ..PackOptions::default()
        };
        let summary = pack_image_folder(&source, None, &place.path("out.lmdb"), &options).unwrap();
        assert_eq!(summary.samples, 5);
        let skipped: Vec<&str> = summary
            .skipped
            .iter()
            .map(|bad| bad.path.as_str())
            .collect();
        assert_eq!(skipped, ["dog/aa.jpg", "dog/ab.jpg"]);
        assert!(summary.skipped[1].reason.contains("the file is empty"));
        assert_eq!(summary.manifest.packed.options["skipped"], "2");
    }
    let hopeless = place.folder("hopeless", &[("a/1.jpg", b"text".to_vec())]);
    let options = PackOptions {
        allow_bad: true,
        ..PackOptions::default()
    };
    let error = pack_image_folder(&hopeless, None, &place.path("h.lmdb"), &options)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a/1.jpg: the only image is bad: not a JPEG"),
        "{error}"
    );
    // A link to nowhere is a file that cannot be read.
    std::os::unix::fs::symlink("nowhere.jpg", hopeless.join("a/0.jpg")).unwrap();
    assert!(
        place
            .error(&hopeless, None)
            .contains("a/0.jpg: cannot be read: No such file")
    );
}

#[test]
fn the_callers_verdict_counts() {
    let place = Place::new();
    let source = place.folder("pets", &pets());
    let seen = AtomicUsize::new(0);
    let verdict = |header: &ImageHeader, bytes: &[u8]| {
        seen.fetch_add(1, Ordering::Relaxed);
        assert_eq!(
            (header.encoding, header.width),
            if bytes[1] == b'P' {
                (Encoding::Png, 5)
            } else {
                (Encoding::Jpeg, 8)
            }
        );
        match bytes.ends_with(b"dog a") {
            true => Err("the scan ends early".to_owned()),
            false => Ok(()),
        }
    };
    let options = PackOptions {
        check: &verdict,
        ..PackOptions::default()
    };
    let error = pack_image_folder(&source, None, &place.path("out.lmdb"), &options)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("dog/a.jpeg: the scan ends early; "),
        "{error}"
    );
    assert_eq!(seen.load(Ordering::Relaxed), 5);
    assert_eq!(place.names(), ["pets"]);

    let options = PackOptions {
        check: &|_, _| panic!("a decoder's bug"),
        allow_bad: true,
        ..PackOptions::default()
    };
    let error = pack_image_folder(&source, None, &place.path("out.lmdb"), &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("the decoder panicked on it"), "{error}");
}

#[test]
fn an_index_is_stored_with_the_image_it_was_made_for() {
    let place = Place::new();
    let files = [("cat/1.png", png("one")), ("cat/2.png", png("a second"))];
    let source = place.folder("pets", &files);
    let index = |header: &ImageHeader, bytes: &[u8]| {
        assert_eq!(header.encoding, Encoding::Png);
        if bytes.ends_with(b"one") {
            Vec::new()
        } else {
            bytes[bytes.len() - 6..].to_vec()
        }
    };
    let options = PackOptions {
        index: &index,
        ..PackOptions::default()
    };
    let out = place.path("out.lmdb");
    pack_image_folder(&source, None, &out, &options).unwrap();
    let dataset = Dataset::open(&out).unwrap();
    assert!(verify(&dataset, &|_| {}).unwrap().is_sound());
    let reader = dataset.reader().unwrap();
    let samples = [0, 1].map(|number| reader.get(number).unwrap());
    assert_eq!(samples.map(|sample| sample.index), [&b""[..], b"second"]);
    assert!(samples[1].payload.ends_with(b"a second"));
}

#[test]
fn a_limit_keeps_the_shares_of_the_classes() {
    let place = Place::new();
    let names: Vec<String> = (0..60)
        .map(|number| format!("class{}/{:02}.jpg", number / 20, number))
        .collect();
    let files: Vec<(&str, Vec<u8>)> = names
        .iter()
        .map(|name| (name.as_str(), jpeg(name)))
        .collect();
    let options = PackOptions {
        limit: Some(9),
        ..PackOptions::default()
    };
    let out = place.path("out.lmdb");
    let summary = pack_image_folder(&place.folder("data", &files), None, &out, &options).unwrap();
    assert_eq!(summary.manifest.samples_per_class, [3, 3, 3]);
    assert_eq!(summary.manifest.packed.options["limit"], "9");
    let again = pack_image_folder(&place.path("data"), None, &out, &options)
        .unwrap_err()
        .to_string();
    assert!(
        again.contains("out.lmdb: exists; give --overwrite"),
        "{again}"
    );
}

#[test]
fn archives_with_entries_that_reach_elsewhere_are_refused() {
    let place = Place::new();
    let bad = |name: &str, expected: &str| {
        let path = place.tar("bad.tar", "", &[("a/1.jpg", jpeg("")), (name, jpeg(""))]);
        let message = place.error(&path, None);
        assert!(
            message.contains("bad.tar: ") && message.contains(expected),
            "{name}: {message}"
        );
        fs::remove_file(path).unwrap();
    };
    bad("../a/2.jpg", "`..`");
    bad("a/../../2.jpg", "entry \"a/../../2.jpg\": a path with `..`");
    bad("/etc/2.jpg", "an absolute path");
    bad("a/1.jpg", "holds `a/1.jpg` twice");
    bad("./a//1.jpg", "holds `a/1.jpg` twice");
    for (kind, expected) in [
        (
            tar::EntryType::Symlink,
            "tar --dereference --hard-dereference",
        ),
        (tar::EntryType::Link, "a link"),
        (tar::EntryType::Fifo, "kind Fifo"),
        (tar::EntryType::Char, "kind Char"),
        (tar::EntryType::GNUSparse, ""),
    ] {
        let path = place.path("kinds.tar");
        let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_path("a/1.jpg").unwrap();
        header.set_entry_type(kind);
        header.set_link_name("/etc/passwd").unwrap();
        header.set_size(0);
        header.set_cksum();
        tar.append(&header, &b""[..]).unwrap();
        tar.finish().unwrap();
        let message = place.error(&path, None);
        assert!(message.contains(expected), "{kind:?}: {message}");
    }
}

#[test]
fn archives_that_are_cut_or_no_archives_are_refused() {
    let place = Place::new();
    let files = [
        ("a/1.jpg", jpeg(&"x".repeat(700))),
        ("a/2.jpg", jpeg(&"y".repeat(1500))),
    ];
    let whole = fs::read(place.tar("whole.tar", "", &files)).unwrap();
    let path = place.path("cut.tar");
    // 512 + 1024 bytes for the first entry, 512 + 1536 for the second, then the end mark.
    for length in (0..4096).step_by(64) {
        fs::write(&path, &whole[..length]).unwrap();
        let message = place.error(&path, None);
        assert!(message.contains("cut.tar"), "at {length}: {message}");
    }
    fs::write(&path, &whole[..4096]).unwrap();
    assert_eq!(place.pack(&path, None).0.samples, 2);

    let error = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        place.error(&path, None)
    };
    assert!(error(&[b'x'; 2000]).contains("not a tar archive"));
    assert!(error(&[&b"\x1f\x8b\x08"[..], &[0; 2000]].concat()).contains("compressed with gzip"));
    // A file too large to be an image is a bad file; its size is known before anything is read.
    let mut header = tar::Header::new_gnu();
    header.set_path("a/1.jpg").unwrap();
    header.set_size(300 << 20);
    header.set_cksum();
    fs::write(&path, header.as_bytes()).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len((300 << 20) + 2048)
        .unwrap();
    assert!(
        place
            .error(&path, None)
            .contains("a/1.jpg: 314572800 bytes; at most")
    );
}

#[test]
fn long_names_and_extended_headers_are_understood() {
    let place = Place::new();
    let path = place.path("long.tar");
    let long = format!("class/{}.jpg", "long name ".repeat(30));
    let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(jpeg("gnu").len() as u64);
    tar.append_data(&mut header, &long, &jpeg("gnu")[..])
        .unwrap();
    tar.append_pax_extensions([("path", "class/pax é.jpg".as_bytes()), ("mtime", b"1.5")])
        .unwrap();
    add(&mut tar, "class/short.jpg", &jpeg("pax"));
    tar.finish().unwrap();
    drop(tar);
    let (summary, dataset) = place.pack(&path, None);
    assert_eq!(summary.samples, 2);
    assert_eq!(
        content(&dataset),
        [(0, "gnu".to_owned()), (0, "pax".to_owned())]
    );

    // Readers disagree on such an archive, so it can hide entries: it is refused.
    let path = place.path("two-sizes.tar");
    let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
    tar.append_pax_extensions([("size", &b"1024"[..])]).unwrap();
    add(&mut tar, "class/1.jpg", &jpeg(""));
    add(&mut tar, "class/2.jpg", &jpeg(&"x".repeat(3000)));
    tar.finish().unwrap();
    drop(tar);
    let message = place.error(&path, None);
    assert!(
        message.contains("in the header and 1024 in the extended header"),
        "{message}"
    );
}

#[test]
fn damaged_archives_give_a_verdict() {
    let place = Place::new();
    let whole = fs::read(place.tar("whole.tar", "", &pets())).unwrap();
    let path = place.path("damaged.tar");
    let out = place.path("out.lmdb");
    let mut state = 1u64;
    let mut random = |end: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    };
    let (mut packed, mut refused) = (0, 0);
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random(3) {
            let (at, byte) = (random(bytes.len()), random(256) as u8);
            bytes[at] = byte;
        }
        fs::write(&path, bytes).unwrap();
        let options = PackOptions {
            overwrite: true,
            jobs: 1,
            ..PackOptions::default()
        };
        match pack_image_folder(&path, None, &out, &options) {
            Ok(_) => packed += 1,
            Err(error) => {
                assert!(error.to_string().contains("damaged.tar"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(
        packed > 20 && refused > 20,
        "{packed} packed, {refused} refused"
    );
}
