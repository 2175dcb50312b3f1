//! Where tests find their files.
use std::path::{Path, PathBuf};

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The recipes; `data` in it has the data sets that come with the repository.
pub fn recipes() -> PathBuf {
    repository().join("recipes")
}

/// Small graphs with their inputs and expected outputs.
pub fn fixtures() -> PathBuf {
    repository().join("tests/fixtures")
}

/// The folder of test data that is not in the repository, whether it exists or not: `ESPALIER_DATA`, else `../shared/data` beside
/// the checkout.
pub fn data() -> PathBuf {
    std::env::var_os("ESPALIER_DATA").map_or_else(|| repository().join("../shared/data"), PathBuf::from)
}

/// A file or folder of that data. `None` if it is absent: the reason is printed, and the calling test should end.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = data().join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent (set ESPALIER_DATA)", path.display());
    None
}

/// The files of a folder of that data with this ending, sorted; none, with the reason printed, if it is absent.
pub fn shared_files(folder: &str, ending: &str) -> Vec<PathBuf> {
    shared(folder).map(|folder| files(&folder, ending)).unwrap_or_default()
}

/// The files of a folder with this ending, sorted.
///
/// # Panics
/// If the folder cannot be read.
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let list = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut list: Vec<PathBuf> = list.flatten().map(|entry| entry.path()).filter(|p| p.extension().is_some_and(|e| e == ending)).collect();
    list.sort();
    list
}
