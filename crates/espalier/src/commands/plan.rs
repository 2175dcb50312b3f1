//! `run --dry-run`: the stages of a run, with estimates of time and memory.
use super::bench::{BenchOptions, TrainBenchOptions, time_training};
use super::inputs::random_inputs;
use crate::Result;
use graph::Model;
use pipeline::actions::{Rows, Sources};
use pipeline::recipe::{Stage, load};
use pipeline::stages::NetworkCx;
use pipeline::{PlannedStage, RunOptions};
use report::text;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use train::{Executor, Mode};

/// The plan of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The recipe's name.
    pub name: String,
    /// The run's folder.
    pub out: PathBuf,
    /// Training, validation and test samples.
    pub images: [usize; 3],
    /// The stages in order, with their estimated times.
    pub stages: Vec<PlannedTime>,
    /// What could not be estimated, and why.
    pub notes: Vec<String>,
}

/// A stage with its estimated cost.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedTime {
    /// The stage as the recipe defines it.
    pub stage: PlannedStage,
    /// Training steps.
    pub steps: u64,
    /// Measured time of a step, in milliseconds.
    pub step_ms: Option<f64>,
    /// Estimated seconds, measuring included; 0 where the result is stored already.
    pub seconds: Option<f64>,
    /// Bytes that a training step holds: weights, gradients, optimizer and activations.
    pub step_memory_bytes: Option<u64>,
}

/// Plans a run: reads the recipe and its files, times two training steps of each network that would be trained, on random inputs,
/// and writes nothing.
///
/// # Errors
/// If the recipe, a model or a data set cannot be read. A network that cannot be timed is told in a note.
pub fn plan(path: &Path, overrides: &[String], mut options: RunOptions) -> Result<Plan> {
    let loaded = load(path, overrides)?;
    let recipe = &loaded.recipe;
    if options.out.as_os_str().is_empty() {
        options.out = Path::new("runs").join(&recipe.name);
    }
    tensor::set_threads(recipe.threads);
    let planned = pipeline::plan(&loaded, &options)?;
    let staged = |e: pipeline::stages::StageError| crate::Error::Input(e.to_string());
    let rows = Sources::open(&loaded, options.data.as_deref()).map_err(staged)?.rows();
    let place = |p: &str| loaded.resolve(p, options.data.as_deref());
    let mut clock = Clock { times: BTreeMap::new(), notes: vec![] };
    let mut networks: Vec<(String, Model)> = vec![];
    let mut current = match recipe.begins_with() {
        Some(source) => Some(pipeline::stages::start(source, recipe.seed, place).map_err(staged)?.0),
        None => None,
    };
    let mut quantized = false;
    let mut stages = vec![];
    for (i, stage) in planned.into_iter().enumerate() {
        let settings = &recipe.stages[i];
        let teacher = match settings.teacher().filter(|_| !stage.cached) {
            Some(name) => match networks.iter().find(|(n, _)| n == name) {
                Some((_, model)) => Some(model.clone()),
                None => Some(onnx::load(&place(name))?),
            },
            None => None,
        };
        // The model that the run begins with exists already.
        if i > 0 || teacher.is_some() {
            let on = NetworkCx { recipe, seed: recipe.seed, teacher: teacher.as_ref(), place: &place };
            if let Some(own) = settings.network(&on).map_err(staged)? {
                (current, quantized) = (Some(own), false);
            }
        }
        quantized |= quantizes(settings);
        stages.push(clock.stage(settings, stage, current.as_ref(), teacher.as_ref(), quantized, rows));
        // A student is compressed after it has been trained.
        quantized |= settings.begins_anew().is_some() && settings.teacher().is_some() && recipe.stages[..i].iter().any(quantizes);
        networks.extend(current.clone().map(|m| (settings.name().to_string(), m)));
    }
    let images = [rows.train, rows.validation, rows.test];
    Ok(Plan { name: recipe.name.clone(), out: options.out, images, stages, notes: clock.notes })
}

/// True for a stage that attaches quantizers.
fn quantizes(stage: &Stage) -> bool {
    stage.compression().is_some_and(|c| c.quantizers().is_some())
}

/// Times networks, each once.
struct Clock {
    /// Milliseconds and bytes of a step, keyed by everything they depend on.
    times: BTreeMap<(String, usize, bool, bool), Option<(f64, u64)>>,
    notes: Vec<String>,
}

impl Clock {
    fn stage(
        &mut self,
        settings: &Stage,
        stage: PlannedStage,
        model: Option<&Model>,
        teacher: Option<&Model>,
        quantized: bool,
        rows: Rows,
    ) -> PlannedTime {
        let training = settings.training().filter(|t| t.epochs > 0);
        let steps = training.as_ref().map_or(0, |t| t.epochs * (rows.train / t.batch.max(1)).max(1) as u64);
        let Some(model) = model.filter(|_| !stage.cached) else {
            return PlannedTime { seconds: stage.cached.then_some(0.0), stage, steps, step_ms: None, step_memory_bytes: None };
        };
        let step = training.as_ref().and_then(|t| self.step(model, teacher, t.batch, quantized));
        let sample = self.sample(model);
        let epochs = training.as_ref().map_or(0, |t| t.epochs) as f64;
        let images = settings.samples(&rows);
        let measured = if settings.deploys() { 0.0 } else { rows.test as f64 + (epochs + 1.0) * rows.validation as f64 };
        let trained = match (steps, step) {
            (0, _) => Some(0.0),
            (n, Some((ms, _))) => Some(n as f64 * ms / 1e3),
            (_, None) => None,
        };
        let seconds = trained.zip(sample).map(|(t, s)| t + (images + measured) * s);
        PlannedTime { stage, steps, step_ms: step.map(|s| s.0), seconds, step_memory_bytes: step.map(|s| s.1) }
    }

    /// Milliseconds and bytes of a training step.
    fn step(&mut self, model: &Model, teacher: Option<&Model>, batch: usize, quantized: bool) -> Option<(f64, u64)> {
        let key = (model.graph.name.clone() + &model.values.iter().count().to_string(), batch, quantized, teacher.is_some());
        if let Some(known) = self.times.get(&key) {
            return *known;
        }
        let options = BenchOptions { batch, rounds: 2, shapes: BTreeMap::new(), input: None };
        let compression = TrainBenchOptions { qat: quantized, ..TrainBenchOptions::default() };
        let measured = match time_training(model.clone(), teacher, &options, &compression) {
            Ok(bench) => Some((bench.step_ms_best, bench.step_memory_bytes)),
            Err(why) => {
                self.notes.push(format!("a training step could not be timed: {why}"));
                None
            }
        };
        self.times.insert(key, measured);
        measured
    }

    /// Seconds of the forward pass for one sample, measured in a batch.
    fn sample(&mut self, model: &Model) -> Option<f64> {
        const BATCH: usize = 8;
        let timed = || -> Result<f64> {
            let inputs = random_inputs(model, &BTreeMap::new(), BATCH, 0)?;
            let count = inputs.values().next().and_then(|t| t.shape().first().copied()).unwrap_or(1).max(1);
            let executor = Executor::new(model)?;
            executor.run(&inputs, Mode::FLOAT)?;
            let began = Instant::now();
            executor.run(&inputs, Mode::FLOAT)?;
            Ok(began.elapsed().as_secs_f64() / count as f64)
        };
        match timed() {
            Ok(seconds) => Some(seconds),
            Err(why) => {
                let note = format!("the network could not be timed: {why}");
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
                None
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [train, validation, test] = self.images;
        writeln!(f, "{}: {} stages into {}; nothing was run", self.name, self.stages.len(), self.out.display())?;
        writeln!(f, "samples: {train} to train on, {validation} for validation, {test} to test")?;
        for (i, planned) in self.stages.iter().enumerate() {
            let stage = &planned.stage;
            let kind = if stage.name == stage.kind { String::new() } else { format!(" ({})", stage.kind) };
            let time = match (stage.cached, planned.seconds) {
                (true, _) => "already done".to_string(),
                (false, Some(s)) => format!("about {}", text::duration(s)),
                (false, None) => "time not known".to_string(),
            };
            writeln!(f, "[{}/{}] {}{kind}: {time}", i + 1, self.stages.len(), stage.name)?;
            if planned.steps > 0 && !stage.cached {
                let ms = planned.step_ms.map_or(String::new(), |ms| format!(" of {ms:.1} ms (measured)"));
                let bytes = planned.step_memory_bytes.map_or(String::new(), |b| format!(", a step holds {}", text::bytes(b)));
                writeln!(f, "      {} epochs, {} steps{ms}{bytes}", stage.epochs, planned.steps)?;
            }
            stage.details.iter().try_for_each(|detail| writeln!(f, "      {detail}"))?;
        }
        let known: f64 = self.stages.iter().filter_map(|s| s.seconds).sum();
        let peak = self.stages.iter().filter_map(|s| s.step_memory_bytes).max();
        let peak =
            peak.map_or(String::new(), |b| format!(", {} at most in a training step besides the samples kept in memory", text::bytes(b)));
        writeln!(f, "in all about {}{peak}", text::duration(known))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}
