//! Events of a run.
use report::record::{EpochPoint, MetricRecord, Note, StageRecord, TaskRecord};

/// An event of a run.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The model file that the run begins with is being measured. Its result follows as the end of a stage.
    Start,
    /// A stage begins.
    StageStarted {
        /// Its position, from 0.
        index: usize,
        /// Number of stages.
        stages: usize,
        /// The stage's name in the recipe.
        name: &'a str,
        /// The kind of stage: `prune`.
        kind: &'a str,
    },
    /// Progress within a stage.
    Progress {
        /// What is being done (`train`, `calibrate`, `evaluate`, ...).
        what: &'a str,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// The loss of the last step, in training.
        loss: Option<f64>,
    },
    /// An epoch ended.
    Epoch {
        /// Loss, metrics and learning rate of the epoch.
        point: &'a EpochPoint,
        /// Epochs of the stage.
        epochs: u64,
        /// The task's main metric.
        metric: &'a MetricRecord,
    },
    /// A note for the user.
    Note(&'a Note),
    /// A stage ended, or its result was stored already.
    StageFinished {
        /// The finished stage's record, as in `run.json`.
        record: &'a StageRecord,
        /// The task, with its metrics.
        task: &'a TaskRecord,
    },
}

/// Receives the events of a run.
pub trait Listener: Send {
    /// Called for each event, in order, from the thread that runs.
    fn event(&mut self, event: &Event);
}

/// Ignores all events.
pub struct Quiet;

impl Listener for Quiet {
    fn event(&mut self, _event: &Event) {}
}
