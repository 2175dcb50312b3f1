//! Files that appear whole or not at all.
use crate::PipelineError;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Writes beside the file, syncs, renames, and syncs the folder. On an error the old file is as it was.
///
/// # Errors
/// [`PipelineError::File`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), PipelineError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    let written =
        File::create(&new).and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all())).and_then(|()| std::fs::rename(&new, path));
    written.map_err(|e| {
        std::fs::remove_file(&new).ok();
        PipelineError::file(path, format!("cannot be written: {e}"))
    })?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes a rename within a folder last.
pub(super) fn sync_folder(folder: &Path) -> Result<(), PipelineError> {
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| PipelineError::file(folder, format!("cannot be synced: {e}")))?;
    }
    Ok(())
}
