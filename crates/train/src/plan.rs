//! A graph prepared for running: nodes bound to their operators, units fused, and the last reader of each value known.
use crate::TrainError;
use crate::units::{Unit, plain_activation, unit_at};
use graph::{Graph, Model, Node, ValueId};
use ops::Operator;
use std::collections::{BTreeSet, HashMap, HashSet};
use tensor::Activation;

/// One step of the plan.
pub(crate) struct Step {
    /// Index in the graph's nodes: the last node of a fused unit.
    pub(crate) node: usize,
    /// The work of the step.
    pub(crate) work: Work,
    /// Its inputs in order; the flag says that no later step reads the value, so that it may be overwritten.
    pub(crate) reads: Vec<Option<(ValueId, bool)>>,
    /// Values that only subgraphs of this node read, to be dropped after it has run.
    pub(crate) drops: Vec<ValueId>,
}

impl Step {
    /// The operator whose kernel it runs.
    pub(crate) fn label<'g>(&self, graph: &'g Graph) -> &'g str {
        match self.work {
            Work::Node(_) | Work::Activation(..) => &graph.nodes[self.node].op_type,
            Work::BatchNorm { norm, .. } => &graph.nodes[norm].op_type,
            Work::Attention { .. } => "attention",
        }
    }

    /// Values that its subgraphs read or return, including their own.
    fn captured(&self, graph: &Graph) -> BTreeSet<ValueId> {
        graph.nodes[self.node].subgraphs().flat_map(|g| g.use_counts().into_keys()).collect()
    }

    /// All values that it reads, itself or in its subgraphs.
    pub(crate) fn uses(&self, graph: &Graph) -> BTreeSet<ValueId> {
        let mut uses = self.captured(graph);
        uses.extend(self.reads.iter().flatten().map(|(v, _)| *v));
        uses
    }
}

/// Kinds of steps.
pub(crate) enum Work {
    /// Evaluate one node.
    Node(&'static dyn Operator),
    /// Evaluate an activation with constant bounds, together with its result's encoding if there is one.
    Activation(&'static dyn Operator, Activation),
    /// BatchNormalization, then an optional residual Add, then an optional activation: one kernel. Reads x, scale, bias,
    /// mean, var and the residual.
    BatchNorm {
        /// Index of the BatchNormalization node.
        norm: usize,
        /// The activation behind it.
        activation: Activation,
    },
    /// A MatMul of queries and keys, an optional factor, an optional Add, Softmax and the MatMul with the values: one kernel.
    /// Reads queries, keys as `[.., d, n]`, values, and the bias of the scores.
    Attention {
        /// The factor of the scores.
        scale: f64,
    },
}

/// A planned graph.
pub(crate) struct Plan {
    /// In order of execution.
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    /// Plans the main graph. `kept` are values that are observed, so no unit may hide them.
    pub(crate) fn new(model: &Model, kept: &HashSet<ValueId>, fuse: bool) -> Result<Plan, TrainError> {
        let graph = &model.graph;
        check_operators(model, graph)?;
        let (uses, links) = (graph.use_counts(), graph.links());
        let shown: HashSet<ValueId> = graph.outputs.iter().chain(kept).copied().collect();
        let hidden = |v: ValueId| uses.get(&v) == Some(&1) && !shown.contains(&v) && model.annotations.get(v).is_none();
        let (mut swallowed, mut claimed) = (HashSet::new(), HashSet::new());
        let mut units: HashMap<usize, Unit> = HashMap::new();
        if fuse {
            for (i, node) in graph.nodes.iter().enumerate() {
                if let Some(unit) = unit_at((model, &links), i, node, &hidden, &claimed) {
                    claimed.extend(unit.members.iter().copied());
                    swallowed.extend(unit.members.iter().copied().filter(|m| *m != unit.last));
                    units.insert(unit.last, unit);
                }
            }
        }
        let mut steps = Vec::with_capacity(graph.nodes.len());
        for (i, node) in graph.nodes.iter().enumerate() {
            if swallowed.contains(&i) {
                continue;
            }
            let (work, reads) = match units.remove(&i) {
                Some(unit) => (unit.work, unit.reads),
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
        let own: HashSet<ValueId> = step.reads.iter().flatten().map(|(v, _)| *v).collect();
        step.drops.retain(|v| !own.contains(v));
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

/// Checks before anything runs that every node, subgraphs included, has a known operator.
fn check_operators(model: &Model, graph: &Graph) -> Result<(), TrainError> {
    let mut first = Ok(());
    graph.visit(&mut |node| {
        if first.is_ok() {
            first = operator(model, node).map(|_| ());
        }
    });
    first
}
