//! An encoding with its settings read: what executor, lowering and lifting use.
use crate::{Decode, Result, Stored};
use graph::Encoding;
use std::collections::BTreeMap;
use std::fmt;
use tensor::{Activation, Tensor};

/// The tensors of an encoding, by name. They may be tracked by the tape, and change from step to step.
pub type Parameters = BTreeMap<String, Tensor>;

/// The settings of one annotation, read and checked once; its parameters are given to each call.
pub trait Codec: fmt::Debug + Send + Sync {
    /// The value as it will be read back from its stored form, differentiable by the value and by the parameters of
    /// [`Codec::trainable`] where they are tracked.
    ///
    /// # Errors
    /// If a parameter is missing or does not fit the value.
    fn simulate(&self, value: &Tensor, parameters: &Parameters) -> Result<Tensor>;

    /// [`Codec::simulate`] of an activation function of the value, in one pass over memory where the encoding supports it.
    ///
    /// # Errors
    /// As [`Codec::simulate`].
    fn simulate_activated(&self, value: &Tensor, activation: Activation, parameters: &Parameters) -> Result<Tensor>;

    /// The stored form. Reading it back gives [`Codec::simulate`]'s result to the bit.
    ///
    /// # Errors
    /// As [`Codec::simulate`]; also for NaN, which has no stored form.
    fn store(&self, value: &Tensor, parameters: &Parameters) -> Result<Stored>;

    /// How stored data decode.
    ///
    /// # Errors
    /// If a parameter is missing or not well formed.
    fn decode(&self, parameters: &Parameters) -> Result<Decode>;

    /// The f32 value that stored data stand for.
    ///
    /// # Errors
    /// If a parameter does not fit, or the data are not of the stored type.
    fn read(&self, data: &Tensor, parameters: &Parameters) -> Result<Tensor>;

    /// How a value is stored, in a few words: `int8 per channel`.
    fn describe(&self, parameters: &Parameters) -> String;

    /// Names of the parameters that may be learned.
    fn trainable(&self, parameters: &Parameters) -> &'static [&'static str];

    /// A learned parameter that a step took from `before` to `after`, projected onto its valid range.
    ///
    /// # Errors
    /// If the two do not have one shape.
    fn project(&self, _parameter: &str, _before: &Tensor, after: Tensor) -> Result<Tensor> {
        Ok(after)
    }

    /// True if zero is stored exactly, as masked elements must be.
    fn keeps_zero(&self, _parameters: &Parameters) -> bool {
        true
    }

    /// True if [`Codec::follow`] may return parameters.
    fn follows(&self) -> bool {
        false
    }

    /// The parameters of a masked weight that are derived from it, or from the training's progress (`progress`, 0 to 1), and are
    /// to be set before each step; `None` if there are none. Trained parameters stay as they are.
    ///
    /// # Errors
    /// For a weight that is not finite.
    fn follow(&self, _weight: &Tensor, _mask: Option<&Tensor>, _progress: f64, _parameters: &Parameters) -> Result<Option<Parameters>> {
        Ok(None)
    }

    /// The parameters of an activation that follow from the training's progress (`progress`, 0 to 1) alone, to be set before each step.
    fn advance(&self, _progress: f64) -> Option<Parameters> {
        None
    }

    /// The parameters in the form in which they are stored, after a training that learned them in another, and whether a weight in that
    /// form is to be replaced by what it was simulated as; `None` if they are in the stored form already.
    ///
    /// # Errors
    /// If a parameter is missing or not well formed.
    fn settle(&self, _parameters: &Parameters) -> Result<Option<(Parameters, bool)>> {
        Ok(None)
    }

    /// The encoding with the same settings, fitted again to a masked weight after training or pruning.
    ///
    /// # Errors
    /// For a weight that is not finite.
    fn refit(&self, weight: &Tensor, mask: Option<&Tensor>, parameters: &Parameters) -> Result<Encoding>;
}
