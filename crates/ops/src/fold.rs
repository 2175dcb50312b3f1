//! Folding of BatchNormalization into the layer before it.
use crate::OpError;
use crate::channels::{Affine, Step};
use graph::{Annotations, AttributeValue, Dim, Graph, GraphError, Links, Model, Names, Node, ValueId, Values};
use std::collections::{HashMap, HashSet};
use tensor::{DType, Tensor};

/// Folds each BatchNormalization in inference form into the Conv, ConvTranspose, Gemm or MatMul before it, if it is the only
/// reader of that output, together with constants that are added to or multiplied with each channel between the two. A MatMul
/// becomes a Gemm, which has a bias. Computed in f64 and rounded once. Masks stay as they are: zero times a factor is zero.
/// Returns how many were folded.
///
/// An initializer that is also a graph input (a default that may be replaced) loses that input when it is folded: feeding it
/// afterwards is an error.
///
/// An encoding made for the folded weight ([`crate::KeptNorm`]) takes its place.
///
/// # Errors
/// [`OpError::Graph`] for a weight that has another encoding already (its grid would no longer fit), and for malformed
/// attributes or parameters.
pub fn fold_batch_norm(model: &mut Model) -> Result<usize, OpError> {
    let (ranks, opset) = (ranks(model), model.onnx_opset());
    let mut graph = std::mem::take(&mut model.graph);
    let names = model.names();
    let mut folding =
        Folding { values: &mut model.values, annotations: &mut model.annotations, ranks, opset, names, folded_in: HashSet::new() };
    let result = folding.graph(&mut graph);
    let folded_in = folding.folded_in;
    model.graph = graph;
    model.graph.inputs.retain(|v| !folded_in.contains(v));
    let folded = result?;
    if folded > 0 {
        model.remove_dead();
    }
    Ok(folded)
}

/// Why the BatchNormalization that computes `output` in `graph`, a graph of `model`, was not folded into a layer.
pub(crate) fn why_not_folded(model: &Model, graph: &Graph, output: ValueId) -> String {
    let (ranks, opset) = (ranks(model), model.onnx_opset());
    let scope = Scope { values: &model.values, annotations: &model.annotations, ranks: &ranks, opset };
    let known = Known::of(graph);
    match known.links.producer(output).and_then(|at| Unit::of(graph, at, &scope, &known).ok().flatten()) {
        Some(Err(reason)) => reason,
        Some(Ok(unit)) => format!("it was not folded into '{}' before it", graph.nodes[unit.producer].label(&model.values)),
        None => "its parameters cannot be read".into(),
    }
}

/// Ranks of MatMul outputs that are normalized: only a matrix has its channels on the second axis.
pub(crate) fn ranks(model: &Model) -> HashMap<ValueId, usize> {
    let (mut products, mut norms) = (vec![], false);
    model.graph.visit(&mut |node| {
        norms |= node.op_type == "BatchNormalization";
        products.extend(node.output(0).filter(|_| node.op_type == "MatMul"));
    });
    if !norms || products.is_empty() {
        return HashMap::new();
    }
    // A contradictory graph is refused when it runs.
    let types = crate::infer_types(model).unwrap_or_default();
    let rank = |v: &ValueId| match types.get(v) {
        Some(graph::ValueType::Tensor { shape: Some(shape), .. }) => Some(shape.len()),
        _ => None,
    };
    products.into_iter().filter_map(|v| Some((v, rank(&v)?))).collect()
}

/// Data about the model outside the graph.
pub(crate) struct Scope<'a> {
    pub(crate) values: &'a Values,
    pub(crate) annotations: &'a Annotations,
    pub(crate) ranks: &'a HashMap<ValueId, usize>,
    pub(crate) opset: i64,
}

impl Scope<'_> {
    fn plain(&self, v: ValueId) -> bool {
        self.annotations.get(v).is_none_or(|a| a.is_empty())
    }
}

/// Data about a graph, computed once and updated while its normalizations are folded.
pub(crate) struct Known {
    uses: HashMap<ValueId, usize>,
    links: Links,
}

impl Known {
    pub(crate) fn of(graph: &Graph) -> Known {
        Known { uses: graph.use_counts(), links: graph.links() }
    }

    fn unread(&mut self, v: ValueId) {
        if let Some(n) = self.uses.get_mut(&v) {
            *n = n.saturating_sub(1);
        }
    }
}

/// A layer and the normalization that can be folded into it.
pub(crate) struct Unit {
    pub(crate) producer: usize,
    /// The nodes between the two, from the normalization backwards.
    between: Vec<usize>,
    output: ValueId,
    pub(crate) affine: Affine,
    pub(crate) layer: Layer,
}

/// A layer and its normalization, or why the normalization cannot be folded.
type Found = Result<Unit, String>;

impl Unit {
    /// For the node at `at`; `None` if it is no BatchNormalization.
    pub(crate) fn of(graph: &Graph, at: usize, scope: &Scope, known: &Known) -> Result<Option<Found>, OpError> {
        let norm = &graph.nodes[at];
        if norm.op_type != "BatchNormalization" || !norm.is_onnx() {
            return Ok(None);
        }
        Unit::behind(graph, norm, scope, known).map(Some)
    }

    fn behind(graph: &Graph, norm: &Node, scope: &Scope, known: &Known) -> Result<Found, OpError> {
        let inference = norm.outputs.iter().skip(1).all(Option::is_none) && norm.int_or("training_mode", 0)? == 0;
        let (Some(mut value), Some(output), true) = (norm.input(0), norm.output(0), inference) else {
            return Ok(Err("it normalizes by the batch's own statistics".into()));
        };
        let Some(affine) = Affine::of_norm(norm, scope.values)? else {
            return Ok(Err("its parameters are not constants of type float32".into()));
        };
        let (mut between, mut steps) = (vec![], vec![]);
        loop {
            let Some(producer) = known.links.producer(value) else {
                return Ok(Err(format!("it normalizes '{}', which is not the output of a layer", scope.values[value].name)));
            };
            let node = &graph.nodes[producer];
            let label = node.label(scope.values);
            if known.uses.get(&value) != Some(&1) {
                return Ok(Err(format!("the output of '{label}' before it has another reader, or is an output of the network")));
            }
            if !scope.plain(value) {
                return Ok(Err(format!("the output of '{label}' before it is stored on a grid of its own")));
            }
            if let Some(layer) = Layer::of(node, scope, affine.channels())? {
                return Ok(match affine.behind(&steps, layer.rank) {
                    Some(affine) => Ok(Unit { producer, between, output, affine, layer }),
                    None => Err(format!("an operation between it and '{label}' is not the same for all elements of a channel")),
                });
            }
            let Some((step, from)) = Step::of(node, scope.values).filter(|(s, _)| scope.plain(s.constant)) else {
                return Ok(Err(format!("{} '{label}' before it is no layer that it could be folded into", node.op_type)));
            };
            steps.push(step);
            between.push(producer);
            value = from;
        }
    }
}

/// The state of one folding.
struct Folding<'a> {
    values: &'a mut Values,
    annotations: &'a mut Annotations,
    ranks: HashMap<ValueId, usize>,
    opset: i64,
    names: Names,
    /// Folded values: no other value is the parameter of that name any more.
    folded_in: HashSet<ValueId>,
}

/// A graph in which normalizations are folded.
struct Place<'g> {
    graph: &'g mut Graph,
    known: Known,
    /// The graph's own constants.
    own: HashSet<ValueId>,
    /// Nodes that became part of a layer, to be removed at the end.
    gone: HashSet<usize>,
    folded: usize,
}

impl Place<'_> {
    /// Constants of this graph without other readers. A constant of an outer graph may also be read by another branch.
    fn alone(&self, v: ValueId) -> bool {
        self.known.uses.get(&v) == Some(&1) && self.own.contains(&v)
    }
}

impl Folding<'_> {
    /// Folds in a graph and its subgraphs.
    fn graph(&mut self, graph: &mut Graph) -> Result<usize, OpError> {
        let mut folded = 0;
        for node in &mut graph.nodes {
            for sub in node.subgraphs_mut() {
                folded += self.graph(sub)?;
            }
        }
        if !graph.nodes.iter().any(|n| n.op_type == "BatchNormalization") {
            return Ok(folded);
        }
        let (known, own) = (Known::of(graph), graph.constants.iter().copied().collect());
        let mut place = Place { graph, known, own, gone: HashSet::new(), folded: 0 };
        let ended = (0..place.graph.nodes.len()).try_for_each(|at| self.node(&mut place, at));
        // After a refusal, earlier normalizations have still been folded.
        let Place { graph, gone, .. } = place;
        let hidden: HashSet<ValueId> = gone.iter().flat_map(|i| graph.nodes[*i].inputs.iter().flatten().copied()).collect();
        let mut at = 0..;
        graph.nodes.retain(|_| at.next().is_none_or(|i| !gone.contains(&i)));
        let still: HashSet<ValueId> = graph.nodes.iter().flat_map(reads).chain(graph.outputs.iter().copied()).collect();
        graph.value_info.retain(|v| !hidden.contains(v));
        graph.constants.retain(|v| still.contains(v) || !self.folded_in.contains(v));
        ended?;
        Ok(folded + place.folded)
    }

    fn constant(&mut self, place: &mut Place, base: &str, tensor: Tensor) -> ValueId {
        let id = self.values.add_constant(self.names.fresh(base), tensor);
        place.graph.constants.push(id);
        place.own.insert(id);
        place.known.uses.insert(id, 1);
        id
    }

    /// Folds the node at `at`, if it is a normalization that can be folded. It and the nodes in between are marked for removal.
    fn node(&mut self, place: &mut Place, at: usize) -> Result<(), OpError> {
        let scope = Scope { values: self.values, annotations: self.annotations, ranks: &self.ranks, opset: self.opset };
        let Some(Ok(unit)) = Unit::of(place.graph, at, &scope, &place.known)? else { return Ok(()) };
        let Unit { producer, between, output, affine, layer } = unit;
        let unit = place.graph.nodes[producer].clone();
        let encoding = self.annotations.encoding(layer.weight_id).map(|encoding| {
            let what = "has an encoding; fold BatchNormalization before weights are quantized".to_string();
            let value = self.values[layer.weight_id].name.clone();
            crate::kept_norm::folded(encoding).ok_or(GraphError::Value { value, what })
        });
        let encoding = encoding.transpose()?;
        let (weight, bias) = layer.folded(&affine)?;
        let label = unit.label(self.values);
        let node = &mut place.graph.nodes[producer];
        // The layer keeps its name, though its output is another value.
        node.name = label;
        if layer.op_type == "MatMul" {
            node.op_type = "Gemm".into();
        } else if layer.op_type == "Gemm" && node.float_or("beta", 1.0)? != 1.0 {
            node.attributes.set("beta", AttributeValue::Float(1.0));
        }
        node.outputs[0] = Some(output);
        let weight_name = self.values[layer.weight_id].name.clone();
        let stored = if place.alone(layer.weight_id) {
            self.values.set_tensor(layer.weight_id, weight);
            layer.weight_id
        } else {
            let copy = self.constant(place, &format!("{weight_name}_folded"), weight);
            place.known.unread(layer.weight_id);
            if let Some(mask) = self.annotations.mask(layer.weight_id).cloned() {
                self.annotations.entry(copy).mask = Some(mask);
            }
            place.graph.nodes[producer].inputs[1] = Some(copy);
            copy
        };
        if encoding.is_some() {
            self.annotations.entry(stored).encoding = encoding;
        }
        match unit.input(2).filter(|b| place.alone(*b)) {
            Some(own) if self.values.tensor(own).is_some_and(|t| t.shape() == bias.shape()) => {
                self.values.set_tensor(own, bias);
            }
            _ => {
                let base = weight_name.strip_suffix(".weight").unwrap_or(&weight_name).to_string();
                let id = self.constant(place, &format!("{base}.bias"), bias);
                unit.input(2).into_iter().for_each(|old| place.known.unread(old));
                let inputs = &mut place.graph.nodes[producer].inputs;
                inputs.resize(3.max(inputs.len()), None);
                inputs[2] = Some(id);
            }
        }
        let gone = || between.iter().chain([&at]).copied();
        let read: Vec<ValueId> = gone().flat_map(|i| place.graph.nodes[i].inputs.iter().flatten().copied()).collect();
        let parameters = read.iter().copied().filter(|v| self.values.tensor(*v).is_some());
        self.folded_in.extend(parameters.chain(unit.inputs.iter().skip(1).flatten().copied()));
        read.into_iter().for_each(|v| place.known.unread(v));
        place.known.links.made_by(output, producer);
        place.gone.extend(gone());
        place.folded += 1;
        Ok(())
    }
}

fn reads(node: &Node) -> Vec<ValueId> {
    let inner = node.subgraphs().flat_map(|g| g.use_counts().into_keys());
    node.inputs.iter().flatten().copied().chain(inner).collect()
}

/// A layer that a normalization can be folded into.
pub(crate) struct Layer {
    op_type: String,
    /// Number of axes of its output; channels lie along the second.
    rank: usize,
    pub(crate) weight_id: ValueId,
    weight: Tensor,
    /// Bias of each channel; zeros where there is none.
    bias: Vec<f64>,
    /// Output channel of each run of `run` consecutive elements of the weight.
    channel: Box<dyn Fn(usize) -> usize>,
    run: usize,
    /// The weight's axis of the output channels, if there is exactly one.
    pub(crate) axis: Option<usize>,
}

impl Layer {
    /// `None` if the node is no such layer, or its parameters are computed, not f32, or have another number of channels.
    fn of(node: &Node, scope: &Scope, channels: usize) -> Result<Option<Layer>, OpError> {
        let values = scope.values;
        let Some((weight_id, weight)) = node.input(1).and_then(|v| Some((v, values.tensor(v)?.clone()))) else { return Ok(None) };
        if !node.is_onnx() || weight.dtype() != DType::F32 || weight.rank() < 2 || weight.is_empty() {
            return Ok(None);
        }
        let shape = weight.shape().to_vec();
        let inner = |axis: usize| shape[axis + 1..].iter().product::<usize>();
        let mut axis = Some(if node.op_type == "Conv" || node.int_or("transB", 0)? != 0 { 0 } else { 1 });
        let (run, found, channel): (usize, usize, Box<dyn Fn(usize) -> usize>) = match node.op_type.as_str() {
            "Conv" => (inner(0), shape[0], Box::new(|run| run)),
            "Gemm" if node.int_or("transB", 0)? != 0 => (inner(0), shape[0], Box::new(|run| run)),
            "Gemm" => (1, shape[1], Box::new(move |run| run % channels)),
            // It is replaced by a Gemm, which takes matrices only, and a bias for each column from operator set 7 on.
            "MatMul" if shape.len() == 2 && scope.opset >= 7 && node.output(0).and_then(|v| scope.ranks.get(&v)) == Some(&2) => {
                (1, shape[1], Box::new(move |run| run % channels))
            }
            "ConvTranspose" => {
                let groups = usize::try_from(node.int_or("group", 1)?).unwrap_or(0);
                if groups == 0 || shape[0] % groups != 0 {
                    return Err(node.error(format!("has {groups} groups for {} input channels", shape[0])).into());
                }
                let (per_group, ins) = (shape[1], shape[0] / groups);
                axis = axis.filter(|_| groups == 1);
                (inner(1), per_group * groups, Box::new(move |run| run / per_group / ins * per_group + run % per_group))
            }
            _ => return Ok(None),
        };
        if found != channels {
            return Ok(None);
        }
        let beta = if node.op_type == "Gemm" { f64::from(node.float_or("beta", 1.0)?) } else { 1.0 };
        let bias = match node.input(2) {
            None => vec![0.0; channels],
            Some(v) => match values.tensor(v).filter(|t| t.dtype() == DType::F32).map(Tensor::to_f64_vec).transpose()? {
                Some(b) if b.len() == channels && values[v].shape().is_some_and(|s| s.last() == Some(&Dim::Known(channels))) => {
                    b.iter().map(|b| b * beta).collect()
                }
                Some(b) if b.len() == 1 => vec![b[0] * beta; channels],
                _ => return Ok(None),
            },
        };
        let rank = if matches!(node.op_type.as_str(), "Gemm" | "MatMul") { 2 } else { weight.rank() };
        Ok(Some(Layer { op_type: node.op_type.clone(), rank, weight_id, weight, bias, channel, run, axis }))
    }

    /// Weight and bias with the normalization folded in.
    fn folded(&self, affine: &Affine) -> Result<(Tensor, Tensor), OpError> {
        let mut weight = self.weight.clone();
        for (i, run) in weight.as_mut_slice::<f32>()?.chunks_mut(self.run.max(1)).enumerate() {
            let factor = affine.factor[(self.channel)(i)];
            run.iter_mut().for_each(|w| *w = (f64::from(*w) * factor) as f32);
        }
        let bias = self.bias.iter().zip(&affine.factor).zip(&affine.shift).map(|((b, f), s)| (b * f + s) as f32).collect();
        Ok((weight, Tensor::vector::<f32>(bias)))
    }
}

#[cfg(test)]
mod tests;
