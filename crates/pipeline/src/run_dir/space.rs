//! Free space on the disk.
use crate::PipelineError;
use std::path::Path;

/// Refuses a folder whose disk has less than `needed` bytes of free space.
pub(super) fn check(folder: &Path, needed: u64) -> Result<(), PipelineError> {
    match free(folder) {
        Some(free) if free < needed => {
            Err(PipelineError::Space { path: folder.to_path_buf(), needed: report::text::bytes(needed), free: report::text::bytes(free) })
        }
        _ => Ok(()),
    }
}

/// Bytes that this user can still write; `None` if the system does not tell.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(not(unix))]
fn free(_folder: &Path) -> Option<u64> {
    None
}
