//! `manifest.json`: what a packed dataset says about itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Result};

/// Value of the field `format`.
pub(crate) const FORMAT: &str = "ddas-dataset";
/// Value of the field `version` that this build writes and reads.
pub(crate) const VERSION: u32 = 1;
/// Name of the file beside `data.mdb`.
pub(crate) const FILE_NAME: &str = "manifest.json";
/// A manifest is small; more than this is not one.
const MAX_BYTES: u64 = 64 << 20;

/// What a packed dataset says about itself: the content of its `manifest.json`.
///
/// Written last, so that a folder without it is an unfinished dataset and does not open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `"ddas-dataset"`.
    pub format: String,
    /// Version of the whole layout; this build reads 1.
    pub version: u32,
    /// Number of samples; their indices are `0..samples`.
    pub samples: u64,
    /// Class names; a sample's label is a position in this list.
    pub classes: Vec<String>,
    /// Samples of each class, in the order of `classes`.
    pub samples_per_class: Vec<u64>,
    /// XXH3-128 over key and record of every sample in order, as 32 hexadecimal digits.
    pub content_hash: String,
    /// Size of `data.mdb` in bytes.
    pub bytes: u64,
    /// Page size of `data.mdb` in bytes.
    pub page_size: u32,
    /// Where the samples came from.
    pub packed: Packed,
}

/// How a dataset was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// The packer: `image-folder`, `webdataset`, `cifar`.
    pub source: String,
    /// Name of the folder or archive packed, without the way to it.
    pub name: String,
    /// What the packer was told and what it decided.
    pub options: BTreeMap<String, String>,
    /// Program and version that packed.
    pub tool: String,
}

impl Manifest {
    /// Reads the manifest of the dataset in the folder `dataset`.
    ///
    /// # Errors
    /// [`Error::File`] when there is none, when it is not a manifest, of an unknown version, or at odds
    /// with itself; [`Error::Io`] when it cannot be read.
    pub fn read(dataset: &Path) -> Result<Manifest> {
        let path = dataset.join(FILE_NAME);
        let mut text = String::new();
        match fs::File::open(&path) {
            Ok(file) => {
                let length = file.metadata().map_err(Error::io(&path))?.len();
                if length > MAX_BYTES {
                    return Err(Error::file(
                        &path,
                        format!("{length} bytes; a manifest has at most {MAX_BYTES}"),
                    ));
                }
                file.take(MAX_BYTES)
                    .read_to_string(&mut text)
                    .map_err(Error::io(&path))?;
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(Error::file(dataset, missing(dataset)));
            }
            Err(error) => return Err(Error::io(&path)(error)),
        }
        let manifest = read_json(&text).map_err(|reason| Error::file(&path, reason))?;
        manifest
            .check()
            .map_err(|reason| Error::file(&path, reason))?;
        Ok(manifest)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.samples_per_class.len() != self.classes.len() {
            return Err(format!(
                "field `samples_per_class` has {} entries for {} classes",
                self.samples_per_class.len(),
                self.classes.len()
            ));
        }
        let sum = self
            .samples_per_class
            .iter()
            .try_fold(0u64, |sum, &count| sum.checked_add(count));
        if sum != Some(self.samples) {
            return Err(format!(
                "field `samples` is {}, but `samples_per_class` does not add up to it",
                self.samples
            ));
        }
        if self.content_hash.len() != 32
            || !self
                .content_hash
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit())
        {
            return Err(format!(
                "field `content_hash` is {:?}; expected 32 hexadecimal digits",
                self.content_hash
            ));
        }
        Ok(())
    }

    /// The text of `manifest.json`.
    pub(crate) fn to_json(&self) -> String {
        // Plain structs of strings and numbers: there is nothing serde_json could refuse.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// The manifest in `text`.
///
/// # Errors
/// Says which field is missing or what it holds, and what was expected.
fn read_json(text: &str) -> std::result::Result<Manifest, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| {
        format!(
            "not JSON from line {}, column {} on; expected a manifest as `ddas-loader pack` writes it",
            error.line(),
            error.column()
        )
    })?;
    let top = Fields {
        name: "",
        values: json
            .as_object()
            .ok_or("not an object; expected a manifest as `ddas-loader pack` writes it")?,
    };
    // Format and version first: a newer layout should be called that, not "a field is missing".
    let (format, version) = (top.text("format")?, top.number("version")?);
    if format != FORMAT {
        return Err(format!("field `format` is {format:?}; expected {FORMAT:?}"));
    }
    if version != u64::from(VERSION) {
        return Err(format!(
            "field `version` is {version}; this build reads version {VERSION}"
        ));
    }
    let packed = Fields {
        name: "packed.",
        values: top.take("packed", "an object", Value::as_object)?,
    };
    let options = Fields {
        name: "packed.options.",
        values: packed.take("options", "an object", Value::as_object)?,
    };
    let named = options
        .values
        .keys()
        .map(|name| Ok((name.clone(), options.text(name)?)));
    let classes = top.take("classes", "a list of names", |value| {
        let names = value.as_array()?.iter();
        names.map(|name| name.as_str().map(str::to_owned)).collect()
    })?;
    let samples_per_class = top.take("samples_per_class", "a list of whole numbers", |value| {
        value.as_array()?.iter().map(Value::as_u64).collect()
    })?;
    Ok(Manifest {
        format,
        version: VERSION,
        samples: top.number("samples")?,
        classes,
        samples_per_class,
        content_hash: top.text("content_hash")?,
        bytes: top.number("bytes")?,
        page_size: top.take("page_size", "a whole number below 2^32", |value| {
            value.as_u64()?.try_into().ok()
        })?,
        packed: Packed {
            source: packed.text("source")?,
            name: packed.text("name")?,
            options: named.collect::<std::result::Result<_, String>>()?,
            tool: packed.text("tool")?,
        },
    })
}

/// The fields of an object in the manifest.
struct Fields<'a> {
    /// Where they stand, for messages.
    name: &'static str,
    values: &'a serde_json::Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn take<T>(
        &self,
        field: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> std::result::Result<T, String> {
        let name = format!("{}{field}", self.name);
        match self.values.get(field) {
            None => Err(format!("field `{name}` is missing; expected {expected}")),
            Some(value) => read(value).ok_or_else(|| {
                let text = value.to_string();
                let found: String = text.chars().take(60).collect();
                let more = if found.len() < text.len() { " .." } else { "" };
                format!("field `{name}` is {found}{more}; expected {expected}")
            }),
        }
    }

    fn number(&self, field: &str) -> std::result::Result<u64, String> {
        self.take(field, "a whole number from 0 on", Value::as_u64)
    }

    fn text(&self, field: &str) -> std::result::Result<String, String> {
        self.take(field, "a text", |value| value.as_str().map(str::to_owned))
    }
}

fn missing(dataset: &Path) -> String {
    if !dataset.exists() {
        "there is no such folder".into()
    } else if !dataset.is_dir() {
        "not a folder; a dataset is a folder with data.mdb and manifest.json (make one with `ddas-loader pack`)".into()
    } else if dataset.join("data.mdb").exists() {
        "no manifest.json beside data.mdb: packing did not finish, or this LMDB was not made by `ddas-loader pack`; \
         pack it again"
            .into()
    } else {
        "no manifest.json: not a packed dataset (make one with `ddas-loader pack`)".into()
    }
}
