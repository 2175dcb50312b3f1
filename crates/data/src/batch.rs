//! Rows put together: inputs stacked along a batch axis, targets as labels and as ragged lists.
use crate::augment::Augment;
use crate::decode::decode;
use crate::preprocess::Preprocess;
use crate::random::Draws;
use crate::stack::{ImageStack, join, stack};
use crate::{Content, DataError, Dataset, Result, Sample};
use std::collections::BTreeMap;
use tensor::{Buffer, Tensor};

/// Some rows, ready for a network.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The rows' numbers in the data set.
    pub rows: Vec<usize>,
    /// Input tensors by name; axis 0 has one entry a row.
    pub inputs: BTreeMap<String, Tensor>,
    /// What the network should say.
    pub targets: Targets,
}

/// What is to be learnt from a batch.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// The class of each row, i64 `[n]`; absent if a row has none.
    pub labels: Option<Tensor>,
    /// Further targets by name, of which each row has its own number.
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

/// What every worker needs to know to make a batch.
pub(crate) struct Recipe {
    pub(crate) input: String,
    pub(crate) classes: Option<usize>,
    pub(crate) preprocess: Preprocess,
    pub(crate) augment: Augment,
    pub(crate) draws: Draws,
}

impl Recipe {
    /// Decodes, augments, preprocesses and stacks. Errors name the row and its file.
    pub(crate) fn batch(&self, dataset: &dyn Dataset, samples: Vec<(usize, Sample)>) -> Result<Batch> {
        let path = dataset.path();
        let mut parts = Parts { images: None, arrays: BTreeMap::new(), ragged: BTreeMap::new() };
        let (mut rows, mut labels) = (vec![], vec![]);
        let total = samples.len();
        for (row, sample) in samples {
            let fault = |what: String| DataError::row(&dataset.file(row), row, what);
            let content = match sample.content {
                Content::Encoded(bytes) => decode(&bytes).map_err(fault)?,
                decoded => decoded,
            };
            self.check_label(sample.label).map_err(fault)?;
            self.add(&mut parts, content, row, total).map_err(fault)?;
            labels.extend(sample.label);
            rows.push(row);
            for (name, target) in sample.targets {
                parts.ragged.entry(name).or_default().push(target);
            }
        }
        for (name, list) in parts.arrays.iter().chain(&parts.ragged) {
            if list.len() != total {
                return Err(DataError::format(path, format!("'{name}' is in {} of the {total} rows of a batch", list.len())));
            }
        }
        let mut inputs = BTreeMap::new();
        for (name, arrays) in &parts.arrays {
            inputs.insert(name.clone(), stack(path, &rows, arrays)?);
        }
        if let Some(images) = parts.images {
            inputs.insert(self.input.clone(), images.finish()?);
        }
        let labels = (labels.len() == total).then(|| Tensor::vector(labels));
        let ragged = parts.ragged.iter().map(|(name, lists)| Ok((name.clone(), join(path, &rows, lists)?))).collect::<Result<_>>()?;
        Ok(Batch { rows, inputs, targets: Targets { labels, ragged } })
    }

    fn check_label(&self, label: Option<i64>) -> Result<(), String> {
        match (label, self.classes) {
            (Some(label), Some(classes)) if !in_range(label, classes) => Err(out_of_range(label, classes)),
            _ => Ok(()),
        }
    }

    fn add(&self, parts: &mut Parts, content: Content, row: usize, total: usize) -> Result<(), String> {
        let mut array = |name: &str, array: Tensor| {
            check_finite(&array)?;
            parts.arrays.entry(name.to_string()).or_default().push(array);
            Ok(())
        };
        match content {
            Content::Image(image) => {
                let image = self.preprocess.shape(image)?;
                let view = self.augment.view(self.draws.row(row));
                let images = match &mut parts.images {
                    Some(images) => images,
                    none => none.insert(ImageStack::new(&self.preprocess, &image, total)?),
                };
                images.push(&self.preprocess, &image, view)
            }
            Content::Audio(audio) => array(&self.input, self.preprocess.audio(audio)?),
            Content::Arrays(arrays) => {
                // A lone array is the input, whatever its name in the file.
                let alone = arrays.len() == 1;
                arrays.into_iter().try_for_each(|(name, values)| array(if alone { &self.input } else { &name }, values))
            }
            Content::Encoded(_) => Err("was not decoded".into()),
        }
    }
}

/// A batch in the making.
struct Parts {
    images: Option<ImageStack>,
    arrays: BTreeMap<String, Vec<Tensor>>,
    ragged: BTreeMap<String, Vec<Tensor>>,
}

pub(crate) fn in_range(label: i64, classes: usize) -> bool {
    usize::try_from(label).is_ok_and(|label| label < classes)
}

pub(crate) fn out_of_range(label: i64, classes: usize) -> String {
    format!("label {label} is out of range: there are {classes} classes, 0..{}", classes.saturating_sub(1))
}

fn check_finite(array: &Tensor) -> Result<(), String> {
    let bad = match array.buffer() {
        Buffer::F32(v) => v.iter().position(|x| !x.is_finite()),
        Buffer::F64(v) => v.iter().position(|x| !x.is_finite()),
        Buffer::F16(v) => v.iter().position(|x| !x.is_finite()),
        Buffer::BF16(v) => v.iter().position(|x| !x.is_finite()),
        _ => None,
    };
    bad.map_or(Ok(()), |index| Err(format!("element {index} of the input is NaN or infinite")))
}
