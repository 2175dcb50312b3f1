//! The affine encoding as recipes choose it for weights.
use super::{AffineSettings, KIND, fit_weight};
use crate::{Codec, Granularity, Result, Slot, WeightEncoding};
use graph::{Encoding, Setting};
use std::collections::BTreeMap;
use std::sync::Arc;
use technique::{Fault, Settings, within};
use tensor::Tensor;

/// Weights as uniform integers: signed and symmetric.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Affine {
    /// Bits a weight, 2 to 8.
    pub bits: u32,
    /// What shares a scale: "channel" (each output channel; the default) or "tensor".
    pub granularity: Option<Granularity>,
    /// Uses one bit less: products of two 8-bit numbers then cannot saturate on processors without VNNI.
    pub reduce_range: bool,
    /// The older name of granularity: true is "channel", false is "tensor".
    pub per_channel: Option<bool>,
}

impl Default for Affine {
    fn default() -> Self {
        Affine { bits: 8, granularity: None, reduce_range: false, per_channel: None }
    }
}

impl Settings for Affine {
    fn check(&self) -> Result<(), Fault> {
        within("bits", f64::from(self.bits), 2.0, 8.0, "integer kernels take weights of at most 8 bits")?;
        if self.reduce_range && self.bits < 3 {
            return Err(Fault::new("reduce_range", format!("reduce_range leaves too little of {} bits", self.bits)));
        }
        if let Some(Granularity::Group(_)) = self.granularity {
            let fault = Fault::new("granularity", format!("encoding '{KIND}' has no groups of channels"));
            return Err(fault.hint("write granularity = \"channel\" or \"tensor\""));
        }
        match (self.granularity, self.per_channel) {
            (Some(_), Some(_)) => {
                Err(Fault::new("per_channel", "granularity and per_channel are both given").hint("leave per_channel out"))
            }
            _ => Ok(()),
        }
    }
}

impl WeightEncoding for Affine {
    fn bits(&self) -> u32 {
        self.bits
    }

    fn granularity(&self) -> Granularity {
        match (self.granularity, self.per_channel) {
            (Some(granularity), _) => granularity,
            (None, Some(false)) => Granularity::Tensor,
            (None, _) => Granularity::Channel,
        }
    }

    fn grid(&self, axis: Option<usize>) -> Option<AffineSettings> {
        let axis = axis.filter(|_| self.granularity() != Granularity::Tensor);
        Some(AffineSettings { reduce_range: self.reduce_range, ..AffineSettings::weight(self.bits, axis) })
    }

    fn fit(&self, weight: &Tensor, slot: Slot) -> Result<Encoding> {
        let axis = slot.axis.filter(|_| self.granularity() != Granularity::Tensor);
        let settings = AffineSettings { reduce_range: self.reduce_range, ..AffineSettings::weight(self.bits, axis) };
        fit_weight(weight, &settings, slot.precision, slot.evenness)
    }

    fn open(&self, settings: &BTreeMap<String, Setting>) -> Result<Arc<dyn Codec>> {
        Ok(Arc::new(AffineSettings::read(settings)?))
    }
}
