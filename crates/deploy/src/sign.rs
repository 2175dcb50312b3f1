//! What is never negative, as far as the operators tell.
use graph::{AttributeValue, Links, Model, Node, ValueId};

/// How far back is looked.
const DEEPEST: usize = 12;

/// How many values are looked at.
const MOST: usize = 1000;

/// True if the value of the main graph is proved to have no negative element.
pub(crate) fn never_negative(model: &Model, links: &Links, value: ValueId) -> bool {
    within(model, links, value, DEEPEST, &mut 0)
}

fn within(model: &Model, links: &Links, value: ValueId, left: usize, seen: &mut usize) -> bool {
    *seen += 1;
    if *seen > MOST {
        return false;
    }
    if let Some(t) = model.constant(value) {
        return t.to_f64_vec().is_ok_and(|list| list.iter().all(|v| *v >= 0.0));
    }
    if begins_at_zero(model, value) {
        return true;
    }
    let Some(node) = links.producer(value).map(|at| &model.graph.nodes[at]).filter(|n| n.is_onnx() && left > 0) else { return false };
    let mut of = |i: usize| node.input(i).is_some_and(|v| within(model, links, v, left - 1, seen));
    match node.op_type.as_str() {
        "Relu" | "Sigmoid" | "HardSigmoid" | "Softmax" | "Softplus" | "Abs" | "Exp" | "Sqrt" | "ReduceL1" | "ReduceL2"
        | "ReduceSumSquare" => true,
        "Clip" => lower_bound(model, node).is_some_and(|b| b >= 0.0),
        "Add" | "Mul" | "Concat" | "Sum" | "Mean" | "Min" => (0..node.inputs.len()).all(of),
        "Max" => (0..node.inputs.len()).any(of),
        "Identity" | "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean" | "ReduceMax" | "ReduceMin"
        | "ReduceSum" | "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Slice" | "Split" | "Gather" | "Expand"
        | "Tile" | "Dropout" | "DepthToSpace" | "SpaceToDepth" | "Upsample" => of(0),
        "Resize" => node.attributes.get("mode") != Some(&AttributeValue::String(b"cubic".to_vec())) && of(0),
        _ => false,
    }
}

fn begins_at_zero(model: &Model, value: ValueId) -> bool {
    let Some(grid) = model.annotations.encoding(value).and_then(|e| encodings::affine::Grid::of(e).ok()) else { return false };
    let lowest = grid.settings().qmin();
    grid.zero_point().ok().and_then(|z| z.to_i64_vec().ok()).is_some_and(|z| z.iter().all(|z| *z <= lowest))
}

fn lower_bound(model: &Model, node: &Node) -> Option<f64> {
    match node.attributes.get("min") {
        Some(AttributeValue::Float(v)) => Some(f64::from(*v)),
        _ => model.constant(node.input(1)?)?.to_f64_vec().ok()?.first().copied(),
    }
}
