//! The record of a deployed file and its runtimes.
use super::{figure, keep};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The deployed file, measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeployRecord {
    /// Path of the file, relative to the run's folder.
    pub file: String,
    /// BLAKE3 of the file, in hex.
    pub blake3: String,
    /// Its operator set.
    pub opset: i64,
    /// Accuracy of the simulation that the file was lowered from, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulation_accuracy: Option<f64>,
    /// Metrics of the simulation, for tasks other than classification.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub simulation_figures: BTreeMap<String, f64>,
    /// One entry for each runtime and arithmetic.
    #[serde(default)]
    pub runtimes: Vec<RuntimeRecord>,
    /// The model that the run began with, in the same runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<OriginalRecord>,
    /// Which nodes the runtime computes on integers and in float; absent if it does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementRecord>,
    /// Number of evenly chosen test samples that it was measured on; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen_images: Option<u64>,
    /// Output by output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputRecord>,
}

/// The model that a run began with, measured beside the deployed file, with runs of the two in turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OriginalRecord {
    /// Name of the stage that produced it, or `start`.
    pub stage: String,
    /// Size on disk in bytes, data files included; for a stage's result, the size of the float network alone.
    pub file_bytes: u64,
    /// Multiply-accumulate operations for one sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macs: Option<u64>,
    /// Latency of one sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Memory that loading and running it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Accuracy on the samples that the file was measured on, 0..1, if those are not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Metrics on those samples, for tasks other than classification.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

/// Nodes of the graph that a runtime makes of a file and runs, without nodes that only move elements.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlacementRecord {
    /// By operator.
    pub operators: BTreeMap<String, NodeCount>,
    /// Conversions between integers and float.
    pub conversions: u64,
}

/// Nodes of one operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCount {
    /// Nodes on integers.
    pub integer: u64,
    /// Nodes in float.
    pub float: u64,
}

/// An output of the deployed file compared with the float network's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OutputRecord {
    /// Name of the graph's output.
    pub name: String,
    /// Signal to noise in decibels, with the runtime's defaults; absent: equal, or not a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqnr_db: Option<f64>,
    /// The same in literal arithmetic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub literal_sqnr_db: Option<f64>,
    /// Samples with NaN in this output. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nan_samples: Option<u64>,
}

/// How a runtime computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// Operator by operator as ONNX defines them: graph optimizations off.
    #[default]
    Literal,
    /// The runtime's defaults, integer kernels included.
    Default,
}

/// The results of a file in one runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuntimeRecord {
    /// The runtime (`onnxruntime`, `reference`).
    pub runtime: String,
    /// Version of the runtime's library; absent where the runtime does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The arithmetic of the runtime.
    pub arithmetic: Arithmetic,
    /// Accuracy on the test set, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Metrics on the test set, for tasks other than classification.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
    /// Differences to the simulation's results, for tasks other than classification: `mean_difference` and `largest_difference`,
    /// in standard deviations of the targets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub differences: BTreeMap<String, f64>,
    /// Share of samples with the same class as the simulation, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Root mean square of its outputs' difference to the simulation's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rms_difference: Option<f64>,
    /// Latency of one sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Memory that loading and running the file takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

/// Latency of one sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median, in milliseconds.
    pub p50_ms: f64,
    /// 95th percentile, in milliseconds.
    pub p95_ms: f64,
    /// Timed runs.
    pub runs: usize,
    /// Threads of the runtime.
    pub threads: usize,
}

impl RuntimeRecord {
    /// A metric on the test set, by its key.
    pub fn figure(&self, key: &str) -> Option<f64> {
        figure(key, self.accuracy, &self.figures)
    }

    /// Stores metrics on the test set.
    pub fn keep(&mut self, new: &BTreeMap<&'static str, f64>) {
        keep(&mut self.accuracy, &mut self.figures, new);
    }
}

impl OriginalRecord {
    /// A metric on the samples that the file was measured on, by its key.
    pub fn figure(&self, key: &str) -> Option<f64> {
        figure(key, self.accuracy, &self.figures)
    }

    /// Stores metrics on those samples.
    pub fn keep(&mut self, new: &BTreeMap<&'static str, f64>) {
        keep(&mut self.accuracy, &mut self.figures, new);
    }
}

impl DeployRecord {
    /// A metric of the simulation that the file was lowered from, by its key.
    pub fn simulation_figure(&self, key: &str) -> Option<f64> {
        figure(key, self.simulation_accuracy, &self.simulation_figures)
    }

    /// Stores metrics of the simulation.
    pub fn keep_simulation(&mut self, new: &BTreeMap<&'static str, f64>) {
        keep(&mut self.simulation_accuracy, &mut self.simulation_figures, new);
    }
}
