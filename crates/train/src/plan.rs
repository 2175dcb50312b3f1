//! A graph made ready to run: nodes bound to their operators, units fused, and the last reader of each value known.
use crate::TrainError;
use graph::{AttributeValue, Graph, Model, Node, ValueId};
use ops::Operator;
use std::collections::{BTreeSet, HashMap, HashSet};
use tensor::{Activation, DType};

/// One thing to do.
pub(crate) struct Step {
    /// Index in the graph's nodes: the last node of a fused unit.
    pub(crate) node: usize,
    /// What to do.
    pub(crate) work: Work,
    /// What it reads, in order; the flag says that nothing later reads the value, so it may be consumed.
    pub(crate) reads: Vec<Option<(ValueId, bool)>>,
    /// Values read by subgraphs of this node alone, free to drop once it has run.
    pub(crate) drops: Vec<ValueId>,
}

impl Step {
    /// The operator whose kernel it runs.
    pub(crate) fn label<'g>(&self, graph: &'g Graph) -> &'g str {
        match self.work {
            Work::Node(_) | Work::Activation(..) => &graph.nodes[self.node].op_type,
            Work::BatchNorm { norm, .. } => &graph.nodes[norm].op_type,
        }
    }

    /// Values that its subgraphs read or return, their own among them.
    fn captured(&self, graph: &Graph) -> BTreeSet<ValueId> {
        graph.nodes[self.node].subgraphs().flat_map(|g| g.use_counts().into_keys()).collect()
    }

    /// All that it reads, itself or in its subgraphs.
    pub(crate) fn uses(&self, graph: &Graph) -> BTreeSet<ValueId> {
        let mut uses = self.captured(graph);
        uses.extend(self.reads.iter().flatten().map(|(v, _)| *v));
        uses
    }
}

/// The kinds of steps.
pub(crate) enum Work {
    /// Evaluate one node.
    Node(&'static dyn Operator),
    /// Evaluate an activation with constant bounds, which passes into its result's encoding where there is one.
    Activation(&'static dyn Operator, Activation),
    /// BatchNormalization, then an optional residual Add, then an optional activation: one kernel. Reads x, scale, bias,
    /// mean, var and the residual.
    BatchNorm {
        /// Index of the BatchNormalization node.
        norm: usize,
        /// The activation behind it.
        activation: Activation,
    },
}

/// A planned graph.
pub(crate) struct Plan {
    /// In order of execution.
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    /// Plans the main graph. `kept` are values somebody wants to see, so no unit may swallow them.
    pub(crate) fn new(model: &Model, kept: &HashSet<ValueId>, fuse: bool) -> Result<Plan, TrainError> {
        let graph = &model.graph;
        check_operators(model, graph)?;
        let uses = graph.use_counts();
        let hidden = |v: ValueId| {
            uses.get(&v) == Some(&1) && !kept.contains(&v) && model.annotations.get(v).is_none() && !graph.outputs.contains(&v)
        };
        let (mut swallowed, mut claimed) = (HashSet::new(), HashSet::new());
        let mut units: HashMap<usize, (usize, Option<ValueId>, Activation)> = HashMap::new();
        if fuse {
            for (i, node) in graph.nodes.iter().enumerate() {
                if let Some(unit) = norm_unit(model, i, node, &hidden, &claimed) {
                    claimed.extend(unit.members.iter().copied());
                    swallowed.extend(unit.members.iter().copied().filter(|m| *m != unit.last));
                    units.insert(unit.last, (i, unit.residual, unit.activation));
                }
            }
        }
        let mut steps = Vec::with_capacity(graph.nodes.len());
        for (i, node) in graph.nodes.iter().enumerate() {
            if swallowed.contains(&i) {
                continue;
            }
            let (work, reads) = match units.remove(&i) {
                Some((norm, residual, activation)) => {
                    let mut reads = graph.nodes[norm].inputs.clone();
                    reads.truncate(5);
                    reads.push(residual);
                    (Work::BatchNorm { norm, activation }, reads)
                }
                None => {
                    let op = operator(model, node)?;
                    let work = match plain_activation(model, node) {
                        Some(activation) => Work::Activation(op, activation),
                        None => Work::Node(op),
                    };
                    (work, node.inputs.clone())
                }
            };
            let reads = reads.into_iter().map(|v| v.map(|v| (v, false))).collect();
            steps.push(Step { node: i, work, reads, drops: vec![] });
        }
        mark_last_reads(graph, kept, &mut steps);
        Ok(Plan { steps })
    }
}

/// Finds the last reader of each value, from the back.
fn mark_last_reads(graph: &Graph, kept: &HashSet<ValueId>, steps: &mut [Step]) {
    let mut later: HashSet<ValueId> = graph.outputs.iter().copied().chain(kept.iter().copied()).collect();
    for step in steps.iter_mut().rev() {
        let captured = step.captured(graph);
        step.drops = captured.iter().copied().filter(|v| !later.contains(v)).collect();
        let mut seen: HashSet<ValueId> = captured.into_iter().collect();
        for (v, last) in step.reads.iter_mut().rev().flatten() {
            *last = !later.contains(v) && seen.insert(*v);
        }
        step.drops.retain(|v| !step.reads.iter().flatten().any(|(r, _)| r == v));
        later.extend(seen);
        later.extend(step.reads.iter().flatten().map(|(v, _)| *v));
    }
}

/// The operator of a node.
pub(crate) fn operator(model: &Model, node: &Node) -> Result<&'static dyn Operator, TrainError> {
    ops::find(&node.domain, &node.op_type).ok_or_else(|| TrainError::UnknownOperator {
        node: node.label(&model.values),
        op_type: node.op_type.clone(),
        domain: node.domain.clone(),
    })
}

/// Every node, subgraphs included, has an operator: found out before anything runs.
fn check_operators(model: &Model, graph: &Graph) -> Result<(), TrainError> {
    let mut first = Ok(());
    graph.visit(&mut |node| {
        if first.is_ok() {
            first = operator(model, node).map(|_| ());
        }
    });
    first
}

struct Unit {
    members: Vec<usize>,
    last: usize,
    residual: Option<ValueId>,
    activation: Activation,
}

/// The unit that starts at a BatchNormalization, if it is one that the fused kernel serves.
/// A node that another unit has `claimed` ends it: two branches may meet in one Add.
fn norm_unit(model: &Model, at: usize, node: &Node, hidden: &dyn Fn(ValueId) -> bool, claimed: &HashSet<usize>) -> Option<Unit> {
    let graph = &model.graph;
    let several_outputs = node.outputs.iter().flatten().count() > 1;
    let own_mode = node.attributes.get("training_mode").is_some_and(|v| *v != AttributeValue::Int(0));
    let per_activation = node.attributes.get("spatial").is_some_and(|v| *v == AttributeValue::Int(0));
    if node.op_type != "BatchNormalization" || !node.is_onnx() || several_outputs || own_mode || per_activation {
        return None;
    }
    let statistics_are_constant =
        (1..5).all(|i| node.input(i).is_some_and(|v| model.values[v].constant.as_ref().is_some_and(|c| c.tensor.dtype() == DType::F32)));
    if !statistics_are_constant {
        return None;
    }
    let mut unit = Unit { members: vec![at], last: at, residual: None, activation: Activation::None };
    let mut value = node.output(0)?;
    loop {
        if !hidden(value) {
            return Some(unit);
        }
        let Some(next) = graph.consumers(value).first().copied().filter(|n| !claimed.contains(n)) else { return Some(unit) };
        let reader = &graph.nodes[next];
        match reader.op_type.as_str() {
            "Add" if reader.is_onnx() && unit.residual.is_none() => {
                let Some(other) = reader.inputs.iter().flatten().copied().find(|v| *v != value) else { return Some(unit) };
                // The kernel adds equal shapes only; a constant or a value from inside this unit is not a residual.
                if model.values[other].constant.is_some() || !same_shape_residual(graph, other) {
                    return Some(unit);
                }
                unit.residual = Some(other);
            }
            _ => match plain_activation(model, reader) {
                Some(activation) => unit.activation = activation,
                None => return Some(unit),
            },
        }
        unit.members.push(next);
        unit.last = next;
        if unit.activation != Activation::None {
            return Some(unit);
        }
        match reader.output(0) {
            Some(v) => value = v,
            None => return Some(unit),
        }
    }
}

/// Residual branches come from convolution units or padding of them, never from broadcasting ones such as a pooled gate.
fn same_shape_residual(graph: &Graph, value: ValueId) -> bool {
    match graph.producer(value) {
        None => graph.inputs.contains(&value),
        Some(i) => matches!(
            graph.nodes[i].op_type.as_str(),
            "Conv" | "BatchNormalization" | "Relu" | "Clip" | "Add" | "Pad" | "MaxPool" | "Concat"
        ),
    }
}

/// A Relu, or a Clip with constant bounds.
fn plain_activation(model: &Model, node: &Node) -> Option<Activation> {
    match node.op_type.as_str() {
        "Relu" if node.is_onnx() => Some(Activation::Relu),
        "Clip" if node.is_onnx() => clip_bounds(model, node).map(|(min, max)| Activation::Clip { min, max }),
        _ => None,
    }
}

/// Constant bounds of a Clip, given as attributes (opset 6) or inputs.
fn clip_bounds(model: &Model, node: &Node) -> Option<(f32, f32)> {
    let bound = |name: &str, i: usize, default: f32| match node.attributes.get(name) {
        Some(AttributeValue::Float(v)) => Some(*v),
        Some(_) => None,
        None => match node.input(i) {
            None => Some(default),
            Some(v) => model.values.tensor(v).and_then(|t| t.item::<f32>().ok()),
        },
    };
    Some((bound("min", 1, f32::MIN)?, bound("max", 2, f32::MAX)?))
}
