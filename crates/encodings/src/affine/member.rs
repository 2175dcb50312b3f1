//! The affine encoding as recipes choose it for weights.
use super::{AffineSettings, Blocks, KIND, fit_weight};
use crate::{Codec, EncodingError, Granularity, Result, Slot, WeightEncoding};
use graph::{Encoding, Setting};
use std::collections::BTreeMap;
use std::sync::Arc;
use technique::{Fault, Settings, within};
use tensor::Tensor;

/// Weights as uniform integers: signed and symmetric.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Affine {
    /// Bits a weight, 2 to 16. Integer kernels take at most 8; with more the layer computes in float.
    pub bits: u32,
    /// What shares a scale: "channel" (each output channel; the default), "tensor", or { group = N } for N elements in a row that the layer
    /// multiplies with its data and sums up (the layer then computes in float).
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
        within("bits", f64::from(self.bits), 2.0, 16.0, "files store integers of 2 to 16 bits")?;
        if self.reduce_range && self.bits < 3 {
            return Err(Fault::new("reduce_range", format!("reduce_range leaves too little of {} bits", self.bits)));
        }
        if self.granularity == Some(Granularity::Group(0)) {
            return Err(Fault::new("granularity.group", "group = 0: at least one element has a scale"));
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
        // No kernel sums up products of integers whose scale changes on the way.
        if let Granularity::Group(_) = self.granularity() {
            return None;
        }
        let axis = axis.filter(|_| self.granularity() != Granularity::Tensor);
        Some(AffineSettings { reduce_range: self.reduce_range, ..AffineSettings::weight(self.bits, axis) })
    }

    fn fit(&self, weight: &Tensor, slot: Slot) -> Result<Encoding> {
        let (axis, blocks) = match self.granularity() {
            Granularity::Tensor => (None, None),
            Granularity::Channel => (slot.axis, None),
            Granularity::Group(size) => {
                let what = "what reads it does not sum up its elements along one axis, so they have no groups: write granularity = \"channel\" for it in a rule";
                let along = slot.along.ok_or_else(|| EncodingError::Value { kind: KIND, what: what.into() })?;
                // No longer than what there is.
                let size = Blocks { along, size }.layout(weight.shape())?.size;
                (None, Some(Blocks { along, size }))
            }
        };
        let settings = AffineSettings { reduce_range: self.reduce_range, blocks, ..AffineSettings::weight(self.bits, axis) };
        fit_weight(weight, &settings, slot.precision, slot.evenness)
    }

    fn open(&self, settings: &BTreeMap<String, Setting>) -> Result<Arc<dyn Codec>> {
        Ok(Arc::new(AffineSettings::read(settings)?))
    }
}
