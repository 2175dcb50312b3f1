//! What a zero in place of each weight does to the norm of the loss's gradient.
use crate::Result;
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use tensor::Tensor;
use train::{GradientSource, TrainError, gradient_moments};

/// Norm of the step to each side, as a share of the norm of all weights together.
const STEP: f64 = 0.003;

/// For each element of `weights` its product with the element of `H g`: `g` the mean gradient of the loss over `batches` batches, `H` its
/// Hessian, the product from the gradients at both ends of a small step along `g`.
///
/// # Errors
/// As [`gradient_moments`].
pub(super) fn gradient_flow(
    model: &Model,
    source: &GradientSource,
    weights: &[ValueId],
    batches: u64,
) -> Result<BTreeMap<ValueId, Vec<f32>>> {
    let gradient = gradient_moments(model, source, weights, batches)?;
    let read = |id: &ValueId| model.values.tensor(*id).map(|t| t.to_f32_vec()).transpose().map(Option::unwrap_or_default);
    let mut values: BTreeMap<ValueId, Vec<f32>> = BTreeMap::new();
    for id in weights {
        values.insert(*id, read(id).map_err(TrainError::from)?);
    }
    let square = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let size = square(&mut values.values().flatten().copied()).sqrt();
    let slope = square(&mut gradient.values().flat_map(|m| &m.mean).copied()).sqrt();
    if slope == 0.0 {
        // At a minimum nothing flows, and every weight counts alike.
        return Ok(values.into_iter().map(|(id, w)| (id, vec![0.0; w.len()])).collect());
    }
    let step = STEP * if size > 0.0 { size } else { 1.0 } / slope;
    let mut ends = vec![];
    for side in [step, -step] {
        let mut moved = model.clone();
        for (id, w) in &values {
            let stepped = w.iter().zip(&gradient[id].mean).map(|(w, g)| (f64::from(*w) + side * f64::from(*g)) as f32).collect::<Vec<_>>();
            let shape = model.values.tensor(*id).map(|t| t.shape().to_vec()).unwrap_or_default();
            moved.values.set_tensor(*id, Tensor::new(stepped, shape).map_err(TrainError::from)?);
        }
        ends.push(gradient_moments(&moved, source, weights, batches)?);
    }
    let product = |(id, w): (&ValueId, &Vec<f32>)| {
        let (plus, minus) = (&ends[0][id].mean, &ends[1][id].mean);
        let along = plus.iter().zip(minus).map(|(a, b)| (f64::from(*a) - f64::from(*b)) / (2.0 * step));
        (*id, w.iter().zip(along).map(|(w, h)| (f64::from(*w) * h) as f32).collect())
    };
    Ok(values.iter().map(product).collect())
}
