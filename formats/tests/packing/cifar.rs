//! CIFAR in the forms its authors distribute.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use ddas_formats::{
    Dataset, Encoding, Error, PackOptions, PackProgress, Split, pack_cifar, verify,
};

use crate::place::Place;

/// Two images of the binary version's form: labels, then planes.
fn cifar_record(labels: &[u8], seed: u8) -> (Vec<u8>, Vec<u8>) {
    let planes: Vec<u8> = (0..3072u32)
        .map(|at| (at * 7 + u32::from(seed) * 13) as u8)
        .collect();
    ([labels, &planes].concat(), planes)
}

/// The python version's form (protocol 2, as Python 2 wrote it), of rows of 3072 bytes.
fn cifar_pickle(key: &str, labels: &[u8], rows: &[Vec<u8>]) -> Vec<u8> {
    let mut out = b"\x80\x02}(U".to_vec();
    out.extend([key.len() as u8]);
    out.extend(key.as_bytes());
    out.extend(b"](");
    labels.iter().for_each(|&label| out.extend([b'K', label]));
    out.extend(b"eU\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01K");
    out.extend([rows.len() as u8]);
    out.extend(b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T");
    let data = rows.concat();
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out.extend(b"tbu.");
    out
}

fn names_pickle(key: &str, names: &[&str]) -> Vec<u8> {
    let mut out = b"\x80\x02}U".to_vec();
    out.extend([key.len() as u8]);
    out.extend(key.as_bytes());
    out.extend(b"](");
    names
        .iter()
        .for_each(|name| out.extend([&[b'U', name.len() as u8], name.as_bytes()].concat()));
    out.extend(b"es.");
    out
}

/// Name and content.
type NamedFile = (&'static str, Vec<u8>);

/// The four versions with the same two training images in each file and a test image.
fn cifar_versions() -> Vec<(&'static str, Vec<NamedFile>)> {
    let ((a, a_planes), (b, b_planes), (t, t_planes)) = (
        cifar_record(&[1], 1),
        cifar_record(&[0], 2),
        cifar_record(&[1], 3),
    );
    let train = [
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
    ];
    let train_binary = [
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ];
    let mut binary = vec![
        ("batches.meta.txt", b"plane\ncar\n\n".to_vec()),
        ("test_batch.bin", t),
    ];
    binary.extend(train_binary.map(|name| (name, [a.clone(), b.clone()].concat())));
    let mut python = vec![
        (
            "batches.meta",
            names_pickle("label_names", &["plane", "car"]),
        ),
        (
            "test_batch",
            cifar_pickle("labels", &[1], std::slice::from_ref(&t_planes)),
        ),
    ];
    python.extend(train.map(|name| {
        (
            name,
            cifar_pickle("labels", &[1, 0], &[a_planes.clone(), b_planes.clone()]),
        )
    }));
    let binary_100 = vec![
        (
            "train.bin",
            [cifar_record(&[9, 1], 1).0, cifar_record(&[9, 0], 2).0]
                .concat()
                .repeat(5),
        ),
        ("test.bin", cifar_record(&[9, 1], 3).0),
        ("fine_label_names.txt", b"plane\ncar\n".to_vec()),
        ("coarse_label_names.txt", b"vehicle\n".to_vec()),
    ];
    let python_100 = vec![
        ("meta", names_pickle("fine_label_names", &["plane", "car"])),
        (
            "train",
            cifar_pickle(
                "fine_labels",
                &[1, 0].repeat(5),
                &std::iter::repeat_n([a_planes, b_planes], 5)
                    .flatten()
                    .collect::<Vec<_>>(),
            ),
        ),
        ("test", cifar_pickle("fine_labels", &[1], &[t_planes])),
    ];
    vec![
        ("CIFAR-10, binary version", binary),
        ("CIFAR-10, python version", python),
        ("CIFAR-100, binary version", binary_100),
        ("CIFAR-100, python version", python_100),
    ]
}

#[test]
fn the_four_forms_of_cifar_give_the_same_datasets() {
    for (name, files) in cifar_versions() {
        let place = Place::new();
        let tar = place.tar("cifar.tar", "cifar/", &files);
        let gz = place.path("cifar.tar.gz");
        let mut encoder = flate2::write::GzEncoder::new(
            fs::File::create(&gz).unwrap(),
            flate2::Compression::fast(),
        );
        encoder.write_all(&fs::read(&tar).unwrap()).unwrap();
        encoder.finish().unwrap();
        let folder = place.folder("folder/cifar", &files);
        for source in [folder.clone(), folder.parent().unwrap().to_owned(), tar, gz] {
            let options = PackOptions {
                overwrite: true,
                ..PackOptions::default()
            };
            let out = place.path("out.lmdb");
            let test = pack_cifar(&source, Split::Test, &out, &options).unwrap();
            assert_eq!(
                (test.samples, test.manifest.classes.as_slice()),
                (1, &["plane".into(), "car".into()][..])
            );
            assert!(test.notes[0].contains(name), "{:?}", test.notes);
            let train = pack_cifar(&source, Split::Train, &out, &options).unwrap();
            assert_eq!(train.samples, 10);
            let dataset = Dataset::open(&out).unwrap();
            assert!(verify(&dataset, &|_| {}).unwrap().is_sound());
            let reader = dataset.reader().unwrap();
            for index in 0..10u64 {
                let sample = reader.get(index).unwrap();
                let planes = cifar_record(&[], 1 + (index % 2) as u8).1;
                assert_eq!(
                    (sample.label, sample.width, sample.height),
                    (1 - (index % 2) as i64, 32, 32)
                );
                assert_eq!(sample.encoding, Encoding::Raw);
                for (at, pixel) in sample.payload.chunks(3).enumerate() {
                    assert_eq!(pixel, [planes[at], planes[1024 + at], planes[2048 + at]]);
                }
            }
        }
    }
}

#[test]
fn damaged_cifar_files_are_named() {
    for (version, files) in cifar_versions() {
        let place = Place::new();
        let folder = place.folder("cifar", &files);
        let error = || {
            let out = place.path("out.lmdb");
            let error = pack_cifar(&folder, Split::Train, &out, &PackOptions::default())
                .unwrap_err()
                .to_string();
            assert_eq!(place.names(), ["cifar"]);
            error
        };
        let train = files
            .iter()
            .map(|file| file.0)
            .find(|name| name.contains("batch_3") || name.starts_with("train"));
        let train = folder.join(train.unwrap());
        let whole = fs::read(&train).unwrap();
        fs::write(&train, &whole[..whole.len() - 1]).unwrap();
        let message = error();
        assert!(
            message.contains(&*train.to_string_lossy()) && message.contains("cut short"),
            "{version}: {message}"
        );
        if version.contains("python") {
            fs::write(&train, b"cos\nsystem\n(S'touch owned'\ntR.").unwrap();
            assert!(error().contains("it refers to `os.system`"));
            fs::write(&train, [b']'; 40_000]).unwrap();
            assert!(error().contains("cut short"));
        }
        if version.contains("100") {
            fs::remove_file(&train).unwrap();
            assert!(error().contains(
                "no CIFAR train files; expected one of: data_batch_1.bin and batches.meta.txt"
            ));
        } else {
            fs::remove_file(&train).unwrap();
            assert!(
                error().contains(&format!("missing; it is part of the {version}")),
                "{version}"
            );
        }
        fs::write(&train, &whole).unwrap();
        let names = folder.join(
            files
                .iter()
                .find(|file| file.0.contains("meta") || file.0.contains("fine"))
                .unwrap()
                .0,
        );
        let fewer = if version.contains("python") {
            names_pickle(
                if version.contains("100") {
                    "fine_label_names"
                } else {
                    "label_names"
                },
                &["plane"],
            )
        } else {
            b"plane\n".to_vec()
        };
        fs::write(&names, fewer).unwrap();
        let message = error();
        assert!(
            message.contains("image 0 has the label 1; there are 1 classes"),
            "{version}: {message}"
        );
    }
    let place = Place::new();
    let versions = cifar_versions();
    let both = place.folder("both", &[&versions[0].1[..], &versions[1].1[..]].concat());
    let message = pack_cifar(
        &both,
        Split::Test,
        &place.path("o.lmdb"),
        &PackOptions::default(),
    )
    .unwrap_err()
    .to_string();
    assert!(message.contains("more than one CIFAR"), "{message}");
}

#[test]
fn a_stopped_packing_of_cifar_goes_on_where_it_was() {
    let place = Place::new();
    let batch = |file: u16| -> Vec<u8> {
        let images =
            (0..300).map(|number| cifar_record(&[(number % 2) as u8], (file * 40 + number) as u8));
        images.flat_map(|(record, _)| record).collect()
    };
    let mut files: Vec<NamedFile> = vec![("batches.meta.txt", b"plane\ncar\n".to_vec())];
    for (name, file) in [
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ]
    .into_iter()
    .zip(1..)
    {
        files.push((name, batch(file)));
    }
    let source = place.folder("cifar", &files);
    let out = place.path("out.lmdb");
    let whole = place.path("whole.lmdb");
    let whole = pack_cifar(&source, Split::Train, &whole, &PackOptions::default()).unwrap();
    assert_eq!((whole.samples, whole.resumed), (1500, None));

    let stop = AtomicBool::new(true);
    let pack = |options: PackOptions<'_>| {
        let options = PackOptions {
            resume: true,
            stop: Some(&stop),
            ..options
        };
        pack_cifar(&source, Split::Train, &out, &options)
    };
    // Stopped before the first image: nothing is left.
    let error = pack(PackOptions::default()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Stopped {
                samples: 0,
                total: 1500,
                ..
            }
        ),
        "{error}"
    );
    assert!(!place.path("out.lmdb.partial").exists());
    // Progress is reported every 1000 images.
    stop.store(false, Ordering::Release);
    let progress = |_: PackProgress| stop.store(true, Ordering::Release);
    let error = pack(PackOptions {
        progress: &progress,
        ..PackOptions::default()
    })
    .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Stopped {
                samples: 1000,
                total: 1500,
                ..
            }
        ),
        "{error}"
    );
    stop.store(false, Ordering::Release);
    let other = pack(PackOptions {
        limit: Some(1200),
        ..PackOptions::default()
    })
    .unwrap_err();
    assert!(
        other
            .to_string()
            .contains("`number of images`: 1500 then, 1200 now"),
        "{other}"
    );
    let mut changed = batch(3);
    changed[5000] ^= 1;
    fs::write(source.join("data_batch_3.bin"), &changed).unwrap();
    let other = pack(PackOptions::default()).unwrap_err();
    assert!(other.to_string().contains("`content`"), "{other}");
    fs::write(source.join("data_batch_3.bin"), batch(3)).unwrap();

    let resumed = pack(PackOptions::default()).unwrap();
    assert_eq!((resumed.samples, resumed.resumed), (1500, Some(1000)));
    assert_eq!(resumed.manifest.content_hash, whole.manifest.content_hash);
    assert_eq!(
        resumed.manifest.samples_per_class,
        whole.manifest.samples_per_class
    );
    assert!(
        verify(&Dataset::open(&out).unwrap(), &|_| {})
            .unwrap()
            .is_sound()
    );
}
