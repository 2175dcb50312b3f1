//! Runs the simulation up to one layer after another, on the same samples.
use crate::{Executor, Mode, Named, Overrides, TrainError};
use graph::{Model, Node, ValueId, ValueType};
use std::collections::{BTreeSet, HashMap};
use tensor::Tensor;

/// Most bytes of values kept between two layers. If they need more, the run to the next layer starts further back.
const KEPT: usize = 512 << 20;

/// A simulation stopped before some node, with all values that later nodes read. What visits the layers in order and changes
/// them sees each with all earlier layers as changed, and each node runs about twice.
pub struct Layerwise {
    /// The next node to run.
    at: usize,
    /// Whether the states hold the data as fed, before the grids of the graph's inputs.
    raw: bool,
    /// For each batch the known values at this place.
    states: Vec<HashMap<ValueId, Tensor>>,
}

impl Layerwise {
    /// Stopped before the first node, with the inputs of each batch.
    pub fn new(model: &Model, batches: impl IntoIterator<Item = Named>) -> Self {
        let by_name: HashMap<&str, ValueId> = model.graph.inputs.iter().map(|v| (model.values[*v].name.as_str(), *v)).collect();
        let known = |batch: Named| batch.into_iter().filter_map(|(name, t)| Some((*by_name.get(name.as_str())?, t))).collect();
        Layerwise { at: 0, raw: true, states: batches.into_iter().map(known).collect() }
    }

    /// Calls `see` with the result of node `node`, before it is quantized, for each batch. Nodes must be requested in their
    /// order; changes to nodes from the last one on take effect.
    ///
    /// # Errors
    /// Errors of running the graph.
    pub fn run(&mut self, model: &Model, node: usize, see: &mut dyn FnMut(&Tensor)) -> Result<(), TrainError> {
        let Some(target) = model.graph.nodes.get(node).and_then(|n| n.output(0)) else { return Ok(()) };
        let (piece, after) = self.piece(model, node + 1, node, Some(target));
        let executor = Executor::unfused(&piece)?;
        let next = self.pass(&executor, &after, &mut |id, tensor| {
            if id == target {
                see(tensor);
            }
        })?;
        self.keep(node, next);
        Ok(())
    }

    /// The values that nodes from `node` on read from earlier ones, as their annotations store them, for each batch. Nodes must
    /// be requested in their order, as in [`Layerwise::run`].
    ///
    /// # Errors
    /// Errors of running the graph.
    pub fn before(&mut self, model: &Model, node: usize) -> Result<Vec<HashMap<ValueId, Tensor>>, TrainError> {
        if self.at == node && !self.raw {
            return Ok(self.states.clone());
        }
        let (piece, after) = self.piece(model, node, node, None);
        let executor = Executor::new(&piece)?;
        let next =
            self.states.iter().map(|state| kept(&executor, &feed(&piece, state), &after, None)).collect::<Result<Vec<_>, TrainError>>()?;
        self.keep(node, next.clone());
        Ok(next)
    }

    /// The nodes up to `end` as a graph, whose outputs are the values that nodes from `from` on read.
    fn piece(&self, model: &Model, end: usize, from: usize, target: Option<ValueId>) -> (Model, BTreeSet<ValueId>) {
        let (before, after) = (needed(model, self.at), needed(model, from));
        let mut piece = model.clone();
        piece.source = None;
        piece.graph.nodes = model.graph.nodes[self.at..end].to_vec();
        piece.graph.value_info.clear();
        let known: BTreeSet<ValueId> = self.states.first().map(|s| s.keys().copied().collect()).unwrap_or_default();
        piece.graph.inputs = before.intersection(&known).copied().collect();
        let made: BTreeSet<ValueId> = piece.graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
        piece.graph.outputs = after.iter().copied().filter(|v| known.contains(v) || made.contains(v)).chain(target).collect();
        for id in &piece.graph.inputs {
            // Fed values have passed through their annotations, and need no declared shape.
            if !self.raw {
                piece.annotations.remove(*id);
            }
            piece.values[*id].ty = ValueType::Unknown;
        }
        (piece, after)
    }

    fn pass(
        &self,
        executor: &Executor,
        after: &BTreeSet<ValueId>,
        see: &mut dyn FnMut(ValueId, &Tensor),
    ) -> Result<Vec<HashMap<ValueId, Tensor>>, TrainError> {
        self.states.iter().map(|state| kept(executor, &feed(executor.model(), state), after, Some(see))).collect()
    }

    /// Stops before `node` from now on, unless that needs too much memory.
    fn keep(&mut self, node: usize, states: Vec<HashMap<ValueId, Tensor>>) {
        let bytes: usize = states.iter().flat_map(HashMap::values).map(|t| t.len() * t.dtype().bits().div_ceil(8)).sum();
        if bytes <= KEPT {
            (self.at, self.raw, self.states) = (node, false, states);
        }
    }
}

/// A state by the names of a piece's inputs.
fn feed(piece: &Model, state: &HashMap<ValueId, Tensor>) -> Named {
    piece.graph.inputs.iter().filter_map(|v| Some((piece.values[*v].name.clone(), state.get(v)?.clone()))).collect()
}

/// Runs a piece and keeps the values that are needed later.
fn kept(
    executor: &Executor,
    inputs: &Named,
    after: &BTreeSet<ValueId>,
    see: Option<&mut dyn FnMut(ValueId, &Tensor)>,
) -> Result<HashMap<ValueId, Tensor>, TrainError> {
    let ran = executor.run_with(inputs, &Overrides::default(), Mode::SIMULATED, see)?;
    Ok(ran.values.into_iter().filter(|(v, _)| after.contains(v)).collect())
}

/// The values that nodes from `from` on, and the graph's outputs, read from earlier nodes.
fn needed(model: &Model, from: usize) -> BTreeSet<ValueId> {
    let nodes = &model.graph.nodes[from..];
    let reads =
        |n: &Node| n.inputs.iter().flatten().copied().chain(n.subgraphs().flat_map(|g| g.use_counts().into_keys())).collect::<Vec<_>>();
    let made: BTreeSet<ValueId> = nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
    let read = nodes.iter().flat_map(reads).chain(model.graph.outputs.iter().copied());
    let fed = |v: &ValueId| model.values.tensor(*v).is_none() || model.graph.inputs.contains(v);
    read.filter(|v| !made.contains(v) && fed(v)).collect()
}
