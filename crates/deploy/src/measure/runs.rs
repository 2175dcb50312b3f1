//! Anything that computes a model's outputs.
use crate::Result;
use crate::runtime::Session;
use std::collections::BTreeMap;
use tensor::Tensor;
use train::{Executor, Mode};

/// Anything that computes a model's outputs: a session of a runtime, or an executor in some mode.
pub trait Runs {
    /// Named outputs of named inputs.
    ///
    /// # Errors
    /// Whatever the run reports.
    fn outputs_of(&mut self, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>>;
}

impl Runs for Box<dyn Session> {
    fn outputs_of(&mut self, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        self.run(inputs)
    }
}

impl Runs for (&Executor<'_>, Mode) {
    fn outputs_of(&mut self, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        Ok(self.0.run(inputs, self.1)?)
    }
}
