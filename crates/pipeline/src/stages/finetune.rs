//! `finetune`: joint training: masks, quantizers and a teacher active in one loop with the task loss.
use super::kind::{StageEntry, StageKind};
use super::teaching::{Teaching, taught_stage};
use super::training::{given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::recipe::Recipe;
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Fault, Manual};

/// `finetune`: joint training with everything that is attached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FinetuneStage {
    /// The teacher: an earlier stage's name, or an ONNX file; absent: training on the labels only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// The losses between the model and the teacher.
    #[serde(skip)]
    pub teaching: Teaching,
}

pub(super) const ENTRY: StageEntry = taught_stage!(
    FinetuneStage,
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

    fn check(&self, recipe: &Recipe, _: usize) -> Result<(), Fault> {
        self.teaching.check_teacher(self.teacher.as_deref())?;
        self.teaching.distillation(recipe.task.member().as_ref()).map(|_| ())
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
        let losses = self.teaching.distillation(sources.task().member().as_ref()).map_err(|fault| fault.to_string())?;
        let epochs = train(cx, &mut model, teacher.as_ref().map(|teacher| (teacher, &losses)), true, &sources)?;
        measured(cx, model, epochs, &sources)
    }
}
