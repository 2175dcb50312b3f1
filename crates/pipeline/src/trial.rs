//! The trial: before anything is trained, the plan's compression is put on the untrained graph, which is lowered, loaded in the target's
//! runtime and run once. What cannot be deployed is refused then, and not after hours of training.
use crate::PipelineError;
use crate::actions::{PolicyStep, Sources, calibrate, settle_norms, student};
use crate::recipe::{DeployStage, DistillStage, Loaded, Observer, QuantizeStage, Stage, Target};
use crate::stages::distill::inherited;
use crate::stages::{StageError, start};
use deploy::runtime::{SessionOptions, Source, by_name, choose};
use deploy::{DeployError, LowerOptions};
use graph::Model;
use std::collections::BTreeMap;
use std::path::Path;

/// Samples that the trial calibrates on.
const SAMPLES: usize = 4;

/// Tries out the stages from `first` on, starting from `model`, the graph before them. Nothing is tried where none of them before the
/// first deploy stage trains or asks for fewer than 8 bits: then that stage itself finds out soon enough. A sentence comes back where the trial could not go to its end although the run may.
///
/// # Errors
/// [`PipelineError::Stage`] for a stage that would fail after training.
pub(crate) fn trial(loaded: &Loaded, root: Option<&Path>, first: usize, model: Option<Model>) -> Result<Option<String>, PipelineError> {
    let stages = &loaded.recipe.stages;
    let Some(last) = stages.iter().skip(first).position(|s| matches!(s, Stage::Deploy(_))).map(|n| first + n) else { return Ok(None) };
    let few = |s: &Stage| matches!(s, Stage::Quantize(q) if q.weights.bits.min(q.activations.bits) < 8);
    if !stages[first..last].iter().any(|s| few(s) || s.training().is_some_and(|t| t.epochs > 0)) {
        return Ok(None);
    }
    let sources = Sources::open(loaded, root).map_err(|e| PipelineError::stage(stages[first].name(), e))?;
    let mut trial = Trial { loaded, root, sources, model, results: BTreeMap::new() };
    for (index, stage) in stages.iter().enumerate().take(last + 1).skip(first) {
        match trial.stage(index, stage) {
            Ok(()) => {}
            Err(e) if !matches!(stage, Stage::Deploy(_)) && depends_on_training(e.as_ref()) => {
                return Ok(Some(format!(
                    "whether the plan can be deployed was not found out before the run: stage '{}': {e}",
                    stage.name()
                )));
            }
            Err(e) => return Err(PipelineError::stage(stage.name(), format!("{e} (found by a trial before the run)"))),
        }
    }
    Ok(None)
}

/// True for what untrained weights may bring about alone: a value without a range.
fn depends_on_training(e: &(dyn std::error::Error + 'static)) -> bool {
    matches!(e.downcast_ref(), Some(quantize::QuantizeError::Value { .. }))
}

struct Trial<'a> {
    loaded: &'a Loaded,
    root: Option<&'a Path>,
    sources: Sources,
    model: Option<Model>,
    /// Results of the stages so far, by name.
    results: BTreeMap<String, Model>,
}

impl Trial<'_> {
    fn stage(&mut self, index: usize, stage: &Stage) -> Result<(), StageError> {
        match stage {
            Stage::Train(train) => {
                if let Some(source) = &train.model {
                    self.model = Some(start(source, self.loaded.recipe.seed, |p| self.loaded.resolve(p, self.root))?.0);
                }
            }
            Stage::Quantize(settings) => self.quantize(settings)?,
            Stage::Distill(settings) => self.distill(index, settings)?,
            Stage::Prune(_) | Stage::Finetune(_) => {}
            Stage::Deploy(settings) => return self.deploy(index, settings),
        }
        let (training, model) = (stage.training(), self.model.as_mut());
        if let (Some(training), Some(model)) = (training.filter(|t| t.epochs > 0), model) {
            ops::mark_kept_norms(model, training.freeze_statistics > 0);
        }
        self.results.extend(self.model.clone().map(|model| (stage.name().to_string(), model)));
        Ok(())
    }

    /// Quantizers on a few samples, with the quickest observer: only their form matters.
    fn quantize(&mut self, settings: &QuantizeStage) -> Result<(), StageError> {
        let mut few = settings.clone();
        few.calibration.images = few.calibration.images.min(SAMPLES);
        few.calibration.batch = few.calibration.batch.min(SAMPLES);
        few.calibration.observer = Observer::MinMax;
        let Some(model) = &mut self.model else { return Ok(()) };
        calibrate(model, &few, &self.sources, self.loaded.recipe.seed, None, &mut |_, _| {})?;
        Ok(())
    }

    fn distill(&mut self, index: usize, settings: &DistillStage) -> Result<(), StageError> {
        let Some(of) = &settings.student else { return Ok(()) };
        let teacher = match self.results.get(&settings.teacher).or(self.model.as_ref()) {
            Some(model) => model.clone(),
            None => onnx::load(&self.loaded.resolve(&settings.teacher, self.root))?,
        };
        let recipe = &self.loaded.recipe;
        self.model = Some(student(of, recipe.begins_with(), &teacher, recipe.seed, |p| self.loaded.resolve(p, self.root))?);
        for (_, step) in inherited(recipe, index) {
            if let PolicyStep::Quantize(quantize) = step {
                self.quantize(&quantize)?;
            }
        }
        Ok(())
    }

    /// Lowers what the plan makes, loads it literally and as the runtime does by default, and runs a sample through each.
    fn deploy(&mut self, index: usize, settings: &DeployStage) -> Result<(), StageError> {
        let Some(mut model) = self.model.clone() else { return Ok(()) };
        let quantize = self.loaded.recipe.stages[..index].iter().rev().find_map(|s| match s {
            Stage::Quantize(q) => Some(q),
            _ => None,
        });
        settle_norms(&mut model, quantize)?;
        let lowered = deploy::lower(&model, &LowerOptions { opset: settings.opset })?;
        let bytes = onnx::to_bytes(&lowered.model)?;
        let runtime = match settings.target {
            Target::OnnxRuntime => choose().runtime,
            Target::Reference => by_name("reference")?,
        };
        let sample = self.sources.one_sample(&model)?;
        for options in [SessionOptions::literal(1), SessionOptions::default_arithmetic(1)] {
            let ran = runtime.load(Source::Bytes(&bytes), options).and_then(|mut session| session.run(&sample));
            ran.map_err(|e| refused(&e, options, quantize))?;
        }
        Ok(())
    }
}

/// The runtime's own message, and what can be done.
fn refused(e: &DeployError, options: SessionOptions, quantize: Option<&QuantizeStage>) -> StageError {
    let how = if options.optimize { "the deployed file, by default (it runs literally)" } else { "the deployed file" };
    let few: Vec<String> = quantize
        .into_iter()
        .flat_map(|q| [("weights", q.weights.bits), ("activations", q.activations.bits)])
        .filter(|(_, bits)| *bits < 8)
        .map(|(what, bits)| format!("{what}.bits = {bits}"))
        .collect();
    let remedy = match few.is_empty() {
        true => String::new(),
        false => format!("; not every runtime has what {} needs: more bits can be deployed in it", few.join(" and ")),
    };
    format!("{how} cannot be used: {e}{remedy}; target = \"reference\" deploys for the reference interpreter, which runs everything").into()
}
