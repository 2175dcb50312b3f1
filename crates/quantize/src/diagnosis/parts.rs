//! The rows of a diagnosis: nodes that read values in few bits.
use crate::bias::is_bias;
use graph::{Linked, Model, Node, ValueId};
use std::collections::BTreeSet;
use target::QuantRule;

/// A node with what it reads in few bits.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Part {
    /// Its place in the graph.
    pub(super) at: usize,
    /// Nodes in front of it that only move elements of its constants, in their order.
    pub(super) movers: Vec<usize>,
    /// The constants that it reads, biases not among them.
    pub(super) weights: Vec<ValueId>,
    /// Its biases, on the grid of the sums.
    pub(super) biases: Vec<ValueId>,
    /// Its data, each with the value whose grid they lie on.
    pub(super) data: Vec<(ValueId, ValueId)>,
    /// Its own result, if it has a grid and no other row reads it.
    pub(super) result: Option<ValueId>,
}

impl Part {
    /// The values whose encodings are its own.
    pub(super) fn encoded(&self) -> impl Iterator<Item = ValueId> {
        let data = self.data.iter().map(|(_, carrier)| *carrier);
        self.weights.iter().chain(&self.biases).copied().chain(data).chain(self.result)
    }
}

/// The nodes of the main graph that read encoded values, in their order. What a branch or a loop body reads belongs to the node that
/// holds it.
pub(super) fn parts(model: &Model, target: &target::Choice) -> Vec<Part> {
    let walk = Walk { model, target, here: &model.graph.linked() };
    let mut parts: Vec<Part> = model.graph.nodes.iter().enumerate().filter_map(|(at, node)| walk.part(at, node)).collect();
    let read: BTreeSet<ValueId> = parts.iter().flat_map(Part::encoded).collect();
    for part in &mut parts {
        let result = model.graph.nodes[part.at].output(0).filter(|v| model.annotations.encoding(*v).is_some());
        part.result = result.filter(|v| !read.contains(v));
    }
    parts
}

struct Walk<'a> {
    model: &'a Model,
    target: &'a target::Choice,
    here: &'a Linked<'a>,
}

impl Walk<'_> {
    fn part(&self, at: usize, node: &Node) -> Option<Part> {
        let rule = self.target.rule(node, self.model);
        let mut part = Part { at, ..Part::default() };
        let inner = node.subgraphs().flat_map(|g| g.use_counts().into_keys()).collect::<BTreeSet<_>>();
        for input in node.inputs.iter().flatten().copied().chain(inner) {
            match self.carrier(input) {
                Some(id) if self.model.values.tensor(id).is_some() => self.constant(&mut part, input, id),
                Some(id) if !part.data.iter().any(|(known, _)| *known == input) => part.data.push((input, id)),
                _ => {}
            }
        }
        let moves = matches!(rule, QuantRule::SameGrid | QuantRule::FusedActivation);
        let reads_data = matches!(rule, QuantRule::Integer { .. }) && !part.data.is_empty();
        // Who only moves elements is a row where it reads a constant: a table of embeddings.
        if moves {
            part.data.clear();
        }
        (reads_data || !part.weights.is_empty()).then_some(part)
    }

    fn constant(&self, part: &mut Part, input: ValueId, id: ValueId) {
        let bias = self.model.annotations.encoding(id).is_some_and(is_bias);
        let list = if bias { &mut part.biases } else { &mut part.weights };
        if !list.contains(&id) {
            list.push(id);
        }
        let (mut value, mut movers) = (input, vec![]);
        while let Some(at) = self.here.links().producer(value) {
            movers.push(at);
            match self.model.graph.nodes[at].input(0) {
                Some(from) => value = from,
                None => break,
            }
        }
        movers.reverse();
        part.movers.extend(movers.into_iter().filter(|at| !part.movers.contains(at)).collect::<Vec<_>>());
    }

    /// The value with the grid of an input: itself, or back through nodes that only move elements.
    fn carrier(&self, mut value: ValueId) -> Option<ValueId> {
        loop {
            if self.model.annotations.encoding(value).is_some() {
                return Some(value);
            }
            let maker = self.here.maker(value).filter(|n| self.target.rule(n, self.model) == QuantRule::SameGrid)?;
            value = maker.input(0)?;
        }
    }
}
