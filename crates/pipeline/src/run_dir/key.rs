//! Addresses of results: hashes of everything that a result depends on.
use crate::PipelineError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The address of a result: BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(blake3::Hash);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Puts an address together from named parts.
#[derive(Clone, Debug, Default)]
pub struct KeyBuilder(blake3::Hasher);

impl KeyBuilder {
    /// Adds a part. Names and parts carry their length, so that different lists of parts never give the same bytes.
    pub fn part(mut self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        for piece in [name.as_bytes(), bytes.as_ref()] {
            self.0.update(&(piece.len() as u64).to_le_bytes());
            self.0.update(piece);
        }
        self
    }

    /// The hash of everything added, as the result's address.
    pub fn finish(&self) -> Key {
        Key(self.0.finalize())
    }
}

/// The part of an address that stands for the code: a release's version, else the hash of the running program, so that no version
/// number can be forgotten.
///
/// # Errors
/// [`PipelineError::File`] if the program's own file cannot be read.
pub fn code_version() -> Result<String, PipelineError> {
    static HASH: OnceLock<String> = OnceLock::new();
    if option_env!("ESPALIER_RELEASE").is_some() {
        return Ok(format!("release {}", env!("CARGO_PKG_VERSION")));
    }
    if let Some(hash) = HASH.get() {
        return Ok(hash.clone());
    }
    let path = std::env::current_exe().map_err(|e| PipelineError::file(Path::new("the running program"), e))?;
    let mut hasher = blake3::Hasher::new();
    hash_file(&path, &mut hasher)?;
    Ok(HASH.get_or_init(|| format!("build {}", hasher.finalize().to_hex())).clone())
}

/// The hash of a file, or of all files below a folder with their names.
///
/// # Errors
/// [`PipelineError::File`] for a file that cannot be read.
pub fn fingerprint(path: &Path) -> Result<String, PipelineError> {
    let mut hasher = blake3::Hasher::new();
    if path.is_dir() {
        let mut files = vec![];
        list(path, &mut files)?;
        files.sort();
        for file in files {
            let name = file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned();
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hash_file(&file, &mut hasher)?;
        }
    } else {
        hash_file(path, &mut hasher)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), PipelineError> {
    for entry in std::fs::read_dir(folder).map_err(|e| PipelineError::file(folder, e))? {
        let path = entry.map_err(|e| PipelineError::file(folder, e))?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// A file's length, then its bytes.
fn hash_file(path: &Path, hasher: &mut blake3::Hasher) -> Result<(), PipelineError> {
    let error = |e: std::io::Error| PipelineError::file(path, format!("cannot be read: {e}"));
    let file = std::fs::File::open(path).map_err(error)?;
    hasher.update(&file.metadata().map_err(error)?.len().to_le_bytes());
    hasher.update_reader(file).map_err(error)?;
    Ok(())
}
