//! Images or sounds in folders, one folder a class; the classes are the folders' names in alphabetical order.
//!
//! Memory: the files' names, one file at a time.
use super::format::{Format, Opener, SPLITS, Splits, canonical, entries, file_name, opener};
use crate::{Content, DataError, Dataset, Result, Sample};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Endings of the file names that are read.
const EXTENSIONS: [&str; 11] = ["png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "tif", "tiff", "wav"];

/// Names of files that operating systems leave in folders.
const DEBRIS: [&str; 2] = ["thumbs.db", "desktop.ini"];

/// How many levels of folders below a class are searched.
const DEEPEST: usize = 16;

/// Files in one folder a class.
pub struct FolderDataset {
    path: PathBuf,
    files: Vec<(PathBuf, i64)>,
    class_names: Vec<String>,
    notes: Vec<String>,
}

pub(crate) const FORMAT: Format = Format {
    name: "folders",
    layouts: &["class folders with png, jpg, webp, bmp, tif or wav files"],
    file: |_| None,
    splits: class_folder_splits,
};

/// A folder with a folder for each class.
fn class_folder(folder: &Path) -> Opener {
    let folder = folder.to_path_buf();
    opener(move |_, _| FolderDataset::open(&folder))
}

fn class_folder_splits(folder: &Path, list: &[PathBuf]) -> Result<Splits> {
    let mut splits = Splits::new();
    for entry in list.iter().filter(|entry| entry.is_dir()) {
        if !class_folders(entry)?.is_empty() {
            splits.insert(canonical(&file_name(entry)).to_string(), class_folder(entry));
        }
    }
    // Folders without a split's name may be classes with folders of their own.
    if SPLITS.iter().all(|name| !splits.contains_key(*name)) && !class_folders(folder)?.is_empty() {
        splits.insert(String::new(), class_folder(folder));
    }
    Ok(splits)
}

impl FolderDataset {
    /// Lists a folder. A class's files may lie in folders below its own. Hidden files are passed over, and files of other
    /// types, which [`Dataset::notes`] counts.
    ///
    /// # Errors
    /// [`DataError::Io`], or [`DataError::NotFound`] if there is no class folder.
    pub fn open(path: &Path) -> Result<Self> {
        let classes = class_folders(path)?;
        if classes.is_empty() {
            return Err(DataError::not_found(path, "no folder with images (png, jpg, webp, bmp, tif) or sounds (wav)"));
        }
        let (mut files, mut class_names, mut others) = (vec![], vec![], vec![]);
        for (label, class) in classes.iter().enumerate() {
            let (mut samples, mut passed_over) = (vec![], vec![]);
            list(class, 0, &mut samples, &mut passed_over)?;
            files.extend(samples.into_iter().map(|file| (file, label as i64)));
            others.extend(passed_over);
            class_names.push(class.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        others.extend(entries(path)?.into_iter().filter(|entry| entry.is_file() && !is_debris(entry)));
        let notes = passed_over(path, &others).into_iter().collect();
        Ok(FolderDataset { path: path.to_path_buf(), files, class_names, notes })
    }
}

/// Samples below a folder, and the number of other files.
fn list(folder: &Path, depth: usize, samples: &mut Vec<PathBuf>, others: &mut Vec<PathBuf>) -> Result<()> {
    for entry in entries(folder)? {
        if entry.is_dir() {
            if depth == DEEPEST {
                return Err(DataError::format(&entry, format!("lies more than {DEEPEST} folders below its class")));
            }
            list(&entry, depth + 1, samples, others)?;
        } else if is_sample(&entry) {
            samples.push(entry);
        } else if !is_debris(&entry) {
            others.push(entry);
        }
    }
    Ok(())
}

/// A sentence about files that are not read.
fn passed_over(folder: &Path, others: &[PathBuf]) -> Option<String> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for file in others {
        let ending = file.extension().map_or("without an ending".into(), |e| format!(".{}", e.to_string_lossy().to_lowercase()));
        *kinds.entry(ending).or_default() += 1;
    }
    let told = kinds.iter().take(6).map(|(ending, n)| format!("{n} {ending}")).collect::<Vec<_>>().join(", ");
    let more = if kinds.len() > 6 { ", ..." } else { "" };
    (!others.is_empty()).then(|| {
        let (count, plural) = (others.len(), if others.len() == 1 { "file is" } else { "files are" });
        format!("{}: {count} {plural} skipped ({told}{more}); the types read are {}", folder.display(), EXTENSIONS.join(", "))
    })
}

fn is_debris(file: &Path) -> bool {
    file.file_name().is_some_and(|name| DEBRIS.contains(&name.to_string_lossy().to_lowercase().as_str()))
}

/// All subfolders, if at least one of them has an image or a sound in it or below (an empty class counts: its absence would
/// shift the others' labels).
fn class_folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let folders: Vec<PathBuf> = entries(folder)?.into_iter().filter(|entry| entry.is_dir()).collect();
    for class in &folders {
        if has_sample(class, 0)? {
            return Ok(folders);
        }
    }
    Ok(vec![])
}

fn has_sample(folder: &Path, depth: usize) -> Result<bool> {
    let entries = entries(folder)?;
    if entries.iter().any(|file| is_sample(file)) {
        return Ok(true);
    }
    for below in entries.iter().filter(|e| depth < DEEPEST && e.is_dir()) {
        if has_sample(below, depth + 1)? {
            return Ok(true);
        }
    }
    Ok(false)
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
    fn labels_are_positions(&self) -> bool {
        true
    }
    fn notes(&self) -> Vec<String> {
        self.notes.clone()
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
