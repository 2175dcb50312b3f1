//! Groups of layers whose channels can be scaled together: layers that compute a value and layers that read it, with only nodes
//! in between that pass a factor on.
use crate::{QuantizeSettings, Result};
use graph::{Graph, Linked, Model, Node, ValueId, ValueType};
use ops::{ChannelAxis, LayerChannels, Scaling, scaling};
use std::collections::{BTreeSet, HashMap};
use tensor::DType;

/// A layer whose weight can be scaled.
pub(super) struct Layer {
    pub(super) name: String,
    pub(super) weight: ValueId,
    pub(super) bias: Option<ValueId>,
    pub(super) channels: LayerChannels,
    /// What it multiplies with its weight.
    pub(super) data: ValueId,
    /// The group of its input channels, and how many neighbouring elements form one channel of the group.
    pub(super) reads: Option<(usize, usize)>,
    /// The group of its output channels.
    pub(super) gives: usize,
}

/// Values that must have the same factor for each channel.
#[derive(Default)]
pub(super) struct Group {
    pub(super) channels: usize,
    /// Names of the nodes that are no layers and multiply channels by constants of their own, where groups begin there.
    pub(super) scalers: Vec<String>,
    /// Their constants, one element a channel.
    pub(super) scales: Vec<ValueId>,
    /// Indices of the layers that compute its values.
    pub(super) producers: Vec<usize>,
    /// Indices of the layers that read them.
    pub(super) consumers: Vec<usize>,
    /// Constants that are added to a value, one element a channel.
    pub(super) offsets: Vec<ValueId>,
    /// Nodes that clip above a bound, by their first output.
    pub(super) clips: Vec<ValueId>,
    /// Why no factor is possible.
    pub(super) stopped: Option<String>,
}

/// What a search for groups covers.
#[derive(Clone, Copy, Default)]
pub(super) struct Reach {
    /// A factor may pass a bound, which is then removed.
    pub(super) open_clips: bool,
    /// Groups also begin at normalizations and at products with a constant for each channel, and go on through nodes that only move
    /// elements, if they keep the last axis.
    pub(super) scalers: bool,
}

/// All layers of a model and the groups between them.
#[derive(Default)]
pub(super) struct Groups {
    pub(super) layers: Vec<Layer>,
    pub(super) groups: Vec<Group>,
}

/// A value of a group: the axis of its channels, and how many neighbouring elements form one channel.
#[derive(Clone, Copy, PartialEq)]
struct Member {
    group: usize,
    at: ChannelAxis,
    run: usize,
}

struct Search<'a> {
    model: &'a Model,
    settings: &'a QuantizeSettings,
    reach: Reach,
    /// Types of the values, if `reach` asks for moves.
    types: HashMap<ValueId, ValueType>,
    uses: HashMap<ValueId, usize>,
    linked: Linked<'a>,
    members: HashMap<ValueId, Member>,
    found: Groups,
}

impl Groups {
    /// Groups of a model. Layers that `skip` names are left out.
    ///
    /// # Errors
    /// Types that contradict each other, if `reach` needs types.
    pub(super) fn of(model: &Model, settings: &QuantizeSettings, reach: Reach) -> Result<Groups> {
        let (uses, linked) = (model.graph.use_counts(), model.graph.linked());
        let types = if reach.scalers { ops::infer_types(model)? } else { HashMap::new() };
        let mut search = Search { model, settings, reach, types, uses, linked, members: HashMap::new(), found: Groups::default() };
        search.graph(&model.graph);
        Ok(search.found)
    }

    /// Names of a group's nodes: those that compute its values before the layers that read them.
    pub(super) fn names(&self, group: &Group) -> String {
        let layers = |layers: &[usize]| layers.iter().map(|l| self.layers[*l].name.clone()).collect::<Vec<_>>();
        format!("{} -> {}", [group.scalers.clone(), layers(&group.producers)].concat().join(" + "), layers(&group.consumers).join(" + "))
    }
}

impl Search<'_> {
    fn graph(&mut self, graph: &Graph) {
        for node in &graph.nodes {
            let label = node.label(&self.model.values);
            let captured: BTreeSet<ValueId> = node.subgraphs().flat_map(|g| g.use_counts().into_keys()).collect();
            captured.into_iter().for_each(|v| self.stop(v, || format!("since a subgraph of '{label}' reads the result")));
            if self.reach.scalers && (self.scaler(node, &label) || self.moves(node)) {
                continue;
            }
            match scaling(self.model, node) {
                Scaling::Layer(channels) => self.layer(node, label, channels),
                Scaling::Passes { data, second } => self.passes(node, &label, &data, second),
                Scaling::Offset { data, constant } => self.offset(node, &label, data, constant),
                Scaling::Flattens => self.flattens(node, &label),
                Scaling::Clips(high) => self.clips(node, high),
                Scaling::Stops => self.stop_inputs(node, || format!("since '{label}' ({}) reads the result", node.op_type)),
            }
        }
        for output in &graph.outputs {
            self.stop(*output, || "since the result is an output of the network".into());
        }
    }

    fn stop(&mut self, value: ValueId, why: impl FnOnce() -> String) {
        if let Some(member) = self.members.get(&value) {
            self.found.groups[member.group].stopped.get_or_insert_with(why);
        }
    }

    fn stop_inputs(&mut self, node: &Node, why: impl Fn() -> String) {
        node.inputs.iter().flatten().for_each(|v| self.stop(*v, &why));
    }

    /// A float constant with one reader and without a grid.
    fn own(&self, value: ValueId) -> bool {
        let float = self.model.values.tensor(value).is_some_and(|t| t.dtype() == DType::F32);
        float
            && self.uses.get(&value) == Some(&1)
            && self.model.annotations.encoding(value).is_none()
            && !self.model.graph.inputs.contains(&value)
    }

    /// Begins a group at a node that multiplies each channel by a constant of its own. Returns whether it does.
    fn scaler(&mut self, node: &Node, label: &str) -> bool {
        let Some(constants) = ops::channel_constants(self.model, node) else { return false };
        let Some(output) = node.output(0) else { return false };
        if !std::iter::once(constants.scale).chain(constants.shift).all(|v| self.own(v)) {
            return false;
        }
        self.stop_inputs(node, || format!("since '{label}' ({}) reads the result", node.op_type));
        self.members.insert(output, Member { group: self.found.groups.len(), at: constants.at, run: 1 });
        self.found.groups.push(Group {
            channels: self.model.values.tensor(constants.scale).map_or(0, tensor::Tensor::len),
            scalers: vec![label.to_string()],
            scales: vec![constants.scale],
            offsets: constants.shift.into_iter().collect(),
            ..Group::default()
        });
        true
    }

    /// Passes a group on through a node that moves elements and keeps the last axis. Returns whether it does.
    fn moves(&mut self, node: &Node) -> bool {
        let Some(member) = node.input(0).and_then(|v| self.members.get(&v).copied()) else { return false };
        let channels = self.found.groups[member.group].channels;
        let whole = member.at == ChannelAxis::Last && member.run == 1;
        if !whole || !ops::keeps_last_axis(self.model, node, &self.types, channels) {
            return false;
        }
        node.output(0).map(|v| self.members.insert(v, member));
        true
    }

    fn layer(&mut self, node: &Node, label: String, channels: LayerChannels) {
        let (weight, bias) = (node.input(channels.weight), channels.bias.and_then(|i| node.input(i)));
        let others = |v: &ValueId| Some(*v) != weight && Some(*v) != bias;
        let Some((weight, shape)) = weight.and_then(|w| Some((w, self.model.values.tensor(w)?.shape().to_vec()))) else {
            return self.stop_inputs(node, || format!("since '{label}' reads the result"));
        };
        let (inputs, outputs) = channels.counts(&shape);
        let whole = |b: ValueId| self.model.values.tensor(b).is_some_and(|t| t.len() == outputs && t.shape().last() == Some(&outputs));
        let refused = if self.settings.skip.iter().any(|p| graph::matches(p, &label)) {
            Some("which the recipe leaves out")
        } else if !self.own(weight) {
            Some("whose weight is shared, fed or on a grid already")
        } else if bias.is_some_and(|b| !self.own(b) || !whole(b)) {
            Some("whose bias is shared, fed, on a grid already or no constant with an element for each channel")
        } else {
            None
        };
        if let Some(refused) = refused {
            return self.stop_inputs(node, || format!("since '{label}' reads the result, {refused}"));
        }
        let Some(output) = node.output(0) else { return };
        let data: Vec<ValueId> = node.inputs.iter().flatten().copied().filter(others).collect();
        let index = self.found.layers.len();
        let mut reads = None;
        let Some(multiplied) = data.first().copied() else { return };
        for value in data {
            let Some(member) = self.members.get(&value).copied() else { continue };
            let group = &mut self.found.groups[member.group];
            if member.at == channels.at && inputs == group.channels * member.run {
                group.consumers.push(index);
                reads = Some((member.group, member.run));
            } else {
                group.stopped.get_or_insert_with(|| format!("since '{label}' reads the result along another axis"));
            }
        }
        let gives = self.found.groups.len();
        self.found.groups.push(Group { channels: outputs, producers: vec![index], ..Group::default() });
        self.members.insert(output, Member { group: gives, at: channels.at, run: 1 });
        self.found.layers.push(Layer { name: label, weight, bias, channels, data: multiplied, reads, gives });
    }

    fn passes(&mut self, node: &Node, label: &str, data: &[usize], second: bool) {
        let members: Vec<Option<Member>> = data.iter().map(|i| self.members.get(&node.input(*i)?).copied()).collect();
        let Some(first) = members.iter().flatten().next().copied() else { return };
        let alike = |m: &Option<Member>| {
            let same = |m: &Member| (m.at, m.run) == (first.at, first.run);
            m.as_ref().is_some_and(|m| same(m) && self.found.groups[m.group].channels == self.found.groups[first.group].channels)
        };
        if !members.iter().all(alike) || (second && first.at != ChannelAxis::Second) {
            return self.stop_inputs(node, || {
                format!("since '{label}' ({}) joins the result with one that is not the output of a layer", node.op_type)
            });
        }
        for member in members.iter().flatten() {
            self.join(first.group, member.group);
        }
        if let Some(output) = node.output(0) {
            let first = node.input(data[0]).and_then(|v| self.members.get(&v).copied()).unwrap_or(first);
            self.members.insert(output, first);
        }
    }

    fn offset(&mut self, node: &Node, label: &str, data: usize, constant: ValueId) {
        let Some(member) = node.input(data).and_then(|v| self.members.get(&v).copied()) else { return };
        let channels = self.found.groups[member.group].channels;
        let shape = self.model.values.tensor(constant).map(|t| t.shape().to_vec()).unwrap_or_default();
        let wide: Vec<usize> = (0..shape.len()).filter(|i| shape[*i] != 1).collect();
        // The output of a convolution has as many axes as its weight.
        let producer = self.found.groups[member.group].producers.first().map(|l| self.found.layers[*l].weight);
        let rank = producer.and_then(|w| self.model.values.tensor(w)).map_or(0, |t| t.rank());
        let placed = match (member.at, wide.as_slice()) {
            (ChannelAxis::Last, [at]) => at + 1 == shape.len() && shape[*at] == channels,
            (ChannelAxis::Second, [at]) => rank + at == shape.len() + 1 && shape[*at] == channels,
            _ => false,
        };
        if !placed || member.run != 1 || !self.own(constant) {
            return self.stop(node.input(data).unwrap_or(constant), || {
                format!("since '{label}' adds a constant that has not one element for each channel")
            });
        }
        self.found.groups[member.group].offsets.push(constant);
        node.output(0).map(|v| self.members.insert(v, member));
    }

    fn flattens(&mut self, node: &Node, label: &str) {
        let Some((value, member)) = node.input(0).and_then(|v| Some((v, self.members.get(&v).copied()?))) else { return };
        // The layer that reads the result determines the length of a run.
        let reader = node.output(0).and_then(|out| self.linked.readers(out).find(|n| n.input(0) == Some(out)));
        let shape = reader.and_then(|n| self.model.values.tensor(n.input(1)?)).map(|t| t.shape().to_vec());
        let inputs = reader.zip(shape).and_then(|(n, shape)| Some(LayerChannels::of(n, &shape)?.counts(&shape).0));
        let channels = self.found.groups[member.group].channels;
        match inputs {
            Some(inputs) if member.at == ChannelAxis::Second && member.run == 1 && inputs.is_multiple_of(channels) => {
                let member = Member { at: ChannelAxis::Last, run: inputs / channels, ..member };
                node.output(0).map(|v| self.members.insert(v, member));
            }
            _ => self.stop(value, || format!("since '{label}' merges axes of the result in a way that no layer reads")),
        }
    }

    fn clips(&mut self, node: &Node, high: f32) {
        let Some((value, member)) = node.input(0).and_then(|v| Some((v, self.members.get(&v).copied()?))) else { return };
        let Some(output) = node.output(0) else { return };
        if self.reach.open_clips {
            self.found.groups[member.group].clips.push(output);
            self.members.insert(output, member);
        } else {
            self.stop(value, || format!("cut off at {high} (a bound for each channel is not possible)"));
            // Nodes behind it are searched all the same, so that the report names both ends.
            self.members.insert(output, member);
        }
    }

    /// Merges two groups.
    fn join(&mut self, into: usize, from: usize) {
        if into == from {
            return;
        }
        let other = std::mem::take(&mut self.found.groups[from]);
        let group = &mut self.found.groups[into];
        group.producers.extend(other.producers);
        group.scalers.extend(other.scalers);
        group.scales.extend(other.scales);
        group.consumers.extend(other.consumers);
        group.offsets.extend(other.offsets);
        group.clips.extend(other.clips);
        group.stopped = group.stopped.take().or(other.stopped);
        self.members.values_mut().filter(|m| m.group == from).for_each(|m| m.group = into);
        for layer in &mut self.found.layers {
            layer.gives = if layer.gives == from { into } else { layer.gives };
            layer.reads = layer.reads.map(|(group, run)| (if group == from { into } else { group }, run));
        }
    }
}
