//! Weights of integers that operators in float alone read.
use graph::{Model, Node, ValueId};
use ops::Role;
use std::collections::BTreeSet;
use target::{QuantRule, Target};

/// The encoded weights that are decoded once: every reader is an operator without a kernel on integers, or looks up rows that have a scale
/// each. None for a target that computes DequantizeLinear once, too.
pub(super) fn find(model: &Model, target: &dyn Target) -> BTreeSet<ValueId> {
    let (mut float, mut other) = (BTreeSet::new(), BTreeSet::new());
    if !target.computes_dequantizers_each_run() {
        return float;
    }
    model.graph.visit(&mut |node| {
        for (i, id) in node.inputs.iter().enumerate().filter_map(|(i, id)| Some((i, (*id)?))) {
            if model.values.tensor(id).is_some() && model.annotations.encoding(id).is_some() {
                if in_float(model, node, i, target) { &mut float } else { &mut other }.insert(id);
            }
        }
    });
    &float - &other
}

fn in_float(model: &Model, node: &Node, input: usize, target: &dyn Target) -> bool {
    let weight = ops::find(&node.domain, &node.op_type).is_some_and(|op| op.role(node, input) == Role::Weight);
    let by_row = || node.input(input).and_then(|v| model.annotations.encoding(v)).is_some_and(|e| e.settings.contains_key("axis"));
    match target.rule(node, model) {
        QuantRule::Float(_) => weight,
        QuantRule::SameGrid => weight && by_row(),
        _ => false,
    }
}
