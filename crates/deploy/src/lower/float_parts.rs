//! What stays in float, and why.
use graph::{Graph, Model, Node, ValueId, ValueType};
use ops::QuantRule;
use std::collections::HashMap;

/// A node that computes in float in the deployed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatPart {
    /// The node's name.
    pub node: String,
    /// Its operator.
    pub op_type: String,
    /// Why.
    pub reason: String,
}

/// Lists the nodes that compute on floats although something in the model is quantized; none for a model without
/// encodings. Nodes on integers (shape arithmetic) and nodes that only move elements are no arithmetic and not listed.
pub(super) fn list(model: &Model) -> Vec<FloatPart> {
    let mut out = vec![];
    if model.annotations.iter().any(|(_, a)| a.encoding.is_some()) {
        // What cannot be inferred is as it is declared.
        let types = ops::infer_types(model).unwrap_or_default();
        in_graph(model, &model.graph, &types, &mut out);
    }
    out
}

fn in_graph(model: &Model, graph: &Graph, types: &HashMap<ValueId, ValueType>, out: &mut Vec<FloatPart>) {
    for node in &graph.nodes {
        for sub in node.subgraphs() {
            in_graph(model, sub, types, out);
        }
        if let Some(reason) = reason(model, graph, node).filter(|_| may_be_float(model, types, node)) {
            out.push(FloatPart { node: node.label(&model.values), op_type: node.op_type.clone(), reason });
        }
    }
}

fn reason(model: &Model, graph: &Graph, node: &Node) -> Option<String> {
    let encoded = |v: ValueId| model.annotations.encoding(v).is_some();
    let name = |v: ValueId| &model.values[v].name;
    let Some(op) = ops::find(&node.domain, &node.op_type) else { return Some("the operator is not known".into()) };
    match op.quantization(node, model) {
        QuantRule::Float(reason) => ops::float_reason(model, graph, node, reason),
        QuantRule::SameGrid => None,
        QuantRule::Integer { data, weight } => {
            let mut read = data.into_iter().chain(weight.map(|w| w.input)).filter_map(|i| node.input(i));
            if let Some(plain) = read.find(|v| !encoded(*v)) {
                return Some(format!("its input '{}' is not quantized", name(plain)));
            }
            let output = node.output(0)?;
            (!encoded(output) && !fused_behind(model, graph, output)).then(|| format!("its output '{}' is not quantized", name(output)))
        }
        QuantRule::FusedActivation => {
            let output = node.output(0)?;
            (!encoded(output)).then(|| format!("its output '{}' is not quantized", name(output)))
        }
    }
}

/// True if what alone reads the value is an activation whose own output is quantized.
fn fused_behind(model: &Model, graph: &Graph, value: ValueId) -> bool {
    let readers = graph.consumers(value);
    let [only] = readers.as_slice() else { return false };
    let node = &graph.nodes[*only];
    let fused = ops::find(&node.domain, &node.op_type).is_some_and(|op| op.quantization(node, model) == QuantRule::FusedActivation);
    fused && node.output(0).is_some_and(|v| model.annotations.encoding(v).is_some())
}

/// False where every output is known to be something else than a float tensor.
fn may_be_float(model: &Model, types: &HashMap<ValueId, ValueType>, node: &Node) -> bool {
    let dtype = |v: &ValueId| match types.get(v) {
        Some(ValueType::Tensor { dtype, .. }) => Some(*dtype),
        _ => model.values[*v].dtype(),
    };
    node.outputs.iter().flatten().any(|v| dtype(v).is_none_or(|d| d.is_float()))
}
