//! Packing CIFAR-10 and CIFAR-100 as their authors distribute them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

use flate2::read::MultiGzDecoder;
use xxhash_rust::xxh3::Xxh3;

use super::source::{Listing, normalise};
use super::{PackOptions, PackProgress, PackSummary};
use crate::dataset::{DatasetWriter, Identity};
use crate::image_header::Encoding;
use crate::{Error, Result, pickle};

const SIDE: u32 = 32;
const PIXELS: usize = 32 * 32;
const IMAGE_BYTES: usize = 3 * PIXELS;
/// No single file of CIFAR is larger than this; CIFAR-100's training file has 155 MB.
const MAX_FILE_BYTES: u64 = pickle::MAX_BYTES as u64;

/// Part of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// For training: 50,000 images in CIFAR.
    Train,
    /// For testing: 10,000 images in CIFAR.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Test => "test",
        })
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "train" => Ok(Split::Train),
            "test" => Ok(Split::Test),
            _ => Err(Error::UnknownName {
                what: "split",
                name: text.to_owned(),
                known: vec!["train".into(), "test".into()],
            }),
        }
    }
}

/// One of the four forms CIFAR comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    name: &'static str,
    train: &'static [&'static str],
    test: &'static [&'static str],
    /// The file with the names of the classes.
    names: &'static str,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Records of `labels` bytes, of which the last is the class, and 3072 bytes of pixels.
    Binary { labels: usize },
    /// Pickled dicts; the keys of the labels and of the class names.
    Pickle {
        labels: &'static str,
        names: &'static str,
    },
}

const VERSIONS: [Version; 4] = [
    Version {
        name: "CIFAR-10, binary version",
        train: &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        test: &["test_batch.bin"],
        names: "batches.meta.txt",
        form: Form::Binary { labels: 1 },
    },
    Version {
        name: "CIFAR-10, python version",
        train: &[
            "data_batch_1",
            "data_batch_2",
            "data_batch_3",
            "data_batch_4",
            "data_batch_5",
        ],
        test: &["test_batch"],
        names: "batches.meta",
        form: Form::Pickle {
            labels: "labels",
            names: "label_names",
        },
    },
    Version {
        name: "CIFAR-100, binary version",
        train: &["train.bin"],
        test: &["test.bin"],
        names: "fine_label_names.txt",
        form: Form::Binary { labels: 2 },
    },
    Version {
        name: "CIFAR-100, python version",
        train: &["train"],
        test: &["test"],
        names: "meta",
        form: Form::Pickle {
            labels: "fine_labels",
            names: "fine_label_names",
        },
    },
];

impl Version {
    fn images(&self, split: Split) -> &'static [&'static str] {
        match split {
            Split::Train => self.train,
            Split::Test => self.test,
        }
    }
}

/// Packs one split of CIFAR-10 or CIFAR-100 into the dataset `out`, as raw pixels in the order of the source.
///
/// `source` is a folder with the binary or the python version (or with the folder that its archive unpacks to), or
/// the archive itself, as `.tar` or `.tar.gz`. Of CIFAR-100 the hundred fine labels are taken. The pickles of
/// the python version are read without executing them. Of the options, `jobs`, `allow_bad`, `check` and
/// `transform` play no part: there are no image files to check.
///
/// # Errors
/// [`Error::File`] when the source holds none of the four versions or more than one, when a file is missing, cut
/// short or malformed, a pickle refers to anything but numpy arrays, and when `out` may not be written;
/// [`Error::Io`] when something cannot be read or written; [`Error::Stopped`].
///
/// ```
/// use ddas_formats::{Dataset, PackOptions, Split, pack_cifar};
///
/// let folder = tempfile::tempdir()?;
/// // A test file of two images of one colour each: a label, then all red, green and blue values.
/// let image = |label: u8, [r, g, b]: [u8; 3]| [&[label][..], &[r; 1024], &[g; 1024], &[b; 1024]].concat();
/// std::fs::write(folder.path().join("test_batch.bin"), [image(1, [9, 8, 7]), image(0, [1, 2, 3])].concat())?;
/// std::fs::write(folder.path().join("batches.meta.txt"), "airplane\nautomobile\n")?;
///
/// let out = folder.path().join("test.lmdb");
/// let summary = pack_cifar(folder.path(), Split::Test, &out, &PackOptions::default())?;
/// assert_eq!(summary.manifest.classes, ["airplane", "automobile"]);
/// let sample_bytes = Dataset::open(&out)?.reader()?.get(0)?.payload[..6].to_vec();
/// assert_eq!(sample_bytes, [9, 8, 7, 9, 8, 7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn pack_cifar(
    source: &Path,
    split: Split,
    out: &Path,
    options: &PackOptions<'_>,
) -> Result<PackSummary> {
    let start = Instant::now();
    let mut writer = DatasetWriter::begin(out, options.overwrite, options.resume)?;
    let files = Files::find(source, split)?;
    let version = files.version;
    let classes = files.class_names()?;
    let batches: Vec<Batch> = version
        .images(split)
        .iter()
        .map(|name| files.batch(name, classes.len()))
        .collect::<Result<_>>()?;
    let all: Vec<(&Batch, usize)> = batches
        .iter()
        .flat_map(|batch| (0..batch.labels.len()).map(move |number| (batch, number)))
        .collect();

    let total = options.chosen(all.len()).count() as u64;
    let restored = writer.restore(&identity(&batches, total, version, split))?;
    let resumed = restored.resumed.then(|| writer.len());
    let mut pixels = vec![0; IMAGE_BYTES];
    for (done, chosen) in options
        .chosen(all.len())
        .enumerate()
        .skip(restored.next as usize)
    {
        if options.is_stopped() {
            let out = writer.out().to_owned();
            let samples = writer.suspend()?;
            return Err(Error::Stopped {
                out,
                samples,
                total,
            });
        }
        let (batch, number) = all[chosen];
        interleave(
            &batch.images[number * IMAGE_BYTES..][..IMAGE_BYTES],
            &mut pixels,
        );
        writer.append(batch.labels[number], Encoding::Raw, SIDE, SIDE, &pixels)?;
        let done = done as u64 + 1;
        if done.is_multiple_of(1000) || done == total {
            let bytes = done * IMAGE_BYTES as u64;
            (options.progress)(PackProgress {
                done,
                total,
                bytes,
                skipped: 0,
            });
        }
    }
    let packed = options.packed(
        "cifar",
        source,
        &[
            ("version", version.name.into()),
            ("split", split.to_string()),
        ],
    );
    let manifest = writer.finish(classes, packed)?;
    Ok(PackSummary {
        samples: manifest.samples,
        classes: manifest.classes.len(),
        bytes: manifest.samples * IMAGE_BYTES as u64,
        skipped: Vec::new(),
        ignored: 0,
        notes: vec![format!("found the {}", version.name)],
        resumed,
        seconds: start.elapsed().as_secs_f64(),
        manifest,
    })
}

/// What is packed, for a packing that is continued: all of it is in memory, so all of it is compared.
fn identity(batches: &[Batch], total: u64, version: Version, split: Split) -> Identity {
    let mut content = Xxh3::new();
    for batch in batches {
        content.update(&batch.images);
        batch
            .labels
            .iter()
            .for_each(|label| content.update(&label.to_le_bytes()));
    }
    [
        (
            "tool",
            concat!("ddas-formats ", env!("CARGO_PKG_VERSION")).to_owned(),
        ),
        ("version", version.name.to_owned()),
        ("split", split.to_string()),
        ("number of images", total.to_string()),
        ("content", format!("{:032x}", content.digest128())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// From three planes to three bytes a pixel.
fn interleave(planes: &[u8], pixels: &mut [u8]) {
    for (at, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        for (channel, value) in pixel.iter_mut().enumerate() {
            *value = planes[channel * PIXELS + at];
        }
    }
}

/// The images of one file: planes of 1024 red, green and blue bytes each, and labels.
struct Batch {
    images: Vec<u8>,
    labels: Vec<i64>,
}

/// The files of one version that are needed, with their bytes.
struct Files<'a> {
    source: &'a Path,
    version: Version,
    bytes: BTreeMap<String, Vec<u8>>,
    folder: String,
}

impl<'a> Files<'a> {
    fn find(source: &'a Path, split: Split) -> Result<Files<'a>> {
        let mut found: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let (paths, listing) = if is_gzip(source)? {
            // Cannot be sought in: what may be needed is kept while it passes.
            found = unpack_gzip(source)?;
            (found.keys().cloned().collect::<BTreeSet<_>>(), None)
        } else {
            let listing = Listing::read(
                source,
                "the folder of CIFAR-10 or CIFAR-100, or its .tar or .tar.gz",
            )?;
            (
                listing.files.iter().map(|file| file.path.clone()).collect(),
                Some(listing),
            )
        };
        let (folder, version) = recognise(source, &paths, split)?;
        let mut bytes = BTreeMap::new();
        for name in version.images(split).iter().chain([&version.names]) {
            let path = if folder.is_empty() {
                (*name).to_owned()
            } else {
                format!("{folder}/{name}")
            };
            let content = match &listing {
                None => found.remove(&path),
                Some(listing) => match listing.files.iter().find(|file| file.path == path) {
                    Some(file) if file.size > MAX_FILE_BYTES => {
                        let reason = format!(
                            "{} bytes; no file of CIFAR has more than {MAX_FILE_BYTES}",
                            file.size
                        );
                        return Err(Error::file(&source.join(&path), reason));
                    }
                    Some(file) => Some(
                        listing
                            .load(file)
                            .map_err(|reason| Error::file(&source.join(&path), reason))?,
                    ),
                    None => None,
                },
            };
            let content = content.ok_or_else(|| {
                Error::file(
                    &source.join(&path),
                    format!("missing; it is part of the {}", version.name),
                )
            })?;
            bytes.insert((*name).to_owned(), content);
        }
        Ok(Files {
            source,
            version,
            bytes,
            folder,
        })
    }

    fn error(&self, name: &str, reason: impl Into<String>) -> Error {
        Error::file(&self.source.join(&self.folder).join(name), reason)
    }

    fn content(&self, name: &str) -> &[u8] {
        self.bytes.get(name).map_or(&[], Vec::as_slice)
    }

    fn class_names(&self) -> Result<Vec<String>> {
        let name = self.version.names;
        let content = self.content(name);
        let names = match self.version.form {
            Form::Binary { .. } => {
                let text = std::str::from_utf8(content)
                    .map_err(|_| self.error(name, "not a text file"))?;
                text.lines()
                    .map(str::trim)
                    .filter(|line| !line.is_empty())
                    .map(str::to_owned)
                    .collect()
            }
            Form::Pickle { names, .. } => pickle::read(content)
                .and_then(|pickle| pickle.strings(pickle.entry(pickle.root(), names)?))
                .map_err(|reason| self.error(name, reason))?,
        };
        if names.is_empty() || names.len() > 1000 {
            return Err(self.error(
                name,
                format!("{} class names; expected 10 or 100", names.len()),
            ));
        }
        Ok(names)
    }

    fn batch(&self, name: &str, classes: usize) -> Result<Batch> {
        let content = self.content(name);
        let batch = match self.version.form {
            Form::Binary { labels } => binary_batch(content, labels),
            Form::Pickle { labels, .. } => pickled_batch(content, labels),
        };
        let batch = batch.map_err(|reason| self.error(name, reason))?;
        let wrong = batch
            .labels
            .iter()
            .position(|&label| label < 0 || label >= classes as i64);
        if let Some(number) = wrong {
            let reason = format!(
                "image {number} has the label {}; there are {classes} classes",
                batch.labels[number]
            );
            return Err(self.error(name, reason));
        }
        Ok(batch)
    }
}

fn binary_batch(content: &[u8], labels: usize) -> std::result::Result<Batch, String> {
    let record = labels + IMAGE_BYTES;
    if content.is_empty() || !content.len().is_multiple_of(record) {
        return Err(format!(
            "{} bytes, not a multiple of {record}: cut short or damaged",
            content.len()
        ));
    }
    let mut batch = Batch {
        images: Vec::with_capacity(content.len()),
        labels: Vec::new(),
    };
    for record in content.chunks_exact(record) {
        batch.labels.push(record[labels - 1].into());
        batch.images.extend(&record[labels..]);
    }
    Ok(batch)
}

fn pickled_batch(content: &[u8], labels: &str) -> std::result::Result<Batch, String> {
    let pickle = pickle::read(content)?;
    let labels = pickle.integers(pickle.entry(pickle.root(), labels)?)?;
    let (rows, columns, images) = pickle.byte_matrix(pickle.entry(pickle.root(), "data")?)?;
    if columns != IMAGE_BYTES || rows != labels.len() {
        return Err(format!(
            "`data` is {rows} x {columns} for {} labels; expected a row of {IMAGE_BYTES} for each",
            labels.len()
        ));
    }
    Ok(Batch {
        images: images.into_owned(),
        labels,
    })
}

/// The one folder that holds a version, and which.
fn recognise(source: &Path, paths: &BTreeSet<String>, split: Split) -> Result<(String, Version)> {
    let mut candidates = Vec::new();
    for path in paths {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        for version in VERSIONS {
            let beside = if folder.is_empty() {
                version.names.to_owned()
            } else {
                format!("{folder}/{}", version.names)
            };
            // `train` and `test` alone would be recognised in anything.
            if version.images(split)[0] == name && paths.contains(&beside) {
                candidates.push((folder.to_owned(), version));
            }
        }
    }
    match &candidates[..] {
        [only] => Ok(only.clone()),
        [] => {
            let expected: Vec<String> = VERSIONS
                .iter()
                .map(|version| {
                    format!(
                        "{} and {} ({})",
                        version.images(split)[0],
                        version.names,
                        version.name
                    )
                })
                .collect();
            Err(Error::file(
                source,
                format!(
                    "no CIFAR {split} files; expected one of: {}",
                    expected.join("; ")
                ),
            ))
        }
        several => {
            let found: Vec<String> = several
                .iter()
                .map(|(folder, version)| format!("{} in `{folder}`", version.name))
                .collect();
            Err(Error::file(
                source,
                format!("more than one CIFAR: {}; name one folder", found.join(", ")),
            ))
        }
    }
}

fn is_gzip(source: &Path) -> Result<bool> {
    if std::fs::metadata(source)
        .map_err(Error::io(source))?
        .is_dir()
    {
        return Ok(false);
    }
    let mut magic = Vec::new();
    File::open(source)
        .and_then(|file| file.take(2).read_to_end(&mut magic))
        .map_err(Error::io(source))?;
    Ok(magic == [0x1F, 0x8B])
}

/// The files in a `.tar.gz` that may be part of CIFAR.
fn unpack_gzip(source: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let known: BTreeSet<&str> = VERSIONS
        .iter()
        .flat_map(|version| {
            version
                .train
                .iter()
                .chain(version.test)
                .chain([&version.names])
        })
        .copied()
        .collect();
    let file = File::open(source).map_err(Error::io(source))?;
    let mut archive =
        tar::Archive::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file)));
    let damaged =
        |error: std::io::Error| Error::file(source, format!("not a sound .tar.gz: {error}"));
    let mut found = BTreeMap::new();
    for entry in archive.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = normalise(&name)
            .map_err(|reason| Error::file(source, format!("entry `{name}`: {reason}")))?;
        let Some(path) = path else { continue };
        let base = path.rsplit('/').next().unwrap_or(&path);
        if !known.contains(base) || !entry.header().entry_type().is_file() {
            continue;
        }
        let size = entry.size();
        if size > MAX_FILE_BYTES {
            let reason = format!(
                "entry `{name}`: {size} bytes; no file of CIFAR has more than {MAX_FILE_BYTES}"
            );
            return Err(Error::file(source, reason));
        }
        let mut bytes = Vec::new();
        entry
            .take(MAX_FILE_BYTES)
            .read_to_end(&mut bytes)
            .map_err(damaged)?;
        if bytes.len() as u64 != size {
            return Err(Error::file(source, format!("entry `{name}`: cut short")));
        }
        if found.insert(path, bytes).is_some() {
            return Err(Error::file(source, format!("holds `{name}` twice")));
        }
    }
    Ok(found)
}
