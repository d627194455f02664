//! Packing class folders of JPEG and PNG files, from a folder or a tar archive.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::engine::{self, About, Items};
use super::layout::Layout;
use super::source::{Listing, SourceFile};
use super::{PackOptions, PackSummary};
use crate::dataset::DatasetWriter;
use crate::{Error, Result};

/// Packs the images of class folders into the dataset `out`.
///
/// `source` is a folder, or an uncompressed `.tar` which is read in place. Each folder in it (in the folder `root`
/// inside it, if given) is a class, with the images in it and in folders below it; classes are sorted by name and
/// samples by path. Files are images by the extensions `.jpg`, `.jpeg` and `.png` in any letter case; what they are is
/// read from their bytes, which are stored as they are. Other files are counted, hidden ones passed over.
///
/// Without `root`, a lone wrapping folder is entered, and folders named as splits (`train`, `test`, ..) are put
/// together, sorted by name, when their classes are the same. The [notes](PackSummary::notes) say so.
///
/// # Errors
/// [`Error::File`] when there are no class folders, a class has no images, the archive is cut short or has entries
/// that are not accepted (links, `..`, absolute or repeated names), for a bad image unless those are allowed,
/// and when `out` may not be written; [`Error::Io`] when something cannot be read or written.
///
/// ```
/// use ddas_formats::{PackOptions, pack_image_folder};
///
/// let folder = tempfile::tempdir()?;
/// let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x20\0\0\0\x10\x08\x02\0\0\0"; // enough without a `check`
/// for (class, name) in [("cat", "1.png"), ("cat", "2.PNG"), ("dog", "1.png")] {
///     std::fs::create_dir_all(folder.path().join("pets").join(class))?;
///     std::fs::write(folder.path().join("pets").join(class).join(name), png)?;
/// }
/// let source = folder.path().join("pets");
/// let out = folder.path().join("pets.lmdb");
/// let summary = pack_image_folder(&source, None, &out, &PackOptions::default())?;
/// assert_eq!(summary.samples, 3);
/// assert_eq!(summary.manifest.classes, ["cat", "dog"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn pack_image_folder(
    source: &Path,
    root: Option<&str>,
    out: &Path,
    options: &PackOptions<'_>,
) -> Result<PackSummary> {
    let start = Instant::now();
    outside(source, out)?;
    // Before the listing, which may take long: a destination that cannot be written is known at once.
    let writer = DatasetWriter::begin(out, options.overwrite, options.resume)?;
    let listing = Listing::read(source, "a folder or a .tar of class folders")?;
    let layout = Layout::find(source, &listing, root)?;
    let mut all = Vec::new();
    let mut ignored = 0;
    for file in &listing.files {
        let inside = layout.root.is_empty()
            || file
                .path
                .strip_prefix(&layout.root)
                .is_some_and(|rest| rest.starts_with('/'));
        match layout.label(&file.path) {
            Some(label) if file.is_image() => all.push((file, label as i64)),
            _ => ignored += u64::from(inside),
        }
    }
    let files = options
        .chosen(all.len())
        .map(|number| all[number])
        .collect();
    let files = Files {
        listing: &listing,
        files,
    };
    let identity = [("packer", "image-folder".to_owned())];
    let (writer, written) = engine::write_all(&files, writer, &identity, options)?;

    let mut notes = Vec::new();
    if root.is_none() && !layout.root.is_empty() {
        notes.push(format!(
            "classes are taken from the folder `{}` in the source",
            layout.root
        ));
    }
    if !layout.splits.is_empty() {
        notes.push(format!(
            "the splits {} are packed together, in this order; choose one with --root",
            layout.splits.join(", ")
        ));
    }
    let packed = options.packed(
        "image-folder",
        source,
        &[
            ("root", layout.root),
            ("splits", layout.splits.join(",")),
            ("skipped", written.skipped.len().to_string()),
        ],
    );
    let about = About {
        start,
        ignored,
        notes,
    };
    engine::finish(writer, &files, layout.classes, packed, written, about)
}

/// A dataset inside its own source would be taken for a class while it is written.
fn outside(source: &Path, out: &Path) -> Result<()> {
    let (Ok(source), Ok(out)) = (source.canonicalize(), std::path::absolute(out)) else {
        return Ok(());
    };
    let parent = out.parent().and_then(|parent| parent.canonicalize().ok());
    if parent.is_some_and(|parent| parent.starts_with(&source)) {
        return Err(Error::file(
            &out,
            "lies inside the source; choose a place outside of it",
        ));
    }
    Ok(())
}

struct Files<'a> {
    listing: &'a Listing,
    files: Vec<(&'a SourceFile, i64)>,
}

impl Items for Files<'_> {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn describe(&self, number: usize) -> (i64, u64) {
        let (file, label) = self.files[number];
        (label, file.size)
    }

    fn load(&self, number: usize) -> std::result::Result<Vec<u8>, String> {
        self.listing.load(self.files[number].0)
    }

    fn name(&self, number: usize) -> (String, PathBuf) {
        let path = &self.files[number].0.path;
        (path.clone(), self.listing.display(path))
    }
}
