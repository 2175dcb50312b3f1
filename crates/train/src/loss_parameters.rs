//! Parameters of an objective: they train together with the model's, and are not part of the model.
use crate::{Batch, Objective, OptimizerState, TrainError};
use graph::ValueId;
use std::collections::{BTreeMap, HashMap};
use tensor::Tensor;

/// A trainable tensor of an objective: an adapter between a student's and a teacher's features, a loss' learned weight.
///
/// The trainer updates it with the model's optimizer (with a state of its own), counts its gradient in `clip_norm`, and keeps it
/// in checkpoints. Learned scales, `freeze`, masks and the written model do not include it.
#[derive(Clone, Debug, PartialEq)]
pub struct LossParameter {
    /// Its name, unique within the objective.
    pub name: String,
    /// Its initial elements: f32.
    pub value: Tensor,
    /// Whether weight decay applies: to weights, not to biases.
    pub decays: bool,
}

/// The parameters of an objective while it trains.
pub(crate) struct LossParameters {
    list: Vec<LossParameter>,
}

impl LossParameters {
    /// The initial parameters.
    pub(crate) fn of(objective: &dyn Objective) -> Self {
        LossParameters { list: objective.parameters() }
    }

    /// The objective with the present elements, which are leaves of the record.
    ///
    /// # Errors
    /// [`TrainError::Value`] for a parameter that is not of floats.
    pub(crate) fn track<'a>(&self, objective: &'a dyn Objective) -> Result<Bound<'a>, TrainError> {
        let leaf = |p: &LossParameter| p.value.tracked().map_err(|e| wrong(p, &e));
        Ok(Bound { objective, leaves: self.list.iter().map(leaf).collect::<Result<_, _>>()? })
    }

    /// One step of the optimizer, with gradients in the order of the parameters. `clip` scales gradients if it is below 1;
    /// `factor` is the schedule's.
    ///
    /// # Errors
    /// As [`OptimizerState::update`].
    pub(crate) fn update(
        &mut self,
        optimizer: &mut OptimizerState,
        gradients: impl Iterator<Item = Option<Tensor>>,
        clip: f64,
        factor: f64,
    ) -> Result<(), TrainError> {
        for (p, gradient) in self.list.iter_mut().zip(gradients) {
            let Some(mut gradient) = gradient else { continue };
            if clip < 1.0 {
                gradient = gradient.mul_scalar(clip).map_err(|e| wrong(p, &e))?;
            }
            // A name that no value of the model has.
            optimizer.update(&format!("objective:{}", p.name), p.decays, &mut p.value, &gradient, factor)?;
        }
        Ok(())
    }

    /// Their elements, for a checkpoint.
    pub(crate) fn state(&self) -> BTreeMap<String, Tensor> {
        self.list.iter().map(|p| (p.name.clone(), p.value.clone())).collect()
    }

    /// Restores the elements of a checkpoint.
    ///
    /// # Errors
    /// [`TrainError::Value`] for a parameter that is missing in it, or has another shape.
    pub(crate) fn restore(&mut self, mut state: BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        for p in &mut self.list {
            match state.remove(&p.name) {
                Some(t) if t.shape() == p.value.shape() => p.value = t,
                Some(t) => return Err(wrong(p, &format!("has shape {:?} in the checkpoint, {:?} here", t.shape(), p.value.shape()))),
                None => return Err(wrong(p, &"is not in the checkpoint")),
            }
        }
        Ok(())
    }
}

fn wrong(p: &LossParameter, what: &dyn std::fmt::Display) -> TrainError {
    TrainError::Value { value: format!("{} (of the loss)", p.name), what: what.to_string() }
}

/// An objective whose parameters have these elements.
pub(crate) struct Bound<'a> {
    objective: &'a dyn Objective,
    pub(crate) leaves: Vec<Tensor>,
}

impl Objective for Bound<'_> {
    fn taps(&self) -> Vec<ValueId> {
        self.objective.taps()
    }

    fn parameters(&self) -> Vec<LossParameter> {
        self.objective.parameters()
    }

    fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
        self.objective.loss_with(&self.leaves, values, batch)
    }

    fn correct(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Option<usize> {
        self.objective.correct(values, batch)
    }
}
