//! Why a quantize stage costs accuracy, what to try, and trying it.
mod advice;
mod change;
mod fix;

pub use change::Change;
pub use fix::{Apply, TryBudget};

use super::calibrate::begun;
use super::{CompressOn, Tick, calibrate, metric_record};
use crate::StageError;
use crate::recipe::QuantizeStage;
use advice::{Shared, advice};
use graph::Model;
use quantize::diagnosis::{self, Diagnosis, LayerDiagnosis};
use quantize::mixed::Effect;
use report::record::{CauseRecord, DiagnosisRecord, EffectRecord, LayerErrorRecord, SCHEMA_VERSION, SuggestionRecord, readable};
use tensor::SignalToNoise;
use train::{Batches, LoaderBatches};

/// Most samples that run at once: the values of a whole batch are kept.
const BATCH: usize = 16;

/// The rise of the loss, as a part of it, up to which a network with no worse a metric counts as good as another.
const NO_RISE: f64 = 0.02;

/// A quantize stage to be diagnosed.
pub struct Diagnose<'a> {
    /// The network before the stage.
    pub before: &'a Model,
    /// The network after it; absent: the stage calibrates it here, without its epochs.
    pub quantized: Option<&'a Model>,
    /// The stage's name.
    pub name: &'a str,
    /// Its settings.
    pub stage: &'a QuantizeStage,
    /// Epochs that it trains.
    pub epochs: u64,
    /// Samples to measure on.
    pub samples: usize,
    /// Data sets, seed and target.
    pub on: &'a CompressOn<'a>,
}

/// A diagnosis with the changes of its suggestions, in their order.
pub struct Diagnosed {
    /// What was found.
    pub record: DiagnosisRecord,
    /// The change that each suggestion makes.
    pub changes: Vec<Change>,
    /// The quantized network.
    quantized: Model,
}

/// Samples to judge by, never test samples.
struct Judging {
    data: LoaderBatches,
    taken_from: String,
    labelled: bool,
}

impl Diagnose<'_> {
    /// Measures the layers and says what to try. The networks stay as they are.
    ///
    /// # Errors
    /// Errors of the settings, the data or the graph; for a quantized network that is none.
    pub fn run(&self, tick: Tick) -> Result<Diagnosed, StageError> {
        let mut notes = vec![];
        let calibrated;
        let quantized = match self.quantized {
            Some(model) => model,
            None => {
                let mut model = self.before.clone();
                let done = calibrate(&mut model, self.stage, self.on, &mut *tick)?;
                notes.extend(done.notes());
                if self.epochs > 0 {
                    notes.push(
                        "the stage trains after it calibrates; this is the network as calibrated. A run's folder has the trained one"
                            .into(),
                    );
                }
                calibrated = model;
                &calibrated
            }
        };
        let mut quantized = quantized.clone();
        if !quantized.functions.is_empty() {
            quantized = graph::inline_functions(&quantized)?;
        }
        if !quantized.annotations.iter().any(|(_, a)| a.encoding.is_some()) {
            return Err("nothing in the network after the stage is quantized".into());
        }
        let judging = self.judging()?;
        let float = self.float(&quantized, &judging, &mut notes)?;
        let task = self.on.sources.task().member();
        let task = judging.labelled.then(|| task.as_ref());
        let all = judging.data.batches();
        let mut runs = 0;
        let mut step = |done: u64, of: u64| {
            tick(runs, all * of);
            runs += 1;
            let _ = done;
        };
        let found = diagnosis::diagnose(&float, &quantized, self.on.target, task, judging.data.epoch(0), &mut step)?;
        tick(1, 1);
        self.diagnosed(&found, quantized, judging.taken_from, notes)
    }

    fn judging(&self) -> Result<Judging, StageError> {
        let c = &self.stage.calibration;
        let used = c.images + c.observer().held().min(c.images);
        let seed = c.seed.unwrap_or(self.on.seed);
        let (data, taken_from, labelled) = self.on.sources.judging(self.before, self.samples, c.batch.min(BATCH), (seed, used))?;
        Ok(Judging { data, taken_from, labelled })
    }

    /// The float network with the values of the quantized one.
    fn float(&self, quantized: &Model, judging: &Judging, notes: &mut Vec<String>) -> Result<Model, StageError> {
        let own = || Ok(diagnosis::without_encodings(quantized));
        if self.epochs > 0 && self.quantized.is_some() {
            notes.push("The stage trained the weights: errors are those of its quantizers, on the weights that it ended with.".into());
            return own();
        }
        let mut float = self.before.clone();
        let kept = begun(&mut float, self.stage, self.on)?.kept;
        let first = judging.data.epoch(0).next().ok_or("there are no samples to measure on")??;
        match diagnosis::reference(quantized, kept.as_ref().unwrap_or(&float), &first)? {
            Some(reference) => Ok(reference),
            None => {
                let note = "The network before the stage has another graph than the one after it: errors are those of the quantizers, on the \
                            weights that the stage ended with; what corrections changed in them is not seen.";
                notes.push(note.into());
                own()
            }
        }
    }

    fn diagnosed(&self, found: &Diagnosis, quantized: Model, taken_from: String, mut notes: Vec<String>) -> Result<Diagnosed, StageError> {
        let measured = found.float.metric.is_some().then(|| metric_record(self.on.sources.task().member().as_ref()));
        let figures = (found.float.metric.zip(found.quantized.metric)).zip(found.float.loss.zip(found.quantized.loss));
        if let (Some(metric), Some(((right, got), (loss, rises_to)))) = (&measured, figures)
            && metric.loss(right, got) <= 0.0
            && rises_to <= loss * (1.0 + NO_RISE)
        {
            let note = "On these samples the quantized network is as good as the float one; what follows says where its outputs differ.";
            notes.push(note.into());
        }
        let shares: Vec<f64> = Shared::of(found).shares().collect();
        let layers = found.layers.iter().zip(shares).map(|(l, share)| layer_record(l, share)).collect();
        let (mut suggestions, mut changes) = (vec![], vec![]);
        for advice in advice(found, self.stage, self.epochs) {
            let line = advice.change.line(self.stage)?;
            suggestions.push(SuggestionRecord { line, why: advice.why, expected: advice.expected, tried: None });
            changes.push(advice.change);
        }
        let record = DiagnosisRecord {
            schema_version: SCHEMA_VERSION,
            name: String::new(),
            stage: self.name.to_string(),
            samples: found.samples as u64,
            taken_from,
            measured,
            float: effect_record(&found.float),
            quantized: effect_record(&found.quantized),
            notes,
            layers,
            suggestions,
            fixed: None,
        };
        Ok(Diagnosed { record, changes, quantized })
    }
}

fn effect_record(effect: &Effect) -> EffectRecord {
    EffectRecord { noise: readable(effect.noise), loss: effect.loss.map(readable), metric: effect.metric }
}

fn layer_record(l: &LayerDiagnosis, share: f64) -> LayerErrorRecord {
    let db = |ratio: SignalToNoise| Some(ratio.db()).filter(|db| db.is_finite());
    let c = &l.causes;
    LayerErrorRecord {
        layer: l.node.clone(),
        op: l.op.clone(),
        weights: l.weights.clone(),
        data: l.data.clone(),
        path_db: db(l.path),
        alone_db: db(l.own),
        causes: CauseRecord {
            data_clipped: c.data_clipped,
            data_rounded: c.data_rounded,
            weights_clipped: c.weights_clipped,
            weights_rounded: c.weights_rounded,
            shift: c.shift,
        },
        saturated: l.saturated,
        alone: effect_record(&l.alone),
        share,
    }
}
