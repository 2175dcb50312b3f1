//! Files that appear whole or not at all: written beside their place, synced, renamed, and the folder synced. A reader,
//! a kill or a full disk sees the old file or the new one. Every crate that writes does it through here.
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes bytes.
///
/// # Errors
/// What the system reports; the old file is then as it was, and nothing is left beside it.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |e| e, |file| file.write_all(bytes))
}

/// Writes what `fill` puts into the file; `wrap` makes the caller's error of the system's.
///
/// # Errors
/// As [`write()`], and whatever `fill` reports.
pub fn write_with<E>(
    path: &Path,
    wrap: impl Fn(io::Error) -> E,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    let Some(name) = path.file_name() else { return Err(wrap(io::Error::new(io::ErrorKind::InvalidInput, "does not name a file"))) };
    // Hidden, so that a leftover of a kill is no row of a folder of images; two processes do not share one.
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(hidden);
    let written = fill_and_sync(&partial, &wrap, fill).and_then(|()| std::fs::rename(&partial, path).map_err(&wrap));
    if written.is_err() {
        // The first error is the one that matters.
        std::fs::remove_file(&partial).ok();
    }
    written?;
    sync_folder(folder_of(path)).map_err(wrap)
}

fn fill_and_sync<E>(
    partial: &Path,
    wrap: &impl Fn(io::Error) -> E,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    let mut file = BufWriter::new(File::create(partial).map_err(wrap)?);
    fill(&mut file)?;
    file.flush().and_then(|()| file.get_ref().sync_all()).map_err(wrap)
}

/// Makes renames within a folder last. A file system that cannot sync folders is left to itself.
///
/// # Errors
/// What the system reports.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder).and_then(|f| f.sync_all()) {
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// The folder a file lies in; the working directory for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write(&path, b"old").unwrap();
        let failed = write_with(
            &path,
            |e| e.to_string(),
            |file| {
                file.write_all(&[1; 100_000]).map_err(|e| e.to_string())?;
                Err("the source is damaged".to_string())
            },
        );
        assert_eq!(failed.unwrap_err(), "the source is damaged");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        write(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was left beside it");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(write(&folder.path().join("nowhere/a"), b"").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(write(Path::new("/"), b"").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(write(folder.path(), b"").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
