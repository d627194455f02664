//! Reading a whole dataset against its checksums.

use xxhash_rust::xxh3::Xxh3;

use super::{Dataset, record};
use crate::{Error, Result};

/// At most this many damaged samples are described; all are counted.
const MOST_DESCRIBED: usize = 100;

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Samples looked at: all of the dataset.
    pub samples: u64,
    /// Samples that are not as they were written.
    pub damaged: u64,
    /// The first hundred of them.
    pub damaged_samples: Vec<DamagedSample>,
    /// Whether the hash over all keys and records is the manifest's.
    pub content_hash_matches: bool,
    /// Whether the number of samples of each class is the manifest's.
    pub class_counts_match: bool,
}

/// One sample that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedSample {
    /// Its number.
    pub index: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.damaged == 0 && self.content_hash_matches && self.class_counts_match
    }
}

/// Reads every sample: its key must be present, its checksum right and its label a class, and all together
/// must have the content hash of the manifest.
///
/// `progress` is called now and then with the number of samples read so far. Damage does not end the walk: it
/// is reported.
///
/// # Errors
/// None but those of [`Dataset::reader`].
///
/// ```
/// # use ddas_formats::{Dataset, DatasetWriter, Encoding, Packed, verify};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("one.lmdb");
/// # let mut writer = DatasetWriter::create(&path, false)?;
/// # writer.append(0, Encoding::Raw, 2, 1, &[9; 6])?;
/// # writer.finish(vec!["grey".into()], Packed::default())?;
/// let report = verify(&Dataset::open(&path)?, &|_| {})?;
/// assert!(report.is_sound());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn verify(dataset: &Dataset, progress: &dyn Fn(u64)) -> Result<VerifyReport> {
    let reader = dataset.reader()?;
    let mut hash = Xxh3::new();
    let mut per_class = vec![0u64; dataset.classes().len()];
    let mut report = VerifyReport {
        samples: dataset.len(),
        damaged: 0,
        damaged_samples: Vec::new(),
        content_hash_matches: false,
        class_counts_match: false,
    };
    for index in 0..dataset.len() {
        if index % 256 == 0 {
            progress(index);
        }
        let key = index.to_be_bytes();
        let reason = match reader.value(index) {
            Ok(value) => {
                hash.update(&key);
                hash.update(value);
                match record::decode(key, value) {
                    Ok(sample) => match usize::try_from(sample.label)
                        .ok()
                        .and_then(|class| per_class.get_mut(class))
                    {
                        Some(count) => {
                            *count += 1;
                            continue;
                        }
                        None => format!(
                            "label {}; the manifest names {} classes",
                            sample.label,
                            per_class.len()
                        ),
                    },
                    Err(reason) => reason,
                }
            }
            Err(Error::DamagedSample { reason, .. }) => reason,
            Err(error) => return Err(error),
        };
        report.damaged += 1;
        if report.damaged_samples.len() < MOST_DESCRIBED {
            report.damaged_samples.push(DamagedSample { index, reason });
        }
    }
    progress(dataset.len());
    report.content_hash_matches =
        format!("{:032x}", hash.digest128()) == dataset.manifest().content_hash;
    report.class_counts_match = per_class == dataset.manifest().samples_per_class;
    Ok(report)
}
