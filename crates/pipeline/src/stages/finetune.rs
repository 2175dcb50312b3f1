//! `finetune`: joint training: masks, quantizers and a teacher active in one loop with the task loss.
use super::kind::{StageEntry, StageKind, stage};
use super::training::{given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::recipe::Recipe;
use distill::{DistillationSettings, WeightedLoss};
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Fault, Manual};
use train::Task;

/// `finetune`: joint training with all that is attached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FinetuneStage {
    /// The teacher: an earlier stage's name, or an ONNX file; absent: the labels alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// What is learned from the teacher, each loss with its weight, as `[{ kind = "hinton", weight = 0.7 }, { kind = "feature",
    /// weight = 0.1 }]`. Absent: the task's usual loss alone, by `alpha`: for classes Hinton's, softened by `temperature`; for
    /// numbers the mean squared error to the teacher's outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub losses: Option<Vec<WeightedLoss>>,
    /// Weight of the task's own loss beside `losses`; absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_weight: Option<f64>,
    /// Without `losses`, for classes: softens both distributions; absent: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Without `losses`: weight of the teacher, 0..1, where the task's own loss has the rest; absent: 0.7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
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

impl FinetuneStage {
    /// The losses between the model and its teacher, if it has one.
    ///
    /// # Errors
    /// A [`Fault`] at the key that is out of range, or mixed with another form.
    pub fn distillation(&self, task: &dyn Task) -> Result<DistillationSettings, Fault> {
        DistillationSettings::from_keys(task, self.losses.as_deref(), self.task_weight, self.temperature, self.alpha)
    }
}

impl StageKind for FinetuneStage {
    fn teacher(&self) -> Option<&str> {
        self.teacher.as_deref()
    }

    fn check(&self, recipe: &Recipe, _: usize) -> Result<(), Fault> {
        let named = self.losses.as_ref().map(|_| "losses").or(self.task_weight.map(|_| "task_weight"));
        if let (None, Some(key)) = (&self.teacher, named) {
            let hint = "name one, as teacher = \"train\" or a file; or leave the key out";
            return Err(Fault::new(key, format!("{key} compares with a teacher, and the stage has none")).hint(hint));
        }
        self.distillation(recipe.task.member().as_ref()).map(|_| ())
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
        let losses = self.distillation(sources.task().member().as_ref()).map_err(|fault| fault.to_string())?;
        let epochs = train(cx, &mut model, teacher.as_ref().map(|teacher| (teacher, &losses)), true, &sources)?;
        measured(cx, model, epochs, &sources)
    }
}
