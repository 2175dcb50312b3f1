//! Residual block: all weights of the branch of a residual sum.
use super::{Granularity, GroupNorm, Parts, Units, WholeLayer};
use crate::{Candidate, Result, candidates};
use graph::{Links, Model, ValueId};
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

The branch of a sum is what is computed for it alone: the nodes that nothing reads but each other and the sum. The other input must go around it,
from what the branch reads, and nothing may be left of the branch without its weights. Where both inputs of a sum are such branches (a shortcut
with a convolution) it is the one with more weights; the other stays. A block in a block is one of its own. Weights that lie in no branch
stay dense (the first layer, the last, shortcuts), and so do weights that other nodes read too, and the whole block of a weight that skip
names or the criterion spares. min_per_layer would keep a share of each block's layers, and is refused.

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
        WholeLayer::default().units(candidate)
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
/// Those of listing the weights.
fn branches(model: &Model) -> Result<BTreeMap<ValueId, usize>> {
    let search = Search::of(model)?;
    let mut found: Vec<(usize, Branch)> = vec![];
    for (at, node) in model.graph.nodes.iter().enumerate() {
        let Some([a, b]) = ops::summands(node) else { continue };
        let (Some(a), Some(b)) = (node.input(a), node.input(b)) else { continue };
        let sides = [(a, b), (b, a)].into_iter().filter_map(|(side, other)| search.branch(at, side, other));
        // Of two equal ones the first.
        let larger = sides.reduce(|first, second| if search.size(&second) > search.size(&first) { second } else { first });
        found.extend(larger.map(|branch| (at, branch)));
    }
    // A weight belongs to the innermost branch.
    found.sort_by_key(|(at, branch)| (branch.nodes.len(), *at));
    let mut of = BTreeMap::new();
    for (at, branch) in found {
        for weight in branch.weights {
            of.entry(weight).or_insert(at);
        }
    }
    let order: Vec<usize> = of.values().copied().collect::<BTreeSet<_>>().into_iter().collect();
    Ok(of.into_iter().map(|(v, at)| (v, order.partition_point(|o| *o < at))).collect())
}

/// What is computed for one input of a sum alone.
struct Branch {
    nodes: BTreeSet<usize>,
    /// The weights that these nodes alone read.
    weights: Vec<ValueId>,
}

struct Search<'a> {
    model: &'a Model,
    links: Links,
    /// What the network is given reaches these values, through masked weights too.
    fed: HashSet<ValueId>,
    /// What subgraphs read: nothing computes that for a sum alone.
    captured: HashSet<ValueId>,
    /// The weights that may be pruned, with their numbers of elements.
    weights: BTreeMap<ValueId, usize>,
}

impl<'a> Search<'a> {
    fn of(model: &'a Model) -> Result<Self> {
        let mut fed: HashSet<ValueId> = model.free_inputs().into_iter().collect();
        for node in model.graph.nodes.iter().filter(|node| !ops::reads_sizes_alone(node)) {
            if node.subgraphs().next().is_some() || node.inputs.iter().flatten().any(|v| fed.contains(v)) {
                fed.extend(node.outputs.iter().flatten());
            }
        }
        let subgraphs = model.graph.nodes.iter().flat_map(|n| n.subgraphs());
        let captured: HashSet<ValueId> = subgraphs.flat_map(|g| g.use_counts().into_keys()).collect();
        let all = candidates(model, &[])?.into_iter().filter(|c| !captured.contains(&c.weight));
        let weights = all.filter_map(|c| Some((c.weight, c.view?.shape.iter().product()))).collect();
        Ok(Search { model, links: model.graph.links(), fed, captured, weights })
    }

    fn size(&self, branch: &Branch) -> usize {
        branch.weights.iter().map(|v| self.weights[v]).sum()
    }

    /// The branch that ends in `side` of the sum at a node, if without its weights nothing is left of it and the other side goes around it.
    fn branch(&self, sum: usize, side: ValueId, other: ValueId) -> Option<Branch> {
        if side == other || !self.fed.contains(&other) {
            return None;
        }
        let mut nodes = BTreeSet::new();
        for at in (0..=self.links.producer(side)?).rev() {
            let outputs = self.model.graph.nodes[at].outputs.iter().flatten();
            let by = |v: ValueId| self.links.consumers(v);
            let kept = |v: &ValueId| self.captured.contains(v) || self.model.graph.outputs.contains(v);
            let for_the_sum = |v: &ValueId| !kept(v) && by(*v).iter().all(|n| nodes.contains(n) || (*n == sum && *v == side));
            if outputs.clone().any(|v| !by(*v).is_empty()) && outputs.clone().all(for_the_sum) {
                nodes.insert(at);
            }
        }
        let alone = |v: &&ValueId| self.links.consumers(**v).iter().all(|by| nodes.contains(by));
        let weights: Vec<ValueId> = self.weights.keys().filter(alone).copied().collect();
        let branch = Branch { nodes, weights };
        (!branch.weights.is_empty() && self.goes_around(&branch, other) && self.ends(&branch, side)).then_some(branch)
    }

    /// The other side is computed from something that the branch reads, too.
    fn goes_around(&self, branch: &Branch, other: ValueId) -> bool {
        let reads = |at: &usize| self.model.graph.nodes[*at].inputs.iter().flatten().copied().collect::<Vec<_>>();
        let sources: HashSet<ValueId> = branch.nodes.iter().flat_map(reads).filter(|v| self.fed.contains(v)).collect();
        let (mut seen, mut open) = (HashSet::from([other]), vec![other]);
        while let Some(value) = open.pop() {
            if sources.contains(&value) {
                return true;
            }
            let Some(node) = self.links.producer(value).map(|at| &self.model.graph.nodes[at]).filter(|n| !ops::reads_sizes_alone(n)) else {
                continue;
            };
            open.extend(node.inputs.iter().flatten().filter(|v| seen.insert(**v)));
        }
        false
    }

    /// Data reach the end of the branch through its weights alone.
    fn ends(&self, branch: &Branch, side: ValueId) -> bool {
        let made = |at: &usize| self.model.graph.nodes[*at].outputs.iter().flatten().copied().collect::<Vec<_>>();
        let inside: HashSet<ValueId> = branch.nodes.iter().flat_map(made).collect();
        let mut moving = HashSet::new();
        for node in branch.nodes.iter().map(|at| &self.model.graph.nodes[*at]).filter(|node| !ops::reads_sizes_alone(node)) {
            let inputs = || node.inputs.iter().flatten();
            let data = inputs().any(|v| if inside.contains(v) { moving.contains(v) } else { self.fed.contains(v) });
            if data && !inputs().any(|v| branch.weights.contains(v)) {
                moving.extend(node.outputs.iter().flatten().copied());
            }
        }
        !moving.contains(&side)
    }
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
        // Where a value of a branch is an output too, the layers in front of it stay, and what is left is no way around what it reads.
        m.graph.outputs.push(heads);
        assert_eq!(found(&m), [("inner", 0), ("outer1", 1), ("outer2", 1)]);
    }

    /// A network of one input, up to the value that `build` returns, and a layer behind it.
    fn network(build: impl Fn(&mut Model, ValueId) -> ValueId) -> Model {
        let mut m = Model::new(17);
        let x = m.values.add_named("x");
        m.graph.inputs.push(x);
        let y = build(&mut m, x);
        let y = layer(&mut m, y, "head");
        m.graph.outputs.push(y);
        m
    }

    #[test]
    fn a_sum_that_goes_around_nothing_has_no_branch() {
        // A mask that is fed, and positions that follow from a length.
        let masked = network(|m, x| {
            let mask = m.values.add_named("mask");
            m.graph.inputs.push(mask);
            let scores = layer(m, x, "scores");
            op(m, "Add", &[scores, mask])
        });
        assert_eq!(found(&masked), []);
        let placed = network(|m, x| {
            let patches = layer(m, x, "patches");
            let length = op(m, "Shape", &[x]);
            let positions = op(m, "Expand", &[length]);
            op(m, "Add", &[patches, positions])
        });
        assert_eq!(found(&placed), []);
        // Two layers of different data.
        let joined = network(|m, x| {
            let t = m.values.add_named("t");
            m.graph.inputs.push(t);
            let (a, b) = (layer(m, x, "a"), layer(m, t, "b"));
            op(m, "Add", &[a, b])
        });
        assert_eq!(found(&joined), []);
    }

    #[test]
    fn a_branch_that_data_pass_without_its_weights_is_none() {
        let gated = network(|m, x| {
            let gate = layer(m, x, "gate");
            let gate = op(m, "Sigmoid", &[gate]);
            let y = op(m, "Mul", &[x, gate]);
            op(m, "Add", &[x, y])
        });
        assert_eq!(found(&gated), []);
        let within = network(|m, x| {
            let h = layer(m, x, "first");
            let gate = layer(m, h, "gate");
            let h = op(m, "Mul", &[h, gate]);
            op(m, "Add", &[x, h])
        });
        assert_eq!(found(&within), [("first", 0), ("gate", 0)]);
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
