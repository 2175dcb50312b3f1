//! What to tell the user of a node that computes in float.
use graph::{Graph, Model, Node};

/// Why a node of `graph`, a graph of `model`, computes in float: the operator's own `reason`, with what keeps this very node from
/// it where that is known. `None` for control flow, which computes nothing itself: what lies in its subgraphs speaks for
/// itself.
pub fn float_reason(model: &Model, graph: &Graph, node: &Node, reason: &str) -> Option<String> {
    if node.subgraphs().next().is_some() {
        return None;
    }
    match node.output(0) {
        Some(output) if node.op_type == "BatchNormalization" && node.is_onnx() => {
            Some(format!("{reason}, and {}", crate::fold::why_not_folded(model, graph, output)))
        }
        _ => Some(reason.to_string()),
    }
}
