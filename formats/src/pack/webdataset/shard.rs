//! One shard: what is in it, and the bytes of its images.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use flate2::read::MultiGzDecoder;

use crate::pack::source::{TarEntry, check_end, counted_entries};
use crate::{Error, Result};

const IMAGES: [&str; 3] = ["jpg", "jpeg", "png"];
/// A label takes a few bytes; `json` may hold other things too.
const MAX_LABEL_BYTES: u64 = 1 << 20;
/// Labels beyond this are taken for damage, as in [`crate::DatasetWriter`].
const MAX_CLASS: u64 = 999_999;

/// A shard and its samples, in its own order.
pub(super) struct Shard {
    pub(super) path: PathBuf,
    pub(super) samples: Vec<Sample>,
    /// Files that belong to no sample.
    pub(super) ignored: u64,
    storage: Storage,
}

enum Storage {
    Plain(File),
    /// The unpacked shard while it is in use; it has no name.
    Gzip(Mutex<Option<File>>),
}

pub(super) struct Sample {
    pub(super) key: String,
    /// Offset and size of the image, or why there is none.
    pub(super) image: std::result::Result<(u64, u64), String>,
    /// The label, or why it is none; `None` when there is no member for it.
    pub(super) label: Option<std::result::Result<Label, String>>,
    /// The member the label is from.
    pub(super) label_member: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Label {
    Number(u64),
    Name(Box<str>),
}

impl Shard {
    /// Lists the samples of a `.tar` or `.tar.gz`; with `field`, labels are taken from it in `json`.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::File`] when it is something else or cut short, and for entries that
    /// are not accepted.
    pub(super) fn list(path: &Path, field: Option<&str>) -> Result<Shard> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        if metadata.is_dir() {
            let reason = "a folder; expected .tar shards: name the files in it, such as FOLDER/shard-{000..012}.tar";
            return Err(Error::file(path, reason));
        }
        let mut magic = [0; 2];
        let is_gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1F, 0x8B];
        file.seek(SeekFrom::Start(0)).map_err(Error::io(path))?;
        let mut lister = Lister::new(path, field);
        let storage = if is_gzip {
            let mut archive = tar::Archive::new(unpacking(file));
            let entries = archive.entries().map_err(Error::io(path))?;
            lister.list(entries, None)?;
            // The checksum of the compression stands behind the archive's end mark.
            io::copy(&mut archive.into_inner(), &mut io::sink())
                .map_err(|error| Error::file(path, format!("not a sound .tar.gz: {error}")))?;
            Storage::Gzip(Mutex::new(None))
        } else {
            let reader =
                BufReader::with_capacity(1 << 10, file.try_clone().map_err(Error::io(path))?);
            let mut archive = tar::Archive::new(reader);
            let entries = archive.entries_with_seek().map_err(Error::io(path))?;
            let end = lister.list(entries, Some(metadata.len()))?;
            check_end(path, metadata.len(), end)?;
            Storage::Plain(file)
        };
        Ok(Shard {
            path: path.to_owned(),
            samples: lister.samples,
            ignored: lister.ignored,
            storage,
        })
    }

    /// The `size` bytes at `offset`; a compressed shard is unpacked into a file in `folder` first.
    pub(super) fn load(
        &self,
        offset: u64,
        size: usize,
        folder: &Path,
    ) -> std::result::Result<Vec<u8>, String> {
        let mut bytes = vec![0; size];
        let read = match &self.storage {
            Storage::Plain(file) => file.read_exact_at(&mut bytes, offset),
            Storage::Gzip(unpacked) => {
                let mut unpacked = unpacked.lock().unwrap_or_else(PoisonError::into_inner);
                match &*unpacked {
                    Some(file) => Ok(file),
                    None => self.unpack(folder).map(|file| &*unpacked.insert(file)),
                }
                .and_then(|file| file.read_exact_at(&mut bytes, offset))
            }
        };
        read.map(|()| bytes)
            .map_err(|error| format!("cannot be read: {error}"))
    }

    fn unpack(&self, folder: &Path) -> io::Result<File> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let path = folder.join(format!("unpacked.{name}.tmp"));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        // From here on the file goes when it is closed, however this process ends.
        fs::remove_file(&path)?;
        io::copy(&mut unpacking(File::open(&self.path)?), &mut file)?;
        Ok(file)
    }

    /// Gives up what was unpacked.
    pub(super) fn forget(&self) {
        if let Storage::Gzip(unpacked) = &self.storage {
            *unpacked.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

fn unpacking(file: File) -> MultiGzDecoder<BufReader<File>> {
    MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file))
}

/// Groups the entries of a shard into samples.
struct Lister<'a> {
    path: &'a Path,
    field: Option<&'a str>,
    samples: Vec<Sample>,
    ignored: u64,
    keys: HashSet<String>,
    open: Option<Open>,
}

/// The sample whose members are being read.
struct Open {
    sample: Sample,
    members: Vec<String>,
    /// What is wrong with the sample as a whole.
    complaint: Option<String>,
}

impl<'a> Lister<'a> {
    fn new(path: &'a Path, field: Option<&'a str>) -> Self {
        Lister {
            path,
            field,
            samples: Vec::new(),
            ignored: 0,
            keys: HashSet::new(),
            open: None,
        }
    }

    /// Reads all entries; the end of the last one. With `length`, each has to end before it.
    fn list<R: Read>(&mut self, entries: tar::Entries<'_, R>, length: Option<u64>) -> Result<u64> {
        let path = self.path;
        let mut end = 0;
        for (number, entry) in entries.enumerate() {
            let mut entry = entry.map_err(|error| match number {
                0 => Error::file(
                    path,
                    format!("not a tar archive: {error}; expected .tar or .tar.gz shards"),
                ),
                _ => Error::file(
                    path,
                    format!("damaged after {}: {error}", counted_entries(number)),
                ),
            })?;
            end = entry.raw_file_position().saturating_add(entry.size());
            if let Some(length) = length
                && end > length
            {
                let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                let reason =
                    format!("cut short: `{name}` should end at byte {end}, the file has {length}");
                return Err(Error::file(path, reason));
            }
            if let Some(checked) = TarEntry::read(path, &entry)?
                && !checked.is_folder
            {
                self.add(checked, &mut entry)?;
            }
        }
        self.close();
        Ok(end)
    }

    fn add(&mut self, entry: TarEntry, content: &mut impl Read) -> Result<()> {
        let Some((key, member)) = key_and_member(&entry.path) else {
            self.ignored += 1;
            return Ok(());
        };
        if self.open.as_ref().is_none_or(|open| open.sample.key != key) {
            self.close();
            let sample = Sample {
                key: key.to_owned(),
                // Until one comes; `close` says what came instead.
                image: Err(String::new()),
                label: None,
                label_member: "",
            };
            let complaint = (!self.keys.insert(key.to_owned())).then(|| {
                "its key came before in this shard; all members of a sample have to stand together".to_owned()
            });
            self.open = Some(Open {
                sample,
                members: Vec::new(),
                complaint,
            });
        }
        let Some(Open {
            sample,
            members,
            complaint,
        }) = &mut self.open
        else {
            return Ok(());
        };
        if members.contains(&member) {
            *complaint = Some(format!("the member `{member}` comes twice"));
            return Ok(());
        }
        let is_image = IMAGES.contains(&member.as_str());
        if is_image {
            match members
                .iter()
                .find(|other| IMAGES.contains(&other.as_str()))
            {
                Some(other) => {
                    *complaint = Some(format!(
                        "two images, `{other}` and `{member}`; expected one"
                    ))
                }
                None => sample.image = Ok((entry.offset, entry.size)),
            }
        }
        let wanted = match self.field {
            Some(_) => member == "json",
            // The number goes before the name, in whatever order they stand.
            None => member == "cls" || member == "txt" && sample.label.is_none(),
        };
        if wanted {
            let mut text = Vec::new();
            content
                .take(MAX_LABEL_BYTES + 1)
                .read_to_end(&mut text)
                .map_err(|error| Error::file(self.path, format!("`{}`: {error}", entry.path)))?;
            let label = match self.field {
                _ if text.len() as u64 > MAX_LABEL_BYTES => Err(format!(
                    "the member `{member}` has more than {MAX_LABEL_BYTES} bytes"
                )),
                Some(field) => json_label(&text, field),
                None if member == "cls" => number(&text),
                None => name(&text),
            };
            sample.label = Some(label);
            sample.label_member = match member.as_str() {
                "cls" => "cls",
                "txt" => "txt",
                _ => "json",
            };
        } else if !is_image {
            self.ignored += 1;
        }
        members.push(member);
        Ok(())
    }

    fn close(&mut self) {
        if let Some(Open {
            mut sample,
            complaint,
            members,
        }) = self.open.take()
        {
            if let Some(complaint) = complaint {
                sample.image = Err(complaint);
            } else if sample.image.is_err() {
                sample.image = Err(format!(
                    "no image: expected a member `jpg`, `jpeg` or `png`, found {}",
                    listed(&members)
                ));
            }
            sample.label.get_or_insert_with(|| {
                let expected = match self.field {
                    Some(field) => format!("no member `json` with a field `{field}`"),
                    None => "no label: expected a member `cls` with the number of its class, or `txt` with the name"
                        .to_owned(),
                };
                Err(format!("{expected}, found {}", listed(&members)))
            });
            self.samples.push(sample);
        }
    }
}

/// "`cls` and `txt`": the first of a sample's members.
fn listed(members: &[String]) -> String {
    const MOST: usize = 6;
    let quoted = |member: &String| format!("`{}`", member.chars().take(40).collect::<String>());
    match members {
        [one] => quoted(one),
        [first @ .., last] if members.len() <= MOST => {
            let first = first.iter().map(quoted).collect::<Vec<_>>();
            format!("{} and {}", first.join(", "), quoted(last))
        }
        _ => {
            let first = members.iter().take(MOST).map(quoted).collect::<Vec<_>>();
            let more = members.len().saturating_sub(MOST);
            format!("{} and {more} more", first.join(", "))
        }
    }
}

/// `a.b/0001.seg.PNG` is the member `seg.png` of the sample `a.b/0001`; names that begin with a dot, names without one,
/// and `__names__` of the archive itself are of no sample.
fn key_and_member(path: &str) -> Option<(&str, String)> {
    let base = path.rsplit('/').next().unwrap_or(path);
    let (stem, member) = base.split_once('.')?;
    if stem.is_empty() || member.is_empty() || stem.starts_with("__") {
        return None;
    }
    let key = &path[..path.len() - base.len() + stem.len()];
    Some((key, member.to_ascii_lowercase()))
}

fn number(text: &[u8]) -> std::result::Result<Label, String> {
    let text = text.trim_ascii();
    let digits = std::str::from_utf8(text)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(class) if class <= MAX_CLASS => Ok(Label::Number(class)),
        _ => Err(format!(
            "the member `cls` holds \"{}\"; expected the number of a class, 0 to {MAX_CLASS}",
            text[..text.len().min(40)].escape_ascii()
        )),
    }
}

fn name(text: &[u8]) -> std::result::Result<Label, String> {
    match std::str::from_utf8(text.trim_ascii()) {
        Ok("") => Err("the member `txt` is empty; expected the name of a class".into()),
        Ok(name) if name.lines().count() > 1 || name.len() > 1000 => {
            Err("the member `txt` is a longer text, not the name of a class".into())
        }
        Ok(name) => Ok(Label::Name(name.into())),
        Err(_) => Err("the member `txt` is not UTF-8".into()),
    }
}

fn json_label(text: &[u8], field: &str) -> std::result::Result<Label, String> {
    let value: serde_json::Value = serde_json::from_slice(text)
        .map_err(|error| format!("the member `json` is not JSON: {error}"))?;
    let wrong = |found: String| {
        format!(
            "field `{field}` of the member `json` is {found}; expected the number of a class, 0 to {MAX_CLASS}, or its name"
        )
    };
    match value.get(field) {
        None => Err(wrong("missing".into())),
        Some(serde_json::Value::String(name)) if !name.is_empty() => {
            Ok(Label::Name(name.as_str().into()))
        }
        Some(found) => match found.as_u64() {
            Some(class) if class <= MAX_CLASS => Ok(Label::Number(class)),
            _ => Err(wrong(found.to_string().chars().take(40).collect())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `webdataset.tariterators.base_plus_ext` gives for these names.
    #[test]
    fn keys_end_at_the_first_dot_of_the_last_name() {
        for (path, expected) in [
            ("0001.jpg", Some(("0001", "jpg"))),
            ("a/b.c/0001.Seg.PNG", Some(("a/b.c/0001", "seg.png"))),
            ("plain", None),
            (".hidden", None),
            ("a/.hidden.jpg", None),
        ] {
            let expected = expected.map(|(key, member)| (key, member.to_owned()));
            assert_eq!(key_and_member(path), expected, "{path}");
        }
    }

    #[test]
    fn labels_are_numbers_or_names_and_nothing_else() {
        assert_eq!(number(b" 12\n"), Ok(Label::Number(12)));
        for bad in [
            &b""[..],
            b"-1",
            b"1.0",
            b"cat",
            b"1000000",
            b"99999999999999999999",
            b"\xFF",
        ] {
            assert!(number(bad).is_err(), "{bad:?}");
        }
        assert_eq!(name(b"tabby cat\n"), Ok(Label::Name("tabby cat".into())));
        assert!(
            name(b" ").is_err()
                && name(b"a caption\nof two lines").is_err()
                && name(b"\xFF").is_err()
        );
        assert_eq!(
            json_label(br#"{"label": 3}"#, "label"),
            Ok(Label::Number(3))
        );
        assert_eq!(
            json_label(br#"{"label": "cat"}"#, "label"),
            Ok(Label::Name("cat".into()))
        );
        for bad in [
            &br#"{"label": 3"#[..],
            b"{}",
            b"3",
            br#"{"label": -3}"#,
            br#"{"label": 1.5}"#,
            br#"{"label": null}"#,
        ] {
            assert!(json_label(bad, "label").is_err());
        }
    }
}
