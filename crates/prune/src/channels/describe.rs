//! What the channel groups of a model are, for people.
use super::groups::{ChannelPlace, Groups};
use graph::{Model, ValueId};
use ops::{Effect, Role};
use serde::Serialize;
use std::collections::{BTreeSet, HashSet};

/// One group of channels: what computes them, what joins them and what reads them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupText {
    /// Number of channels.
    pub channels: usize,
    /// Weights of one channel: elements of parameters that go with it.
    pub parameters: usize,
    /// Layers whose output channels they are, as `filters of NODE`, with the number of output channels for one channel if it is not 1.
    pub computed_by: Vec<String>,
    /// Layers that sum over them.
    pub read_by: Vec<String>,
    /// Nodes that join several values, so that their channels go together: sums, concatenations, shared states.
    pub joined_by: Vec<String>,
}

/// Describes each group, in order.
pub fn describe(model: &Model, groups: &Groups) -> Vec<GroupText> {
    groups
        .groups
        .iter()
        .map(|group| {
            let values: HashSet<ValueId> = group.axes.iter().map(|(v, _)| *v).collect();
            let first = group.channels.first().map(|c| c.places.as_slice()).unwrap_or_default();
            let times = |value: ValueId, axis: usize| first.iter().filter(|p| (p.value, p.axis) == (value, axis)).count();
            let (mut computed_by, mut read_by, mut joined_by) = (vec![], vec![], vec![]);
            for node in &model.graph.nodes {
                let Some(op) = ops::find(&node.domain, &node.op_type) else { continue };
                let label = node.label(&model.values);
                let named = |value: ValueId, axis: usize| match times(value, axis) {
                    0 | 1 => label.clone(),
                    n => format!("{label} ({n} for each)"),
                };
                let own = match op.effect(node, model) {
                    Effect::Computes { weight: Some(rule), .. } => node.input(rule.input).zip(rule.axis),
                    _ => None,
                };
                let mut layer = false;
                for (i, value) in node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
                    if op.role(node, i) != Role::Weight {
                        continue;
                    }
                    for (_, axis) in group.axes.iter().filter(|(v, _)| *v == value) {
                        layer = true;
                        let list = if own == Some((value, *axis)) { &mut computed_by } else { &mut read_by };
                        if !list.contains(&named(value, *axis)) {
                            list.push(named(value, *axis));
                        }
                    }
                }
                let data: BTreeSet<ValueId> =
                    node.inputs.iter().flatten().filter(|v| values.contains(v) && groups.computed.contains(v)).copied().collect();
                let outputs = node.outputs.iter().flatten().any(|v| values.contains(v));
                if !layer && outputs && data.len() > 1 {
                    joined_by.push(format!("{} {label}", node.op_type));
                }
            }
            let parameters = first.iter().map(|p| elements(model, p)).sum();
            GroupText { channels: group.channels.len(), parameters, computed_by, read_by, joined_by }
        })
        .collect()
}

/// Elements of a parameter at one index.
fn elements(model: &Model, place: &ChannelPlace) -> usize {
    model.constant(place.value).map_or(0, |t| t.len() / t.shape()[place.axis].max(1))
}
