//! The binary files of CIFAR-10 (label, then 32 x 32 pixels plane by plane) and CIFAR-100 (coarse label, fine label, pixels).
//!
//! Source: Krizhevsky 2009, <https://www.cs.toronto.edu/~kriz/cifar.html>. Memory: the labels, one image at a time (all
//! images where the files are gzipped).
use super::format::{Format, Splits, canonical, file_name, opener};
use super::record::RecordFile;
use crate::{Content, DataError, Dataset, Image, Result, Sample};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const CIFAR10_CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// CIFAR-10 or CIFAR-100 in binary files.
pub struct CifarDataset {
    path: PathBuf,
    parts: Vec<FilePart>,
    labels: Vec<u8>,
    label_bytes: usize,
    class_names: Vec<String>,
}

struct FilePart {
    file: RecordFile,
    first_row: usize,
}

pub(crate) const FORMAT: Format = Format {
    name: "cifar",
    layouts: &["data_batch_*.bin or train.bin (CIFAR)"],
    file: |path| {
        let file = path.to_path_buf();
        let named = [".bin", ".bin.gz"].iter().any(|end| file_name(path).ends_with(end));
        named.then(|| opener(move |path, options| CifarDataset::open(path, &[file], options.cache_bytes)))
    },
    splits: cifar_splits,
};

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
    let open = |files: Vec<PathBuf>| opener(move |path, options| CifarDataset::open(path, &files, options.cache_bytes));
    Ok(files.into_iter().map(|(split, files)| (split, open(files))).collect())
}

impl CifarDataset {
    /// Opens files in the given order; a gzipped one may unpack to `most` bytes. They are CIFAR-100 if they are called `train.bin` or `test.bin`; its class names
    /// are read from `fine_label_names.txt` beside them, where that exists.
    ///
    /// # Errors
    /// [`DataError::Io`], or [`DataError::Format`] if a file is not a whole number of records.
    pub fn open(path: &Path, files: &[PathBuf], most: u64) -> Result<Self> {
        let name = |file: &PathBuf| file.file_name().map(|n| n.to_string_lossy().trim_end_matches(".gz").to_string());
        let hundred = files.iter().filter_map(name).any(|name| name == "train.bin" || name == "test.bin");
        let label_bytes = if hundred { 2 } else { 1 };
        let record = label_bytes + 3 * PLANE;
        let (mut parts, mut labels) = (vec![], vec![]);
        for path in files {
            let file = RecordFile::open(path, most, 0, &|_| Ok(None))?;
            if file.len() % record as u64 != 0 {
                return Err(DataError::format(path, format!("{} bytes are not a whole number of records of {record} bytes", file.len())));
            }
            let first_row = labels.len();
            for index in 0..file.len() / record as u64 {
                labels.extend(file.read(index * record as u64 + label_bytes as u64 - 1, 1)?);
            }
            parts.push(FilePart { file, first_row });
        }
        let class_names = if hundred { fine_names(files) } else { CIFAR10_CLASSES.map(str::to_string).to_vec() };
        Ok(CifarDataset { path: path.to_path_buf(), parts, labels, label_bytes, class_names })
    }
}

fn fine_names(files: &[PathBuf]) -> Vec<String> {
    let list = files.first().and_then(|file| std::fs::read_to_string(file.with_file_name("fine_label_names.txt")).ok());
    list.map(|text| text.lines().filter(|line| !line.is_empty()).map(str::to_string).collect()).unwrap_or_default()
}

impl Dataset for CifarDataset {
    fn path(&self) -> &Path {
        &self.path
    }
    fn len(&self) -> usize {
        self.labels.len()
    }
    fn class_names(&self) -> &[String] {
        &self.class_names
    }
    fn read(&self, row: usize) -> Result<Sample> {
        let label = *self.labels.get(row).ok_or_else(|| DataError::row(&self.path, row, format!("only {} rows", self.len())))?;
        let part = &self.parts[self.parts.partition_point(|part| part.first_row <= row) - 1];
        let record = self.label_bytes + 3 * PLANE;
        let planes = part.file.read(((row - part.first_row) * record + self.label_bytes) as u64, 3 * PLANE)?;
        let pixels = (0..PLANE).flat_map(|i| [planes[i], planes[PLANE + i], planes[2 * PLANE + i]]).collect();
        let image = Image { height: SIDE, width: SIDE, channels: 3, pixels };
        Ok(Sample::new(Content::Image(image), Some(i64::from(label))))
    }
    fn labels(&self) -> Result<Vec<Option<i64>>> {
        Ok(self.labels.iter().map(|label| Some(i64::from(*label))).collect())
    }
}
