//! `distill`: a student learns from a teacher.
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::recipe::DistillStage;
use graph::Model;

/// The stage.
pub(super) struct Distill(pub(super) DistillStage);

impl StageBody for Distill {
    fn run(&self, _cx: &mut StageCx, _input: Option<Model>) -> Result<StageOutput, StageError> {
        Err(format!("this build cannot run it yet: {:?}", self.0).into())
    }
}
