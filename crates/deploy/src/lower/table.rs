//! Weights that decode from a table, of 4 or 8 bits: indices and the standard operators that read them.
//!
//! 4 bits are stored as uint4, 8 as uint8: `Cast -> Gather(table)`. (Other widths share a strip of bytes: `strip.rs`.) Several tables
//! stand one behind the other, and an Add moves the indices of each channel to its own. All of it reads constants alone, so a runtime
//! that folds constants computes it once, when it loads the file.
use super::rewrite::Rewriter;
use crate::{DeployError, Result};
use encodings::{Decode, Stored};
use graph::{AttributeValue, Graph, Node, ValueId};
use tensor::{DType, Tensor};

/// ONNX's number of the element type that Cast makes.
const INT32: i64 = 6;

/// The nodes that make `id` from stored indices. Their constants are added to the graph.
///
/// # Errors
/// [`DeployError::Lower`] for data that decode otherwise; whatever making a constant reports.
pub(super) fn decode(to: &mut Rewriter, graph: &mut Graph, id: ValueId, stored: &Stored) -> Result<Vec<Node>> {
    let base = to.name(id);
    let Decode::Table { table, bits, axis, group, scale } = &stored.decode else {
        return Err(DeployError::Lower { value: base, what: "does not decode from a table".into() });
    };
    let mut work = Work { to, graph, base, nodes: vec![] };
    let data = if *bits == 4 { stored.data.cast(DType::U4)? } else { stored.data.clone() };
    let packed = work.constant("indices", data);
    let mut indices = work.cast(packed, INT32);
    let shape = stored.data.shape();
    // One number for each channel, laid along its axis.
    let along = |axis: usize| (0..shape.len()).map(|i| if i == axis { shape[i] } else { 1 }).collect::<Vec<usize>>();
    if let Some(axis) = axis.filter(|axis| shape[*axis] > *group) {
        let starts = (0..shape[axis]).map(|c| ((c / group) << bits) as i32).collect();
        let starts = work.constant("table_starts", Tensor::new(starts, along(axis))?);
        indices = work.step("Add", &[indices, starts]);
    }
    let flat = work.constant("codebook", table.reshape([table.len()])?); // tidy: allow, the name of the constant
    match (scale, axis) {
        (Some(scale), Some(axis)) => {
            let looked_up = work.step("Gather", &[flat, indices]);
            let scale = work.constant("channel_scale", scale.reshape(along(*axis))?);
            work.last("Mul", &[looked_up, scale], id);
        }
        _ => work.last("Gather", &[flat, indices], id),
    }
    Ok(work.nodes)
}

struct Work<'w, 'a> {
    to: &'w mut Rewriter<'a>,
    graph: &'w mut Graph,
    base: String,
    nodes: Vec<Node>,
}

impl Work<'_, '_> {
    fn constant(&mut self, suffix: &str, tensor: Tensor) -> ValueId {
        self.to.constant(self.graph, &self.base, suffix, tensor)
    }

    fn last(&mut self, op: &str, inputs: &[ValueId], output: ValueId) {
        let node = self.to.node(op, &self.base, inputs, output);
        self.nodes.push(node);
    }

    fn step(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        let output = self.to.inner(&self.base, &op.to_lowercase());
        self.last(op, inputs, output);
        output
    }

    fn cast(&mut self, input: ValueId, to: i64) -> ValueId {
        let output = self.step("Cast", &[input]);
        if let Some(node) = self.nodes.last_mut() {
            node.attributes.set("to", AttributeValue::Int(to));
        }
        output
    }
}
