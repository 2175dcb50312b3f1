//! Writing a file so that it is either complete or not there.
use crate::{DataError, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Runs `fill` on a temporary file beside `path`, flushes it to disk and renames it to `path`.
///
/// # Errors
/// [`DataError::Io`] if the folder cannot be written, and whatever `fill` reports; nothing is left behind then.
pub(crate) fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let name = path.file_name().ok_or_else(|| DataError::invalid(format!("{} does not name a file", path.display())))?;
    let temporary = path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = fill_and_rename(&temporary, path, fill);
    if written.is_err() {
        // The error that matters is the first one; a leftover that cannot be removed adds nothing.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn fill_and_rename(temporary: &Path, path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let mut writer = BufWriter::new(File::create(temporary).map_err(DataError::io(path))?);
    fill(&mut writer)?;
    writer.flush().map_err(DataError::io(path))?;
    writer.get_ref().sync_all().map_err(DataError::io(path))?;
    fs::rename(temporary, path).map_err(DataError::io(path))
}
