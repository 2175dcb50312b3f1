//! The weights that a node reads, whatever a runtime computes it with.
use crate::{Effect, Role, WeightRule, find};
use graph::{Model, Node};

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
