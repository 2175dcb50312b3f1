//! Powers of two: each weight is zero or plus or minus a power of two times a scale (Zhou et al. 2017, arXiv:1702.03044).
use crate::clipped::{Clipped, LevelSet};
use crate::levels::{LevelCodec, Leveled, no_groups};
use crate::{Codec, Granularity, Result, Slot, WeightEncoding};
use graph::{Encoding, Setting};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use technique::{Fault, Settings, within};
use tensor::Tensor;

/// The encoding's name.
pub const KIND: &str = "power_of_two";

/// Weights as powers of two.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PowerOfTwo {
    /// Bits a weight, 2 to 5: zero and 2^(bits - 1) - 1 powers of either sign.
    pub bits: u32,
    /// What shares a scale: "channel" (each output channel) or "tensor".
    pub granularity: Granularity,
    /// The scale is a power of two as well, and is not trained: then every weight is one, before a BatchNormalization is folded in.
    pub power_of_two_scale: bool,
}

impl Default for PowerOfTwo {
    fn default() -> Self {
        PowerOfTwo { bits: 4, granularity: Granularity::Channel, power_of_two_scale: false }
    }
}

/// The set of levels: 0, and 2^-k for k from 2^(bits - 1) - 2 down to 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Powers;

impl LevelSet for Powers {
    const KIND: &'static str = KIND;
    const WORDS: &'static str = "powers of two";

    fn magnitudes(bits: u32) -> Vec<f64> {
        let powers = (1i32 << (bits - 1)) - 1;
        std::iter::once(0.0).chain((0..powers).rev().map(|k| 2f64.powi(-k))).collect()
    }
}

/// Checks what encodings on a fixed set of levels have in common.
pub(crate) fn check(kind: &str, bits: u32, granularity: Granularity) -> Result<(), Fault> {
    within("bits", f64::from(bits), 2.0, 5.0, "more would add powers too small to matter")?;
    no_groups(kind, granularity)
}

impl Settings for PowerOfTwo {
    fn check(&self) -> Result<(), Fault> {
        check(KIND, self.bits, self.granularity)
    }
}

impl WeightEncoding for PowerOfTwo {
    fn bits(&self) -> u32 {
        self.bits
    }

    fn granularity(&self) -> Granularity {
        self.granularity
    }

    fn fit(&self, weight: &Tensor, slot: Slot) -> Result<Encoding> {
        let axis = slot.axis.filter(|_| self.granularity == Granularity::Channel);
        let (bits, shifts) = (self.bits, self.power_of_two_scale);
        let form = Clipped::<Powers> { bits, axis, normalize: false, shifts, set: PhantomData };
        Ok(form.encoding(form.fitted(weight, slot.mask, None)?))
    }

    fn open(&self, settings: &BTreeMap<String, Setting>) -> Result<Arc<dyn Codec>> {
        Ok(LevelCodec(Clipped::<Powers>::of(settings)?).shared())
    }
}
