//! `train`: the current graph, or a model of its own, on the labels.
use super::kind::{NetworkCx, StageEntry, StageKind, stage};
use super::start::batch_note;
use super::training::{given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput, start};
use crate::recipe::{ModelSource, Recipe, check_source};
use crate::trial::Trial;
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Fault, Manual};

/// `train`: trains the current graph, or a model of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainStage {
    /// Starts from this model instead of the current graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSource>,
}

pub(super) const ENTRY: StageEntry = stage!(
    TrainStage,
    epochs: Some(1),
    Manual {
        name: "train",
        summary: "Trains the current graph on the labels.",
        details: "A stage with a model of its own starts from that model instead of the graph before it.",
        source: "",
        example: "epochs = 20\noptimizer = { kind = \"sgd\", lr = 0.1, nesterov = true, weight_decay = 5e-4 }\nschedule = { kind = \"cosine\", warm_up = 0.1 }\n",
    }
);

impl StageKind for TrainStage {
    fn begins_anew(&self) -> Option<bool> {
        self.model.as_ref().map(|own| own.file.is_some())
    }

    fn own_file(&self) -> Option<&str> {
        self.model.as_ref()?.file.as_deref()
    }

    fn own_model(&self) -> Option<&ModelSource> {
        self.model.as_ref()
    }

    fn check(&self, _: &Recipe, _: usize) -> Result<(), Fault> {
        self.model.as_ref().map_or(Ok(()), |model| check_source("model", model))
    }

    fn network(&self, on: &NetworkCx) -> Result<Option<Model>, StageError> {
        self.model.as_ref().map(|source| Ok(start(source, on.recipe.seed, on.place)?.0)).transpose()
    }

    fn trial(&self, trial: &mut Trial, _: usize) -> Result<(), StageError> {
        trial.replace(self, None)
    }
}

impl StageBody for TrainStage {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = match &self.model {
            Some(source) => {
                let (own, notes) = start(source, cx.loaded.recipe.seed, |p| cx.resolve(p))?;
                // The original model has a record of its own.
                if cx.index > 0 {
                    notes.into_iter().for_each(|note| cx.note(false, note));
                    batch_note(cx, &own);
                }
                own
            }
            None => given(input)?,
        };
        let epochs = train(cx, &mut model, None, true, &sources)?;
        measured(cx, model, epochs, &sources)
    }
}
