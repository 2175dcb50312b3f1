//! `prune`: masks, chosen, then held while the rest trains.
use super::kind::{StageEntry, StageKind, stage};
use super::training::{given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{CompressOn, Compressed, Compression, Tick, prune_notes, prune_weights};
use crate::recipe::Recipe;
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Fault, Manual, within};

/// `prune`: chooses which weights live, then trains the rest if `epochs` is above 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PruneStage {
    /// Share of the weights that may be pruned which become zero, 0..1.
    pub sparsity: f64,
    /// How weights are judged.
    #[serde(default)]
    pub method: PruneMethod,
    /// Among which weights the judgement is made.
    #[serde(default)]
    pub scope: PruneScope,
    /// Least share of each layer's weights that lives, 0..1, however little the layer matters.
    #[serde(default)]
    pub min_per_layer: f64,
    /// Patterns of weight names that stay whole.
    #[serde(default)]
    pub skip: Vec<String>,
}

/// How weights are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PruneMethod {
    /// By their absolute value.
    #[default]
    Magnitude,
}

/// Among which weights the judgement is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PruneScope {
    /// All weights of the network together: layers that matter less lose more.
    #[default]
    Global,
    /// Each layer by itself, to the same sparsity.
    Layer,
}

pub(super) const ENTRY: StageEntry = stage!(
    PruneStage,
    epochs: Some(0),
    Manual {
        name: "prune",
        summary: "Attaches masks that set weights to zero, and may train with them.",
        details: "",
        source: "",
        example: "sparsity = 0.5\nskip = [\"/linear*\"]\n",
    }
);

impl StageKind for PruneStage {
    fn compression(&self) -> Option<&dyn Compression> {
        Some(self)
    }

    fn check(&self, _: &Recipe, _: usize) -> Result<(), Fault> {
        within("sparsity", self.sparsity, 0.0, 1.0, "it is a share of the weights, so 90 % is 0.9")?;
        within("min_per_layer", self.min_per_layer, 0.0, 1.0, "it is a share of each layer's weights")
    }

    fn remedies(&self) -> Option<(&'static str, &'static str)> {
        Some(("a lower sparsity, more epochs", "a lower sparsity, or epochs = 1 or more to train what is left"))
    }
}

impl Compression for PruneStage {
    fn told(&self) -> String {
        format!("sparsity {}", self.sparsity)
    }

    fn apply(&self, model: &mut Model, _: &CompressOn, _: Tick) -> Result<Compressed, StageError> {
        let report = prune_weights(model, self)?;
        Ok(Compressed { notes: prune_notes(&report), float_parts: vec![] })
    }
}

impl StageBody for PruneStage {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        cx.compress(self, &mut model, &sources)?;
        let epochs = train(cx, &mut model, None, true, &sources)?;
        measured(cx, model, epochs, &sources)
    }
}
