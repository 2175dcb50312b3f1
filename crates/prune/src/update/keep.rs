//! Keep: the weights that live stay as they are.
use super::WeightUpdate;
use crate::Result;
use graph::Model;
use technique::{Entry, Manual, Settings, member};
use train::GradientSource;

pub(super) const ENTRY: Entry<dyn WeightUpdate> = member!(
    KeepWeights as dyn WeightUpdate,
    Manual {
        name: "keep",
        summary: "The weights that live stay as they are.",
        details: "Enough where the stage trains after pruning.",
        source: "",
        example: "update = \"keep\"",
    }
);

/// The weights that live stay as they are.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeepWeights {}

impl Settings for KeepWeights {}

impl WeightUpdate for KeepWeights {
    fn needs_data(&self) -> bool {
        false
    }

    fn apply(&self, _: &mut Model, _: &[String], _: &GradientSource) -> Result<Vec<String>> {
        Ok(vec![])
    }
}
