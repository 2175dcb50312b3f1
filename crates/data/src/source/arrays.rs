//! Arrays of an npz file: one of inputs under any name, or several that are named after a network's inputs, with one entry
//! a row along the first axis or the one that the network's input asks for; labels are `y`, `label` or `labels`. Where numbers are
//! wanted instead of classes ([`Wanted::Values`]), one array holds them.
//!
//! Bytes of shape `[n, h, w]`, `[n, h, w, 1]` or `[n, h, w, 3]` that stand alone are images; everything else is taken as
//! it is. Memory: the whole file, decompressed.
use super::format::{Format, Opener, SPLITS, Splits, canonical, entries, file_name, opener};
use crate::wanted::take_values;
use crate::{Content, DataError, Dataset, Image, Place, ReadyDataset, Result, Sample, TARGET, Wanted, npz};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tensor::{DType, Element, Tensor, with_buffer};

/// Names that an array of labels may have.
pub(crate) const LABELS: [&str; 3] = ["y", "label", "labels"];
const CLASS_NAMES: &str = "class_names";

/// The rows of arrays that share an axis.
#[derive(Clone, Debug)]
pub struct ArraysDataset {
    path: PathBuf,
    arrays: BTreeMap<String, Array>,
    labels: Option<(&'static str, Vec<i64>)>,
    /// The values to predict, f32 `[rows, ...]`; absent where the target is a class.
    values: Option<Tensor>,
    class_names: Vec<String>,
    rows: usize,
    /// Why the arrays cannot be cut into rows as they are.
    unfit: Option<String>,
}

#[derive(Clone, Debug)]
struct Array {
    tensor: Tensor,
    /// The axis that rows are cut along; `None`: each row has the whole array.
    axis: Option<usize>,
}

impl Array {
    fn rows(&self) -> Option<usize> {
        Some(self.tensor.shape().get(self.axis?).copied().unwrap_or_default())
    }
}

pub(crate) const FORMAT: Format = Format {
    name: "npz",
    layouts: &["*.npz with arrays x and y", "*.npz with the inputs of one run each"],
    file: |path| file_name(path).ends_with(".npz").then(|| array_file(path)),
    splits: arrays_splits,
};

/// An npz file that holds all rows.
fn array_file(file: &Path) -> Opener {
    let file = file.to_path_buf();
    opener(move |_, options| ArraysDataset::wanting(&file, npz::read(&file)?, &options.wanted))
}

/// npz files of which each holds one run.
fn runs(files: Vec<PathBuf>) -> Opener {
    opener(move |path, options| Ok(ReadyDataset::new(path, files).wanting(&options.wanted)))
}

/// `digits-train.npz`, `train.npz`: the split is the part after the last hyphen. Several files of which none is named after a
/// split are one run of a network each, also in folders named after splits.
fn arrays_splits(_: &Path, list: &[PathBuf]) -> Result<Splits> {
    let mut splits = Splits::new();
    for path in list {
        if let Some(stem) = file_name(path).strip_suffix(".npz") {
            let split = canonical(stem.rsplit('-').next().unwrap_or(stem)).to_string();
            splits.insert(split, array_file(path));
        }
    }
    let is_npz = |path: &PathBuf| path.extension().is_some_and(|e| e == "npz") && path.is_file();
    let files: Vec<PathBuf> = list.iter().filter(|path| is_npz(path)).cloned().collect();
    if files.len() > 1 && SPLITS.iter().all(|name| !splits.contains_key(*name)) {
        splits.insert(String::new(), runs(files));
    }
    for folder in list.iter().filter(|entry| entry.is_dir()) {
        let split = canonical(&file_name(folder)).to_string();
        if SPLITS.contains(&split.as_str()) && !splits.contains_key(&split) {
            let files: Vec<PathBuf> = entries(folder)?.into_iter().filter(is_npz).collect();
            if !files.is_empty() {
                splits.insert(split, runs(files));
            }
        }
    }
    Ok(splits)
}

impl ArraysDataset {
    /// Reads an npz file.
    ///
    /// # Errors
    /// As [`npz::read`] and [`ArraysDataset::new`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(path, npz::read(path)?)
    }

    /// As [`ArraysDataset::new`], with the target that is wanted: a class, or an array of numbers.
    ///
    /// # Errors
    /// As [`ArraysDataset::new`]; [`DataError::Format`] if there is no array of targets.
    pub fn wanting(path: &Path, mut arrays: BTreeMap<String, Tensor>, wanted: &Wanted) -> Result<Self> {
        let Wanted::Values { array } = wanted else { return Self::new(path, arrays) };
        let values = take_values(&mut arrays, array.as_deref()).map_err(|what| DataError::format(path, what))?;
        let mut dataset = Self::new(path, arrays)?;
        (dataset.rows, dataset.values) = (values.shape()[0], Some(values));
        dataset.unfit = dataset.disagreement();
        Ok(dataset)
    }

    /// Takes arrays: `y` (`label`, `labels`) of integers and `class_names` of text, where present; each other array is an input.
    ///
    /// Where they have different numbers of rows along their first axes, [`Dataset::arranged`] has to say how they are cut.
    ///
    /// # Errors
    /// [`DataError::Format`], about `path`, if there is no input or nothing has rows.
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
        let arrays: BTreeMap<String, Array> = arrays.into_iter().map(|(name, tensor)| (name, Array { tensor, axis: Some(0) })).collect();
        // Without the inputs of a network: as many rows as there are labels, else as the array with most entries has.
        let most = arrays.values().filter(|a| a.tensor.rank() > 0).filter_map(Array::rows).max();
        let Some(rows) = labels.as_ref().map(|(_, y)| y.len()).filter(|_| most.is_some()).or(most) else {
            return Err(fault("no array 'x' with one entry a row".into()));
        };
        let mut dataset = ArraysDataset { path: path.to_path_buf(), arrays, labels, values: None, class_names, rows, unfit: None };
        dataset.unfit = dataset.disagreement();
        Ok(dataset)
    }

    /// Height, width and channels, if the rows are images.
    fn image(&self) -> Option<[usize; 3]> {
        if self.arrays.len() == 1 { self.arrays.values().next().and_then(|a| image_dims(&a.tensor)) } else { None }
    }

    /// A sentence about two arrays with different numbers of rows.
    fn disagreement(&self) -> Option<String> {
        let counts = self.arrays.iter().filter_map(|(name, array)| Some((name.as_str(), array.rows()?)));
        let labelled = self.labels.as_ref().map(|(name, y)| (*name, y.len()));
        let valued = self.values.as_ref().map(|t| (TARGET, t.shape()[0]));
        let mut counts = counts.chain(labelled).chain(valued);
        let (first, rows) = counts.next()?;
        let (name, count) = counts.find(|(_, count)| *count != rows)?;
        let told = format!("array '{first}' has {rows} rows, array '{name}' {count}");
        if LABELS.contains(&name) || name == TARGET {
            return Some(told);
        }
        Some(format!(
            "{told}; samples that lie along another axis, or an array that serves all of them, are told in the recipe: \
             [data.inputs] NAME = {{ axis = 1 }} or {{ held = true }}"
        ))
    }
}

pub(crate) fn labels(array: &Tensor) -> Result<Vec<i64>, String> {
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
        other => {
            Err(format!("element type {other}, where integers are needed (classes); numbers are predicted with task = \"regression\""))
        }
    }
}

/// Entry `row` along the array's axis.
fn entry(array: &Array, row: usize) -> Result<Tensor> {
    fn slice<T: Element>(values: &[T], shape: &[usize], row: usize) -> Result<Tensor> {
        let size = tensor::shape::count(shape)?;
        Ok(Tensor::new(values[row * size..(row + 1) * size].to_vec(), shape)?)
    }
    let tensor = &array.tensor;
    match array.axis {
        None => Ok(tensor.clone()),
        Some(0) => {
            let shape = tensor.shape().get(1..).unwrap_or_default();
            with_buffer!(tensor.buffer(), values => slice(values, shape, row))
        }
        Some(axis) => {
            let mut shape = tensor.shape().to_vec();
            shape.remove(axis);
            Ok(tensor.narrow(axis, row, 1)?.reshape(shape)?)
        }
    }
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
        if let Some(what) = &self.unfit {
            return Err(DataError::format(&self.path, what.clone()));
        }
        let mut entries = BTreeMap::new();
        for (name, array) in &self.arrays {
            entries.insert(name.clone(), entry(array, row)?);
        }
        let dims = self.image();
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
        let mut sample = Sample::new(content, self.labels.as_ref().map(|(_, labels)| labels[row]));
        if let Some(values) = &self.values {
            let own = values.narrow(0, row, 1)?.reshape(&values.shape()[1..])?;
            sample.values.insert(TARGET.to_string(), own);
        }
        Ok(sample)
    }
    fn labels(&self) -> Result<Vec<Option<i64>>> {
        Ok(match &self.labels {
            Some((_, labels)) => labels.iter().copied().map(Some).collect(),
            None => vec![None; self.rows],
        })
    }
    fn holds_arrays(&self) -> bool {
        self.image().is_none()
    }
    fn has_values(&self) -> bool {
        self.values.is_some()
    }
    fn arranged(&self, places: &BTreeMap<String, Place>) -> Result<Option<Arc<dyn Dataset>>> {
        let mut dataset = self.clone();
        // A lone array is the input, whatever its name.
        let only = places.values().next().filter(|_| self.arrays.len() == 1 && places.len() == 1);
        for (name, array) in &mut dataset.arrays {
            let Some(place) = places.get(name).or(only) else { continue };
            let whole = place.rank == Some(array.tensor.rank());
            array.axis = match place.axis {
                _ if place.held => None,
                // One axis more than the input has: a row has the whole input.
                _ if !whole => Some(0),
                None if array.tensor.rank() == 0 => None,
                None => Some(0),
                Some(axis) => {
                    let shape = array.tensor.shape();
                    let own = shape.iter().position(|n| *n == self.rows).filter(|_| place.single && shape[axis] != self.rows);
                    Some(own.unwrap_or(axis))
                }
            };
        }
        if let Some(what) = dataset.disagreement() {
            return Err(DataError::format(&self.path, what));
        }
        let rows = dataset.arrays.values().find_map(Array::rows);
        dataset.rows = rows.ok_or_else(|| DataError::format(&self.path, "no array has one entry a row"))?;
        dataset.unfit = None;
        Ok(Some(Arc::new(dataset)))
    }
}
