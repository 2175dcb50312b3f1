//! The run record, `run.json`: everything a run measured, with the exact command and the environment.
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of the record's layout. A reader refuses a newer one.
pub const SCHEMA_VERSION: u32 = 1;

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The recipe's name.
    pub name: String,
    /// The command line, argument by argument.
    pub command: Vec<String>,
    /// When it began, seconds since 1970 (UTC).
    pub started_unix: u64,
    /// How long it took.
    pub seconds: f64,
    /// Where it ran.
    pub environment: Environment,
    /// The recipe.
    pub recipe: RecipeRecord,
    /// The model file that the run begins with, measured as it is; absent where the run builds its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StageRecord>,
    /// The stages, in the order in which they ran.
    pub stages: Vec<StageRecord>,
    /// What was asked for and whether it was reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goals: Vec<GoalRecord>,
}

/// The machine and the software.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of Espalier.
    pub espalier: String,
    /// Model name of the processor.
    pub cpu: String,
    /// Threads that computed.
    pub threads: usize,
    /// Operating system and processor architecture.
    pub os: String,
    /// Versions of the runtimes that files were measured in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runtimes: BTreeMap<String, String>,
}

/// The recipe as it was used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecipeRecord {
    /// The file's text.
    pub text: String,
    /// The overrides given on the command line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
    /// Every setting, defaults included.
    pub settings: serde_json::Value,
}

/// Whether a stage ran or its result was there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It ran in this run.
    #[default]
    Run,
    /// An earlier run's result with the same address was taken; its figures are that run's.
    Cached,
}

/// One stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Its name in the recipe.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The address of its result: BLAKE3, in hex.
    pub key: String,
    /// Whether it ran.
    pub status: Status,
    /// How long it took when it ran.
    pub seconds: f64,
    /// Its result, relative to the run's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What its result is and does.
    #[serde(default)]
    pub metrics: Metrics,
    /// Layer by layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerRecord>,
    /// Operators that stay float, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub float_parts: Vec<FloatPart>,
    /// Epoch by epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub epochs: Vec<EpochPoint>,
    /// What the deployed file does in each runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<DeployRecord>,
    /// What the user should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

/// Figures of a stage's result; absent where they were not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Share of the test set that is right, 0..1, annotations simulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// The same on the validation images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_accuracy: Option<f64>,
    /// Images that `accuracy` is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    /// Training loss of the last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Bytes of the file; of the deployed file in a deploy stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Elements of weights and biases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// Those that are not zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonzeros: Option<u64>,
    /// Multiply-accumulate operations for one sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macs: Option<u64>,
    /// Zeros among the weights that may be pruned, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<f64>,
    /// Further figures by name, the unit in the name (`step_ms`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, f64>,
}

/// One weight of the network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The weight's name.
    pub name: String,
    /// Its elements.
    pub elements: u64,
    /// Zeros among them, 0..1.
    pub sparsity: f64,
    /// How it is stored (`int8 per channel`); absent: as float.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Signal to quantization noise of the weight, in decibels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqnr_db: Option<f64>,
}

/// An operator that stays float.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FloatPart {
    /// The node.
    pub node: String,
    /// Its operator.
    pub op_type: String,
    /// Why.
    pub reason: String,
}

/// What an epoch brought.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochPoint {
    /// Epoch of the stage, from 1.
    pub epoch: u64,
    /// Mean loss.
    pub loss: f64,
    /// Share of the training images that were right while it trained, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_accuracy: Option<f64>,
    /// Share of the validation images that are right after it, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_accuracy: Option<f64>,
    /// Learning rate of its last step.
    pub lr: f64,
    /// Training speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_per_s: Option<f64>,
}

/// The deployed file, measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeployRecord {
    /// The file, relative to the run's folder.
    pub file: String,
    /// BLAKE3 of the file, in hex.
    pub blake3: String,
    /// Its operator set.
    pub opset: i64,
    /// Accuracy of the simulation that the file was lowered from, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulation_accuracy: Option<f64>,
    /// One entry for each runtime and arithmetic.
    #[serde(default)]
    pub runtimes: Vec<RuntimeRecord>,
}

/// How a runtime computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// Operator by operator as ONNX defines them: graph optimizations off.
    #[default]
    Literal,
    /// As the runtime does unless told otherwise, integer kernels included.
    Default,
}

/// A file in a runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuntimeRecord {
    /// The runtime (`onnxruntime`, `reference`).
    pub runtime: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How it computes.
    pub arithmetic: Arithmetic,
    /// Share of the test set that is right, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Share of samples on which its answer is the simulation's, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Root mean square of its outputs' difference to the simulation's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rms_difference: Option<f64>,
    /// Latency of one sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
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

/// Something the user should know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// True where a figure may mislead or a promise is not kept.
    pub warning: bool,
    /// The text.
    pub text: String,
}

/// A goal and its verdict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GoalRecord {
    /// Its key in the recipe.
    pub goal: String,
    /// What was asked for.
    pub wanted: f64,
    /// What was measured; absent: nothing was, and the goal counts as missed.
    pub measured: Option<f64>,
    /// Whether it was reached.
    pub met: bool,
    /// The verdict as a plain sentence.
    pub sentence: String,
}

/// A record that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}")]
pub struct RecordError {
    /// The file.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

impl RunRecord {
    /// Reads a record; `path` is the file, or the run's folder.
    ///
    /// # Errors
    /// [`RecordError`] if it cannot be read, is not a record, or is newer than this release knows.
    pub fn load(path: &Path) -> Result<RunRecord, RecordError> {
        let file = if path.is_dir() { path.join("run.json") } else { path.to_path_buf() };
        let error = |what: String| RecordError { path: file.display().to_string(), what };
        let text = std::fs::read_to_string(&file).map_err(|e| error(format!("no run record can be read: {e}")))?;
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| error(format!("not a run record: {e}")))?;
        match json.get("schema_version").and_then(serde_json::Value::as_u64) {
            None => return Err(error("not a run record: schema_version is missing".into())),
            Some(v) if v > u64::from(SCHEMA_VERSION) => {
                return Err(error(format!("written by a newer Espalier (layout {v}, this one reads up to {SCHEMA_VERSION})")));
            }
            Some(_) => {}
        }
        serde_json::from_value(json).map_err(|e| error(format!("not a run record: {e}")))
    }

    /// The record as indented JSON, ending in a newline.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// What was measured, in order: the model file that the run begins with, then each stage.
    pub fn measured(&self) -> impl Iterator<Item = &StageRecord> {
        self.start.iter().chain(&self.stages)
    }

    /// The last deploy stage's record.
    pub fn deployed(&self) -> Option<(&StageRecord, &DeployRecord)> {
        self.stages.iter().rev().find_map(|s| Some((s, s.deploy.as_ref()?)))
    }

    /// True if a goal was missed.
    pub fn missed_a_goal(&self) -> bool {
        self.goals.iter().any(|g| !g.met)
    }
}

impl StageRecord {
    /// The accuracy to show: the file's own in literal arithmetic where it was deployed (the first runtime's), else the
    /// simulation's.
    pub fn shown_accuracy(&self) -> Option<f64> {
        let file = self.deploy.as_ref().and_then(|d| d.runtimes.iter().find(|r| r.arithmetic == Arithmetic::Literal)?.accuracy);
        file.or(self.metrics.accuracy)
    }
}
