//! `train`: trains the current graph on the labels.
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::recipe::TrainStage;
use graph::Model;

/// The stage.
pub(super) struct Train(pub(super) TrainStage);

impl StageBody for Train {
    fn run(&self, _cx: &mut StageCx, _input: Option<Model>) -> Result<StageOutput, StageError> {
        Err(format!("this build cannot run it yet: {:?}", self.0).into())
    }
}
