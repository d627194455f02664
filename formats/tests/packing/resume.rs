//! Packings that are stopped and continued.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ddas_formats::{
    Dataset, Error, ImageHeader, PackOptions, PackSummary, Result, Transform, pack_image_folder,
    verify,
};

use crate::place::Place;

/// A PNG as far as its header goes; 50 KB, so that some ninety of them fill a transaction.
fn png(mark: usize) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x05\0\0\0\x04\x08\x02\0\0\0".to_vec();
    bytes.extend((0..50_000).map(|at| (at * 31 + mark * 7 + ((at * at) >> 9)) as u8));
    bytes
}

/// 400 images in 2 classes; every 50th is text.
fn source(place: &Place) -> PathBuf {
    let names: Vec<String> = (0..400)
        .map(|number| format!("{}/{number:03}.png", ["cat", "dog"][number / 200]))
        .collect();
    let files: Vec<(&str, Vec<u8>)> = names
        .iter()
        .enumerate()
        .map(|(number, name)| {
            (
                name.as_str(),
                if number % 50 == 7 {
                    b"text".to_vec()
                } else {
                    png(number)
                },
            )
        })
        .collect();
    place.folder("source", &files)
}

fn options() -> PackOptions<'static> {
    PackOptions {
        jobs: 2,
        allow_bad: true,
        ..PackOptions::default()
    }
}

/// Packs and is stopped once `upto` images have been looked at.
fn stopped_after(
    upto: usize,
    source: &Path,
    out: &Path,
    options: PackOptions<'_>,
) -> Result<PackSummary> {
    let (stop, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    let check = |_: &ImageHeader, _: &[u8]| {
        if seen.fetch_add(1, Ordering::Relaxed) + 1 == upto {
            stop.store(true, Ordering::Release);
        }
        Ok(())
    };
    let options = PackOptions {
        check: &check,
        stop: Some(&stop),
        ..options
    };
    pack_image_folder(source, None, out, &options)
}

#[test]
fn a_stopped_packing_goes_on_where_it_was() {
    let place = Place::new();
    let source = source(&place);
    let whole = place.path("whole.lmdb");
    let whole = pack_image_folder(&source, None, &whole, &options()).unwrap();
    assert_eq!(
        (whole.samples, whole.skipped.len(), whole.resumed),
        (392, 8, None)
    );

    let out = place.path("out.lmdb");
    let mut kept = 0;
    for upto in [150, 150] {
        let error = stopped_after(
            upto,
            &source,
            &out,
            PackOptions {
                resume: true,
                jobs: 1,
                ..options()
            },
        )
        .unwrap_err();
        let Error::Stopped { samples, total, .. } = &error else {
            panic!("{error}")
        };
        assert!(*samples > kept && *total == 400, "{error}");
        assert!(error.to_string().contains("--resume"), "{error}");
        kept = *samples;
        assert!(!out.exists() && place.path("out.lmdb.partial").exists());
        assert!(Dataset::open(&place.path("out.lmdb.partial")).is_err());
    }
    // What was stopped in peace survives a restart of the machine; what is being packed does not say so.
    let boot = |head: &str| {
        let head: serde_json::Value = serde_json::from_str(head.lines().next().unwrap()).unwrap();
        head["boot"].as_str().unwrap().to_owned()
    };
    let journal = place.path("out.lmdb.partial/journal.jsonl");
    assert_eq!(boot(&fs::read_to_string(&journal).unwrap()), "synced");
    // The files whose samples are committed are not even opened.
    for number in 0..(kept as usize).min(200) {
        let path = source.join(format!("cat/{number:03}.png"));
        let file = fs::File::options().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"gone", 0).unwrap();
    }
    let seen = Mutex::new(Vec::new());
    let check = |_: &ImageHeader, bytes: &[u8]| {
        let now = boot(&fs::read_to_string(&journal).unwrap());
        assert_eq!(now.len(), 36, "{now}");
        seen.lock().unwrap().push(bytes.len());
        Ok(())
    };
    let resumed = pack_image_folder(
        &source,
        None,
        &out,
        &PackOptions {
            resume: true,
            check: &check,
            jobs: 3,
            ..options()
        },
    )
    .unwrap();
    assert_eq!(resumed.resumed, Some(kept));
    assert_eq!(seen.into_inner().unwrap().len() as u64, 392 - kept);
    assert_eq!(resumed.manifest.content_hash, whole.manifest.content_hash);
    assert_eq!(
        resumed.manifest.samples_per_class,
        whole.manifest.samples_per_class
    );
    assert_eq!(
        (resumed.bytes, &resumed.skipped),
        (whole.bytes, &whole.skipped)
    );
    assert_eq!(resumed.manifest.packed.options["skipped"], "8");
    assert!(
        verify(&Dataset::open(&out).unwrap(), &|_| {})
            .unwrap()
            .is_sound()
    );
    assert_eq!(place.names(), ["out.lmdb", "source", "whole.lmdb"]);
    let mut files: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    files.sort();
    assert_eq!(files, ["data.mdb", "manifest.json"]);
}

#[test]
fn only_the_same_packing_is_continued() {
    let place = Place::new();
    let source = source(&place);
    let out = place.path("out.lmdb");
    let resume = || PackOptions {
        resume: true,
        ..options()
    };
    assert!(stopped_after(200, &source, &out, options()).is_err());
    let journal = place.path("out.lmdb.partial/journal.jsonl");
    let before = fs::read(&journal).unwrap();
    let refused = |options: PackOptions<'_>, part: &str| {
        let error = pack_image_folder(&source, None, &out, &options)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(part) && error.contains("out.lmdb.partial"),
            "{error}"
        );
        assert!(journal.exists(), "removed after: {error}");
    };
    refused(
        PackOptions {
            limit: Some(10),
            ..resume()
        },
        "differs in `limit`: none then, 10 now",
    );
    let same = |_: &ImageHeader, bytes: Vec<u8>| Ok(bytes);
    let transform = Some(Transform {
        name: "turn".into(),
        apply: &same,
    });
    refused(
        PackOptions {
            transform,
            ..resume()
        },
        "`transform`: none then, turn now",
    );
    fs::write(source.join("dog/399.png"), &png(1)[1..]).unwrap();
    refused(resume(), "names, sizes and labels of the images");
    fs::write(source.join("dog/399.png"), png(399)).unwrap();
    let strict = PackOptions {
        allow_bad: false,
        ..resume()
    };
    let error = pack_image_folder(&source, None, &out, &strict)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cat/007.png") && error.contains("--allow-bad"),
        "{error}"
    );

    let text = String::from_utf8(before.clone()).unwrap();
    for (changed, part) in [
        (
            text.replacen("\"version\":1", "\"version\":2", 1),
            "version 2",
        ),
        (
            text.replacen("\"boot\":\"", "\"boot\":\"0", 1),
            "before this machine was started",
        ),
        (
            text.replacen("{\"item\"", "{\"what\"", 1),
            "no entry of a journal",
        ),
        ("{}\n".into(), "not the journal of a packing"),
    ] {
        fs::write(&journal, changed).unwrap();
        refused(resume(), part);
    }
    // A sample that is not as it was written is not built upon.
    fs::write(&journal, &before).unwrap();
    let data = place.path("out.lmdb.partial/data.mdb");
    let mut bytes = fs::read(&data).unwrap();
    let at = bytes
        .windows(40)
        .position(|window| window == &png(3)[1000..1040])
        .unwrap();
    bytes[at] ^= 4;
    fs::write(&data, bytes).unwrap();
    refused(resume(), "sample 3 is damaged");

    // Without --resume it begins anew.
    let summary = pack_image_folder(&source, None, &out, &options()).unwrap();
    assert_eq!((summary.samples, summary.resumed), (392, None));
    // With it, where nothing was left, as well.
    let again = pack_image_folder(
        &source,
        None,
        &out,
        &PackOptions {
            overwrite: true,
            ..resume()
        },
    )
    .unwrap();
    assert_eq!(
        (again.manifest.content_hash, again.resumed),
        (summary.manifest.content_hash, None)
    );
}

#[test]
fn a_bad_file_far_on_does_not_cost_what_is_packed() {
    let place = Place::new();
    let source = source(&place);
    for number in [7, 57] {
        fs::write(source.join(format!("cat/{number:03}.png")), png(number)).unwrap();
    }
    let out = place.path("out.lmdb");
    let strict = || PackOptions {
        allow_bad: false,
        ..options()
    };
    let error = pack_image_folder(&source, None, &out, &strict())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cat/107.png")
            && error.contains("--resume then goes on behind the 107 images"),
        "{error}"
    );
    let summary = pack_image_folder(
        &source,
        None,
        &out,
        &PackOptions {
            resume: true,
            ..options()
        },
    )
    .unwrap();
    assert_eq!(
        (summary.samples, summary.resumed, summary.skipped.len()),
        (394, Some(107), 6)
    );
}

#[test]
fn a_transform_makes_the_stored_image() {
    let place = Place::new();
    let source = place.folder("source", &[("a/1.png", png(1)), ("a/2.png", png(2))]);
    let wider = |_: &ImageHeader, mut bytes: Vec<u8>| {
        if bytes[60] == png(2)[60] {
            return Err("no second".into());
        }
        bytes[19] = 9;
        bytes.truncate(40);
        Ok(bytes)
    };
    let options = PackOptions {
        transform: Some(Transform {
            name: "wider".into(),
            apply: &wider,
        }),
        check: &|_, _| Err("the transform stands in for the check".into()),
        ..options()
    };
    let out = place.path("out.lmdb");
    let summary = pack_image_folder(&source, None, &out, &options).unwrap();
    assert_eq!(summary.skipped[0].reason, "no second");
    assert_eq!(summary.manifest.packed.options["transform"], "wider");
    let dataset = Dataset::open(&out).unwrap();
    let reader = dataset.reader().unwrap();
    let sample = reader.get(0).unwrap();
    assert_eq!(
        (sample.width, sample.height, sample.payload.len()),
        (9, 4, 40)
    );
}
