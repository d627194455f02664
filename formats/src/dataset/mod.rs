//! Packed datasets: an LMDB file with one record per sample, and a manifest beside it.

mod btree;
mod journal;
mod manifest;
mod record;
mod verify;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::{Advice, Mmap, MmapOptions};

use self::btree::Meta;
pub(crate) use self::journal::{Identity, LeftOut};
pub use self::manifest::{Manifest, Packed};
pub use self::record::Sample;
pub use self::verify::{DamagedSample, VerifyReport, verify};
pub use self::writer::DatasetWriter;
use crate::{Error, Result};

/// A packed dataset, opened read-only; a clone shares the same map, so each thread may have one.
///
/// ```
/// use ddas_formats::{Dataset, DatasetWriter, Encoding, Packed};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("one.lmdb");
/// # let mut writer = DatasetWriter::create(&path, false)?;
/// # writer.append(0, Encoding::Raw, 2, 1, &[9; 6])?;
/// # writer.finish(vec!["grey".into()], Packed::default())?;
/// let dataset = Dataset::open(&path)?;
/// let reader = dataset.reader()?; // one per worker thread
/// for index in 0..dataset.len() {
///     let sample = reader.get(index)?; // borrows the map: no copy
///     println!("{index}: {} in {} bytes", dataset.classes()[sample.label as usize], sample.payload.len());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dataset {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    manifest: Manifest,
    meta: Meta,
    map: Mmap,
}

impl Dataset {
    /// Opens the dataset in the folder `path`, after checking that manifest and file belong together and that the
    /// file is whole. The same dataset may be opened any number of times.
    ///
    /// # Errors
    /// [`Error::File`] when the manifest is missing, malformed or of another version, when the file
    /// is cut short, is no LMDB file, or has another size or number of samples than the manifest says;
    /// [`Error::Io`] when it cannot be read.
    #[allow(unsafe_code)]
    pub fn open(path: &Path) -> Result<Dataset> {
        let manifest = Manifest::read(path)?;
        let data = path.join("data.mdb");
        let file = File::open(&data).map_err(Error::io(&data))?;
        let bytes = file.metadata().map_err(Error::io(&data))?.len();
        if bytes != manifest.bytes {
            let reason = format!(
                "the file has {bytes} bytes, the manifest says {}: {}; copy or pack the dataset again",
                manifest.bytes,
                if bytes < manifest.bytes {
                    "cut short"
                } else {
                    "not the file that was packed"
                }
            );
            return Err(Error::file(&data, reason));
        }
        let length =
            usize::try_from(bytes).map_err(|_| Error::file(&data, "too large for this machine"))?;
        // SAFETY: a finished dataset is never modified in place: the writer works in another folder and replaces this
        // one as a whole, which leaves an existing map on the old file. A user who cuts the file short
        // while it is mapped gets a bus error, as with any map; for large records `get` asks the kernel first.
        let map = unsafe { MmapOptions::new().len(length).map(&file) }.map_err(Error::io(&data))?;
        // Samples are read in shuffled order: what follows one is not worth reading ahead. Only a hint.
        let _ = map.advise(Advice::Random);
        let meta = Meta::read(&map).map_err(|reason| Error::file(&data, reason))?;
        if meta.page_size != manifest.page_size {
            let reason = format!(
                "pages of {} bytes; the manifest says {}",
                meta.page_size, manifest.page_size
            );
            return Err(Error::file(&data, reason));
        }
        if meta.entries != manifest.samples {
            let reason = format!(
                "{} samples; the manifest says {}",
                meta.entries, manifest.samples
            );
            return Err(Error::file(&data, reason));
        }
        Ok(Dataset {
            inner: Arc::new(Inner {
                path: path.to_path_buf(),
                manifest,
                meta,
                map,
            }),
        })
    }

    /// What the dataset says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    /// Number of samples; their indices are `0..len`.
    pub fn len(&self) -> u64 {
        self.inner.manifest.samples
    }

    /// Whether there is no sample; never so in a dataset that [`DatasetWriter`] wrote.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The folder, as given to [`open`](Dataset::open).
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Class names; a sample's label is a position in this list.
    pub fn classes(&self) -> &[String] {
        &self.inner.manifest.classes
    }

    /// A reader for one thread; it keeps the dataset open by itself.
    ///
    /// # Errors
    /// None today; the signature leaves room for readers that hold a resource each.
    pub fn reader(&self) -> Result<DatasetReader> {
        Ok(DatasetReader {
            dataset: self.clone(),
        })
    }
}

/// Of larger samples only the beginning is prefetched: processors keep but a few requests waiting, and read on by
/// themselves.
const PREFETCHED: usize = 8 << 10;

/// Records of at most so many bytes come by page faults: one at most for each page, and none once they are there. Asking
/// the kernel costs more than that, and costs it each time.
const FAULTED: usize = 8 << 10;

/// A sample that was found, but not read: of the dataset whose reader [located](DatasetReader::locate) it.
#[derive(Clone, Copy, Debug)]
pub struct Located {
    index: u64,
    entry: btree::Entry,
}

/// Asks for the cache lines of `bytes`.
#[allow(unsafe_code)]
fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which faults nowhere; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// Reads the samples of a [`Dataset`] in any order.
#[derive(Clone, Debug)]
pub struct DatasetReader {
    dataset: Dataset,
}

impl DatasetReader {
    /// The sample `index`, checked and borrowed from the map.
    ///
    /// # Errors
    /// [`Error::NoSuchSample`] when `index` is not below the number of samples; [`Error::DamagedSample`], naming
    /// dataset and index, when any byte of it or of the tree above it is not as it was written.
    pub fn get(&self, index: u64) -> Result<Sample<'_>> {
        self.get_located(&self.locate(index)?)
    }

    /// Finds the sample `index` without reading it, which takes the first half of [`get`](DatasetReader::get)'s time.
    /// Whoever knows which samples come next locates them, [prefetches](DatasetReader::prefetch) each a little ahead, and
    /// then gets them out of the cache: memory is read while the samples before them are worked on.
    ///
    /// ```
    /// # use ddas_formats::{Dataset, DatasetWriter, Encoding, Packed};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("two.lmdb");
    /// # let mut writer = DatasetWriter::create(&path, false)?;
    /// # writer.append(0, Encoding::Raw, 2, 1, &[9; 6])?;
    /// # writer.append(0, Encoding::Raw, 2, 1, &[7; 6])?;
    /// # writer.finish(vec!["grey".into()], Packed::default())?;
    /// let reader = Dataset::open(&path)?.reader()?;
    /// let next = reader.locate(1)?;
    /// reader.prefetch(&next);
    /// // .. work on sample 0 ..
    /// assert_eq!(reader.get_located(&next)?, reader.get(1)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](DatasetReader::get) for the index and the tree.
    pub fn locate(&self, index: u64) -> Result<Located> {
        let Inner {
            meta,
            map,
            manifest,
            ..
        } = &*self.dataset.inner;
        if index >= manifest.samples {
            return Err(Error::NoSuchSample {
                dataset: self.dataset.inner.path.clone(),
                index,
                samples: manifest.samples,
            });
        }
        let entry = btree::find(map, meta, index)
            .map_err(|reason| self.damaged(index, reason))?
            .ok_or_else(|| self.damaged(index, "its key is not in the tree".into()))?;
        Ok(Located { index, entry })
    }

    /// Has the processor fetch the bytes of a small sample into its cache, and does not wait. Of a larger one it
    /// fetches the beginning: the rest comes as it is read.
    pub fn prefetch(&self, located: &Located) {
        let Inner { meta, map, .. } = &*self.dataset.inner;
        let (start, len) = located.entry.extent(meta);
        let end = start.saturating_add(len.min(PREFETCHED)).min(map.len());
        prefetch(map.get(start..end).unwrap_or_default());
    }

    /// As [`get`](DatasetReader::get) for a sample that this dataset [located](DatasetReader::locate).
    ///
    /// # Errors
    /// [`Error::DamagedSample`] as [`get`](DatasetReader::get).
    pub fn get_located(&self, located: &Located) -> Result<Sample<'_>> {
        let value = self.located_value(located)?;
        record::decode(located.index.to_be_bytes(), value)
            .map_err(|reason| self.damaged(located.index, reason))
    }

    /// Calls `visit` with number and label of every sample, in order: the label that its record has in the header. The
    /// checksum is not looked at, so that images are not read from the disk: [`get`](DatasetReader::get) checks both.
    ///
    /// # Errors
    /// [`Error::File`] when the tree of samples or the header of one is not as it was written.
    pub fn for_each_label(&self, visit: &mut dyn FnMut(u64, i64)) -> Result<()> {
        let Inner {
            meta, map, path, ..
        } = &*self.dataset.inner;
        // Records as small as these lie in the tree itself, which is then worth reading ahead; larger ones lie between its
        // pages, and would be read with it. Only hints, both.
        let is_dense = (map.len() as u64) < 4096 * self.dataset.len();
        if is_dense {
            let _ = map.advise(Advice::Sequential);
        }
        let mut at = 0;
        let scanned = btree::scan(map, meta, &mut |index, place| {
            at = index;
            let value = map
                .get(place.start..place.start + place.len)
                .ok_or("its record lies beyond the file")?;
            visit(index, record::label(value)?);
            Ok(())
        });
        if is_dense {
            let _ = map.advise(Advice::Random);
        }
        scanned.map_err(|reason| {
            let reason = format!(
                "{reason} (at sample {at} or behind it); `ddas-loader verify` lists what is damaged"
            );
            Error::file(path, reason)
        })
    }

    /// The record of `index`, unchecked.
    fn value(&self, index: u64) -> Result<&[u8]> {
        self.located_value(&self.locate(index)?)
    }

    fn located_value(&self, &Located { index, entry }: &Located) -> Result<&[u8]> {
        let Inner { meta, map, .. } = &*self.dataset.inner;
        let place = entry
            .place(map, meta)
            .map_err(|reason| self.damaged(index, reason))?;
        if place.own_pages && place.len > FAULTED {
            self.fetch(index, place.start, place.len)?;
        }
        map.get(place.start..place.start + place.len)
            .ok_or_else(|| self.damaged(index, "its record lies beyond the file".into()))
    }

    /// Brings the pages of a large record into memory in one request. It saves a page fault, and on a cold disk a
    /// read, for each 4 KiB, and turns a failing disk into an error instead of a bus error.
    fn fetch(&self, index: u64, start: usize, len: usize) -> Result<()> {
        use rustix::io::Errno;
        match self
            .dataset
            .inner
            .map
            .advise_range(Advice::PopulateRead, start, len)
        {
            Ok(()) => Ok(()),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::FAULT | Errno::HWPOISON | Errno::IO) => {
                    Err(self.damaged(index, format!("its bytes cannot be read: {error}")))
                }
                // Kernels before 5.14 do not know the request; the pages then come one by one.
                _ => Ok(()),
            },
        }
    }

    fn damaged(&self, index: u64, reason: String) -> Error {
        Error::DamagedSample {
            dataset: self.dataset.inner.path.clone(),
            index,
            reason,
        }
    }
}
