//! Packing WebDataset shards: tar archives in which files of one base name make a sample.

mod shard;
mod shard_names;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use self::shard::{Label, Sample, Shard};
pub use self::shard_names::expand_shards;
use super::engine::{self, About, Items, job_count};
use super::{PackOptions, PackSummary};
use crate::dataset::DatasetWriter;
use crate::image_header::MAX_PAYLOAD_BYTES;
use crate::small_file::read_small_file;
use crate::{Error, Result};

/// A file of class names is small; more than this is not one.
const MAX_NAMES_BYTES: u64 = 64 << 20;

/// Where the labels of shards come from.
#[derive(Clone, Debug, Default)]
pub struct ShardLabels {
    /// Class names by number. Without them, numbers are their own names, and names are sorted.
    pub classes: Option<Vec<String>>,
    /// Take the label from this field of the member `json`: a number, or the name of a class. Without it, the label is
    /// the number in the member `cls`, or where no sample has one, the class name in `txt`.
    pub field: Option<String>,
}

/// Reads class names from a text file, one a line; the line's place is the class's number.
///
/// # Errors
/// [`Error::File`] when a name is missing or comes twice, or when the file is no text; [`Error::Io`] when it cannot be read.
pub fn read_class_names(path: &Path) -> Result<Vec<String>> {
    let bytes = read_small_file(path, MAX_NAMES_BYTES).map_err(Error::io(path))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::file(path, "not a text file; expected one class name a line"))?;
    let names: Vec<String> = text
        .trim_end()
        .lines()
        .map(|line| line.trim().to_owned())
        .collect();
    let mut seen = BTreeSet::new();
    for (number, name) in names.iter().enumerate() {
        if name.is_empty() {
            let reason = format!(
                "line {} is empty; expected one class name a line",
                number + 1
            );
            return Err(Error::file(path, reason));
        }
        if !seen.insert(name) {
            return Err(Error::file(
                path,
                format!("line {} names `{name}` again", number + 1),
            ));
        }
    }
    if names.is_empty() {
        return Err(Error::file(path, "no class names; expected one a line"));
    }
    Ok(names)
}

/// Packs WebDataset shards (`.tar` or `.tar.gz`) into the dataset `out`, in the order of the shards and of the samples
/// in them.
///
/// A sample is what stands together under one key: the name up to the first dot of its last part (`train/0001.jpg` and
/// `train/0001.cls` have the key `train/0001`). It needs one image, the member `jpg`, `jpeg` or `png` in any letter case,
/// whose bytes are stored as they are, and a label (see [`ShardLabels`]). Other members are passed over. Nothing is
/// unpacked under the names in an archive. A compressed shard is unpacked into a temporary file beside
/// the new dataset while its samples are packed.
///
/// # Errors
/// [`Error::File`] naming shard and key when image or label is missing or comes twice, when a label is no number or no known
/// class, or an image is bad, unless bad samples are allowed; naming the shard when it is no sound archive or has entries
/// that are not accepted (links, `..`, absolute names); and when `out` may not be written.
/// [`Error::Io`] when something cannot be read or written.
///
/// ```
/// use ddas_formats::{PackOptions, ShardLabels, pack_webdataset};
///
/// let folder = tempfile::tempdir()?;
/// let shard = folder.path().join("pets-000.tar");
/// let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x20\0\0\0\x10\x08\x02\0\0\0"; // enough without a `check`
/// let mut tar = tar::Builder::new(std::fs::File::create(&shard)?);
/// for (name, bytes) in [("0001.png", &png[..]), ("0001.cls", b"1\n"), ("0002.cls", b"0"), ("0002.PNG", png)] {
///     let mut header = tar::Header::new_gnu();
///     header.set_size(bytes.len() as u64);
///     tar.append_data(&mut header, name, bytes)?;
/// }
/// tar.finish()?;
/// let out = folder.path().join("pets.lmdb");
/// let labels = ShardLabels { classes: Some(vec!["cat".into(), "dog".into()]), field: None };
/// let summary = pack_webdataset(&[shard], &labels, &out, &PackOptions::default())?;
/// assert_eq!(summary.manifest.samples_per_class, [1, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn pack_webdataset(
    shards: &[PathBuf],
    labels: &ShardLabels,
    out: &Path,
    options: &PackOptions<'_>,
) -> Result<PackSummary> {
    let start = Instant::now();
    let Some(first) = shards.first() else {
        return Err(Error::file(
            out,
            "no shards to pack; name at least one .tar",
        ));
    };
    let writer = DatasetWriter::begin(out, options.overwrite, options.resume)?;
    let shards = list(shards, labels, options)?;
    let total: usize = shards.iter().map(|shard| shard.samples.len()).sum();
    if total == 0 {
        let reason = "no samples; expected files such as 0001.jpg and 0001.cls";
        return Err(Error::file(first, reason));
    }
    let (from, classes) = resolve(&shards, labels);
    let places: Vec<(u32, u32)> = shards
        .iter()
        .enumerate()
        .flat_map(|(shard, listed)| {
            (0..listed.samples.len()).map(move |sample| (shard as u32, sample as u32))
        })
        .collect();
    let chosen: Vec<(u32, u32)> = options.chosen(total).map(|number| places[number]).collect();
    let mut left = vec![0; shards.len()];
    for &(shard, _) in &chosen {
        left[shard as usize] += 1;
    }
    let samples = Samples {
        left: left.into_iter().map(AtomicUsize::new).collect(),
        folder: writer.folder().to_owned(),
        shards: &shards,
        chosen,
        from,
        classes: &classes,
    };
    let identity = [("packer", "webdataset".to_owned())];
    let (writer, written) = engine::write_all(&samples, writer, &identity, options)?;

    let mut notes = Vec::new();
    if shards.len() > 1 {
        notes.push(format!(
            "{} shards, from {} on",
            shards.len(),
            first.display()
        ));
    }
    if labels.classes.is_none() && matches!(from, From::Cls) {
        notes.push(
            "classes are named by their numbers; give --classes FILE to name them".to_owned(),
        );
    }
    let from = match (from, &labels.field) {
        (_, Some(field)) => format!("json:{field}"),
        (From::Cls, _) => "cls".to_owned(),
        (From::Txt, _) => "txt".to_owned(),
    };
    let packed = options.packed(
        "webdataset",
        first,
        &[
            ("shards", shards.len().to_string()),
            ("label", from),
            ("skipped", written.skipped.len().to_string()),
        ],
    );
    let ignored = shards.iter().map(|shard| shard.ignored).sum();
    let about = About {
        start,
        ignored,
        notes,
    };
    engine::finish(
        writer,
        &samples,
        classes.names.clone(),
        packed,
        written,
        about,
    )
}

/// Lists the shards on several threads.
fn list(paths: &[PathBuf], labels: &ShardLabels, options: &PackOptions<'_>) -> Result<Vec<Shard>> {
    let next = AtomicUsize::new(0);
    let listed: Mutex<Vec<Option<Result<Shard>>>> =
        Mutex::new(paths.iter().map(|_| None).collect());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(number) else {
                return;
            };
            let shard = Shard::list(path, labels.field.as_deref());
            let failed = shard.is_err();
            listed.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(shard);
            if failed {
                // Those before it are under way; those after it do not matter.
                next.store(paths.len(), Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        // The work of a thread that cannot be started is done by the others; one is this one.
        for worker in 1..job_count(options).min(paths.len()) {
            let _ = thread::Builder::new()
                .name(format!("list-{worker}"))
                .spawn_scoped(scope, work);
        }
        work();
    });
    let listed = listed.into_inner().unwrap_or_else(PoisonError::into_inner);
    // The first failure in order; what was not looked at any more stands behind it.
    listed.into_iter().flatten().collect()
}

/// The member that labels come from; a field of `json` may hold either kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Cls,
    Txt,
}

struct Classes {
    names: Vec<String>,
    /// Positions in `names`, sorted by name.
    sorted: Vec<usize>,
}

impl Classes {
    fn new(names: Vec<String>) -> Classes {
        let mut sorted: Vec<usize> = (0..names.len()).collect();
        sorted.sort_by(|&a, &b| names[a].cmp(&names[b]));
        Classes { names, sorted }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.sorted
            .binary_search_by(|&position| self.names[position].as_str().cmp(name))
            .ok()
            .map(|found| self.sorted[found])
    }
}

/// Which kind of label the samples have, and the classes.
fn resolve(shards: &[Shard], labels: &ShardLabels) -> (From, Classes) {
    let all = || shards.iter().flat_map(|shard| &shard.samples);
    let has_numbers = all().any(|sample| matches!(sample.label, Some(Ok(Label::Number(_)))));
    let has_names = all().any(|sample| matches!(sample.label, Some(Ok(Label::Name(_)))));
    let from = if has_numbers || !has_names {
        From::Cls
    } else {
        From::Txt
    };
    let names = match (&labels.classes, from) {
        (Some(names), _) => names.clone(),
        (None, From::Cls) => {
            let largest = all().filter_map(|sample| match sample.label {
                Some(Ok(Label::Number(number))) => Some(number),
                _ => None,
            });
            (0..=largest.max().unwrap_or(0))
                .map(|number| number.to_string())
                .collect()
        }
        (None, From::Txt) => {
            let names: BTreeSet<&str> = all()
                .filter_map(|sample| match &sample.label {
                    Some(Ok(Label::Name(name))) => Some(&**name),
                    _ => None,
                })
                .collect();
            names.into_iter().map(str::to_owned).collect()
        }
    };
    (from, Classes::new(names))
}

struct Samples<'a> {
    shards: &'a [Shard],
    /// Shard and place in it of each sample to pack.
    chosen: Vec<(u32, u32)>,
    /// Samples of each shard that have not been read yet.
    left: Vec<AtomicUsize>,
    from: From,
    classes: &'a Classes,
    /// Where compressed shards are unpacked.
    folder: PathBuf,
}

impl Samples<'_> {
    fn sample(&self, number: usize) -> (&Shard, &Sample) {
        let (shard, sample) = self.chosen[number];
        let shard = &self.shards[shard as usize];
        (shard, &shard.samples[sample as usize])
    }

    fn label(&self, sample: &Sample) -> std::result::Result<i64, String> {
        let label = match &sample.label {
            Some(Ok(label)) => label,
            Some(Err(reason)) => return Err(reason.clone()),
            None => return Err("no label".into()),
        };
        let classes = self.classes.names.len();
        match label {
            Label::Number(number) if (*number as usize) < classes => Ok(*number as i64),
            Label::Number(number) => Err(format!(
                "class {number}; {} named",
                match classes {
                    1 => "1 class is".to_owned(),
                    _ => format!("{classes} classes are"),
                }
            )),
            Label::Name(_) if self.from == From::Cls && sample.label_member == "txt" => {
                Err("no member `cls`, which other samples have".into())
            }
            Label::Name(name) => match self.classes.position(name) {
                Some(position) => Ok(position as i64),
                None => Err(format!(
                    "class `{name}` is not among the {classes} known ones"
                )),
            },
        }
    }
}

impl Items for Samples<'_> {
    fn len(&self) -> usize {
        self.chosen.len()
    }

    fn describe(&self, number: usize) -> (i64, u64) {
        let (_, sample) = self.sample(number);
        let size = sample.image.as_ref().map_or(0, |image| image.1);
        (self.label(sample).unwrap_or(-1), size)
    }

    fn load(&self, number: usize) -> std::result::Result<Vec<u8>, String> {
        let (shard, sample) = self.sample(number);
        let read = sample.image.clone().and_then(|(offset, size)| {
            self.label(sample)?;
            if size > MAX_PAYLOAD_BYTES as u64 {
                return Err(format!(
                    "{size} bytes; at most {MAX_PAYLOAD_BYTES} are accepted"
                ));
            }
            shard.load(offset, size as usize, &self.folder)
        });
        if self.left[self.chosen[number].0 as usize].fetch_sub(1, Ordering::AcqRel) == 1 {
            shard.forget();
        }
        read
    }

    fn name(&self, number: usize) -> (String, PathBuf) {
        let (shard, sample) = self.sample(number);
        let name = format!("{}: sample `{}`", shard.path.display(), sample.key);
        (name.clone(), name.into())
    }
}
