//! Attributes that say what the operator does without them take bytes and nothing else.
use graph::{AttributeValue, Graph};

const WINDOWS: [&str; 8] = ["Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool", "MaxUnpool"];

/// Removes attributes of convolutions, poolings and Gemm that have their default value. `kernel_shape` stays, though a weight tells
/// it: readers of files look for it.
pub fn drop_defaults(graph: &mut Graph) {
    for node in &mut graph.nodes {
        for sub in node.subgraphs_mut() {
            drop_defaults(sub);
        }
        let windows = node.is_onnx() && WINDOWS.contains(&node.op_type.as_str());
        let gemm = node.is_onnx() && node.op_type == "Gemm";
        if windows || gemm {
            node.attributes.list.retain(|a| !is_default(&a.name, &a.value));
        }
    }
}

fn is_default(name: &str, value: &AttributeValue) -> bool {
    match (name, value) {
        ("strides" | "dilations", AttributeValue::Ints(list)) => list.iter().all(|v| *v == 1),
        ("pads" | "output_padding", AttributeValue::Ints(list)) => list.iter().all(|v| *v == 0),
        ("group", AttributeValue::Int(v)) => *v == 1,
        ("transA" | "transB" | "ceil_mode" | "count_include_pad" | "storage_order", AttributeValue::Int(v)) => *v == 0,
        ("alpha" | "beta", AttributeValue::Float(v)) => *v == 1.0,
        ("auto_pad", AttributeValue::String(v)) => v == b"NOTSET",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::Node;

    #[test]
    fn only_defaults_go() {
        let ints = |list: &[i64]| AttributeValue::Ints(list.to_vec());
        let conv = Node::new("Conv", "c", &[], &[]).with("dilations", ints(&[1, 1])).with("strides", ints(&[1, 2]));
        let conv = conv.with("group", AttributeValue::Int(1)).with("pads", ints(&[0; 4])).with("kernel_shape", ints(&[1, 1]));
        let gemm = Node::new("Gemm", "g", &[], &[]).with("alpha", AttributeValue::Float(1.0)).with("transB", AttributeValue::Int(1));
        let mut graph = Graph { nodes: vec![conv, gemm], ..Graph::default() };
        drop_defaults(&mut graph);
        let left: Vec<&str> = graph.nodes.iter().flat_map(|n| n.attributes.list.iter().map(|a| a.name.as_str())).collect();
        assert_eq!(left, ["strides", "kernel_shape", "transB"]);
    }
}
