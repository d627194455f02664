//! What a source of image files holds: a folder or a tar archive, listed before anything is read.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::image_header::MAX_PAYLOAD_BYTES;
use crate::{Error, Result};

/// Folders nested deeper are taken for a loop of links.
const MAX_DEPTH: usize = 64;
const IMAGE_EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

/// All files and folders of a source that are not hidden.
#[derive(Debug)]
pub(super) struct Listing {
    /// Paths are relative to the source, with `/` between names, in the order of [`path_order`].
    pub(super) files: Vec<SourceFile>,
    /// Every folder, those without files included; without the source itself.
    pub(super) folders: BTreeSet<String>,
    storage: Storage,
}

#[derive(Debug)]
pub(super) struct SourceFile {
    pub(super) path: String,
    /// Bytes, as listed.
    pub(super) size: u64,
    /// First byte in the archive; 0 in a folder.
    offset: u64,
}

#[derive(Debug)]
enum Storage {
    Folder(PathBuf),
    Tar(PathBuf, File),
}

impl SourceFile {
    /// Whether the name is that of an image; what is in it is another matter.
    pub(super) fn is_image(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').is_some_and(|(_, extension)| {
            IMAGE_EXTENSIONS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(extension))
        })
    }
}

/// Compares paths name by name, so that a folder's files stand together.
pub(super) fn path_order(a: &str, b: &str) -> std::cmp::Ordering {
    a.split('/').cmp(b.split('/'))
}

impl Listing {
    /// Lists a folder or a `.tar`; `expected` completes the message about a file that is no such archive.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::File`] when it is something else, and for an archive that is
    /// cut short or holds names or kinds of entries that are not accepted.
    pub(super) fn read(source: &Path, expected: &str) -> Result<Listing> {
        let metadata = fs::metadata(source).map_err(Error::io(source))?;
        let mut listing = if metadata.is_dir() {
            list_folder(source)?
        } else {
            list_tar(source, expected)?
        };
        listing.files.sort_by(|a, b| path_order(&a.path, &b.path));
        if let Some(pair) = listing
            .files
            .windows(2)
            .find(|pair| pair[0].path == pair[1].path)
        {
            return Err(Error::file(
                source,
                format!("holds `{}` twice; make the archive again", pair[0].path),
            ));
        }
        Ok(listing)
    }

    /// The bytes of `file`.
    pub(super) fn load(&self, file: &SourceFile) -> std::result::Result<Vec<u8>, String> {
        if file.size > MAX_PAYLOAD_BYTES as u64 {
            return Err(format!(
                "{} bytes; at most {MAX_PAYLOAD_BYTES} are accepted",
                file.size
            ));
        }
        let read = match &self.storage {
            Storage::Folder(folder) => File::open(folder.join(&file.path)).and_then(|opened| {
                let mut bytes = Vec::with_capacity(file.size as usize + 1);
                opened
                    .take(MAX_PAYLOAD_BYTES as u64 + 1)
                    .read_to_end(&mut bytes)?;
                Ok(bytes)
            }),
            Storage::Tar(_, archive) => {
                let mut bytes = vec![0; file.size as usize];
                archive
                    .read_exact_at(&mut bytes, file.offset)
                    .map(|()| bytes)
            }
        };
        read.map_err(|error| format!("cannot be read: {error}"))
    }

    /// How messages name `path`.
    pub(super) fn display(&self, path: &str) -> PathBuf {
        let (Storage::Folder(source) | Storage::Tar(source, _)) = &self.storage;
        if path.is_empty() {
            source.clone()
        } else {
            source.join(path)
        }
    }
}

fn list_folder(source: &Path) -> Result<Listing> {
    let mut files = Vec::new();
    let mut folders = BTreeSet::new();
    let mut open = vec![String::new()];
    while let Some(folder) = open.pop() {
        let path = source.join(&folder);
        if folder.split('/').count() > MAX_DEPTH {
            return Err(Error::file(
                &path,
                format!("more than {MAX_DEPTH} folders deep; is there a loop of links?"),
            ));
        }
        for entry in fs::read_dir(&path).map_err(Error::io(&path))? {
            let entry = entry.map_err(Error::io(&path))?;
            let name = entry.file_name();
            let name = name
                .to_str()
                .ok_or_else(|| Error::file(&entry.path(), "the name is not UTF-8; rename it"))?;
            if name.starts_with('.') {
                continue;
            }
            let inner = if folder.is_empty() {
                name.to_owned()
            } else {
                format!("{folder}/{name}")
            };
            match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_dir() => {
                    folders.insert(inner.clone());
                    open.push(inner);
                }
                Ok(metadata) if metadata.is_file() => {
                    files.push(SourceFile {
                        path: inner,
                        size: metadata.len(),
                        offset: 0,
                    });
                }
                // Pipes and devices: reading one might never end.
                Ok(_) => {}
                // A link to nowhere: it fails when it is read, and is then a bad file like others.
                Err(_) => files.push(SourceFile {
                    path: inner,
                    size: 0,
                    offset: 0,
                }),
            }
        }
    }
    Ok(Listing {
        files,
        folders,
        storage: Storage::Folder(source.to_owned()),
    })
}

fn list_tar(source: &Path, expected: &str) -> Result<Listing> {
    let mut archive = File::open(source).map_err(Error::io(source))?;
    let length = archive.metadata().map_err(Error::io(source))?.len();
    let not_tar = |reason: &str| Error::file(source, format!("{reason}; expected {expected}"));
    let mut head = [0; 512];
    archive
        .read_exact(&mut head)
        .map_err(|_| not_tar("too short for a tar archive"))?;
    if head.starts_with(&[0x1F, 0x8B]) {
        return Err(not_tar(
            "compressed with gzip: unpack it first (gunzip), so that files in it can be found",
        ));
    }
    archive
        .seek(SeekFrom::Start(0))
        .map_err(Error::io(source))?;
    let mut listing = Listing {
        files: Vec::new(),
        folders: BTreeSet::new(),
        storage: Storage::Tar(
            source.to_owned(),
            archive.try_clone().map_err(Error::io(source))?,
        ),
    };
    // The readers of entries seek by themselves; bytes of the files are not read here.
    let mut reader = tar::Archive::new(BufReader::with_capacity(1 << 10, archive));
    let mut end = 0;
    let entries = reader.entries_with_seek().map_err(Error::io(source))?;
    for (number, entry) in entries.enumerate() {
        let entry = entry.map_err(|error| match number {
            0 => not_tar(&format!("not a tar archive: {error}")),
            _ => Error::file(
                source,
                format!("damaged after {}: {error}", counted_entries(number)),
            ),
        })?;
        add_entry(&mut listing, source, &entry)?;
        end = entry.raw_file_position().saturating_add(entry.size());
        if end > length {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let reason =
                format!("cut short: `{name}` should end at byte {end}, the file has {length}");
            return Err(Error::file(source, reason));
        }
    }
    check_end(source, length, end)?;
    Ok(listing)
}

/// An archive ends with blocks of zeros; without them the last entries may have been lost in a copy.
pub(super) fn check_end(source: &Path, length: u64, end: u64) -> Result<()> {
    let mark = end.div_ceil(512) * 512;
    if length < mark + 512 {
        let reason =
            format!("cut short: the archive has no end mark after its last entry, at byte {mark}");
        return Err(Error::file(source, reason));
    }
    Ok(())
}

/// "1 entry", "2 entries".
pub(crate) fn counted_entries(number: usize) -> String {
    match number {
        1 => "1 entry".to_owned(),
        _ => format!("{number} entries"),
    }
}

fn add_entry<R: Read>(
    listing: &mut Listing,
    source: &Path,
    entry: &tar::Entry<'_, R>,
) -> Result<()> {
    let Some(entry) = TarEntry::read(source, entry)? else {
        return Ok(());
    };
    if entry.path.split('/').any(|name| name.starts_with('.')) {
        return Ok(());
    }
    // A folder need not have an entry of its own.
    let mut folder = match entry.is_folder {
        true => Some(entry.path.as_str()),
        false => entry.path.rsplit_once('/').map(|(parent, _)| parent),
    };
    while let Some(name) = folder {
        if !listing.folders.insert(name.to_owned()) {
            break;
        }
        folder = name.rsplit_once('/').map(|(parent, _)| parent);
    }
    if !entry.is_folder {
        listing.files.push(SourceFile {
            path: entry.path,
            size: entry.size,
            offset: entry.offset,
        });
    }
    Ok(())
}

/// A file or folder in an archive, found to be acceptable.
pub(super) struct TarEntry {
    /// Relative, with `/` between names.
    pub(super) path: String,
    pub(super) is_folder: bool,
    /// Bytes.
    pub(super) size: u64,
    /// First byte in the (uncompressed) archive.
    pub(super) offset: u64,
}

impl TarEntry {
    /// What `entry` is; `None` for headers and for the top folder itself.
    ///
    /// # Errors
    /// [`Error::File`] naming the entry when it is a link or a device, when its name is not UTF-8, absolute or leads
    /// out of the archive, and when the archive contradicts itself about its size.
    pub(super) fn read<R: Read>(
        source: &Path,
        entry: &tar::Entry<'_, R>,
    ) -> Result<Option<TarEntry>> {
        let raw = entry.path_bytes();
        let refuse = |reason: &str| {
            Error::file(
                source,
                format!("entry \"{}\": {reason}", raw.escape_ascii()),
            )
        };
        let kind = entry.header().entry_type();
        if kind == tar::EntryType::XGlobalHeader {
            return Ok(None);
        }
        let text = std::str::from_utf8(&raw).map_err(|_| refuse("the name is not UTF-8"))?;
        let Some(path) = normalise(text).map_err(|reason| refuse(&reason))? else {
            return Ok(None);
        };
        if path.split('/').count() > MAX_DEPTH {
            return Err(refuse(&format!("more than {MAX_DEPTH} folders deep")));
        }
        let is_folder = match kind {
            tar::EntryType::Directory => true,
            tar::EntryType::Regular | tar::EntryType::Continuous => false,
            tar::EntryType::Link | tar::EntryType::Symlink => {
                return Err(refuse(
                    "a link; make the archive with its target in its place (tar --dereference --hard-dereference)",
                ));
            }
            other => {
                return Err(refuse(&format!(
                    "an entry of kind {other:?}; regular files and folders are expected"
                )));
            }
        };
        let size = entry.size();
        let in_header = entry
            .header()
            .entry_size()
            .map_err(|error| refuse(&error.to_string()))?;
        if !is_folder && size != in_header {
            return Err(refuse(&format!(
                "its size is {in_header} in the header and {size} in the extended header"
            )));
        }
        Ok(Some(TarEntry {
            path,
            is_folder,
            size,
            offset: entry.raw_file_position(),
        }))
    }
}

/// `./a//b/` is `a/b`; `None` for the top itself.
///
/// # Errors
/// For absolute paths and such that leave the top.
pub(super) fn normalise(path: &str) -> std::result::Result<Option<String>, String> {
    if path.starts_with('/') {
        return Err("an absolute path; paths have to be relative".into());
    }
    let names: Vec<&str> = path
        .split('/')
        .filter(|name| !matches!(*name, "" | "."))
        .collect();
    if names.contains(&"..") {
        return Err("a path with `..`; paths have to stay inside".into());
    }
    if names.iter().any(|name| name.contains('\0')) {
        return Err("a name with a zero byte".into());
    }
    Ok((!names.is_empty()).then(|| names.join("/")))
}
