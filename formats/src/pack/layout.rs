//! Which folders of a source are the classes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source::{Listing, normalise};
use crate::{Error, Result};

/// Names that folders of splits go by, in any letter case.
const SPLIT_NAMES: [&str; 9] = [
    "train",
    "training",
    "test",
    "testing",
    "val",
    "valid",
    "validation",
    "dev",
    "eval",
];
const EXPECTED: &str = "expected one folder for each class, with .jpg, .jpeg or .png files in it";

/// The classes of a source and the folders they take their images from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Sorted by name; a position in it is a label.
    pub(super) classes: Vec<String>,
    /// Label of each class folder; with splits, one folder for each split and class.
    pub(super) folders: BTreeMap<String, usize>,
    /// Folder inside the source that holds the class folders or the splits; empty for the source itself.
    pub(super) root: String,
    /// Splits that were put together, sorted; empty when there are none.
    pub(super) splits: Vec<String>,
}

impl Layout {
    /// Finds the class folders: exactly those inside `root` when it is given. Otherwise a lone wrapping folder is
    /// entered, and folders named as splits (`train`, `test`, ..) with the same classes in each are put together.
    ///
    /// # Errors
    /// [`Error::File`] naming the folder when there is none, when it holds no class folders, when a class has no
    /// images, or when splits have different classes.
    pub(super) fn find(source: &Path, listing: &Listing, root: Option<&str>) -> Result<Layout> {
        let tree = Tree::new(listing);
        let mut top = String::new();
        if let Some(root) = root {
            let inside = normalise(root)
                .map_err(|reason| Error::file(source, format!("root `{root}`: {reason}")))?;
            if let Some(inside) = inside {
                if !listing.folders.contains(&inside) {
                    let reason = format!(
                        "has no folder `{inside}`; its folders are: {}",
                        some_of(tree.inside(""))
                    );
                    return Err(Error::file(source, reason));
                }
                top = inside;
            }
        } else {
            while let [only] = tree.inside(&top)[..]
                && tree.images_in(&top) == 0
                && tree.images_in(only) == 0
                && !tree.inside(only).is_empty()
            {
                top = only.to_owned();
            }
        }
        let inside = tree.inside(&top);
        if inside.is_empty() {
            let reason = match tree.images_in(&top) {
                0 => format!("no class folders; {EXPECTED}"),
                images => format!("{images} images, but no class folders; {EXPECTED}"),
            };
            return Err(Error::file(&listing.display(&top), reason));
        }
        let is_split = |folder: &&str| {
            SPLIT_NAMES
                .iter()
                .any(|name| name.eq_ignore_ascii_case(base_name(folder)))
                && tree.images_in(folder) == 0
                && !tree.inside(folder).is_empty()
        };
        let class_folders: Vec<&str>;
        let mut splits = Vec::new();
        if root.is_none() && inside.len() > 1 && inside.iter().all(is_split) {
            let names = |split: &str| {
                tree.inside(split)
                    .into_iter()
                    .map(base_name)
                    .collect::<BTreeSet<_>>()
            };
            let first = names(inside[0]);
            if let Some(other) = inside.iter().find(|split| names(split) != first) {
                let reason = format!(
                    "`{}` and `{other}` look like splits, but their classes differ: {}; choose one with --root",
                    inside[0],
                    some_of(names(other).symmetric_difference(&first).copied()),
                );
                return Err(Error::file(source, reason));
            }
            class_folders = inside.iter().flat_map(|split| tree.inside(split)).collect();
            splits = inside
                .iter()
                .map(|split| base_name(split).to_owned())
                .collect();
        } else {
            class_folders = inside;
        }
        let empty = || {
            class_folders
                .iter()
                .filter(|folder| tree.images_below(folder) == 0)
        };
        if let Some(folder) = empty().next() {
            let reason = format!(
                "no images in the class folder{}; {EXPECTED}",
                match empty().count() {
                    1 => String::new(),
                    more => format!(", nor in {} others", more - 1),
                }
            );
            return Err(Error::file(&listing.display(folder), reason));
        }
        let classes: BTreeSet<&str> = class_folders
            .iter()
            .map(|folder| base_name(folder))
            .collect();
        let label_of: BTreeMap<&str, usize> = classes
            .iter()
            .enumerate()
            .map(|(label, &name)| (name, label))
            .collect();
        Ok(Layout {
            folders: class_folders
                .iter()
                .map(|&folder| (folder.to_owned(), label_of[base_name(folder)]))
                .collect(),
            classes: classes.into_iter().map(str::to_owned).collect(),
            root: top,
            splits,
        })
    }

    /// The label of the file `path`, if it lies in a class folder.
    pub(super) fn label(&self, path: &str) -> Option<usize> {
        let inside = match self.root.as_str() {
            "" => path,
            root => path.strip_prefix(root)?.strip_prefix('/')?,
        };
        let names = if self.splits.is_empty() { 1 } else { 2 };
        let (end, _) = inside.match_indices('/').nth(names - 1)?;
        self.folders
            .get(&path[..path.len() - inside.len() + end])
            .copied()
    }
}

/// Folders and the numbers of images in them.
struct Tree<'a> {
    /// Images directly in a folder, and in it or below.
    images: BTreeMap<&'a str, (u64, u64)>,
    inside: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Tree<'a> {
    fn new(listing: &'a Listing) -> Self {
        let mut tree = Tree {
            images: BTreeMap::new(),
            inside: BTreeMap::new(),
        };
        for folder in &listing.folders {
            tree.inside
                .entry(parent(folder).unwrap_or(""))
                .or_default()
                .push(folder);
        }
        for file in listing.files.iter().filter(|file| file.is_image()) {
            let direct = parent(&file.path).unwrap_or("");
            tree.images.entry(direct).or_default().0 += 1;
            let mut folder = Some(direct);
            while let Some(name) = folder {
                tree.images.entry(name).or_default().1 += 1;
                folder = parent(name);
            }
        }
        tree
    }

    /// Folders directly inside `folder`, by their whole paths, sorted.
    fn inside(&self, folder: &str) -> Vec<&'a str> {
        self.inside.get(folder).cloned().unwrap_or_default()
    }

    fn images_in(&self, folder: &str) -> u64 {
        self.images.get(folder).map_or(0, |images| images.0)
    }

    fn images_below(&self, folder: &str) -> u64 {
        self.images.get(folder).map_or(0, |images| images.1)
    }
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The first names of a list, for a message.
fn some_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let mut text = names.by_ref().take(8).collect::<Vec<_>>().join(", ");
    match names.count() {
        0 if text.is_empty() => text.push_str("none"),
        0 => {}
        more => text.push_str(&format!(" and {more} more")),
    }
    text
}
