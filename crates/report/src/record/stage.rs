//! The record of a stage and the metrics of its result.
use super::{Arithmetic, CutRecord, DeployRecord, MetricRecord, PlanRecord, SharesRecord, figure, keep};
use crate::task::ACCURACY;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Whether a stage ran or its result was stored already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It ran in this run.
    #[default]
    Run,
    /// An earlier run's result with the same address was reused, with its measurements.
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
    /// Seconds that it took when it ran.
    pub seconds: f64,
    /// Seconds by activity (`train`, `calibrate`, `evaluate`, `measure`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spent: BTreeMap<String, f64>,
    /// Path of its result, relative to the run's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Measurements of its result.
    #[serde(default)]
    pub metrics: Metrics,
    /// One record for each weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerRecord>,
    /// Operators that stay float, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub float_parts: Vec<FloatPart>,
    /// The widths that were chosen for a budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanRecord>,
    /// The shares of layers that were chosen by what each alone costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<SharesRecord>,
    /// Candidates that a removal of channels was chosen among, in the order in which they were measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<CutRecord>,
    /// One point for each epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub epochs: Vec<EpochPoint>,
    /// Results by class, if the test set has labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassesRecord>,
    /// The deployed file's results in each runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<DeployRecord>,
    /// Notes for the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

/// Measurements of a stage's result; absent if they were not made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Accuracy on the test set, 0..1, annotations simulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Accuracy on the validation samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_accuracy: Option<f64>,
    /// Metrics on the test set, by key ([`MetricRecord::key`]), for tasks other than classification, annotations simulated.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
    /// 95 % confidence intervals of some metrics.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<String, [f64; 2]>,
    /// The main metric on the validation samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// Number of samples of `accuracy` (or `figures`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    /// Samples with NaN among the network's outputs; they count as wrong. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nan_images: Option<u64>,
    /// Training loss of the last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Size on disk in bytes, data files included: of the model file that the run begins with; of the deployed file in a deploy
    /// stage; in earlier stages, of the file that their graph would be deployed as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Elements of weights and biases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// Elements of weights and biases that are not zero.
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

/// A classifier's results by class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassesRecord {
    /// The classes that the test set has, in the order of their labels.
    pub classes: Vec<ClassRecord>,
    /// Wrong predictions by pair of classes, most frequent first; at most [`ClassesRecord::MOST_PAIRS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confused: Vec<Confused>,
    /// True if there were more pairs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

impl ClassesRecord {
    /// Most pairs of classes in a record.
    pub const MOST_PAIRS: usize = 1000;
}

/// One class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassRecord {
    /// Index of the class.
    pub label: u64,
    /// Name of the class, if the data have names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Test samples of the class.
    pub images: u64,
    /// Samples of the class that were predicted correctly.
    pub correct: u64,
}

/// Samples of one class that were predicted as another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Confused {
    /// Index of the class in the data's labels.
    pub label: u64,
    /// The predicted class.
    pub taken_for: u64,
    /// Number of samples.
    pub images: u64,
}

/// One weight of the network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The weight's name.
    pub name: String,
    /// Number of elements.
    pub elements: u64,
    /// Share of zeros among the elements as stored, 0..1: masked ones, and those nearer to zero than half a step.
    pub sparsity: f64,
    /// How it is stored (`int8 per channel`); absent: as float.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Signal to quantization noise of the weight, in decibels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqnr_db: Option<f64>,
}

/// An operator that computes in float in the deployed file: from the runtime's own graph if it tells, else as lowering planned
/// it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FloatPart {
    /// Name of the node.
    pub node: String,
    /// Operator type of the node, such as `Softmax`.
    pub op_type: String,
    /// Why it computes in float.
    pub reason: String,
}

/// The results of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochPoint {
    /// Epoch of the stage, from 1.
    pub epoch: u64,
    /// Mean loss.
    pub loss: f64,
    /// Accuracy on the training samples during the epoch, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_accuracy: Option<f64>,
    /// Accuracy on the validation samples after the epoch, 0..1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_accuracy: Option<f64>,
    /// The main metric on the validation samples after the epoch, for tasks other than classification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// Learning rate of its last step.
    pub lr: f64,
    /// Training speed, in samples a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_per_s: Option<f64>,
}

/// A note for the user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// True for a warning: a figure may mislead, or a promise is not kept.
    pub warning: bool,
    /// The note, one sentence.
    pub text: String,
}

impl StageRecord {
    /// The metric to show and to judge by: that of the deployed file in default arithmetic (of the first runtime; in literal
    /// arithmetic if nothing else was measured), else that of the simulation.
    pub fn shown(&self, metric: &MetricRecord) -> Option<f64> {
        let of = |arithmetic| self.deploy.as_ref()?.runtimes.iter().find(|r| r.arithmetic == arithmetic)?.figure(&metric.key);
        of(Arithmetic::Default).or_else(|| of(Arithmetic::Literal)).or(self.metrics.figure(&metric.key))
    }

    /// [`StageRecord::shown`] for accuracy.
    pub fn shown_accuracy(&self) -> Option<f64> {
        self.shown(&MetricRecord::accuracy())
    }

    /// [`StageRecord::shown`] as text, with its confidence interval if there are few samples.
    pub fn written(&self, metric: &MetricRecord) -> Option<String> {
        let interval = self.metrics.intervals.get(&metric.key).copied();
        self.shown(metric).map(|v| metric.write_with(v, self.metrics.images, interval))
    }

    /// Number of test samples of its metrics, if not all were used.
    pub fn chosen_images(&self) -> Option<u64> {
        self.deploy.as_ref()?.chosen_images
    }

    /// Its metric on the samples that a later stage was scored on, to compare the two. `None` if it was scored on other samples
    /// only.
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
    /// A metric on the test set, by its key.
    pub fn figure(&self, key: &str) -> Option<f64> {
        figure(key, self.accuracy, &self.figures)
    }

    /// The main metric on the validation samples.
    pub fn validation_figure(&self) -> Option<f64> {
        self.validation_accuracy.or(self.validation)
    }

    /// Stores metrics on the test set.
    pub fn keep(&mut self, new: &BTreeMap<&'static str, f64>) {
        keep(&mut self.accuracy, &mut self.figures, new);
    }

    /// Stores the main metric on the validation samples.
    pub fn keep_validation(&mut self, metric: &MetricRecord, value: f64) {
        *(if metric.key == ACCURACY { &mut self.validation_accuracy } else { &mut self.validation }) = Some(value);
    }
}

impl EpochPoint {
    /// The main metric on the validation samples.
    pub fn validation_figure(&self) -> Option<f64> {
        self.validation_accuracy.or(self.validation)
    }

    /// Stores the main metric on the validation samples.
    pub fn keep_validation(&mut self, metric: &MetricRecord, value: Option<f64>) {
        *(if metric.key == ACCURACY { &mut self.validation_accuracy } else { &mut self.validation }) = value;
    }
}
