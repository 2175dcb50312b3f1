//! `prune`: masks, chosen at once and then held while the other weights train, or step by step during training.
use super::kind::{StageEntry, StageKind};
use super::training::{given, measured, train, train_with};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{CompressOn, Compressed, Compression, Tick, prune_notes, prune_weights};
use crate::recipe::Recipe;
use graph::Model;
use prune::{GradualPruning, Needs, PruneSettings};
use schemars::JsonSchema;
use serde::Deserialize;
use std::any::Any;
use std::sync::Arc;
use technique::{Fault, Manual};
use toml::de::Deserializer;

/// `prune`: sets masks, and trains the other weights if `epochs` is above 0.
#[derive(Clone, Debug, PartialEq)]
pub struct PruneStage {
    /// The library's settings.
    pub settings: PruneSettings,
    /// The recipe uses `method`, the old name of `criterion`.
    pub(crate) renamed: bool,
}

/// The old name of `criterion`, which is still accepted.
const OLD: &str = "method";

pub(super) const ENTRY: StageEntry = StageEntry {
    manual: Manual {
        name: "prune",
        summary: "Attaches masks that set weights to zero, and may train with them.",
        details: "\
criterion is how the importance of weights is computed, sparsity_schedule whether the sparsity is reached before the stage trains or step
by step while it does: see explain criterion and explain sparsity_schedule.",
        source: "",
        example: "sparsity = 0.5\nskip = [\"/linear*\"]\n",
    },
    epochs: Some(0),
    schema: |generator| PruneSettings::json_schema(generator),
    read: |table| {
        let renamed = table.get_ref().contains_key(OLD);
        let settings = PruneSettings::deserialize(Deserializer::from(table))?;
        Ok(Arc::new(PruneStage { settings, renamed }))
    },
    write: |stage| {
        let any: &dyn Any = stage;
        serde_json::to_value(any.downcast_ref::<PruneStage>().map(|stage| &stage.settings))
    },
};

impl StageKind for PruneStage {
    fn compression(&self) -> Option<&dyn Compression> {
        Some(self)
    }

    fn calibrates(&self) -> bool {
        self.settings.criterion.needs() != Needs::Weights
    }

    fn check(&self, recipe: &Recipe, index: usize) -> Result<(), Fault> {
        self.settings.check()?;
        let schedule = &self.settings.sparsity_schedule;
        if schedule.is_gradual() && !recipe.stages[index].trains() {
            let what = format!("the schedule {} prunes while the stage trains, and epochs = 0", schedule.kind());
            return Err(Fault::new("sparsity_schedule", what).hint("set epochs, or leave sparsity_schedule out to prune at once"));
        }
        Ok(())
    }

    fn details(&self, _: &Recipe, _: usize) -> Vec<String> {
        vec![format!("by {}, {}", self.settings.criterion, self.settings.sparsity_schedule)]
    }

    fn remedies(&self) -> Option<(&'static str, &'static str)> {
        Some(("a lower sparsity, more epochs", "a lower sparsity, or epochs = 1 or more to train the remaining weights"))
    }
}

impl Compression for PruneStage {
    fn told(&self) -> String {
        format!("sparsity {}", self.settings.sparsity)
    }

    /// Prunes at once, whatever the schedule.
    fn apply(&self, model: &mut Model, on: &CompressOn, _: Tick) -> Result<Compressed, StageError> {
        let mut notes = prune_notes(&prune_weights(model, &self.settings, on)?);
        let schedule = &self.settings.sparsity_schedule;
        if schedule.is_gradual() {
            notes.push((false, format!("pruned at once: a {} schedule needs the training of a prune stage", schedule.kind())));
        }
        Ok(Compressed { notes, ..Compressed::default() })
    }
}

impl StageBody for PruneStage {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        if self.renamed {
            let text = format!("the key {OLD} has another name now: write criterion = \"{}\"", self.settings.criterion.kind());
            cx.note(false, text);
        }
        let epochs = if self.settings.sparsity_schedule.is_gradual() {
            let mut pruning = GradualPruning::new(&self.settings)?;
            let epochs = train_with(cx, &mut model, None, true, &sources, &mut [&mut pruning])?;
            let notes = pruning.report().map(prune_notes).unwrap_or_default();
            notes.into_iter().for_each(|(warning, text)| cx.note(warning, text));
            epochs
        } else {
            cx.compress(self, &mut model, &sources)?;
            train(cx, &mut model, None, true, &sources)?
        };
        measured(cx, model, epochs, &sources)
    }
}
