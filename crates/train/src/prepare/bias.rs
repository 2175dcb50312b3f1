//! Merges an Add of a constant behind a layer into the layer's bias: in a quantized layer it is then int32 on the accumulator's
//! grid, instead of an operand that is quantized separately.
use graph::{Annotation, AttributeValue, Graph, Model, Names, Node, ValueId};
use ops::Roles;
use std::collections::{HashMap, HashSet};
use tensor::DType;

/// The change at an Add.
struct Merge {
    /// The output of the layer.
    between: ValueId,
    bias: ValueId,
    channels: usize,
    /// The Add stays, since the layer has no input for a bias: a MatMul on more than two axes.
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
        apply(&mut graph, model, &merges, &mut model.names(), &mut merged);
        model.graph = graph;
        model.remove_dead();
    }
    merged
}

/// The Adds that can be merged, by their outputs.
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

fn apply(graph: &mut Graph, model: &mut Model, merges: &HashMap<ValueId, Merge>, names: &mut Names, merged: &mut Vec<String>) {
    for sub in graph.nodes.iter_mut().flat_map(Node::subgraphs_mut) {
        apply(sub, model, merges, names, merged);
    }
    let (links, mut uses) = (graph.links(), graph.use_counts());
    // Nodes stay in place until all changes are made.
    let (mut gone, mut gone_values) = (HashSet::new(), HashSet::new());
    for at in 0..graph.nodes.len() {
        let merge = graph.nodes[at].output(0).and_then(|out| Some((out, merges.get(&out)?)));
        let merge = merge.filter(|(_, m)| !gone_values.contains(&m.between));
        // In a subgraph the layer may belong to an outer graph, where other nodes may read its result.
        let Some((out, merge, layer)) = merge.and_then(|(out, m)| Some((out, m, links.producer(m.between)?))) else { continue };
        let vector = vector(model, graph, merge, &mut uses, names);
        if merge.stays {
            let inputs = graph.nodes[at].inputs.iter_mut().flatten();
            inputs.filter(|v| **v == merge.bias).for_each(|v| *v = vector);
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
        gone.insert(at);
        gone_values.insert(merge.between);
    }
    graph.value_info.retain(|v| !gone_values.contains(v));
    let mut at = 0..;
    graph.nodes.retain(|_| at.next().is_none_or(|at| !gone.contains(&at)));
}

/// The bias as a vector: itself, or a copy if it has more axes and other readers. `uses` of the graph are updated.
fn vector(model: &mut Model, graph: &mut Graph, merge: &Merge, uses: &mut HashMap<ValueId, usize>, names: &mut Names) -> ValueId {
    let Some(flat) = model.values.tensor(merge.bias).filter(|t| t.rank() != 1).and_then(|t| t.reshape(vec![merge.channels]).ok()) else {
        return merge.bias;
    };
    let count = uses.entry(merge.bias).or_default();
    if *count == 1 && graph.constants.contains(&merge.bias) {
        model.values.set_tensor(merge.bias, flat);
        return merge.bias;
    }
    *count = count.saturating_sub(1);
    let id = model.values.add_constant(names.fresh(&format!("{}_vector", model.values[merge.bias].name)), flat);
    graph.constants.push(id);
    id
}
