//! Recognising the format of a data set, and its splits, by the names of its files.
use crate::source::format::{Splits, canonical, entries, file_name};
use crate::source::formats;
use crate::{DataError, Dataset, Result, Wanted};
use std::path::Path;
use std::sync::Arc;

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
    /// The target of a row: its class, or numbers.
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

/// Opens a data set: a folder in one of the known layouts, or a single file.
///
/// # Errors
/// [`DataError::NotFound`], saying what was looked for and what is there, or that there is no such split; and the
/// errors of the format's reader.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Arc<dyn Dataset>> {
    let mut splits = if path.is_dir() { folder_splits(path)? } else { file_splits(path)? };
    let names = splits.keys().cloned().collect::<Vec<_>>().join(", ");
    let found = match &options.split {
        // A single file, or a folder without splits, leaves no choice of a split.
        Some(wanted) => splits.remove(canonical(wanted)).or_else(|| splits.remove("")),
        None if splits.len() <= 1 => splits.into_values().next(),
        None if splits.contains_key("") => splits.remove(""),
        None => return Err(DataError::not_found(path, format!("has the splits {names}: name one of them"))),
    };
    let Some(found) = found else {
        return Err(DataError::not_found(path, format!("no split '{}': there are {names}", options.split.as_deref().unwrap_or_default())));
    };
    let dataset = found(path, options)?;
    if options.wanted != Wanted::Class && !dataset.has_values() {
        let what = "numbers to predict are read from npz files (an array of inputs and one of targets), and this is another format";
        return Err(DataError::not_found(path, what));
    }
    Ok(dataset)
}

/// A single file is the whole data set, under the empty split name.
fn file_splits(path: &Path) -> Result<Splits> {
    std::fs::metadata(path).map_err(DataError::io(path))?;
    match formats().iter().find_map(|format| (format.file)(path)) {
        Some(found) => Ok(Splits::from([(String::new(), found)])),
        None => Err(DataError::not_found(path, format!("not a data set by its name: {}", looked_for()))),
    }
}

fn folder_splits(folder: &Path) -> Result<Splits> {
    let list = entries(folder)?;
    for format in formats() {
        let splits = (format.splits)(folder, &list)?;
        if !splits.is_empty() {
            return Ok(splits);
        }
    }
    let there: Vec<String> = list.iter().take(8).map(|entry| file_name(entry)).collect();
    let there = if there.is_empty() { "nothing".to_string() } else { there.join(", ") };
    Err(DataError::not_found(folder, format!("no data set found: {}; there is {there}", looked_for())))
}

fn looked_for() -> String {
    let layouts: Vec<&str> = formats().iter().flat_map(|format| format.layouts.iter().copied()).collect();
    match layouts.split_last() {
        Some((last, others)) => format!("looked for {}, and {last}", others.join(", ")),
        None => String::new(),
    }
}
