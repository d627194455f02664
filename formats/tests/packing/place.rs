//! A place for sources and datasets.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ddas_formats::{Dataset, PackOptions, PackSummary, pack_image_folder, verify};
use tempfile::TempDir;

/// A folder of its own for one test.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn folder(&self, name: &str, files: &[(&str, Vec<u8>)]) -> PathBuf {
        for (path, content) in files {
            let path = self.path(name).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        self.path(name)
    }

    pub(crate) fn tar(&self, name: &str, prefix: &str, files: &[(&str, Vec<u8>)]) -> PathBuf {
        let mut tar = tar::Builder::new(fs::File::create(self.path(name)).unwrap());
        for (path, content) in files {
            add(&mut tar, &format!("{prefix}{path}"), content);
        }
        tar.finish().unwrap();
        self.path(name)
    }

    /// Names of what lies in this place.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn error(&self, source: &Path, root: Option<&str>) -> String {
        let before = self.names();
        let out = self.path("refused.lmdb");
        let error = pack_image_folder(source, root, &out, &PackOptions::default())
            .unwrap_err()
            .to_string();
        assert_eq!(self.names(), before, "left something behind after: {error}");
        error
    }

    pub(crate) fn pack(&self, source: &Path, root: Option<&str>) -> (PackSummary, Dataset) {
        let out = self.path("out.lmdb");
        let options = PackOptions {
            overwrite: true,
            ..PackOptions::default()
        };
        let summary = pack_image_folder(source, root, &out, &options).unwrap();
        let dataset = Dataset::open(&out).unwrap();
        assert!(verify(&dataset, &|_| {}).unwrap().is_sound());
        assert_eq!(dataset.manifest(), &summary.manifest);
        (summary, dataset)
    }
}

/// Adds an entry under exactly this name, which `tar::Builder` alone would tidy up or refuse.
pub(crate) fn add<W: Write>(tar: &mut tar::Builder<W>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}
