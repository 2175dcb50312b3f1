//! How often the channels behind layers are not zero.
use crate::{Candidate, PruneError, Result};
use graph::{Model, Node, ValueId};
use ops::{ChannelAxis, Effect};
use std::collections::{BTreeMap, HashMap};
use tensor::Tensor;
use train::{Executor, GradientSource, Mode};

/// For each candidate of a layer with a rectifier behind it the share of each output's activations that are not zero, over the first batches
/// of the source.
///
/// # Errors
/// Errors of the graph or the data.
pub(super) fn activity(model: &Model, source: &GradientSource, list: &[Candidate], batches: u64) -> Result<BTreeMap<ValueId, Vec<f32>>> {
    let behind: HashMap<ValueId, (ValueId, ChannelAxis)> =
        list.iter().filter_map(|c| Some((c.weight, (rectified(model, c.weight)?, c.data?.1)))).collect();
    let mode = Mode { training: false, simulate: source.simulate, seed: 0 };
    let executor = Executor::unfused(model)?;
    let mut found: BTreeMap<ValueId, (Vec<u64>, u64)> = BTreeMap::new();
    for batch in source.data.epoch(source.epoch).take(usize::try_from(batches).unwrap_or(usize::MAX)) {
        let mut wrong = None;
        let mut watch = |id: ValueId, tensor: &Tensor| {
            for (weight, (_, axis)) in behind.iter().filter(|(_, (value, _))| *value == id) {
                if let Err(e) = add(tensor, *axis, found.entry(*weight).or_default()) {
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
    let share = |(live, all): (Vec<u64>, u64)| live.into_iter().map(|n| n as f32 / all.max(1) as f32).collect();
    Ok(found.into_iter().map(|(weight, counts)| (weight, share(counts))).collect())
}

/// Adds how many elements of each channel are not zero, and how many a channel has.
fn add(tensor: &Tensor, axis: ChannelAxis, (live, all): &mut (Vec<u64>, u64)) -> tensor::Result<()> {
    let axis = if axis == ChannelAxis::Second { 1 } else { tensor.rank().saturating_sub(1) };
    let channels = tensor.shape().get(axis).copied().unwrap_or(1).max(1);
    let run = tensor.shape().iter().skip(axis + 1).product::<usize>().max(1);
    live.resize(channels, 0);
    for (i, piece) in tensor.to_f32_vec()?.chunks(run).enumerate() {
        live[i % channels] += piece.iter().filter(|v| **v != 0.0).count() as u64;
    }
    *all += (tensor.len() / channels) as u64;
    Ok(())
}

/// The result of the rectifier that alone reads what the only layer with this weight computes, perhaps normalized.
fn rectified(model: &Model, weight: ValueId) -> Option<ValueId> {
    let (uses, roles) = (model.graph.use_counts(), ops::Roles::of(model));
    let layer = model.graph.nodes.iter().find(|n| n.input(1) == Some(weight)).filter(|_| uses.get(&weight) == Some(&1))?;
    let mut at = layer.output(0)?;
    loop {
        let alone = uses.get(&at) == Some(&1);
        let node: &Node = model.graph.consumers(at).first().filter(|_| alone).map(|i| &model.graph.nodes[*i])?;
        match ops::find(&node.domain, &node.op_type)?.effect(node, model) {
            Effect::Clips => return node.output(0),
            Effect::Normalizes => at = node.output(0)?,
            _ if roles.bias_of(node).is_some() => at = node.output(0)?,
            _ => return None,
        }
    }
}
