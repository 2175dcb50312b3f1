//! The run record, `run.json`: everything a run measured, with the exact command and the environment.
use crate::task::ACCURACY;
pub use crate::task::{Better, MetricRecord, TaskRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of the record's layout. A reader refuses a newer one. Since 2, the sizes of stages before deploy are those that
/// their graph would have as a deployed file, and a deployed file stands beside the model that the run began with.
pub const SCHEMA_VERSION: u32 = 2;

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
    /// How long this call took, in which earlier results may have been taken; [`RunRecord::work_seconds`] has the whole.
    pub seconds: f64,
    /// Where it ran.
    pub environment: Environment,
    /// The recipe.
    pub recipe: RecipeRecord,
    /// What the network is for; absent: classification.
    #[serde(default, skip_serializing_if = "TaskRecord::is_default")]
    pub task: TaskRecord,
    /// The files and folders that it read, each with the hash of its content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputRecord>,
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

/// Something that a run read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InputRecord {
    /// What it is for: the recipe's key (`data.train`, `model.file`).
    pub role: String,
    /// As the recipe names it.
    pub path: String,
    /// BLAKE3 of the file, or of all files of a folder with their names, in hex.
    pub blake3: String,
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
    /// Where that time went, in seconds by activity (`train`, `calibrate`, `evaluate`, `measure`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spent: BTreeMap<String, f64>,
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
    /// Class by class, where the test set has labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassesRecord>,
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
    /// The same on the validation samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_accuracy: Option<f64>,
    /// On the test set, by key ([`MetricRecord::key`]): the figures of a task that is no classification, annotations simulated.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
    /// Intervals of 95 % confidence of some of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<String, [f64; 2]>,
    /// The main one on the validation samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// Samples that `accuracy` (or `figures`) is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    /// Samples with a NaN among the network's outputs; none of them counts as right. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nan_images: Option<u64>,
    /// Training loss of the last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Bytes on disk, data files beside the model included: of the model file that the run begins with, of the deployed file in
    /// a deploy stage, and in the stages before it of the file that their graph would be deployed as.
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

/// What a classifier says of each class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassesRecord {
    /// The classes that the test set has, in the order of their labels.
    pub classes: Vec<ClassRecord>,
    /// What was taken for something else, most often first; at most [`ClassesRecord::MOST_PAIRS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confused: Vec<Confused>,
    /// True if there were more pairs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

impl ClassesRecord {
    /// Most pairs of classes that a record keeps.
    pub const MOST_PAIRS: usize = 1000;
}

/// One class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassRecord {
    /// Its label.
    pub label: u64,
    /// Its name, where the data say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Samples of it in the test set.
    pub images: u64,
    /// Those taken for it.
    pub correct: u64,
}

/// Samples of one class that were taken for another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Confused {
    /// The label.
    pub label: u64,
    /// What it was taken for.
    pub taken_for: u64,
    /// Samples.
    pub images: u64,
}

/// One weight of the network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The weight's name.
    pub name: String,
    /// Its elements.
    pub elements: u64,
    /// Zeros among them as they are stored, 0..1: masked ones, and those that are nearer to zero than half a step.
    pub sparsity: f64,
    /// How it is stored (`int8 per channel`); absent: as float.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Signal to quantization noise of the weight, in decibels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqnr_db: Option<f64>,
}

/// An operator that computes in float in the deployed file: as the runtime's own graph has it, where it tells, else as lowering
/// meant it.
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
    /// Share of the training samples that were right while it trained, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_accuracy: Option<f64>,
    /// Share of the validation samples that are right after it, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_accuracy: Option<f64>,
    /// The main figure on the validation samples after it, of a task that is no classification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
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
    /// Figures of the simulation, of a task that is no classification.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub simulation_figures: BTreeMap<String, f64>,
    /// One entry for each runtime and arithmetic.
    #[serde(default)]
    pub runtimes: Vec<RuntimeRecord>,
    /// The model that the run began with, in the same runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<OriginalRecord>,
    /// What the runtime computes on integers and in float; absent where it does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementRecord>,
    /// Test samples that it was measured on, evenly chosen; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen_images: Option<u64>,
    /// Output by output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputRecord>,
}

/// The model that a run began with, measured beside the deployed file: runs of the two in turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OriginalRecord {
    /// The stage that it is the result of, or `start`.
    pub stage: String,
    /// Its bytes on disk, data files beside it included; of a stage's result, those of the float network alone.
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
    /// Its accuracy on the samples that the file was measured on, 0..1, where those are not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Its figures on those samples, of a task that is no classification.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

/// Nodes of the graph that a runtime makes of a file and really runs; without those that only move elements.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlacementRecord {
    /// By operator.
    pub operators: BTreeMap<String, NodeCount>,
    /// Conversions between integers and float that are left.
    pub conversions: u64,
}

/// Nodes of one operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCount {
    /// Those on integers.
    pub integer: u64,
    /// Those in float.
    pub float: u64,
}

/// An output of the deployed file against that of the float network it was made from.
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
    /// Samples with a NaN in it. Absent: none.
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
    /// Figures on the test set, of a task that is no classification.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
    /// How far its answers are from the simulation's, of a task that is no classification: `mean_difference` and
    /// `largest_difference`, in standard deviations of the targets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub differences: BTreeMap<String, f64>,
    /// Share of samples on which its answer is the simulation's, 0..1.
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

    /// How long all that stands here took when it ran, earlier calls included.
    pub fn work_seconds(&self) -> f64 {
        self.measured().map(|s| s.seconds).sum()
    }

    /// Warnings of all stages, each with its stage's name.
    pub fn warnings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.measured().flat_map(|s| s.notes.iter().filter(|n| n.warning).map(move |n| (s.name.as_str(), n.text.as_str())))
    }

    /// Median latency of a stage's result, where it was measured: of a deployed file, or of the model that the last one stands
    /// beside.
    pub fn latency_of<'r>(&'r self, stage: &'r StageRecord) -> Option<&'r Latency> {
        if let Some(deploy) = &stage.deploy {
            return deploy.runtimes.iter().find_map(|r| r.latency.as_ref());
        }
        let original = self.deployed()?.1.original.as_ref()?;
        original.latency.as_ref().filter(|_| original.stage == stage.name)
    }

    /// True if a goal was missed.
    pub fn missed_a_goal(&self) -> bool {
        self.goals.iter().any(|g| !g.met)
    }
}

impl StageRecord {
    /// The figure to show and to judge by: the file's own, as the runtime computes unless told otherwise, where it was deployed (the
    /// first runtime's; its literal arithmetic where nothing else was measured), else the simulation's.
    pub fn shown(&self, metric: &MetricRecord) -> Option<f64> {
        let of = |arithmetic| self.deploy.as_ref()?.runtimes.iter().find(|r| r.arithmetic == arithmetic)?.figure(&metric.key);
        of(Arithmetic::Default).or_else(|| of(Arithmetic::Literal)).or(self.metrics.figure(&metric.key))
    }

    /// [`StageRecord::shown`] for accuracy.
    pub fn shown_accuracy(&self) -> Option<f64> {
        self.shown(&MetricRecord::accuracy())
    }

    /// [`StageRecord::shown`] as text, with its interval where it is over few samples.
    pub fn written(&self, metric: &MetricRecord) -> Option<String> {
        let interval = self.metrics.intervals.get(&metric.key).copied();
        self.shown(metric).map(|v| metric.write_with(v, self.metrics.images, interval))
    }

    /// The test samples that its figures are over, where those are not all.
    pub fn chosen_images(&self) -> Option<u64> {
        self.deploy.as_ref()?.chosen_images
    }

    /// Its figure on the samples that a later stage was scored on: what the two are compared by. `None` where it was scored on
    /// others only.
    pub fn shown_beside(&self, metric: &MetricRecord, later: &StageRecord) -> Option<f64> {
        if self.chosen_images() == later.chosen_images() {
            return self.shown(metric);
        }
        later.deploy.as_ref()?.original.as_ref().filter(|o| o.stage == self.name)?.figure(&metric.key)
    }

    /// The lowest signal to noise of a deployed file's outputs against the float network, in decibels.
    pub fn shown_sqnr(&self) -> Option<f64> {
        self.deploy.as_ref()?.outputs.iter().filter_map(|o| o.sqnr_db).reduce(f64::min)
    }
}

/// A figure by its key: accuracy has a field of its own.
fn figure(key: &str, accuracy: Option<f64>, figures: &BTreeMap<String, f64>) -> Option<f64> {
    if key == ACCURACY { accuracy } else { figures.get(key).copied() }
}

/// Keeps figures by their keys, accuracy in its own field.
fn keep(accuracy: &mut Option<f64>, figures: &mut BTreeMap<String, f64>, new: &BTreeMap<&'static str, f64>) {
    for (key, value) in new {
        match *key {
            ACCURACY => *accuracy = Some(*value),
            other => {
                figures.insert(other.to_string(), *value);
            }
        }
    }
}

impl Metrics {
    /// A figure on the test set.
    pub fn figure(&self, key: &str) -> Option<f64> {
        figure(key, self.accuracy, &self.figures)
    }

    /// The main figure on the validation samples.
    pub fn validation_figure(&self) -> Option<f64> {
        self.validation_accuracy.or(self.validation)
    }

    /// Keeps figures on the test set.
    pub fn keep(&mut self, new: &BTreeMap<&'static str, f64>) {
        keep(&mut self.accuracy, &mut self.figures, new);
    }

    /// Keeps the main figure on the validation samples.
    pub fn keep_validation(&mut self, metric: &MetricRecord, value: f64) {
        *(if metric.key == ACCURACY { &mut self.validation_accuracy } else { &mut self.validation }) = Some(value);
    }
}

impl EpochPoint {
    /// The main figure on the validation samples.
    pub fn validation_figure(&self) -> Option<f64> {
        self.validation_accuracy.or(self.validation)
    }

    /// Keeps the main figure on the validation samples.
    pub fn keep_validation(&mut self, metric: &MetricRecord, value: Option<f64>) {
        *(if metric.key == ACCURACY { &mut self.validation_accuracy } else { &mut self.validation }) = value;
    }
}

impl RuntimeRecord {
    /// A figure on the test set.
    pub fn figure(&self, key: &str) -> Option<f64> {
        figure(key, self.accuracy, &self.figures)
    }

    /// Keeps figures on the test set.
    pub fn keep(&mut self, new: &BTreeMap<&'static str, f64>) {
        keep(&mut self.accuracy, &mut self.figures, new);
    }
}

impl OriginalRecord {
    /// A figure on the samples that the file was measured on.
    pub fn figure(&self, key: &str) -> Option<f64> {
        figure(key, self.accuracy, &self.figures)
    }

    /// Keeps figures on those samples.
    pub fn keep(&mut self, new: &BTreeMap<&'static str, f64>) {
        keep(&mut self.accuracy, &mut self.figures, new);
    }
}

impl DeployRecord {
    /// A figure of the simulation that the file was lowered from.
    pub fn simulation_figure(&self, key: &str) -> Option<f64> {
        figure(key, self.simulation_accuracy, &self.simulation_figures)
    }

    /// Keeps figures of the simulation.
    pub fn keep_simulation(&mut self, new: &BTreeMap<&'static str, f64>) {
        keep(&mut self.simulation_accuracy, &mut self.simulation_figures, new);
    }
}
