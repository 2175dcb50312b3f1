//! `train`: the current graph, or a model of its own, on the labels.
use super::lesson::{given, measured, train};
use super::start::batch_note;
use super::{StageBody, StageCx, StageError, StageOutput, start};

use crate::recipe::TrainStage;
use graph::Model;

/// The stage.
pub(super) struct Train(pub(super) TrainStage);

impl StageBody for Train {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = match &self.0.model {
            Some(source) => {
                let (own, notes) = start(source, cx.loaded.recipe.seed, |p| cx.resolve(p))?;
                // What the run begins with is told of by its own record.
                if cx.index > 0 {
                    notes.into_iter().for_each(|note| cx.note(false, note));
                    batch_note(cx, &own);
                }
                own
            }
            None => given(input)?,
        };
        let epochs = train(cx, &mut model, &self.0.training(), None, true, &sources)?;
        measured(cx, model, epochs, &sources)
    }
}
