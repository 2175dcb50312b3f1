//! Metrics: an extension point beside [`crate::Objective`], over the same named outputs and targets.
use crate::objective::{Batch, flat, judge, read};
use crate::{Better, Correct, Executor, Mode, TrainError, logits};
use graph::{Model, ValueId};
use std::collections::HashMap;
use tensor::Tensor;

/// A metric over a whole data set, computed batch by batch.
pub trait Metric: Send {
    /// Values of the graph it reads: graph outputs or inner values.
    fn taps(&self) -> Vec<ValueId>;

    /// Adds one batch.
    ///
    /// # Errors
    /// An error if the metric cannot be computed, with the name of the value or target.
    fn add(&mut self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<(), TrainError>;

    /// The metric over all batches so far.
    fn value(&self) -> f64;

    /// Whether larger or smaller values are better.
    fn better(&self) -> Better {
        Better::Higher
    }
}

/// Runs a model over batches and adds each to the metric.
///
/// # Errors
/// Errors of running the model, reading the data or the metric.
pub fn measure(
    model: &Model,
    batches: impl Iterator<Item = Result<Batch, TrainError>>,
    mode: Mode,
    metric: &mut dyn Metric,
) -> Result<(), TrainError> {
    let executor = Executor::with_taps(model, &metric.taps())?;
    for batch in batches {
        let batch = batch?;
        let out = executor.run_with(&batch.inputs, &crate::Overrides::default(), mode, None)?;
        metric.add(&batch.counted_values(out.values)?, &batch)?;
    }
    Ok(())
}

/// Top-1 accuracy against the `label` target.
#[derive(Clone, Debug)]
pub struct Accuracy {
    /// Logits `[n, classes, ...]`.
    logits: ValueId,
    /// The counts so far.
    pub score: Correct,
}

impl Accuracy {
    /// On the model's first output, or the value before it if a Softmax makes it.
    ///
    /// # Errors
    /// [`TrainError::Setting`] if the model has no output.
    pub fn of(model: &Model) -> Result<Self, TrainError> {
        Ok(Accuracy { logits: logits(model)?, score: Correct::default() })
    }
}

impl Metric for Accuracy {
    fn taps(&self) -> Vec<ValueId> {
        vec![self.logits]
    }

    fn add(&mut self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<(), TrainError> {
        let judged = judge(&flat(read(values, self.logits)?)?, batch.target("label")?)?;
        self.score.correct += judged.correct;
        self.score.nan += judged.nan;
        self.score.total += batch.len();
        Ok(())
    }

    fn value(&self) -> f64 {
        self.score.accuracy()
    }
}
