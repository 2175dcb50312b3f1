//! What a stage can ask of the run it is part of.
use super::StageError;
use crate::actions::Sources;
use crate::recipe::{DataSettings, Loaded, QuantizeStage, Stage};
use crate::run_dir::{Cache, StageDir};
use crate::{Event, Observer, PipelineError};
use graph::Model;
use report::record::{EpochPoint, Note};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The surroundings of one stage.
pub struct StageCx<'a> {
    /// The recipe.
    pub loaded: &'a Loaded,
    /// The stage's name.
    pub name: &'a str,
    /// Its position, from 0: part of the key of its randomness.
    pub index: usize,
    /// Threads that compute.
    pub threads: usize,
    /// Set when the user wants to stop; the trainer looks at it after each step.
    pub stop: &'a AtomicBool,
    pub(crate) data_root: Option<&'a Path>,
    pub(crate) dir: &'a StageDir,
    pub(crate) cache: Cache<'a>,
    pub(crate) results: &'a BTreeMap<String, PathBuf>,
    pub(crate) observer: &'a mut dyn Observer,
    pub(crate) notes: Vec<Note>,
}

impl StageCx<'_> {
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

    /// The last quantize stage up to this one: what the present encodings were planned by.
    pub fn quantize_stage(&self) -> Option<QuantizeStage> {
        self.loaded.recipe.stages.iter().take(self.index + 1).rev().find_map(|s| match s {
            Stage::Quantize(q) => Some(q.clone()),
            _ => None,
        })
    }

    /// Key of this stage's randomness: the recipe's seed and the stage's position.
    pub fn seed(&self) -> u64 {
        tensor::random::derive(self.loaded.recipe.seed, self.index as u64 + 1)
    }

    /// The place of a file or folder that the recipe names.
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
        // It is run and not changed, so its quantizers and parameters may stay as they are.
        train::to_float32(&mut model)?;
        train::open_batch(&mut model);
        Ok(model)
    }

    /// Where the trainer keeps its checkpoint, and resumes from if it exists.
    ///
    /// # Errors
    /// [`PipelineError::File`] if the folder cannot be made.
    pub fn checkpoint(&self) -> Result<PathBuf, PipelineError> {
        self.dir.checkpoint_path()
    }

    /// Tells that work went on.
    pub fn progress(&mut self, what: &str, done: u64, total: u64, loss: Option<f64>) {
        self.observer.event(&Event::Progress { what, done, total, loss });
    }

    /// Tells how many batches of how many are done.
    pub(crate) fn tick(&mut self, what: &'static str) -> impl FnMut(u64, u64) {
        move |done, total| self.progress(what, done, total, None)
    }

    /// Tells that an epoch ended.
    pub fn epoch(&mut self, point: &EpochPoint, epochs: u64) {
        self.observer.event(&Event::Epoch { point, epochs });
    }

    /// Tells the user something, and keeps it in the record.
    pub fn note(&mut self, warning: bool, text: impl Into<String>) {
        let note = Note { warning, text: text.into() };
        self.observer.event(&Event::Note(&note));
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
