//! What stays in float, and why.
use encodings::Decode;
use graph::{Graph, Model, Node, ValueId, ValueType};
use ops::{QuantRule, Roles};
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
/// encodings. Nodes on integers (shape arithmetic), nodes that only move elements and those that make `divided` (a change of scale) are no
/// arithmetic and not listed.
pub(super) fn list(model: &Model, divided: &[ValueId]) -> Vec<FloatPart> {
    let mut out = vec![];
    if model.annotations.iter().any(|(_, a)| a.encoding.is_some()) {
        // What cannot be inferred is as it is declared.
        let types = ops::infer_types(model).unwrap_or_default();
        in_graph(model, &Roles::of(model), &types, &model.graph, &mut out);
        let divided: Vec<String> =
            divided.iter().flat_map(|v| model.graph.producer(*v)).map(|i| model.graph.nodes[i].label(&model.values)).collect();
        out.retain(|p| !divided.contains(&p.node));
    }
    out
}

fn in_graph(model: &Model, roles: &Roles, types: &HashMap<ValueId, ValueType>, graph: &Graph, out: &mut Vec<FloatPart>) {
    for node in &graph.nodes {
        for sub in node.subgraphs() {
            in_graph(model, roles, types, sub, out);
        }
        if let Some(reason) = reason(model, roles, graph, node).filter(|_| may_be_float(model, types, node)) {
            out.push(FloatPart { node: node.label(&model.values), op_type: node.op_type.clone(), reason });
        }
    }
}

fn reason(model: &Model, roles: &Roles, graph: &Graph, node: &Node) -> Option<String> {
    let encoded = |v: ValueId| model.annotations.encoding(v).is_some();
    let name = |v: ValueId| &model.values[v].name;
    let Some(op) = ops::find(&node.domain, &node.op_type) else { return Some("the operator is not known".into()) };
    match op.quantization(node, model) {
        QuantRule::Float(reason) => ops::float_reason(model, graph, node, reason),
        QuantRule::SameGrid => None,
        QuantRule::Integer { data, weight } => {
            let decoded = weight.as_ref().and_then(|w| model.annotations.encoding(node.input(w.input)?));
            if let Some(how) = decoded.filter(|e| matches!(encodings::decode(e), Ok(Decode::Table { .. }))) {
                return Some(format!("its weight is decoded from a table ({})", encodings::describe(how)));
            }
            let mut read = data.into_iter().chain(weight.map(|w| w.input)).filter_map(|i| node.input(i));
            if let Some(plain) = read.find(|v| !encoded(*v)) {
                if adds_bias(model, roles, node).is_some() {
                    return Some("it adds a bias to a layer's result before that is rounded".into());
                }
                return Some(format!("its input '{}' is not quantized", name(plain)));
            }
            let output = node.output(0)?;
            (!encoded(output) && !fused_behind(model, roles, graph, output))
                .then(|| format!("its output '{}' is not quantized", name(output)))
        }
        QuantRule::FusedActivation => {
            let output = node.output(0)?;
            (!encoded(output)).then(|| format!("its output '{}' is not quantized", name(output)))
        }
    }
}

/// The layer's result that a node adds a bias to, if that is not rounded before.
fn adds_bias(model: &Model, roles: &Roles, node: &Node) -> Option<ValueId> {
    let (layer, _) = roles.bias_of(node)?;
    layer.output(0).filter(|v| node.inputs.contains(&Some(*v)) && model.annotations.encoding(*v).is_none())
}

/// True if what alone reads the value is an activation whose own output is quantized, or the Add of a bias before one.
fn fused_behind(model: &Model, roles: &Roles, graph: &Graph, value: ValueId) -> bool {
    let readers = graph.consumers(value);
    let [only] = readers.as_slice() else { return false };
    let node = &graph.nodes[*only];
    if adds_bias(model, roles, node) == Some(value) {
        return node.output(0).is_some_and(|v| model.annotations.encoding(v).is_some() || fused_behind(model, roles, graph, v));
    }
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
