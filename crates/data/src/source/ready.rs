//! A folder of npz files, each of which holds all inputs of one run of a network, by name and batch axis and all; labels are
//! `y`, `label` or `labels` beside them. Runs may differ in shape.
//!
//! Memory: the files' names, one file at a time.
use super::arrays::{LABELS, labels};
use crate::wanted::take_values;
use crate::{Content, DataError, Dataset, Result, Sample, TARGET, Wanted, npz};
use std::path::{Path, PathBuf};
use tensor::Tensor;

/// Runs of a network, one a file.
pub struct ReadyDataset {
    path: PathBuf,
    files: Vec<PathBuf>,
    wanted: Wanted,
}

impl ReadyDataset {
    /// Takes files in the given order. `path` names them in messages.
    pub fn new(path: &Path, files: Vec<PathBuf>) -> Self {
        ReadyDataset { path: path.to_path_buf(), files, wanted: Wanted::Class }
    }

    /// The same files, with the target that is wanted.
    pub fn wanting(self, wanted: &Wanted) -> Self {
        ReadyDataset { wanted: wanted.clone(), ..self }
    }

    fn at(&self, row: usize) -> Result<&PathBuf> {
        self.files.get(row).ok_or_else(|| DataError::row(&self.path, row, format!("only {} rows", self.files.len())))
    }
}

/// Labels as a list: one for each sample of the run, or a lone number.
fn list(name: &str, array: &Tensor) -> Result<Vec<i64>, String> {
    let array = if array.rank() == 0 { array.reshape([1]).map_err(|e| e.to_string())? } else { array.clone() };
    labels(&array).map_err(|what| format!("array '{name}': {what}"))
}

impl Dataset for ReadyDataset {
    fn path(&self) -> &Path {
        &self.path
    }
    fn file(&self, row: usize) -> PathBuf {
        self.files.get(row).unwrap_or(&self.path).clone()
    }
    fn len(&self) -> usize {
        self.files.len()
    }
    fn class_names(&self) -> &[String] {
        &[]
    }
    fn is_ready(&self) -> bool {
        true
    }
    fn holds_arrays(&self) -> bool {
        true
    }
    fn has_values(&self) -> bool {
        self.wanted != Wanted::Class
    }
    fn read(&self, row: usize) -> Result<Sample> {
        let file = self.at(row)?;
        let mut inputs = npz::read(file)?;
        if let Wanted::Values { array } = &self.wanted {
            let values = take_values(&mut inputs, array.as_deref()).map_err(|what| DataError::format(file, what))?;
            let mut sample = Sample::new(Content::Ready { inputs, labels: None }, None);
            sample.values.insert(TARGET.to_string(), values);
            return Ok(sample);
        }
        let named = LABELS.iter().find_map(|name| Some((*name, inputs.remove(*name)?)));
        let labels = named.map(|(name, y)| list(name, &y)).transpose().map_err(|what| DataError::format(file, what))?;
        let label = labels.as_deref().and_then(|l| if let [one] = l { Some(*one) } else { None });
        Ok(Sample::new(Content::Ready { inputs, labels: labels.map(Tensor::vector) }, label))
    }
    fn labels(&self) -> Result<Vec<Option<i64>>> {
        if self.wanted != Wanted::Class {
            return Ok(vec![None; self.files.len()]);
        }
        let label = |file: &PathBuf| {
            let found = npz::read_only(file, &LABELS)?;
            let labels = found.iter().next().map(|(name, y)| list(name, y)).transpose().map_err(|what| DataError::format(file, what))?;
            Ok(labels.and_then(|l| if let [one] = l.as_slice() { Some(*one) } else { None }))
        };
        self.files.iter().map(label).collect()
    }
}
