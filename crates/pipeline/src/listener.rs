//! How a run tells what happens.
use report::record::{EpochPoint, MetricRecord, Note, StageRecord, TaskRecord};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The model file that the run begins with is being measured; what it came to follows as a stage's end.
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
    /// Work went on.
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
        /// What the task goes by.
        metric: &'a MetricRecord,
    },
    /// Something the user should know.
    Note(&'a Note),
    /// A stage ended, or its result was there already.
    StageFinished {
        /// The finished stage's record, as in `run.json`.
        record: &'a StageRecord,
        /// The task, whose figures it has.
        task: &'a TaskRecord,
    },
}

/// Hears what happens.
pub trait Listener: Send {
    /// Called for each event, in order, from the thread that runs.
    fn event(&mut self, event: &Event);
}

/// Hears nothing.
pub struct Quiet;

impl Listener for Quiet {
    fn event(&mut self, _event: &Event) {}
}
