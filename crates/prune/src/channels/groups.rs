//! Which channels a graph has: the indices that are removed together, found by following what each operator says.
use super::ties::{Reason, Ties};
use crate::{PruneError, Result};
use graph::{Dim, Graph, Model, Node, ValueId, ValueType};
use ops::{Couples, CouplesCx, Effect, Place, Tie};
use std::collections::{BTreeMap, HashMap, HashSet};
use tensor::{DType, Tensor};

/// Samples in a batch of open size while shapes are inferred: a number that no other axis is likely to have.
const BATCH: usize = 7;

/// One index of an axis of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelPlace {
    /// The value: a parameter, or computed.
    pub value: ValueId,
    /// The axis.
    pub axis: usize,
    /// The index along it.
    pub index: usize,
}

/// Indices that are removed together.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Channel {
    /// All of them.
    pub places: Vec<ChannelPlace>,
}

/// Channels on the same axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The axes: of parameters and of computed values.
    pub axes: Vec<(ValueId, usize)>,
    /// The channels, by their first place.
    pub channels: Vec<Channel>,
}

/// A layer whose output channels all stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The layer.
    pub layer: String,
    /// Its weight.
    pub weight: ValueId,
    /// The node or end of the graph that forbids it, with the reason.
    pub reason: String,
}

/// The channels of a model.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// Channels that may be removed, by the axes that they are on.
    pub groups: Vec<Group>,
    /// Layers whose output channels all stay.
    pub held: Vec<Held>,
    /// Shapes of all values, with open batches taken as some number.
    pub(super) shapes: HashMap<ValueId, Vec<Dim>>,
    /// Elements of small values that are the same in every run.
    pub(super) elements: HashMap<ValueId, Tensor>,
    /// Values that depend on what the network is given.
    pub(super) computed: HashSet<ValueId>,
}

/// Finds the channels of a model. An open first axis of an input is a batch; `inputs` gives sizes of other open axes by the input's name,
/// without which they stay unknown.
///
/// # Errors
/// [`PruneError::Graph`] if shapes cannot be inferred, or an attribute has the wrong type.
pub fn groups(model: &Model, inputs: &BTreeMap<String, Vec<usize>>) -> Result<Groups> {
    let mut found = Groups::of_shapes(model, inputs)?;
    let mut tried: HashMap<usize, usize> = HashMap::new();
    // An alternative that turns out to be held by what comes behind gives way to the next.
    loop {
        let mut pass = Pass { model, facts: &found, ties: Ties::default(), reasons: vec![], chosen: vec![] };
        pass.run(&tried)?;
        let chosen = std::mem::take(&mut pass.chosen);
        let stuck: Vec<Alternative> = chosen.into_iter().filter(|a| a.more && pass.ties.all_held(a.value, a.axis).is_some()).collect();
        if stuck.is_empty() {
            let (groups, held) = pass.collect();
            found.groups = groups;
            found.held = held;
            return Ok(found);
        }
        tried.extend(stuck.iter().map(|a| (a.node, a.at + 1)));
    }
}

impl Groups {
    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.groups.iter().map(|g| g.channels.len()).sum()
    }

    fn of_shapes(model: &Model, inputs: &BTreeMap<String, Vec<usize>>) -> Result<Groups> {
        let bare = ops::bare(model, |name, declared| {
            let given = inputs.get(name);
            let size = |(axis, dim): (usize, &Dim)| match (dim.known(), given.and_then(|g| g.get(axis))) {
                (Some(n), _) => Dim::Known(n),
                (None, _) if axis == 0 => Dim::Known(BATCH),
                (None, Some(n)) => Dim::Known(*n),
                (None, None) => dim.clone(),
            };
            match declared {
                Some(dims) => Some(dims.iter().enumerate().map(size).collect()),
                None => given.map(|g| g.iter().map(|d| Dim::Known(*d)).collect()),
            }
        });
        let inferred = ops::infer(&bare)?;
        let mut shapes: HashMap<ValueId, Vec<Dim>> = HashMap::new();
        for (id, value) in bare.values.iter() {
            let shape = match (&value.constant, inferred.types.get(&id), &value.ty) {
                (Some(c), _, _) => Some(c.tensor.shape().iter().map(|d| Dim::Known(*d)).collect()),
                (None, Some(ValueType::Tensor { shape, .. }), _) | (None, None, ValueType::Tensor { shape, .. }) => shape.clone(),
                _ => None,
            };
            shape.into_iter().for_each(|s| drop(shapes.insert(id, s)));
        }
        let mut computed: HashSet<ValueId> = model.graph.inputs.iter().copied().collect();
        for node in &model.graph.nodes {
            if node.inputs.iter().flatten().any(|v| computed.contains(v)) || node.subgraphs().next().is_some() {
                computed.extend(node.outputs.iter().flatten());
            }
        }
        Ok(Groups { shapes, elements: inferred.elements, computed, ..Groups::default() })
    }

    /// What an operator needs to know about a node.
    pub(super) fn facts<'a>(&'a self, model: &'a Model, node: &'a Node) -> CouplesCx<'a> {
        let shape = |v: &Option<ValueId>| v.and_then(|v| self.shapes.get(&v).cloned());
        let element = |v: &Option<ValueId>| {
            let v = (*v)?;
            model.constant(v).or_else(|| self.elements.get(&v)).cloned()
        };
        CouplesCx {
            node,
            model,
            opset: model.opset(&node.domain).unwrap_or(1),
            inputs: node.inputs.iter().map(shape).collect(),
            outputs: node.outputs.iter().map(shape).collect(),
            elements: node.inputs.iter().map(element).collect(),
            computed: node.inputs.iter().map(|v| v.is_some_and(|v| self.computed.contains(&v))).collect(),
        }
    }
}

/// A tie of several possible ones that was followed.
struct Alternative {
    node: usize,
    at: usize,
    value: ValueId,
    axis: usize,
    /// True if there are more to try.
    more: bool,
}

/// One walk through the graph.
struct Pass<'a> {
    model: &'a Model,
    facts: &'a Groups,
    ties: Ties,
    reasons: Vec<String>,
    chosen: Vec<Alternative>,
}

impl Pass<'_> {
    fn run(&mut self, tried: &HashMap<usize, usize>) -> Result<()> {
        let graph = &self.model.graph;
        for id in &graph.inputs {
            self.hold_value(*id, || "is an input of the network".into());
        }
        for (at, node) in graph.nodes.iter().enumerate() {
            self.node(at, node, tried.get(&at).copied().unwrap_or(0))?;
        }
        for id in &graph.outputs {
            self.hold_value(*id, || "is an output of the network".into());
        }
        Ok(())
    }

    fn size(&self, value: ValueId, axis: usize) -> Option<usize> {
        self.facts.shapes.get(&value)?.get(axis)?.known()
    }

    fn reason(&mut self, text: String) -> Reason {
        self.reasons.push(text);
        (self.reasons.len() - 1) as Reason
    }

    fn hold_value(&mut self, value: ValueId, why: impl Fn() -> String) {
        let rank = self.facts.shapes.get(&value).map_or(0, Vec::len);
        let reason = self.reason(format!("'{}' {}", self.model.values[value].name, why()));
        (0..rank).for_each(|axis| self.hold(value, axis, reason));
    }

    fn hold(&mut self, value: ValueId, axis: usize, reason: Reason) {
        if let Some(size) = self.size(value, axis) {
            self.ties.hold(value, axis, size, reason);
        }
    }

    fn node(&mut self, at: usize, node: &Node, tried: usize) -> Result<()> {
        let inner: HashSet<ValueId> = node.subgraphs().flat_map(|g: &Graph| g.use_counts().into_keys()).collect();
        for value in inner {
            self.hold_value(value, || format!("is read in a subgraph of '{}'", node.label(&self.model.values)));
        }
        let mut couples = Couples::default();
        match ops::find(&node.domain, &node.op_type) {
            Some(op) => op.couples(&self.facts.facts(self.model, node), &mut couples)?,
            None => couples.reason = Some("the operator is not known".into()),
        }
        let mut mentioned: HashSet<(ValueId, usize)> = HashSet::new();
        for place in &couples.free {
            mentioned.extend(located(node, *place));
        }
        for tie in &couples.ties {
            self.follow(node, tie, &mut mentioned);
        }
        let alternatives = couples.alternatives.iter().enumerate().skip(tried);
        for (i, tie) in alternatives {
            let (Some(a), Some(b)) = (located(node, tie.a), located(node, tie.b)) else { continue };
            if self.ties.all_held(a.0, a.1).is_none() && self.ties.all_held(b.0, b.1).is_none() {
                self.follow(node, tie, &mut mentioned);
                let more = i + 1 < couples.alternatives.len();
                self.chosen.push(Alternative { node: at, at: i, value: a.0, axis: a.1, more });
                break;
            }
        }
        let mut reason = None;
        for value in node.inputs.iter().chain(&node.outputs).flatten() {
            for axis in 0..self.facts.shapes.get(value).map_or(0, Vec::len) {
                if mentioned.contains(&(*value, axis)) {
                    continue;
                }
                let text = || {
                    let why = couples.reason.as_deref().unwrap_or("it computes across this axis");
                    format!("{} '{}': {why}", node.op_type, node.label(&self.model.values))
                };
                let known = match reason {
                    Some(known) => known,
                    None => *reason.insert(self.reason(text())),
                };
                self.hold(*value, axis, known);
            }
        }
        Ok(())
    }

    fn follow(&mut self, node: &Node, tie: &Tie, mentioned: &mut HashSet<(ValueId, usize)>) {
        let (Some(a), Some(b)) = (located(node, tie.a), located(node, tie.b)) else { return };
        let (Some(size_a), Some(size_b)) = (self.size(a.0, a.1), self.size(b.0, b.1)) else { return };
        // Sizes that do not fit together are reported when the network runs.
        if tie.pairs.is_none() && size_a != size_b {
            return;
        }
        mentioned.extend([a, b]);
        let (first_a, first_b) = (self.ties.axis(a.0, a.1, size_a), self.ties.axis(b.0, b.1, size_b));
        match &tie.pairs {
            None => (0..size_a as u32).for_each(|i| self.ties.join(first_a + i, first_b + i)),
            Some(pairs) => {
                for (i, j) in pairs.iter().filter(|(i, j)| *i < size_a && *j < size_b) {
                    self.ties.join(first_a + *i as u32, first_b + *j as u32);
                }
            }
        }
    }

    /// The sets that may be removed and hold a parameter, by the axes that they are on; and the layers whose output channels stay.
    fn collect(mut self) -> (Vec<Group>, Vec<Held>) {
        let mut sets: BTreeMap<u32, Channel> = BTreeMap::new();
        let mut with_parameter: HashSet<u32> = HashSet::new();
        for ((value, axis), first, size) in self.ties.axes() {
            let parameter = self.model.constant(value).is_some_and(|t| t.dtype() == DType::F32);
            for index in 0..size {
                let at = first + index as u32;
                if self.ties.held(at).is_some() {
                    continue;
                }
                let root = self.ties.root(at);
                sets.entry(root).or_default().places.push(ChannelPlace { value, axis, index });
                if parameter {
                    with_parameter.insert(root);
                }
            }
        }
        let mut by_axes: BTreeMap<Vec<(ValueId, usize)>, Vec<Channel>> = BTreeMap::new();
        for (root, mut channel) in sets {
            if !with_parameter.contains(&root) {
                continue;
            }
            channel.places.sort_unstable();
            let mut axes: Vec<(ValueId, usize)> = channel.places.iter().map(|p| (p.value, p.axis)).collect();
            axes.dedup();
            by_axes.entry(axes).or_default().push(channel);
        }
        let groups = by_axes.into_iter().map(|(axes, mut channels)| {
            channels.sort_by_key(|c| c.places.iter().map(|p| p.index).min());
            Group { axes, channels }
        });
        // A single channel that nothing else shares its axes with cannot be left out.
        let groups = groups.filter(|g| g.channels.len() > 1).collect();
        (groups, self.held())
    }

    fn held(&mut self) -> Vec<Held> {
        let mut list = vec![];
        for node in &self.model.graph.nodes {
            let Some(op) = ops::find(&node.domain, &node.op_type) else { continue };
            let Effect::Computes { weight: Some(rule), .. } = op.effect(node, self.model) else { continue };
            let (Some(weight), Some(axis)) = (node.input(rule.input), rule.axis) else { continue };
            // A single output channel cannot be left out in any case.
            if self.model.constant(weight).is_none() || self.size(weight, axis).is_none_or(|n| n < 2) {
                continue;
            }
            if let Some(reason) = self.ties.all_held(weight, axis) {
                let reason = self.reasons[reason as usize].clone();
                list.push(Held { layer: node.label(&self.model.values), weight, reason });
            }
        }
        list
    }
}

/// The value and axis of a place of a node, if it is given.
pub(super) fn located(node: &Node, place: Place) -> Option<(ValueId, usize)> {
    match place {
        Place::Input(i, axis) => node.input(i).map(|v| (v, axis)),
        Place::Output(i, axis) => node.output(i).map(|v| (v, axis)),
    }
}

impl From<ops::OpError> for PruneError {
    fn from(error: ops::OpError) -> Self {
        PruneError::Graph(error.to_string())
    }
}
