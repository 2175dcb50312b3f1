//! `prune`: masks, chosen, then held while the rest trains.
use super::lesson::{given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{prune_notes, prune_weights};
use crate::recipe::PruneStage;
use graph::Model;

/// The stage.
pub(super) struct Prune(pub(super) PruneStage);

impl StageBody for Prune {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        let report = prune_weights(&mut model, &self.0)?;
        prune_notes(&report).into_iter().for_each(|(warning, text)| cx.note(warning, text));
        let epochs = train(cx, &mut model, &self.0.training(), None, true, &sources)?;
        measured(cx, model, epochs, &sources)
    }
}
