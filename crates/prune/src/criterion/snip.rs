//! SNIP: the sensitivity of the loss to a connection.
use super::at_least_one;
use crate::{Candidate, Criterion, ImportanceContext, Needs, Result};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    Snip as dyn Criterion,
    Manual {
        name: "snip",
        summary: "Removes the weights to whose scaling the loss is least sensitive, by its mean gradient; for networks before training.",
        details: "\
    importance = |w * g|,  g the mean of the loss's gradient over `batches` batches

Made for a network with random weights, pruned once and trained then. In a trained network the mean gradient vanishes and little but noise
is left: take taylor there, which averages the squares.",
        source: "Lee et al. 2019, arXiv:1810.02340, equation 5",
        example: "criterion = { kind = \"snip\", batches = 8 }",
    }
);

/// `|w|` times the magnitude of the mean gradient.
///
/// # Source
/// Lee et al. 2019, arXiv:1810.02340, equation 5.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Snip {
    /// Number of training batches that the gradient is the mean of.
    pub batches: u64,
}

impl Default for Snip {
    fn default() -> Self {
        Snip { batches: 8 }
    }
}

impl Settings for Snip {
    fn check(&self) -> Result<(), Fault> {
        at_least_one(self.batches)
    }
}

impl Criterion for Snip {
    fn needs(&self) -> Needs {
        Needs::Gradients { batches: self.batches }
    }

    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        let weight = context.read(candidate, candidate.weight)?;
        let gradients = context.gradients(candidate)?;
        Ok(weight.iter().zip(&gradients.mean).map(|(w, g)| (w * g).abs()).collect())
    }
}
