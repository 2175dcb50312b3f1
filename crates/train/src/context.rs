//! What a training is given beside its settings, and what its participants see of it.
use crate::objective::{Batch, Objective};
use crate::parameters::Parameter;
use crate::trainer::{EpochRecord, TrainSettings};
use crate::{Mode, Participant, TrainError};
use graph::Model;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Where batches come from. An epoch's batches follow from its number alone.
pub trait Batches: Send + Sync {
    /// Batches an epoch has.
    fn batches(&self) -> u64;
    /// The batches of an epoch in order. Those that belong to one step say so: [`crate::Portion::continues`].
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_>;
    /// True if a step has as many runs as samples, or nearly: the model fixes its batch, or each row is a run of its own.
    /// Statistics of such a run mean nothing.
    fn runs_alone(&self) -> bool {
        false
    }
}

/// Is told how a training goes.
pub trait Watch: Send {
    /// After each step.
    fn step(&mut self, _step: u64, _steps: u64, _loss: f64, _samples: usize) {}
    /// After each epoch.
    fn epoch(&mut self, _record: &EpochRecord) {}
    /// Something the user should know.
    fn note(&mut self, _text: &str) {}
}

/// A [`Watch`] that ignores everything.
pub struct Silent;
impl Watch for Silent {}

/// What a training is given beside model, data, objective and settings.
pub struct TrainContext<'a> {
    /// Judges a model after an epoch; higher is better.
    pub validate: Option<&'a mut dyn FnMut(&Model) -> Result<f64, TrainError>>,
    /// Is told how it goes.
    pub watch: &'a mut dyn Watch,
    /// Where the checkpoint is kept, and resumed from if it exists.
    pub checkpoint: Option<PathBuf>,
    /// Set to stop after the present step.
    pub stop: Option<&'a AtomicBool>,
    /// What takes part in the training, in the order in which their hooks are called.
    pub participants: Vec<&'a mut dyn Participant>,
}

/// Without validation, checkpoint, stop flag and participants; tells nobody.
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
    /// What trains, in the order of the gradients.
    pub parameters: &'a [Parameter],
    /// What is minimized.
    pub objective: &'a dyn Objective,
    /// The training data. Whoever draws batches of its own takes an epoch number that follows from `step`, so that a resumed
    /// training draws the same.
    pub data: &'a dyn Batches,
    /// Settings of the training.
    pub settings: &'a TrainSettings,
    /// Epoch of the stage, from 0.
    pub epoch: u64,
    /// Step of the stage, from 0: the one that is taken, or after an epoch the number of those taken.
    pub step: u64,
    /// Steps of the whole stage.
    pub steps: u64,
    /// How the graph is run in this step.
    pub mode: Mode,
    /// The learning rate schedule's factor at this step.
    pub factor: f64,
    /// Is told what the user should know.
    pub watch: &'a mut dyn Watch,
}
