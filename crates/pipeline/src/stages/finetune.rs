//! `finetune`: joint training: masks, quantizers and a teacher active in one loop with the task loss.
use super::lesson::{Taught, given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};

use crate::recipe::FinetuneStage;
use graph::Model;

/// The stage.
pub(super) struct Finetune(pub(super) FinetuneStage);

impl StageBody for Finetune {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        let (masks, encodings) = (
            model.annotations.iter().filter(|(_, a)| a.mask.is_some()).count(),
            model.annotations.iter().filter(|(_, a)| a.encoding.is_some()).count(),
        );
        cx.note(
            false,
            format!(
                "active: {masks} masks, {encodings} quantizers, {}",
                self.0.teacher.as_ref().map_or("no teacher".into(), |t| format!("teacher '{t}'"))
            ),
        );
        let teacher = self.0.teacher.as_ref().map(|t| cx.teacher(t)).transpose()?;
        let taught = teacher.as_ref().map(|teacher| Taught { teacher, temperature: self.0.temperature, alpha: self.0.alpha });
        let epochs = train(cx, &mut model, &self.0.training(), taught, true, &sources)?;
        measured(cx, model, epochs, &sources)
    }
}
