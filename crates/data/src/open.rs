//! Recognising the format of a data set, and its splits, by the names of its files.
use crate::source::folder::{class_folders, entries};
use crate::{
    ArraysDataset, CifarDataset, DataError, Dataset, FolderDataset, IdxDataset, ParquetDataset, ReadyDataset, Result, Wanted, npz,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LOOKED_FOR: &str = "looked for NAME-*.parquet or NAME/*.parquet (Hugging Face layout), *-images-idx3-ubyte[.gz] with labels (IDX), \
    data_batch_*.bin or train.bin (CIFAR), *.npz with arrays x and y, *.npz with the inputs of one run each, and class folders with png, jpg, webp, bmp, tif or wav files";

/// How a data set is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The split, `train`, `validation` or `test`; may be absent where there is only one.
    pub split: Option<String>,
    /// Bytes that may be kept in memory. Parquet: a set that fits is read from disk once and shuffled freely; a larger one is
    /// read row group by row group. Gzipped IDX and CIFAR files, which have to be unpacked, are refused where they do not fit.
    pub cache_bytes: u64,
    /// Parquet: the column of the input; absent: found by the metadata, or by the names `image`, `img`, `audio`.
    pub input_column: Option<String>,
    /// Parquet: the column of the label; absent: `label`, `labels`, `fine_label` or the first one that holds classes.
    pub label_column: Option<String>,
    /// What a row has to say beside its input: its class, or numbers.
    pub wanted: Wanted,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions { split: None, cache_bytes: 512 << 20, input_column: None, label_column: None, wanted: Wanted::Class }
    }
}

impl OpenOptions {
    /// The defaults, for one split.
    pub fn split(name: impl Into<String>) -> Self {
        OpenOptions { split: Some(name.into()), ..OpenOptions::default() }
    }
}

/// A format, with what its reader needs to open one split.
enum Found {
    Parquet(Vec<PathBuf>),
    Idx { images: PathBuf, labels: PathBuf },
    Cifar(Vec<PathBuf>),
    Arrays(PathBuf),
    Folder(PathBuf),
    Ready(Vec<PathBuf>),
}

type Splits = BTreeMap<String, Found>;

/// Opens a data set: a folder in one of the known layouts, or a single file.
///
/// # Errors
/// [`DataError::NotFound`], saying what was looked for and what is there, or that there is no such split; and the
/// errors of the format's reader.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Arc<dyn Dataset>> {
    let mut splits = if path.is_dir() { folder_splits(path)? } else { file_splits(path)? };
    let names = splits.keys().cloned().collect::<Vec<_>>().join(", ");
    let found = match &options.split {
        // A single file, or a folder without splits, has nothing to choose from.
        Some(wanted) => splits.remove(canonical(wanted)).or_else(|| splits.remove("")),
        None if splits.len() <= 1 => splits.into_values().next(),
        None if splits.contains_key("") => splits.remove(""),
        None => return Err(DataError::not_found(path, format!("has the splits {names}: name one of them"))),
    };
    let Some(found) = found else {
        return Err(DataError::not_found(path, format!("no split '{}': there are {names}", options.split.as_deref().unwrap_or_default())));
    };
    if let (Wanted::Values { .. }, false) = (&options.wanted, matches!(found, Found::Arrays(_) | Found::Ready(_))) {
        let what = "numbers to predict are read from npz files (an array of inputs and one of targets), and this is another format";
        return Err(DataError::not_found(path, what));
    }
    Ok(match found {
        Found::Parquet(files) => Arc::new(ParquetDataset::open(path, &files, options)?),
        Found::Idx { images, labels } => Arc::new(IdxDataset::open(&images, &labels, options.cache_bytes)?),
        Found::Cifar(files) => Arc::new(CifarDataset::open(path, &files, options.cache_bytes)?),
        Found::Arrays(file) => Arc::new(ArraysDataset::wanting(&file, npz::read(&file)?, &options.wanted)?),
        Found::Folder(folder) => Arc::new(FolderDataset::open(&folder)?),
        Found::Ready(files) => Arc::new(ReadyDataset::new(path, files).wanting(&options.wanted)),
    })
}

/// One name for each split, whatever a collection calls it.
fn canonical(split: &str) -> &str {
    match split {
        "val" | "valid" | "dev" | "validation" => "validation",
        "t10k" | "test_batch" => "test",
        "training" => "train",
        other => other,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A file stands for the whole data set, under the empty split name.
fn file_splits(path: &Path) -> Result<Splits> {
    std::fs::metadata(path).map_err(DataError::io(path))?;
    let name = file_name(path);
    let file = path.to_path_buf();
    let found = if name.ends_with(".parquet") {
        Found::Parquet(vec![file])
    } else if name.ends_with(".npz") {
        Found::Arrays(file)
    } else if name.ends_with(".bin") || name.ends_with(".bin.gz") {
        Found::Cifar(vec![file])
    } else if let Some(found) = idx_pair(path) {
        found
    } else {
        return Err(DataError::not_found(path, format!("not a data set by its name: {LOOKED_FOR}")));
    };
    Ok(BTreeMap::from([(String::new(), found)]))
}

fn folder_splits(folder: &Path) -> Result<Splits> {
    let list = entries(folder)?;
    for find in [parquet_splits, idx_splits, cifar_splits, arrays_splits, class_folder_splits] {
        let splits = find(folder, &list)?;
        if !splits.is_empty() {
            return Ok(splits);
        }
    }
    let there: Vec<String> = list.iter().take(8).map(|entry| file_name(entry)).collect();
    let there = if there.is_empty() { "nothing".to_string() } else { there.join(", ") };
    Err(DataError::not_found(folder, format!("no data set found: {LOOKED_FOR}; there is {there}")))
}

/// `train-00000-of-00002.parquet`, the same under `data/`, or `train/0000.parquet`.
fn parquet_splits(_: &Path, list: &[PathBuf]) -> Result<Splits> {
    let mut files: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let is_parquet = |path: &Path| path.extension().is_some_and(|e| e == "parquet");
    let stem = |path: &Path| file_name(path).trim_end_matches(".parquet").split("-0").next().unwrap_or_default().to_string();
    for entry in list {
        if is_parquet(entry) {
            files.entry(canonical(&stem(entry)).to_string()).or_default().push(entry.clone());
        } else if entry.is_dir() {
            let folder = file_name(entry);
            for file in entries(entry)?.into_iter().filter(|file| is_parquet(file)) {
                let split = if folder == "data" { stem(&file) } else { folder.clone() };
                files.entry(canonical(&split).to_string()).or_default().push(file);
            }
        }
    }
    Ok(files.into_iter().map(|(split, files)| (split, Found::Parquet(files))).collect())
}

/// The images, if this is their file, and the labels beside them.
fn idx_pair(images: &Path) -> Option<Found> {
    let name = file_name(images);
    if !name.contains("-images") || !name.contains("idx3") {
        return None;
    }
    let plain = name.trim_end_matches(".gz").replace("-images", "-labels").replace("idx3", "idx1");
    let labels = [plain.clone(), format!("{plain}.gz")].map(|name| images.with_file_name(name)).into_iter().find(|path| path.is_file())?;
    Some(Found::Idx { images: images.to_path_buf(), labels })
}

fn idx_splits(_: &Path, list: &[PathBuf]) -> Result<Splits> {
    let split = |path: &PathBuf| canonical(file_name(path).split("-images").next().unwrap_or_default()).to_string();
    Ok(list.iter().filter_map(|path| Some((split(path), idx_pair(path)?))).collect())
}

fn cifar_splits(_: &Path, list: &[PathBuf]) -> Result<Splits> {
    let mut files: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in list {
        let name = file_name(path);
        let Some(stem) = name.trim_end_matches(".gz").strip_suffix(".bin") else { continue };
        let split = if stem.starts_with("data_batch") { "train" } else { canonical(stem) };
        if matches!(split, "train" | "test") {
            files.entry(split.to_string()).or_default().push(path.clone());
        }
    }
    Ok(files.into_iter().map(|(split, files)| (split, Found::Cifar(files))).collect())
}

/// Names of splits that nobody takes for anything else.
const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// `digits-train.npz`, `train.npz`: the split is what follows the last hyphen. Several files of which none is called as a
/// split is are one run of a network each; so are those in folders that are called as splits are.
fn arrays_splits(_: &Path, list: &[PathBuf]) -> Result<Splits> {
    let mut splits = Splits::new();
    for path in list {
        if let Some(stem) = file_name(path).strip_suffix(".npz") {
            let split = canonical(stem.rsplit('-').next().unwrap_or(stem)).to_string();
            splits.insert(split, Found::Arrays(path.clone()));
        }
    }
    let is_npz = |path: &PathBuf| path.extension().is_some_and(|e| e == "npz") && path.is_file();
    let files: Vec<PathBuf> = list.iter().filter(|path| is_npz(path)).cloned().collect();
    if files.len() > 1 && SPLITS.iter().all(|name| !splits.contains_key(*name)) {
        splits.insert(String::new(), Found::Ready(files));
    }
    for folder in list.iter().filter(|entry| entry.is_dir()) {
        let split = canonical(&file_name(folder)).to_string();
        if SPLITS.contains(&split.as_str()) && !splits.contains_key(&split) {
            let files: Vec<PathBuf> = entries(folder)?.into_iter().filter(is_npz).collect();
            if !files.is_empty() {
                splits.insert(split, Found::Ready(files));
            }
        }
    }
    Ok(splits)
}

fn class_folder_splits(folder: &Path, list: &[PathBuf]) -> Result<Splits> {
    let mut splits = Splits::new();
    for entry in list.iter().filter(|entry| entry.is_dir()) {
        if !class_folders(entry)?.is_empty() {
            splits.insert(canonical(&file_name(entry)).to_string(), Found::Folder(entry.clone()));
        }
    }
    // Folders that are not called as splits are may be classes with folders of their own.
    if SPLITS.iter().all(|name| !splits.contains_key(*name)) && !class_folders(folder)?.is_empty() {
        splits.insert(String::new(), Found::Folder(folder.to_path_buf()));
    }
    Ok(splits)
}
