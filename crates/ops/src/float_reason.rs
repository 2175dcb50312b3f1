//! Reasons for nodes that compute in float.
use crate::{Effect, find};
use graph::{Graph, Model, Node};

/// Why a node of `graph`, a graph of `model`, computes in float: the operator's own `reason`, with the cause in this graph if it
/// is known. `None` for control flow: the nodes in its subgraphs have reasons of their own.
pub fn float_reason(model: &Model, graph: &Graph, node: &Node, reason: &str) -> Option<String> {
    if node.subgraphs().next().is_some() {
        return None;
    }
    let normalizes = find(&node.domain, &node.op_type).is_some_and(|op| op.effect(node, model) == Effect::Normalizes);
    match node.output(0) {
        Some(output) if normalizes => Some(format!("{reason}, and {}", crate::fold::why_not_folded(model, graph, output))),
        _ => Some(reason.to_string()),
    }
}
