//! The run's own files.
use crate::PipelineError;
use std::path::Path;

/// Writes a file that appears complete or not at all.
///
/// # Errors
/// [`PipelineError::File`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), PipelineError> {
    files::write(path, bytes).map_err(|e| PipelineError::file(path, format!("cannot be written: {e}")))
}

/// Makes a rename within a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), PipelineError> {
    files::sync_folder(folder).map_err(|e| PipelineError::file(folder, format!("cannot be synced: {e}")))
}
