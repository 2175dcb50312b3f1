//! How to quantize, as data.
use crate::{ActivationSettings, QuantizeError, Result, Rule};
use encodings::Encodings;
use technique::Choice;

/// Settings of uniform quantization.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizeSettings {
    /// How weights are stored.
    pub weights: Choice<Encodings>,
    /// How activations are stored.
    pub activations: ActivationSettings,
    /// How ranges of activations are found.
    pub observer: ObserverSettings,
    /// Scales are so short that the sums of a layer are exact in f32 and the file computes the simulation to the bit; `false`:
    /// scales of full precision, and sums may differ in their last places.
    pub exact: bool,
    /// Names of nodes that are left as they are; `*` stands for any run of characters. Each is a rule with `skip`.
    pub skip: Vec<String>,
    /// Rules for some of the layers, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

impl Default for QuantizeSettings {
    fn default() -> Self {
        QuantizeSettings {
            weights: Choice::default(),
            activations: ActivationSettings::default(),
            observer: ObserverSettings::default(),
            exact: true,
            skip: vec![],
            rules: vec![],
        }
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
        self.activations.check("activations.bits")?;
        self.check_rules()?;
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
