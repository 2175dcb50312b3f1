//! An Add of a constant behind a layer becomes the layer's own bias: it then is int32 on the accumulator's grid where the layer is
//! quantized, instead of an operand that is rounded for itself.
use graph::{Annotation, AttributeValue, Graph, Model, Node, ValueId};
use ops::Roles;
use std::collections::HashMap;
use tensor::DType;

/// What is to be done at an Add.
struct Merge {
    /// What the layer makes.
    between: ValueId,
    bias: ValueId,
    channels: usize,
    /// The Add stays, for its layer has no place for a bias: a MatMul on more than two axes.
    stays: bool,
}

/// Gives Conv, ConvTranspose and Gemm without a bias, and MatMul on matrices (which becomes Gemm), the constant that is added to
/// their result. Returns the names of the biases. Behind a MatMul on more axes the bias stays in its Add, as a vector.
pub(super) fn merge(model: &mut Model) -> Vec<String> {
    // Before version 7 Add and Gemm broadcast by attributes.
    let merges = if model.onnx_opset() < 7 { HashMap::new() } else { merges(model) };
    let mut merged = vec![];
    if !merges.is_empty() {
        let mut graph = std::mem::take(&mut model.graph);
        apply(&mut graph, model, &merges, &mut merged);
        model.graph = graph;
        model.remove_dead();
    }
    merged
}

/// What can be merged, by the output of the Add.
fn merges(model: &Model) -> HashMap<ValueId, Merge> {
    let roles = Roles::of(model);
    let types = ops::infer_types(model).unwrap_or_default();
    let uses = model.graph.use_counts();
    let plain = |v: ValueId| model.annotations.get(v).is_none_or(Annotation::is_empty);
    let rank = |v: ValueId| match types.get(&v).unwrap_or(&model.values[v].ty) {
        graph::ValueType::Tensor { shape, .. } => shape.as_ref().map(Vec::len),
        _ => None,
    };
    let f32 = |v: ValueId| model.constant(v).filter(|t| t.dtype() == DType::F32);
    let mut found = HashMap::new();
    model.graph.visit(&mut |add| {
        let Some((layer, offset)) = roles.bias_of(add) else { return };
        let (Some(between), Some(out), Some(bias)) = (layer.output(0), add.output(0), add.input(offset)) else { return };
        let direct = add.input(1 - offset) == Some(between) && uses.get(&between) == Some(&1) && plain(between) && plain(bias);
        let product = layer.op_type == "MatMul";
        let fits = layer.input(1).and_then(f32).is_some() && (product || layer.input(2).is_none());
        let stays = product && layer.input(0).and_then(rank) != Some(2);
        if let Some(tensor) = f32(bias).filter(|t| direct && fits && !(stays && t.rank() == 1)) {
            found.insert(out, Merge { between, bias, channels: tensor.len(), stays });
        }
    });
    found
}

fn apply(graph: &mut Graph, model: &mut Model, merges: &HashMap<ValueId, Merge>, merged: &mut Vec<String>) {
    for sub in graph.nodes.iter_mut().flat_map(Node::subgraphs_mut) {
        apply(sub, model, merges, merged);
    }
    let mut at = 0;
    while at < graph.nodes.len() {
        let merge = graph.nodes[at].output(0).and_then(|out| Some((out, merges.get(&out)?)));
        // In a subgraph the layer may be one of an outer graph, which others may take another way through.
        let Some((out, merge, layer)) = merge.and_then(|(out, m)| Some((out, m, graph.producer(m.between)?))) else {
            at += 1;
            continue;
        };
        let vector = vector(model, graph, merge);
        if merge.stays {
            let inputs = graph.nodes[at].inputs.iter_mut().flatten();
            inputs.filter(|v| **v == merge.bias).for_each(|v| *v = vector);
            at += 1;
            continue;
        }
        let layer = &mut graph.nodes[layer];
        if layer.op_type == "MatMul" {
            layer.op_type = "Gemm".into();
        }
        if layer.op_type == "Gemm" && layer.attributes.get("beta").is_some() {
            layer.attributes.set("beta", AttributeValue::Float(1.0));
        }
        layer.inputs.resize(3.max(layer.inputs.len()), None);
        layer.inputs[2] = Some(vector);
        layer.outputs[0] = Some(out);
        merged.push(model.values[vector].name.clone());
        graph.value_info.retain(|v| *v != merge.between);
        graph.nodes.remove(at);
    }
}

/// The bias as a vector: itself, or a copy where it has more axes.
fn vector(model: &mut Model, graph: &mut Graph, merge: &Merge) -> ValueId {
    let Some(flat) = model.values.tensor(merge.bias).filter(|t| t.rank() != 1).and_then(|t| t.reshape(vec![merge.channels]).ok()) else {
        return merge.bias;
    };
    let name = model.values[merge.bias].name.clone();
    let alone = graph.use_counts().get(&merge.bias) == Some(&1) && graph.constants.contains(&merge.bias);
    if alone {
        model.values.set_tensor(merge.bias, flat);
        return merge.bias;
    }
    let name = model.fresh_name(&format!("{name}_vector"));
    let id = model.values.add_constant(name, flat);
    graph.constants.push(id);
    id
}
