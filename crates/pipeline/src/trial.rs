//! The trial: before anything is trained, the plan's compression is applied to the untrained graph, which is lowered, loaded in
//! the target's runtime and run once. So a plan that cannot be deployed is refused at once, and not after hours of training.
use crate::PipelineError;
use crate::actions::{CompressOn, Compression, Sources, export_options, settle_norms};
use crate::recipe::{DeployStage, Loaded, QuantizeStage, Recipe, Stage, Training};
use crate::stages::{NetworkCx, StageError, StageKind};
use deploy::DeployError;
use deploy::runtime::{SessionOptions, of_target};
use graph::Model;
use std::collections::BTreeMap;
use std::path::Path;

/// Samples that the trial calibrates on.
const SAMPLES: usize = 4;

/// Tries the stages from `first` on, starting from `model`, the graph before them. There is no trial if none of them before the
/// first deploy stage trains or asks for fewer than 8 bits: then that stage itself reports problems soon enough. Returns a
/// sentence if the trial could not be completed although the run may succeed.
///
/// # Errors
/// [`PipelineError::Stage`] for a stage that would fail after training.
pub(crate) fn trial(loaded: &Loaded, root: Option<&Path>, first: usize, model: Option<Model>) -> Result<Option<String>, PipelineError> {
    let stages = &loaded.recipe.stages;
    let Some(last) = stages.iter().skip(first).position(|s| s.deploys()).map(|n| first + n) else { return Ok(None) };
    let few = |s: &Stage| {
        s.get::<QuantizeStage>().is_some_and(|q| q.budget.is_some() || q.weights.bits().min(q.activations.stored().unwrap_or(8)) < 8)
    };
    if !stages[first..last].iter().any(|s| few(s) || s.trains()) {
        return Ok(None);
    }
    let sources = Sources::open(loaded, root).map_err(|e| PipelineError::stage(stages[first].name(), e))?;
    let mut trial = Trial { loaded, root, sources, model, target: target::Choice::default(), results: BTreeMap::new() };
    for (index, stage) in stages.iter().enumerate().take(last + 1).skip(first) {
        match trial.stage(index, stage) {
            Ok(()) => {}
            Err(e) if !stage.deploys() && depends_on_training(e.as_ref()) => {
                return Ok(Some(format!(
                    "the trial before the run could not tell whether the plan can be deployed: stage '{}': {e}",
                    stage.name()
                )));
            }
            Err(e) => return Err(PipelineError::stage(stage.name(), format!("{e} (found by a trial before the run)"))),
        }
    }
    Ok(None)
}

/// True for errors that may come from untrained weights alone: a value without a range.
fn depends_on_training(e: &(dyn std::error::Error + 'static)) -> bool {
    matches!(e.downcast_ref(), Some(quantize::QuantizeError::Value { .. }))
}

/// The state of the trial.
pub struct Trial<'a> {
    loaded: &'a Loaded,
    root: Option<&'a Path>,
    sources: Sources,
    model: Option<Model>,
    /// The target of the deployment.
    target: target::Choice,
    /// Results of the stages so far, by name.
    results: BTreeMap<String, Model>,
}

impl<'a> Trial<'a> {
    fn stage(&mut self, index: usize, stage: &Stage) -> Result<(), StageError> {
        self.target = self.loaded.recipe.target_from(index);
        stage.trial(self, index)?;
        if stage.deploys() {
            return Ok(());
        }
        if let (Some(training), Some(model)) = (stage.training().filter(|t| t.epochs > 0), self.model.as_mut()) {
            ops::mark_kept_norms(model, training.freeze_statistics > 0);
        }
        self.results.extend(self.model.clone().map(|model| (stage.name().to_string(), model)));
        Ok(())
    }

    /// The recipe under trial.
    pub(crate) fn recipe(&self) -> &'a Recipe {
        &self.loaded.recipe
    }

    /// A teacher: an earlier stage's untrained result, or a file.
    pub(crate) fn teacher(&self, name: &str) -> Result<Model, StageError> {
        match self.results.get(name).or(self.model.as_ref()) {
            Some(model) => Ok(model.clone()),
            None => Ok(onnx::load(&self.loaded.resolve(name, self.root))?),
        }
    }

    /// Replaces the graph by a stage's own network, if it has one.
    pub(crate) fn replace(&mut self, stage: &dyn StageKind, teacher: Option<&Model>) -> Result<(), StageError> {
        let recipe = &self.loaded.recipe;
        let place = |p: &str| self.loaded.resolve(p, self.root);
        let own = stage.network(&NetworkCx { recipe, seed: recipe.seed, teacher, place: &place })?;
        self.model = own.or(self.model.take());
        Ok(())
    }

    /// Attaches a stage's compression, fitted to a few samples: only its form matters.
    pub(crate) fn compress(&mut self, compression: &dyn Compression) -> Result<(), StageError> {
        let (Some(few), Some(model)) = (compression.for_trial(SAMPLES), &mut self.model) else { return Ok(()) };
        let (seed, training) = (self.loaded.recipe.seed, &Training::default());
        let on = CompressOn { sources: &self.sources, seed, training, target: &self.target, cache: None };
        few.apply(model, &on, &mut |_, _| {}).map(|_| ())
    }

    /// Lowers the planned model, loads it with literal and with default arithmetic, and runs a sample through each.
    pub(crate) fn deploy(&mut self, index: usize, settings: &DeployStage) -> Result<(), StageError> {
        let Some(mut model) = self.model.clone() else { return Ok(()) };
        let quantize = self.loaded.recipe.stages[..index].iter().rev().find_map(|s| s.get::<QuantizeStage>());
        settle_norms(&mut model, quantize, &settings.target)?;
        let artifact = settings.format.export(&model, &export_options(settings))?;
        let runtime = of_target(&**settings.target.member())?.runtime;
        let sample = self.sources.one_sample(&model)?;
        for options in [SessionOptions::literal(1), SessionOptions::default_arithmetic(1)] {
            let ran = runtime.load(artifact.source(), options).and_then(|mut session| session.run(&sample));
            ran.map_err(|e| refused(&e, options, quantize))?;
        }
        Ok(())
    }
}

/// The runtime's own message, with a remedy.
fn refused(e: &DeployError, options: SessionOptions, quantize: Option<&QuantizeStage>) -> StageError {
    let how = if options.optimize { "the deployed file, by default (it runs literally)" } else { "the deployed file" };
    if let Some(smallest) = quantize.filter(|q| q.budget.is_some()).and_then(|q| q.search.widths.first()) {
        return format!(
            "{how} cannot be used: {e}; not every runtime has what {smallest} bits need: leave the smallest widths out of search.widths, \
             or target = \"reference\" deploys for the reference interpreter, which runs everything"
        )
        .into();
    }
    let few: Vec<String> = quantize
        .into_iter()
        .flat_map(|q| [("weights", q.weights.bits()), ("activations", q.activations.stored().unwrap_or(8))])
        .filter(|(_, bits)| *bits < 8)
        .map(|(what, bits)| format!("{what}.bits = {bits}"))
        .collect();
    let remedy = match few.is_empty() {
        true => String::new(),
        false => format!("; not every runtime has what {} needs: more bits can be deployed in it", few.join(" and ")),
    };
    format!("{how} cannot be used: {e}{remedy}; target = \"reference\" deploys for the reference interpreter, which runs everything").into()
}
