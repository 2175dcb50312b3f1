//! SynFlow: weights by the flow that they pass on, without any data.
use crate::{Candidate, Criterion, ImportanceContext, Needs, Result};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    SynFlow as dyn Criterion,
    Manual {
        name: "synflow",
        summary: "Removes the weights that pass on the least flow, in many rounds and without any data; for networks before training.",
        details: "\
In the network of magnitudes, in which each weight w is |w|, shifts are zero and rectifiers pass everything on,

    importance = |w| * dR/d|w|,  R = sum of the outputs (logits) for an input of ones

The sum over the inputs of a unit is that over its outputs, so no layer is emptied before the others as long as it is done in rounds: after
round r of `rounds` a share (1 - sparsity)^(r / rounds) of the weights lives, and the flow is computed again. Products of many layers exceed
f32, so the run is in f64. No data, no labels.

Made for networks of rectifiers with random weights. Scales of normalizations count as scale / sqrt(variance); gates of sigmoids pass
on almost nothing. A gradual schedule computes the flow once at each of its steps, prune_channels and growing_penalty once:
`rounds` has no effect there.",
        source: "Tanaka et al. 2020, arXiv:2006.05467, equation 2 and algorithm 1",
        example: "criterion = { kind = \"synflow\", rounds = 100 }",
    }
);

/// `|w|` times the derivative of the summed outputs of the network of magnitudes.
///
/// # Source
/// Tanaka et al. 2020, arXiv:2006.05467, equation 2.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SynFlow {
    /// Number of rounds in which the sparsity is reached.
    pub rounds: u64,
}

impl Default for SynFlow {
    fn default() -> Self {
        SynFlow { rounds: 100 }
    }
}

impl Settings for SynFlow {
    fn check(&self) -> Result<(), Fault> {
        match self.rounds {
            0 => Err(Fault::new("rounds", "rounds = 0 prunes nothing")),
            _ => Ok(()),
        }
    }
}

impl Criterion for SynFlow {
    fn needs(&self) -> Needs {
        Needs::Flow
    }

    fn rounds(&self) -> u64 {
        self.rounds
    }

    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        Ok(context.known(candidate, &context.flow, "flow is")?.clone())
    }
}
