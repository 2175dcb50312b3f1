//! Magnitude: small weights are the least important.
use crate::{Candidate, Criterion, ImportanceContext, Result};
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    Magnitude as dyn Criterion,
    Manual {
        name: "magnitude",
        summary: "Removes the smallest weights, each as it will be stored (BatchNormalization folded in).",
        details: "\
importance = |w|, element by element. Where a BatchNormalization scales the layer's output channels and nothing else reads them
before, importance = |w * gamma / sqrt(variance + epsilon)|, with the channel's gamma and running variance: the weight as it is stored
after folding, so that layers of different scale compare fairly.

Needs no data. A good default when the stage trains after pruning, or prunes gradually.",
        source: "Han et al. 2015, arXiv:1506.02626, section 3",
        example: "criterion = \"magnitude\"",
    }
);

/// Absolute value of the weight as it will be stored: where a BatchNormalization follows, of the folded weight
/// `w * gamma / sqrt(variance + epsilon)`, so that layers of different scale compare fairly.
///
/// # Source
/// Han et al. 2015, arXiv:1506.02626, section 3.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Magnitude {}

impl Settings for Magnitude {}

impl Criterion for Magnitude {
    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        let weight = context.read(candidate, candidate.weight)?;
        let mut importance: Vec<f32> = weight.iter().map(|w| w.abs()).collect();
        let (Some(axis), Some(norm)) = (candidate.axis, candidate.norm) else { return Ok(importance) };
        let shape = context.model.values.tensor(candidate.weight).map(|t| t.shape().to_vec()).unwrap_or_default();
        let (gamma, variance) = (context.read(candidate, norm.scale)?, context.read(candidate, norm.variance)?);
        let Some(channels) = shape.get(axis).copied().filter(|c| *c == gamma.len() && *c == variance.len() && *c > 0) else {
            return Ok(importance);
        };
        let run = shape[axis + 1..].iter().product::<usize>().max(1);
        for (i, piece) in importance.chunks_mut(run).enumerate() {
            let c = i % channels;
            let factor = gamma[c].abs() / (variance[c] + norm.epsilon).sqrt();
            piece.iter_mut().for_each(|v| *v *= factor);
        }
        Ok(importance)
    }
}
