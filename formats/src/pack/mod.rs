//! Packing: from images as they are found to a dataset.

mod cifar;
mod engine;
mod image_folder;
mod layout;
mod source;
mod webdataset;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub use self::cifar::{Split, pack_cifar};
pub use self::image_folder::pack_image_folder;
pub use self::webdataset::{ShardLabels, expand_shards, pack_webdataset, read_class_names};
use crate::dataset::{Manifest, Packed};
use crate::image_header::ImageHeader;

/// A verdict on one image from its header and its bytes; the error says what is wrong with it.
pub type Check<'a> = dyn Fn(&ImageHeader, &[u8]) -> Result<(), String> + Sync + 'a;

/// Header and bytes of an image to the bytes to store, or what is wrong with it.
pub type Apply<'a> = dyn Fn(&ImageHeader, Vec<u8>) -> Result<Vec<u8>, String> + Sync + 'a;

/// Header and bytes of an image to be stored to the index stored with it, see [`Sample::index`](crate::Sample::index).
pub type MakeIndex<'a> = dyn Fn(&ImageHeader, &[u8]) -> Vec<u8> + Sync + 'a;

/// Makes another image of one that was read: its header and bytes come in, the bytes to store come out; the error says what
/// is wrong with it. It stands in for the [`Check`], and has to be as strict.
pub struct Transform<'a> {
    /// What it does, with all its settings: noted in the manifest, and compared when a packing is continued.
    pub name: String,
    /// Called on many threads at once; its result may depend on nothing but the image.
    pub apply: &'a Apply<'a>,
}

/// What every packer is told.
pub struct PackOptions<'a> {
    /// Threads that read and check files; 0 takes one for each processor. The result does not depend on it.
    pub jobs: usize,
    /// At most this many samples, taken at equal distances over the sorted source, so that each class keeps its share.
    pub limit: Option<u64>,
    /// Whether a dataset that stands at the destination is replaced.
    pub overwrite: bool,
    /// Whether bad files are left out; otherwise the first one ends the packing.
    pub allow_bad: bool,
    /// The caller's verdict on one image (this crate holds no decoder): an error makes it a bad file.
    /// Called on many threads at once.
    pub check: &'a Check<'a>,
    /// What is done to every image; `None` stores the bytes as they are.
    pub transform: Option<Transform<'a>>,
    /// Where parts of an image begin in its bytes: what is stored with it for the caller's decoder. Called on many threads at
    /// once, for images that passed the check; its result may depend on nothing but the image.
    pub index: &'a MakeIndex<'a>,
    /// Whether a packing of the same source that was killed or stopped is continued. What it committed is checked, and
    /// not taken from the source again; the dataset is the same as that of a packing in one go. Without this, what is left
    /// of it is removed.
    pub resume: bool,
    /// When raised, the packing commits what it has and ends with [`Error::Stopped`](crate::Error::Stopped).
    pub stop: Option<&'a AtomicBool>,
    /// Called now and then, on the thread that packs.
    pub progress: &'a (dyn Fn(PackProgress) + Sync),
}

impl Default for PackOptions<'_> {
    /// No limit, nothing replaced, nothing left out, no check but that of the header, and no index.
    fn default() -> Self {
        PackOptions {
            jobs: 0,
            limit: None,
            overwrite: false,
            allow_bad: false,
            check: &|_, _| Ok(()),
            transform: None,
            index: &|_, _| Vec::new(),
            resume: false,
            stop: None,
            progress: &|_| {},
        }
    }
}

impl PackOptions<'_> {
    /// The positions taken out of `len`, in order.
    fn chosen(&self, len: usize) -> impl Iterator<Item = usize> + use<> {
        let taken = self
            .limit
            .map_or(len, |limit| (len as u64).min(limit) as usize);
        (0..taken).map(move |number| (number as u128 * len as u128 / taken as u128) as usize)
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Acquire))
    }

    /// What the manifest says about the packing: `source` and `name`, the limits, and the packer's own `options`.
    fn packed(&self, source: &str, path: &Path, options: &[(&str, String)]) -> Packed {
        let name = path.canonicalize().ok();
        let name = name
            .as_deref()
            .unwrap_or(path)
            .file_name()
            .unwrap_or_default();
        let limit = self.limit.map(|limit| ("limit", limit.to_string()));
        let transform = self.transform.as_ref();
        let transform = transform.map(|transform| ("transform", transform.name.clone()));
        Packed {
            source: source.into(),
            name: name.to_string_lossy().into_owned(),
            options: options
                .iter()
                .cloned()
                .chain(limit)
                .chain(transform)
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            tool: concat!("ddas-formats ", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

/// How far a packing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackProgress {
    /// Samples read so far, the bad ones included.
    pub done: u64,
    /// Samples to read in all.
    pub total: u64,
    /// Bytes of the images read so far.
    pub bytes: u64,
    /// Bad files left out so far.
    pub skipped: u64,
}

/// What a packing did.
#[derive(Clone, Debug)]
pub struct PackSummary {
    /// Samples packed.
    pub samples: u64,
    /// Classes.
    pub classes: usize,
    /// Bytes of all images packed.
    pub bytes: u64,
    /// Bad files left out.
    pub skipped: Vec<BadFile>,
    /// Files of the source that are no images by their name; hidden ones are not counted.
    pub ignored: u64,
    /// How the source was understood, where it could be otherwise; for people.
    pub notes: Vec<String>,
    /// Samples that a former packing had committed, when one was continued.
    pub resumed: Option<u64>,
    /// Time taken.
    pub seconds: f64,
    /// The new dataset's manifest.
    pub manifest: Manifest,
}

/// A file of the source that cannot be a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFile {
    /// Where it stands in the source.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_spreads_over_the_source() {
        let chosen = |limit, len| {
            PackOptions {
                limit,
                ..Default::default()
            }
            .chosen(len)
            .collect::<Vec<_>>()
        };
        assert_eq!(chosen(None, 3), [0, 1, 2]);
        assert_eq!(chosen(Some(9), 3), [0, 1, 2]);
        assert_eq!(chosen(Some(4), 10), [0, 2, 5, 7]);
        assert_eq!(chosen(Some(0), 10), [0; 0]);
        assert_eq!(chosen(None, 0), [0; 0]);
    }
}
