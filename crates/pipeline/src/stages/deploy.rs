//! `deploy`: lowered, written, measured on the file.
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::recipe::DeployStage;
use graph::Model;

/// The stage.
pub(super) struct Deploy(pub(super) DeployStage);

impl StageBody for Deploy {
    fn run(&self, _cx: &mut StageCx, _input: Option<Model>) -> Result<StageOutput, StageError> {
        Err(format!("this build cannot run it yet: {:?}", self.0).into())
    }
}
