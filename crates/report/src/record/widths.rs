//! What each layer's width does to a network, and the widths that were chosen for a budget.
use super::{MetricRecord, decibels};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What each layer alone does to the network at each width, everything else in float. As JSON it can be edited and used in place of a
/// measurement: a width that is removed cannot be chosen, and `noise` and `loss` are what a choice goes by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensitivityRecord {
    /// [`super::SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// What was measured: a recipe's name.
    pub name: String,
    /// Number of samples.
    pub samples: u64,
    /// Which samples, as the end of a sentence: `training samples held back from calibration`.
    pub taken_from: String,
    /// The metric of `metric`, if the samples have targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MetricRecord>,
    /// Mean loss of the float network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub float_loss: Option<f64>,
    /// Metric of the float network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub float_metric: Option<f64>,
    /// The groups of layers that must have one width, in the order of the graph.
    pub groups: Vec<GroupRecord>,
}

/// Layers that must have one width.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRecord {
    /// Names of the layers.
    pub layers: Vec<String>,
    /// Names of the nodes whose activations have the same width.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub activations: Vec<String>,
    /// Elements of the weights.
    pub elements: u64,
    /// Multiply-accumulates for one sample.
    pub macs: u64,
    /// What each width does.
    pub widths: Vec<WidthRecord>,
}

/// What a width does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WidthRecord {
    /// Bits.
    pub bits: u32,
    /// Power of the change of the outputs over that of the float outputs: 0.01 is a signal to noise of 20 dB.
    pub noise: f64,
    /// Mean loss, if the samples have targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// The metric, if the samples have targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
}

impl WidthRecord {
    /// Signal to noise of the outputs in decibels; `None` where they do not change.
    pub fn sqnr_db(&self) -> Option<f64> {
        decibels(self.noise)
    }
}

impl GroupRecord {
    /// The layers' names, as a cell of a table.
    pub fn name(&self) -> String {
        match self.layers.as_slice() {
            [first, _, _, ..] => format!("{first} and {} more", self.layers.len() - 1),
            few => few.join(", "),
        }
    }
}

impl SensitivityRecord {
    /// The widths that were measured, in rising order.
    pub fn widths(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.groups.iter().flat_map(|g| g.widths.iter().map(|w| w.bits)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Reads a table from a JSON file.
    ///
    /// # Errors
    /// If it cannot be read or is no such table, as the end of a message.
    pub fn load(path: &Path) -> Result<SensitivityRecord, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))?;
        serde_json::from_str(&text).map_err(|e| format!("is no table of sensitivities: {e}"))
    }

    /// The table as CSV, one line for each group and width.
    pub fn to_csv(&self) -> String {
        let mut out = String::from("layers,elements,macs,bits,noise,sqnr_db,loss,metric\n");
        let number = |v: Option<f64>| v.map_or(String::new(), |v| v.to_string());
        for group in &self.groups {
            for w in &group.widths {
                let name = crate::text::line(&group.layers.join(" ")).replace('"', "\"\"");
                let (db, loss, metric) = (number(w.sqnr_db()), number(w.loss), number(w.metric));
                out += &format!("\"{name}\",{},{},{},{},{db},{loss},{metric}\n", group.elements, group.macs, w.bits, w.noise);
            }
        }
        out
    }
}

/// The widths that were chosen for a budget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// The limits, and what the plan takes of each.
    pub limits: Vec<LimitRecord>,
    /// What the plan takes of everything that a limit may be set to: `2.98 bits a weight`, ...
    pub takes: Vec<String>,
    /// What it was chosen by.
    pub sensitivity: SensitivityRecord,
    /// The width of each group.
    pub chosen: Vec<u32>,
    /// The file with the plan as rules, relative to the run's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A limit, and what a plan takes of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitRecord {
    /// The limit as it was given: `3 bits`.
    pub limit: String,
    /// What the plan takes: `2.98 bits`.
    pub taken: String,
}
