//! `quantize`: quantizers on weights and activations, calibrated, then trained with if the recipe has epochs.
use super::calibration::{CalibrationData, CalibrationSettings};
use super::kind::{StageEntry, StageKind, stage};
use super::search::{SearchSettings, read_rules, read_table};
use super::training::{given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{CompressOn, Compressed, Compression, Rows, Tick, calibrate, stay_float};
use crate::recipe::{Budget, Recipe, Stage};
use crate::trial::Trial;
use encodings::Encodings;
use graph::Model;
use quantize::{ActivationSettings, Corrections, QuantizeSettings, Rule};
use report::record::FloatPart;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use technique::{Choice, Fault, Manual};

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
    /// Also stores the weights of operators that compute in float: LSTM, GRU, RNN (a scale for each row of a gate) and embeddings (a scale
    /// for each row). With `activations = false` every weight of the network is then stored in few bits. `weights` and rules say how.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub weight_only: bool,
    /// How ranges are found from data.
    #[serde(default)]
    pub calibration: CalibrationSettings,
    /// Whether the folded weight is stored, or BatchNormalization stays an operator.
    #[serde(default)]
    pub batch_norm: BatchNorm,
    /// Uses scales with so few significant bits that the sums of a layer are exact, and the deployed file computes the simulation
    /// to the bit. `false`: scales of full precision, with the least error; sums may then differ in their last places.
    #[serde(default = "exact")]
    pub exact: bool,
    /// Gives 8-bit weights scales with which no sum of the calibration data saturates on x86 processors without VNNI, so that the file
    /// gives the same results on every processor. Most channels keep nearly all of their 8 bits; `weights.reduce_range`, 7 bits for
    /// all, holds for any data, and where weights train after calibration. `espalier evaluate --arithmetic avx2` shows the results.
    /// Left out: `true` for a target whose files may meet such processors (onnxruntime), unless weights train on, in this stage or in
    /// a later one, or `batch_norm = "keep"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor_safe: Option<bool>,
    /// Patterns of node names that are skipped: they stay in float, or as an earlier quantize stage left them.
    #[serde(default)]
    pub skip: Vec<String>,
    /// Rules for some of the layers, in order: which layers (`match`, `op`, `position`), and how they differ (`weights`,
    /// `activations`, `skip`). Of the rules that apply to a layer the last one decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// A file with rules as they stand here, such as the plan that a search wrote. They come before `rules`, which so decide where
    /// both apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Searches the widths of layers with the least harm within a limit: "3 bits" (mean of the weights), "90 kB" (the weights, as
    /// stored with their scales) or "1.2 GBOPs" (bit operations for one sample); or within two of them. What `rules` decide on
    /// counts and stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// How widths are searched.
    #[serde(default, skip_serializing_if = "is_default")]
    pub search: SearchSettings,
    /// Corrections without training, each by its name or as `{ kind = "NAME", ... }`: first those before the grids are fitted
    /// (`equalize`, `smooth_quant`), then those after (`bias_correction`), in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub corrections: Vec<Choice<Corrections>>,
}

fn exact() -> bool {
    true
}

fn is_default(search: &SearchSettings) -> bool {
    *search == SearchSettings::default()
}

impl QuantizeStage {
    /// A note for each key in an old spelling, with the new one.
    pub fn old_spellings(&self) -> Vec<String> {
        let weights = self.weights.settings().get("per_channel").and_then(|v| v.as_bool()).map(|by_channel| {
            let granularity = if by_channel { "channel" } else { "tensor" };
            format!("weights.per_channel is the old spelling; write granularity = \"{granularity}\" instead")
        });
        weights.into_iter().chain(self.calibration.old_spelling()).collect()
    }

    /// Checks how widths are searched.
    ///
    /// # Errors
    /// A [`Fault`] at the key.
    pub fn check_search(&self) -> Result<(), Fault> {
        self.search.check(&self.weights).map_err(|fault| fault.under("search"))
    }

    /// The settings of the technique; `target` is the target of the deployment.
    pub fn settings(&self, target: &target::Choice) -> QuantizeSettings {
        QuantizeSettings {
            weights: self.weights.clone(),
            activations: self.activations,
            weight_only: self.weight_only,
            observer: self.calibration.observer(),
            exact: self.exact,
            processor_safe: self.processor_safe.unwrap_or(false),
            skip: self.skip.clone(),
            rules: self.rules.clone(),
            corrections: self.corrections.clone(),
            target: target.clone(),
        }
    }
}

/// What happens to BatchNormalization when its convolution is quantized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchNorm {
    /// It is folded into the weights before they are stored.
    #[default]
    Fold,
    /// It stays while the network trains, and is folded at deployment. Integer weights are simulated folded with the running
    /// statistics, which must be frozen before the last epoch that trains (`freeze_statistics`); weights that decode from a table
    /// (codebook, ternary, binary, powers of two) are simulated as they are, and their normalization becomes scales of channels.
    Keep,
}

pub(super) const ENTRY: StageEntry = stage!(
    QuantizeStage,
    epochs: Some(0),
    Manual {
        name: "quantize",
        summary: "Attaches quantizers to weights and activations, calibrates them, and may train with them.",
        details: "\
With a budget the stage searches widths for its layers: budget = \"3 bits\" (mean of the weights), \"90 kB\" (the weights as stored) or
\"1.2 GBOPs\" (sum of MACs * bits of the weight * bits of the activation, for one sample). Each layer alone is set to each of
search.widths, everything else in float, and what that does to the outputs is measured on validation samples, else on training samples
that are not calibration samples. Harm is taken to add up, and the choice of least harm within the budget is found by dynamic
programming. Layers that share a weight, or read the same activation, get one width. Rules win over the search, and what they decide on
counts. The plan is written beside the stage's result as NAME.plan.toml (plan = \"FILE\" reads it again, edited or not), the measurements
as NAME.sensitivity.json (search.sensitivity = \"FILE\"). espalier sensitivity measures without a budget.",
        source: "Least harm in sum within limits: Yao et al. 2021, arXiv:2011.10680, who solve it as an integer linear program",
        example: "weights = { bits = 8, granularity = \"channel\", reduce_range = true }\ncalibration = { observer = \"percentile\", images = 512 }\n",
    }
);

impl StageKind for QuantizeStage {
    fn calibrates(&self) -> bool {
        self.calibration.data == CalibrationData::Train
    }

    fn compression(&self) -> Option<&dyn Compression> {
        Some(self)
    }

    fn files(&self) -> Vec<&str> {
        [&self.plan, &self.search.sensitivity].into_iter().flatten().map(String::as_str).collect()
    }

    fn with_files(&self, place: &dyn Fn(&str) -> PathBuf) -> Result<Option<Arc<dyn StageKind>>, StageError> {
        if self.files().is_empty() {
            return Ok(None);
        }
        let mut whole = self.clone();
        if let Some(plan) = whole.plan.take() {
            whole.rules.splice(0..0, read_rules(&place(&plan))?);
        }
        if let Some(table) = whole.search.sensitivity.take() {
            whole.search.table = Some(Box::new(read_table(&place(&table))?));
        }
        Ok(Some(Arc::new(whole)))
    }

    fn with_defaults(&self, recipe: &Recipe, index: usize) -> Option<Arc<dyn StageKind>> {
        let trains = recipe.stages.iter().skip(index).any(Stage::trains);
        let safe = recipe.target_from(index).sums_in_16_bits() && !trains && self.batch_norm == BatchNorm::Fold;
        (safe && self.processor_safe.is_none()).then(|| Arc::new(QuantizeStage { processor_safe: Some(true), ..self.clone() }) as _)
    }

    fn check(&self, _: &Recipe, _: usize) -> Result<(), Fault> {
        if self.budget.is_some() {
            self.check_search()?;
        }
        self.settings(&target::Choice::default()).check()?;
        self.calibration.check().map_err(|fault| fault.under("calibration"))?;
        let by_channel = |weights: &Choice<Encodings>| weights.grid(Some(0)).is_none_or(|grid| grid.axis.is_some());
        let mut all = self.rules.iter().filter_map(|r| r.weights.as_ref()).chain([&self.weights]);
        if self.batch_norm == BatchNorm::Keep && !all.all(by_channel) {
            let message = "batch_norm = \"keep\" needs granularity = \"channel\" for integer weights: only a scale for each channel can \
                           follow its statistics";
            return Err(Fault::new("weights", message));
        }
        if self.batch_norm == BatchNorm::Keep && !self.corrections.is_empty() {
            let message = "corrections need folded weights: batch_norm = \"keep\" leaves the normalizations in the graph";
            return Err(Fault::new("corrections", message));
        }
        Ok(())
    }

    fn details(&self, _: &Recipe, _: usize) -> Vec<String> {
        let samples = match self.calibration.data {
            CalibrationData::Train => "samples",
            CalibrationData::Generated => "generated images",
        };
        let calibrated = format!("calibrated on {} {samples}, observer {}", self.calibration.images, self.calibration.observer().kind());
        let searched = self.budget.as_ref().map(|budget| {
            let widths: Vec<String> = self.search.widths.iter().map(|w| w.to_string()).collect();
            format!("widths within {budget} are searched, among {} bits, on {} samples", widths.join(", "), self.search.samples)
        });
        let plan = self.plan.as_ref().map(|file| format!("rules of {file}"));
        [calibrated].into_iter().chain(searched).chain(plan).chain(self.rules.iter().map(|rule| format!("rule {rule}"))).collect()
    }

    fn samples(&self, _: &Rows) -> f64 {
        // A choice runs the held-back samples once for each candidate, and once in the float network.
        let observer = self.calibration.observer();
        let judged = observer.held() * (observer.candidates().len() + 1);
        let corrected: usize = self.corrections.iter().map(|c| 3 * c.samples().saturating_add(c.learns_from())).sum();
        // Each layer runs at each width; how many there are is not known here.
        const LAYERS: usize = 20;
        let measures = self.budget.is_some() && self.search.table.is_none();
        let searched = if measures { self.search.samples.saturating_mul(LAYERS * self.search.widths.len()) } else { 0 };
        (self.calibration.images + if observer.held() > 0 { judged } else { 0 } + corrected + searched) as f64
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
        match &self.budget {
            Some(budget) => format!("widths within {budget}"),
            None => format!("{}-bit weights", self.weights.bits()),
        }
    }

    fn quantizers(&self) -> Option<&QuantizeStage> {
        Some(self)
    }

    fn for_trial(&self, samples: usize) -> Option<Box<dyn Compression>> {
        let mut few = self.clone();
        few.calibration.images = few.calibration.images.min(samples);
        few.calibration.batch = few.calibration.batch.min(samples);
        few.calibration.observer = Choice::known("min_max");
        few.calibration.percentile = None;
        // Nothing is measured: every width is the smallest.
        few.search.samples = 0;
        // Corrections that learn take time and change no node, so the trial leaves them out.
        few.corrections.retain(|c| c.learns_from() == 0);
        Some(Box::new(few))
    }

    fn apply(&self, model: &mut Model, on: &CompressOn, tick: Tick) -> Result<Compressed, StageError> {
        let calibrated = calibrate(model, self, on, tick)?;
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
        let made = match self.calibration.data {
            CalibrationData::Train => "samples",
            CalibrationData::Generated => "generated images, without any data",
        };
        let told = match activations {
            0 => format!("{constants} weights stored in fewer bits; activations stay float"),
            _ => format!("{constants} weights, {biases} biases and {activations} activations quantized, calibrated on {samples} {made}"),
        };
        notes.push((false, told));
        notes.extend(report.warnings.into_iter().map(|warning| (true, warning)));
        let part = |p: quantize::FloatPart| FloatPart { node: p.node, op_type: p.op_type, reason: p.reason };
        let float_parts = report.float_parts.into_iter().map(part).collect();
        Ok(Compressed { notes, float_parts, plan: calibrated.plan, ..Compressed::default() })
    }
}

impl StageBody for QuantizeStage {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        if self.calibration.data == CalibrationData::Train {
            sources.calibration_notes(&model)?.into_iter().for_each(|note| cx.note(false, note));
        }
        let done = cx.compress(self, &mut model, &sources)?;
        if let Some(note) = stay_float(&model)? {
            cx.note(false, note);
        }
        let epochs = train(cx, &mut model, None, true, &sources)?;
        let mut output = StageOutput { float_parts: done.float_parts, ..measured(cx, model, epochs, &sources)? };
        output.keep_plan(cx.name, done.plan)?;
        Ok(output)
    }
}

/// True for a file whose layers another tool converted to integers, without quantizers that could be lifted.
fn computes_on_integers(model: &Model) -> bool {
    let mut found = false;
    model.graph.visit(&mut |node| {
        let effect = ops::find(&node.domain, &node.op_type).map(|op| op.effect(node, model));
        found |= matches!(effect, Some(ops::Effect::AlreadyQuantized(_)));
    });
    found
}
