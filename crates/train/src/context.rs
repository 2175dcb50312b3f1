//! The context of a training beside its settings, and the part that participants see.
use crate::objective::{Batch, Objective};
use crate::parameters::Parameter;
use crate::trainer::{EpochRecord, TrainSettings};
use crate::{Mode, Participant, TrainError};
use graph::Model;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// A source of batches. An epoch's batches depend only on its number.
pub trait Batches: Send + Sync {
    /// Number of batches in an epoch.
    fn batches(&self) -> u64;
    /// The batches of an epoch in order. Batches that belong to one step are marked: [`crate::Portion::continues`].
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_>;
    /// True if a step has about as many runs as samples: the model fixes its batch, or each row is a run of its own. Statistics
    /// of such a run are meaningless.
    fn runs_alone(&self) -> bool {
        false
    }
}

/// Receives the events of a training.
pub trait Watch: Send {
    /// After each step.
    fn step(&mut self, _step: u64, _steps: u64, _loss: f64, _samples: usize) {}
    /// After each epoch.
    fn epoch(&mut self, _record: &EpochRecord) {}
    /// A note for the user.
    fn note(&mut self, _text: &str) {}
}

/// A [`Watch`] that ignores everything.
pub struct Silent;
impl Watch for Silent {}

/// The context of a training, beside model, data, objective and settings.
pub struct TrainContext<'a> {
    /// Scores a model after an epoch; higher is better.
    pub validate: Option<&'a mut dyn FnMut(&Model) -> Result<f64, TrainError>>,
    /// Receives the events.
    pub watch: &'a mut dyn Watch,
    /// Path of the checkpoint; training resumes from it if it exists.
    pub checkpoint: Option<PathBuf>,
    /// Set to stop after the current step.
    pub stop: Option<&'a AtomicBool>,
    /// Participants, in the order in which their hooks are called.
    pub participants: Vec<&'a mut dyn Participant>,
}

/// Without validation, checkpoint, stop flag and participants; events are ignored.
impl Default for TrainContext<'_> {
    fn default() -> Self {
        // A type without fields: nothing is allocated, nothing leaks.
        let watch: &mut dyn Watch = Box::leak(Box::new(Silent));
        TrainContext { validate: None, watch, checkpoint: None, stop: None, participants: vec![] }
    }
}

/// The state of a training at one of its steps.
pub struct StepContext<'a> {
    /// The model in training; a participant may change it.
    pub model: &'a mut Model,
    /// The trained parameters, in the order of the gradients.
    pub parameters: &'a [Parameter],
    /// The loss to minimize.
    pub objective: &'a dyn Objective,
    /// The training data. Code that draws batches of its own uses an epoch number derived from `step`, so that a resumed training
    /// draws the same.
    pub data: &'a dyn Batches,
    /// Settings of the training.
    pub settings: &'a TrainSettings,
    /// Epoch of the stage, from 0.
    pub epoch: u64,
    /// Step of the stage, from 0: the current one, or after an epoch the number of finished steps.
    pub step: u64,
    /// Steps of the whole stage.
    pub steps: u64,
    /// Mode of this step's run.
    pub mode: Mode,
    /// The learning rate schedule's factor at this step.
    pub factor: f64,
    /// Receives notes for the user.
    pub watch: &'a mut dyn Watch,
}
