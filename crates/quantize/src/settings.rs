//! Settings of quantization in a recipe.
use crate::observer::Observers;
use crate::{ActivationSettings, Corrections, Rule};
use encodings::Encodings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Choice, Fault};

/// Settings of uniform quantization.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizeSettings {
    /// How weights are stored.
    pub weights: Choice<Encodings>,
    /// How activations are stored.
    pub activations: ActivationSettings,
    /// Also stores the weights of operators that compute in float: W and R of LSTM, GRU and RNN with a scale for each row of a gate,
    /// tables of embeddings with one for each row. What they store follows from `weights` and the rules.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub weight_only: bool,
    /// The observer for ranges of activations. `auto` needs held-back data: [`crate::choose`] returns the observer to use in its
    /// place.
    pub observer: Choice<Observers>,
    /// Uses scales with so few significant bits that the sums of a layer are exact, and the deployed file computes the simulation
    /// to the bit. `false`: scales of full precision, with the least error; sums may then differ in their last places.
    pub exact: bool,
    /// Gives 8-bit weights scales with which no sum saturates on x86 processors without VNNI.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub processor_safe: bool,
    /// Patterns of names of nodes to skip; `*` stands for any characters. Each is a rule with `skip`.
    pub skip: Vec<String>,
    /// Rules for some of the layers, in order; of those that apply to a layer the last one decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// The target of the deployment: which operators run on integers, and in which form.
    pub target: target::Choice,
    /// Corrections without training, in this order within each phase.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub corrections: Vec<Choice<Corrections>>,
}

impl Default for QuantizeSettings {
    /// 8 bits, ranges from the smallest and largest value seen.
    fn default() -> Self {
        QuantizeSettings {
            weights: Choice::default(),
            activations: ActivationSettings::default(),
            weight_only: false,
            observer: Choice::known("min_max"),
            exact: true,
            processor_safe: false,
            skip: vec![],
            rules: vec![],
            target: target::Choice::default(),
            corrections: vec![],
        }
    }
}

impl QuantizeSettings {
    /// Checks the ranges of all settings. Observers and corrections checked theirs when they were read.
    ///
    /// # Errors
    /// A [`Fault`] at the setting.
    pub fn check(&self) -> Result<(), Fault> {
        self.activations.check().map_err(|fault| fault.under("activations"))?;
        self.check_rules()
    }
}
