//! Weights of integers that are read in float alone.
use super::LowerOptions;
use encodings::Decode;
use graph::{Model, Node, ValueId};
use ops::Role;
use std::collections::BTreeSet;
use target::{QuantRule, Target};
use tensor::DType;

/// The encoded weights that the target or the options want behind Cast and Mul, as all their readers compute in float: operators without
/// a kernel on integers, embeddings whose rows have a scale each, and layers whose data are float.
pub(super) fn find(model: &Model, options: &LowerOptions) -> BTreeSet<ValueId> {
    let target = &**options.target.member();
    let (mut float, mut other) = (BTreeSet::new(), BTreeSet::new());
    model.graph.visit(&mut |node| {
        for (i, id) in node.inputs.iter().enumerate().filter_map(|(i, id)| Some((i, (*id)?))) {
            if let Some(integers) = integers(model, id) {
                let layer = reader(model, node, i, target);
                if layer.is_some_and(|layer| options.decode_once || target.casts_weights(integers, layer)) {
                    &mut float
                } else {
                    &mut other
                }
                .insert(id);
            }
        }
    });
    &float - &other
}

/// The type of a constant's stored integers.
fn integers(model: &Model, id: ValueId) -> Option<DType> {
    model.values.tensor(id)?;
    match encodings::decode(model.annotations.encoding(id)?) {
        Ok(Decode::Affine { zero_point, .. }) => Some(zero_point.dtype()),
        _ => None,
    }
}

/// Whether the node that reads a weight in float is a layer with a kernel on integers; `None` if it does not read it as a weight in
/// float.
fn reader(model: &Model, node: &Node, input: usize, target: &dyn Target) -> Option<bool> {
    let weight = ops::find(&node.domain, &node.op_type).is_some_and(|op| op.role(node, input) == Role::Weight);
    let encoding = |v| model.annotations.encoding(v);
    match target.rule(node, model) {
        _ if !weight => None,
        QuantRule::Float(_) => Some(false),
        QuantRule::SameGrid => node.input(input).and_then(encoding).filter(|e| e.settings.contains_key("axis")).map(|_| false),
        QuantRule::Integer { data, .. } => {
            data.iter().filter(|i| **i != input).filter_map(|i| node.input(*i)).all(|v| encoding(v).is_none()).then_some(true)
        }
        QuantRule::FusedActivation => None,
    }
}
