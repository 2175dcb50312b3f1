//! `finetune`: everything attached trains together.
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::recipe::FinetuneStage;
use graph::Model;

/// The stage.
pub(super) struct Finetune(pub(super) FinetuneStage);

impl StageBody for Finetune {
    fn run(&self, _cx: &mut StageCx, _input: Option<Model>) -> Result<StageOutput, StageError> {
        Err(format!("this build cannot run it yet: {:?}", self.0).into())
    }
}
