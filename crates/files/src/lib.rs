//! Files that appear complete or not at all: written to a temporary name, synced, renamed, and the folder synced. After a kill or
//! with a full disk a reader sees the old file or the new one. Every crate that writes files uses this.
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ending of a file's temporary name.
const PARTIAL: &str = ".partial";

/// Writes bytes.
///
/// # Errors
/// The system's error; the old file is then unchanged, and no temporary file is left.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |e| e, |file| file.write_all(bytes))
}

/// Writes a file with `fill`; `wrap` converts the system's error into the caller's.
///
/// # Errors
/// As [`write()`], and whatever `fill` reports.
pub fn write_with<E>(
    path: &Path,
    wrap: impl Fn(io::Error) -> E,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    let partial = partial_path(path).map_err(&wrap)?;
    let written = fill_and_sync(&partial, &wrap, fill).and_then(|()| std::fs::rename(&partial, path).map_err(&wrap));
    if written.is_err() {
        // The first error is the one to report.
        std::fs::remove_file(&partial).ok();
    }
    written?;
    sync_folder(folder_of(path)).map_err(wrap)
}

/// Writes several files that belong together: all are complete on the disk before the first gets its name, in the given order.
///
/// # Errors
/// The file and the system's error. Until all files are complete, the old files are unchanged.
pub fn write_together<'a>(files: &[(&'a Path, &[u8])]) -> Result<(), (&'a Path, io::Error)> {
    let mut waiting: Vec<(PathBuf, &Path)> = vec![];
    let prepared = files.iter().try_for_each(|(path, bytes)| {
        let partial = partial_path(path).map_err(|e| (*path, e))?;
        waiting.push((partial.clone(), path));
        fill_and_sync(&partial, &|e| e, |file| file.write_all(bytes)).map_err(|e| (*path, e))
    });
    let named =
        prepared.and_then(|()| waiting.iter().try_for_each(|(partial, path)| std::fs::rename(partial, path).map_err(|e| (*path, e))));
    if named.is_err() {
        waiting.iter().for_each(|(partial, _)| drop(std::fs::remove_file(partial)));
    }
    named?;
    files.iter().try_for_each(|(path, _)| sync_folder(folder_of(path)).map_err(|e| (*path, e)))
}

/// The temporary path of a file: hidden, so that a leftover after a kill is no row of a folder of images, and with this process's
/// number. Leftovers of ended processes for the same file are removed.
fn partial_path(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else { return Err(io::Error::new(io::ErrorKind::InvalidInput, "does not name a file")) };
    if path.is_dir() {
        let what = "is a folder, where a file is to be written: move it away, or choose another place";
        return Err(io::Error::new(io::ErrorKind::IsADirectory, what));
    }
    clear(folder_of(path), |of| of == name, alive);
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}{PARTIAL}", std::process::id()));
    Ok(path.with_file_name(hidden))
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

/// Removes the temporary files of ended processes from a folder.
pub fn clear_partials(folder: &Path) {
    clear(folder, |_| true, alive);
}

/// Removes the temporary files whose name is `wanted` and whose process has ended. Files that cannot be read or removed stay;
/// they do no harm.
fn clear(folder: &Path, wanted: impl Fn(&str) -> bool, alive: impl Fn(u32, &Path) -> bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some((of, process)) = name.to_str().and_then(partial_of) else { continue };
        if wanted(of) && !alive(process, &entry.path()) {
            std::fs::remove_file(entry.path()).ok();
        }
    }
}

/// The final name of a temporary file, and its process.
fn partial_of(name: &str) -> Option<(&str, u32)> {
    let (of, process) = name.strip_prefix('.')?.strip_suffix(PARTIAL)?.rsplit_once('.')?;
    Some((of, process.parse().ok()?))
}

/// True if the process may still be writing. Where the system does not list processes, a file that is a day old counts as
/// abandoned.
fn alive(process: u32, file: &Path) -> bool {
    const LONG_AGO: Duration = Duration::from_secs(24 * 3600);
    if process == std::process::id() {
        return true;
    }
    match Path::new("/proc/self").exists() {
        true => Path::new("/proc").join(process.to_string()).exists(),
        false => std::fs::metadata(file).and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok()).is_none_or(|age| age < LONG_AGO),
    }
}

/// True if both paths name one existing file or folder.
pub fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The first of `inputs` that writing `output` would destroy.
pub fn destroyed<'a>(output: &Path, inputs: impl IntoIterator<Item = &'a Path>) -> Option<PathBuf> {
    inputs.into_iter().find(|input| same(output, input)).map(Path::to_path_buf)
}

/// Syncs the folder, so that renames in it are durable. Errors of file systems that cannot sync folders are ignored.
///
/// # Errors
/// The system's error.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder).and_then(|f| f.sync_all()) {
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// The folder of a file; the working directory for a bare name.
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
        let refused = write(folder.path(), b"").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::IsADirectory);
        assert!(refused.to_string().contains("move it away"), "{refused}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_that_belong_together_are_replaced_together() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|n| folder.path().join(n));
        write_together(&[(&a, b"1"), (&b, b"2")]).unwrap();
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        let (at, error) = write_together(&[(&a, b"3"), (&taken, b"4")]).unwrap_err();
        assert_eq!((at, error.kind()), (taken.as_path(), io::ErrorKind::IsADirectory));
        assert_eq!((std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap()), (b"1".to_vec(), b"2".to_vec()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "something was left beside them");
    }

    #[cfg(unix)]
    #[test]
    fn what_a_killed_process_left_goes_with_the_next_writing_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        // A process that has ended and has been waited for.
        let mut dead =
            std::process::Command::new(std::env::current_exe().unwrap()).arg("--list").stdout(std::process::Stdio::null()).spawn().unwrap();
        let gone = dead.id();
        dead.wait().unwrap();
        let (ours, parent) = (std::process::id(), std::os::unix::process::parent_id());
        let names = [
            format!(".a.bin.{gone}.partial"),
            format!(".b.bin.{gone}.partial"),
            format!(".a.bin.{ours}.partial.txt"),
            format!(".c.bin.{parent}.partial"),
        ];
        for name in &names {
            std::fs::write(place(name), b"half").unwrap();
        }
        write(&place("a.bin"), b"whole").unwrap();
        assert!(!place(&names[0]).exists() && names[1..].iter().all(|n| place(n).exists()), "only its own leftover goes");
        clear_partials(folder.path());
        assert!(!place(&names[1]).exists() && names[2..].iter().all(|n| place(n).exists()), "a living process keeps its file");
        assert_eq!(std::fs::read(place("a.bin")).unwrap(), b"whole");
    }

    #[test]
    fn an_output_that_is_an_input_is_seen_through_links_and_detours() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("a.onnx");
        std::fs::write(&input, b"a").unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        let detour = folder.path().join("b/../a.onnx");
        assert_eq!(destroyed(&detour, [input.as_path()]), Some(input.clone()));
        assert_eq!(destroyed(&folder.path().join("b/a.onnx"), [input.as_path()]), None);
        assert_eq!(destroyed(&input, []), None);
    }
}
