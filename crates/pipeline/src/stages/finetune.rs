//! `finetune`: joint training: masks, quantizers and a teacher active in one loop with the task loss.
use super::distill::{alpha, check_teacher, temperature};
use super::kind::{StageEntry, StageKind, stage};
use super::lesson::{Taught, given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::recipe::Recipe;
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Fault, Manual};

/// `finetune`: joint training with all that is attached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FinetuneStage {
    /// The teacher: an earlier stage's name, or an ONNX file; absent: the labels alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// Softens both distributions.
    #[serde(default = "temperature")]
    pub temperature: f64,
    /// Weight of the teacher in the loss, 0..1; the labels have the rest.
    #[serde(default = "alpha")]
    pub alpha: f64,
}

pub(super) const ENTRY: StageEntry = stage!(
    FinetuneStage,
    epochs: Some(1),
    Manual {
        name: "finetune",
        summary: "Trains with everything that is attached active at once: masks, quantizers, and a teacher if one is named.",
        details: "",
        source: "",
        example: "teacher = \"train\"\nepochs = 6\noptimizer = { kind = \"adamw\", lr = 3e-4 }\nfreeze_statistics = 1\n",
    }
);

impl StageKind for FinetuneStage {
    fn teacher(&self) -> Option<&str> {
        self.teacher.as_deref()
    }

    fn check(&self, _: &Recipe, _: usize) -> Result<(), Fault> {
        check_teacher(self.temperature, self.alpha)
    }
}

impl StageBody for FinetuneStage {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        let (masks, encodings) = (
            model.annotations.iter().filter(|(_, a)| a.mask.is_some()).count(),
            model.annotations.iter().filter(|(_, a)| a.encoding.is_some()).count(),
        );
        let teacher = self.teacher.as_ref().map_or("no teacher".into(), |t| format!("teacher '{t}'"));
        cx.note(false, format!("active: {masks} masks, {encodings} quantizers, {teacher}"));
        let teacher = self.teacher.as_ref().map(|t| cx.teacher(t)).transpose()?;
        let taught = teacher.as_ref().map(|teacher| Taught { teacher, temperature: self.temperature, alpha: self.alpha });
        let epochs = train(cx, &mut model, taught, true, &sources)?;
        measured(cx, model, epochs, &sources)
    }
}
