//! The stages: each takes the graph before it and gives one back.
mod cx;
mod deploy;
pub(crate) mod distill;
mod divergence;
mod finetune;
mod lesson;
mod prune;
mod quantize;
mod start;
mod train;

pub(crate) use cx::Clock;
pub use cx::StageCx;
pub(crate) use start::Measure;
pub use start::start;

use crate::recipe::Stage;
use graph::Model;
use report::record::{ClassesRecord, DeployRecord, EpochPoint, FloatPart, LayerRecord, Metrics, Note};
use std::collections::BTreeMap;

/// The error a stage may end with; the run adds the stage's name.
pub type StageError = Box<dyn std::error::Error + Send + Sync>;

/// What a stage gives back.
#[derive(Clone, Debug, Default)]
pub struct StageOutput {
    /// The graph, with its annotations.
    pub model: Model,
    /// Further files by name (`deployed.onnx`); published beside the stage's result.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What was measured.
    pub metrics: Metrics,
    /// Layer by layer.
    pub layers: Vec<LayerRecord>,
    /// Operators that stay float.
    pub float_parts: Vec<FloatPart>,
    /// Epoch by epoch.
    pub epochs: Vec<EpochPoint>,
    /// Class by class.
    pub classes: Option<ClassesRecord>,
    /// The deployed file, measured.
    pub deploy: Option<DeployRecord>,
    /// What the user should know, besides what was said through [`StageCx::note`].
    pub notes: Vec<Note>,
}

impl StageOutput {
    /// A graph of which nothing was measured yet.
    pub fn new(model: Model) -> Self {
        StageOutput { model, ..StageOutput::default() }
    }
}

/// The work of a stage.
pub trait StageBody {
    /// Runs the stage on the graph before it; `None` for the first stage of a recipe without `[model]`.
    ///
    /// # Errors
    /// Whatever stops it. An interruption is told by [`crate::PipelineError::Interrupted`].
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError>;
}

/// Finds the work for a stage's settings.
pub type Bodies<'a> = &'a dyn Fn(&Stage) -> Box<dyn StageBody>;

/// The work for a stage's settings: one file a kind.
pub fn body(stage: &Stage) -> Box<dyn StageBody> {
    match stage.clone() {
        Stage::Train(settings) => Box::new(train::Train(settings)),
        Stage::Quantize(settings) => Box::new(quantize::Quantize(settings)),
        Stage::Prune(settings) => Box::new(prune::Prune(settings)),
        Stage::Distill(settings) => Box::new(distill::Distill(settings)),
        Stage::Finetune(settings) => Box::new(finetune::Finetune(settings)),
        Stage::Deploy(settings) => Box::new(deploy::Deploy(settings)),
    }
}
