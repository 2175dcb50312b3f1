//! Ternary: each weight is `-s`, zero or `+s` (Li, Zhang and Liu 2016, arXiv:1605.04711), or `-n`, zero or `+p` with two learned
//! scales (Zhu et al. 2017, arXiv:1612.01064).
//!
//! With `scales = "weights"` threshold and scale follow from the weight before each step, and the gradient passes straight
//! through. With `scales = "learned"` the threshold alone follows, and the scales are trained.
mod form;
#[cfg(test)]
mod tests;

use crate::levels::{LevelCodec, Leveled, no_groups};
use crate::{Codec, Granularity, Result, Slot, WeightEncoding};
use form::Form;
use graph::{Encoding, Setting};
use std::collections::BTreeMap;
use std::sync::Arc;
use technique::{Fault, Settings, within};
use tensor::Tensor;

/// The encoding's name.
pub const KIND: &str = "ternary";

/// Where the scales come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scales {
    /// The mean magnitude of the weights above the threshold, computed anew before each step.
    #[default]
    Weights,
    /// Two parameters, one for positive and one for negative weights, trained where the stage has learn_scales = true.
    Learned,
}

/// Which weights become zero: those with a magnitude up to a threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// The threshold and scale of least squared error.
    #[default]
    Optimal,
    /// The threshold is this factor times the mean magnitude; the paper on ternary weights takes 0.7.
    Mean(f64),
    /// The threshold is this factor times the largest magnitude; the paper on learned scales takes 0.05.
    Max(f64),
}

/// Weights of three values.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ternary {
    /// What shares threshold and scales: "channel" (each output channel) or "tensor".
    pub granularity: Granularity,
    /// Where the scales come from: "weights" or "learned".
    pub scales: Scales,
    /// Which weights become zero: "optimal", { mean = 0.7 } or { max = 0.05 }.
    pub threshold: Threshold,
}

impl Default for Ternary {
    fn default() -> Self {
        Ternary { granularity: Granularity::Channel, scales: Scales::Weights, threshold: Threshold::Optimal }
    }
}

impl Settings for Ternary {
    fn check(&self) -> Result<(), Fault> {
        no_groups(KIND, self.granularity)?;
        match self.threshold {
            Threshold::Optimal => Ok(()),
            Threshold::Mean(of) => within("threshold.mean", of, 0.0, 2.0, "above it few weights are left"),
            Threshold::Max(of) => within("threshold.max", of, 0.0, 0.95, "above it no weight is left"),
        }
    }
}

impl Ternary {
    fn form(&self, axis: Option<usize>) -> Form {
        let axis = axis.filter(|_| self.granularity == Granularity::Channel);
        Form { axis, learned: self.scales == Scales::Learned, threshold: self.threshold }
    }
}

impl WeightEncoding for Ternary {
    fn bits(&self) -> u32 {
        2
    }

    fn granularity(&self) -> Granularity {
        self.granularity
    }

    fn fit(&self, weight: &Tensor, slot: Slot) -> Result<Encoding> {
        let form = self.form(slot.axis);
        Ok(form.encoding(form.fitted(weight, slot.mask, None)?))
    }

    fn open(&self, settings: &BTreeMap<String, Setting>) -> Result<Arc<dyn Codec>> {
        Ok(LevelCodec(Form::of(settings)?).shared())
    }
}
