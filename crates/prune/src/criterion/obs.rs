//! OBS: what a zero costs when the other weights of the layer make up for it.
use super::at_least_one;
use crate::{Candidate, Criterion, ImportanceContext, Needs, Result};
use technique::{Entry, Fault, Manual, Settings, member, within};

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    Obs as dyn Criterion,
    Manual {
        name: "obs",
        summary: "Optimal brain surgeon, layer by layer: removes the weights for which the others of their output can best make up. No labels.",
        details: "\
With X [k, n] what a layer multiplies over `batches` training batches and H = X X^T + damping * mean(diag H) * I, a zero in place of w_oj, with all
other weights of output o at their best values then, changes |W X|^2 by

    importance^2 = w_oj^2 / [H^-1]_jj

Set update = \"least_squares\" too, which gives the other weights those values; both together, with granularity n_m or scope = \"layer\", are
SparseGPT (which chooses the zeros as it goes). Compares within a layer, so take scope = \"layer\", \"erk\" or \"uniform_plus\". For one-shot
pruning of convolutions and matrix products; other weights stay dense.",
        source: "Hassibi & Stork 1993, Optimal brain surgeon; Frantar & Alistarh 2023 (SparseGPT), arXiv:2301.00774, equation 3",
        example: "criterion = { kind = \"obs\", batches = 8 }\nscope = \"layer\"\nupdate = \"least_squares\"",
    }
);

/// `|w|` over the root of the diagonal of the inverse of the sums of products of the layer's inputs.
///
/// # Source
/// Frantar & Alistarh 2023, arXiv:2301.00774, equation 3.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Obs {
    /// Number of training batches.
    pub batches: u64,
    /// Share of the mean power of the inputs that is added to each.
    pub damping: f64,
}

impl Default for Obs {
    fn default() -> Self {
        Obs { batches: 8, damping: 0.01 }
    }
}

impl Settings for Obs {
    fn check(&self) -> Result<(), Fault> {
        at_least_one(self.batches)?;
        within("damping", self.damping, 1e-8, 1e3, "it is a share of the mean power")
    }
}

impl Criterion for Obs {
    fn needs(&self) -> Needs {
        Needs::InputProducts { batches: self.batches, damping: self.damping }
    }

    fn spares(&self, context: &ImportanceContext, candidate: &Candidate) -> Option<String> {
        let known = context.inverse.contains_key(&candidate.weight);
        (!known).then(|| "no convolution or matrix product alone reads it".into())
    }

    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        let weight = context.read(candidate, candidate.weight)?;
        let inverse = context.known(candidate, &context.inverse, "products of inputs are")?;
        Ok(weight.iter().zip(inverse).map(|(w, inverse)| w.abs() / inverse.sqrt()).collect())
    }
}
