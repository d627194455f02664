//! Damaged, cut and half-written datasets.
//!
//! Damage might end in a signal (a page that is not there, a pointer from damaged bytes), which would take a test
//! process with it, in silence about the others. So the work is done in a child process, this same program
//! called with a variable set, and the test looks at how the child ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ddas_formats::{Dataset, DatasetWriter, Encoding, Error, Packed, verify};

/// Set for a child; its value is what the child works on.
const CHILD: &str = "DDAS_TEST_CHILD";

fn child(test: &str, value: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, value);
    command
}

fn in_child() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Numbers from a seed (SplitMix64), so that a failing case can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Payloads of 10 to 9,000 bytes: inside leaf pages and on pages of their own.
fn payloads() -> Vec<Vec<u8>> {
    let mut random = Random(1);
    (0..150)
        .map(|index| {
            let length = 10 + random.below(if index % 3 == 0 { 9_000 } else { 1_200 });
            (0..length).map(|_| random.next() as u8).collect()
        })
        .collect()
}

fn write_dataset(path: &Path) {
    let mut writer = DatasetWriter::create(path, false).unwrap();
    for (index, payload) in payloads().iter().enumerate() {
        writer
            .append(index as i64 % 3, Encoding::Jpeg, 8, 8, payload)
            .unwrap();
    }
    let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
    writer.finish(classes, Packed::default()).unwrap();
}

/// Opens what is there and compares all that comes out of it.
fn wrong_data_never_comes_out(path: &Path, payloads: &[Vec<u8>]) -> Result<u64, Error> {
    let dataset = Dataset::open(path)?;
    let reader = dataset.reader()?;
    let mut damaged = 0;
    for (index, payload) in payloads.iter().enumerate() {
        match reader.get(index as u64) {
            Ok(sample) => {
                assert_eq!(sample.payload, payload, "sample {index}");
                assert_eq!(sample.label, index as i64 % 3, "sample {index}");
            }
            Err(Error::DamagedSample {
                dataset,
                index: named,
                reason,
            }) => {
                assert_eq!((&*dataset, named), (path, index as u64));
                assert!(!reason.is_empty());
                damaged += 1;
            }
            Err(other) => panic!("sample {index}: {other}"),
        }
    }
    let report = verify(&dataset, &|_| {})?;
    assert_eq!(report.damaged, damaged);
    assert_eq!(report.is_sound(), damaged == 0, "{report:?}");
    Ok(damaged)
}

#[test]
fn no_damage_ends_the_process_or_gives_wrong_data() {
    let Some(folder) = in_child() else {
        let folder = tempfile::tempdir().unwrap();
        let output = child(
            "no_damage_ends_the_process_or_gives_wrong_data",
            folder.path(),
        )
        .output()
        .unwrap();
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(
            output.status.signal(),
            None,
            "killed by a signal at {:?}",
            stdout.lines().last()
        );
        assert!(
            output.status.success(),
            "{}\n{stderr}",
            stdout.lines().last().unwrap_or_default()
        );
        assert!(stdout.contains("all cases done"), "{stdout}");
        return;
    };
    let sound = folder.join("sound.lmdb");
    write_dataset(&sound);
    let payloads = payloads();
    let data = std::fs::read(sound.join("data.mdb")).unwrap();
    let manifest = std::fs::read_to_string(sound.join("manifest.json")).unwrap();
    assert_eq!(wrong_data_never_comes_out(&sound, &payloads).unwrap(), 0);
    assert!(data.len() > 300_000, "{}", data.len());

    let path = folder.join("damaged.lmdb");
    std::fs::create_dir(&path).unwrap();
    let mut random = Random(2);
    let (mut opened, mut refused, mut samples) = (0, 0, 0);
    for case in 0..1000 {
        let mut damaged = data.clone();
        let mut described = manifest.clone();
        let what = match case % 4 {
            // Cut anywhere; and cut with a manifest that fits, so that the file alone has to give it away.
            0 => {
                damaged.truncate(random.below(data.len()));
                format!("cut to {}", damaged.len())
            }
            1 => {
                damaged.truncate(random.below(data.len()));
                let sizes = [data.len(), damaged.len()].map(|size| format!("\"bytes\": {size}"));
                described = manifest.replace(&sizes[0], &sizes[1]);
                assert_ne!(described, manifest);
                format!("cut to {} and described so", damaged.len())
            }
            // Bytes anywhere, and bytes where the pages keep their headers and slots.
            kind => {
                let places: Vec<usize> = (0..1 + random.below(6))
                    .map(|_| match kind {
                        2 => random.below(data.len()),
                        _ => random.below(data.len() / 4096) * 4096 + random.below(64),
                    })
                    .collect();
                for &place in &places {
                    damaged[place] = random.next() as u8;
                }
                format!("bytes changed at {places:?}")
            }
        };
        println!("case {case}: {what}");
        std::io::stdout().flush().unwrap();
        // Another file each time: the last one may still be mapped somewhere.
        std::fs::remove_file(path.join("data.mdb")).ok();
        std::fs::write(path.join("data.mdb"), &damaged).unwrap();
        std::fs::write(path.join("manifest.json"), described).unwrap();
        match wrong_data_never_comes_out(&path, &payloads) {
            Ok(damaged) => {
                assert_ne!(case % 4, 0, "a cut file was opened");
                opened += 1;
                samples += damaged;
            }
            Err(error) => {
                assert!(error.to_string().contains("damaged.lmdb"), "{error}");
                refused += 1;
            }
        }
    }
    // Both outcomes have to have been met for this to mean something.
    assert!(
        opened > 170 && refused > 340 && samples > 500,
        "{opened} opened, {refused} refused, {samples} samples"
    );
    println!("all cases done: {opened} opened, {refused} refused, {samples} damaged samples named");
}

#[test]
fn a_changed_byte_in_a_sample_names_dataset_and_index() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.lmdb");
    write_dataset(&path);
    let payloads = payloads();
    let mut data = std::fs::read(path.join("data.mdb")).unwrap();
    let payload = &payloads[42];
    let at = data
        .windows(payload.len())
        .position(|window| window == payload)
        .unwrap();
    data[at + payload.len() / 2] ^= 0x10;
    std::fs::write(path.join("data.mdb"), data).unwrap();

    let dataset = Dataset::open(&path).unwrap();
    let reader = dataset.reader().unwrap();
    let message = reader.get(42).unwrap_err().to_string();
    assert!(
        message.contains("flipped.lmdb: sample 42 is damaged: checksum is "),
        "{message}"
    );
    assert_eq!(reader.get(41).unwrap().payload, payloads[41]);
    let report = verify(&dataset, &|_| {}).unwrap();
    assert_eq!((report.damaged, report.damaged_samples[0].index), (1, 42));
    assert!(!report.content_hash_matches && !report.is_sound());
}

#[test]
fn a_writer_that_is_killed_leaves_nothing_that_opens() {
    if let Some(path) = in_child() {
        let mut writer = DatasetWriter::create(&path, false).unwrap();
        // More than one transaction, so that there is a valid LMDB file.
        for _ in 0..400 {
            writer
                .append(0, Encoding::Raw, 200, 150, &[7; 90_000])
                .unwrap();
        }
        println!("half way");
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("killed.lmdb");
    let mut writer = child("a_writer_that_is_killed_leaves_nothing_that_opens", &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("half way")));

    // While it lives, nobody else may write the same dataset.
    let busy = DatasetWriter::create(&path, true)
        .err()
        .unwrap()
        .to_string();
    assert!(busy.contains("another process is packing it"), "{busy}");
    writer.kill().unwrap();
    assert_eq!(writer.wait().unwrap().signal(), Some(9));

    let partial = folder.path().join("killed.lmdb.partial");
    assert!(std::fs::metadata(partial.join("data.mdb")).unwrap().len() > 30_000_000);
    assert!(
        Dataset::open(&path)
            .unwrap_err()
            .to_string()
            .contains("no such folder")
    );
    assert!(
        Dataset::open(&partial)
            .unwrap_err()
            .to_string()
            .contains("packing did not finish")
    );

    // The next one clears away what was left.
    write_dataset(&path);
    assert_eq!(Dataset::open(&path).unwrap().len(), 150);
    assert!(!partial.exists());
}

#[test]
fn what_is_missing_or_foreign_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.lmdb");
    write_dataset(&path);
    let manifest = std::fs::read_to_string(path.join("manifest.json")).unwrap();
    let error = |text: &str| {
        std::fs::write(path.join("manifest.json"), text).unwrap();
        Dataset::open(&path).unwrap_err().to_string()
    };
    let cases = [
        (
            "\"ddas-dataset\"",
            "\"other\"",
            "field `format` is \"other\"; expected \"ddas-dataset\"",
        ),
        (
            "\"version\": 1",
            "\"version\": 2",
            "field `version` is 2; this build reads version 1",
        ),
        (
            "\"samples\": 150",
            "\"samples\": 151",
            "`samples_per_class` does not add up",
        ),
        (
            "\"samples\": 150",
            "\"samples\": \"x\"",
            "field `samples` is \"x\"; expected a whole number",
        ),
        (
            "\"classes\"",
            "\"klasses\"",
            "field `classes` is missing; expected a list of names",
        ),
        (
            "\"a\",",
            "7,",
            "field `classes` is [7,\"b\",\"c\"]; expected a list of names",
        ),
        (
            "\"options\": {}",
            "\"options\": {\"limit\": 3}",
            "field `packed.options.limit` is 3; expected a text",
        ),
        (
            "\"page_size\": 4096",
            "\"page_size\": 512",
            "the manifest says 512",
        ),
        ("    50,\n", "    49,\n", "does not add up"),
        ("{", "", "not JSON from line 2, column"),
    ];
    for (from, to, expected) in cases {
        assert!(manifest.contains(from), "{from}");
        let message = error(&manifest.replacen(from, to, 1));
        assert!(
            message.contains("manifest.json") || message.contains("data.mdb"),
            "{message}"
        );
        assert!(message.contains(expected), "{message}");
    }
    // One sample fewer, consistently: then the file itself disagrees.
    let fewer = manifest
        .replace("\"samples\": 150", "\"samples\": 149")
        .replacen("    50,\n", "    49,\n", 1);
    assert!(error(&fewer).contains("150 samples; the manifest says 149"));
    std::fs::write(path.join("manifest.json"), &manifest).unwrap();
    assert!(Dataset::open(&path).is_ok());

    std::fs::remove_file(path.join("manifest.json")).unwrap();
    assert!(
        Dataset::open(&path)
            .unwrap_err()
            .to_string()
            .contains("no manifest.json beside data.mdb")
    );
    assert!(
        Dataset::open(folder.path())
            .unwrap_err()
            .to_string()
            .contains("not a packed dataset")
    );
    assert!(
        Dataset::open(&folder.path().join("none"))
            .unwrap_err()
            .to_string()
            .contains("no such folder")
    );
    assert!(
        Dataset::open(&path.join("data.mdb"))
            .unwrap_err()
            .to_string()
            .contains("data.mdb: not a folder")
    );
}

#[test]
fn one_dataset_may_be_opened_many_times_and_read_on_many_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.lmdb");
    write_dataset(&path);
    let payloads = payloads();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (path, payloads) = (&path, &payloads);
            scope.spawn(move || {
                let reader = Dataset::open(path).unwrap().reader().unwrap();
                for round in 0..payloads.len() {
                    let index = (round * 7 + thread * 31) % payloads.len();
                    assert_eq!(reader.get(index as u64).unwrap().payload, payloads[index]);
                }
                let outside = reader.get(150).unwrap_err().to_string();
                assert!(
                    outside.contains("no sample 150; the dataset has 150"),
                    "{outside}"
                );
            });
        }
    });
}

#[test]
fn replacing_a_dataset_leaves_open_readers_on_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.lmdb");
    write_dataset(&path);
    let old = Dataset::open(&path).unwrap().reader().unwrap();

    let refused = DatasetWriter::create(&path, false)
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains("d.lmdb: exists; give --overwrite to replace it"),
        "{refused}"
    );
    // Begun and given up: the old one stays.
    let mut writer = DatasetWriter::create(&path, true).unwrap();
    writer.append(0, Encoding::Raw, 1, 1, b"rgb").unwrap();
    drop(writer);
    assert_eq!(Dataset::open(&path).unwrap().len(), 150);

    let mut writer = DatasetWriter::create(&path, true).unwrap();
    writer.append(0, Encoding::Raw, 1, 1, b"rgb").unwrap();
    writer
        .finish(vec!["only".into()], Packed::default())
        .unwrap();
    assert_eq!(Dataset::open(&path).unwrap().len(), 1);
    assert_eq!(old.get(149).unwrap().payload, payloads()[149]);
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["d.lmdb"]);
}

#[test]
fn nothing_but_a_dataset_is_ever_replaced() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.txt"), "years of work").unwrap();
    let message = DatasetWriter::create(folder.path(), true)
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.contains("thesis.txt") && message.contains("is not replaced"),
        "{message}"
    );
    let file = folder.path().join("thesis.txt");
    assert!(
        DatasetWriter::create(&file, true)
            .err()
            .unwrap()
            .to_string()
            .contains("not a folder")
    );
    let message = DatasetWriter::create(&folder.path().join("no/such/d.lmdb"), true)
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.contains("no/such/d.lmdb") && message.contains("does not exist"),
        "{message}"
    );
    assert_eq!(std::fs::read_to_string(file).unwrap(), "years of work");
    // An empty folder may be filled.
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    write_dataset(&empty);
    assert_eq!(Dataset::open(&empty).unwrap().len(), 150);
}

#[test]
fn samples_that_no_reader_would_accept_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.lmdb");
    let mut writer = DatasetWriter::create(&path, false).unwrap();
    let mut refused = |label, encoding, width, height, payload: &[u8]| {
        writer
            .append(label, encoding, width, height, payload)
            .unwrap_err()
            .to_string()
    };
    assert!(
        refused(0, Encoding::Raw, 2, 2, &[0; 11])
            .contains("11 bytes of pixels for 2 x 2; expected 12")
    );
    assert!(refused(-1, Encoding::Jpeg, 2, 2, b"x").contains("label -1"));
    assert!(refused(i64::MAX, Encoding::Jpeg, 2, 2, b"x").contains("expected 0 to 999999"));
    assert!(refused(0, Encoding::Png, 0, 2, b"x").contains("0 x 2"));
    assert!(refused(0, Encoding::Png, 60_000, 60_000, b"x").contains("60000 x 60000"));
    assert!(writer.is_empty());
    assert!(
        writer
            .finish(vec!["a".into()], Packed::default())
            .unwrap_err()
            .to_string()
            .contains("no samples")
    );

    let mut writer = DatasetWriter::create(&path, false).unwrap();
    writer.append(3, Encoding::Jpeg, 2, 2, b"x").unwrap();
    let error = writer
        .finish(vec!["a".into(), "b".into()], Packed::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("label 3 is used, but the classes named are only 2"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
