//! Magnitude: what is small matters little (Han et al. 2015, arXiv:1506.02626).
use crate::{Candidate, Criterion, PruneError, Result};
use graph::{Model, ValueId};

/// Absolute value of the weight as it will be stored: where a BatchNormalization follows, of the folded weight
/// `w * gamma / sqrt(variance + epsilon)`, so that layers of different scale compare fairly.
pub(crate) struct Magnitude;

impl Criterion for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude"
    }

    fn summary(&self) -> &'static str {
        "Removes the smallest weights, each as it will be stored (BatchNormalization folded in)."
    }

    fn importance(&self, model: &Model, candidate: &Candidate) -> Result<Vec<f32>> {
        let weight = read(model, candidate, candidate.weight)?;
        let mut importance: Vec<f32> = weight.iter().map(|w| w.abs()).collect();
        let (Some(axis), Some(norm)) = (candidate.axis, candidate.norm) else { return Ok(importance) };
        let shape = model.values.tensor(candidate.weight).map(|t| t.shape().to_vec()).unwrap_or_default();
        let (gamma, variance) = (read(model, candidate, norm.scale)?, read(model, candidate, norm.variance)?);
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

fn read(model: &Model, candidate: &Candidate, id: ValueId) -> Result<Vec<f32>> {
    let Some(tensor) = model.values.tensor(id) else {
        let what = format!("'{}' is computed by the graph; fold constants first", model.values[id].name);
        return Err(PruneError::Weight { weight: candidate.name.clone(), what });
    };
    tensor.to_f32_vec().map_err(|source| PruneError::Tensor { weight: candidate.name.clone(), source })
}
