//! Clean-up that needs no evaluation: BatchNormalization into the layer before it, and Identity nodes out.
use crate::OpError;
use graph::{Annotations, AttributeValue, Graph, GraphError, Links, Model, Names, Node, ValueId, Values};
use std::collections::{HashMap, HashSet};
use tensor::{DType, Tensor};

/// Folds each BatchNormalization in inference form into the Conv, ConvTranspose or Gemm whose output it alone reads.
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
    let mut graph = std::mem::take(&mut model.graph);
    let mut folded_in = HashSet::new();
    let result = fold_graph(&mut graph, &mut model.values, &mut model.annotations, &mut folded_in);
    model.graph = graph;
    model.graph.inputs.retain(|v| !folded_in.contains(v));
    let folded = result?;
    if folded > 0 {
        // Before version 4 of the format every initializer had to be an input too; the new biases are not.
        model.ir_version = model.ir_version.max(4);
        model.remove_dead();
    }
    Ok(folded)
}

/// Folds in a graph and its subgraphs. What was `folded_in` is listed: no such value is any more the parameter of that name.
fn fold_graph(
    graph: &mut Graph,
    values: &mut Values,
    annotations: &mut Annotations,
    folded_in: &mut HashSet<ValueId>,
) -> Result<usize, OpError> {
    let mut folded = 0;
    for node in &mut graph.nodes {
        for sub in node.subgraphs_mut() {
            folded += fold_graph(sub, values, annotations, folded_in)?;
        }
    }
    if !graph.nodes.iter().any(|n| n.op_type == "BatchNormalization") {
        return Ok(folded);
    }
    let own = graph.constants.iter().copied().collect();
    let mut state = Folding { uses: graph.use_counts(), links: graph.links(), own, names: Names::of(values), gone: HashSet::new() };
    let ended = (0..graph.nodes.len()).try_for_each(|at| fold_node(graph, at, values, annotations, folded_in, &mut state));
    // Where one was refused, those before it are folded all the same.
    let (gone, mut at) = (&state.gone, 0..);
    let between: HashSet<ValueId> = gone.iter().filter_map(|i| graph.nodes[*i].input(0)).collect();
    graph.nodes.retain(|_| at.next().is_none_or(|i| !gone.contains(&i)));
    let still: HashSet<ValueId> = graph.nodes.iter().flat_map(reads).chain(graph.outputs.iter().copied()).collect();
    graph.value_info.retain(|v| !between.contains(v));
    graph.constants.retain(|v| still.contains(v) || !folded_in.contains(v));
    ended?;
    Ok(folded + gone.len())
}

/// What is known of a graph while its normalizations are folded: found out once, and kept up.
struct Folding {
    uses: HashMap<ValueId, usize>,
    links: Links,
    /// The graph's own constants.
    own: HashSet<ValueId>,
    names: Names,
    /// Normalizations that are folded; they are removed at the end.
    gone: HashSet<usize>,
}

impl Folding {
    /// Constants of this graph that have no other reader. One of an outer graph may be read by another branch too.
    fn alone(&self, v: ValueId) -> bool {
        self.uses.get(&v) == Some(&1) && self.own.contains(&v)
    }

    fn add_constant(&mut self, graph: &mut Graph, values: &mut Values, base: &str, tensor: Tensor) -> ValueId {
        let id = values.add_constant(self.names.fresh(base), tensor);
        graph.constants.push(id);
        self.own.insert(id);
        self.uses.insert(id, 1);
        id
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
    /// The value between the two.
    between: ValueId,
    output: ValueId,
    pub(crate) affine: Affine,
    pub(crate) layer: Layer,
}

impl Unit {
    /// Of the node at `at`; `None` if it is no such normalization.
    pub(crate) fn of(graph: &Graph, at: usize, values: &Values, annotations: &Annotations) -> Result<Option<Unit>, OpError> {
        if graph.nodes[at].op_type != "BatchNormalization" {
            return Ok(None);
        }
        Unit::known(graph, at, values, annotations, (&graph.use_counts(), &graph.links()))
    }

    /// The same where uses and links are known.
    fn known(
        graph: &Graph,
        at: usize,
        values: &Values,
        annotations: &Annotations,
        (uses, links): (&HashMap<ValueId, usize>, &Links),
    ) -> Result<Option<Unit>, OpError> {
        let norm = &graph.nodes[at];
        if norm.op_type != "BatchNormalization" || !norm.is_onnx() {
            return Ok(None);
        }
        let inference = norm.outputs.iter().skip(1).all(Option::is_none) && norm.int_or("training_mode", 0)? == 0;
        let (Some(between), Some(output), true) = (norm.input(0), norm.output(0), inference) else { return Ok(None) };
        let alone = uses.get(&between) == Some(&1) && annotations.get(between).is_none_or(|a| a.is_empty());
        let Some(producer) = links.producer(between).filter(|_| alone) else { return Ok(None) };
        let Some(affine) = Affine::of(norm, values)? else { return Ok(None) };
        let layer = Layer::of(&graph.nodes[producer], values, affine.factor.len())?;
        Ok(layer.map(|layer| Unit { producer, between, output, affine, layer }))
    }
}

/// Folds the node at `at`, if it is a normalization that can be, into its producer; the node itself is left to be removed.
fn fold_node(
    graph: &mut Graph,
    at: usize,
    values: &mut Values,
    annotations: &mut Annotations,
    folded_in: &mut HashSet<ValueId>,
    state: &mut Folding,
) -> Result<(), OpError> {
    let unit = Unit::known(graph, at, values, annotations, (&state.uses, &state.links))?;
    let Some(Unit { producer, between, output, affine, layer }) = unit else { return Ok(()) };
    let unit = graph.nodes[producer].clone();
    let encoding = annotations.encoding(layer.weight_id).map(|encoding| {
        let what = "has an encoding; fold BatchNormalization before weights are quantized".to_string();
        crate::kept_norm::folded(encoding).ok_or(GraphError::Value { value: values[layer.weight_id].name.clone(), what })
    });
    let encoding = encoding.transpose()?;
    let (weight, bias) = layer.folded(&affine)?;
    let node = &mut graph.nodes[producer];
    if layer.op_type == "Gemm" && node.float_or("beta", 1.0)? != 1.0 {
        node.attributes.set("beta", AttributeValue::Float(1.0));
    }
    node.outputs[0] = Some(output);
    let weight_name = values[layer.weight_id].name.clone();
    let stored = if state.alone(layer.weight_id) {
        values.set_tensor(layer.weight_id, weight);
        layer.weight_id
    } else {
        let copy = state.add_constant(graph, values, &format!("{weight_name}_folded"), weight);
        state.unread(layer.weight_id);
        if let Some(mask) = annotations.mask(layer.weight_id).cloned() {
            annotations.entry(copy).mask = Some(mask);
        }
        graph.nodes[producer].inputs[1] = Some(copy);
        copy
    };
    if encoding.is_some() {
        annotations.entry(stored).encoding = encoding;
    }
    match unit.input(2).filter(|b| state.alone(*b)) {
        Some(own) if values.tensor(own).is_some_and(|t| t.shape() == bias.shape()) => {
            values.set_tensor(own, bias);
        }
        _ => {
            let base = weight_name.strip_suffix(".weight").unwrap_or(&weight_name).to_string();
            let id = state.add_constant(graph, values, &format!("{base}.bias"), bias);
            unit.input(2).into_iter().for_each(|old| state.unread(old));
            let inputs = &mut graph.nodes[producer].inputs;
            inputs.resize(3.max(inputs.len()), None);
            inputs[2] = Some(id);
        }
    }
    let parameters = || graph.nodes[at].inputs.iter().skip(1).flatten().copied();
    folded_in.extend(parameters().chain(unit.inputs.iter().skip(1).flatten().copied()));
    parameters().for_each(|v| state.unread(v));
    state.unread(between);
    state.links.made_by(output, producer);
    state.gone.insert(at);
    Ok(())
}

fn reads(node: &Node) -> Vec<ValueId> {
    let inner = node.subgraphs().flat_map(|g| g.use_counts().into_keys());
    node.inputs.iter().flatten().copied().chain(inner).collect()
}

/// A normalization as `y = factor * x + shift` for each channel.
pub(crate) struct Affine {
    pub(crate) factor: Vec<f64>,
    shift: Vec<f64>,
}

impl Affine {
    /// `None` if a parameter is not a constant of one f32 for each channel.
    fn of(norm: &Node, values: &Values) -> Result<Option<Affine>, OpError> {
        let mut parameters = vec![];
        for i in 1..5 {
            let Some(t) = norm.input(i).and_then(|v| values.tensor(v)).filter(|t| t.dtype() == DType::F32) else { return Ok(None) };
            parameters.push(t.to_f64_vec()?);
        }
        let [scale, bias, mean, variance] = parameters.as_slice() else { return Ok(None) };
        if [bias, mean, variance].iter().any(|p| p.len() != scale.len()) {
            return Err(norm.error("has parameters of different lengths").into());
        }
        let epsilon = f64::from(norm.float_or("epsilon", 1e-5)?);
        let factor: Vec<f64> = scale.iter().zip(variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
        if let Some(at) = factor.iter().position(|f| !f.is_finite()) {
            return Err(norm.error(format!("has no finite scale for channel {at}: its variance is {}", variance[at])).into());
        }
        let shift = factor.iter().zip(bias).zip(mean).map(|((f, b), m)| b - f * m).collect();
        Ok(Some(Affine { factor, shift }))
    }
}

/// A layer that a normalization can be folded into.
pub(crate) struct Layer {
    op_type: String,
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
    fn of(node: &Node, values: &Values, channels: usize) -> Result<Option<Layer>, OpError> {
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
                Some(b) if b.len() == channels => b.iter().map(|b| b * beta).collect(),
                Some(b) if b.len() == 1 => vec![b[0] * beta; channels],
                _ => return Ok(None),
            },
        };
        Ok(Some(Layer { op_type: node.op_type.clone(), weight_id, weight, bias, channel, run }))
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

/// Removes Identity nodes that carry no annotation of their own. One that names a graph output stays where its input is
/// an input, a constant or read elsewhere too. Returns how many went.
pub fn remove_identities(model: &mut Model) -> usize {
    fn in_graph(graph: &mut Graph, annotations: &Annotations) -> usize {
        let mut removed = 0;
        for node in &mut graph.nodes {
            for sub in node.subgraphs_mut() {
                removed += in_graph(sub, annotations);
            }
        }
        let plain = |v: ValueId| annotations.get(v).is_none_or(|a| a.is_empty());
        let ends = |node: &Node| {
            let ends = (node.op_type == "Identity" && node.is_onnx()).then(|| node.input(0).zip(node.output(0))).flatten();
            ends.filter(|(_, output)| plain(*output))
        };
        let named: HashSet<ValueId> = graph.outputs.iter().copied().collect();
        let mut replaced: HashMap<ValueId, ValueId> = HashMap::new();
        graph.nodes.retain(|node| match ends(node).filter(|(_, output)| !named.contains(output)) {
            Some((input, output)) => {
                replaced.insert(output, input);
                false
            }
            None => true,
        });
        graph.replace_all_uses(&replaced);
        // One that names a graph output: what makes its input makes the output instead.
        let (uses, links) = (graph.use_counts(), graph.links());
        let mut renamed: HashMap<ValueId, ValueId> = HashMap::new();
        graph.nodes.retain(|node| {
            let own = |input: ValueId| plain(input) && links.producer(input).is_some() && uses.get(&input) == Some(&1);
            match ends(node).filter(|(input, _)| own(*input)) {
                Some((input, output)) => {
                    renamed.insert(input, output);
                    false
                }
                None => true,
            }
        });
        for made in graph.nodes.iter_mut().flat_map(|n| n.outputs.iter_mut().flatten()) {
            *made = renamed.get(made).copied().unwrap_or(*made);
        }
        let made: HashSet<ValueId> = graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
        let touched: HashSet<ValueId> = replaced.iter().chain(&renamed).flat_map(|(a, b)| [*a, *b]).collect();
        graph.value_info.retain(|v| !touched.contains(v) || made.contains(v));
        removed + replaced.len() + renamed.len()
    }
    in_graph(&mut model.graph, &model.annotations)
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

    #[test]
    fn identities_go_and_output_names_stay() {
        let mut m = Model::new(17);
        let ids: Vec<ValueId> = ["x", "a", "b", "c", "y"].map(|n| m.values.add_named(n)).to_vec();
        m.graph.inputs.push(ids[0]);
        for (i, op) in ["Identity", "Relu", "Identity", "Identity"].into_iter().enumerate() {
            m.graph.nodes.push(Node::new(op, "", &[ids[i]], &[ids[i + 1]]));
        }
        m.graph.outputs.push(ids[4]);
        assert_eq!(remove_identities(&mut m), 3);
        m.verify().unwrap();
        assert_eq!(m.graph.nodes, vec![Node::new("Relu", "", &[ids[0]], &[ids[4]])]);
        m.graph.nodes[0].op_type = "Identity".into();
        assert_eq!(remove_identities(&mut m), 0);
    }
}
