//! Residual block: all weights of the branch of a residual sum.
use super::{Granularity, GroupNorm, Parts, Units};
use crate::{Candidate, Result, candidates};
use graph::{Model, ValueId};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Granularity> = member!(
    ResidualBlock as dyn Granularity,
    Manual {
        name: "residual_block",
        summary: "All weights of the branch of a residual sum, over all its layers: the block lives or dies as a whole.",
        details: "\
A residual block adds to its input what its branch makes of it. Without the branch's weights that is a constant, and the block is its shortcut. So
are the two sums of a transformer's block: the attention is one branch, the layers behind it another. A stage prune_channels with
remove = { dead = true } behind it takes the branches out of the graph: the network has so many layers less, and is faster in every runtime.

The branch of a sum is what is computed for it alone: the nodes that nothing reads but each other and the sum. Where both inputs of a sum have
such nodes (a shortcut with a convolution) it is the one with more weights; the other stays. A block in a block is one of its own.
Weights that lie in no branch stay dense (the first layer, the last, shortcuts), and so do weights that other nodes read too.

Blocks are compared in the whole network, so it takes scope = \"global\", and a criterion that compares between layers: with taylor a
block's importance is the estimated effect of its weights on the loss, as a mean over them. A block that is too large for the sparsity is passed over.",
        source: "Chen & Zhao 2018, arXiv:1812.00258 (layers of residual networks)",
        example: "granularity = \"residual_block\"\ncriterion = \"taylor\"\nsparsity = 0.3",
    }
);

/// All weights of the branch of a residual sum.
///
/// # Source
/// Chen & Zhao 2018, arXiv:1812.00258.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResidualBlock {
    /// How the importance of a block follows from that of its elements.
    pub norm: GroupNorm,
}

impl Settings for ResidualBlock {}

impl Granularity for ResidualBlock {
    fn units(&self, candidate: &Candidate) -> Units {
        match &candidate.view {
            Some(view) => Units::Groups(vec![0; view.shape.iter().product()]),
            None => Units::Dense("its operator sums no products with it".into()),
        }
    }

    fn parts(&self) -> Option<Parts> {
        Some(Parts { of: branches, name: "residual blocks", outside: "it lies in no branch of a residual sum" })
    }

    fn norm(&self) -> GroupNorm {
        self.norm
    }
}

/// The branch that each weight lies in, by number, in the order of the sums.
///
/// # Errors
/// For a weight that cannot be read.
fn branches(model: &Model) -> Result<BTreeMap<ValueId, usize>> {
    let links = model.graph.links();
    // What the network is given reaches a branch whose weights are masked, too: it stays one.
    let mut fed: HashSet<ValueId> = model.free_inputs().into_iter().collect();
    for node in &model.graph.nodes {
        if node.inputs.iter().flatten().any(|v| fed.contains(v)) {
            fed.extend(node.outputs.iter().flatten());
        }
    }
    // What subgraphs read, nothing computes for a sum alone.
    let captured: BTreeSet<ValueId> =
        model.graph.nodes.iter().flat_map(|n| n.subgraphs()).flat_map(|g| g.use_counts().into_keys()).collect();
    let weights: BTreeMap<ValueId, usize> = candidates(model, &[])?
        .into_iter()
        .filter(|c| c.view.is_some() && !captured.contains(&c.weight))
        .map(|c| (c.weight, c.view.map_or(0, |view| view.shape.iter().product())))
        .collect();
    let alone = |nodes: &BTreeSet<usize>| -> BTreeSet<ValueId> {
        let inside = |v: &&ValueId| links.consumers(**v).iter().all(|by| nodes.contains(by));
        weights.keys().filter(inside).copied().collect()
    };
    let mut found: Vec<(usize, BTreeSet<usize>, BTreeSet<ValueId>)> = vec![];
    for (at, node) in model.graph.nodes.iter().enumerate() {
        let Some(sides) = ops::summands(node) else { continue };
        let Some([a, b]) = node.input(sides[0]).zip(node.input(sides[1])).map(|(a, b)| [a, b]) else { continue };
        if a == b || ![a, b].iter().all(|v| fed.contains(v)) {
            continue;
        }
        let branch = |side: ValueId| {
            let mut nodes = BTreeSet::new();
            for before in (0..=links.producer(side).unwrap_or(0)).rev() {
                let mut outputs = model.graph.nodes[before].outputs.iter().flatten().peekable();
                let for_the_sum = |v: &ValueId| {
                    let by = links.consumers(*v);
                    let read = !by.is_empty() && by.iter().all(|n| nodes.contains(n) || (*n == at && *v == side));
                    read && !captured.contains(v) && !model.graph.outputs.contains(v)
                };
                if outputs.peek().is_some() && outputs.all(for_the_sum) {
                    nodes.insert(before);
                }
            }
            let weights = alone(&nodes);
            (nodes, weights)
        };
        let size = |(_, own): &(_, BTreeSet<ValueId>)| own.iter().map(|v| weights[v]).sum::<usize>();
        let [a, b] = [branch(a), branch(b)];
        let (nodes, own) = if size(&a) >= size(&b) { a } else { b };
        if !own.is_empty() {
            found.push((at, nodes, own));
        }
    }
    // A weight belongs to the innermost branch.
    found.sort_by_key(|(at, nodes, _)| (nodes.len(), *at));
    let mut of = BTreeMap::new();
    for (at, _, own) in found {
        for v in own {
            of.entry(v).or_insert(at);
        }
    }
    let order: Vec<usize> = of.values().copied().collect::<BTreeSet<_>>().into_iter().collect();
    Ok(of.into_iter().map(|(v, at)| (v, order.partition_point(|o| *o < at))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::Node;
    use tensor::Tensor;

    fn op(model: &mut Model, kind: &str, inputs: &[ValueId]) -> ValueId {
        let name = model.fresh_name(&kind.to_lowercase());
        let y = model.values.add_named(name.clone());
        model.graph.nodes.push(Node::new(kind, name, inputs, &[y]));
        y
    }

    fn weight(model: &mut Model, name: &str) -> ValueId {
        let id = model.values.add_constant(name, Tensor::full(1.0f32, [4, 4]).unwrap());
        model.graph.constants.push(id);
        id
    }

    /// `x W` of a weight of this name.
    fn layer(model: &mut Model, x: ValueId, name: &str) -> ValueId {
        let w = weight(model, name);
        op(model, "MatMul", &[x, w])
    }

    fn found(model: &Model) -> Vec<(&str, usize)> {
        let mut list: Vec<(&str, usize)> = branches(model).unwrap().into_iter().map(|(v, n)| (model.values[v].name.as_str(), n)).collect();
        list.sort_unstable();
        list
    }

    #[test]
    fn a_weight_lies_in_its_innermost_branch() {
        let mut m = Model::new(17);
        let x = m.values.add_named("x");
        m.graph.inputs.push(x);
        let x = layer(&mut m, x, "stem");
        // Attention: queries, keys and values; and a block within the layers behind it.
        let [q, k, v] = ["q", "k", "v"].map(|name| layer(&mut m, x, name));
        let k = op(&mut m, "Transpose", &[k]);
        let scores = op(&mut m, "MatMul", &[q, k]);
        let scores = op(&mut m, "Softmax", &[scores]);
        let heads = op(&mut m, "MatMul", &[scores, v]);
        let out = layer(&mut m, heads, "out");
        let x = op(&mut m, "Add", &[out, x]);
        let h = layer(&mut m, x, "outer1");
        let inner = layer(&mut m, h, "inner");
        let h = op(&mut m, "Add", &[h, inner]);
        let h = layer(&mut m, h, "outer2");
        let x = op(&mut m, "Add", &[x, h]);
        let y = layer(&mut m, x, "head");
        m.graph.outputs.push(y);
        let wanted = [("inner", 1), ("k", 0), ("out", 0), ("outer1", 2), ("outer2", 2), ("q", 0), ("v", 0)];
        assert_eq!(found(&m), wanted);
        // What else reads a branch's value keeps the layers in front of it, and the branch loses but the layers behind.
        m.graph.outputs.push(heads);
        assert_eq!(found(&m), [("inner", 1), ("out", 0), ("outer1", 2), ("outer2", 2)]);
    }

    #[test]
    fn what_is_shared_or_added_twice_is_no_branch() {
        let mut m = Model::new(17);
        let x = m.values.add_named("x");
        m.graph.inputs.push(x);
        let (shared, own) = (weight(&mut m, "shared"), weight(&mut m, "own"));
        let h = op(&mut m, "MatMul", &[x, shared]);
        let h = op(&mut m, "MatMul", &[h, own]);
        let y = op(&mut m, "Add", &[x, h]);
        let y = op(&mut m, "MatMul", &[y, shared]);
        let y = layer(&mut m, y, "behind");
        let y = op(&mut m, "Add", &[y, y]);
        m.graph.outputs.push(y);
        assert_eq!(found(&m), [("own", 0)]);
    }
}
