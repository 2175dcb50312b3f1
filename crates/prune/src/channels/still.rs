//! What does not depend on the data: whole values behind layers without a weight left, and single channels.
use super::dead::zero_elements;
use super::groups::Channel;
use crate::{PruneError, Result};
use graph::{Model, Node, ValueId};
use ops::Effect;
use std::collections::{HashMap, HashSet};
use tensor::{DType, Tensor};
use train::{Executor, Mode, Named};

/// The computed values of the main graph whose elements depend on what the network is given. A layer whose weights are all zero, masks
/// applied, passes nothing on.
///
/// # Errors
/// [`PruneError::Tensor`] for a weight that cannot be read.
pub(super) fn moving(model: &Model) -> Result<HashSet<ValueId>> {
    let mut found: HashSet<ValueId> = model.graph.inputs.iter().copied().collect();
    for node in &model.graph.nodes {
        let reads = node.inputs.iter().flatten().any(|v| found.contains(v)) || node.subgraphs().next().is_some();
        let effect = ops::find(&node.domain, &node.op_type).map(|op| op.effect(node, model));
        let empty = match effect {
            Some(Effect::Computes { weight: Some(rule), .. }) => match node.input(rule.input).filter(|w| model.constant(*w).is_some()) {
                Some(weight) => zero_elements(model, weight)?.iter().all(|zero| *zero),
                None => false,
            },
            _ => false,
        };
        if reads && !empty {
            found.extend(node.outputs.iter().flatten());
        }
    }
    Ok(found)
}

/// Where data may join a channel.
pub(super) struct Origins<'a> {
    model: &'a Model,
    moving: HashSet<ValueId>,
    /// The node that computes each value.
    nodes: HashMap<ValueId, &'a Node>,
}

impl<'a> Origins<'a> {
    /// # Errors
    /// [`PruneError::Tensor`] for a weight that cannot be read.
    pub(super) fn of(model: &'a Model) -> Result<Self> {
        let outputs = |node: &'a Node| node.outputs.iter().flatten().map(move |v| (*v, node));
        Ok(Origins { model, moving: moving(model)?, nodes: model.graph.nodes.iter().flat_map(outputs).collect() })
    }

    /// True if no data reach a channel whose filters are all zero: every node that computes it reads no data, moves elements, sums over its
    /// data by these filters, or reads data in this very channel alone.
    pub(super) fn none(&self, channel: &Channel) -> bool {
        let own: HashSet<ValueId> = channel.places.iter().map(|p| p.value).collect();
        let mut computed = own.iter().filter(|value| self.moving.contains(value));
        computed.all(|value| self.nodes.get(value).is_some_and(|node| self.keeps_out(node, &own)))
    }

    fn keeps_out(&self, node: &Node, own: &HashSet<ValueId>) -> bool {
        let Some(op) = ops::find(&node.domain, &node.op_type).filter(|_| node.subgraphs().next().is_none()) else { return false };
        let filtered = match op.effect(node, self.model) {
            Effect::Moves => return true,
            // Other channels stand beside it.
            _ if ops::joins(node) => return true,
            Effect::Computes { data, weight: Some(rule) } if node.input(rule.input).is_some_and(|w| own.contains(&w)) => data,
            _ => vec![],
        };
        let mut inputs = node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?)));
        inputs.all(|(i, v)| !self.moving.contains(&v) || own.contains(&v) || filtered.contains(&i))
    }
}

/// For each axis of some values: the element that an index has throughout, in a run on `sample` and in one on other numbers; `None` for an
/// index that varies. Nothing is known where there are no other numbers to run on.
///
/// # Errors
/// Errors of the runs.
pub(super) fn still(model: &Model, sample: &Named, values: &HashSet<ValueId>) -> Result<HashMap<(ValueId, usize), Vec<Option<f32>>>> {
    let Some(other) = other(sample)? else { return Ok(HashMap::new()) };
    let executor = Executor::unfused(model)?;
    let mut found: HashMap<(ValueId, usize), Vec<Option<f32>>> = HashMap::new();
    for (run, inputs) in [sample, &other].into_iter().enumerate() {
        let mut failed = None;
        executor.run_observed(inputs, Mode::SIMULATED, &mut |id, tensor| {
            if !values.contains(&id) || !tensor.dtype().is_float() {
                return;
            }
            match tensor.to_f32_vec() {
                Ok(list) => (0..tensor.rank()).for_each(|axis| {
                    let own = along(&list, tensor.shape(), axis);
                    let known = found.entry((id, axis)).or_insert_with(|| if run == 0 { own.clone() } else { vec![] });
                    known.resize(own.len(), None);
                    known.iter_mut().zip(own).filter(|(a, b)| **a != *b).for_each(|(a, _)| *a = None);
                }),
                Err(source) => failed = Some(PruneError::Tensor { weight: model.values[id].name.clone(), source }),
            }
        })?;
        if let Some(failed) = failed {
            return Err(failed);
        }
    }
    Ok(found)
}

/// The element that each index of an axis has throughout.
pub(super) fn along(list: &[f32], shape: &[usize], axis: usize) -> Vec<Option<f32>> {
    let (size, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>().max(1));
    let mut first: Vec<Option<f32>> = vec![None; size];
    let mut same = vec![true; size];
    for (i, v) in list.iter().enumerate() {
        let at = i / inner % size;
        same[at] &= *first[at].get_or_insert(*v) == *v;
    }
    first.into_iter().zip(same).map(|(v, same)| v.filter(|v| same && v.is_finite())).collect()
}

/// Other numbers of the same types and shapes: floats turned around and scaled, others turned around. `None` if that changes nothing.
fn other(sample: &Named) -> Result<Option<Named>> {
    let mut changed = false;
    let mut out = Named::new();
    for (name, tensor) in sample {
        let unreadable = |source| PruneError::Tensor { weight: name.clone(), source };
        let turned = match tensor.dtype() {
            DType::F32 => {
                let list: Vec<f32> = tensor.to_f32_vec().map_err(unreadable)?.into_iter().rev().map(|v| 0.25 - 0.75 * v).collect();
                Tensor::new(list, tensor.shape()).map_err(unreadable)?
            }
            DType::I64 => {
                let list: Vec<i64> = tensor.as_slice::<i64>().map_err(unreadable)?.iter().rev().copied().collect();
                Tensor::new(list, tensor.shape()).map_err(unreadable)?
            }
            _ => tensor.clone(),
        };
        changed |= turned != *tensor;
        out.insert(name.clone(), turned);
    }
    Ok(changed.then_some(out))
}
