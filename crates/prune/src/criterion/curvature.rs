//! The diagonal of the loss's Hessian by the weights.
use crate::Result;
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use tensor::{Tensor, random};
use train::{GradientSource, TrainError, gradient_moments};

/// Size of a step to each side, as a share of the root mean square of the weight.
const STEP: f64 = 0.01;
/// Key of the random directions.
const DIRECTIONS: u64 = 0x0bd0_0bd0;

/// An estimate of the second derivative of the loss by each element of `weights`: the mean over random directions `r` of signs of
/// `r * (H r)` (Hutchinson 1989; Bekas et al. 2007), `H r` from the difference of the gradients at both ends of a small step along `r`.
/// Its expectation is the diagonal; single elements are noisy, less so with more directions.
///
/// # Errors
/// As [`gradient_moments`].
pub(super) fn curvature(
    model: &Model,
    source: &GradientSource,
    weights: &[ValueId],
    batches: u64,
    draws: u64,
) -> Result<BTreeMap<ValueId, Vec<f32>>> {
    let mut sums: BTreeMap<ValueId, Vec<f32>> = BTreeMap::new();
    for draw in 0..draws {
        let seed = random::derive(DIRECTIONS, draw);
        let mut ends = vec![];
        for side in [1.0, -1.0] {
            let mut moved = model.clone();
            for id in weights {
                let (step, w) = step(model, *id)?;
                let stepped = w.iter().enumerate().map(|(i, w)| w + (side * step * sign(seed, *id, i)) as f32).collect::<Vec<_>>();
                let shape = model.values.tensor(*id).map(|t| t.shape().to_vec()).unwrap_or_default();
                moved.values.set_tensor(*id, Tensor::new(stepped, shape).map_err(TrainError::from)?);
            }
            ends.push(gradient_moments(&moved, source, weights, batches)?);
        }
        for id in weights {
            let (step, w) = step(model, *id)?;
            let sum = sums.entry(*id).or_insert_with(|| vec![0.0; w.len()]);
            let (plus, minus) = (&ends[0][id].mean, &ends[1][id].mean);
            for (i, sum) in sum.iter_mut().enumerate() {
                let slope = (f64::from(plus[i]) - f64::from(minus[i])) / (2.0 * step);
                *sum += (sign(seed, *id, i) * slope / draws as f64) as f32;
            }
        }
    }
    Ok(sums)
}

/// The step of a weight, and its elements.
fn step(model: &Model, id: ValueId) -> Result<(f64, Vec<f32>), TrainError> {
    let w = model.values.tensor(id).map(|t| t.to_f32_vec()).transpose()?.unwrap_or_default();
    let square = w.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / w.len().max(1) as f64;
    Ok((STEP * if square > 0.0 { square.sqrt() } else { 1.0 }, w))
}

fn sign(seed: u64, id: ValueId, at: usize) -> f64 {
    if random::bits(random::derive(seed, u64::from(id.0)), at as u64) & 1 == 0 { 1.0 } else { -1.0 }
}
