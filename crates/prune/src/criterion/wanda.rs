//! Wanda: weights by what they are multiplied with.
use super::at_least_one;
use crate::{Candidate, Criterion, ImportanceContext, Needs, PruneError, Result};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    Wanda as dyn Criterion,
    Manual {
        name: "wanda",
        summary: "Removes the weights that add least to their layer's result: magnitude times the size of the input. No labels or gradients.",
        details: "\
    importance of w_oi = |w_oi| * sqrt(mean over samples and places of x_i^2)

with x_i the input channel that the weight multiplies, over `batches` training batches, in the network as it is. The paper ranks each output
by itself; here granularity n_m does, and scope = \"layer\" ranks each layer by itself, which is as far as such importance compares.
A good choice without training, above all for matrix layers whose channels differ much; sparse_gpt gains more there. A weight whose input is
not a value of the graph (a recurrent state, an embedding) stays dense.",
        source: "Sun et al. 2023, arXiv:2306.11695, equation 1",
        example: "criterion = { kind = \"wanda\", batches = 8 }\nscope = \"layer\"",
    }
);

/// `|w|` times the root mean square of the channel that it multiplies.
///
/// # Source
/// Sun et al. 2023, arXiv:2306.11695, equation 1.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Wanda {
    /// Number of training batches.
    pub batches: u64,
}

impl Default for Wanda {
    fn default() -> Self {
        Wanda { batches: 8 }
    }
}

impl Settings for Wanda {
    fn check(&self) -> Result<(), Fault> {
        at_least_one(self.batches)
    }
}

impl Criterion for Wanda {
    fn needs(&self) -> Needs {
        Needs::Inputs { batches: self.batches }
    }

    fn spares(&self, context: &ImportanceContext, candidate: &Candidate) -> Option<String> {
        let known = candidate.view.is_some() && context.inputs.contains_key(&candidate.weight);
        (!known).then(|| "what it is multiplied with is no value of the graph".into())
    }

    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        let weight = context.read(candidate, candidate.weight)?;
        let norms = context.known(candidate, &context.inputs, "inputs are")?;
        let Some(view) = &candidate.view else { return Ok(weight.iter().map(|w| w.abs()).collect()) };
        if norms.len() != view.inputs * view.groups {
            let what = format!("is multiplied with {} channels, and it has weights for {}", norms.len(), view.inputs * view.groups);
            return Err(PruneError::Weight { weight: candidate.name.clone(), what });
        }
        let per_group = (view.outputs / view.groups).max(1);
        let norms = view.map(|output, input, _| norms[output / per_group * view.inputs + input]);
        Ok(weight.iter().zip(norms).map(|(w, norm)| w.abs() * norm).collect())
    }
}
