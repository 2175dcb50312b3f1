//! Taylor: weights with little effect on the loss are the least important.
use crate::{Candidate, Criterion, ImportanceContext, Needs, Result};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    Taylor as dyn Criterion,
    Manual {
        name: "taylor",
        summary: "Removes the weights whose absence would change the training loss least, by its gradients over training batches.",
        details: "\
The first-order estimate of the squared change of the loss if the element were zero, averaged over B training batches:

    importance = 1/B * sum over batches b of (g_b * w)^2 = w^2 * mean over b of g_b^2

w is the element's fp32 master and g_b the gradient of the stage's loss by it, averaged over the samples of batch b. The graph runs with
the masks and encodings that it has: an encoding that rounds passes the gradient straight through, and an element that a mask holds at zero
already has no gradient and stays zero. Normalizations use their running statistics, dropout drops nothing, nothing is updated. The square
root of the importance is what is compared: the order is the same, and small values do not vanish in f32. A BatchNormalization behind the
layer needs no correction: scaling a weight and its channel against each other leaves g * w as it is.

Reads `batches` batches of the size that the stage trains with. Best where pruning is not followed by long training, and where layers
differ much in how the loss depends on them. A network that fits its training data to the last sample has gradients of noise: magnitude is
safer there.",
        source: "Molchanov et al. 2019, arXiv:1906.10771, equation 8, for single elements",
        example: "criterion = { kind = \"taylor\", batches = 32 }",
    }
);

/// The root of the mean over batches of `(g * w)^2`, element by element: `|w| * sqrt(mean of g^2)`.
///
/// # Source
/// Molchanov et al. 2019, arXiv:1906.10771, equation 8, for single elements instead of groups of them.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Taylor {
    /// Number of training batches for the gradients.
    pub batches: u64,
}

impl Default for Taylor {
    fn default() -> Self {
        Taylor { batches: 32 }
    }
}

impl Settings for Taylor {
    fn check(&self) -> Result<(), Fault> {
        match self.batches {
            0 => Err(Fault::new("batches", "batches = 0: gradients need at least one batch")),
            _ => Ok(()),
        }
    }
}

impl Criterion for Taylor {
    fn needs(&self) -> Needs {
        Needs::Gradients { batches: self.batches }
    }

    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        let weight = context.read(candidate, candidate.weight)?;
        let gradients = context.gradients(candidate)?;
        Ok(weight.iter().zip(&gradients.mean_square).map(|(w, square)| w.abs() * square.sqrt()).collect())
    }
}
