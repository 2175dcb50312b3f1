//! How to quantize: the types that recipes read.
use crate::Corrections;
use crate::observer::Observers;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Choice, Fault, within};

/// Settings of uniform quantization.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizeSettings {
    /// How weights are stored.
    pub weights: WeightSettings,
    /// How activations are stored.
    pub activations: ActivationSettings,
    /// How ranges of activations are found. `auto` needs data held back: [`crate::choose`] gives the observer to take in its place.
    pub observer: Choice<Observers>,
    /// Scales of so few significant bits that the sums of a layer are exact, and the deployed file computes the simulation
    /// to the bit. `false`: scales of full precision, which cost least error; sums may then differ in their last places.
    pub exact: bool,
    /// Patterns of names of nodes that stay float; `*` stands for any run of characters.
    pub skip: Vec<String>,
    /// What the model will be deployed for: which operators run on integers, and in which form.
    pub target: target::Choice,
    /// What is corrected without training: within each phase in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub corrections: Vec<Choice<Corrections>>,
}

impl Default for QuantizeSettings {
    /// 8 bits, ranges from the smallest and largest value seen.
    fn default() -> Self {
        QuantizeSettings {
            weights: WeightSettings::default(),
            activations: ActivationSettings::default(),
            observer: Choice::known("min_max"),
            exact: true,
            skip: vec![],
            target: target::Choice::default(),
            corrections: vec![],
        }
    }
}

/// How weights are stored: signed and symmetric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WeightSettings {
    /// Bits a weight, 2..8.
    pub bits: u32,
    /// A scale for each output channel instead of one for the tensor.
    pub per_channel: bool,
    /// One bit less in the range: products of two 8-bit numbers then cannot saturate on processors without VNNI.
    pub reduce_range: bool,
    /// Bits in the first and the last layer with a weight, which suffer most, 2..8; absent: `bits`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_bits: Option<u32>,
}

impl Default for WeightSettings {
    fn default() -> Self {
        WeightSettings { bits: 8, per_channel: true, reduce_range: false, edge_bits: None }
    }
}

/// How activations are stored: unsigned and asymmetric, one scale a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ActivationSettings {
    /// Bits an activation, 2..16.
    pub bits: u32,
}

impl Default for ActivationSettings {
    fn default() -> Self {
        ActivationSettings { bits: 8 }
    }
}

impl QuantizeSettings {
    /// Checks the ranges of all settings. What observers and corrections say of theirs was checked when they were read.
    ///
    /// # Errors
    /// A [`Fault`] at the setting.
    pub fn check(&self) -> Result<(), Fault> {
        let w = &self.weights;
        within("weights.bits", f64::from(w.bits), 2.0, 8.0, "bits of a weight")?;
        if let Some(bits) = w.edge_bits {
            within("weights.edge_bits", f64::from(bits), 2.0, 8.0, "bits of a weight")?;
        }
        within("activations.bits", f64::from(self.activations.bits), 2.0, 16.0, "bits of an activation")?;
        if w.reduce_range && w.bits < 3 {
            return Err(Fault::new("weights.reduce_range", format!("reduce_range leaves too little of {} bits", w.bits)));
        }
        Ok(())
    }
}
