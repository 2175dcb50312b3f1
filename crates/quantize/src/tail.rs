//! The end of a network: the nodes from the result of the last layer to the network's outputs.
use graph::{Model, Node, ValueId};
use ops::{Role, Roles};
use std::collections::BTreeSet;

/// First outputs of the main graph's nodes that depend on a layer with weights and that no layer depends on: a final Softmax, the
/// decoding of boxes. An activation that a runtime fuses into the layer before it belongs to the layer, and so does its bias in
/// an Add.
pub(crate) fn nodes_behind_the_last_layer(model: &Model, roles: &Roles) -> BTreeSet<ValueId> {
    let nodes = &model.graph.nodes;
    // Values that a layer depends on, directly or through other nodes.
    let mut leads = BTreeSet::new();
    for node in nodes.iter().rev() {
        if is_layer(node) || node.outputs.iter().flatten().any(|v| leads.contains(v)) {
            leads.extend(reads(node));
        }
    }
    let (mut follows, mut of_layer, mut tail) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for node in nodes {
        let outputs = || node.outputs.iter().flatten().copied();
        let bias = roles.bias_of(node).is_some() && reads(node).iter().any(|v| of_layer.contains(v));
        let fused = bias || ops::clips(model, node) && node.input(0).is_some_and(|v| of_layer.contains(&v));
        if is_layer(node) || fused {
            of_layer.extend(outputs());
            follows.extend(outputs());
        } else if reads(node).iter().any(|v| follows.contains(v)) {
            follows.extend(outputs());
            if !outputs().any(|v| leads.contains(&v)) {
                tail.extend(node.output(0));
            }
        }
    }
    tail
}

/// A node with a weight, itself or inside a subgraph.
fn is_layer(node: &Node) -> bool {
    let op = ops::find(&node.domain, &node.op_type);
    let weighted = op.is_some_and(|op| (0..node.inputs.len()).any(|i| op.role(node, i) == Role::Weight));
    weighted || node.subgraphs().any(|g| g.nodes.iter().any(is_layer))
}

/// All values that a node reads, also in its subgraphs.
fn reads(node: &Node) -> Vec<ValueId> {
    node.inputs.iter().flatten().copied().chain(node.subgraphs().flat_map(|g| g.use_counts().into_keys())).collect()
}
