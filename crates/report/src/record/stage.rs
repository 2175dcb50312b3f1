//! What a stage did, and the figures of its result.
use super::{Arithmetic, DeployRecord, MetricRecord, figure, keep};
use crate::task::ACCURACY;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// Kind of stage, such as `prune`.
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
    /// Index of the class.
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
    /// Index of the class in the data's labels.
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
    /// Number of elements.
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
    /// Name of the node.
    pub node: String,
    /// Operator type of the node, such as `Softmax`.
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

/// Something the user should know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// True where a figure may mislead or a promise is not kept.
    pub warning: bool,
    /// The note, one sentence.
    pub text: String,
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
