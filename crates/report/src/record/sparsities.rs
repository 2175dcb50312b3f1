//! What each layer's sparsity does to a network, and the shares that were chosen by it.
use super::{MetricRecord, decibels};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What each layer alone does to the network at each sparsity, everything else as it is. As JSON it can be edited and used in place of a
/// measurement: `noise` and `loss` are what a choice goes by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneSensitivityRecord {
    /// [`super::SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// What was measured: a recipe's name.
    pub name: String,
    /// Criterion and granularity: `magnitude`, `magnitude, granularity filter`.
    pub by: String,
    /// Number of samples.
    pub samples: u64,
    /// Which samples, as the end of a sentence: `validation samples`.
    pub taken_from: String,
    /// The metric of `metric`, if the samples have targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MetricRecord>,
    /// Mean loss of the network as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_loss: Option<f64>,
    /// Metric of the network as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_metric: Option<f64>,
    /// The weights, in the order of the graph's values.
    pub layers: Vec<PrunedLayer>,
    /// Weights that stay dense, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dense: Vec<(String, String)>,
}

/// One weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrunedLayer {
    /// Its name.
    pub weight: String,
    /// Elements that the sparsity is a share of.
    pub elements: u64,
    /// What each sparsity does, by rising sparsity.
    pub sparsities: Vec<SparsityEffect>,
}

/// What a sparsity does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparsityEffect {
    /// Share of the weight's elements that are zero.
    pub sparsity: f64,
    /// Power of the change of the outputs over that of the outputs: 0.01 is a signal to noise of 20 dB.
    pub noise: f64,
    /// Mean loss, if the samples have targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// The metric, if the samples have targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
}

impl SparsityEffect {
    /// Signal to noise of the outputs in decibels; `None` where they do not change.
    pub fn sqnr_db(&self) -> Option<f64> {
        decibels(self.noise)
    }
}

impl PruneSensitivityRecord {
    /// The sparsities that were measured, in rising order.
    pub fn sparsities(&self) -> Vec<f64> {
        let mut all: Vec<f64> = self.layers.iter().flat_map(|l| l.sparsities.iter().map(|s| s.sparsity)).collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        all
    }

    /// Reads a table from a JSON file.
    ///
    /// # Errors
    /// If it cannot be read or is no such table, as the end of a message.
    pub fn load(path: &Path) -> Result<PruneSensitivityRecord, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))?;
        serde_json::from_str(&text).map_err(|e| format!("is no table of sensitivities to pruning: {e}"))
    }

    /// The table as CSV, one line for each weight and sparsity.
    pub fn to_csv(&self) -> String {
        let mut out = String::from("weight,elements,sparsity,noise,sqnr_db,loss,metric\n");
        let number = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
        for layer in &self.layers {
            for s in &layer.sparsities {
                let name = crate::text::line(&layer.weight).replace('"', "\"\"");
                let (db, loss, metric) = (number(s.sqnr_db()), number(s.loss), number(s.metric));
                out += &format!("\"{name}\",{},{},{},{db},{loss},{metric}\n", layer.elements, s.sparsity, s.noise);
            }
        }
        out
    }
}

/// The share of each layer that was chosen for a sparsity of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SharesRecord {
    /// The sparsity asked for.
    pub sparsity: f64,
    /// What the shares were chosen by.
    pub sensitivity: PruneSensitivityRecord,
    /// The share of each layer.
    pub chosen: Vec<f64>,
}
