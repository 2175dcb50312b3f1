//! The parts of a recipe beside its stages: model, data, goals.
use super::ByteSize;
use data::{Augment, Preprocess};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use train::InputRules;

/// The model that the first stage starts from: a `file`, or an `arch` with random weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSource {
    /// An ONNX file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// An architecture of the zoo (`espalier list architectures`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Factor on the channels of every hidden layer of `arch`.
    #[serde(default = "unit")]
    pub width: f64,
    /// Number of classes of `arch`; absent: what it was designed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// Shape of one input of `arch`: channels, height, width; absent: what it was designed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Vec<usize>>,
}

/// A student: an architecture of the zoo with random weights, and with the teacher's classes and input; or a file. Without
/// either, the architecture of the recipe's own model, in another width.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Student {
    /// An architecture of the zoo (`espalier list architectures`); absent: that of the recipe's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// An ONNX file instead of an architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Factor on the channels of every hidden layer of the architecture.
    #[serde(default = "unit")]
    pub width: f64,
}

/// Which compression of earlier stages a new student gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Inherit {
    /// `true`: all of it, pruned first and quantized then; `false`: none.
    All(bool),
    /// The stages of these names, in this order.
    Stages(Vec<String>),
}

impl Default for Inherit {
    fn default() -> Self {
        Inherit::All(true)
    }
}

fn unit() -> f64 {
    1.0
}

/// The data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSettings {
    /// Folder or file of the training images, also used for calibration; its `train` split where it has splits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<String>,
    /// Folder or file of the images to measure on; its `test` split where it has splits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// The first of the training images and the one behind the last, `[0, 200]`; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_rows: Option<[usize; 2]>,
    /// The first of the images to measure on and the one behind the last, `[200, 500]`; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_rows: Option<[usize; 2]>,
    /// Share of the training images held out to choose the best epoch by, 0..1; 0: none, and the last epoch is kept.
    #[serde(default)]
    pub validation: f64,
    /// Folder or file of unseen images to choose the best epoch by, instead of a part of `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_set: Option<String>,
    /// Encoded images kept in memory; a larger data set is read from disk again in each epoch.
    #[serde(default = "cache")]
    pub cache: ByteSize,
    /// Rows to shuffle among where a data set is larger than `cache`.
    #[serde(default = "shuffle_buffer")]
    pub shuffle_buffer: usize,
    /// Threads that decode and augment ahead of the training; absent: one for each processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Parquet: the column with the images; absent: found by the metadata or the usual names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_column: Option<String>,
    /// Parquet: the column with the labels; absent: found by the metadata or the usual names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// How an image becomes the network's input; absent: the preprocessing in the model's metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<Preprocess>,
    /// Random changes to training images.
    #[serde(default)]
    pub augment: Augment,
    /// What inputs that are not in the data are fed with, and how arrays are cut into samples if the inputs' declared shapes do
    /// not tell.
    #[serde(default, skip_serializing_if = "InputRules::is_empty")]
    pub inputs: InputRules,
}

fn cache() -> ByteSize {
    ByteSize(512_000_000)
}
fn shuffle_buffer() -> usize {
    4096
}

/// Requirements on the deployed file, measured as its runtime computes by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Goals {
    /// Percentage points of accuracy that may be lost, compared with the first measured model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_accuracy_drop: Option<f64>,
    /// Least accuracy on the test set, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_accuracy: Option<f64>,
    /// Goals for the task's metrics by their keys, in percent for shares: `metrics.mae = { max = 0.3 }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, MetricGoal>,
    /// Largest size of the deployed file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_file_size: Option<ByteSize>,
    /// Largest median latency of one sample, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_latency_ms: Option<f64>,
}

/// Goals for one metric of the task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricGoal {
    /// Smallest allowed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest allowed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Largest allowed fall, compared with the first measured model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_drop: Option<f64>,
    /// Largest allowed rise, compared with the first measured model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rise: Option<f64>,
}

impl Goals {
    /// True if there is no goal.
    pub fn is_empty(&self) -> bool {
        *self == Goals::default()
    }
}
