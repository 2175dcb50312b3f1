//! Rows put together: inputs stacked along a batch axis, targets as labels and as ragged lists.
use crate::augment::Augment;
use crate::decode::decode;
use crate::preprocess::{Preprocess, View};
use crate::random::Draws;
use crate::stack::{ImageStack, join, stack};
use crate::{Content, DataError, Dataset, Image, Result, Sample};
use std::collections::BTreeMap;
use tensor::{Buffer, Tensor};

/// Some rows, ready for a network.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The rows' numbers in the data set.
    pub rows: Vec<usize>,
    /// Input tensors by name; axis 0 has one entry a row.
    pub inputs: BTreeMap<String, Tensor>,
    /// The targets of the rows.
    pub targets: Targets,
    /// True if the inputs are those of one whole run of a network ([`Content::Ready`]).
    pub ready: bool,
    /// True if the next batch continues this one: the rows of a batch differ in shape, or each row is a whole run.
    pub continues: bool,
}

/// The targets of a batch.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// The class of each row, i64 `[n]`; absent if a row has none.
    pub labels: Option<Tensor>,
    /// Targets of one shape in all rows, by name: `[n, ...]`.
    pub values: BTreeMap<String, Tensor>,
    /// Further targets by name, with another number of entries in each row.
    pub ragged: BTreeMap<String, Ragged>,
}

/// Lists of different lengths, one a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Ragged {
    /// All lists one after the other, along axis 0.
    pub values: Tensor,
    /// Row `i` owns entries `offsets[i]..offsets[i + 1]`; one more entry than rows.
    pub offsets: Vec<usize>,
}

/// What every worker needs to make a batch.
pub(crate) struct BatchRecipe {
    pub(crate) input: String,
    pub(crate) classes: Option<usize>,
    pub(crate) preprocess: Preprocess,
    pub(crate) augment: Augment,
    pub(crate) draws: Draws,
    /// Rows of different shapes are allowed: each shape makes a batch of its own.
    pub(crate) ragged: bool,
}

impl BatchRecipe {
    /// Decodes, augments, preprocesses and stacks: one batch, or several where rows cannot be stacked and need not be.
    /// Errors name the row and its file.
    pub(crate) fn batches(&self, dataset: &dyn Dataset, samples: Vec<(usize, Sample)>) -> Result<Vec<Batch>> {
        let (mut batches, mut parts) = (vec![], Parts::default());
        let total = samples.len();
        for (row, sample) in samples {
            let fault = |what: String| DataError::row(&dataset.file(row), row, what);
            let content = match sample.content {
                Content::Encoded(bytes) => decode(&bytes).map_err(fault)?,
                decoded => decoded,
            };
            self.check_label(sample.label).map_err(fault)?;
            if let Content::Ready { inputs, labels } = content {
                batches.extend(parts.finish(dataset, &self.input)?);
                inputs.values().try_for_each(check_finite).map_err(fault)?;
                sample.values.iter().try_for_each(|(name, t)| check_target(name, t)).map_err(fault)?;
                let targets = Targets { labels, values: sample.values, ragged: BTreeMap::new() };
                batches.push(Batch { rows: vec![row], inputs, targets, ready: true, continues: true });
                continue;
            }
            sample.values.iter().try_for_each(|(name, t)| check_target(name, t)).map_err(fault)?;
            let made = self.input(content, row).map_err(fault)?;
            if self.ragged && !parts.takes(&made, &self.preprocess) {
                batches.extend(parts.finish(dataset, &self.input)?);
            }
            self.add(&mut parts, made, total).map_err(fault)?;
            parts.labels.extend(sample.label);
            parts.rows.push(row);
            for (name, target) in sample.values {
                parts.values.entry(name).or_default().push(target);
            }
            for (name, target) in sample.targets {
                parts.ragged.entry(name).or_default().push(target);
            }
        }
        batches.extend(parts.finish(dataset, &self.input)?);
        if let Some(last) = batches.last_mut() {
            last.continues = false;
        }
        Ok(batches)
    }

    fn check_label(&self, label: Option<i64>) -> Result<(), String> {
        match (label, self.classes) {
            (Some(label), Some(classes)) if !in_range(label, classes) => Err(out_of_range(label, classes)),
            _ => Ok(()),
        }
    }

    /// A row's input, or inputs by name.
    fn input(&self, content: Content, row: usize) -> Result<Made, String> {
        let mut arrays = match content {
            Content::Image(image) => {
                let image = self.preprocess.shape(image)?;
                return Ok(Made::Image(image, self.augment.view(self.draws.row(row))));
            }
            Content::Audio(audio) => {
                let sound = self.preprocess.audio(audio)?;
                check_finite(&sound)?;
                return Ok(Made::Arrays(BTreeMap::from([(self.input.clone(), sound)])));
            }
            // A lone array is the input, whatever its name in the file.
            Content::Arrays(arrays) if arrays.len() == 1 => arrays.into_values().map(|a| (self.input.clone(), a)).collect(),
            Content::Arrays(arrays) => arrays,
            Content::Encoded(_) | Content::Ready { .. } => return Err("was not decoded".into()),
        };
        arrays.values().try_for_each(check_finite)?;
        if let Some(t) = arrays.remove(&self.input) {
            let view = self.augment.view(self.draws.row(row));
            arrays.insert(self.input.clone(), self.preprocess.array(t, view)?);
        }
        Ok(Made::Arrays(arrays))
    }

    fn add(&self, parts: &mut Parts, made: Made, total: usize) -> Result<(), String> {
        match made {
            Made::Image(image, view) => {
                let images = match &mut parts.images {
                    Some(images) => images,
                    none => none.insert(ImageStack::new(&self.preprocess, &image, total)?),
                };
                images.push(&self.preprocess, &image, view)
            }
            Made::Arrays(arrays) => {
                arrays.into_iter().for_each(|(name, array)| parts.arrays.entry(name).or_default().push(array));
                Ok(())
            }
        }
    }
}

/// A row's input before it is stacked.
enum Made {
    Image(Image, View),
    Arrays(BTreeMap<String, Tensor>),
}

/// A batch to which rows are added.
#[derive(Default)]
struct Parts {
    rows: Vec<usize>,
    labels: Vec<i64>,
    images: Option<ImageStack>,
    arrays: BTreeMap<String, Vec<Tensor>>,
    values: BTreeMap<String, Vec<Tensor>>,
    ragged: BTreeMap<String, Vec<Tensor>>,
}

impl Parts {
    /// True if the row has the shape of the rows already in the batch.
    fn takes(&self, made: &Made, preprocess: &Preprocess) -> bool {
        match made {
            _ if self.rows.is_empty() => true,
            Made::Image(image, _) => self.images.as_ref().is_some_and(|stack| stack.dims() == preprocess.dims(image)),
            Made::Arrays(arrays) => arrays.iter().all(|(name, a)| {
                self.arrays.get(name).and_then(|list| list.first()).is_some_and(|b| a.shape() == b.shape() && a.dtype() == b.dtype())
            }),
        }
    }

    /// Returns the batch of these rows, if there are any, and starts an empty one.
    fn finish(&mut self, dataset: &dyn Dataset, input: &str) -> Result<Option<Batch>> {
        let Parts { rows, labels, images, arrays, values, ragged } = std::mem::take(self);
        let (path, total) = (dataset.path(), rows.len());
        if total == 0 {
            return Ok(None);
        }
        for (name, list) in arrays.iter().chain(&values).chain(&ragged) {
            if list.len() != total {
                return Err(DataError::format(path, format!("'{name}' is in {} of the {total} rows of a batch", list.len())));
            }
        }
        let mut inputs = BTreeMap::new();
        for (name, arrays) in &arrays {
            inputs.insert(name.clone(), stack(path, &rows, arrays)?);
        }
        if let Some(images) = images {
            inputs.insert(input.to_string(), images.finish()?);
        }
        let labels = (labels.len() == total).then(|| Tensor::vector(labels));
        let values = values.iter().map(|(name, list)| Ok((name.clone(), stack(path, &rows, list)?))).collect::<Result<_>>()?;
        let ragged = ragged.iter().map(|(name, lists)| Ok((name.clone(), join(path, &rows, lists)?))).collect::<Result<_>>()?;
        Ok(Some(Batch { rows, inputs, targets: Targets { labels, values, ragged }, ready: false, continues: true }))
    }
}

pub(crate) fn in_range(label: i64, classes: usize) -> bool {
    usize::try_from(label).is_ok_and(|label| label < classes)
}

pub(crate) fn out_of_range(label: i64, classes: usize) -> String {
    format!("label {label} is out of range: there are {classes} classes, 0..{}", classes.saturating_sub(1))
}

fn check_finite(array: &Tensor) -> Result<(), String> {
    not_finite(array).map_or(Ok(()), |index| Err(format!("element {index} of the input is NaN or infinite")))
}

fn check_target(name: &str, array: &Tensor) -> Result<(), String> {
    let told = |index| Err(format!("element {index} of the target '{name}' is NaN or infinite: leave the row out, or give it a number"));
    not_finite(array).map_or(Ok(()), told)
}

/// The first element that is NaN or infinite.
fn not_finite(array: &Tensor) -> Option<usize> {
    match array.buffer() {
        Buffer::F32(v) => v.iter().position(|x| !x.is_finite()),
        Buffer::F64(v) => v.iter().position(|x| !x.is_finite()),
        Buffer::F16(v) => v.iter().position(|x| !x.is_finite()),
        Buffer::BF16(v) => v.iter().position(|x| !x.is_finite()),
        _ => None,
    }
}
