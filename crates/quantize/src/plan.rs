//! Which values are quantized, from a walk over the graph by its operators' rules.
use crate::bias::BiasPart;
use crate::layers::{Decider, LayerPart};
use crate::rules::{Rules, Scheme};
use crate::sums::SumPart;
use crate::{ActivationSettings, QuantizeSettings, Result};
use encodings::affine::AffineSettings;
use encodings::binary::ActivationEstimator;
use encodings::{Along, Encodings, Granularity};
use graph::{Graph, Linked, Model, Node, ValueId};
use ops::{Role, Roles, WeightRule};
use std::collections::{BTreeMap, BTreeSet};
use target::{FloatPart, QuantRule};
use technique::Choice;
use tensor::DType;

/// How a constant will be stored.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredConstant {
    /// On a grid like an activation: a constant that is read as data, or a table of embeddings.
    Data(AffineSettings),
    /// A weight.
    Weight {
        /// How it is stored.
        encoding: Choice<Encodings>,
        /// The axis of its output channels, if all its readers have the same and the encoding tells channels apart.
        axis: Option<usize>,
        /// The elements that all its readers sum up, along which groups with a scale each lie.
        along: Option<Along>,
    },
}

impl StoredConstant {
    /// The grid of its integers; `None` where it is decoded to float.
    pub fn grid(&self) -> Option<AffineSettings> {
        match self {
            StoredConstant::Data(settings) => Some(*settings),
            StoredConstant::Weight { encoding, axis, .. } => encoding.grid(*axis),
        }
    }

    /// The elements that are summed up.
    fn along(&self) -> Option<Along> {
        match self {
            StoredConstant::Data(_) => None,
            StoredConstant::Weight { along, .. } => *along,
        }
    }

    /// The axis of its channels.
    pub fn axis(&self) -> Option<usize> {
        match self {
            StoredConstant::Data(settings) => settings.axis,
            StoredConstant::Weight { axis, .. } => *axis,
        }
    }
}

/// The values to quantize.
///
/// - A constant that an integer operator reads as its weight, as its rule or the settings say; per output channel where it has one
///   axis for all its readers; a float constant that it reads as data: like an activation.
/// - What an integer operator reads as data, wherever it comes from, graph inputs included; and what it makes. Where only a
///   fused activation (Relu, Clip) reads the result, that activation's output is quantized instead.
/// - Operators that only move elements keep the grid of their input: their outputs need no entry of their own.
/// - A table of embeddings: one grid, on which what is looked up lies too.
/// - A bias: int32 on the grid of the accumulator, also where an Add behind a MatMul puts it there: then the product is not rounded.
///   On a finer grid where data and weight have so few bits that the accumulator's is coarse.
/// - What adds a mask to scores, and the Softmax behind it, stays float (`masks.rs`).
/// - What follows the last layer with weights (a final Softmax, the decoding of boxes) stays float.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantPlan {
    /// Weights and other constants with how they are stored.
    pub constants: BTreeMap<ValueId, StoredConstant>,
    /// Activations with the settings of their grids.
    pub activations: BTreeMap<ValueId, AffineSettings>,
    /// Those of the activations that are stored as two levels, not on their grid, with the estimator of their gradient.
    pub two_levels: BTreeMap<ValueId, ActivationEstimator>,
    /// Activations whose range the target's kernel fixes, whatever the data.
    pub fixed: BTreeMap<ValueId, (f32, f32)>,
    /// Biases with what their scales follow from.
    pub biases: BTreeMap<ValueId, BiasPart>,
    /// Sums of products of quantized numbers.
    pub sums: Vec<SumPart>,
    /// Layers with a weight that is stored, in the order of the graph.
    pub layers: Vec<LayerPart>,
    /// The node whose rules decide on an activation, by the activation.
    pub deciders: BTreeMap<ValueId, Decider>,
    /// Nodes that stay float. Nodes on integers (shape arithmetic) are only told apart by running them.
    pub float_parts: Vec<(FloatPart, Vec<ValueId>)>,
}

/// Plans the quantization of a model. [`crate::check_skip`] checks whether each `skip` pattern matches a node, on the graph as
/// the user knows it.
///
/// # Errors
/// [`crate::QuantizeError::Setting`] for a setting out of range.
pub fn plan(model: &Model, settings: &QuantizeSettings) -> Result<QuantPlan> {
    settings.check()?;
    let roles = Roles::of(model);
    let mut planner = Planner::new(model, &roles, settings);
    planner.added = planner.added_biases(&roles);
    planner.graph(&model.graph);
    planner.biases(&model.graph);
    planner.sums(&model.graph);
    planner.layers(&model.graph);
    Ok(planner.plan)
}

pub(crate) struct Planner<'a> {
    pub(crate) model: &'a Model,
    settings: &'a QuantizeSettings,
    pub(crate) rules: Rules<'a>,
    pub(crate) plan: QuantPlan,
    /// Weights whose readers disagree on the axis.
    shared: BTreeSet<ValueId>,
    /// First outputs of the nodes that scale the sums of integer operators.
    scales: BTreeSet<ValueId>,
    /// First outputs of the nodes behind the last layer.
    tail: BTreeSet<ValueId>,
    /// First outputs of the nodes that stay float because of a mask.
    masked: BTreeSet<ValueId>,
    /// How values are read that all their readers read in the same way, whatever makes them.
    reads: BTreeMap<ValueId, ActivationSettings>,
    /// Biases that an Add puts on the result of a layer, by that result.
    added: BTreeMap<ValueId, AddedBias>,
}

/// The bias of a layer that has no input for it (a MatMul on more than two axes), as an Add behind it.
struct AddedBias {
    /// The output of the Add.
    sum: ValueId,
    bias: ValueId,
    part: BiasPart,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(model: &'a Model, roles: &Roles, settings: &'a QuantizeSettings) -> Self {
        let float_tail = settings.target.float_tail();
        let tail = if float_tail { crate::tail::nodes_behind_the_last_layer(model, roles) } else { BTreeSet::new() };
        let masked = crate::masks::masked_nodes(model);
        let scales = crate::scales::of_integers(&model.graph);
        let rules = Rules::of(model, settings);
        let mut planner = Planner {
            model,
            settings,
            rules,
            plan: QuantPlan::default(),
            shared: BTreeSet::new(),
            scales,
            tail,
            masked,
            reads: BTreeMap::new(),
            added: BTreeMap::new(),
        };
        if crate::reads::asks(settings) {
            planner.reads = crate::reads::widths(&planner);
        }
        planner
    }

    fn graph(&mut self, graph: &Graph) {
        let (uses, here) = (graph.use_counts(), &graph.linked());
        for node in &graph.nodes {
            for sub in node.subgraphs() {
                self.graph(sub);
            }
            match self.rule(node) {
                QuantRule::Integer { data, weight } => {
                    // Behind a layer the sum is quantized, not the product or the bias separately.
                    let adds = node.output(0).is_some_and(|v| self.added.values().any(|a| a.sum == v));
                    for input in data.iter().filter_map(|i| node.input(*i)).filter(|_| !adds) {
                        self.data(here, input, node);
                    }
                    if let Some(rule) = weight {
                        self.weight(here, node, rule);
                    }
                    self.plan.fixed.extend(node.output(0).zip(self.settings.target.fixed_range(node)));
                    for output in node.outputs.iter().flatten() {
                        let fused = ops::activation_behind((self.model, here), &uses, *output)
                            .is_some_and(|n| self.rule(n) == QuantRule::FusedActivation);
                        if !fused && !self.added.contains_key(output) {
                            self.activation(*output, node);
                        }
                    }
                }
                QuantRule::FusedActivation => node.outputs.iter().flatten().for_each(|v| self.activation(*v, node)),
                QuantRule::SameGrid => {
                    self.table(node);
                    for output in node.outputs.iter().flatten().filter(|v| self.reads.contains_key(v)).copied().collect::<Vec<_>>() {
                        self.activation(output, node);
                    }
                }
                QuantRule::Float(reason) => {
                    for rule in self.weights_alone(node) {
                        self.weight(here, node, rule);
                    }
                    if let Some(reason) = ops::float_reason(self.model, graph, node, reason) {
                        self.float(node, reason);
                    }
                }
            }
        }
    }

    /// The operator's rule; float if the operator is unknown or the node is skipped.
    pub(crate) fn rule(&self, node: &Node) -> QuantRule {
        let scheme = self.scheme(node);
        if scheme.skip {
            return QuantRule::Float("the recipe leaves it out");
        }
        let known = ops::find(&node.domain, &node.op_type).is_some();
        match self.settings.target.rule(node, self.model) {
            QuantRule::Integer { .. } | QuantRule::FusedActivation if node.output(0).is_some_and(|v| self.tail.contains(&v)) => {
                QuantRule::Float("it lies behind the last layer with weights; quantizing it would save nothing and make the output coarser")
            }
            QuantRule::Integer { .. } if node.output(0).is_some_and(|v| self.scales.contains(&v)) => {
                QuantRule::Float("it scales what an integer operator has summed up")
            }
            QuantRule::Integer { .. } | QuantRule::FusedActivation if scheme.activations.is_none() => {
                QuantRule::Float("its activations stay float")
            }
            _ if known && node.output(0).is_some_and(|v| self.masked.contains(&v)) => {
                QuantRule::Float("an attention mask is added to it, and no grid covers both the mask and the scores")
            }
            rule => rule,
        }
    }

    /// The weights of a node that computes in float which are stored nevertheless: those of a layer whose activations stay float, and
    /// with `weight_only` those of every operator.
    fn weights_alone(&self, node: &Node) -> Vec<WeightRule> {
        let scheme = self.scheme(node);
        let constant = |w: &WeightRule| node.input(w.input).is_some_and(|v| self.is_constant(v));
        match self.settings.target.rule(node, self.model) {
            _ if scheme.skip => vec![],
            QuantRule::Integer { weight: Some(rule), .. } if scheme.activations.is_none() => [rule].into_iter().filter(constant).collect(),
            _ if scheme.weight_only => {
                let float = |w: &WeightRule| constant(w) && node.input(w.input).is_some_and(|v| self.is_f32(v));
                ops::weights(self.model, node).into_iter().filter(float).collect()
            }
            _ => vec![],
        }
    }

    fn is_constant(&self, value: ValueId) -> bool {
        self.model.values.tensor(value).is_some()
    }

    fn float(&mut self, node: &Node, reason: String) {
        let part = FloatPart { node: node.label(&self.model.values), op_type: node.op_type.clone(), reason };
        self.plan.float_parts.push((part, node.outputs.iter().flatten().copied().collect()));
    }

    fn scheme(&self, node: &Node) -> Scheme<'_> {
        self.rules.scheme(self.model, node)
    }

    /// Puts a value on the grid requested by the node that computes or reads it, unless another node has decided.
    fn activation(&mut self, value: ValueId, node: &Node) {
        if let Some(mut grid) = self.activation_grid(node).filter(|_| !self.plan.activations.contains_key(&value)) {
            let read = self.reads.get(&value);
            grid.bits = read.map_or(grid.bits, |read| read.bits);
            self.plan.two_levels.extend(read.and_then(|read| Some((value, read.two_levels()?))));
            self.plan.activations.insert(value, grid);
            let pinned = read.is_some() || self.rules.named(self.model, node).1;
            self.plan.deciders.insert(value, Decider { node: node.label(&self.model.values), pinned });
        }
    }

    /// The grid of a node's inputs and outputs; `None` if they stay float.
    fn activation_grid(&self, node: &Node) -> Option<AffineSettings> {
        let signed = self.settings.target.signed_activations();
        self.scheme(node).activations.map(|bits| AffineSettings { signed, ..AffineSettings::activation(bits) })
    }

    /// A value that an integer operator reads.
    fn data(&mut self, here: &Linked, value: ValueId, node: &Node) {
        if self.model.values.tensor(value).is_some() {
            if let Some(grid) = self.activation_grid(node).filter(|_| self.is_f32(value)) {
                self.plan.constants.entry(value).or_insert(StoredConstant::Data(grid));
            }
            return;
        }
        let root = self.root(here, value);
        if self.model.values.tensor(root).is_some() {
            return self.data(here, root, node);
        }
        let is_input = here.graph().inputs.contains(&root) || here.maker(root).is_none();
        if is_input || self.plan.activations.contains_key(&root) {
            self.activation(root, node);
        } else {
            // The value comes from a float operator: its other readers read it unquantized.
            self.activation(value, node);
        }
    }

    /// The origin of a value's grid: back through operators that only move elements.
    pub(crate) fn root(&self, here: &Linked, value: ValueId) -> ValueId {
        let mut value = value;
        while let Some(node) = here.maker(value) {
            match node.input(0) {
                Some(from) if self.keeps_grid(node, value) && !self.plan.activations.contains_key(&value) && !self.kept(value) => {
                    value = from
                }
                _ => break,
            }
        }
        value
    }

    /// True if the node passes its input's grid on to `output`.
    fn keeps_grid(&self, node: &Node, output: ValueId) -> bool {
        let on_grid = ops::find(&node.domain, &node.op_type).map_or(0, |op| op.outputs_on_grid(node));
        let requantized = self.reads.contains_key(&output);
        !requantized
            && self.rule(node) == QuantRule::SameGrid
            && node.outputs.iter().take(on_grid).any(|v| *v == Some(output))
            && !self.by_row(node)
    }

    /// True if the node looks up rows that have a scale each, so that its result lies on no one grid.
    fn by_row(&self, node: &Node) -> bool {
        let looks_up = ops::find(&node.domain, &node.op_type).is_some_and(|op| op.role(node, 0) == Role::Weight);
        looks_up
            && node
                .input(0)
                .and_then(|table| self.plan.constants.get(&table))
                .is_some_and(|stored| stored.axis().is_some() || stored.grid().is_none())
    }

    fn weight(&mut self, here: &Linked, node: &Node, rule: WeightRule) {
        let Some(id) = node.input(rule.input) else { return };
        // A weight that an embedding reads as it is and a layer reads transposed: one grid for the whole weight serves both.
        let root = self.root(here, id);
        let turned = root != id && self.is_f32(root) && self.model.values.tensor(root).is_some();
        let id = if turned { root } else { id };
        let Some(tensor) = self.model.values.tensor(id) else { return self.data(here, id, node) };
        if tensor.dtype() != DType::F32 {
            return self.float(node, format!("its weight '{}' is {}", self.model.values[id].name, tensor.dtype()));
        }
        let encoding = self.scheme(node).weights.clone();
        let bias = rule.bias.and_then(|i| node.input(i)).and_then(|b| self.model.values.tensor(b));
        // In a grouped transposed convolution one index of the axis is a channel of each group.
        let whole = |axis: &usize| tensor.shape().get(*axis).is_some_and(|n| bias.is_none_or(|b| b.len() == *n));
        let axis = self.settings.target.weight_axis(node, &rule).or_else(|| ops::depthwise_axis(node, tensor.shape()));
        let mut axis = axis.filter(|a| by_channel(&encoding) && whole(a) && !turned);
        let mut along = along(node, rule.input, tensor.shape());
        if turned {
            // A matrix that is read transposed: the other axis.
            let transposed =
                tensor.rank() == 2 && node.input(rule.input).and_then(|v| here.maker(v)).is_some_and(|n| n.op_type == "Transpose");
            along = along.filter(|_| transposed).map(|along| Along { axis: 1 - along.axis.min(1), flat: false });
        }
        if self.plan.constants.get(&id).is_some_and(|other| other.along() != along) {
            along = None;
        }
        if self.plan.constants.get(&id).is_some_and(|other| other.axis() != axis) || self.shared.contains(&id) {
            self.shared.insert(id);
            axis = None;
        }
        self.plan.constants.insert(id, StoredConstant::Weight { encoding, axis, along });
    }

    /// A table of embeddings has the grid of its looked-up rows, so that the runtime looks up integers; where weights alone are stored, each
    /// row has a scale of its own.
    fn table(&mut self, node: &Node) {
        let (Some(table), Some(index)) = (node.input(0), node.input(1)) else { return };
        let Some(op) = ops::find(&node.domain, &node.op_type).filter(|op| op.role(node, 0) == Role::Weight) else { return };
        if self.model.values.tensor(index).is_none() && self.model.values.tensor(table).is_some() && self.is_f32(table) {
            let scheme = self.scheme(node);
            let encoding = scheme.weights.clone();
            let along = self.model.values.tensor(table).and_then(|t| along(node, 0, t.shape()));
            let stored = match self.activation_grid(node) {
                _ if scheme.weight_only => {
                    let axis = op.weight_axis(node, 0).filter(|_| by_channel(&encoding));
                    StoredConstant::Weight { encoding, axis, along }
                }
                Some(grid) => StoredConstant::Data(grid),
                None => StoredConstant::Weight { encoding, axis: None, along },
            };
            self.plan.constants.entry(table).or_insert(stored);
        }
    }

    /// Finds biases that are added by an Add.
    fn added_biases(&self, roles: &Roles) -> BTreeMap<ValueId, AddedBias> {
        let uses = self.model.graph.use_counts();
        let mut found = BTreeMap::new();
        self.in_graphs(&self.model.graph, &mut |here, add| {
            let Some((layer, at)) = roles.bias_of(add).filter(|(layer, _)| layer.op_type == "MatMul") else { return };
            let integer = |n: &Node| matches!(self.rule(n), QuantRule::Integer { .. });
            let ends = layer.output(0).zip(add.output(0)).zip(add.input(at));
            let (Some(((product, sum), bias)), Some(x), Some(weight)) = (ends, layer.input(0), layer.input(1)) else { return };
            let direct = add.input(1 - at) == Some(product) && uses.get(&product) == Some(&1);
            let float = |v: ValueId| self.model.values.tensor(v).is_some() && self.is_f32(v);
            if direct && integer(layer) && integer(add) && float(bias) && float(weight) {
                found.insert(product, AddedBias { sum, bias, part: BiasPart { input: self.root(here, x), weight } });
            }
        });
        found
    }

    pub(crate) fn in_graphs<'g>(&self, graph: &'g Graph, f: &mut dyn FnMut(&Linked<'g>, &'g Node)) {
        let here = graph.linked();
        for node in &graph.nodes {
            f(&here, node);
            node.subgraphs().for_each(|g| self.in_graphs(g, f));
        }
    }

    fn biases(&mut self, graph: &Graph) {
        let (uses, here) = (self.model.graph.use_counts(), &graph.linked());
        for AddedBias { bias, part, .. } in self.added.values() {
            let vector = self.model.values.tensor(*bias).is_some_and(|t| t.rank() == 1);
            if vector && uses.get(bias) == Some(&1) && self.plan.constants.contains_key(&part.weight) {
                self.plan.biases.insert(*bias, *part);
            }
        }
        for node in &graph.nodes {
            for sub in node.subgraphs() {
                self.biases(sub);
            }
            let QuantRule::Integer { data, weight: Some(WeightRule { input, bias: Some(bias), .. }) } = self.bias_rule(node) else {
                continue;
            };
            let Some((bias, weight)) = node.input(bias).zip(node.input(input)) else { continue };
            let Some(source) = data.iter().find(|i| **i != input).and_then(|i| node.input(*i)) else { continue };
            let plain_gemm = ["alpha", "beta"].iter().all(|a| node.float_or(a, 1.0).is_ok_and(|v| v == 1.0));
            let vector = self.model.values.tensor(bias).is_some_and(|t| t.dtype() == DType::F32 && t.rank() == 1);
            if plain_gemm && vector && uses.get(&bias) == Some(&1) && self.stored(weight) {
                let input = self.root(here, source);
                self.plan.biases.insert(bias, BiasPart { input, weight });
            }
        }
    }

    /// The rule of a layer whose weight is on a grid, also on an earlier one that `skip` kept.
    fn bias_rule(&self, node: &Node) -> QuantRule {
        match self.settings.target.rule(node, self.model) {
            QuantRule::Integer { data, weight: Some(rule) } if node.input(rule.input).is_some_and(|w| self.kept(w)) => {
                QuantRule::Integer { data, weight: Some(rule) }
            }
            _ => self.rule(node),
        }
    }

    /// True for a constant that the plan stores on a grid or that has one already.
    fn stored(&self, constant: ValueId) -> bool {
        self.plan.constants.contains_key(&constant) || self.kept(constant)
    }

    fn kept(&self, value: ValueId) -> bool {
        self.model.annotations.encoding(value).is_some()
    }

    fn sums(&mut self, graph: &Graph) {
        let here = &graph.linked();
        for node in &graph.nodes {
            for sub in node.subgraphs() {
                self.sums(sub);
            }
            let QuantRule::Integer { data, weight } = self.rule(node) else { continue };
            let Some(output) = node.output(0) else { continue };
            let mean_of = ops::mean_of(node);
            if weight.is_none() && mean_of.is_none() {
                continue;
            }
            let mut data: Vec<ValueId> = data.iter().filter_map(|i| node.input(*i)).map(|v| self.root(here, v)).collect();
            let (mut constant, mut bias, mut behind) = (None, None, 0);
            if let Some((rule, id)) = weight.and_then(|rule| Some((rule, node.input(rule.input)?))) {
                bias = rule.bias.and_then(|i| node.input(i));
                match self.plan.constants.get(&id) {
                    Some(stored) if stored.grid().is_none() => continue,
                    Some(stored) => constant = Some((id, stored.axis())),
                    None => data.push(self.root(here, id)),
                }
                // Channels of a convolution's result come before its spatial axes, those of a product last.
                let spatial = self.model.values.tensor(id).map_or(0, |t| t.rank().saturating_sub(2));
                behind = if node.op_type.starts_with("Conv") { spatial } else { 0 };
            }
            let node = node.label(&self.model.values);
            self.plan.sums.push(SumPart { node, output, data, weight: constant, behind, bias, mean_of });
        }
    }

    fn is_f32(&self, value: ValueId) -> bool {
        self.model.values[value].dtype() == Some(DType::F32)
    }
}

/// The elements of the weight that a node reads as input `input` which it sums up; of a table of embeddings those that it looks up
/// together.
fn along(node: &Node, input: usize, shape: &[usize]) -> Option<Along> {
    if let Some(axes) = ops::weight_axes(node, input, shape) {
        return Some(Along { axis: axes.input, flat: !axes.kernel.is_empty() && !axes.grouped_by_input });
    }
    let op = ops::find(&node.domain, &node.op_type).filter(|op| op.role(node, input) == Role::Weight)?;
    let (row, rank) = (op.weight_axis(node, input)?, shape.len());
    match row {
        0 if rank > 1 => Some(Along { axis: 1, flat: rank > 2 }),
        row if row + 1 < rank => Some(Along { axis: row + 1, flat: false }),
        row => Some(Along { axis: row.checked_sub(1)?, flat: false }),
    }
}

/// True if the encoding tells the channels of a weight apart.
fn by_channel(encoding: &Choice<Encodings>) -> bool {
    encoding.grid(None).is_none() || encoding.granularity() != Granularity::Tensor
}

/// True for an input that a node of this rule reads as quantized data, not as its weight.
pub(crate) fn is_data(rule: &QuantRule, input: usize) -> bool {
    matches!(rule, QuantRule::Integer { data, weight } if data.contains(&input) && weight.as_ref().is_none_or(|w| w.input != input))
}
