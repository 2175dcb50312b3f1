//! Layers with a stored weight, and which node decides on an activation: what a search over widths chooses for.
use crate::plan::{Planner, StoredConstant};
use graph::{Graph, Linked, Node, ValueId};
use target::QuantRule;

/// A node that reads stored weights: one, or several as recurrent layers do.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerPart {
    /// Name of the node.
    pub node: String,
    /// Its weights.
    pub weights: Vec<ValueId>,
    /// The quantized activations that it reads as data: the values that carry their grids.
    pub data: Vec<ValueId>,
    /// A rule says how its weights are stored.
    pub pinned: bool,
}

/// The node whose rules decide on an activation: the one that makes it, or the first that reads an input of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Decider {
    /// Name of the node.
    pub node: String,
    /// A rule says how its activations are stored.
    pub pinned: bool,
}

impl Planner<'_> {
    /// Lists the layers, once the weights and activations of the plan are known.
    pub(crate) fn layers(&mut self, graph: &Graph) {
        let here = &graph.linked();
        for node in &graph.nodes {
            for sub in node.subgraphs() {
                self.layers(sub);
            }
            let (mut weights, mut data) = (vec![], vec![]);
            for weight in node.inputs.iter().flatten().filter_map(|v| self.stored_weight(here, *v)) {
                if !weights.contains(&weight) {
                    weights.push(weight);
                }
            }
            if weights.is_empty() {
                continue;
            }
            if let QuantRule::Integer { data: inputs, .. } = self.rule(node) {
                for value in inputs.iter().filter_map(|i| self.carrier(here, node, *i)) {
                    if !data.contains(&value) {
                        data.push(value);
                    }
                }
            }
            let pinned = self.rules.named(self.model, node).0;
            self.plan.layers.push(LayerPart { node: node.label(&self.model.values), weights, data, pinned });
        }
    }

    /// The stored weight that an input is, or is moved from.
    fn stored_weight(&self, here: &Linked, value: ValueId) -> Option<ValueId> {
        let is_weight = |v: &ValueId| matches!(self.plan.constants.get(v), Some(StoredConstant::Weight { .. }));
        [value, self.root(here, value)].into_iter().find(is_weight)
    }

    /// The activation with the grid of an input.
    fn carrier(&self, here: &Linked, node: &Node, input: usize) -> Option<ValueId> {
        let value = node.input(input)?;
        [value, self.root(here, value)].into_iter().find(|v| self.plan.activations.contains_key(v))
    }
}
