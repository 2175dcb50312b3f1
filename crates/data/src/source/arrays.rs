//! Arrays of an npz file: one of inputs under any name, or several that are named after a network's inputs, with one entry
//! a row; labels are `y`, `label` or `labels`.
//!
//! Bytes of shape `[n, h, w]`, `[n, h, w, 1]` or `[n, h, w, 3]` that stand alone are images; everything else is taken as
//! it is. Memory: the whole file, decompressed.
use crate::{Content, DataError, Dataset, Image, Result, Sample, npz};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tensor::{DType, Element, Tensor, with_buffer};

/// Names that labels go by.
const LABELS: [&str; 3] = ["y", "label", "labels"];
const CLASS_NAMES: &str = "class_names";

/// The rows of arrays that share their first axis.
#[derive(Debug)]
pub struct ArraysDataset {
    path: PathBuf,
    arrays: BTreeMap<String, Tensor>,
    labels: Option<Vec<i64>>,
    class_names: Vec<String>,
    rows: usize,
}

impl ArraysDataset {
    /// Reads an npz file.
    ///
    /// # Errors
    /// As [`npz::read`] and [`ArraysDataset::new`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(path, npz::read(path)?)
    }

    /// Takes arrays: `y` (`label`, `labels`) of integers and `class_names` of text, where present; each other array is an input.
    ///
    /// # Errors
    /// [`DataError::Format`], about `path`, if there is no input or the arrays have different numbers of rows.
    pub fn new(path: &Path, mut arrays: BTreeMap<String, Tensor>) -> Result<Self> {
        let fault = |what: String| DataError::format(path, what);
        let class_names = match arrays.remove(CLASS_NAMES) {
            Some(names) => names.into_vec::<String>().map_err(|e| fault(format!("array '{CLASS_NAMES}': {e}")))?,
            None => vec![],
        };
        let named = LABELS.iter().find_map(|name| Some((*name, arrays.remove(*name)?)));
        let labels = match named {
            Some((name, y)) => Some((name, labels(&y).map_err(|what| fault(format!("array '{name}': {what}")))?)),
            None => None,
        };
        let mut counts = arrays.iter().map(|(name, array)| (name.as_str(), array.shape().first().copied()));
        let Some((first, Some(rows))) = counts.next() else {
            return Err(fault("no array 'x' with one entry a row".into()));
        };
        let labelled = labels.as_ref().map(|(name, y)| (*name, Some(y.len())));
        if let Some((name, count)) = counts.chain(labelled).find(|(_, count)| *count != Some(rows)) {
            return Err(fault(format!("array '{first}' has {rows} rows, array '{name}' {}", count.unwrap_or_default())));
        }
        Ok(ArraysDataset { path: path.to_path_buf(), arrays, labels: labels.map(|(_, y)| y), class_names, rows })
    }
}

fn labels(array: &Tensor) -> Result<Vec<i64>, String> {
    fn convert<T: Element + TryInto<i64>>(array: &Tensor) -> Result<Vec<i64>, String> {
        let values = array.as_slice::<T>().map_err(|e| e.to_string())?;
        values.iter().map(|v| v.clone().try_into().map_err(|_| format!("{v:?} is too large"))).collect()
    }
    if array.rank() != 1 {
        return Err(format!("shape {:?}, where one label a row is needed", array.shape()));
    }
    match array.dtype() {
        DType::U8 => convert::<u8>(array),
        DType::I8 => convert::<i8>(array),
        DType::U16 => convert::<u16>(array),
        DType::I16 => convert::<i16>(array),
        DType::U32 => convert::<u32>(array),
        DType::I32 => convert::<i32>(array),
        DType::U64 => convert::<u64>(array),
        DType::I64 => convert::<i64>(array),
        other => Err(format!("element type {other}, where integers are needed")),
    }
}

/// Entry `row` along axis 0.
fn entry(array: &Tensor, row: usize) -> Result<Tensor> {
    fn slice<T: Element>(values: &[T], shape: &[usize], row: usize) -> Result<Tensor> {
        let size = tensor::shape::count(shape)?;
        Ok(Tensor::new(values[row * size..(row + 1) * size].to_vec(), shape)?)
    }
    let shape = array.shape().get(1..).unwrap_or_default();
    with_buffer!(array.buffer(), values => slice(values, shape, row))
}

/// Height, width and channels, if the array holds images.
fn image_dims(array: &Tensor) -> Option<[usize; 3]> {
    match (array.dtype(), array.shape()) {
        (DType::U8, [_, height, width]) => Some([*height, *width, 1]),
        (DType::U8, [_, height, width, channels @ (1 | 3)]) => Some([*height, *width, *channels]),
        _ => None,
    }
}

impl Dataset for ArraysDataset {
    fn path(&self) -> &Path {
        &self.path
    }
    fn len(&self) -> usize {
        self.rows
    }
    fn class_names(&self) -> &[String] {
        &self.class_names
    }
    fn read(&self, row: usize) -> Result<Sample> {
        if row >= self.rows {
            return Err(DataError::row(&self.path, row, format!("only {} rows", self.rows)));
        }
        let mut entries = BTreeMap::new();
        for (name, array) in &self.arrays {
            entries.insert(name.clone(), entry(array, row)?);
        }
        let dims = if self.arrays.len() == 1 { self.arrays.values().next().and_then(image_dims) } else { None };
        let content = match (dims, entries.pop_first()) {
            (Some([height, width, channels]), Some((_, pixels))) => {
                Content::Image(Image { height, width, channels, pixels: pixels.into_vec::<u8>()? })
            }
            (_, Some((name, array))) => {
                entries.insert(name, array);
                Content::Arrays(entries)
            }
            (_, None) => Content::Arrays(entries),
        };
        Ok(Sample::new(content, self.labels.as_ref().map(|labels| labels[row])))
    }
    fn labels(&self) -> Result<Vec<Option<i64>>> {
        Ok(match &self.labels {
            Some(labels) => labels.iter().copied().map(Some).collect(),
            None => vec![None; self.rows],
        })
    }
}
