//! The weights that a node reads, whatever a runtime computes it with.
use crate::{ChannelAxis, Effect, LayerChannels, Role, WeightRule, find};
use graph::{Model, Node};

/// What the axes of a layer's weight stand for. Axes that are neither input nor kernel count outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightAxes {
    /// The axis of the input channels whose products are summed into one result.
    pub input: usize,
    /// The axes of a convolution's kernel, summed over as well.
    pub kernel: Vec<usize>,
    /// Number of groups of channels that are computed by themselves.
    pub groups: usize,
    /// True if the input axis counts the channels of all groups (a transposed convolution); else the output axis does.
    pub grouped_by_input: bool,
    /// The input of the node that the weight is multiplied with, and the axis of its channels; `None` where it is no input (the state of
    /// a recurrent layer).
    pub data: Option<(usize, ChannelAxis)>,
}

/// The axes of the weight that a node reads as input `input`, of this shape: of convolutions `[out, in, kernel...]`, transposed ones
/// `[in, out, kernel...]`, Gemm `[in, out]` or `[out, in]` with `transB`, MatMul `[.., in, out]`, recurrent layers
/// `[directions, gates, in]`. `None` for an operator that sums no products with it (an embedding) or one that is not known.
pub fn weight_axes(node: &Node, input: usize, shape: &[usize]) -> Option<WeightAxes> {
    if let Some(layer) = LayerChannels::of(node, shape).filter(|layer| layer.weight == input) {
        let kernel = if layer.at == ChannelAxis::Second { (2..shape.len()).collect() } else { vec![] };
        let (input, groups, grouped_by_input) = (layer.input_axis(), layer.groups(), layer.groups_by_input);
        return Some(WeightAxes { input, kernel, groups, grouped_by_input, data: Some((0, layer.at)) });
    }
    let last = |given: bool| given.then_some((0, ChannelAxis::Last));
    let plain = |axis, given| Some(WeightAxes { input: axis, kernel: vec![], groups: 1, grouped_by_input: false, data: last(given) });
    match (node.op_type.as_str(), shape.len()) {
        _ if !node.is_onnx() => None,
        ("MatMul", rank) if rank > 2 && input == 1 => plain(rank - 2, true),
        ("MatMul", rank) if rank > 1 && input == 0 => plain(rank - 1, false),
        ("LSTM" | "GRU" | "RNN", 3) if matches!(input, 1 | 2) => plain(2, input == 1),
        _ => None,
    }
}

/// The weights that a node reads: that of a layer by its [`Effect`], else all inputs whose role is [`Role::Weight`] (W and R of a recurrent
/// layer, the table of an embedding). None for an unknown operator, and for one that computes on integers by its definition.
pub fn weights(model: &Model, node: &Node) -> Vec<WeightRule> {
    let Some(op) = find(&node.domain, &node.op_type) else { return vec![] };
    match op.effect(node, model) {
        Effect::Computes { weight: Some(rule), .. } => vec![rule],
        Effect::AlreadyQuantized(_) => vec![],
        _ => {
            let weights = (0..node.inputs.len()).filter(|i| op.role(node, *i) == Role::Weight);
            weights.map(|input| WeightRule { input, axis: op.weight_axis(node, input), bias: None }).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::AttributeValue;

    #[test]
    fn products_are_summed_over_input_channels_and_kernels() {
        let of = |op: &str, attributes: &[(&str, i64)], shape: &[usize]| {
            let node = attributes.iter().fold(Node::new(op, "n", &[], &[]), |n, (k, v)| n.with(k, AttributeValue::Int(*v)));
            weight_axes(&node, 1, shape).map(|axes| (axes.input, axes.kernel, axes.groups))
        };
        assert_eq!(of("Conv", &[("group", 2)], &[8, 2, 3, 3]), Some((1, vec![2, 3], 2)));
        assert_eq!(of("ConvTranspose", &[("group", 2)], &[8, 2, 3]), Some((0, vec![2], 2)));
        assert_eq!(of("Gemm", &[], &[5, 7]), Some((0, vec![], 1)));
        assert_eq!(of("Gemm", &[("transB", 1)], &[5, 7]), Some((1, vec![], 1)));
        assert_eq!((of("MatMul", &[], &[5, 7]), of("MatMul", &[], &[2, 5, 7])), (Some((0, vec![], 1)), Some((1, vec![], 1))));
        assert_eq!(of("LSTM", &[], &[2, 16, 5]), Some((2, vec![], 1)));
        assert_eq!((of("Gather", &[], &[5, 7]), of("Nothing", &[], &[5, 7])), (None, None));
    }

    fn axes(node: &Node) -> Vec<(usize, Option<usize>)> {
        weights(&Model::new(17), node).iter().map(|w| (w.input, w.axis)).collect()
    }

    #[test]
    fn recurrent_layers_have_two_weights_and_tables_one() {
        let mut model = Model::new(17);
        let [x, w, r, y] = ["x", "w", "r", "y"].map(|n| model.values.add_named(n));
        for op in ["LSTM", "GRU", "RNN"] {
            assert_eq!(axes(&Node::new(op, "n", &[x, w, r], &[y])), [(1, Some(1)), (2, Some(1))], "{op}");
        }
        let looked_up = |axis: i64| Node::new("Gather", "n", &[w, x], &[y]).with("axis", AttributeValue::Int(axis));
        assert_eq!(axes(&Node::new("Gather", "n", &[w, x], &[y])), [(0, Some(0))]);
        assert_eq!((axes(&looked_up(1)), axes(&looked_up(-1))), (vec![(0, Some(1))], vec![(0, None)]));
        assert_eq!(axes(&Node::new("Conv", "n", &[x, w], &[y])), [(1, Some(0))]);
        assert_eq!(axes(&Node::new("MatMulInteger", "n", &[x, w], &[y])), []);
        assert_eq!(axes(&Node::new("Nothing", "n", &[x, w], &[y])), []);
    }
}
