//! The context of a stage within its run.
use super::StageError;
use crate::actions::{CompressOn, Compressed, Compression, MemoryProbe, Original, Sources, Tick, metric_record};
use crate::recipe::{DataSettings, DeployStage, Loaded, QuantizeStage, Stage, Training};
use crate::run_dir::{Cache, StageDir};
use crate::{Event, Listener, PipelineError};
use graph::Model;
use report::record::{EpochPoint, Note};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The context of one stage.
pub struct StageCx<'a> {
    /// The recipe, its path and its text.
    pub loaded: &'a Loaded,
    /// The stage's name.
    pub name: &'a str,
    /// Its position, from 0: part of the seed of its random numbers.
    pub index: usize,
    /// Threads that compute.
    pub threads: usize,
    /// Set when the user wants to stop; the trainer checks it after each step.
    pub stop: &'a AtomicBool,
    pub(crate) data_root: Option<&'a Path>,
    pub(crate) dir: &'a StageDir,
    pub(crate) cache: Cache<'a>,
    pub(crate) results: &'a BTreeMap<String, PathBuf>,
    pub(crate) listener: &'a mut dyn Listener,
    pub(crate) notes: Vec<Note>,
    pub(crate) clock: Clock,
    /// The program to start for measuring memory, if allowed.
    pub(crate) program: Option<&'a Path>,
    /// Why nodes stay float, by node, as planned by earlier stages.
    pub(crate) float_reasons: BTreeMap<String, String>,
}

/// Time of a stage by activity.
#[derive(Default)]
pub(crate) struct Clock {
    now: Option<(String, Instant)>,
    spent: BTreeMap<String, f64>,
}

impl Clock {
    /// Ends the present activity and begins `what`.
    fn at(&mut self, what: Option<&str>) {
        let next = what.map(|w| (w.to_string(), Instant::now()));
        if let Some((what, since)) = std::mem::replace(&mut self.now, next) {
            *self.spent.entry(what).or_default() += since.elapsed().as_secs_f64();
        }
    }

    /// Seconds by activity.
    pub(crate) fn finish(mut self) -> BTreeMap<String, f64> {
        self.at(None);
        self.spent
    }
}

impl StageCx<'_> {
    /// The settings of the stage's training loop, if it has one.
    pub fn training(&self) -> Option<&Training> {
        self.loaded.recipe.stages.get(self.index)?.training()
    }

    /// Attaches a stage's compression, and reports it.
    ///
    /// # Errors
    /// Errors of the technique.
    pub(crate) fn compress(
        &mut self,
        compression: &dyn Compression,
        model: &mut Model,
        sources: &Sources,
    ) -> Result<Compressed, StageError> {
        let mut done = self.compressing(sources, "calibrate", |on, tick| compression.apply(model, on, tick))?;
        std::mem::take(&mut done.notes).into_iter().for_each(|(warning, text)| self.note(warning, text));
        Ok(done)
    }

    /// Calls `f` with the context of a compression of this stage, its progress told as `what`.
    ///
    /// # Errors
    /// Those of `f`.
    pub(crate) fn compressing<T>(
        &mut self,
        sources: &Sources,
        what: &'static str,
        f: impl FnOnce(&CompressOn, Tick) -> Result<T, StageError>,
    ) -> Result<T, StageError> {
        let (seed, training) = (self.loaded.recipe.seed, self.training().cloned().unwrap_or_default());
        let target = self.target();
        let on = CompressOn { sources, seed, training: &training, target: &target, cache: Some(self.cache) };
        f(&on, &mut self.tick(what))
    }

    /// The data section.
    ///
    /// # Errors
    /// If the recipe has none.
    pub fn data(&self) -> Result<&DataSettings, StageError> {
        self.loaded.recipe.data.as_ref().ok_or_else(|| "the recipe has no [data]".into())
    }

    /// The recipe's data sets.
    ///
    /// # Errors
    /// If one is missing or damaged.
    pub fn sources(&self) -> Result<Sources, StageError> {
        Sources::open(self.loaded, self.data_root)
    }

    /// The last quantize stage up to this one: the plan of the present encodings.
    pub fn quantize_stage(&self) -> Option<QuantizeStage> {
        self.loaded.recipe.stages.iter().take(self.index + 1).rev().find_map(|s| s.get::<QuantizeStage>().cloned())
    }

    /// The first deploy stage from this one on.
    pub fn deploy_stage(&self) -> Option<DeployStage> {
        self.loaded.recipe.stages.iter().skip(self.index).find_map(|s| s.get::<DeployStage>().cloned())
    }

    /// The target of the deployment.
    pub fn target(&self) -> target::Choice {
        self.loaded.recipe.target_from(self.index)
    }

    /// The float model that the run began with: its file, else the result of its first stage. `None` if this is the first stage.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn original(&self) -> Result<Option<Original>, StageError> {
        if let Some(file) = self.loaded.recipe.begins_with().and_then(|m| m.file.as_ref()) {
            return Original::file(crate::run::START, &self.resolve(file)).map(Some);
        }
        let first = self.loaded.recipe.stages.first().map(Stage::name);
        let found = first.and_then(|name| Some((name, self.results.get(name)?)));
        found.map(|(name, path)| Original::result(name, path)).transpose()
    }

    /// Measures the memory of a file, if the run may start the program.
    ///
    /// # Errors
    /// [`PipelineError::File`] if there is no folder for it.
    pub(crate) fn memory_probe(&self) -> Result<Option<MemoryProbe>, PipelineError> {
        let Some(program) = self.program else { return Ok(None) };
        let folder = self.dir.checkpoint_path()?.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Some(MemoryProbe { program: program.to_path_buf(), folder }))
    }

    /// Seed of this stage's random numbers: from the recipe's seed and the stage's position.
    pub fn seed(&self) -> u64 {
        tensor::random::derive(self.loaded.recipe.seed, self.index as u64 + 1)
    }

    /// The path of a file or folder that the recipe names.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.loaded.resolve(path, self.data_root)
    }

    /// A teacher: an earlier stage's result, or a file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn teacher(&self, name: &str) -> Result<Model, StageError> {
        let path = self.results.get(name).cloned().unwrap_or_else(|| self.resolve(name));
        let mut model = onnx::load(&path)?;
        // It is run and not changed, so its quantizers and parameters can stay.
        train::to_float32(&mut model)?;
        train::open_batch(&mut model);
        Ok(model)
    }

    /// The path of the trainer's checkpoint, from which training resumes if it exists.
    ///
    /// # Errors
    /// [`PipelineError::File`] if the folder cannot be made.
    pub fn checkpoint(&self) -> Result<PathBuf, PipelineError> {
        self.dir.checkpoint_path()
    }

    /// Counts the stage's time under this activity from here on.
    pub(crate) fn begin(&mut self, what: &str) {
        self.clock.at(Some(what));
    }

    /// Reports progress.
    pub fn progress(&mut self, what: &str, done: u64, total: u64, loss: Option<f64>) {
        self.begin(what);
        self.listener.event(&Event::Progress { what, done, total, loss });
    }

    /// Reports how many batches are done and in all.
    pub(crate) fn tick(&mut self, what: &'static str) -> impl FnMut(u64, u64) {
        move |done, total| self.progress(what, done, total, None)
    }

    /// Reports the end of an epoch.
    pub fn epoch(&mut self, point: &EpochPoint, epochs: u64) {
        let metric = metric_record(self.loaded.recipe.task.member().as_ref());
        self.listener.event(&Event::Epoch { point, epochs, metric: &metric });
    }

    /// Notes something for the user, and keeps the note in the record.
    pub fn note(&mut self, warning: bool, text: impl Into<String>) {
        let note = Note { warning, text: text.into() };
        self.listener.event(&Event::Note(&note));
        self.notes.push(note);
    }

    /// Fails if the user wants to stop.
    ///
    /// # Errors
    /// [`PipelineError::Interrupted`].
    pub fn check_stop(&self) -> Result<(), PipelineError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(PipelineError::Interrupted { stage: self.name.to_string() });
        }
        Ok(())
    }
}
