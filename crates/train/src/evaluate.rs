//! Scoring a model in the interpreter: as a float graph, or with its annotations simulated as it will be deployed.
use crate::{Accuracy, Batch, Mode, TrainError, measure};
use graph::Model;
use serde::{Deserialize, Serialize};

/// The score of a classifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Correct {
    /// Samples whose largest logit is at their label.
    pub correct: usize,
    /// Samples.
    pub total: usize,
    /// Samples with NaN among their outputs; they count as wrong.
    #[serde(default)]
    pub nan: usize,
}

impl Correct {
    /// Share of the samples that are classified correctly, 0..1.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.total.max(1) as f64
    }
}

/// Top-1 accuracy over batches with a `label` target.
///
/// # Errors
/// Errors of running the model or reading the data.
pub fn evaluate(model: &Model, batches: impl Iterator<Item = Result<Batch, TrainError>>, mode: Mode) -> Result<Correct, TrainError> {
    let mut accuracy = Accuracy::of(model)?;
    measure(model, batches, mode, &mut accuracy)?;
    Ok(accuracy.score)
}
