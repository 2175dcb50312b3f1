//! How to quantize, as data.
use crate::{QuantizeError, Result};

/// Settings of uniform quantization.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizeSettings {
    /// How weights are stored.
    pub weights: WeightSettings,
    /// How activations are stored.
    pub activations: ActivationSettings,
    /// How ranges of activations are found.
    pub observer: ObserverSettings,
    /// Scales are so short that the sums of a layer are exact in f32 and the file computes the simulation to the bit; `false`:
    /// scales of full precision, and sums may differ in their last places.
    pub exact: bool,
    /// Names of nodes that stay float; `*` stands for any run of characters.
    pub skip: Vec<String>,
    /// What the model will be deployed for: which operators run on integers, and in which form.
    pub target: target::Choice,
}

impl Default for QuantizeSettings {
    fn default() -> Self {
        QuantizeSettings {
            weights: WeightSettings::default(),
            activations: ActivationSettings::default(),
            observer: ObserverSettings::default(),
            exact: true,
            skip: vec![],
            target: target::Choice::default(),
        }
    }
}

/// How weights are stored: signed and symmetric.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WeightSettings {
    /// Width, 2 to 8.
    pub bits: u32,
    /// A scale for each output channel instead of one.
    pub per_channel: bool,
    /// One bit less in use, so that runtimes that add products of 8-bit integers in 16 bits do not saturate.
    pub reduce_range: bool,
    /// Width in the first and the last layer with a weight, which suffer most; absent: `bits`.
    pub edge_bits: Option<u32>,
}

impl Default for WeightSettings {
    fn default() -> Self {
        WeightSettings { bits: 8, per_channel: true, reduce_range: false, edge_bits: None }
    }
}

/// How activations are stored: unsigned and asymmetric, one scale a tensor.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ActivationSettings {
    /// Width, 2 to 16.
    pub bits: u32,
}

impl Default for ActivationSettings {
    fn default() -> Self {
        ActivationSettings { bits: 8 }
    }
}

/// How the range of an activation is found.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObserverSettings {
    /// Name of the observer.
    pub kind: String,
    /// For `percentile`: percent of the elements within the range, above 50.
    pub percentile: f64,
    /// For `moving_average`: weight of the past, 0..1.
    pub momentum: f64,
}

impl Default for ObserverSettings {
    fn default() -> Self {
        ObserverSettings { kind: "min_max".into(), percentile: 99.99, momentum: 0.9 }
    }
}

impl QuantizeSettings {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`QuantizeError::Setting`] by name.
    pub fn check(&self) -> Result<()> {
        let refuse = |setting, what| Err(QuantizeError::Setting { setting, what });
        let widths = [("weights.bits", Some(self.weights.bits), 8), ("weights.edge_bits", self.weights.edge_bits, 8)];
        for (setting, bits, most) in widths.into_iter().chain([("activations.bits", Some(self.activations.bits), 16)]) {
            if let Some(bits) = bits.filter(|b| !(2..=most).contains(b)) {
                return refuse(setting, format!("is {bits}; 2 to {most} are possible"));
            }
        }
        if self.weights.reduce_range && self.weights.bits < 3 {
            return refuse("weights.reduce_range", format!("leaves too little of {} bits", self.weights.bits));
        }
        let o = &self.observer;
        if !(o.percentile > 50.0 && o.percentile <= 100.0) {
            return refuse("observer.percentile", format!("is {}; above 50 and at most 100 is possible", o.percentile));
        }
        if !(0.0..1.0).contains(&o.momentum) {
            return refuse("observer.momentum", format!("is {}; at least 0 and below 1 is possible", o.momentum));
        }
        Ok(())
    }
}
