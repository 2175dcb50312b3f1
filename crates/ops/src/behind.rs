//! Nodes behind a layer that belong to it: the only reader of its result, if it normalizes channels or clips.
use crate::{Effect, find};
use graph::{Linked, Model, Node, ValueId};
use std::collections::HashMap;

/// The node of a graph of `model` with this effect that is the only reader of a value and reads it once, as its first input.
/// `uses`: how often each value is read, outputs included ([`graph::Graph::use_counts`]).
fn only_reader<'g>(
    (model, graph): (&Model, &Linked<'g>),
    uses: &HashMap<ValueId, usize>,
    value: ValueId,
    effect: &Effect,
) -> Option<&'g Node> {
    let alone = uses.get(&value) == Some(&1);
    let reader = graph.readers(value).next().filter(|n| alone && n.input(0) == Some(value))?;
    find(&reader.domain, &reader.op_type).filter(|op| op.effect(reader, model) == *effect).map(|_| reader)
}

/// The BatchNormalization that is the only reader of a value: it scales and shifts the channels of the layer before it.
pub fn norm_behind<'g>(of: (&Model, &Linked<'g>), uses: &HashMap<ValueId, usize>, value: ValueId) -> Option<&'g Node> {
    only_reader(of, uses, value, &Effect::Normalizes)
}

/// The activation (Relu, Clip) that is the only reader of a value, and that a grid ending at its bounds replaces.
pub fn activation_behind<'g>(of: (&Model, &Linked<'g>), uses: &HashMap<ValueId, usize>, value: ValueId) -> Option<&'g Node> {
    only_reader(of, uses, value, &Effect::Clips)
}

/// True for an activation that only clips.
pub fn clips(model: &Model, node: &Node) -> bool {
    find(&node.domain, &node.op_type).is_some_and(|op| op.effect(node, model) == Effect::Clips)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_alone_reads_a_result_stands_behind_it() {
        let mut m = Model::new(17);
        let [x, c, r, s] = ["x", "c", "r", "s"].map(|n| m.values.add_named(n));
        m.graph.inputs.push(x);
        m.graph.nodes = vec![Node::new("Conv", "conv", &[x], &[c]), Node::new("Relu", "relu", &[c], &[r])];
        m.graph.outputs.push(r);
        let behind = |m: &Model, v| activation_behind((m, &m.graph.linked()), &m.graph.use_counts(), v).map(|n| n.name.clone());
        assert_eq!(behind(&m, c).as_deref(), Some("relu"));
        assert_eq!((behind(&m, r), norm_behind((&m, &m.graph.linked()), &m.graph.use_counts(), c)), (None, None));
        m.graph.nodes.push(Node::new("Abs", "abs", &[c], &[s]));
        assert_eq!(behind(&m, c), None, "somebody else reads it");
    }
}
