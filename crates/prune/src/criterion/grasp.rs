//! GraSP: weights without which the gradients flow as before.
use super::at_least_one;
use crate::{Candidate, Criterion, ImportanceContext, Needs, Result};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    Grasp as dyn Criterion,
    Manual {
        name: "grasp",
        summary: "Keeps the weights without which the norm of the loss's gradient would fall most; for networks before training.",
        details: "\
    importance = w * (H g) + const

with g the mean gradient of the loss over `batches` batches and H its Hessian: a zero in place of w changes |g|^2 by -2 w (H g) to first order.
What training would make of the network is what is kept, not its present loss. const makes the importance positive and is the same
everywhere. H g is the difference of the gradients at both ends of a small step along g; the paper's temperature is left out, since
losses of recipes are not only those of classes.

Made for networks with random weights at high sparsities, scope = \"global\", pruned at once and trained then.",
        source: "Wang et al. 2020, arXiv:2002.07376, equation 8 and algorithm 1",
        example: "criterion = { kind = \"grasp\", batches = 8 }",
    }
);

/// `w` times the product of Hessian and gradient, above the least of all weights.
///
/// # Source
/// Wang et al. 2020, arXiv:2002.07376, equation 8.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Grasp {
    /// Number of training batches that the gradient is the mean of.
    pub batches: u64,
}

impl Default for Grasp {
    fn default() -> Self {
        Grasp { batches: 8 }
    }
}

impl Settings for Grasp {
    fn check(&self) -> Result<(), Fault> {
        at_least_one(self.batches)
    }
}

impl Criterion for Grasp {
    fn needs(&self) -> Needs {
        Needs::GradientFlow { batches: self.batches }
    }

    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        let falls = context.known(candidate, &context.gradient_flow, "gradient flow is")?;
        let least = context.gradient_flow.values().flatten().copied().fold(0f32, f32::min);
        Ok(falls.iter().map(|f| f - least).collect())
    }
}
