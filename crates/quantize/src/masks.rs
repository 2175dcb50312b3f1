//! Masks that are added to the scores of an attention, subtracted from them, or take their place: -10000, the lowest f32 or -inf
//! where nothing is to be attended to.
//!
//! No grid covers such a number and the scores beside it. So the node that adds the mask and the Softmax behind it stay float,
//! and so do the nodes that compute the mask. A mask is a constant with such a number, or a value that does not depend on trained
//! parameters, added to one that does.
use graph::{Graph, Model, Node, ValueId};
use ops::Role;
use std::collections::{BTreeMap, BTreeSet};
use tensor::Tensor;

/// Below this bound a number is a mask, not a score or a trained bias.
pub(crate) const MASKED: f32 = -1e3;

/// First outputs of the nodes that stay float because of a mask.
pub(crate) fn masked_nodes(model: &Model) -> BTreeSet<ValueId> {
    let mut out = BTreeSet::new();
    in_graph(model, &model.graph, &mut out);
    out
}

fn in_graph(model: &Model, graph: &Graph, out: &mut BTreeSet<ValueId>) {
    let producers = graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().map(move |v| (*v, n))).collect();
    let mut search = Search { model, producers, masked: BTreeMap::new(), learned: BTreeMap::new(), found: out };
    for node in &graph.nodes {
        if matches!(node.op_type.as_str(), "Softmax" | "LogSoftmax") && node.is_onnx() && node.input(0).is_some_and(|v| search.masked(v)) {
            search.found.extend(node.output(0));
        }
    }
    for node in &graph.nodes {
        node.subgraphs().for_each(|sub| in_graph(model, sub, out));
    }
}

struct Search<'a> {
    model: &'a Model,
    producers: BTreeMap<ValueId, &'a Node>,
    /// Values that hold masked scores.
    masked: BTreeMap<ValueId, bool>,
    /// Values that depend on a layer or on a product of two values.
    learned: BTreeMap<ValueId, bool>,
    found: &'a mut BTreeSet<ValueId>,
}

impl Search<'_> {
    /// True for scores with a mask; also marks the nodes that add it.
    fn masked(&mut self, value: ValueId) -> bool {
        if let Some(known) = self.masked.get(&value) {
            return *known;
        }
        self.masked.insert(value, false);
        let Some(node) = self.producers.get(&value).copied() else { return false };
        let inputs: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
        let masked = match node.op_type.as_str() {
            "Add" | "Where" => {
                let terms = if node.op_type == "Add" { &inputs[..] } else { inputs.get(1..).unwrap_or(&[]) };
                let masks: Vec<ValueId> = terms.iter().copied().filter(|v| self.is_mask(*v)).collect();
                // All of them are checked: each check finds the nodes behind it.
                let scores: Vec<bool> = terms.iter().filter(|v| !masks.contains(v)).map(|v| self.masked(*v)).collect();
                let adds = !masks.is_empty() && masks.len() < terms.len();
                if adds {
                    masks.iter().for_each(|v| self.keep_float(*v));
                }
                adds || scores.contains(&true)
            }
            // Scores less a mask of large numbers.
            "Sub" if inputs.len() == 2 => {
                let adds = self.is_subtracted_mask(inputs[1]) && !self.is_subtracted_mask(inputs[0]);
                if adds {
                    self.keep_float(inputs[1]);
                }
                self.masked(inputs[0]) || adds
            }
            "Mul" | "Div" => inputs.first().is_some_and(|v| self.masked(*v)),
            "Reshape" | "Transpose" | "Identity" | "Cast" | "Squeeze" | "Unsqueeze" | "Flatten" | "Expand" => {
                inputs.first().is_some_and(|v| self.masked(*v))
            }
            _ => false,
        };
        if masked {
            self.masked.insert(value, true);
            self.found.insert(value);
        }
        masked
    }

    fn is_mask(&mut self, value: ValueId) -> bool {
        match self.model.values.tensor(value) {
            Some(constant) => holds(constant, |v| v <= MASKED),
            None => !self.learned(value),
        }
    }

    fn is_subtracted_mask(&mut self, value: ValueId) -> bool {
        match self.model.values.tensor(value) {
            Some(constant) => holds(constant, |v| v >= -MASKED),
            None => !self.learned(value),
        }
    }

    /// True if the value depends on a layer with weights, or on a product of two values.
    fn learned(&mut self, value: ValueId) -> bool {
        if let Some(known) = self.learned.get(&value) {
            return *known;
        }
        self.learned.insert(value, false);
        let Some(node) = self.producers.get(&value).copied() else { return false };
        let learned = is_layer(node) || node.inputs.iter().flatten().any(|v| self.learned(*v));
        self.learned.insert(value, learned);
        learned
    }

    /// The nodes that compute a mask.
    fn keep_float(&mut self, mask: ValueId) {
        let Some(node) = self.producers.get(&mask).copied() else { return };
        if node.output(0).is_some_and(|v| self.found.insert(v)) {
            node.inputs.iter().flatten().for_each(|v| self.keep_float(*v));
        }
    }
}

fn is_layer(node: &Node) -> bool {
    let op = ops::find(&node.domain, &node.op_type);
    op.is_none_or(|op| (0..node.inputs.len()).any(|i| op.role(node, i) == Role::Weight)) || node.subgraphs().next().is_some()
}

fn holds(constant: &Tensor, masked: impl Fn(f32) -> bool) -> bool {
    constant.dtype().is_float() && constant.to_f32_vec().is_ok_and(|x| x.iter().any(|v| masked(*v)))
}
