//! The diagonal of the inverse of the sums of products of layers' inputs.
use crate::layers::{layerwise, power, readers};
use crate::{Candidate, PruneError, Result};
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use train::{GradientSource, inverse_factor};

/// For each candidate that one layer alone reads, `[H^-1]_jj` for the input `j` of each of its elements, in the weight's own order; `H` the
/// sums of products of the inputs over the first batches of the source, damped.
///
/// # Errors
/// Errors of running the graph.
pub(super) fn inverse_diagonals(
    model: &Model,
    source: &GradientSource,
    list: &[Candidate],
    batches: u64,
    damping: f64,
) -> Result<BTreeMap<ValueId, Vec<f32>>> {
    let (mut states, mut found) = (layerwise(model, source, batches)?, BTreeMap::new());
    for reader in readers(model, list).0 {
        let (layer, groups) = power(model, &mut states, &reader, damping)?;
        let (k, name) = (layer.row, &reader.candidate.name);
        let mut rows = Vec::with_capacity(layer.outputs * k);
        for h in &groups {
            let what =
                || PruneError::Weight { weight: name.clone(), what: "the products of its inputs have no inverse; raise damping".into() };
            let u = inverse_factor(h).ok_or_else(what)?;
            let mut diagonal = vec![0f64; k];
            u.chunks(k.max(1)).for_each(|row| diagonal.iter_mut().zip(row).for_each(|(sum, u)| *sum += u * u));
            let diagonal: Vec<f32> = diagonal.into_iter().map(|d| d as f32).collect();
            (0..layer.outputs / layer.groups).for_each(|_| rows.extend_from_slice(&diagonal));
        }
        let shape = model.values.tensor(reader.candidate.weight).map(|t| t.shape().to_vec()).unwrap_or_default();
        let wrong = |source| PruneError::Tensor { weight: name.clone(), source };
        let stored = layer.restored(rows, &shape).and_then(|t| t.to_f32_vec()).map_err(wrong)?;
        found.insert(reader.candidate.weight, stored);
    }
    Ok(found)
}
