//! Sums of powers of two (APoT; Li, Dong and Wang 2020, arXiv:1909.13144): levels that are dense near zero and, unlike powers of two
//! alone, not sparse at the ends.
use crate::clipped::{Clipped, LevelSet};
use crate::levels::{LevelCodec, Leveled};
use crate::power_of_two::check;
use crate::{Codec, EncodingError, Granularity, Result, Slot, WeightEncoding};
use graph::{Encoding, Setting};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use technique::{Fault, Settings};
use tensor::Tensor;

/// The encoding's name.
pub const KIND: &str = "additive_power_of_two";

/// Weights as sums of powers of two.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdditivePowerOfTwo {
    /// Bits a weight, 2 to 5: a sign, and 2^(bits - 1) magnitudes.
    pub bits: u32,
    /// What shares a scale: "channel" (each output channel) or "tensor", as the paper has it.
    pub granularity: Granularity,
    /// Centre the weight and divide it by its standard deviation before it is clipped (the paper's equation 8). There is no exact zero
    /// then, so weights with a mask are refused.
    pub normalize: bool,
}

impl Default for AdditivePowerOfTwo {
    fn default() -> Self {
        AdditivePowerOfTwo { bits: 4, granularity: Granularity::Channel, normalize: false }
    }
}

/// The set of levels, equation 5: all sums of one term of each of `n` lists, divided by the largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sums;

impl LevelSet for Sums {
    const KIND: &'static str = KIND;
    const WORDS: &'static str = "sums of powers of two";

    fn magnitudes(bits: u32) -> Vec<f64> {
        // Exponents of the lists beside zero: lists of three powers, `n` apart; an odd width adds a list of one.
        let lists: &[&[i32]] = match bits {
            ..=2 => &[&[1]],
            3 => &[&[1, 2, 3]],
            4 => &[&[1, 2, 4], &[3]],
            _ => &[&[1, 3, 5], &[2, 4, 6]],
        };
        let mut sums = vec![0f64];
        for list in lists {
            let terms = || std::iter::once(0.0).chain(list.iter().map(|e| 2f64.powi(-e)));
            sums = sums.iter().flat_map(|s| terms().map(move |t| s + t)).collect();
        }
        sums.sort_by(f64::total_cmp);
        let largest = sums.last().copied().unwrap_or(1.0);
        sums.iter().map(|s| s / largest).collect()
    }
}

impl Settings for AdditivePowerOfTwo {
    fn check(&self) -> Result<(), Fault> {
        check(KIND, self.bits, self.granularity)
    }
}

impl WeightEncoding for AdditivePowerOfTwo {
    fn bits(&self) -> u32 {
        self.bits
    }

    fn granularity(&self) -> Granularity {
        self.granularity
    }

    fn fit(&self, weight: &Tensor, slot: Slot) -> Result<Encoding> {
        let axis = slot.axis.filter(|_| self.granularity == Granularity::Channel);
        let form = Clipped::<Sums> { bits: self.bits, axis, normalize: self.normalize, shifts: false, set: PhantomData };
        if slot.mask.is_some() && !form.keeps_zero() {
            return Err(EncodingError::NoZero { how: form.describe() });
        }
        Ok(form.encoding(form.fitted(weight, slot.mask, None)?))
    }

    fn open(&self, settings: &BTreeMap<String, Setting>) -> Result<Arc<dyn Codec>> {
        Ok(LevelCodec(Clipped::<Sums>::of(settings)?).shared())
    }
}
