//! The settings of each kind of stage.
use super::training::{self, Training, training_stage};
use super::{ByteSize, Inherit, ModelSource, Student};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use train::{Keep, OptimizerSettings, Schedule};

/// One stage: `kind` says which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Stage {
    /// Trains the current graph on the labels.
    Train(TrainStage),
    /// Attaches quantizers to weights and activations, calibrates them, and may train with them.
    Quantize(QuantizeStage),
    /// Attaches masks that set weights to zero, and may train with them.
    Prune(PruneStage),
    /// Trains a student to say what a teacher says.
    Distill(DistillStage),
    /// Trains with everything that is attached active at once: masks, quantizers, and a teacher if one is named.
    Finetune(FinetuneStage),
    /// Lowers the graph to a standard ONNX file and measures that file.
    Deploy(DeployStage),
}

impl Stage {
    /// The kinds, in the classic order.
    pub const KINDS: [&'static str; 6] = ["train", "quantize", "prune", "distill", "finetune", "deploy"];

    /// Its kind, as the recipe spells it.
    pub fn kind(&self) -> &'static str {
        match self {
            Stage::Train(_) => "train",
            Stage::Quantize(_) => "quantize",
            Stage::Prune(_) => "prune",
            Stage::Distill(_) => "distill",
            Stage::Finetune(_) => "finetune",
            Stage::Deploy(_) => "deploy",
        }
    }

    /// Its name: as given, else its kind.
    pub fn name(&self) -> &str {
        let name = match self {
            Stage::Train(s) => &s.name,
            Stage::Quantize(s) => &s.name,
            Stage::Prune(s) => &s.name,
            Stage::Distill(s) => &s.name,
            Stage::Finetune(s) => &s.name,
            Stage::Deploy(s) => &s.name,
        };
        name.as_deref().unwrap_or(self.kind())
    }

    /// The settings of its training loop, if it has one.
    pub fn training(&self) -> Option<Training> {
        match self {
            Stage::Train(s) => Some(s.training()),
            Stage::Quantize(s) => Some(s.training()),
            Stage::Prune(s) => Some(s.training()),
            Stage::Distill(s) => Some(s.training()),
            Stage::Finetune(s) => Some(s.training()),
            Stage::Deploy(_) => None,
        }
    }

    /// For a stage that puts a network of its own in the place of the one before it: whether that one comes from a file.
    pub fn begins_anew(&self) -> Option<bool> {
        match self {
            Stage::Train(TrainStage { model: Some(own), .. }) => Some(own.file.is_some()),
            Stage::Distill(DistillStage { student: Some(own), .. }) => Some(own.file.is_some()),
            _ => None,
        }
    }

    /// The model file that it works on instead of the graph before it.
    pub fn own_file(&self) -> Option<&str> {
        match self {
            Stage::Train(s) => s.model.as_ref()?.file.as_deref(),
            Stage::Distill(s) => s.student.as_ref()?.file.as_deref(),
            _ => None,
        }
    }

    /// The teacher it names: an earlier stage or a file.
    pub fn teacher(&self) -> Option<&str> {
        match self {
            Stage::Distill(s) => Some(&s.teacher),
            Stage::Finetune(s) => s.teacher.as_deref(),
            _ => None,
        }
    }
}

training_stage! {
    /// `train`: trains the current graph, or a model of its own.
    TrainStage, epochs: "training::one", {
        /// Starts from this model instead of the current graph.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelSource>,
    }
}

training_stage! {
    /// `quantize`: uniform affine quantizers, calibrated, then trained with if `epochs` is above 0.
    QuantizeStage, epochs: "training::zero", {
        /// How weights are stored.
        #[serde(default)]
        weights: Weights,
        /// How activations are stored.
        #[serde(default)]
        activations: Activations,
        /// How ranges are found from data.
        #[serde(default)]
        calibration: Calibration,
        /// Whether the folded weight is what is stored, or BatchNormalization stays an operator.
        #[serde(default)]
        batch_norm: BatchNorm,
        /// Scales of so few significant bits that the sums of a layer are exact, and the deployed file computes the simulation
        /// to the bit. `false`: scales of full precision, which cost least error; sums may then differ in their last places.
        #[serde(default = "exact")]
        exact: bool,
        /// Patterns of node names that are left as they are: in float, or as an earlier quantize stage left them.
        #[serde(default)]
        skip: Vec<String>,
    }
}

training_stage! {
    /// `prune`: chooses which weights live, then trains the rest if `epochs` is above 0.
    PruneStage, epochs: "training::zero", {
        /// Share of the weights that may be pruned which become zero, 0..1.
        sparsity: f64,
        /// How weights are judged.
        #[serde(default)]
        method: PruneMethod,
        /// Among which weights the judgement is made.
        #[serde(default)]
        scope: PruneScope,
        /// Least share of each layer's weights that lives, 0..1, however little the layer matters.
        #[serde(default)]
        min_per_layer: f64,
        /// Patterns of weight names that stay whole.
        #[serde(default)]
        skip: Vec<String>,
    }
}

training_stage! {
    /// `distill`: Hinton's distillation from a teacher into a student.
    DistillStage, epochs: "training::one", {
        /// The teacher: an earlier stage's name, or an ONNX file.
        teacher: String,
        /// A student of its own: `{ arch, width }`, `{ file }`, or `{ width }` for the recipe's own architecture; absent: the
        /// current graph.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        student: Option<Student>,
        /// Softens both distributions.
        #[serde(default = "temperature")]
        temperature: f64,
        /// Weight of the teacher in the loss, 0..1; the labels have the rest.
        #[serde(default = "alpha")]
        alpha: f64,
        /// A student of its own gets the compression of the stages before it, anew: `true` prunes first and quantizes then,
        /// whatever their order here; a list of stages' names (`["quantize", "prune"]`) takes those in that order; `false` none.
        #[serde(default)]
        inherit: Inherit,
    }
}

training_stage! {
    /// `finetune`: joint training with all that is attached.
    FinetuneStage, epochs: "training::one", {
        /// The teacher: an earlier stage's name, or an ONNX file; absent: the labels alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        teacher: Option<String>,
        /// Softens both distributions.
        #[serde(default = "temperature")]
        temperature: f64,
        /// Weight of the teacher in the loss, 0..1; the labels have the rest.
        #[serde(default = "alpha")]
        alpha: f64,
    }
}

fn exact() -> bool {
    true
}
fn temperature() -> f64 {
    4.0
}
fn alpha() -> f64 {
    0.7
}

/// `deploy`: the file that ships, and what it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployStage {
    /// The stage's name; absent: its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The runtime the file is made for and measured in.
    #[serde(default)]
    pub target: Target,
    /// Timed runs of one sample.
    #[serde(default = "latency_runs")]
    pub latency_runs: usize,
    /// Threads that the runtime may use; absent: the recipe's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Operator set of the file; absent: what the graph has, raised where its encodings need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opset: Option<i64>,
    /// Keep what the exporter noted for itself: stack traces, paths and other doc strings and metadata of nodes and values.
    #[serde(default)]
    pub exporter_notes: bool,
    /// Test images that the file is measured on; absent: all. Some of them where a runtime is slow; the report says how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<usize>,
}

impl Default for DeployStage {
    fn default() -> Self {
        DeployStage {
            name: None,
            target: Target::default(),
            latency_runs: latency_runs(),
            threads: None,
            opset: None,
            exporter_notes: false,
            images: None,
        }
    }
}

fn latency_runs() -> usize {
    100
}

/// How weights are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    /// Bits a weight, 2..8.
    pub bits: u8,
    /// A scale for each output channel instead of one for the tensor.
    pub per_channel: bool,
    /// One bit less in the range: products of two 8-bit numbers then cannot saturate on processors without VNNI.
    pub reduce_range: bool,
}

impl Default for Weights {
    fn default() -> Self {
        Weights { bits: 8, per_channel: true, reduce_range: false }
    }
}

/// How activations are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Activations {
    /// Bits an activation, 2..8.
    pub bits: u8,
}

impl Default for Activations {
    fn default() -> Self {
        Activations { bits: 8 }
    }
}

/// How the ranges of activations are found. The images run once: a later run in the same folder with another observer or
/// width takes the statistics that are there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Calibration {
    /// The statistic.
    pub observer: Observer,
    /// Training images it is taken over.
    pub images: usize,
    /// Images that run at once.
    pub batch: usize,
    /// For `percentile`: how much of the values lies within the range, in percent.
    pub percentile: f64,
    /// Which subset of the training images is taken; absent: the recipe's seed decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Default for Calibration {
    fn default() -> Self {
        Calibration { observer: Observer::default(), images: 512, batch: 64, percentile: 99.99, seed: None }
    }
}

/// The statistic a range is taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Observer {
    /// Smallest and largest value seen.
    MinMax,
    /// Exponential average of each batch's smallest and largest value.
    MovingAverage,
    /// What lies within a percentile of all values.
    Percentile,
    /// The range that loses least information (Kullback-Leibler divergence).
    Entropy,
    /// The range whose grid is nearest to all values in the mean of squares.
    Mse,
    /// Of these the one with the least error at the network's outputs, on images that are held back for it.
    #[default]
    Auto,
}

/// What becomes of BatchNormalization when its convolution is quantized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchNorm {
    /// Folded into the weights before anything is stored.
    #[default]
    Fold,
    /// Stays, and the folded weight is simulated by the running statistics, which must be frozen before the last epoch that
    /// trains (`freeze_statistics`); folded when the file is deployed.
    Keep,
}

/// How weights are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PruneMethod {
    /// By their absolute value.
    #[default]
    Magnitude,
}

/// Among which weights the judgement is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PruneScope {
    /// All weights of the network together: layers that matter less lose more.
    #[default]
    Global,
    /// Each layer by itself, to the same sparsity.
    Layer,
}

/// The runtime a file is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// ONNX Runtime on the processor.
    #[default]
    OnnxRuntime,
    /// The reference interpreter.
    Reference,
}
