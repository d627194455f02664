//! Writing a dataset: beside its final place, moved there when it is whole.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, WithoutTls};
use rustix::fs::{FlockOperation, RenameFlags};
use xxhash_rust::xxh3::Xxh3;

use super::journal::{self, Committed, Identity, Journal, LeftOut, Leftover};
use super::manifest::{self, Manifest, Packed};
use super::record::Sample;
use crate::atomic_file::{sync_folder_of, write_atomically};
use crate::image_header::Encoding;
use crate::{Error, Result};

/// Records are collected up to this many bytes and put in one transaction: what a killed packing has to do again.
const BYTES_PER_TRANSACTION: usize = 4 << 20;
/// The map grows by doubling from here. It is small so that growing is the ordinary case, met by every test.
const FIRST_MAP_BYTES: usize = 1 << 20;
const DATA_FILE: &str = "data.mdb";

/// Writes a dataset, sample after sample.
///
/// All is written into the folder `OUT.partial` beside `OUT`, which takes the place of `OUT` in one step in
/// [`finish`](DatasetWriter::finish). Dropped before that, the writer removes what it wrote; killed, it leaves the
/// partial folder, which does not open and which the next writer of the same `OUT` clears away.
///
/// ```
/// use ddas_formats::{Dataset, DatasetWriter, Encoding, Packed};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("two.lmdb");
/// let mut writer = DatasetWriter::create(&path, false)?;
/// writer.append(0, Encoding::Raw, 1, 1, &[255, 0, 0])?;
/// writer.append(1, Encoding::Raw, 1, 1, &[0, 0, 255])?;
/// writer.finish(vec!["red".into(), "blue".into()], Packed::default())?;
///
/// let dataset = Dataset::open(&path)?;
/// assert_eq!(dataset.len(), 2);
/// assert_eq!(dataset.reader()?.get(1)?.payload, [0, 0, 255]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DatasetWriter {
    out: PathBuf,
    overwrite: bool,
    partial: Partial,
    /// What a former process left, until it is known whether it can be continued.
    leftover: Option<Leftover>,
    journal: Option<Journal>,
    store: Option<Store>,
    /// Records of the next transaction, one behind the other.
    pending: Vec<u8>,
    ranges: Vec<Range<usize>>,
    /// Samples already in the database.
    written: u64,
    hash: Box<Xxh3>,
    samples_per_class: Vec<u64>,
}

impl DatasetWriter {
    /// Begins the dataset `out`.
    ///
    /// # Errors
    /// [`Error::File`] when `out` exists and `overwrite` is false, when it exists and is something other than a
    /// dataset (which is never replaced), and when another process is writing it; [`Error::Io`] when the
    /// folder beside it cannot be made.
    pub fn create(out: &Path, overwrite: bool) -> Result<DatasetWriter> {
        let mut writer = DatasetWriter::begin(out, overwrite, false)?;
        writer.store = Some(Store::open(&writer.partial.path)?);
        Ok(writer)
    }

    /// Takes the place of `out`; with `resume`, keeps what a former process left there. [`restore`](Self::restore)
    /// comes next.
    pub(crate) fn begin(out: &Path, overwrite: bool, resume: bool) -> Result<DatasetWriter> {
        // A link stays a link: what it points to is replaced.
        let out = if out.exists() {
            out.canonicalize().map_err(Error::io(out))?
        } else {
            out.to_path_buf()
        };
        check_target(&out, overwrite)?;
        let mut partial = Partial::create(&out)?;
        let mut leftover = None;
        if resume {
            // Nothing is removed before it is known to be of no use.
            partial.owned = false;
            leftover = Leftover::read(&partial.path)?;
        }
        if leftover.is_none() {
            clear(&partial.path)?;
            partial.owned = true;
        }
        Ok(DatasetWriter {
            out,
            overwrite,
            partial,
            leftover,
            journal: None,
            store: None,
            pending: Vec::new(),
            ranges: Vec::new(),
            written: 0,
            hash: Box::new(Xxh3::new()),
            samples_per_class: Vec::new(),
        })
    }

    /// Begins to write, or goes on where the process that left something behind was killed. The records that it has
    /// written are read, checked and hashed; the items of the source they came from are not needed again.
    ///
    /// # Errors
    /// [`Error::File`] when something else was being packed there, or a record is damaged; it then stays as it is.
    pub(crate) fn restore(&mut self, packing: &Identity) -> Result<Restored> {
        let folder = self.partial.path.clone();
        let mut restored = Restored::default();
        let leftover = self.leftover.take();
        let new = leftover.is_none();
        if let Some(leftover) = leftover {
            leftover.check(&folder, packing)?;
            let committed = Committed::read(&folder.join(DATA_FILE))?;
            let (next, left_out) = leftover.place(committed.samples);
            restored = Restored {
                resumed: true,
                next,
                left_out,
                bytes: committed.bytes,
            };
            self.written = committed.samples;
            self.hash = committed.hash;
            self.samples_per_class = committed.samples_per_class;
            // It may have been killed between writing the manifest and moving the folder.
            remove(folder.join(manifest::FILE_NAME))?;
        }
        self.journal = Some(Journal::open(&folder, packing, new)?);
        self.store = Some(Store::open(&folder)?);
        Ok(restored)
    }

    /// Notes that an item of the source is left out.
    pub(crate) fn leave_out(&mut self, entry: &LeftOut) -> Result<()> {
        match &mut self.journal {
            Some(journal) => journal.leave_out(&self.partial.path, entry),
            None => Ok(()),
        }
    }

    /// Commits what was appended, syncs it to the disk, and leaves it for another process to go on with. Returns the samples that wait there;
    /// 0 when there are none, and nothing is left.
    pub(crate) fn suspend(mut self) -> Result<u64> {
        self.flush()?;
        if self.journal.is_none() || self.written == 0 {
            return Ok(0);
        }
        self.partial.owned = false;
        if let Some(Store { env, .. }) = self.store.take() {
            env.force_sync().map_err(Error::lmdb(&self.partial.path))?;
            env.prepare_for_closing().wait();
        }
        // Said last: from here on a restart of the machine loses nothing.
        journal::mark_as_synced(&self.partial.path)?;
        Ok(self.written)
    }

    /// Adds one sample and returns its index.
    ///
    /// `payload` is stored as it is: a whole JPEG or PNG file, or `height * width * 3` bytes of RGB.
    ///
    /// # Errors
    /// [`Error::File`] when the size is beyond the limits, pixels do not fit the size, or the label is
    /// negative or beyond a million; [`Error::Io`] when the disk is full.
    pub fn append(
        &mut self,
        label: i64,
        encoding: Encoding,
        width: u32,
        height: u32,
        payload: &[u8],
    ) -> Result<u64> {
        self.append_sample(&Sample {
            label,
            encoding,
            width,
            height,
            payload,
            index: &[],
        })
    }

    /// Adds one sample, with its index if it has one, and returns its number.
    ///
    /// # Errors
    /// As [`DatasetWriter::append`].
    pub fn append_sample(&mut self, sample: &Sample<'_>) -> Result<u64> {
        let index = self.written + self.ranges.len() as u64;
        let label = sample.label;
        let class = match usize::try_from(label) {
            Ok(class) if class < journal::MAX_CLASSES => class,
            _ => {
                let reason = format!("sample {index}: label {label}; expected 0 to 999999");
                return Err(Error::file(&self.out, reason));
            }
        };
        sample
            .check()
            .map_err(|reason| Error::file(&self.out, format!("sample {index}: {reason}")))?;
        journal::count(&mut self.samples_per_class, class);
        let key = index.to_be_bytes();
        let start = self.pending.len();
        sample.encode(key, &mut self.pending);
        self.hash.update(&key);
        self.hash.update(&self.pending[start..]);
        self.ranges.push(start..self.pending.len());
        if self.pending.len() >= BYTES_PER_TRANSACTION {
            self.flush()?;
        }
        Ok(index)
    }

    /// Where the dataset will stand.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// Whether a good part has been committed already, or was there before.
    pub(crate) fn is_worth_keeping(&self) -> bool {
        self.written > 0
    }

    /// The folder in which the dataset is being written.
    pub(crate) fn folder(&self) -> &Path {
        &self.partial.path
    }

    /// Samples appended so far.
    pub fn len(&self) -> u64 {
        self.written + self.ranges.len() as u64
    }

    /// Whether nothing has been appended yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Completes the dataset and puts it in place. `packed` says where the samples came from.
    ///
    /// # Errors
    /// [`Error::File`] when there is no sample or a label has no class name; [`Error::Io`] when the disk is full.
    pub fn finish(mut self, classes: Vec<String>, packed: Packed) -> Result<Manifest> {
        if self.is_empty() {
            return Err(Error::file(
                &self.out,
                "no samples: an empty dataset is not written",
            ));
        }
        if self.samples_per_class.len() > classes.len() {
            let (label, known) = (self.samples_per_class.len() - 1, classes.len());
            return Err(Error::file(
                &self.out,
                format!("label {label} is used, but the classes named are only {known}"),
            ));
        }
        self.samples_per_class.resize(classes.len(), 0);
        self.flush()?;
        let mut page_size = 0;
        if let Some(Store { env, .. }) = self.store.take() {
            page_size = env.unnamed_database_stat().page_size;
            env.force_sync().map_err(Error::lmdb(&self.partial.path))?;
            env.prepare_for_closing().wait();
        }
        let data = self.partial.path.join(DATA_FILE);
        let file = File::open(&data).map_err(Error::io(&data))?;
        file.sync_all().map_err(Error::io(&data))?;
        let bytes = file.metadata().map_err(Error::io(&data))?.len();
        let manifest = Manifest {
            format: manifest::FORMAT.into(),
            version: manifest::VERSION,
            samples: self.written,
            classes,
            samples_per_class: std::mem::take(&mut self.samples_per_class),
            content_hash: format!("{:032x}", self.hash.digest128()),
            bytes,
            page_size,
            packed,
        };
        let manifest_path = self.partial.path.join(manifest::FILE_NAME);
        write_atomically(&manifest_path, manifest.to_json().as_bytes())?;
        // LMDB makes its file for the owner alone; a dataset is as readable as its manifest.
        fs::metadata(&manifest_path)
            .and_then(|metadata| fs::set_permissions(&data, metadata.permissions()))
            .map_err(Error::io(&data))?;
        // Whole now: from here on there is nothing to continue.
        remove(self.partial.path.join(journal::FILE_NAME))?;
        self.partial.owned = true;
        self.partial.move_to(&self.out, self.overwrite)?;
        Ok(manifest)
    }

    /// Puts the collected records into the database, in one transaction.
    fn flush(&mut self) -> Result<()> {
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        store
            .put(self.written, &self.pending, &self.ranges)
            .map_err(Error::lmdb(&self.partial.path))?;
        self.written += self.ranges.len() as u64;
        self.ranges.clear();
        self.pending.clear();
        Ok(())
    }
}

impl Drop for DatasetWriter {
    fn drop(&mut self) {
        // The map must be gone before `Partial` removes the files below it.
        if let Some(Store { env, .. }) = self.store.take() {
            env.prepare_for_closing().wait();
        }
    }
}

/// What [`DatasetWriter::restore`] found.
#[derive(Default)]
pub(crate) struct Restored {
    /// Whether something was found at all.
    pub(crate) resumed: bool,
    /// The item of the source to go on with.
    pub(crate) next: u64,
    /// Those before it that were left out.
    pub(crate) left_out: Vec<LeftOut>,
    /// Bytes of the payloads that are there.
    pub(crate) bytes: u64,
}

/// The LMDB file under construction.
struct Store {
    env: Env<WithoutTls>,
    database: Database<'static, Bytes, Bytes>,
    map_bytes: usize,
}

impl Store {
    #[allow(unsafe_code)]
    fn open(folder: &Path) -> Result<Store> {
        let present = fs::metadata(folder.join(DATA_FILE)).map_or(0, |metadata| metadata.len());
        let map_bytes = usize::try_from(present)
            .unwrap_or(usize::MAX / 2)
            .next_power_of_two()
            .max(FIRST_MAP_BYTES);
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_bytes);
        // NO_SYNC: an unfinished dataset is thrown away after a power cut, a finished one is synced before it is put in
        // place. NO_LOCK: the folder is locked as a whole.
        // SAFETY: the folder is locked by this process, so no one else has the file open or changes it while it is
        // mapped; NO_LOCK is sound with one writer and no reader. What a killed process left has been
        // read in full before, by code that trusts nothing.
        let env = unsafe {
            options
                .flags(EnvFlags::NO_SYNC | EnvFlags::NO_LOCK)
                .open(folder)
        }
        .map_err(Error::lmdb(folder))?;
        let created = env
            .write_txn()
            .and_then(|txn| {
                env.create_databases_and_commit(txn, |opener, txn| {
                    opener
                        .create_database(txn, None)
                        .map(CommitOrAbort::<_, ()>::Commit)
                })
            })
            .map_err(Error::lmdb(folder))?;
        let database = created
            .commit()
            .ok_or_else(|| Error::file(folder, "LMDB gave no database"))?;
        Ok(Store {
            env,
            database,
            map_bytes,
        })
    }

    /// Appends the records at `ranges` of `bytes`, under the keys from `first` on, in one transaction.
    #[allow(unsafe_code)]
    fn put(&mut self, first: u64, bytes: &[u8], ranges: &[Range<usize>]) -> heed::Result<()> {
        // Twice what is to come covers the rounding up of each value to pages, and the tree above.
        let used = (self.env.info().last_page_number + 1)
            * self.env.unnamed_database_stat().page_size as usize;
        let needed = used + 2 * bytes.len() + 8192 * ranges.len() + (16 << 20);
        if needed > self.map_bytes {
            self.map_bytes = needed.next_power_of_two().max(2 * self.map_bytes);
            // SAFETY: no transaction is open: they live only inside this function, further down.
            unsafe { self.env.resize(self.map_bytes) }?;
        }
        let mut txn = self.env.write_txn()?;
        for (offset, range) in ranges.iter().enumerate() {
            let key = (first + offset as u64).to_be_bytes();
            self.database.put_with_flags(
                &mut txn,
                PutFlags::APPEND,
                &key,
                &bytes[range.clone()],
            )?;
        }
        txn.commit()
    }
}

/// Refuses an `out` that must not be replaced.
fn check_target(out: &Path, overwrite: bool) -> Result<()> {
    let metadata = match fs::symlink_metadata(out) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(out)(error)),
    };
    if !metadata.is_dir() {
        return Err(Error::file(
            out,
            "exists and is not a folder; choose another name for the dataset",
        ));
    }
    let mut empty = true;
    for entry in fs::read_dir(out).map_err(Error::io(out))? {
        let name = entry.map_err(Error::io(out))?.file_name();
        if !is_own(&name) {
            let reason = format!(
                "exists and holds {name:?}, which is no part of a dataset; it is not replaced, choose another name"
            );
            return Err(Error::file(out, reason));
        }
        empty = false;
    }
    if !empty && !overwrite {
        return Err(Error::file(out, "exists; give --overwrite to replace it"));
    }
    Ok(())
}

/// The folder that becomes the dataset; removed on drop.
struct Partial {
    path: PathBuf,
    /// Holds the lock that keeps other writers of the same dataset away.
    _lock: File,
    /// Whether `path` is still this writer's to remove.
    owned: bool,
}

impl Partial {
    fn create(out: &Path) -> Result<Partial> {
        let Some(name) = out.file_name() else {
            return Err(Error::file(
                out,
                "names no folder; expected a name such as cifar10.lmdb",
            ));
        };
        let mut partial_name = OsString::from(name);
        partial_name.push(".partial");
        let path = out.with_file_name(partial_name);
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::file(
                    out,
                    "the folder it is to lie in does not exist; make it first",
                ));
            }
            Err(error) => return Err(Error::io(&path)(error)),
        }
        let lock = File::open(&path).map_err(Error::io(&path))?;
        let busy = || {
            Error::file(
                out,
                "another process is packing it; wait for it or choose another name",
            )
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(busy()),
            Err(error) => return Err(Error::io(&path)(error.into())),
        }
        // Between opening and locking, the former owner may have moved the folder to its final place.
        let locked = lock.metadata().map_err(Error::io(&path))?;
        match fs::symlink_metadata(&path) {
            Ok(found) if (found.dev(), found.ino()) == (locked.dev(), locked.ino()) => {}
            _ => return Err(busy()),
        }
        Ok(Partial {
            path,
            _lock: lock,
            owned: true,
        })
    }

    /// Takes the place of `out`, whatever stood there being removed.
    fn move_to(&mut self, out: &Path, overwrite: bool) -> Result<()> {
        check_target(out, overwrite)?;
        let failed = |error| Error::io(out)(error);
        if out.exists() {
            // In one step, so that at every moment a whole dataset stands at `out`.
            let (directory, flags) = (rustix::fs::CWD, RenameFlags::EXCHANGE);
            match rustix::fs::renameat_with(directory, &self.path, directory, out, flags) {
                // The old dataset is now at `self.path` and goes when `self` is dropped.
                Ok(()) => {}
                // Not every file system can exchange.
                Err(
                    rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP,
                ) => {
                    clear(out)?;
                    fs::rename(&self.path, out).map_err(failed)?;
                    self.owned = false;
                }
                Err(error) => return Err(failed(error.into())),
            }
        } else {
            fs::rename(&self.path, out).map_err(failed)?;
            self.owned = false;
        }
        sync_folder_of(out)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // An unfinished dataset, or the replaced one. An error has no one to go to: the next writer clears the folder.
        if self.owned && clear(&self.path).is_ok() {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Removes a dataset's own files from `folder`, the manifest first so that what is left does not open.
fn clear(folder: &Path) -> Result<()> {
    remove(folder.join(manifest::FILE_NAME))?;
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(folder)(error)),
    };
    for entry in entries {
        let name = entry.map_err(Error::io(folder))?.file_name();
        if is_own(&name) {
            remove(folder.join(name))?;
        }
    }
    Ok(())
}

fn remove(path: PathBuf) -> Result<()> {
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path)(error)),
        _ => Ok(()),
    }
}

/// Whether a dataset's folder may hold a file of this name; a folder with other things in it is never replaced.
fn is_own(name: &OsStr) -> bool {
    name == DATA_FILE
        || name == "lock.mdb"
        || name == manifest::FILE_NAME
        || name == journal::FILE_NAME
        || name.to_str().is_some_and(|name| {
            name.ends_with(".tmp")
                && ["manifest.json.", "journal.jsonl.", "unpacked."]
                    .iter()
                    .any(|start| name.starts_with(start))
        })
}
