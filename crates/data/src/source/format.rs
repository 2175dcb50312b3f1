//! What a data format is: how it is recognised by the names of files, and how one split of it is opened.
use crate::{DataError, Dataset, OpenOptions, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens a recognised data set; the path is the one that the user named, for messages.
pub(crate) type Opener = Box<dyn FnOnce(&Path, &OpenOptions) -> Result<Arc<dyn Dataset>>>;

/// The splits found; the empty name stands for the whole data set.
pub(crate) type Splits = BTreeMap<String, Opener>;

/// A format in the list of [`super::formats`].
pub struct Format {
    /// A short name for lists.
    pub name: &'static str,
    /// File and folder names that identify the format, as a user would look for them.
    pub layouts: &'static [&'static str],
    /// Recognises a single file that is the whole data set, by its name.
    pub(crate) file: fn(&Path) -> Option<Opener>,
    /// The splits in a folder, of which the sorted entries are given.
    pub(crate) splits: fn(&Path, &[PathBuf]) -> Result<Splits>,
}

/// Wraps a function that opens a data set.
pub(crate) fn opener<D: Dataset + 'static>(open: impl FnOnce(&Path, &OpenOptions) -> Result<D> + 'static) -> Opener {
    Box::new(|path, options| Ok(Arc::new(open(path, options)?)))
}

/// Folder names that are always splits.
pub(crate) const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// One name for each split, whatever name a collection gives it.
pub(crate) fn canonical(split: &str) -> &str {
    match split {
        "val" | "valid" | "dev" | "validation" => "validation",
        "t10k" | "test_batch" => "test",
        "training" => "train",
        other => other,
    }
}

/// The last part of a path as text.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Everything in a folder that is not hidden, in alphabetical order.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut list = vec![];
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            list.push(entry.path());
        }
    }
    list.sort();
    Ok(list)
}
