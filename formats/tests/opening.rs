//! What it takes to open a dataset does not grow with it.
//!
//! One test, and so a process of its own: it looks at the pages that the process has mapped in.

use std::path::Path;

use ddas_formats::{Dataset, DatasetWriter, Encoding, Packed};

/// Bytes of files and of private memory that the process has in its map.
fn resident() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        let kib = line.split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() << 10
    };
    (field("RssFile:"), field("RssAnon:"))
}

fn written(path: &Path, samples: u64) -> u64 {
    let mut writer = DatasetWriter::create(path, false).unwrap();
    for number in 0..samples {
        let pixel = number.to_le_bytes();
        writer
            .append((number % 10) as i64, Encoding::Raw, 1, 1, &pixel[..3])
            .unwrap();
    }
    let classes = (0..10).map(|class| class.to_string()).collect();
    writer.finish(classes, Packed::default()).unwrap();
    std::fs::metadata(path.join("data.mdb")).unwrap().len()
}

#[test]
fn opening_touches_a_few_pages_however_many_samples_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let [few, many] = ["few", "many"].map(|name| folder.path().join(name));
    written(&few, 1000);
    let bytes = written(&many, 600_000);
    assert!(bytes > 20 << 20, "{bytes}");

    // Code and allocator have been used once.
    let dataset = Dataset::open(&few).unwrap();
    assert_eq!(dataset.reader().unwrap().get(7).unwrap().payload, [7, 0, 0]);

    let (files, private) = resident();
    let dataset = Dataset::open(&many).unwrap();
    assert_eq!(dataset.len(), 600_000);
    let reader = dataset.reader().unwrap();
    for index in [0_u64, 300_000, 599_999] {
        let pixel = index.to_le_bytes();
        assert_eq!(reader.get(index).unwrap().payload, &pixel[..3]);
    }
    let now = resident();
    let (files, private) = (now.0.saturating_sub(files), now.1.saturating_sub(private));
    // Each page touched brings its neighbours in, 64 KiB of them.
    assert!(files < 2 << 20, "{files} bytes of the file were touched");
    assert!(private < 256 << 10, "{private} bytes were allocated");

    // The same figures do see a reader of everything.
    let mut sum = 0;
    dataset
        .reader()
        .unwrap()
        .for_each_label(&mut |_, label| sum += label)
        .unwrap();
    assert_eq!(sum, 45 * 60_000);
    assert!(resident().0 - now.0 > bytes / 2);
}
