//! Channels that element pruning has emptied.
use super::groups::{Channel, ChannelPlace, Groups};
use super::still::along;
use crate::{PruneError, Result};
use graph::{Model, ValueId};
use ops::{Effect, Role};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use train::{Executor, Mode, Named};

/// A layer's part in a channel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Its filters compute the channel from others.
    Computes,
    /// Its filters compute the channel from itself (grouped, depthwise).
    Filters,
    /// It sums over the channel.
    Reads,
}

/// Channels whose removal changes no output at all, because their weights are zero, masks applied: those that no layer reads, and those
/// that no layer computes and that are zero wherever they are read. Whether a channel without weights is zero, and not a constant
/// that its bias or shift leaves, a run on `sample` tells: no data change it. The last channel of an axis stays.
///
/// # Errors
/// Errors of the run; [`PruneError::Tensor`] for a weight that cannot be read.
pub fn dead<'a>(model: &Model, groups: &'a Groups, sample: &Named) -> Result<Vec<&'a Channel>> {
    let parts = parts(model);
    let zeros = zeros(model, &parts)?;
    let mut found = vec![];
    let mut unweighted = vec![];
    for channel in groups.groups.iter().flat_map(|g| &g.channels) {
        let empty = |wanted: Part| {
            let mut places = channel.places.iter().filter(|p| parts.get(&(p.value, p.axis)) == Some(&wanted)).peekable();
            places.peek().is_some() && places.all(|p| is_zero(model, &zeros, p))
        };
        match (empty(Part::Reads), empty(Part::Computes)) {
            (true, _) => found.push(channel),
            (false, true) => unweighted.push(channel),
            _ => {}
        }
    }
    if !unweighted.is_empty() {
        let quiet = quiet(model, sample)?;
        let silent = |c: &&Channel| c.places.iter().all(|p| quiet.get(&(p.value, p.axis)).is_none_or(|zero| zero[p.index]));
        found.extend(unweighted.into_iter().filter(silent));
    }
    Ok(without_last(groups, found))
}

/// Leaves out channels whose removal would leave an axis without any.
fn without_last<'a>(groups: &Groups, found: Vec<&'a Channel>) -> Vec<&'a Channel> {
    let mut left: HashMap<(ValueId, usize), usize> = HashMap::new();
    let size = |p: &ChannelPlace| groups.shapes.get(&p.value).and_then(|s| s.get(p.axis)?.known()).unwrap_or(0);
    let mut may_go = |channel: &Channel| {
        let mut after = left.clone();
        for place in &channel.places {
            let count = after.entry((place.value, place.axis)).or_insert_with(|| size(place));
            *count = count.saturating_sub(1);
            if *count == 0 {
                return false;
            }
        }
        left = after;
        true
    };
    found.into_iter().filter(|c| may_go(c)).collect()
}

/// What each axis of each weight is to the channels on it.
pub(super) fn parts(model: &Model) -> BTreeMap<(ValueId, usize), Part> {
    let mut parts = BTreeMap::new();
    for node in &model.graph.nodes {
        let Some(op) = ops::find(&node.domain, &node.op_type) else { continue };
        let own = match op.effect(node, model) {
            Effect::Computes { weight: Some(rule), .. } => node.input(rule.input).zip(rule.axis),
            _ => None,
        };
        for (i, id) in node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
            let Some(weight) = model.constant(id).filter(|_| op.role(node, i) == Role::Weight) else { continue };
            let groups = node.int_or("group", 1).unwrap_or(1) > 1;
            for axis in 0..weight.rank() {
                let part = match own {
                    Some((value, at)) if value == id && at == axis && groups => Part::Filters,
                    Some((value, at)) if value == id && at == axis => Part::Computes,
                    _ => Part::Reads,
                };
                parts.entry((id, axis)).or_insert(part);
            }
        }
    }
    parts
}

/// Which elements of each weight are zero, masks applied.
pub(super) fn zeros(model: &Model, parts: &BTreeMap<(ValueId, usize), Part>) -> Result<HashMap<ValueId, Vec<bool>>> {
    let weights: BTreeSet<ValueId> = parts.keys().map(|(id, _)| *id).collect();
    weights.into_iter().map(|id| Ok((id, zero_elements(model, id)?))).collect()
}

/// Which elements of a weight are zero, masks applied.
pub(super) fn zero_elements(model: &Model, id: ValueId) -> Result<Vec<bool>> {
    let failed = |source| PruneError::Tensor { weight: model.values[id].name.clone(), source };
    let Some(tensor) = model.values.tensor(id) else { return Ok(vec![]) };
    let mut zero: Vec<bool> = tensor.to_f32_vec().map_err(failed)?.into_iter().map(|w| w == 0.0).collect();
    if let Some(mask) = model.annotations.mask(id) {
        zero.iter_mut().zip(mask.as_slice::<bool>().map_err(failed)?).for_each(|(zero, live)| *zero |= !live);
    }
    Ok(zero)
}

pub(super) fn is_zero(model: &Model, zeros: &HashMap<ValueId, Vec<bool>>, place: &ChannelPlace) -> bool {
    let (Some(tensor), Some(zero)) = (model.values.tensor(place.value), zeros.get(&place.value)) else { return false };
    let (size, inner) = (tensor.shape()[place.axis], tensor.shape()[place.axis + 1..].iter().product::<usize>());
    zero.chunks(inner.max(1)).enumerate().filter(|(i, _)| i % size == place.index).all(|(_, chunk)| chunk.iter().all(|z| *z))
}

/// For each axis of the values that layers read as data: which indices are zero throughout.
fn quiet(model: &Model, sample: &Named) -> Result<HashMap<(ValueId, usize), Vec<bool>>> {
    let mut read: Vec<ValueId> = vec![];
    for node in &model.graph.nodes {
        let Some(op) = ops::find(&node.domain, &node.op_type) else { continue };
        if let Effect::Computes { weight: Some(rule), data } = op.effect(node, model)
            && node.input(rule.input).is_some_and(|w| model.constant(w).is_some())
        {
            read.extend(data.into_iter().filter_map(|i| node.input(i)));
        }
    }
    let mut found = HashMap::new();
    let mut failed = None;
    Executor::unfused(model)?.run_observed(sample, Mode::SIMULATED, &mut |id, tensor| {
        if !read.contains(&id) {
            return;
        }
        match tensor.to_f32_vec() {
            Ok(list) => {
                for axis in 0..tensor.rank() {
                    let zero = along(&list, tensor.shape(), axis).into_iter().map(|v| v == Some(0.0));
                    found.insert((id, axis), zero.collect());
                }
            }
            Err(source) => failed = Some(PruneError::Tensor { weight: model.values[id].name.clone(), source }),
        }
    })?;
    failed.map_or(Ok(found), Err)
}
