//! What sums, products and joins are to their inputs, and what a layer makes of constant channels.
use crate::{LayerChannels, Products};
use graph::Node;

/// The two inputs that a node adds, element by element; `None` for a node that does anything else.
pub fn summands(node: &Node) -> Option<[usize; 2]> {
    let two = node.inputs.len() == 2 && node.inputs.iter().all(Option::is_some);
    (node.is_onnx() && two && matches!(node.op_type.as_str(), "Add" | "Sum")).then_some([0, 1])
}

/// What an input is to the result of a node that computes element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The result is a multiple of it, or of its inverse.
    Factor,
    /// It is added or subtracted.
    Summand,
}

/// What the inputs of a product, a quotient, a sum or a difference are; `None` for a node that does anything else.
pub fn operand(node: &Node) -> Option<Operand> {
    match node.op_type.as_str() {
        _ if !node.is_onnx() => None,
        "Mul" | "Div" => Some(Operand::Factor),
        "Add" | "Sub" | "Sum" => Some(Operand::Summand),
        _ => None,
    }
}

/// True if the elements of all inputs stand side by side in the result, as they are.
pub fn joins(node: &Node) -> bool {
    node.is_onnx() && node.op_type == "Concat"
}

/// The channels of a layer that turns a constant channel of its data into a constant of each of its outputs: a convolution that reads
/// nothing beyond the edges, or a matrix product, without groups and factors. `weight` is the weight's shape.
pub fn keeps_constants(node: &Node, weight: &[usize]) -> Option<LayerChannels> {
    let layer = LayerChannels::of(node, weight)?;
    Products::of(node, weight)?;
    let padded = match node.string_or("auto_pad", "NOTSET").ok()? {
        "NOTSET" => node.ints_or("pads", vec![]).ok()?.iter().any(|p| *p != 0),
        auto => auto != "VALID",
    };
    let plain = |name: &str| node.float_or(name, 1.0).is_ok_and(|v| v == 1.0);
    (layer.groups() == 1 && !padded && plain("alpha") && plain("beta")).then_some(layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::{AttributeValue, Model};

    #[test]
    fn padding_groups_and_factors_are_refused() {
        let mut m = Model::new(17);
        let [x, y] = ["x", "y"].map(|n| m.values.add_named(n));
        let node = |op: &str| Node::new(op, "n", &[x, x], &[y]);
        let conv = [4, 4, 3, 3];
        assert!(keeps_constants(&node("Conv"), &conv).is_some());
        assert!(keeps_constants(&node("Conv").with("pads", AttributeValue::Ints(vec![0, 1, 0, 1])), &conv).is_none());
        assert!(keeps_constants(&node("Conv").with("pads", AttributeValue::Ints(vec![0; 4])), &conv).is_some());
        assert!(keeps_constants(&node("Conv").with("auto_pad", AttributeValue::String(b"SAME_UPPER".to_vec())), &conv).is_none());
        assert!(keeps_constants(&node("Conv").with("group", AttributeValue::Int(2)), &[4, 2, 3, 3]).is_none());
        assert!(keeps_constants(&node("Gemm").with("alpha", AttributeValue::Float(2.0)), &[4, 4]).is_none());
        assert!(keeps_constants(&node("MatMul"), &[4, 4]).is_some() && keeps_constants(&node("ConvTranspose"), &conv).is_none());
        assert_eq!((summands(&node("Add")), summands(&node("Mul"))), (Some([0, 1]), None));
        assert_eq!(["Div", "Sub", "Max"].map(|op| operand(&node(op))), [Some(Operand::Factor), Some(Operand::Summand), None]);
        assert!(joins(&node("Concat")) && !joins(&node("Add")));
    }
}
