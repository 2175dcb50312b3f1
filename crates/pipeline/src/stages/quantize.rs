//! `quantize`: quantizers on weights and activations, calibrated, then trained with if the recipe asks for epochs.
use super::kind::{StageEntry, StageKind, stage};
use super::lesson::{given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{CompressOn, Compressed, Compression, Rows, Tick, calibrate, stay_float};
use crate::recipe::Recipe;
use crate::trial::Trial;
use encodings::Encodings;
use graph::Model;
use quantize::{ActivationSettings, QuantizeError, Rule};
use report::record::FloatPart;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Choice, Fault, Manual, within};

/// `quantize`: weights and activations in few bits, calibrated, then trained with if `epochs` is above 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuantizeStage {
    /// How weights are stored.
    #[serde(default)]
    pub weights: Choice<Encodings>,
    /// How activations are stored.
    #[serde(default)]
    pub activations: ActivationSettings,
    /// How ranges are found from data.
    #[serde(default)]
    pub calibration: Calibration,
    /// Whether the folded weight is what is stored, or BatchNormalization stays an operator.
    #[serde(default)]
    pub batch_norm: BatchNorm,
    /// Scales of so few significant bits that the sums of a layer are exact, and the deployed file computes the simulation
    /// to the bit. `false`: scales of full precision, which cost least error; sums may then differ in their last places.
    #[serde(default = "exact")]
    pub exact: bool,
    /// Patterns of node names that are left as they are: in float, or as an earlier quantize stage left them.
    #[serde(default)]
    pub skip: Vec<String>,
    /// Rules for some of the layers, in order: which ones (`match`, `op`, `position`), and what is otherwise for them (`weights`,
    /// `activations`, `skip`). Of the rules that apply to a layer the last one decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

fn exact() -> bool {
    true
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

pub(super) const ENTRY: StageEntry = stage!(
    QuantizeStage,
    epochs: Some(0),
    Manual {
        name: "quantize",
        summary: "Attaches quantizers to weights and activations, calibrates them, and may train with them.",
        details: "",
        source: "",
        example: "weights = { bits = 8, granularity = \"channel\", reduce_range = true }\ncalibration = { observer = \"percentile\", images = 512 }\n",
    }
);

/// Samples that `observer = "auto"` runs once for each observer.
const JUDGED: f64 = 64.0;
/// Observers that it tries, and the float network beside them.
const TRIED: f64 = 6.0;

impl StageKind for QuantizeStage {
    fn calibrates(&self) -> bool {
        true
    }

    fn compression(&self) -> Option<&dyn Compression> {
        Some(self)
    }

    fn check(&self, _: &Recipe, _: usize) -> Result<(), Fault> {
        crate::actions::settings(self).check().map_err(|e| match &e {
            QuantizeError::Setting { setting, .. } => Fault::new(setting, e.to_string()),
            _ => Fault::new("", e.to_string()),
        })?;
        let by_channel = |weights: &Choice<Encodings>| weights.grid(Some(0)).is_some_and(|grid| grid.axis.is_some());
        let mut all = self.rules.iter().filter_map(|r| r.weights.as_ref()).chain([&self.weights]);
        if self.batch_norm == BatchNorm::Keep && !all.all(by_channel) {
            let message = "batch_norm = \"keep\" needs integer weights with granularity = \"channel\": only a scale for each channel can \
                           follow its statistics";
            return Err(Fault::new("weights", message));
        }
        if self.calibration.images == 0 || self.calibration.batch == 0 {
            return Err(Fault::new("calibration", "calibration needs at least one image, and a batch of at least one"));
        }
        within("calibration.percentile", self.calibration.percentile, 50.0, 100.0, "it is the percentage of the values within the range")
    }

    fn details(&self, _: &Recipe, _: usize) -> Vec<String> {
        let observer =
            serde_json::to_value(self.calibration.observer).ok().and_then(|v| v.as_str().map(str::to_string)).unwrap_or_default();
        vec![format!("calibrated on {} images, observer {observer}", self.calibration.images)]
    }

    fn samples(&self, _: &Rows) -> f64 {
        let tried = if self.calibration.observer == Observer::Auto { TRIED * JUDGED } else { 0.0 };
        self.calibration.images as f64 + tried
    }

    fn remedies(&self) -> Option<(&'static str, &'static str)> {
        Some((
            "more bits, more epochs",
            "another calibration.observer (auto tries each), more bits, or epochs = 1 or more to train with the quantizers",
        ))
    }

    fn trial(&self, trial: &mut Trial, _: usize) -> Result<(), StageError> {
        trial.compress(self)
    }
}

impl Compression for QuantizeStage {
    fn told(&self) -> String {
        format!("{}-bit weights", self.weights.bits())
    }

    fn quantizers(&self) -> Option<&QuantizeStage> {
        Some(self)
    }

    fn for_trial(&self, samples: usize) -> Option<Box<dyn Compression>> {
        let mut few = self.clone();
        few.calibration.images = few.calibration.images.min(samples);
        few.calibration.batch = few.calibration.batch.min(samples);
        few.calibration.observer = Observer::MinMax;
        Some(Box::new(few))
    }

    fn apply(&self, model: &mut Model, on: &CompressOn, tick: Tick) -> Result<Compressed, StageError> {
        let calibrated = calibrate(model, self, on.sources, on.seed, on.cache, tick)?;
        let mut notes: Vec<(bool, String)> = calibrated.notes().into_iter().map(|note| (false, note)).collect();
        let report = calibrated.report;
        let (constants, activations) = (report.constants, report.activations.len());
        if constants == 0 && (activations == 0 || computes_on_integers(model)) {
            let reasons = report.float_parts.iter().take(3).map(|p| format!("'{}' ({}): {}", p.node, p.op_type, p.reason));
            let reasons = reasons.collect::<Vec<_>>().join("; ");
            let why = if reasons.is_empty() { "no operator in it runs on integers".to_string() } else { reasons };
            return Err(format!("nothing in the graph was quantized, so there is no need for this stage: {why}").into());
        }
        let (biases, samples) = (report.biases, report.samples);
        let told = match activations {
            0 => format!("{constants} weights stored in fewer bits; activations stay float"),
            _ => format!("{constants} weights, {biases} biases and {activations} activations quantized, calibrated on {samples} images"),
        };
        notes.push((false, told));
        notes.extend(report.warnings.into_iter().map(|warning| (true, warning)));
        let part = |p: quantize::FloatPart| FloatPart { node: p.node, op_type: p.op_type, reason: p.reason };
        Ok(Compressed { notes, float_parts: report.float_parts.into_iter().map(part).collect() })
    }
}

impl StageBody for QuantizeStage {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        sources.calibration_notes(&model)?.into_iter().for_each(|note| cx.note(false, note));
        let float_parts = cx.compress(self, &mut model, &sources)?;
        if let Some(note) = stay_float(&model)? {
            cx.note(false, note);
        }
        let epochs = train(cx, &mut model, None, true, &sources)?;
        Ok(StageOutput { float_parts, ..measured(cx, model, epochs, &sources)? })
    }
}

/// True for a file whose layers another tool has put on integers, without quantizers that could be lifted.
fn computes_on_integers(model: &Model) -> bool {
    const ALREADY: &[&str] =
        &["MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "QGemm", "MatMulNBits", "DynamicQuantizeLSTM"];
    let mut found = false;
    model.graph.visit(&mut |node| found |= ALREADY.contains(&node.op_type.as_str()));
    found
}
