//! BatchNormalization into the layer before it: clean-up that needs no evaluation.
use crate::OpError;
use crate::channels::{Affine, Step};
use graph::{Annotations, AttributeValue, Dim, Graph, GraphError, Links, Model, Names, Node, ValueId, Values};
use std::collections::{HashMap, HashSet};
use tensor::{DType, Tensor};

/// Folds each BatchNormalization in inference form into the Conv, ConvTranspose, Gemm or MatMul whose output it alone reads,
/// with what is added to or multiplied with each channel between the two. A MatMul becomes the Gemm that has a bias.
/// Computed in f64 and rounded once. Masks stay as they are: zero times a factor is zero. Returns how many were folded.
///
/// An initializer that is a graph input too, a default for what may be fed, is one no more once it is folded: whoever feeds it
/// afterwards is refused instead of ignored.
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

/// Why the BatchNormalization that makes `output` in `graph`, a graph of `model`, is not part of a layer.
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

/// Ranks of what MatMul makes, where one is normalized: only a matrix has its channels on the last axis.
pub(crate) fn ranks(model: &Model) -> HashMap<ValueId, usize> {
    let (mut products, mut norms) = (vec![], false);
    model.graph.visit(&mut |node| {
        norms |= node.op_type == "BatchNormalization";
        products.extend(node.output(0).filter(|_| node.op_type == "MatMul"));
    });
    if !norms || products.is_empty() {
        return HashMap::new();
    }
    // A graph that contradicts itself is for whoever runs it to refuse.
    let types = crate::infer_types(model).unwrap_or_default();
    let rank = |v: &ValueId| match types.get(v) {
        Some(graph::ValueType::Tensor { shape: Some(shape), .. }) => Some(shape.len()),
        _ => None,
    };
    products.into_iter().filter_map(|v| Some((v, rank(&v)?))).collect()
}

/// What is known beside the graph itself.
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

/// What is known of a graph: found out once, and kept up while its normalizations are folded.
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
    /// The nodes between the two, from the normalization back.
    between: Vec<usize>,
    output: ValueId,
    pub(crate) affine: Affine,
    pub(crate) layer: Layer,
}

/// A unit, or why the normalization cannot be folded.
type Found = Result<Unit, String>;

impl Unit {
    /// Of the node at `at`; `None` if it is no BatchNormalization.
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
                return Ok(Err(format!("it normalizes '{}', which no layer makes", scope.values[value].name)));
            };
            let node = &graph.nodes[producer];
            let label = node.label(scope.values);
            if known.uses.get(&value) != Some(&1) {
                return Ok(Err(format!("what '{label}' before it makes has another reader, or is an output of the network")));
            }
            if !scope.plain(value) {
                return Ok(Err(format!("what '{label}' before it makes is stored on a grid of its own")));
            }
            if let Some(layer) = Layer::of(node, scope, affine.channels())? {
                return Ok(match affine.behind(&steps, layer.rank) {
                    Some(affine) => Ok(Unit { producer, between, output, affine, layer }),
                    None => Err(format!("what lies between it and '{label}' is not the same all over each channel")),
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
    /// What was folded: no such value is any more the parameter of that name.
    folded_in: HashSet<ValueId>,
}

/// A graph that is being folded.
struct Place<'g> {
    graph: &'g mut Graph,
    known: Known,
    /// The graph's own constants.
    own: HashSet<ValueId>,
    /// Nodes that became part of a layer; they are removed at the end.
    gone: HashSet<usize>,
    folded: usize,
}

impl Place<'_> {
    /// Constants of this graph that have no other reader. One of an outer graph may be read by another branch too.
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
        // Where one was refused, those before it are folded all the same.
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

    /// Folds the node at `at`, if it is a normalization that can be; it and what lies between are left to be removed.
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
        // What it is known by stays, though its output is another.
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
    /// Axes of what it makes; channels lie along the second.
    rank: usize,
    pub(crate) weight_id: ValueId,
    weight: Tensor,
    /// Bias of each channel; zeros where there is none.
    bias: Vec<f64>,
    /// Output channel of each run of `run` consecutive elements of the weight.
    channel: Box<dyn Fn(usize) -> usize>,
    run: usize,
}

impl Layer {
    /// `None` if the node is no such layer, or its parameters are computed, not f32, or of another number of channels.
    fn of(node: &Node, scope: &Scope, channels: usize) -> Result<Option<Layer>, OpError> {
        let values = scope.values;
        let Some((weight_id, weight)) = node.input(1).and_then(|v| Some((v, values.tensor(v)?.clone()))) else { return Ok(None) };
        if !node.is_onnx() || weight.dtype() != DType::F32 || weight.rank() < 2 || weight.is_empty() {
            return Ok(None);
        }
        let shape = weight.shape().to_vec();
        let inner = |axis: usize| shape[axis + 1..].iter().product::<usize>();
        let (run, found, channel): (usize, usize, Box<dyn Fn(usize) -> usize>) = match node.op_type.as_str() {
            "Conv" => (inner(0), shape[0], Box::new(|run| run)),
            "Gemm" if node.int_or("transB", 0)? != 0 => (inner(0), shape[0], Box::new(|run| run)),
            "Gemm" => (1, shape[1], Box::new(move |run| run % channels)),
            // A Gemm takes its place, which has matrices alone, and a bias for each column from operator set 7 on.
            "MatMul" if shape.len() == 2 && scope.opset >= 7 && node.output(0).and_then(|v| scope.ranks.get(&v)) == Some(&2) => {
                (1, shape[1], Box::new(move |run| run % channels))
            }
            "ConvTranspose" => {
                let groups = usize::try_from(node.int_or("group", 1)?).unwrap_or(0);
                if groups == 0 || shape[0] % groups != 0 {
                    return Err(node.error(format!("has {groups} groups for {} input channels", shape[0])).into());
                }
                let (per_group, ins) = (shape[1], shape[0] / groups);
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
        Ok(Some(Layer { op_type: node.op_type.clone(), rank, weight_id, weight, bias, channel, run }))
    }

    /// Weight and bias with the normalization in them.
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
mod tests {
    use super::*;
    use tensor::{Activation, ConvOptions, random};

    const EPSILON: f32 = 1e-3;

    /// `x -> layer -> BatchNormalization -> y`, with parameters of `channels`.
    fn model(op_type: &str, weight: Tensor, bias: Option<Tensor>, channels: usize) -> Model {
        let mut m = Model::new(17);
        let (x, h, y) = (m.values.add_named("x"), m.values.add_named("h"), m.values.add_named("y"));
        let constant = |m: &mut Model, name: &str, t: Tensor| {
            let id = m.values.add_constant(name, t);
            m.graph.constants.push(id);
            id
        };
        let mut inputs = vec![x, constant(&mut m, "l.weight", weight)];
        if let Some(b) = bias {
            inputs.push(constant(&mut m, "l.bias", b));
        }
        let mut norm = vec![h];
        for (i, (name, lo, hi)) in [("g", -2.0, 2.0), ("b", -1.0, 1.0), ("mean", -1.0, 1.0), ("var", 0.1, 3.0)].into_iter().enumerate() {
            norm.push(constant(&mut m, name, random::uniform(i as u64, &[channels], lo, hi).unwrap()));
        }
        m.graph.inputs.push(x);
        m.graph.nodes.push(Node::new(op_type, "l", &inputs, &[h]));
        m.graph.nodes.push(Node::new("BatchNormalization", "n", &norm, &[y]).with("epsilon", AttributeValue::Float(EPSILON)));
        m.graph.outputs.push(y);
        m.verify().unwrap();
        m
    }

    fn get(m: &Model, name: &str) -> Tensor {
        m.values.tensor(m.find(name).unwrap()).unwrap().clone()
    }

    fn normalized(m: &Model, h: &Tensor) -> Tensor {
        let [g, b, mean, var] = ["g", "b", "mean", "var"].map(|n| get(m, n));
        h.batch_norm(&g, &b, &mean, &var, EPSILON, None, Activation::None).unwrap()
    }

    fn close(a: &Tensor, b: &Tensor) {
        assert_eq!(a.shape(), b.shape());
        for (a, b) in a.as_slice::<f32>().unwrap().iter().zip(b.as_slice::<f32>().unwrap()) {
            assert!((a - b).abs() < 2e-5 * b.abs().max(1.0), "{a} {b}");
        }
    }

    #[test]
    fn conv_computes_the_same_with_and_without_a_bias() {
        let options = ConvOptions { strides: vec![1, 1], pads: vec![(1, 1), (1, 1)], dilations: vec![1, 1], groups: 2 };
        let x = random::normal(9, &[2, 4, 5, 5], 0.0, 1.0).unwrap();
        let weight = random::normal(8, &[6, 2, 3, 3], 0.0, 0.5).unwrap();
        for bias in [None, Some(random::normal(7, &[6], 0.0, 1.0).unwrap())] {
            let mut m = model("Conv", weight.clone(), bias.clone(), 6);
            let expected = normalized(&m, &x.conv(&weight, bias.as_ref(), &options).unwrap());
            let mask = Tensor::full(true, weight.shape()).unwrap();
            let id = m.find("l.weight").unwrap();
            m.annotations.entry(id).mask = Some(mask.clone());
            assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
            m.verify().unwrap();
            assert_eq!((m.graph.nodes.len(), m.graph.constants.len()), (1, 2));
            assert_eq!(m.annotations.mask(id), Some(&mask));
            close(&x.conv(&get(&m, "l.weight"), Some(&get(&m, "l.bias")), &options).unwrap(), &expected);
        }
    }

    #[test]
    fn transposed_convolution_in_groups_computes_the_same() {
        let options = ConvOptions { strides: vec![2], pads: vec![(0, 0)], dilations: vec![1], groups: 2 };
        let x = random::normal(9, &[2, 4, 5], 0.0, 1.0).unwrap();
        let weight = random::normal(8, &[4, 3, 3], 0.0, 0.5).unwrap();
        let mut m = model("ConvTranspose", weight.clone(), None, 6);
        m.graph.nodes[0].attributes.set("group", AttributeValue::Int(2));
        let expected = normalized(&m, &x.conv_transpose(&weight, None, &options, &[0]).unwrap());
        assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
        close(&x.conv_transpose(&get(&m, "l.weight"), Some(&get(&m, "l.bias")), &options, &[0]).unwrap(), &expected);
    }

    #[test]
    fn gemm_computes_the_same_either_way_round() {
        let x = random::normal(9, &[3, 4], 0.0, 1.0).unwrap();
        for transposed in [false, true] {
            let weight = random::normal(8, if transposed { &[5, 4] } else { &[4, 5] }, 0.0, 0.5).unwrap();
            let bias = random::normal(7, &[5], 0.0, 1.0).unwrap();
            let mut m = model("Gemm", weight.clone(), Some(bias.clone()), 5);
            m.graph.nodes[0].attributes.set("transB", AttributeValue::Int(i64::from(transposed)));
            m.graph.nodes[0].attributes.set("beta", AttributeValue::Float(0.5));
            let turned = |w: &Tensor| if transposed { w.transpose(&[1, 0]).unwrap() } else { w.clone() };
            let h = x.matmul(&turned(&weight)).unwrap().add(&bias.mul_scalar(0.5).unwrap()).unwrap();
            let expected = normalized(&m, &h);
            assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
            close(&x.matmul(&turned(&get(&m, "l.weight"))).unwrap().add(&get(&m, "l.bias")).unwrap(), &expected);
            assert_eq!(m.graph.nodes[0].float_or("beta", 1.0).unwrap(), 1.0);
        }
    }

    #[test]
    fn what_must_not_be_folded_stays() {
        let weight = random::normal(8, &[6, 4, 1, 1], 0.0, 0.5).unwrap();
        let mut read_twice = model("Conv", weight.clone(), None, 6);
        let h = read_twice.find("h").unwrap();
        read_twice.graph.outputs.push(h);
        assert_eq!(fold_batch_norm(&mut read_twice).unwrap(), 0);
        let mut training = model("Conv", weight.clone(), None, 6);
        training.graph.nodes[1].attributes.set("training_mode", AttributeValue::Int(1));
        assert_eq!(fold_batch_norm(&mut training).unwrap(), 0);
        let mut encoded = model("Conv", weight, None, 6);
        let id = encoded.find("l.weight").unwrap();
        encoded.annotations.entry(id).encoding = Some(graph::Encoding { kind: "affine".into(), ..Default::default() });
        assert!(fold_batch_norm(&mut encoded).unwrap_err().to_string().contains("l.weight"));
        encoded.verify().unwrap();
    }

    #[test]
    fn a_shared_weight_is_copied() {
        let weight = random::normal(8, &[4, 4, 1, 1], 0.0, 0.5).unwrap();
        let mut m = model("Conv", weight.clone(), None, 4);
        let (w, y, z) = (m.find("l.weight").unwrap(), m.find("y").unwrap(), m.values.add_named("z"));
        m.graph.nodes.push(Node::new("Conv", "second", &[y, w], &[z]));
        m.graph.outputs.push(z);
        assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
        m.verify().unwrap();
        assert_eq!(get(&m, "l.weight"), weight);
        assert_ne!(get(&m, "l.weight_folded"), weight);
    }

    /// Two branches read one weight of the outer graph: each folds a copy of its own.
    #[test]
    fn a_weight_that_branches_share_is_copied() {
        let weight = random::normal(8, &[4, 4, 1, 1], 0.0, 0.5).unwrap();
        let mut m = model("Conv", weight.clone(), Some(random::normal(7, &[4], 0.0, 1.0).unwrap()), 4);
        let nodes = std::mem::take(&mut m.graph.nodes);
        let mut branch = |name: &str| {
            let ends = ["h", "y"].map(|v| m.values.add_named(format!("{name}.{v}")));
            let mut nodes = nodes.clone();
            (nodes[0].outputs[0], nodes[1].inputs[0], nodes[1].outputs[0]) = (Some(ends[0]), Some(ends[0]), Some(ends[1]));
            AttributeValue::Graph(Box::new(Graph { name: name.into(), nodes, outputs: vec![ends[1]], ..Graph::default() }))
        };
        let (then, other) = (branch("then"), branch("else"));
        let (condition, y) = (m.values.add_named("condition"), m.find("y").unwrap_or(m.graph.outputs[0]));
        m.graph.inputs.push(condition);
        let either = Node::new("If", "either", &[condition], &[y]).with("then_branch", then).with("else_branch", other);
        m.graph.nodes.push(either);
        m.verify().unwrap();
        let once = {
            let mut alone = model("Conv", weight, Some(random::normal(7, &[4], 0.0, 1.0).unwrap()), 4);
            fold_batch_norm(&mut alone).unwrap();
            (get(&alone, "l.weight"), get(&alone, "l.bias"))
        };
        assert_eq!(fold_batch_norm(&mut m).unwrap(), 2);
        m.verify().unwrap();
        for branch in m.graph.nodes[0].subgraphs() {
            let read = |i: usize| m.values.tensor(branch.nodes[0].input(i).unwrap()).unwrap().clone();
            assert_eq!((read(1), read(2)), once);
        }
    }

    #[test]
    fn what_could_be_fed_before_it_was_folded_is_refused_afterwards() {
        let mut m = model("Conv", random::normal(8, &[4, 4, 1, 1], 0.0, 0.5).unwrap(), None, 4);
        let defaults = m.graph.constants.clone();
        m.graph.inputs.extend(defaults);
        assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
        m.verify().unwrap();
        let names: Vec<&str> = m.graph.inputs.iter().map(|v| m.values[*v].name.as_str()).collect();
        assert_eq!(names, ["x"]);
        assert_eq!(m.graph.constants.len(), 2);
    }

    /// As in files of old exporters, which list a counter that nobody reads.
    #[test]
    fn a_default_that_nobody_reads_stays_one() {
        let mut m = model("Conv", random::normal(9, &[4, 4, 1, 1], 0.0, 0.5).unwrap(), None, 4);
        let counter = m.values.add_constant("n.num_batches_tracked", Tensor::scalar(7i64));
        m.graph.constants.push(counter);
        m.graph.inputs.push(counter);
        assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
        m.verify().unwrap();
        assert!(m.graph.inputs.contains(&counter) && m.graph.constants.contains(&counter));
        assert_eq!(m.free_inputs().len(), 1);
    }

    fn shaped(m: &mut Model, name: &str, dims: &[usize]) {
        let id = m.find(name).unwrap();
        let dims = dims.iter().enumerate().map(|(i, d)| if i == 0 { Dim::Unknown } else { Dim::Known(*d) }).collect();
        m.values[id].ty = graph::ValueType::Tensor { dtype: DType::F32, shape: Some(dims) };
    }

    /// Puts `op` with a constant right behind the layer.
    fn between(m: &mut Model, op: &str, constant: Tensor) {
        let id = m.values.add_constant(format!("{op}_constant"), constant);
        let raw = m.values.add_named(format!("before {op}"));
        m.graph.constants.push(id);
        let made = m.graph.nodes[0].outputs[0].replace(raw).unwrap();
        m.graph.nodes.insert(1, Node::new(op, op, &[raw, id], &[made]));
        m.verify().unwrap();
    }

    #[test]
    fn a_product_becomes_the_layer_that_has_a_bias() {
        let x = random::normal(9, &[3, 4], 0.0, 1.0).unwrap();
        let weight = random::normal(8, &[4, 5], 0.0, 0.5).unwrap();
        let offset = random::normal(7, &[1, 5], 0.0, 1.0).unwrap();
        for added in [false, true] {
            let mut m = model("MatMul", weight.clone(), None, 5);
            shaped(&mut m, "x", &[0, 4]);
            let mut h = x.matmul(&weight).unwrap();
            if added {
                between(&mut m, "Add", offset.clone());
                h = h.add(&offset).unwrap();
            }
            let expected = normalized(&m, &h);
            let mask = Tensor::full(true, weight.shape()).unwrap();
            let id = m.find("l.weight").unwrap();
            m.annotations.entry(id).mask = Some(mask.clone());
            assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
            m.verify().unwrap();
            assert_eq!((m.graph.nodes.len(), m.graph.nodes[0].op_type.as_str()), (1, "Gemm"));
            assert_eq!(m.annotations.mask(id), Some(&mask));
            close(&x.matmul(&get(&m, "l.weight")).unwrap().add(&get(&m, "l.bias")).unwrap(), &expected);
        }
    }

    /// There the channels of the normalization are not the columns of the weight, though there may be as many.
    #[test]
    fn a_product_of_more_axes_is_not_folded() {
        for dims in [Some([0, 5, 4]), None] {
            let mut m = model("MatMul", random::normal(8, &[4, 5], 0.0, 0.5).unwrap(), None, 5);
            if let Some(dims) = dims {
                shaped(&mut m, "x", &dims);
            }
            let before = m.clone();
            assert_eq!(fold_batch_norm(&mut m).unwrap(), 0);
            assert_eq!(m, before);
        }
    }

    #[test]
    fn what_is_added_to_and_multiplied_with_each_channel_is_folded_too() {
        let options = ConvOptions { strides: vec![2, 2], pads: vec![(0, 0); 2], dilations: vec![1, 1], groups: 1 };
        let x = random::normal(9, &[2, 4, 3, 3], 0.0, 1.0).unwrap();
        let weight = random::normal(8, &[4, 3, 2, 2], 0.0, 0.5).unwrap();
        let (offset, factor) = (random::normal(7, &[1, 3, 1, 1], 0.0, 1.0).unwrap(), random::uniform(6, &[3, 1, 1], 0.5, 2.0).unwrap());
        let mut m = model("ConvTranspose", weight.clone(), None, 3);
        between(&mut m, "Div", Tensor::scalar(4f32));
        between(&mut m, "Sub", offset.clone());
        between(&mut m, "Mul", factor.clone());
        // The last one in stands first.
        let h = x.conv_transpose(&weight, None, &options, &[0, 0]).unwrap();
        let h = h.mul(&factor).unwrap().sub(&offset).unwrap().div(&Tensor::scalar(4f32)).unwrap();
        let expected = normalized(&m, &h);
        assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
        m.verify().unwrap();
        assert_eq!((m.graph.nodes.len(), m.graph.constants.len()), (1, 2));
        close(&x.conv_transpose(&get(&m, "l.weight"), Some(&get(&m, "l.bias")), &options, &[0, 0]).unwrap(), &expected);
        let mut pixels = model("Conv", random::normal(8, &[3, 3, 1, 1], 0.0, 0.5).unwrap(), None, 3);
        between(&mut pixels, "Add", random::normal(7, &[1, 1, 1, 3], 0.0, 1.0).unwrap());
        assert_eq!(fold_batch_norm(&mut pixels).unwrap(), 0);
    }

    #[test]
    fn what_keeps_a_normalization_is_said() {
        let reason = |m: &Model| why_not_folded(m, &m.graph, m.find("y").unwrap());
        let weight = random::normal(8, &[6, 4, 1, 1], 0.0, 0.5).unwrap();
        let mut read_twice = model("Conv", weight.clone(), None, 6);
        let h = read_twice.find("h").unwrap();
        read_twice.graph.outputs.push(h);
        assert!(reason(&read_twice).contains("'l' before it makes has another reader"), "{}", reason(&read_twice));
        let mut input = model("Conv", weight.clone(), None, 6);
        input.graph.nodes.remove(0);
        assert!(reason(&input).contains("'h', which no layer makes"), "{}", reason(&input));
        let relu = model("Relu", weight, None, 6);
        assert!(reason(&relu).contains("Relu 'l' before it is no layer"), "{}", reason(&relu));
    }

    /// So that a pattern which names a node finds it afterwards.
    #[test]
    fn an_unnamed_layer_is_known_by_the_same_label_afterwards() {
        let mut m = model("Conv", random::normal(8, &[4, 4, 1, 1], 0.0, 0.5).unwrap(), None, 4);
        m.graph.nodes[0].name.clear();
        fold_batch_norm(&mut m).unwrap();
        assert_eq!(m.graph.nodes[0].label(&m.values), "Conv→h");
    }
}
