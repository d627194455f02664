//! Reading and checking files on several threads, writing them in order on one.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use xxhash_rust::xxh3::Xxh3;

use super::{BadFile, PackOptions, PackProgress, PackSummary};
use crate::dataset::{DatasetWriter, Identity, LeftOut, Packed};
use crate::image_header::{ImageHeader, read_image_header};
use crate::{Error, Result, Sample};

/// A thread takes neighbouring items up to this many bytes, or this many items, at once.
const CHUNK_BYTES: u64 = 1 << 20;
const CHUNK_ITEMS: usize = 64;
/// Chunks that a thread may be ahead of the writer.
const CHUNKS_AHEAD: usize = 2;
const MAX_JOBS: usize = 256;

/// The files of one packing, in the order of their samples.
pub(super) trait Items: Sync {
    /// How many there are.
    fn len(&self) -> usize;
    /// Label and size in bytes of item `number`.
    fn describe(&self, number: usize) -> (i64, u64);
    /// The bytes of item `number`.
    fn load(&self, number: usize) -> std::result::Result<Vec<u8>, String>;
    /// Name of item `number`: in the list of bad files, and in an error message.
    fn name(&self, number: usize) -> (String, PathBuf);
}

/// What [`write_all`] did.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) skipped: Vec<BadFile>,
    skipped_first: Option<usize>,
    /// Samples that were there before.
    resumed: Option<u64>,
}

/// Header, bytes and index of an image, or what is wrong with it.
type Checked = std::result::Result<(ImageHeader, Vec<u8>, Vec<u8>), String>;

/// Appends every item to `writer`, in order, whatever the number of threads, and gives the writer back. `source` says what the
/// items are, for a packing that is continued.
///
/// # Errors
/// [`Error::File`] for the first bad item in order, unless bad ones are allowed, and when what is to be continued is something
/// else; [`Error::Stopped`]; what the writer returns.
pub(super) fn write_all(
    items: &dyn Items,
    mut writer: DatasetWriter,
    source: &[(&str, String)],
    options: &PackOptions<'_>,
) -> Result<(DatasetWriter, Written)> {
    let restored = writer.restore(&identity(items, source, options))?;
    let mut written = Written::default();
    if restored.resumed {
        written.resumed = Some(writer.len());
        written.bytes = restored.bytes;
        written.skipped_first = restored.left_out.first().map(|entry| entry.item as usize);
        let bad = |entry: LeftOut| BadFile {
            path: entry.path,
            reason: entry.reason,
        };
        written.skipped = restored.left_out.into_iter().map(bad).collect();
        if let (Some(bad), false) = (written.skipped.first(), options.allow_bad) {
            let reason = format!("left out before: {}; give --allow-bad again", bad.reason);
            return Err(Error::file(Path::new(&bad.path), reason));
        }
    }
    let chunks = chunks(items, restored.next as usize);
    let jobs = job_count(options).min(chunks.len().max(1));
    // Thread `t` takes chunks t, t + jobs, t + 2 jobs, .. and has its own bounded channel: the writer knows where the
    // next chunk comes from, nobody runs far ahead, and a writer that gives up ends the threads by hanging up.
    let outcome = thread::scope(|scope| {
        let mut channels = Vec::with_capacity(jobs);
        for worker in 0..jobs {
            let (sender, receiver) = mpsc::sync_channel(CHUNKS_AHEAD);
            let chunks = &chunks;
            let work = move || {
                for chunk in chunks.iter().skip(worker).step_by(jobs) {
                    let checked: Vec<Checked> = chunk
                        .clone()
                        .map(|number| check(items, number, options))
                        .collect();
                    if sender.send(checked).is_err() {
                        return;
                    }
                }
            };
            thread::Builder::new()
                .name(format!("pack-{worker}"))
                .spawn_scoped(scope, work)
                .map_err(|source| Error::Io {
                    path: PathBuf::from("a thread for packing"),
                    source,
                })?;
            channels.push(receiver);
        }
        let total = items.len() as u64;
        for (number, chunk) in chunks.iter().enumerate() {
            let checked = channels[number % jobs].recv().map_err(|_| {
                let (_, path) = items.name(chunk.start);
                Error::file(&path, "the thread that should have read it is gone")
            })?;
            for (item, checked) in chunk.clone().zip(checked) {
                if options.is_stopped() {
                    return Ok(End::Stopped);
                }
                if let Some(bad) = written.add(items, item, checked, &mut writer, options)? {
                    return Ok(End::Bad(bad));
                }
            }
            (options.progress)(PackProgress {
                done: chunk.end as u64,
                total,
                bytes: written.bytes,
                skipped: written.skipped.len() as u64,
            });
        }
        Ok(End::Complete)
    });
    match outcome? {
        End::Complete => Ok((writer, written)),
        End::Stopped => {
            let out = writer.out().to_owned();
            let samples = writer.suspend()?;
            let total = items.len() as u64;
            Err(Error::Stopped {
                out,
                samples,
                total,
            })
        }
        End::Bad(bad) => {
            let kept = match writer.is_worth_keeping() {
                true => writer.suspend()?,
                false => 0,
            };
            let mut reason = format!(
                "{}; repair or remove it, or give --allow-bad to leave such files out",
                bad.reason
            );
            if kept > 0 {
                let kept = match kept {
                    1 => "the image".to_owned(),
                    kept => format!("the {kept} images"),
                };
                reason.push_str(&format!(
                    " (--resume then goes on behind {kept} packed so far)"
                ));
            }
            Err(Error::file(Path::new(&bad.path), reason))
        }
    }
}

enum End {
    Complete,
    Stopped,
    Bad(BadFile),
}

/// What is packed from what, and how.
fn identity(items: &dyn Items, source: &[(&str, String)], options: &PackOptions<'_>) -> Identity {
    let mut list = Xxh3::new();
    for number in 0..items.len() {
        let ((label, size), (name, _)) = (items.describe(number), items.name(number));
        list.update(&label.to_le_bytes());
        list.update(&size.to_le_bytes());
        list.update(&(name.len() as u64).to_le_bytes());
        list.update(name.as_bytes());
    }
    let transform = options.transform.as_ref();
    let transform = transform.map_or("none", |transform| &transform.name);
    let limit = options
        .limit
        .map_or("none".into(), |limit| limit.to_string());
    let mut identity: Identity = [
        (
            "tool",
            concat!("ddas-formats ", env!("CARGO_PKG_VERSION")).to_owned(),
        ),
        ("number of images", items.len().to_string()),
        (
            "names, sizes and labels of the images",
            format!("{:032x}", list.digest128()),
        ),
        ("limit", limit),
        ("transform", transform.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    identity.extend(
        source
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    identity
}

/// Threads to use.
pub(super) fn job_count(options: &PackOptions<'_>) -> usize {
    match options.jobs {
        0 => thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    }
    .clamp(1, MAX_JOBS)
}

/// Completes the dataset and says what was done.
///
/// # Errors
/// [`Error::File`] naming the first bad item when there was no good one; what the writer returns.
pub(super) fn finish(
    writer: DatasetWriter,
    items: &dyn Items,
    classes: Vec<String>,
    packed: Packed,
    written: Written,
    about: About,
) -> Result<PackSummary> {
    if let (true, Some(first)) = (writer.is_empty(), &written.skipped_first) {
        let (_, path) = items.name(*first);
        let reason = &written.skipped[0].reason;
        let reason = match items.len() {
            1 => format!("the only image is bad: {reason}"),
            all => format!("none of the {all} images is good; the first: {reason}"),
        };
        return Err(Error::file(&path, reason));
    }
    let manifest = writer.finish(classes, packed)?;
    Ok(PackSummary {
        samples: manifest.samples,
        classes: manifest.classes.len(),
        bytes: written.bytes,
        skipped: written.skipped,
        ignored: about.ignored,
        notes: about.notes,
        resumed: written.resumed,
        seconds: about.start.elapsed().as_secs_f64(),
        manifest,
    })
}

/// What a packer knows besides its items.
pub(super) struct About {
    pub(super) start: Instant,
    /// Files of the source that are no images by their name.
    pub(super) ignored: u64,
    pub(super) notes: Vec<String>,
}

impl Written {
    /// Appends an item, or leaves it out; the item when it is bad and that is not allowed.
    fn add(
        &mut self,
        items: &dyn Items,
        item: usize,
        checked: Checked,
        writer: &mut DatasetWriter,
        options: &PackOptions<'_>,
    ) -> Result<Option<BadFile>> {
        match checked {
            Ok((header, bytes, index)) => {
                writer.append_sample(&Sample {
                    label: items.describe(item).0,
                    encoding: header.encoding,
                    width: header.width,
                    height: header.height,
                    payload: &bytes,
                    index: &index,
                })?;
                self.bytes += bytes.len() as u64;
            }
            Err(reason) if options.allow_bad => {
                let (path, _) = items.name(item);
                writer.leave_out(&LeftOut {
                    item: item as u64,
                    path: path.clone(),
                    reason: reason.clone(),
                })?;
                self.skipped_first.get_or_insert(item);
                self.skipped.push(BadFile { path, reason });
            }
            Err(reason) => {
                let path = items.name(item).1.to_string_lossy().into_owned();
                return Ok(Some(BadFile { path, reason }));
            }
        }
        Ok(None)
    }
}

fn check(items: &dyn Items, number: usize, options: &PackOptions<'_>) -> Checked {
    let bytes = items.load(number)?;
    let header = read_image_header(&bytes).map_err(|error| error.to_string())?;
    // The caller's decoder meets hostile bytes here. Should it panic, that too is a verdict on one file.
    let checked = catch_unwind(AssertUnwindSafe(|| {
        let (header, bytes) = match &options.transform {
            None => (options.check)(&header, &bytes).map(|()| (header, bytes))?,
            Some(transform) => {
                let bytes = (transform.apply)(&header, bytes)?;
                let header = read_image_header(&bytes).map_err(|error| error.to_string())?;
                (header, bytes)
            }
        };
        let index = (options.index)(&header, &bytes);
        Ok((header, bytes, index))
    }));
    checked.unwrap_or_else(|_| Err("the decoder panicked on it".into()))
}

fn chunks(items: &dyn Items, first: usize) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (first, 0u64);
    for number in first..items.len() {
        bytes = bytes.saturating_add(items.describe(number).1);
        if bytes >= CHUNK_BYTES || number + 1 - start == CHUNK_ITEMS || number + 1 == items.len() {
            chunks.push(start..number + 1);
            (start, bytes) = (number + 1, 0);
        }
    }
    chunks
}
