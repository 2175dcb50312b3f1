//! Losses and their data: extension points over named outputs and named targets.
use crate::{LossParameter, TrainError, logits};
use graph::{Model, ValueId};
use std::collections::{BTreeMap, HashMap};
use tensor::Tensor;

/// One batch: inputs of the graph and targets of the loss.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Tensors by graph input.
    pub inputs: BTreeMap<String, Tensor>,
    /// Tensors by name (`label`: int64 `[n]`). A ragged target `NAME` stands as its values, all rows' one after the other
    /// along axis 0, and as `NAME.offsets`, int64 `[n + 1]`: see [`Batch::ragged`].
    pub targets: BTreeMap<String, Tensor>,
    /// Which part of the requested samples these are.
    pub portion: Portion,
}

/// The part of the requested samples in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Portion {
    /// Number of samples, if the tensors' shapes do not tell.
    pub samples: Option<usize>,
    /// Samples that were repeated at the end, to fill up a run with a fixed batch.
    pub filled: usize,
    /// True if the next batch belongs to the same step of training.
    pub continues: bool,
}

impl Batch {
    /// A value of a run without the samples that only fill it up.
    ///
    /// # Errors
    /// [`TrainError::Value`] if it cannot be cut.
    pub fn counted(&self, t: Tensor) -> Result<Tensor, TrainError> {
        let samples = self.portion.samples.unwrap_or_default();
        match self.portion.filled {
            0 => Ok(t),
            filled if t.shape().first() == Some(&(samples + filled)) => t.narrow(0, 0, samples).map_err(loss_error),
            _ => Ok(t),
        }
    }

    /// [`Batch::counted`] for all values of a run.
    ///
    /// # Errors
    /// As [`Batch::counted`].
    pub fn counted_values<K, M: FromIterator<(K, Tensor)> + IntoIterator<Item = (K, Tensor)>>(&self, values: M) -> Result<M, TrainError> {
        if self.portion.filled == 0 {
            return Ok(values);
        }
        values.into_iter().map(|(key, t)| Ok((key, self.counted(t)?))).collect()
    }

    /// Number of samples: the portion's, else that of the labels, else the count in a ragged target's offsets, else the first
    /// dimension of a target or
    /// an input.
    pub fn len(&self) -> usize {
        let first = |t: &Tensor| t.shape().first().copied().unwrap_or(1);
        if let Some(samples) = self.portion.samples {
            return samples;
        }
        if let Some(labels) = self.targets.get("label") {
            return first(labels);
        }
        match self.targets.iter().find(|(name, _)| name.ends_with(OFFSETS)) {
            Some((_, offsets)) => offsets.len().saturating_sub(1),
            None => self.targets.values().chain(self.inputs.values()).next().map_or(0, first),
        }
    }

    /// True if there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A required target.
    ///
    /// # Errors
    /// [`TrainError::Input`] if the batch has none of that name.
    pub fn target(&self, name: &str) -> Result<&Tensor, TrainError> {
        self.targets.get(name).ok_or_else(|| TrainError::Input { input: name.to_string(), what: "is not among the batch's targets".into() })
    }

    /// A ragged target, sample by sample: boxes of an image, letters of a word. Each has the shape `[own number, ...]`, and may
    /// be empty.
    ///
    /// # Errors
    /// [`TrainError::Input`] if the batch has no such target, or its offsets do not fit its values.
    pub fn ragged(&self, name: &str) -> Result<Vec<Tensor>, TrainError> {
        let (values, offsets) = (self.target(name)?, self.target(&format!("{name}{OFFSETS}"))?);
        let wrong = |what: String| TrainError::Input { input: format!("{name}{OFFSETS}"), what };
        let bounds = offsets.as_slice::<i64>().map_err(|e| wrong(e.to_string()))?;
        let rows = values.shape().first().copied().unwrap_or(0) as i64;
        if bounds.first() != Some(&0) || bounds.last() != Some(&rows) || bounds.windows(2).any(|w| w[0] > w[1]) {
            return Err(wrong(format!("must rise from 0 to the {rows} rows of '{name}', but are {bounds:?}")));
        }
        let part = |w: &[i64]| values.narrow(0, w[0] as usize, (w[1] - w[0]) as usize).map_err(|e| wrong(e.to_string()));
        bounds.windows(2).map(part).collect()
    }
}

/// Ending of the name of a ragged target's offsets.
pub(crate) const OFFSETS: &str = ".offsets";

/// A loss over the values of one forward pass.
///
/// An objective with parameters implements [`Objective::parameters`] and [`Objective::loss_with`]; its [`Objective::loss`] uses
/// the initial parameters.
pub trait Objective: Send + Sync {
    /// Values of the graph the loss reads: graph outputs or inner values (before a final Softmax).
    fn taps(&self) -> Vec<ValueId>;

    /// The scalar to minimize.
    ///
    /// # Errors
    /// An error if the loss cannot be computed, with the name of the value or target.
    fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError>;

    /// Initial values of its parameters. They train together with the model's, and are not part of the model.
    fn parameters(&self) -> Vec<LossParameter> {
        vec![]
    }

    /// [`Objective::loss`] where the parameters have these elements, in the order of [`Objective::parameters`].
    ///
    /// # Errors
    /// As [`Objective::loss`].
    fn loss_with(&self, _parameters: &[Tensor], values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
        self.loss(values, batch)
    }

    /// How many samples of the batch are classified correctly, for the training curve; `None` if that has no meaning.
    fn correct(&self, _values: &HashMap<ValueId, Tensor>, _batch: &Batch) -> Option<usize> {
        None
    }
}

impl Objective for Box<dyn Objective> {
    fn taps(&self) -> Vec<ValueId> {
        self.as_ref().taps()
    }

    fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
        self.as_ref().loss(values, batch)
    }

    fn correct(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Option<usize> {
        self.as_ref().correct(values, batch)
    }
}

/// Cross-entropy on class labels, with label smoothing (Szegedy et al. 2016, arXiv:1512.00567, section 7).
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// Logits `[n, classes]`.
    pub logits: ValueId,
    /// Share of the target spread over all classes, 0..1.
    pub label_smoothing: f32,
    /// Name of the target: int64 `[n]`.
    pub target: String,
}

impl CrossEntropy {
    /// On the model's first output, or the value before it if a Softmax makes it.
    ///
    /// # Errors
    /// [`TrainError::Setting`] if the model has no output.
    pub fn of(model: &Model, label_smoothing: f32) -> Result<Self, TrainError> {
        Ok(CrossEntropy { logits: logits(model)?, label_smoothing, target: "label".into() })
    }
}

impl Objective for CrossEntropy {
    fn taps(&self) -> Vec<ValueId> {
        vec![self.logits]
    }

    fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
        let logits = flat(read(values, self.logits)?)?;
        tensor::cross_entropy(&logits, batch.target(&self.target)?, self.label_smoothing).map_err(loss_error)
    }

    fn correct(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Option<usize> {
        Some(judge(values.get(&self.logits)?, batch.targets.get(&self.target)?).ok()?.correct)
    }
}

/// Results of a batch's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Rows whose largest element is at the label's index.
    pub correct: usize,
    /// Rows with NaN; they count as wrong, whatever the label.
    pub nan: usize,
}

/// Compares the index of the largest element of each row of `logits` `[n, classes, ...]` with the label `[n]`, int64.
///
/// # Errors
/// [`TrainError::Data`] if the two do not have the same number of rows, or a label is not a class.
pub fn judge(logits: &Tensor, labels: &Tensor) -> Result<Judged, TrainError> {
    let rows = logits.to_f32_vec().map_err(loss_error)?;
    let labels_of = labels.as_slice::<i64>().map_err(loss_error)?;
    if logits.shape().first() != Some(&labels_of.len()) {
        let what = format!("outputs of shape {:?} cannot be scored against labels of shape {:?}", logits.shape(), labels.shape());
        return Err(TrainError::Data(what));
    }
    let classes = rows.len() / labels_of.len().max(1);
    let mut judged = Judged::default();
    for (i, (row, label)) in rows.chunks(classes.max(1)).zip(labels_of).enumerate() {
        if usize::try_from(*label).map_or(true, |l| l >= classes) {
            return Err(TrainError::Data(format!("row {i} of the batch: label {label} is not one of the network's {classes} classes")));
        }
        match crate::arg_max(row) {
            Some(best) => judged.correct += usize::from(best as i64 == *label),
            None => judged.nan += 1,
        }
    }
    Ok(judged)
}

/// Number of classes of the model: the elements of its first output for one sample, if the shape is declared.
pub fn classes(model: &Model) -> Option<usize> {
    let shape = model.values[*model.graph.outputs.first()?].shape()?;
    shape.get(1..)?.iter().map(graph::Dim::known).product()
}

/// [`classes`] of a model whose first output is a score for each class, `[n, classes]`; `None` for other outputs (boxes, a
/// picture).
pub fn class_scores(model: &Model) -> Option<usize> {
    let shape = model.values[*model.graph.outputs.first()?].shape()?;
    shape.get(2..)?.iter().all(|d| d.known() == Some(1)).then(|| classes(model)).flatten()
}

/// A value of the forward pass.
///
/// # Errors
/// [`TrainError::Value`] if it was not kept.
pub fn read(values: &HashMap<ValueId, Tensor>, id: ValueId) -> Result<&Tensor, TrainError> {
    values
        .get(&id)
        .ok_or_else(|| TrainError::Value { value: format!("#{}", id.0), what: "is not among the values of the forward pass".into() })
}

/// `[n, ...]` as `[n, rest]`: heads that end in a 1x1 convolution keep their spatial axes.
///
/// # Errors
/// [`TrainError::Value`] for a scalar.
pub fn flat(t: &Tensor) -> Result<Tensor, TrainError> {
    let n = *t.shape().first().ok_or_else(|| loss_error(tensor::TensorError::shape("loss", "logits need a batch axis")))?;
    t.reshape([n, t.len() / n.max(1)]).map_err(loss_error)
}

/// A tensor error as an error of the loss.
pub fn loss_error(e: tensor::TensorError) -> TrainError {
    TrainError::Value { value: "loss".into(), what: e.to_string() }
}
