//! `quantize`: quantizers: attached, calibrated, trained with.
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::recipe::QuantizeStage;
use graph::Model;

/// The stage.
pub(super) struct Quantize(pub(super) QuantizeStage);

impl StageBody for Quantize {
    fn run(&self, _cx: &mut StageCx, _input: Option<Model>) -> Result<StageOutput, StageError> {
        Err(format!("this build cannot run it yet: {:?}", self.0).into())
    }
}
