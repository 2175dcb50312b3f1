//! Images or sounds in folders, one folder a class; the classes are the folders' names in alphabetical order.
//!
//! Memory: the files' names, one file at a time.
use crate::{Content, DataError, Dataset, Result, Sample};
use std::fs;
use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "wav"];

/// Files in one folder a class.
pub struct FolderDataset {
    path: PathBuf,
    files: Vec<(PathBuf, i64)>,
    class_names: Vec<String>,
}

impl FolderDataset {
    /// Lists a folder. Hidden files, and files of other types, are passed over.
    ///
    /// # Errors
    /// [`DataError::Io`], or [`DataError::NotFound`] if there is no class folder.
    pub fn open(path: &Path) -> Result<Self> {
        let classes = class_folders(path)?;
        if classes.is_empty() {
            return Err(DataError::not_found(path, "no folder with images (png, jpg) or sounds (wav)"));
        }
        let (mut files, mut class_names) = (vec![], vec![]);
        for (label, class) in classes.iter().enumerate() {
            files.extend(entries(class)?.into_iter().filter(|file| is_sample(file)).map(|file| (file, label as i64)));
            class_names.push(class.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        Ok(FolderDataset { path: path.to_path_buf(), files, class_names })
    }
}

/// Everything in a folder that is not hidden, in alphabetical order.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut list = vec![];
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            list.push(entry.path());
        }
    }
    list.sort();
    Ok(list)
}

/// All subfolders, if at least one of them has an image or a sound (an empty class counts: its absence would shift the others' labels).
pub(crate) fn class_folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let folders: Vec<PathBuf> = entries(folder)?.into_iter().filter(|entry| entry.is_dir()).collect();
    for class in &folders {
        if entries(class)?.iter().any(|file| is_sample(file)) {
            return Ok(folders);
        }
    }
    Ok(vec![])
}

fn is_sample(file: &Path) -> bool {
    let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase());
    file.is_file() && extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

impl Dataset for FolderDataset {
    fn path(&self) -> &Path {
        &self.path
    }
    fn file(&self, row: usize) -> PathBuf {
        self.files.get(row).map_or_else(|| self.path.clone(), |(file, _)| file.clone())
    }
    fn len(&self) -> usize {
        self.files.len()
    }
    fn class_names(&self) -> &[String] {
        &self.class_names
    }
    fn read(&self, row: usize) -> Result<Sample> {
        let (file, label) = self.files.get(row).ok_or_else(|| DataError::row(&self.path, row, format!("only {} rows", self.len())))?;
        let bytes = fs::read(file).map_err(DataError::io(file))?;
        Ok(Sample::new(Content::Encoded(bytes.into()), Some(*label)))
    }
    fn labels(&self) -> Result<Vec<Option<i64>>> {
        Ok(self.files.iter().map(|(_, label)| Some(*label)).collect())
    }
}
