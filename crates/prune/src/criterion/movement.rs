//! Movement: weights that training moves towards zero.
use crate::{Candidate, Criterion, ImportanceContext, Needs, Result};
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    Movement as dyn Criterion,
    Manual {
        name: "movement",
        summary: "Removes the weights that training shrinks, whatever their size; for fine-tuning on a new task.",
        details: "\
    importance = const - sum over the steps so far of w * g

with g the gradient of the step's loss by the weight: a weight that every step pushes away from zero has the largest importance, one that is
pushed towards zero the least. const makes it positive and is the same everywhere.

The sums are taken while the stage trains, so it needs a schedule that prunes during training, with a beginning after the first
steps (begin = 0.1). Made for pretrained networks that are fine-tuned on other data; where the task stays the same, magnitude or taylor
are better.",
        source: "Sanh et al. 2020, arXiv:2005.07683, equation 2",
        example: "epochs = 10\ncriterion = \"movement\"\nsparsity_schedule = { kind = \"cubic\", begin = 0.1, end = 0.7 }",
    }
);

/// The sum over steps of `-w * g`, above the least of all weights.
///
/// # Source
/// Sanh et al. 2020, arXiv:2005.07683, equation 2.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Movement {}

impl Settings for Movement {}

impl Criterion for Movement {
    fn needs(&self) -> Needs {
        Needs::Movement
    }

    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        let moved = context.known(candidate, &context.movement, "movement is")?;
        let least = context.movement.values().flatten().copied().fold(0f32, f32::min);
        Ok(moved.iter().map(|m| m - least).collect())
    }
}
