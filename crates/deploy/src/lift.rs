//! Lifting: a file with QuantizeLinear and DequantizeLinear becomes an annotated graph again, so that it can be pruned,
//! trained and compared like one that was quantized here. The inverse of [`crate::lower`].
use crate::block_products;
use crate::float_form::restore;
use crate::grid::{Grid, positive};
use crate::raise;
use crate::sign::never_negative;
use crate::table;
use crate::{DeployError, Result};
use encodings::Along;
use encodings::affine::Blocks;
use graph::{AttributeValue, Graph, Links, Model, Names, Node, ValueId};
use std::collections::{HashMap, HashSet};
use tensor::Tensor;

/// Turns the main graph's quantization operators into annotations, as far as they stand for a value on a grid: a constant
/// behind DequantizeLinear, and pairs of QuantizeLinear and DequantizeLinear with one grid. Returns how many values were
/// annotated; what is left (a pair that changes the grid, activations with block-wise scales) stays as operators and computes the same.
///
/// Operators on integers (QLinearConv and its kin) become the float operators that they stand for first, and so does MatMulNBits.
///
/// A grid that begins or ends at zero may also clip values: the tool that quantized the file left out a Relu or a Clip that the
/// grid covers. A Clip to the grid's ends is added there, so that the clipping stays when the grid is removed.
///
/// # Errors
/// Whatever a constant that cannot be read reports.
pub fn lift(model: &mut Model) -> Result<usize> {
    restore(model)?;
    let products = block_products::lift(model)?;
    raise::decoded_constants(model);
    hoist(model);
    let is_dequantizer = |n: &&Node| n.op_type == "DequantizeLinear" && n.is_onnx() && n.outputs.len() == 1;
    let dequantizers: Vec<Node> = model.graph.nodes.iter().filter(is_dequantizer).cloned().collect();
    let tables = lift_tables(model)? + products;
    let choices: Vec<Node> = model.graph.nodes.iter().filter(|n| n.op_type == "Where" && n.is_onnx()).cloned().collect();
    if dequantizers.is_empty() && choices.is_empty() {
        if tables > 0 {
            model.remove_dead();
        }
        return Ok(tables);
    }
    let mut names = Taken { nodes: Names::of_nodes(&model.graph), values: Names::of(&model.values) };
    let mut wires = Wires::of(model);
    let mut lifted = tables;
    for node in &dequantizers {
        lifted += usize::from(lift_constant(model, node, &mut wires)? || lift_pair(model, node, &mut wires, &mut names)?);
    }
    for node in &choices {
        lifted += usize::from(lift_choice(model, node, &mut wires, &mut names)?);
    }
    let gone = wires.gone;
    let mut at = 0..;
    model.graph.nodes.retain(|_| at.next().is_none_or(|i| !gone.contains(&i)));
    model.remove_dead();
    model.graph.sort(&model.values)?;
    Ok(lifted)
}

/// Moves the DequantizeLinear nodes of the main graph's constants out of the bodies of control flow, where lowering puts them:
/// one node for all bodies that read a constant.
fn hoist(model: &mut Model) {
    let constants: HashSet<ValueId> = model.graph.constants.iter().copied().collect();
    let of_constants = |n: &Node| {
        let alone = n.op_type == "DequantizeLinear" && n.is_onnx() && n.outputs.len() == 1;
        alone && n.inputs.iter().flatten().all(|v| constants.contains(v))
    };
    let mut known = Known::new();
    for node in model.graph.nodes.iter().filter(|n| of_constants(n)) {
        known.entry(node.inputs.clone()).or_default().push(node.clone());
    }
    let mut out = vec![];
    for sub in model.graph.nodes.iter_mut().flat_map(Node::subgraphs_mut) {
        take_out(sub, &of_constants, &mut known, &mut out);
    }
    model.graph.nodes.splice(0..0, out);
}

/// Nodes by what they read.
type Known = HashMap<Vec<Option<ValueId>>, Vec<Node>>;

fn take_out(graph: &mut Graph, which: &dyn Fn(&Node) -> bool, known: &mut Known, out: &mut Vec<Node>) {
    let (taken, kept): (Vec<Node>, Vec<Node>) = std::mem::take(&mut graph.nodes).into_iter().partition(|n| which(n));
    graph.nodes = kept;
    let mut same = HashMap::new();
    for node in taken {
        let alike = known.entry(node.inputs.clone()).or_default();
        match alike.iter().find(|k| k.attributes == node.attributes) {
            Some(first) => same.extend(node.output(0).zip(first.output(0))),
            None => {
                alike.push(node.clone());
                out.push(node);
            }
        }
    }
    graph.replace_all_uses(&same);
    for sub in graph.nodes.iter_mut().flat_map(Node::subgraphs_mut) {
        take_out(sub, which, known, out);
    }
}

/// Names in use.
struct Taken {
    nodes: Names,
    values: Names,
}

/// Producer and readers of the main graph's values, kept up to date during the edits, so that no edit searches all nodes.
struct Wires {
    links: Links,
    /// How often a value is read, in subgraphs and as an output too.
    uses: HashMap<ValueId, usize>,
    /// Values that subgraphs read.
    captured: HashSet<ValueId>,
    inputs: HashSet<ValueId>,
    outputs: HashSet<ValueId>,
    /// Indices of nodes to remove at the end.
    gone: HashSet<usize>,
}

impl Wires {
    fn of(model: &Model) -> Wires {
        let graph = &model.graph;
        let subgraphs = graph.nodes.iter().flat_map(Node::subgraphs);
        Wires {
            links: graph.links(),
            uses: graph.use_counts(),
            captured: subgraphs.flat_map(|g| g.use_counts().into_keys()).collect(),
            inputs: graph.inputs.iter().copied().collect(),
            outputs: graph.outputs.iter().copied().collect(),
            gone: HashSet::new(),
        }
    }

    /// Removes the producer of a value.
    fn drop_maker(&mut self, value: ValueId) {
        self.gone.extend(self.links.unmade(value));
    }

    fn push(&mut self, model: &mut Model, node: Node) {
        let at = model.graph.nodes.len();
        for v in node.inputs.iter().flatten() {
            *self.uses.entry(*v).or_insert(0) += 1;
            self.links.read_by(*v, at);
        }
        for v in node.outputs.iter().flatten() {
            self.links.made_by(*v, at);
        }
        model.graph.nodes.push(node);
    }

    /// Makes every reader of `from` read `to`.
    fn replace_uses(&mut self, model: &mut Model, from: ValueId, to: ValueId) {
        if self.captured.contains(&from) || self.outputs.contains(&from) {
            model.graph.replace_uses(from, to);
        }
        for at in self.links.consumers(from).to_vec() {
            for v in model.graph.nodes[at].inputs.iter_mut().flatten().filter(|v| **v == from) {
                *v = to;
            }
            self.links.read_by(to, at);
        }
        let moved = self.uses.remove(&from).unwrap_or(0);
        *self.uses.entry(to).or_insert(0) += moved;
        if self.captured.remove(&from) {
            self.captured.insert(to);
        }
        if self.outputs.remove(&from) {
            self.outputs.insert(to);
        }
    }

    /// Makes the producer of `from` write `to`. QuantizeLinear, now without readers, must not read a value without a producer.
    fn rename_output(&mut self, model: &mut Model, from: ValueId, to: ValueId) {
        if let Some(at) = self.links.unmade(from) {
            for v in model.graph.nodes[at].outputs.iter_mut().flatten().filter(|v| **v == from) {
                *v = to;
            }
            self.links.made_by(to, at);
        }
        self.replace_uses(model, from, to);
    }
}

/// Constants that are decoded from a table become float constants with an encoding, under the name of the decoded value.
fn lift_tables(model: &mut Model) -> Result<usize> {
    let mut found = vec![];
    let of_constant = |v: ValueId| model.constant(v);
    let (makers, linked): (HashMap<ValueId, &Node>, _) = (table::makers(&model.graph), model.graph.linked());
    for node in &model.graph.nodes {
        let Some(output) = node.output(0).filter(|_| node.is_onnx() && matches!(node.op_type.as_str(), "Gather" | "Mul" | "Reshape"))
        else {
            continue;
        };
        let Some(stored) = table::read(output, &makers, &of_constant) else { continue };
        // The Mul by the scales, a Reshape behind it and the nodes before them belong to the decoding, too.
        let readers: Vec<&Node> = linked.readers(output).collect();
        let scaled = |n: &&Node| {
            matches!(n.op_type.as_str(), "Mul" | "Reshape") && n.output(0).is_some_and(|v| table::read(v, &makers, &of_constant).is_some())
        };
        if !readers.is_empty() && readers.iter().all(scaled) {
            continue;
        }
        found.push((output, stored));
    }
    for (output, stored) in &found {
        let what = |e: encodings::EncodingError| DeployError::Lower { value: model.values[*output].name.clone(), what: e.to_string() };
        let encoding = stored.decode.encoding().map_err(what)?;
        let real = encodings::read(&stored.data, &encoding).map_err(what)?;
        let name = model.values[*output].name.clone();
        let constant = model.values.add_constant(name, real);
        model.values[*output] = model.values[constant].clone();
        model.graph.nodes.retain(|n| n.output(0) != Some(*output));
        model.graph.constants.push(*output);
        model.annotations.entry(*output).encoding = Some(encoding);
    }
    Ok(found.len())
}

/// A constant behind DequantizeLinear becomes a float constant under the node's output, with an encoding.
fn lift_constant(model: &mut Model, node: &Node, wires: &mut Wires) -> Result<bool> {
    let (Some(input), Some(output)) = (node.input(0), node.output(0)) else { return Ok(false) };
    let Some(integers) = model.constant(input).cloned() else { return Ok(false) };
    let Some(mut grid) = grid(model, node, Some(&integers))? else { return Ok(false) };
    let (mut integers, mut output) = (integers, output);
    if let Some((shaped, shape)) = flattened(model, wires, output, (&grid, &integers))? {
        grid.blocks = grid.blocks.map(|b| Blocks { along: Along { flat: true, ..b.along }, ..b });
        integers = integers.reshape(shape)?;
        wires.drop_maker(output);
        output = shaped;
    }
    let encoding = grid.encoding()?;
    let what = |e: encodings::EncodingError| DeployError::Lower { value: model.values[output].name.clone(), what: e.to_string() };
    let real = encodings::read(&integers, &encoding).map_err(what)?;
    let name = model.values[output].name.clone();
    let constant = model.values.add_constant(name, real);
    model.values[output] = model.values[constant].clone();
    wires.drop_maker(output);
    model.graph.constants.push(output);
    model.annotations.entry(output).encoding = Some(encoding);
    Ok(true)
}

/// The Reshape that alone reads a weight in blocks along its last axis and divides that axis again, and the shape that it makes.
fn flattened(model: &Model, wires: &Wires, value: ValueId, (grid, integers): (&Grid, &Tensor)) -> Result<Option<(ValueId, Vec<usize>)>> {
    let [reader] = wires.links.consumers(value) else { return Ok(None) };
    let node = &model.graph.nodes[*reader];
    let alone = wires.uses.get(&value) == Some(&1) && node.op_type == "Reshape" && node.is_onnx() && node.input(0) == Some(value);
    let (Some(blocks), Some(output), true) = (grid.blocks, node.output(0), alone) else { return Ok(None) };
    let Some(shape) = node.input(1).and_then(|v| model.constant(v)) else { return Ok(None) };
    let shape: Option<Vec<usize>> = shape.to_i64_vec()?.into_iter().map(|d| usize::try_from(d).ok()).collect();
    let Some(shape) = shape else { return Ok(None) };
    let axis = blocks.along.axis;
    let before = integers.shape();
    let divided = axis + 1 == before.len() && shape.len() > axis && shape[..axis] == before[..axis];
    let same = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) == Some(integers.len());
    Ok((divided && same).then_some((output, shape)))
}

/// QuantizeLinear and DequantizeLinear on one grid become the encoding of the value that their readers read.
fn lift_pair(model: &mut Model, dequantize: &Node, wires: &mut Wires, names: &mut Taken) -> Result<bool> {
    let (Some(quantized), Some(output)) = (dequantize.input(0), dequantize.output(0)) else { return Ok(false) };
    let Some(at) = wires.links.producer(quantized) else { return Ok(false) };
    let quantize = model.graph.nodes[at].clone();
    if quantize.op_type != "QuantizeLinear" || !quantize.is_onnx() || quantize.outputs.len() != 1 {
        return Ok(false);
    }
    let Some(source) = quantize.input(0) else { return Ok(false) };
    let data = model.constant(source);
    let (Some(before), Some(after)) = (grid(model, &quantize, data)?, grid(model, dequantize, data)?) else { return Ok(false) };
    if before != after || wires.outputs.contains(&quantized) {
        return Ok(false);
    }
    let alone = wires.uses.get(&source) == Some(&1);
    let alone = alone && wires.links.consumers(quantized).len() == 1 && model.annotations.encoding(source).is_none();
    let made = wires.links.producer(source).is_some();
    wires.drop_maker(output);
    let clip = after.one_sided()?.filter(|ends| made && !(ends.0 == 0.0 && never_negative(model, &wires.links, source)));
    let annotated = match made {
        _ if clip.is_some() => output,
        true if alone => {
            wires.rename_output(model, source, output);
            output
        }
        false if alone && (wires.inputs.contains(&source) || model.constant(source).is_some()) && !wires.outputs.contains(&output) => {
            wires.replace_uses(model, output, source);
            source
        }
        // The value is also read unquantized, or on another grid: the quantized value becomes a new value.
        _ => {
            let name = names.nodes.fresh(&format!("{}_Identity", model.values[output].name));
            wires.push(model, Node::new("Identity", name, &[source], &[output]));
            output
        }
    };
    if let Some(ends) = clip {
        push_clip(model, (wires, names), [source, output], ends, &after.scale)?;
    }
    model.annotations.entry(annotated).encoding = Some(after.encoding()?);
    Ok(true)
}

/// `Where(x < threshold, low, high)`, the choice between the two levels of an activation, becomes the encoding of its output.
fn lift_choice(model: &mut Model, choose: &Node, wires: &mut Wires, names: &mut Taken) -> Result<bool> {
    let (Some(below), Some(output)) = (choose.input(0), choose.output(0)) else { return Ok(false) };
    let Some(at) = wires.links.producer(below) else { return Ok(false) };
    let less = model.graph.nodes[at].clone();
    let Some(source) = less.input(0).filter(|_| less.op_type == "Less" && less.is_onnx()) else { return Ok(false) };
    let number = |v: Option<ValueId>| v.and_then(|v| model.constant(v)).filter(|t| t.len() == 1)?.to_f32_vec().ok()?.first().copied();
    let levels = (number(choose.input(1)), number(choose.input(2)), number(less.input(1)));
    let (Some(low), Some(high), Some(threshold)) = levels else { return Ok(false) };
    let Some(encoding) = encodings::binary::read_activation(low, high, threshold) else { return Ok(false) };
    if wires.outputs.contains(&below) || model.constant(source).is_some() {
        return Ok(false);
    }
    let alone = wires.uses.get(&source) == Some(&1) && wires.uses.get(&below) == Some(&1);
    let made = wires.links.producer(source).is_some() && model.annotations.encoding(source).is_none();
    wires.drop_maker(output);
    if alone && made {
        wires.rename_output(model, source, output);
    } else {
        let name = names.nodes.fresh(&format!("{}_Identity", model.values[output].name));
        wires.push(model, Node::new("Identity", name, &[source], &[output]));
    }
    model.annotations.entry(output).encoding = Some(encoding);
    Ok(true)
}

/// A Clip between two values, its bounds of the type of `like`.
fn push_clip(
    model: &mut Model,
    (wires, names): (&mut Wires, &mut Taken),
    [from, to]: [ValueId; 2],
    (low, high): (f64, f64),
    like: &Tensor,
) -> Result<()> {
    let base = model.values[to].name.clone();
    let mut node = Node::new("Clip", names.nodes.fresh(&format!("{base}_Clip")), &[from], &[to]);
    for (suffix, bound) in [("min", low), ("max", high)] {
        if model.onnx_opset() < 11 {
            node.attributes.set(suffix, AttributeValue::Float(bound as f32));
            continue;
        }
        let id = model.values.add_constant(names.values.fresh(&format!("{base}_{suffix}")), like.scalar_like(bound)?);
        model.graph.constants.push(id);
        node.inputs.push(Some(id));
    }
    wires.push(model, node);
    Ok(())
}

/// The grid of a quantization node, if it is uniform with constant parameters.
fn grid(model: &Model, node: &Node, integers: Option<&Tensor>) -> Result<Option<Grid>> {
    let constant = |i: usize| node.input(i).and_then(|v| model.constant(v)).cloned();
    let Some(scale) = constant(1) else { return Ok(None) };
    if node.input(2).is_some() && constant(2).is_none() {
        return Ok(None);
    }
    let block_size = node.int_or("block_size", 0)?;
    let dtype = match (constant(2), integers) {
        (Some(zero_point), _) => zero_point.dtype(),
        (None, Some(integers)) => integers.dtype(),
        (None, None) => tensor::DType::U8,
    };
    if !dtype.is_int() || (scale.rank() > 1 && block_size == 0) || (block_size != 0 && scale.dtype() != tensor::DType::F32) {
        return Ok(None);
    }
    let zeros = || Tensor::full(0f32, scale.shape()).and_then(|z| z.cast(dtype));
    let zero_point = constant(2).map_or_else(zeros, Ok)?;
    if let (Some(integers), true) = (integers, block_size != 0) {
        let axis = tensor::shape::axis("DequantizeLinear", node.int_or("axis", 1)?, integers.rank());
        let axis = axis.map_err(|e| DeployError::Lower { value: node.label(&model.values), what: e.to_string() })?;
        let Some(size) = usize::try_from(block_size).ok() else { return Ok(None) };
        let blocks = Blocks { along: Along { axis, flat: false }, size };
        let wanted = blocks.scale_shape(integers.shape()).unwrap_or_default();
        let fits = wanted == scale.shape() && zero_point.shape() == scale.shape() && dtype.bits() <= 16 && positive(&scale);
        return Ok(fits.then_some(Grid { scale, zero_point, axis: None, blocks: Some(blocks) }));
    }
    if block_size != 0 {
        return Ok(None);
    }
    // One scale is for the whole tensor, unless the node says along which axis it lies.
    let per_tensor = scale.rank() == 0 || scale.len() == 1 && (integers.is_none() || node.attributes.get("axis").is_none());
    if per_tensor {
        return Ok(Some(Grid { scale: scale.reshape([])?, zero_point: zero_point.reshape([])?, axis: None, blocks: None }));
    }
    // Along an axis, constants alone are lifted.
    let data = integers.or_else(|| node.input(0).and_then(|v| model.constant(v)));
    let Some(rank) = data.map(Tensor::rank) else { return Ok(None) };
    let axis = tensor::shape::axis("DequantizeLinear", node.int_or("axis", 1)?, rank);
    let axis = Some(axis.map_err(|e| DeployError::Lower { value: node.label(&model.values), what: e.to_string() })?);
    Ok(Some(Grid { scale, zero_point, axis, blocks: None }))
}
