//! The datasets of a stream as one: their samples are numbered through.

use std::path::Path;

use ddas_formats::{Dataset, DatasetReader, Located, Manifest, Sample};

use crate::error::{Error, Result};

/// One or several datasets of the same classes. The samples of the first have the indices from 0 on, those of the next
/// follow.
///
/// ```
/// # use ddas_formats::{Dataset, DatasetWriter, Encoding, Packed};
/// use ddas_loader::Sources;
///
/// # let folder = tempfile::tempdir()?;
/// # let pack = |name: &str, value: u8| -> Result<Dataset, ddas_formats::Error> {
/// #     let path = folder.path().join(name);
/// #     let mut writer = DatasetWriter::create(&path, false)?;
/// #     for _ in 0..2 { writer.append(0, Encoding::Raw, 1, 1, &[value; 3])?; }
/// #     writer.finish(vec!["grey".into()], Packed::default())?;
/// #     Dataset::open(&path)
/// # };
/// let sources = Sources::new(vec![pack("a.lmdb", 1)?, pack("b.lmdb", 2)?])?;
/// assert_eq!(sources.len(), 4);
/// assert_eq!(sources.reader()?.get(3)?.payload, [2; 3]); // the second sample of the second dataset
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sources {
    datasets: Vec<Dataset>,
    /// Number of the first sample of each dataset, and of all samples.
    firsts: Vec<u64>,
}

impl Sources {
    /// Numbers the samples of `datasets` through.
    ///
    /// # Errors
    /// [`Error::NoDataset`] without any, [`Error::Classes`] when one has other classes than the first.
    pub fn new(datasets: Vec<Dataset>) -> Result<Sources> {
        let Some(first) = datasets.first() else {
            return Err(Error::NoDataset);
        };
        for other in &datasets[1..] {
            let (ours, theirs) = (first.classes(), other.classes());
            if ours != theirs {
                let differs = (0..ours.len().max(theirs.len()))
                    .find(|&class| ours.get(class) != theirs.get(class));
                let class = differs.unwrap_or(0);
                let name = |classes: &[String]| {
                    classes
                        .get(class)
                        .map_or("none".into(), |name| format!("`{name}`"))
                };
                return Err(Error::Classes {
                    dataset: other.path().to_owned(),
                    first: first.path().to_owned(),
                    class,
                    found: name(theirs),
                    expected: name(ours),
                });
            }
        }
        let mut firsts = vec![0];
        for dataset in &datasets {
            firsts.push(firsts[firsts.len() - 1] + dataset.len());
        }
        Ok(Sources { datasets, firsts })
    }

    /// The datasets, in their order.
    pub fn datasets(&self) -> &[Dataset] {
        &self.datasets
    }

    /// Number of the first sample of dataset `number`.
    ///
    /// # Panics
    /// When there is no such dataset.
    pub fn first(&self, number: usize) -> u64 {
        self.firsts[number]
    }

    /// Samples of all datasets.
    pub fn len(&self) -> u64 {
        self.firsts[self.datasets.len()]
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The manifest of the first dataset; the classes are those of all.
    pub fn manifest(&self) -> &Manifest {
        self.datasets[0].manifest()
    }

    /// Class names; a sample's label is a position in this list.
    pub fn classes(&self) -> &[String] {
        self.datasets[0].classes()
    }

    /// The folder of the first dataset.
    pub fn path(&self) -> &Path {
        self.datasets[0].path()
    }

    /// The dataset that holds sample `index`, and its number in there; for numbers that no sample has, the last one's.
    pub fn locate(&self, index: u64) -> (&Dataset, u64) {
        let number = self.number_of(index);
        (&self.datasets[number], index - self.firsts[number])
    }

    fn number_of(&self, index: u64) -> usize {
        // Empty datasets share their first number with the next: the last of them is meant.
        self.firsts[1..self.datasets.len()].partition_point(|&first| first <= index)
    }

    /// A reader for one thread.
    ///
    /// # Errors
    /// None today; as [`Dataset::reader`].
    pub fn reader(&self) -> Result<SourcesReader> {
        let readers = self.datasets.iter().map(Dataset::reader);
        Ok(SourcesReader {
            readers: readers.collect::<ddas_formats::Result<_>>()?,
            sources: self.clone(),
        })
    }
}

impl From<Dataset> for Sources {
    fn from(dataset: Dataset) -> Sources {
        let firsts = vec![0, dataset.len()];
        Sources {
            datasets: vec![dataset],
            firsts,
        }
    }
}

/// A sample found in one of the datasets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocatedSample {
    number: usize,
    located: Located,
}

/// Reads the samples of [`Sources`] in any order.
#[derive(Clone, Debug)]
pub struct SourcesReader {
    readers: Vec<DatasetReader>,
    sources: Sources,
}

impl SourcesReader {
    /// The sample `index`, checked and borrowed from the map.
    ///
    /// # Errors
    /// As [`DatasetReader::get`]; messages name the dataset and the sample's number in there.
    pub fn get(&self, index: u64) -> ddas_formats::Result<Sample<'_>> {
        let number = self.sources.number_of(index);
        self.readers[number].get(index - self.sources.firsts[number])
    }

    /// Finds the sample `index` without reading it, as [`DatasetReader::locate`].
    ///
    /// # Errors
    /// As [`DatasetReader::locate`].
    pub(crate) fn locate(&self, index: u64) -> ddas_formats::Result<LocatedSample> {
        let number = self.sources.number_of(index);
        let located = self.readers[number].locate(index - self.sources.firsts[number])?;
        Ok(LocatedSample { number, located })
    }

    /// As [`DatasetReader::prefetch`].
    pub(crate) fn prefetch(&self, sample: &LocatedSample) {
        self.readers[sample.number].prefetch(&sample.located);
    }

    /// As [`SourcesReader::get`] for a sample that these sources located.
    ///
    /// # Errors
    /// As [`DatasetReader::get_located`].
    pub(crate) fn get_located(&self, sample: &LocatedSample) -> ddas_formats::Result<Sample<'_>> {
        self.readers[sample.number].get_located(&sample.located)
    }
}
