//! Calibration as the recipe asks for it. Statistics of an earlier calibration are reused if everything that they depend on is
//! the same.
use super::counted::counted;
use super::{CompressOn, FoundPlan, Tick};
use crate::StageError;
use crate::recipe::{BatchNorm, CalibrationData, QuantizeStage};
use crate::run_dir::{Cache, Key};
use graph::Model;
use quantize::{CalibrationReport, Chosen, CorrectionInput, CorrectionReport, Earlier, Observations, Phase, QuantizeSettings};
use std::cell::RefCell;
use technique::Choice;
use train::{Batches, LoaderBatches};

/// The cache's name for files of statistics.
const KIND: &str = "statistics";

/// The observer that is taken if there are too few samples to hold any back.
const ALONE: &str = "min_max";

/// Salt that separates the random numbers of corrections from others of the recipe's seed.
const CORRECTIONS: u64 = 0xc0_22ec7;

/// A model's calibration.
pub struct Calibrated {
    /// Numbers of quantized values, and warnings.
    pub report: CalibrationReport,
    /// The statistics of an earlier calibration were used.
    pub reused: bool,
    /// How the observer was chosen, if the recipe leaves it open.
    pub choice: Option<Chosen>,
    /// There were too few samples to choose an observer by.
    pub alone: bool,
    /// The widths that were found for a budget.
    pub plan: Option<FoundPlan>,
    /// Notes on keys in an old spelling, with the new one.
    pub old_spelling: Vec<String>,
}

impl Calibrated {
    /// Sentences for the user: whether statistics were reused, which observer was chosen, which layers keep an earlier grid.
    pub fn notes(&self) -> Vec<String> {
        let reused = "statistics of an earlier calibration are used: model, samples and preprocessing are the same";
        let mut notes: Vec<String> = self.reused.then(|| reused.to_string()).into_iter().collect();
        notes.extend(self.old_spelling.clone());
        if self.alone {
            notes.push(format!("observer = \"auto\": there are too few samples to hold any back, so {ALONE} is taken"));
        }
        if let Some(choice) = &self.choice {
            let errors: Vec<String> = choice.errors.iter().map(|(name, e)| format!("{name} {:.2} %", e * 100.0)).collect();
            notes.push(format!(
                "observer = \"auto\": {} is taken, with the least error at the outputs on {} samples held back ({})",
                choice.observer,
                choice.samples,
                errors.join(", ")
            ));
        }
        notes.extend(self.plan.iter().map(|plan| plan.note.clone()).filter(|note| !note.is_empty()));
        if !self.report.kept.is_empty() {
            notes.push(format!(
                "{} layers that skip leaves out keep the grids of an earlier quantization: {}",
                self.report.kept.len(),
                self.report.kept.join(", ")
            ));
        }
        if self.report.widened > 0 {
            notes.push(format!(
                "processor_safe: {} channels of weights have a larger scale, so that their sums saturate on no processor; false leaves them as they fit best",
                self.report.widened
            ));
        }
        for correction in &self.report.corrections {
            notes.extend(correction.notes.iter().map(|note| format!("{}: {note}", correction.kind)));
        }
        notes
    }
}

/// A model whose values were observed, before any grid is fitted.
pub(super) struct Observed {
    /// The settings, the observer chosen.
    pub(super) settings: QuantizeSettings,
    /// The statistics.
    pub(super) seen: Observations,
    earlier: Earlier,
    /// The graph before its normalizations were folded, if they are kept.
    kept: Option<Model>,
    /// The calibration samples.
    data: LoaderBatches,
    /// The samples that the observer was chosen on.
    held: Option<LoaderBatches>,
    /// Reports of corrections before the fitting.
    corrections: Vec<CorrectionReport>,
    reused: bool,
    choice: Option<Chosen>,
    alone: bool,
}

/// A model before its values are observed.
pub(super) struct Begun {
    settings: QuantizeSettings,
    earlier: Earlier,
    /// The graph before its normalizations were folded, if they are kept.
    pub(super) kept: Option<Model>,
    data: LoaderBatches,
    held: Option<LoaderBatches>,
    corrections: Vec<CorrectionReport>,
}

/// Folds BatchNormalization, and corrects what is corrected before the fitting: the float network whose grids will be fitted.
///
/// # Errors
/// As [`calibrate`].
pub(super) fn begun(model: &mut Model, stage: &QuantizeStage, on: &CompressOn) -> Result<Begun, StageError> {
    let CompressOn { sources, seed, .. } = *on;
    let mut settings = stage.settings(on.target);
    let earlier = quantize::prepare(model, &settings)?;
    quantize::check_skip(model, &settings)?;
    let kept = (stage.batch_norm == BatchNorm::Keep).then(|| model.clone());
    ops::fold_batch_norm(model)?;
    let c = &stage.calibration;
    // Without quantized activations there is no observer to choose.
    if quantize::plan(model, &settings)?.activations.is_empty() {
        settings.observer = Choice::known(ALONE);
    }
    let hold = settings.observer.held().min(c.images);
    let (data, held) = sources.calibration(model, c, seed, hold)?;
    let corrections = {
        let samples = || Box::new(data.epoch(0)) as Box<dyn Iterator<Item = _>>;
        let input = CorrectionInput { samples: &samples, seed: tensor::random::derive(seed, CORRECTIONS), progress: &|_, _| {} };
        quantize::correct(model, &settings, Phase::BeforeFitting, &input)?
    };
    Ok(Begun { settings, earlier, kept, data, held, corrections })
}

/// [`begun`], and observes the values. With a `cache`, the data run once for all observers and widths.
///
/// # Errors
/// As [`calibrate`].
pub(super) fn observed(model: &mut Model, stage: &QuantizeStage, on: &CompressOn, tick: Tick) -> Result<Observed, StageError> {
    let CompressOn { seed, cache, .. } = *on;
    let Begun { mut settings, earlier, kept, data, held, corrections } = begun(model, stage, on)?;
    let c = &stage.calibration;
    let generated = (c.data == CalibrationData::Generated).then(|| c.seed.unwrap_or(seed));
    let entry = cache.map(|cache| Ok::<_, StageError>((cache, key(&cache, model, &settings, (&data, generated))?))).transpose()?;
    let known = entry.as_ref().and_then(|(cache, key)| cache.get(KIND, key));
    let reused = known.is_some();
    let seen = match known {
        Some(seen) => seen,
        None => {
            let seen = quantize::observe(model, &settings, counted(&data, &mut *tick))?;
            if let Some((cache, key)) = entry {
                cache.put(KIND, &key, &seen)?;
            }
            seen
        }
    };
    let mut choice = None;
    let alone = !settings.observer.candidates().is_empty() && held.is_none();
    if alone {
        settings.observer = Choice::known(ALONE);
    }
    if let Some(held) = &held {
        let chosen = quantize::choose(model, &settings, &seen, counted(held, &mut *tick))?;
        settings.observer = chosen.observer.clone();
        choice = Some(chosen);
    }
    Ok(Observed { settings, seen, earlier, kept, data, held, corrections, reused, choice, alone })
}

/// Folds BatchNormalization (or, with `batch_norm = "keep"`, only prepares the simulation of the folded weight), and fits
/// quantizers to weights and, on calibration data, to activations; with a budget, of the widths that were found for it.
///
/// # Errors
/// Errors of the settings, the data or the graph; a budget that cannot be met; a cache that cannot be written; with
/// `batch_norm = "keep"`, a weight whose folded form cannot be simulated.
pub fn calibrate(model: &mut Model, stage: &QuantizeStage, on: &CompressOn, tick: Tick) -> Result<Calibrated, StageError> {
    let before = observed(model, stage, on, tick)?;
    let Observed { mut settings, seen, earlier, kept, data, held, mut corrections, reused, mut choice, alone } = before;
    let plan = super::widths::find(model, &settings, &seen, stage, on, tick)?;
    settings.rules.splice(0..0, plan.iter().flat_map(|plan| plan.rules.clone()));
    // What is best at other widths need not be at these.
    if let (Some(held), Some(_)) = (held.filter(|_| choice.is_some()), &plan) {
        settings.observer = stage.settings(on.target).observer;
        let chosen = quantize::choose(model, &settings, &seen, counted(&held, &mut *tick))?;
        settings.observer = chosen.observer.clone();
        choice = Some(chosen);
    }
    let mut report = quantize::fit(model, &settings, &seen)?;
    quantize::keep_earlier(model, &settings, &earlier, &mut report)?;
    let samples = || Box::new(data.epoch(0)) as Box<dyn Iterator<Item = _>>;
    let tick = RefCell::new(tick);
    let seed = tensor::random::derive(on.seed, CORRECTIONS);
    let input = CorrectionInput { samples: &samples, seed, progress: &|done, all| (tick.borrow_mut())(done, all) };
    corrections.extend(quantize::correct(model, &settings, Phase::AfterFitting, &input)?);
    report.corrections = corrections;
    if let Some(kept) = kept {
        *model = quantize::keep_norms(kept, model)?;
    }
    Ok(Calibrated { report, reused, choice, alone, plan, old_spelling: stage.old_spellings() })
}

/// The key of the statistics: the float graph, which of its values are observed, the rows and their preprocessing; neither
/// observer nor width. The data's content is part of the whole run's key.
fn key(
    cache: &Cache,
    model: &Model,
    settings: &QuantizeSettings,
    (data, generated): (&LoaderBatches, Option<u64>),
) -> Result<Key, StageError> {
    let options = data.options();
    let numbers = |list: &mut dyn Iterator<Item = u64>| list.flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
    let observed = quantize::plan(model, settings)?;
    let rows = options.rows.as_ref().map(|rows| numbers(&mut rows.iter().map(|r| *r as u64)));
    let key = match generated {
        None => cache.key(),
        Some(seed) => cache.key().part("generated with seed", seed.to_string()),
    };
    Ok(key
        .part("calibration with sums and channels of", onnx::to_bytes(model)?)
        .part("observed", numbers(&mut observed.activations.keys().map(|id| u64::from(id.0))))
        .part("momentum", settings.observer.momentum().to_le_bytes())
        .part("rows", rows.unwrap_or_default())
        .part("batch", options.batch.to_string())
        .part("preprocess", serde_json::to_string(&options.preprocess)?)
        .finish())
}
