//! Units of reconstruction: a layer with the nodes behind it, or a block of layers with one value before and one after it.
use crate::bias::is_bias;
use encodings::affine::AffineSettings;
use graph::{Encoding, Linked, Model, Node, ValueId};
use ops::{LayerChannels, Roles};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tensor::DType;

/// Most layers of a block. A longer piece without a single passing value (dense connections, skips across the whole network) is
/// taken layer by layer.
const LONGEST: usize = 12;

/// Nodes whose weights are rounded together, so that their result is close to the float network's.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unit {
    /// Its nodes, in the order of the graph.
    pub(super) nodes: Vec<usize>,
    /// Its layers, by their place in the graph.
    pub(super) layers: Vec<usize>,
    /// The compared values: outputs of the unit's nodes.
    pub(super) targets: Vec<ValueId>,
}

/// A layer whose weight can be rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RoundedLayer {
    pub(super) weight: ValueId,
    pub(super) bias: Option<ValueId>,
    pub(super) channels: LayerChannels,
}

/// The graph's layers with a weight on a grid of integers that can be rounded, by their node, and the labels of layers whose weight
/// cannot.
pub(super) fn layers(model: &Model) -> (BTreeMap<usize, RoundedLayer>, Vec<String>) {
    layers_with(model, |encoding| AffineSettings::of(encoding).is_ok())
}

/// [`layers`] with weights whose encoding `fits`.
pub(super) fn layers_with(model: &Model, fits: impl Fn(&Encoding) -> bool) -> (BTreeMap<usize, RoundedLayer>, Vec<String>) {
    let uses = model.graph.use_counts();
    let (mut found, mut left) = (BTreeMap::new(), vec![]);
    for (at, node) in model.graph.nodes.iter().enumerate() {
        let Some(weight) = node.input(1) else { continue };
        let Some(channels) = model.values.tensor(weight).and_then(|t| LayerChannels::of(node, t.shape())) else { continue };
        let Some(encoding) = model.annotations.encoding(weight).filter(|e| !is_bias(e)) else { continue };
        let own = uses.get(&weight) == Some(&1) && !model.graph.inputs.contains(&weight);
        let float = model.values.tensor(weight).is_some_and(|t| t.dtype() == DType::F32);
        if own && float && fits(encoding) {
            let constant = |v: &ValueId| model.values.tensor(*v).is_some() && uses.get(v) == Some(&1) && !model.graph.inputs.contains(v);
            let bias = channels.bias.and_then(|i| node.input(i)).filter(constant);
            found.insert(at, RoundedLayer { weight, bias, channels });
        } else {
            left.push(node.label(&model.values));
        }
    }
    (found, left)
}

/// Each layer by itself: with the Add of its bias and the activation behind it.
pub(super) fn by_layer(model: &Model, layers: &BTreeMap<usize, RoundedLayer>) -> Vec<Unit> {
    let (linked, uses) = (model.graph.linked(), model.graph.use_counts());
    let roles = Roles::of(model);
    layers.keys().filter_map(|at| one_layer(model, &linked, &uses, &roles, *at)).collect()
}

fn one_layer(model: &Model, linked: &Linked, uses: &HashMap<ValueId, usize>, roles: &Roles, at: usize) -> Option<Unit> {
    let mut nodes = vec![at];
    let mut target = model.graph.nodes[at].output(0)?;
    let reader = |v: ValueId| model.graph.nodes.iter().position(|n| n.inputs.contains(&Some(v))).filter(|_| uses.get(&v) == Some(&1));
    if let Some(add) = reader(target).filter(|i| roles.bias_of(&model.graph.nodes[*i]).is_some()) {
        nodes.push(add);
        target = model.graph.nodes[add].output(0)?;
    }
    if let Some(activation) = ops::activation_behind((model, linked), uses, target) {
        let after = activation.output(0)?;
        nodes.extend(model.graph.nodes.iter().position(|n| n.output(0) == Some(after)));
        target = after;
    }
    Some(Unit { nodes, layers: vec![at], targets: vec![target] })
}

/// Blocks: the graph is cut wherever only one value passes and no activation follows directly. A piece without a layer belongs to
/// the next block with one.
pub(super) fn by_block(model: &Model, layers: &BTreeMap<usize, RoundedLayer>) -> Vec<Unit> {
    let graph = &model.graph;
    let (linked, uses) = (graph.linked(), graph.use_counts());
    let roles = Roles::of(model);
    let last_read = last_readers(model);
    let mut units = vec![];
    let (mut open, mut nodes): (BTreeSet<ValueId>, Vec<usize>) = (graph.inputs.iter().copied().collect(), vec![]);
    for (at, node) in graph.nodes.iter().enumerate() {
        nodes.push(at);
        open.extend(node.outputs.iter().flatten());
        open.retain(|v| last_read.get(v).is_some_and(|last| *last > at) && model.values.tensor(*v).is_none());
        let inside: Vec<usize> = nodes.iter().copied().filter(|n| layers.contains_key(n)).collect();
        if inside.is_empty() {
            continue;
        }
        let Some(target) = open.iter().copied().next().filter(|_| open.len() == 1) else { continue };
        let goes_on = ops::activation_behind((model, &linked), &uses, target).is_some()
            || graph.nodes.iter().any(|n| n.inputs.contains(&Some(target)) && roles.bias_of(n).is_some());
        if goes_on || node.output(0) != Some(target) {
            continue;
        }
        let nodes = std::mem::take(&mut nodes);
        if inside.len() > LONGEST {
            units.extend(inside.iter().filter_map(|at| one_layer(model, &linked, &uses, &roles, *at)));
        } else {
            units.push(Unit { nodes, layers: inside, targets: vec![target] });
        }
    }
    // The rest ends in several outputs, or in none.
    let rest: Vec<usize> = nodes.into_iter().filter(|n| layers.contains_key(n)).collect();
    units.extend(rest.iter().filter_map(|at| one_layer(model, &linked, &uses, &roles, *at)));
    units.sort_by_key(|u| u.layers.first().copied());
    units
}

/// The whole graph as one unit; the compared values are its float outputs.
pub(super) fn whole(model: &Model, layers: &BTreeMap<usize, RoundedLayer>) -> Option<Unit> {
    let made: BTreeSet<ValueId> = model.graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
    let targets: Vec<ValueId> = model.graph.outputs.iter().copied().filter(|v| made.contains(v)).collect();
    let unit = Unit { nodes: (0..model.graph.nodes.len()).collect(), layers: layers.keys().copied().collect(), targets };
    Some(unit).filter(|u| !u.targets.is_empty() && !u.layers.is_empty())
}

/// The last node that reads each value; for an output of the graph an index after all nodes.
fn last_readers(model: &Model) -> HashMap<ValueId, usize> {
    let mut last = HashMap::new();
    for (at, node) in model.graph.nodes.iter().enumerate() {
        last.extend(reads(node).into_iter().map(|v| (v, at)));
    }
    last.extend(model.graph.outputs.iter().map(|v| (*v, usize::MAX)));
    last
}

/// All values that a node reads, also in its subgraphs.
pub(super) fn reads(node: &Node) -> Vec<ValueId> {
    node.inputs.iter().flatten().copied().chain(node.subgraphs().flat_map(|g| g.use_counts().into_keys())).collect()
}

impl Unit {
    /// The values that its nodes read from outside and that are no constants, in the order of their ids.
    pub(super) fn inputs(&self, model: &Model) -> Vec<ValueId> {
        let nodes = || self.nodes.iter().map(|n| &model.graph.nodes[*n]);
        let made: BTreeSet<ValueId> = nodes().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
        let fed = |v: &ValueId| model.values.tensor(*v).is_none() || model.graph.inputs.contains(v);
        let read: BTreeSet<ValueId> = nodes().flat_map(reads).filter(|v| !made.contains(v) && fed(v)).collect();
        read.into_iter().collect()
    }

    /// The unit as a graph, which takes the values of [`Unit::inputs`] as they are, already on their grids.
    pub(super) fn piece(&self, model: &Model) -> Model {
        let mut piece = model.clone();
        piece.source = None;
        piece.graph.nodes = self.nodes.iter().map(|n| model.graph.nodes[*n].clone()).collect();
        piece.graph.value_info.clear();
        piece.graph.inputs = self.inputs(model);
        piece.graph.outputs = self.targets.clone();
        for id in piece.graph.inputs.clone() {
            piece.annotations.remove(id);
            piece.values[id].ty = graph::ValueType::Unknown;
        }
        piece
    }

    /// Names of its layers.
    pub(super) fn label(&self, model: &Model) -> String {
        self.layers.iter().map(|n| model.graph.nodes[*n].label(&model.values)).collect::<Vec<_>>().join(" + ")
    }
}
