//! The stages: each takes the graph before it and returns a graph.
mod average;
mod calibration;
mod cx;
mod deploy;
pub(crate) mod distill;
mod divergence;
mod finetune;
mod kind;
mod prune;
mod prune_channels;
mod quantize;
mod search;
mod start;
mod teaching;
mod train;
mod training;

pub use self::prune::PruneStage;
pub use self::prune_channels::PruneChannelsStage;
pub use crate::error::StageError;
pub use average::AverageStage;
pub use calibration::{CalibrationData, CalibrationSettings};
pub(crate) use cx::Clock;
pub use cx::StageCx;
pub use deploy::DeployStage;
pub use distill::DistillStage;
pub use finetune::FinetuneStage;
pub use kind::{NetworkCx, StageEntry, StageKind};
pub(crate) use kind::{keys_in, keys_of, take_keys};
pub use quantize::{BatchNorm, QuantizeStage};
pub use search::SearchSettings;
pub(crate) use search::write_rules;
pub(crate) use start::Measure;
pub use start::start;
pub use teaching::Teaching;
pub use train::TrainStage;

use crate::actions::FoundPlan;
use crate::recipe::Stage;
use graph::Model;
use report::record::{
    ClassesRecord, CutRecord, DeployRecord, EpochPoint, FloatPart, LayerRecord, Metrics, Note, PlanRecord, PruneSensitivityRecord,
    SensitivityRecord, SharesRecord,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Endings of the files with the widths that a stage found, and with what it found them by.
pub(crate) const PLAN: &str = ".plan.toml";
pub(crate) const TABLE: &str = ".sensitivity.json";

/// The result of a stage.
#[derive(Clone, Debug, Default)]
pub struct StageOutput {
    /// The graph, with its annotations.
    pub model: Model,
    /// Further files by name (`deployed.onnx`); published beside the stage's result.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Measurements of the result.
    pub metrics: Metrics,
    /// One record for each weight.
    pub layers: Vec<LayerRecord>,
    /// Operators that stay float.
    pub float_parts: Vec<FloatPart>,
    /// The widths that were chosen for a budget.
    pub plan: Option<PlanRecord>,
    /// The shares of layers that were chosen by what each alone costs.
    pub shares: Option<SharesRecord>,
    /// Candidates that a removal of channels was chosen among.
    pub cuts: Vec<CutRecord>,
    /// One point for each epoch.
    pub epochs: Vec<EpochPoint>,
    /// Results by class.
    pub classes: Option<ClassesRecord>,
    /// Measurements of the deployed file.
    pub deploy: Option<DeployRecord>,
    /// Notes for the user, besides those given to [`StageCx::note`].
    pub notes: Vec<Note>,
}

impl StageOutput {
    /// A result with a graph and no measurements yet.
    pub fn new(model: Model) -> Self {
        StageOutput { model, ..StageOutput::default() }
    }

    /// Keeps the widths that were found for a budget in the record and as files of the stage of this name: the plan and what it was
    /// found by.
    ///
    /// # Errors
    /// If the table cannot be written as JSON.
    fn keep_plan(&mut self, stage: &str, found: Option<FoundPlan>) -> Result<(), StageError> {
        let Some(FoundPlan { text, record, .. }) = found else { return Ok(()) };
        let file = format!("{stage}{PLAN}");
        let table = SensitivityRecord { name: stage.to_string(), ..record.sensitivity.clone() };
        self.files.insert(format!("{stage}{TABLE}"), serde_json::to_vec_pretty(&table)?);
        self.files.insert(file.clone(), text.into_bytes());
        self.plan = Some(PlanRecord { file: Some(file), ..record });
        Ok(())
    }
}

impl StageOutput {
    /// Keeps the shares of layers that were found in the record, and what they were found by as a file of the stage of this name.
    ///
    /// # Errors
    /// If the table cannot be written as JSON.
    fn keep_shares(&mut self, stage: &str, found: Option<SharesRecord>) -> Result<(), StageError> {
        if let Some(found) = &found {
            let table = PruneSensitivityRecord { name: stage.to_string(), ..found.sensitivity.clone() };
            self.files.insert(format!("{stage}{TABLE}"), serde_json::to_vec_pretty(&table)?);
        }
        self.shares = found;
        Ok(())
    }
}

/// The work of a stage.
pub trait StageBody {
    /// Runs the stage on the graph before it; `None` for the first stage of a recipe without `[model]`.
    ///
    /// # Errors
    /// Errors that stop it; [`crate::PipelineError::Interrupted`] after an interruption.
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError>;
}

/// Returns the work for a stage.
pub type Bodies<'a> = &'a dyn Fn(&Stage) -> Arc<dyn StageBody>;

/// The work for a stage.
pub fn body(stage: &Stage) -> Arc<dyn StageBody> {
    stage.settings().clone()
}

/// All kinds of stages, in the usual order of a recipe: one file a kind.
pub fn kinds() -> &'static [StageEntry] {
    static LIST: &[StageEntry] = &[
        train::ENTRY,
        quantize::ENTRY,
        prune::ENTRY,
        prune_channels::ENTRY,
        distill::ENTRY,
        finetune::ENTRY,
        average::ENTRY,
        deploy::ENTRY,
    ];
    LIST
}
