//! Which files in a run's folder belong to the run.
use crate::PipelineError;
use std::path::Path;

/// Files that file managers and version control put into an otherwise empty folder.
const NOTHING: &[&str] = &[".DS_Store", ".gitignore", ".gitkeep", "Thumbs.db", "desktop.ini"];

/// Refuses a folder with files that are not a run's: the run's files would mix with them, and could replace one.
pub(super) fn check(root: &Path) -> Result<(), PipelineError> {
    if root.join("lock").is_file() && root.join("store").is_dir() {
        return Ok(());
    }
    let Ok(entries) = std::fs::read_dir(root) else { return Ok(()) };
    let mut names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    // A run that was killed at its start left one of the first two at most.
    match names.iter().find(|n| !matches!(n.as_str(), "lock" | "store") && !NOTHING.contains(&n.as_str())) {
        Some(name) => {
            let what = format!("is not a run's folder: it holds '{name}'; choose a new or empty one with --output");
            Err(PipelineError::file(root, what))
        }
        None => Ok(()),
    }
}

/// Removes incomplete files of killed runs. The folder is locked, so no run is writing.
pub(super) fn clear_leftovers(root: &Path) {
    files::clear_partials(root);
    let store = root.join("store");
    files::clear_partials(&store);
    for entry in std::fs::read_dir(&store).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
        match entry.path().extension().is_some_and(|e| e == "new") {
            true => drop(std::fs::remove_dir_all(entry.path())),
            false => files::clear_partials(&entry.path()),
        }
    }
}

/// True if `folder`, which need not exist yet, is or lies inside the folder `around`.
pub(super) fn holds(around: &Path, folder: &Path) -> bool {
    let there = folder.ancestors().map(|a| if a.as_os_str().is_empty() { Path::new(".") } else { a }).find_map(|a| a.canonicalize().ok());
    around.is_dir() && matches!((around.canonicalize(), there), (Ok(a), Some(f)) if f.starts_with(&a))
}
