//! The power of what weights are multiplied with.
use crate::{Candidate, PruneError, Result};
use graph::{Model, ValueId};
use ops::ChannelAxis;
use std::collections::BTreeMap;
use tensor::Tensor;
use train::{Executor, GradientSource, Mode};

/// For each candidate with a known input the root of the mean square of each channel of it, over the first batches of the source.
///
/// # Errors
/// Errors of the graph or the data.
pub(super) fn input_norms(model: &Model, source: &GradientSource, list: &[Candidate], batches: u64) -> Result<BTreeMap<ValueId, Vec<f32>>> {
    let mode = Mode { training: false, simulate: source.simulate, seed: 0 };
    let executor = Executor::unfused(model)?;
    let mut found: BTreeMap<(ValueId, bool), (Vec<f64>, u64)> = BTreeMap::new();
    let key = |(value, at): (ValueId, ChannelAxis)| (value, at == ChannelAxis::Second);
    list.iter().filter_map(|c| c.data).for_each(|data| drop(found.insert(key(data), (vec![], 0))));
    for batch in source.data.epoch(source.epoch).take(usize::try_from(batches).unwrap_or(usize::MAX)) {
        let mut wrong = None;
        let mut watch = |id: ValueId, tensor: &Tensor| {
            for ((_, second), sums) in found.range_mut((id, false)..=(id, true)) {
                if let Err(e) = add(tensor, *second, sums) {
                    wrong.get_or_insert((id, e));
                }
            }
        };
        executor.run_observed(&batch?.inputs, mode, &mut watch)?;
        if let Some((id, source)) = wrong {
            return Err(PruneError::Tensor { weight: model.values[id].name.clone(), source });
        }
    }
    tensor::release_kept();
    let mut norms = BTreeMap::new();
    for candidate in list {
        let Some((sums, count)) = candidate.data.and_then(|data| found.get(&key(data))) else { continue };
        if *count > 0 {
            norms.insert(candidate.weight, sums.iter().map(|s| (s / *count as f64).sqrt() as f32).collect());
        }
    }
    Ok(norms)
}

/// Adds the squares of a tensor to the sums of its channels.
fn add(tensor: &Tensor, second: bool, (sums, count): &mut (Vec<f64>, u64)) -> tensor::Result<()> {
    let axis = if second { 1 } else { tensor.rank().saturating_sub(1) };
    let channels = tensor.shape().get(axis).copied().unwrap_or(1).max(1);
    let run = tensor.shape().iter().skip(axis + 1).product::<usize>().max(1);
    sums.resize(channels, 0.0);
    for (i, piece) in tensor.to_f32_vec()?.chunks(run).enumerate() {
        sums[i % channels] += piece.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    }
    *count += (tensor.len() / channels) as u64;
    Ok(())
}
