//! A case: files by name, which are written into an empty folder.
use std::io;
use std::path::{Path, PathBuf};

/// The files of one case; the first is the one to open.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The seed that it was made from.
    pub(crate) of: String,
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

impl Case {
    /// A case of one file.
    pub(crate) fn one(of: impl Into<String>, name: &str, bytes: Vec<u8>) -> Case {
        Case { of: of.into(), files: vec![(name.to_string(), bytes)] }
    }

    /// The first file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.files[0].1
    }

    /// A file's bytes, by name.
    pub(crate) fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(n, _)| n == name).map(|(_, b)| b.as_slice())
    }

    /// Writes the files below a folder; gives the first one's path.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<PathBuf> {
        for (name, bytes) in &self.files {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
            std::fs::write(path, bytes)?;
        }
        Ok(folder.join(&self.files[0].0))
    }
}
