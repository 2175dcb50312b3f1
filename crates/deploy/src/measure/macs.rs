//! Multiply-accumulate operations, counted over the shapes of one real run.
use super::parameters::StoredValues;
use crate::Result;
use graph::{Model, Node, ValueId};
use ops::{MacsCx, Role};
use std::collections::HashMap;
use tensor::Tensor;
use train::{Executor, Mode, Named};

/// The multiply-accumulates of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeMacs {
    /// The node's name.
    pub node: String,
    /// Operator type of the node, such as `Conv`.
    pub op_type: String,
    /// Multiply-accumulates, over all evaluations of the node in the run.
    pub macs: u64,
    /// MACs whose weight is not zero.
    pub effective: u64,
}

/// The multiply-accumulates of one run of a model (1 MAC = 2 FLOP).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Macs {
    /// All MACs.
    pub total: u64,
    /// MACs whose weight is not zero: an upper bound on what a runtime could save is the rest.
    pub effective: u64,
    /// By node, in the order of evaluation; nodes without any are left out.
    pub nodes: Vec<NodeMacs>,
}

/// Runs a model once on `inputs` and counts. A node in a loop counts as often as it runs, one in a branch not taken
/// does not.
///
/// # Errors
/// Whatever the run reports.
pub fn macs(model: &Model, inputs: &Named) -> Result<Macs> {
    let executor = Executor::unfused(model)?;
    let model = executor.model();
    let mut makers: HashMap<ValueId, &Node> = HashMap::new();
    model.graph.visit(&mut |node| {
        if let Some(last) = node.outputs.iter().flatten().last() {
            makers.insert(*last, node);
        }
    });
    let mut shapes: HashMap<ValueId, Vec<usize>> = HashMap::new();
    let mut counts: Vec<(&Node, u64)> = vec![];
    let mut place: HashMap<ValueId, usize> = HashMap::new();
    executor.run_observed(inputs, Mode::FLOAT, &mut |value: ValueId, tensor: &Tensor| {
        shapes.insert(value, tensor.shape().to_vec());
        if let Some(node) = makers.get(&value) {
            let at = *place.entry(value).or_insert_with(|| {
                counts.push((node, 0));
                counts.len() - 1
            });
            counts[at].1 += node_macs(model, node, &shapes);
        }
    })?;
    summarize(model, counts)
}

fn node_macs(model: &Model, node: &Node, shapes: &HashMap<ValueId, Vec<usize>>) -> u64 {
    let shape = |v: &Option<ValueId>| {
        let v = (*v)?;
        shapes.get(&v).cloned().or_else(|| Some(model.values.tensor(v)?.shape().to_vec()))
    };
    let cx = MacsCx { node, inputs: node.inputs.iter().map(shape).collect(), outputs: node.outputs.iter().map(shape).collect() };
    ops::find(&node.domain, &node.op_type).map_or(0, |op| op.macs(&cx))
}

fn summarize(model: &Model, counts: Vec<(&Node, u64)>) -> Result<Macs> {
    let mut stored = StoredValues::new(model);
    let mut out = Macs::default();
    for (node, macs) in counts.into_iter().filter(|(_, macs)| *macs > 0) {
        let weight = (0..node.inputs.len())
            .filter(|i| ops::find(&node.domain, &node.op_type).is_some_and(|op| op.role(node, *i) == Role::Weight))
            .find_map(|i| node.input(i));
        let count = weight.map(|w| stored.count(w)).transpose()?.flatten();
        // Each weight of a layer takes part in equally many products, except at padded borders.
        let effective = match count {
            Some(c) if c.elements > 0 => (u128::from(macs) * u128::from(c.elements - c.zeros) / u128::from(c.elements)) as u64,
            _ => macs,
        };
        out.total += macs;
        out.effective += effective;
        out.nodes.push(NodeMacs { node: node.label(&model.values), op_type: node.op_type.clone(), macs, effective });
    }
    Ok(out)
}
