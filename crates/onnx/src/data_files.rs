//! The files that a model is made of.
use graph::{Model, Origin};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// Folders besides a model's own that may hold external data.
static ALLOWED: RwLock<Vec<PathBuf>> = RwLock::new(vec![]);

/// Lets models of the whole process read external data below these files and folders too. By default it lies below the model's
/// own folder: a file from elsewhere could name any other on this machine.
///
/// # Errors
/// Of the system, with the path that does not exist.
pub fn allow_external(paths: &[PathBuf]) -> Result<(), (PathBuf, std::io::Error)> {
    let real = paths.iter().map(|p| p.canonicalize().map_err(|e| (p.clone(), e))).collect::<Result<_, _>>()?;
    *ALLOWED.write().unwrap_or_else(PoisonError::into_inner) = real;
    Ok(())
}

/// The paths given to [`allow_external`].
pub(crate) fn allowed() -> Vec<PathBuf> {
    ALLOWED.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The data files beside a model that hold its tensors (external data), each once, below the folder that it was read from.
pub fn data_files(model: &Model) -> Vec<PathBuf> {
    let Some(folder) = model.source.as_ref().and_then(|s| s.folder.as_ref()) else { return vec![] };
    let locations = model.values.iter().filter_map(|(_, v)| match &v.constant.as_ref()?.origin {
        Origin::External { location, .. } => Some(folder.join(location)),
        _ => None,
    });
    locations.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Bytes that a model takes on disk: of its file and of the data files beside it.
///
/// # Errors
/// Of the system, if one of them does not exist.
pub fn bytes_on_disk(path: &Path, model: &Model) -> std::io::Result<u64> {
    let files = data_files(model);
    std::iter::once(path).chain(files.iter().map(PathBuf::as_path)).map(|f| Ok(std::fs::metadata(f)?.len())).sum()
}
