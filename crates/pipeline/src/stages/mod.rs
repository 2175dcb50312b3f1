//! The stages: each takes the graph before it and gives one back.
mod average;
mod calibration;
mod cx;
mod deploy;
pub(crate) mod distill;
mod divergence;
mod finetune;
mod kind;
mod prune;
mod quantize;
mod start;
mod teaching;
mod train;
mod training;

pub use self::prune::PruneStage;
pub use crate::error::StageError;
pub use average::AverageStage;
pub use calibration::CalibrationSettings;
pub(crate) use cx::Clock;
pub use cx::StageCx;
pub use deploy::DeployStage;
pub use distill::DistillStage;
pub use finetune::FinetuneStage;
pub use kind::{NetworkCx, StageEntry, StageKind};
pub(crate) use kind::{keys_in, keys_of, take_keys};
pub use quantize::{BatchNorm, QuantizeStage};
pub(crate) use start::Measure;
pub use start::start;
pub use teaching::Teaching;
pub use train::TrainStage;

use crate::recipe::Stage;
use graph::Model;
use report::record::{ClassesRecord, DeployRecord, EpochPoint, FloatPart, LayerRecord, Metrics, Note};
use std::collections::BTreeMap;
use std::sync::Arc;

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

/// Finds the work for a stage.
pub type Bodies<'a> = &'a dyn Fn(&Stage) -> Arc<dyn StageBody>;

/// The work for a stage.
pub fn body(stage: &Stage) -> Arc<dyn StageBody> {
    stage.settings().clone()
}

/// All kinds of stages, in the classic order: one file a kind.
pub fn kinds() -> &'static [StageEntry] {
    static LIST: &[StageEntry] =
        &[train::ENTRY, quantize::ENTRY, prune::ENTRY, distill::ENTRY, finetune::ENTRY, average::ENTRY, deploy::ENTRY];
    LIST
}
