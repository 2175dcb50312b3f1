//! Signs of operators' results.
use graph::{AttributeValue, Model, Node};

/// The condition under which no element of a node's first output is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeverNegative {
    /// Always.
    Always,
    /// If no input has a negative element.
    IfAll,
    /// If one input has none.
    IfAny,
    /// If the first input has none.
    IfFirst,
    /// Unknown.
    Unknown,
}

/// The condition under which no element of the node's first output is negative.
pub fn never_negative(model: &Model, node: &Node) -> NeverNegative {
    if !node.is_onnx() {
        return NeverNegative::Unknown;
    }
    match node.op_type.as_str() {
        "Relu" | "Sigmoid" | "HardSigmoid" | "Softmax" | "Softplus" | "Abs" | "Exp" | "Sqrt" | "ReduceL1" | "ReduceL2"
        | "ReduceSumSquare" => NeverNegative::Always,
        "Clip" if lower_bound(model, node).is_some_and(|b| b >= 0.0) => NeverNegative::Always,
        "Add" | "Mul" | "Concat" | "Sum" | "Mean" | "Min" => NeverNegative::IfAll,
        "Max" => NeverNegative::IfAny,
        "Identity" | "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean" | "ReduceMax" | "ReduceMin"
        | "ReduceSum" | "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Slice" | "Split" | "Gather" | "Expand"
        | "Tile" | "Dropout" | "DepthToSpace" | "SpaceToDepth" | "Upsample" => NeverNegative::IfFirst,
        "Resize" if node.attributes.get("mode") != Some(&AttributeValue::String(b"cubic".to_vec())) => NeverNegative::IfFirst,
        _ => NeverNegative::Unknown,
    }
}

fn lower_bound(model: &Model, node: &Node) -> Option<f64> {
    match node.attributes.get("min") {
        Some(AttributeValue::Float(v)) => Some(f64::from(*v)),
        _ => model.constant(node.input(1)?)?.to_f64_vec().ok()?.first().copied(),
    }
}
