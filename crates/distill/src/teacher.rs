//! The teacher: a frozen model that is run on the student's batches.
use graph::{Model, ValueId};
use std::collections::HashMap;
use tensor::Tensor;
use train::{Batch, Executor, Mode, Named, Overrides, TrainError};

/// A model that only answers. It is neither trained nor changed.
pub struct Teacher<'m> {
    executor: Executor<'m>,
    inputs: Vec<String>,
    mode: Mode,
}

impl<'m> Teacher<'m> {
    /// A teacher of which the values `taps` are wanted. In `mode` [`Mode::FLOAT`] its annotations are ignored.
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn new(model: &'m Model, taps: &[ValueId], mode: Mode) -> Result<Self, TrainError> {
        let inputs = model.free_inputs().iter().map(|v| model.values[*v].name.clone()).collect();
        Ok(Teacher { executor: Executor::with_taps(model, taps)?, inputs, mode })
    }

    /// The taps' values for a batch. A teacher and a student with one input each need not agree on its name.
    ///
    /// # Errors
    /// Whatever running the teacher reports.
    pub fn observe(&self, batch: &Batch) -> Result<HashMap<ValueId, Tensor>, TrainError> {
        let mut inputs: Named = batch.inputs.iter().map(|(name, t)| (name.clone(), t.detach())).collect();
        if let ([wanted], 1) = (self.inputs.as_slice(), inputs.len())
            && !inputs.contains_key(wanted)
            && let Some((_, only)) = inputs.pop_first()
        {
            inputs.insert(wanted.clone(), only);
        }
        let inputs = inputs.into_iter().filter(|(name, _)| self.inputs.contains(name)).collect();
        Ok(self.executor.run_with(&inputs, &Overrides::default(), self.mode, None)?.values)
    }
}
