//! What a killed packing left behind, and what has to be known to continue it.
//!
//! `journal.jsonl` in the partial folder says in its first line what is being packed, and in each further line which
//! item of the source was left out and why. A line about an item is in the file before a sample that follows the item is
//! in the database, so that the number of samples and the items left out give the place to go on from.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use memmap2::{Mmap, MmapOptions};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::btree::{self, Meta};
use super::record;
use crate::atomic_file::write_atomically;
use crate::{Error, Result};

pub(super) const FILE_NAME: &str = "journal.jsonl";
const FORMAT: &str = "ddas-pack-journal";
const VERSION: u32 = 1;
/// What stands for the start of the machine once everything has reached the disk.
const SYNCED: &str = "synced";

/// What is being packed, from what, and how: a continued packing has to agree in all of it.
pub(crate) type Identity = BTreeMap<String, String>;

/// An item of the source that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    pub(crate) item: u64,
    pub(crate) path: String,
    pub(crate) reason: String,
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    /// The start of the machine that this holds for, or [`SYNCED`]. Writes are not synced one by one: they outlive a
    /// killed process, but not a machine that goes down.
    boot: String,
    packing: Identity,
}

/// What a former process has packed.
pub(super) struct Leftover {
    head: Head,
    left_out: Vec<LeftOut>,
}

impl Leftover {
    /// Reads the journal in `folder`; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::File`] when it is not one, of another version, or from before the machine was started.
    pub(super) fn read(folder: &Path) -> Result<Option<Leftover>> {
        let path = folder.join(FILE_NAME);
        let text = match fs::read(&path) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path)(error)),
        };
        let refuse = |reason: &str| {
            Error::file(
                &path,
                format!("{reason}; pack without --resume to begin anew"),
            )
        };
        // A line without its end was being written when the process was killed; what it says was not used yet.
        let Some(end) = text.rfind('\n') else {
            // Killed before anything was packed.
            return Ok(None);
        };
        let whole = &text[..end];
        let mut lines = whole.lines();
        let head: Head = lines
            .next()
            .and_then(|line| serde_json::from_str(line).ok())
            .filter(|head: &Head| head.format == FORMAT)
            .ok_or_else(|| refuse("not the journal of a packing"))?;
        if head.version != VERSION {
            return Err(refuse(&format!(
                "a journal of version {}; this build continues version {VERSION}",
                head.version
            )));
        }
        if head.boot != SYNCED && head.boot != boot_id() {
            return Err(refuse(
                "killed before this machine was started (or on another): what was written then may not have reached the disk",
            ));
        }
        let left_out = lines
            .map(|line| {
                serde_json::from_str(line)
                    .map_err(|_| refuse("a line that is no entry of a journal"))
            })
            .collect::<Result<_>>()?;
        Ok(Some(Leftover { head, left_out }))
    }

    /// Checks that the same is being packed again.
    ///
    /// # Errors
    /// [`Error::File`] naming the first difference.
    pub(super) fn check(&self, folder: &Path, packing: &Identity) -> Result<()> {
        let names = self.head.packing.keys().chain(packing.keys());
        for name in names {
            let [before, now] =
                [&self.head.packing, packing].map(|of| of.get(name).map_or("none", String::as_str));
            if before != now {
                let reason = format!(
                    "what was begun there differs in `{name}`: {before} then, {now} now; give the same source and flags, \
                     or leave --resume out to begin anew"
                );
                return Err(Error::file(folder, reason));
            }
        }
        Ok(())
    }

    /// The item to go on from when `samples` are in the database, and what was left out before it.
    pub(super) fn place(self, samples: u64) -> (u64, Vec<LeftOut>) {
        let mut next = samples;
        let mut before: Vec<LeftOut> = Vec::new();
        let by_item: BTreeMap<u64, LeftOut> = self
            .left_out
            .into_iter()
            .map(|entry| (entry.item, entry))
            .collect();
        for (item, entry) in by_item {
            if item > next {
                // Noted, but samples before it never were committed.
                break;
            }
            next += 1;
            before.push(entry);
        }
        (next, before)
    }
}

/// The journal of a packing under way.
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Begins the journal in `folder`, or goes on with the one that is there.
    pub(super) fn open(folder: &Path, packing: &Identity, new: bool) -> Result<Journal> {
        let path = folder.join(FILE_NAME);
        if new {
            let head = Head {
                format: FORMAT.into(),
                version: VERSION,
                boot: boot_id(),
                packing: packing.clone(),
            };
            fs::write(&path, line(&head)).map_err(Error::io(&path))?;
        }
        if !new {
            // From here on it holds for this start of the machine only.
            rewrite(folder, &boot_id())?;
        }
        let file = File::options()
            .append(true)
            .open(&path)
            .map_err(Error::io(&path))?;
        Ok(Journal { file })
    }

    pub(super) fn leave_out(&mut self, folder: &Path, entry: &LeftOut) -> Result<()> {
        self.file
            .write_all(line(entry).as_bytes())
            .map_err(Error::io(&folder.join(FILE_NAME)))
    }
}

/// Notes that all that was written to `folder` has reached the disk, and that nobody writes there now.
pub(super) fn mark_as_synced(folder: &Path) -> Result<()> {
    rewrite(folder, SYNCED)
}

/// Replaces the journal, in one step and synced, by one that holds for `boot`. A line that was cut off is left out: it must not
/// run into the next.
fn rewrite(folder: &Path, boot: &str) -> Result<()> {
    let path = folder.join(FILE_NAME);
    let text = fs::read(&path).map_err(Error::io(&path))?;
    let text = String::from_utf8_lossy(&text);
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    let (head, entries) = whole.split_once('\n').unwrap_or((whole, ""));
    let mut head: Head = serde_json::from_str(head)
        .map_err(|_| Error::file(&path, "not the journal of a packing"))?;
    head.boot = boot.to_owned();
    write_atomically(&path, (line(&head) + entries).as_bytes())
}

fn line(value: &impl Serialize) -> String {
    // Plain structs of strings and numbers: there is nothing serde_json could refuse.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Changes with every start of the machine.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// The samples that are in a database, every one of them checked.
#[derive(Default)]
pub(super) struct Committed {
    pub(super) samples: u64,
    /// Bytes of their payloads.
    pub(super) bytes: u64,
    pub(super) hash: Box<Xxh3>,
    pub(super) samples_per_class: Vec<u64>,
}

impl Committed {
    /// Reads all records of `data`, a file that nobody writes now.
    ///
    /// # Errors
    /// [`Error::File`] naming the first record that is not as it was written.
    #[allow(unsafe_code)]
    pub(super) fn read(data: &Path) -> Result<Committed> {
        let mut committed = Committed::default();
        let file = match File::open(data) {
            Ok(file) => file,
            // Killed before LMDB had made its file.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(committed),
            Err(error) => return Err(Error::io(data)(error)),
        };
        if file.metadata().map_err(Error::io(data))?.len() == 0 {
            return Ok(committed);
        }
        // SAFETY: the folder is locked by this process, which does not write the file before the map is gone.
        let map: Mmap = unsafe { MmapOptions::new().map(&file) }.map_err(Error::io(data))?;
        let refuse = |reason: String| {
            Error::file(
                data,
                format!("{reason}; pack without --resume to begin anew"),
            )
        };
        let meta = Meta::read(&map).map_err(refuse)?;
        for index in 0..meta.entries {
            let key = index.to_be_bytes();
            let damaged = |reason| refuse(format!("sample {index} is damaged: {reason}"));
            let place = btree::look_up(&map, &meta, index)
                .and_then(|place| place.ok_or_else(|| "its key is not in the tree".into()))
                .map_err(damaged)?;
            let value = map
                .get(place.start..place.start + place.len)
                .ok_or_else(|| damaged("its record lies beyond the file".into()))?;
            let sample = record::decode(key, value).map_err(damaged)?;
            committed.hash.update(&key);
            committed.hash.update(value);
            committed.bytes += sample.payload.len() as u64;
            let class = usize::try_from(sample.label)
                .ok()
                .filter(|&class| class < MAX_CLASSES);
            count(
                &mut committed.samples_per_class,
                class.ok_or_else(|| damaged(format!("label {}", sample.label)))?,
            );
        }
        committed.samples = meta.entries;
        Ok(committed)
    }
}

/// Labels are below this.
pub(super) const MAX_CLASSES: usize = 1_000_000;

/// Counts one sample of `class`.
pub(super) fn count(samples_per_class: &mut Vec<u64>, class: usize) {
    if class >= samples_per_class.len() {
        samples_per_class.resize(class + 1, 0);
    }
    samples_per_class[class] += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items `o` become samples, items `x` are left out; wherever the process dies, it goes on behind what is known.
    #[test]
    fn the_place_to_go_on_from_follows_from_samples_and_gaps() {
        let items = b"oxxooxoooxxxo";
        let left_out = |upto: usize| -> Vec<LeftOut> {
            (0..upto)
                .filter(|&item| items[item] == b'x')
                .map(|item| LeftOut {
                    item: item as u64,
                    path: String::new(),
                    reason: String::new(),
                })
                .collect()
        };
        let head = || Head {
            format: String::new(),
            version: 1,
            boot: String::new(),
            packing: Identity::new(),
        };
        // Samples are committed after `done` items, the journal may be further.
        for done in 0..=items.len() {
            for noted in done..=items.len() {
                let samples = items[..done].iter().filter(|&&item| item == b'o').count() as u64;
                let leftover = Leftover {
                    head: head(),
                    left_out: left_out(noted),
                };
                let (next, before) = leftover.place(samples);
                let gaps_behind = items[done..noted]
                    .iter()
                    .take_while(|&&item| item == b'x')
                    .count();
                assert_eq!(next as usize, done + gaps_behind, "{done} {noted}");
                assert_eq!(before, left_out(next as usize));
            }
        }
    }
}
