//! The nodes that decode a stored weight, written one behind the other.
use super::rewrite::Rewriter;
use graph::{AttributeValue, Graph, Node, ValueId};
use tensor::Tensor;

/// Nodes under construction; their constants are added to the graph. All names begin with `base`, which is short: each name stands
/// in the file two or three times, and those of a small network's weights would take as much room as its tables.
pub(super) struct DecodeNodes<'w, 'a> {
    pub(super) to: &'w mut Rewriter<'a>,
    pub(super) graph: &'w mut Graph,
    pub(super) base: String,
    pub(super) nodes: Vec<Node>,
}

impl<'w, 'a> DecodeNodes<'w, 'a> {
    pub(super) fn new(to: &'w mut Rewriter<'a>, graph: &'w mut Graph, base: String) -> Self {
        DecodeNodes { to, graph, base, nodes: vec![] }
    }

    pub(super) fn constant(&mut self, suffix: &str, tensor: Tensor) -> ValueId {
        self.to.constant(self.graph, &self.base, suffix, tensor)
    }

    /// A node that computes an existing value.
    pub(super) fn last(&mut self, op: &str, inputs: &[ValueId], output: ValueId) {
        let node = self.to.node(op, &self.base, inputs, output);
        self.nodes.push(node);
    }

    /// A node that computes a new value.
    pub(super) fn step(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        let output = self.to.inner(&self.base, &op.to_lowercase());
        self.last(op, inputs, output);
        output
    }

    /// A Cast to ONNX's element type of this number.
    pub(super) fn cast(&mut self, input: ValueId, to: i64) -> ValueId {
        let output = self.step("Cast", &[input]);
        self.with("to", AttributeValue::Int(to));
        output
    }

    /// Sets an attribute of the last node.
    pub(super) fn with(&mut self, name: &str, value: AttributeValue) {
        if let Some(node) = self.nodes.last_mut() {
            node.attributes.set(name, value);
        }
    }
}

/// The shape of one number for each index along `axis`, which broadcasts to `shape`.
pub(super) fn along(shape: &[usize], axis: usize) -> Vec<usize> {
    (0..shape.len()).map(|i| if i == axis { shape[i] } else { 1 }).collect()
}
