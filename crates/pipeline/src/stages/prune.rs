//! `prune`: masks: chosen, then held while the rest trains.
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::recipe::PruneStage;
use graph::Model;

/// The stage.
pub(super) struct Prune(pub(super) PruneStage);

impl StageBody for Prune {
    fn run(&self, _cx: &mut StageCx, _input: Option<Model>) -> Result<StageOutput, StageError> {
        Err(format!("this build cannot run it yet: {:?}", self.0).into())
    }
}
