//! Binary: each weight is `-s` or `+s`, with the mean magnitude as scale (Rastegari et al. 2016, arXiv:1603.05279, equation 6).
//!
//! Scale and, with `estimator = "ir_net"`, centre follow from the weight before each step. There is no zero, so a weight with a
//! mask is refused. Activations have two levels, too: see [`fit_activation`].
mod activation;
mod form;
#[cfg(test)]
mod tests;

pub use activation::{ActivationEstimator, activation_levels, fit_activation, read_activation};

use crate::levels::{LevelCodec, Leveled, no_groups};
use crate::{Codec, EncodingError, Granularity, Result, Slot, WeightEncoding};
use form::Form;
use graph::{Encoding, Setting};
use std::collections::BTreeMap;
use std::sync::Arc;
use technique::{Fault, Settings};
use tensor::Tensor;

/// The encoding's name.
pub const KIND: &str = "binary";

/// The estimator that replaces the gradient of the sign, which is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// Straight through: 1 within [-1, 1], zero outside.
    #[default]
    StraightThrough,
    /// IR-Net's: weights are centred and standardized, and the gradient is that of a hyperbolic tangent that grows from nearly
    /// linear to nearly the sign over the training.
    IrNet,
}

/// Weights of two values.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Binary {
    /// What shares a scale: "channel" (each output channel) or "tensor".
    pub granularity: Granularity,
    /// The gradient of the sign: "straight_through" or "ir_net".
    pub estimator: Estimator,
}

impl Default for Binary {
    fn default() -> Self {
        Binary { granularity: Granularity::Channel, estimator: Estimator::StraightThrough }
    }
}

impl Settings for Binary {
    fn check(&self) -> Result<(), Fault> {
        no_groups(KIND, self.granularity)
    }
}

impl WeightEncoding for Binary {
    fn bits(&self) -> u32 {
        1
    }

    fn granularity(&self) -> Granularity {
        self.granularity
    }

    fn fit(&self, weight: &Tensor, slot: Slot) -> Result<Encoding> {
        let axis = slot.axis.filter(|_| self.granularity == Granularity::Channel);
        let form = Form { axis, estimator: self.estimator };
        if slot.mask.is_some() {
            return Err(EncodingError::NoZero { how: form.describe() });
        }
        Ok(form.encoding(form.fitted(weight, None, None)?))
    }

    fn open(&self, settings: &BTreeMap<String, Setting>) -> Result<Arc<dyn Codec>> {
        if activation::Levels::are_in(settings) {
            return Ok(Arc::new(activation::Levels::of(settings)?));
        }
        Ok(LevelCodec(Form::of(settings)?).shared())
    }
}
