//! Parquet in the Hugging Face layout: a column `image` or `audio` of `{bytes, path}`, a column `label`, and in the
//! schema's metadata (key `huggingface`) the features, among them the names of the classes.
//!
//! A row group is decompressed whole and kept until two others have been read, so that memory is bounded by two row
//! groups; or, where all of them fit the cache's budget, for good.
use super::column::{read_bytes, read_integers};
use super::features::Features;
use super::format::{Format, Splits, canonical, entries, file_name, opener};
use super::pages;
use crate::{Content, DataError, Dataset, OpenOptions, Result, Sample, memory};
use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Row groups that are kept where not all of them can be: the one being read and the one before it.
const KEPT_GROUPS: usize = 2;

/// Images or sounds, encoded, with labels, in one or more Parquet files.
pub struct ParquetDataset {
    path: PathBuf,
    groups: Vec<Group>,
    columns: Columns,
    class_names: Vec<String>,
    resident: bool,
    cache: Mutex<VecDeque<(usize, Arc<GroupData>)>>,
}

/// Where a row group is, and the rows of the data set it holds.
struct Group {
    file: Arc<PathBuf>,
    index: usize,
    rows: Range<usize>,
}

/// Indices of the leaf columns that are read.
#[derive(Clone, Copy, PartialEq)]
struct Columns {
    input: usize,
    label: Option<usize>,
}

struct GroupData {
    inputs: Vec<Option<Bytes>>,
    labels: Vec<Option<i64>>,
}

pub(crate) const FORMAT: Format = Format {
    name: "parquet",
    layouts: &["NAME-*.parquet or NAME/*.parquet (Hugging Face layout)"],
    file: |path| {
        let file = path.to_path_buf();
        file_name(path).ends_with(".parquet").then(|| opener(move |path, options| ParquetDataset::open(path, &[file], options)))
    },
    splits: parquet_splits,
};

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
    let open = |files: Vec<PathBuf>| opener(move |path, options| ParquetDataset::open(path, &files, options));
    Ok(files.into_iter().map(|(split, files)| (split, open(files))).collect())
}

impl ParquetDataset {
    /// Opens files that together are one data set, in the given order. `path` names it in messages.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::Format`] if a file is damaged, has no such column, or other columns than the first.
    pub fn open(path: &Path, files: &[PathBuf], options: &OpenOptions) -> Result<Self> {
        let mut groups = vec![];
        let mut first: Option<(Columns, Vec<String>)> = None;
        let (mut rows, mut size) = (0usize, 0u64);
        for file in files {
            let reader = reader(file)?;
            let metadata = reader.metadata();
            let features = Features::of(metadata.file_metadata());
            let schema = metadata.file_metadata().schema_descr();
            let (columns, label) = find_columns(schema, &features, options).map_err(|what| DataError::format(file, what))?;
            let names = label.map(|name| features.class_names(&name)).unwrap_or_default();
            match &first {
                Some((seen, _)) if *seen != columns => return Err(DataError::format(file, "other columns than the files before it")),
                Some(_) => {}
                None => first = Some((columns, names)),
            }
            let file = Arc::new(file.clone());
            for (index, group) in metadata.row_groups().iter().enumerate() {
                let count = usize::try_from(group.num_rows())
                    .map_err(|_| DataError::format(&file, format!("row group {index} has {} rows", group.num_rows())))?;
                let values = group.column(columns.input).num_values();
                if group.column(columns.input).column_descr().max_rep_level() == 0 && values != group.num_rows() {
                    let what = format!("row group {index} has {} rows and {values} values of its input", group.num_rows());
                    return Err(DataError::format(&file, what));
                }
                let end = rows.checked_add(count).ok_or_else(|| DataError::format(&file, "more rows than can be counted"))?;
                size = size.saturating_add(group.column(columns.input).uncompressed_size().max(0) as u64);
                groups.push(Group { file: file.clone(), index, rows: rows..end });
                rows = end;
            }
        }
        let Some((columns, class_names)) = first else { return Err(DataError::not_found(path, "no Parquet file")) };
        // Labels and bookkeeping are small beside the inputs: 64 bytes a row covers them.
        let kept = (rows as u64).saturating_mul(64);
        if kept > memory::most() {
            return Err(DataError::format(path, format!("{rows} rows are announced, more than there is memory to keep their order in")));
        }
        let resident = size.saturating_add(kept) <= options.cache_bytes;
        Ok(ParquetDataset { path: path.to_path_buf(), groups, columns, class_names, resident, cache: Mutex::default() })
    }

    fn group_of(&self, row: usize) -> Result<usize> {
        if row >= self.len() {
            return Err(DataError::row(&self.path, row, format!("only {} rows", self.len())));
        }
        Ok(self.groups.partition_point(|group| group.rows.end <= row))
    }

    /// A row group's data, from the cache or from disk. Other threads wait meanwhile, since most of them want the same row group.
    fn load(&self, group: usize) -> Result<Arc<GroupData>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, data)) = cache.iter().find(|(index, _)| *index == group) {
            return Ok(data.clone());
        }
        if !self.resident {
            cache.truncate(KEPT_GROUPS - 1);
        }
        let data = Arc::new(self.read_group(group)?);
        cache.push_front((group, data.clone()));
        Ok(data)
    }

    fn read_group(&self, group: usize) -> Result<GroupData> {
        let inputs = self.with_column(group, self.columns.input, read_bytes)?;
        Ok(GroupData { inputs, labels: self.read_labels(group)? })
    }

    fn read_labels(&self, group: usize) -> Result<Vec<Option<i64>>> {
        match self.columns.label {
            Some(column) => self.with_column(group, column, read_integers),
            None => Ok(vec![None; self.groups[group].rows.len()]),
        }
    }

    /// Reads one column of one row group, all its rows.
    fn with_column<T>(
        &self,
        group: usize,
        column: usize,
        read: fn(parquet::column::reader::ColumnReader, i16, usize) -> Result<Vec<T>, String>,
    ) -> Result<Vec<T>> {
        let Group { file, index, rows } = &self.groups[group];
        let fault = |what: String| DataError::format(file, format!("row group {index} (rows {}..{}): {what}", rows.start, rows.end));
        let reader = reader(file)?;
        // Damaged pages make the parquet crate panic in places; here that is an error like any other.
        let values = catch_unwind(AssertUnwindSafe(|| {
            let columns = reader.get_row_group(*index).map_err(|e| e.to_string())?;
            pages::check(&File::open(file.as_path()).map_err(|e| e.to_string())?, columns.metadata().column(column))?;
            let levels = columns.metadata().column(column).column_descr().max_def_level();
            read(columns.get_column_reader(column).map_err(|e| e.to_string())?, levels, rows.len())
        }))
        .unwrap_or_else(|_| Err("its pages are damaged".into()))
        .map_err(fault)?;
        if values.len() != rows.len() {
            return Err(fault(format!("{} values in column {column}", values.len())));
        }
        Ok(values)
    }
}

fn reader(file: &Path) -> Result<SerializedFileReader<File>> {
    let opened = File::open(file).map_err(DataError::io(file))?;
    catch_unwind(AssertUnwindSafe(|| SerializedFileReader::new(opened).map_err(|e| e.to_string())))
        .unwrap_or_else(|_| Err("its footer is damaged".into()))
        .map_err(|what| DataError::format(file, format!("not readable as Parquet: {what}")))
}

/// The input's and the label's leaf columns, and the label's name.
fn find_columns(schema: &SchemaDescriptor, features: &Features, options: &OpenOptions) -> Result<(Columns, Option<String>), String> {
    let leaves: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    let leaf = |name: &str| leaves.iter().position(|leaf| leaf == name);
    let input_leaf = |name: &str| leaf(&format!("{name}.bytes")).or_else(|| leaf(name));
    let there = || leaves.join(", ");
    let input = match &options.input_column {
        Some(name) => input_leaf(name).ok_or_else(|| format!("no column '{name}.bytes' or '{name}': there are {}", there()))?,
        None => features
            .inputs()
            .chain(["image", "img", "audio"])
            .find_map(input_leaf)
            .ok_or_else(|| format!("no column image, img or audio (with .bytes): there are {}", there()))?,
    };
    let label_name = match &options.label_column {
        Some(name) if leaf(name).is_none() => return Err(format!("no column '{name}': there are {}", there())),
        Some(name) => Some(name.as_str()),
        None => ["label", "labels", "fine_label"].into_iter().chain(features.labels()).find(|name| leaf(name).is_some()),
    };
    let label = label_name.and_then(leaf);
    Ok((Columns { input, label }, label_name.map(str::to_string)))
}

impl Dataset for ParquetDataset {
    fn path(&self) -> &Path {
        &self.path
    }
    fn file(&self, row: usize) -> PathBuf {
        self.group_of(row).map_or_else(|_| self.path.clone(), |group| self.groups[group].file.to_path_buf())
    }
    fn len(&self) -> usize {
        self.groups.last().map_or(0, |group| group.rows.end)
    }
    fn class_names(&self) -> &[String] {
        &self.class_names
    }
    fn read(&self, row: usize) -> Result<Sample> {
        let group = self.group_of(row)?;
        let data = self.load(group)?;
        let at = row - self.groups[group].rows.start;
        let bytes = data.inputs[at]
            .as_ref()
            .ok_or_else(|| DataError::row(&self.file(row), row, "its bytes are null (a path alone is not read)"))?;
        // A slice would keep its whole page in memory while the row waits in a shuffle buffer.
        let bytes = if self.resident { bytes.clone() } else { Bytes::copy_from_slice(bytes) };
        Ok(Sample::new(Content::Encoded(bytes), data.labels[at]))
    }
    fn labels(&self) -> Result<Vec<Option<i64>>> {
        let mut labels = Vec::with_capacity(self.len().min(1 << 20));
        for group in 0..self.groups.len() {
            labels.extend(self.read_labels(group)?);
        }
        Ok(labels)
    }
    fn runs(&self) -> Vec<Range<usize>> {
        match self.resident {
            true => std::iter::once(0..self.len()).collect(),
            false => self.groups.iter().map(|group| group.rows.clone()).collect(),
        }
    }
}
