//! Why a quantized network is worse than the float one, and what to try.
use super::{MetricRecord, decibels};
use serde::{Deserialize, Serialize};

/// What was found out about the quantized network of one stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiagnosisRecord {
    /// [`super::SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The recipe's name.
    pub name: String,
    /// The quantize stage.
    pub stage: String,
    /// Number of samples.
    pub samples: u64,
    /// Which samples, as the end of a sentence.
    pub taken_from: String,
    /// The metric of `metric`, if the samples have targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MetricRecord>,
    /// The float network.
    pub float: EffectRecord,
    /// The quantized network.
    pub quantized: EffectRecord,
    /// Sentences on what was compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The layers, in the order of the graph.
    pub layers: Vec<LayerErrorRecord>,
    /// What to try, the most promising first.
    pub suggestions: Vec<SuggestionRecord>,
    /// What came of trying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<FixRecord>,
}

/// What a network does on the samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EffectRecord {
    /// Power of the change of the outputs over that of the float outputs: 0.01 is a signal to noise of 20 dB.
    pub noise: f64,
    /// Mean loss, if the samples have targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// The metric, if the samples have targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
}

impl EffectRecord {
    /// Signal to noise of the outputs in decibels; `None` where they do not change.
    pub fn sqnr_db(&self) -> Option<f64> {
        decibels(self.noise)
    }
}

/// The error of one layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerErrorRecord {
    /// Name of the node.
    pub layer: String,
    /// Its operator.
    pub op: String,
    /// How its weights are stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<String>,
    /// How its data are stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<String>,
    /// Signal to noise of its result in the quantized network, in dB; absent: no difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_db: Option<f64>,
    /// The same where this layer alone is quantized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone_db: Option<f64>,
    /// Shares of its own error by cause, which add up to 1. One below 0 works against the others.
    pub causes: CauseRecord,
    /// What sums that saturate at 16 bits (x86 with AVX2 alone) take from its result, squared, over its own squared error, which does not
    /// have it; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saturated: Option<f64>,
    /// What the network does with this layer alone quantized.
    pub alone: EffectRecord,
    /// Its share of the changes of the outputs that all layers, each alone, make in sum.
    pub share: f64,
}

/// Shares of a layer's error by cause.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CauseRecord {
    /// Data beyond the ends of their grid.
    pub data_clipped: f64,
    /// Data rounded to the steps of their grid.
    pub data_rounded: f64,
    /// Weights beyond the ends of their grid.
    pub weights_clipped: f64,
    /// Weights rounded to their levels.
    pub weights_rounded: f64,
    /// The mean of the error in each channel, whatever its cause.
    pub shift: f64,
}

/// Something to try.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SuggestionRecord {
    /// The line to write into the quantize stage.
    pub line: String,
    /// Why, as a sentence.
    pub why: String,
    /// The share of the changes of the outputs that it should take away; absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<f64>,
    /// What came of it, if it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<TrialRecord>,
}

/// What came of a suggestion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrialRecord {
    /// The network with it, and with what was kept before; absent where it could not be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<EffectRecord>,
    /// Whether it is kept.
    pub kept: bool,
    /// Why it could not be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// What came of all that were tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FixRecord {
    /// The network as the stage calibrates it now, without epochs.
    pub before: EffectRecord,
    /// The network with what is kept.
    pub after: EffectRecord,
    /// How many were tried.
    pub tried: usize,
    /// The settings that are kept, as `--set` takes them.
    pub kept: Vec<String>,
}

impl DiagnosisRecord {
    /// The table of layers as CSV, one line for each.
    pub fn to_csv(&self) -> String {
        let mut out = String::from(
            "layer,op,weights,data,path_db,alone_db,data_clipped,data_rounded,weights_clipped,weights_rounded,shift,saturated,noise,share,loss,metric\n",
        );
        let number = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
        let quoted = |text: &str| format!("\"{}\"", crate::text::line(text).replace('"', "\"\""));
        for l in &self.layers {
            let c = &l.causes;
            let names = [&l.layer, &l.op, &l.weights.join(", "), &l.data.join(", ")].map(|text| quoted(text));
            let causes = [c.data_clipped, c.data_rounded, c.weights_clipped, c.weights_rounded, c.shift].map(|v| v.to_string());
            let alone = [Some(l.alone.noise), Some(l.share), l.alone.loss, l.alone.metric].map(number);
            let cells = names.into_iter().chain([number(l.path_db), number(l.alone_db)]).chain(causes);
            let cells = cells.chain([number(l.saturated)]).chain(alone);
            out += &(cells.collect::<Vec<_>>().join(",") + "\n");
        }
        out
    }
}
