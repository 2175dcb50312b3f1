//! Lifting: a file with QuantizeLinear and DequantizeLinear becomes an annotated graph again, so that it can be pruned,
//! trained and compared like one that was quantized here. The inverse of [`crate::lower`].
use crate::grid::Grid;
use crate::{DeployError, Result};
use graph::{Model, Node, ValueId};
use tensor::Tensor;

/// Turns the main graph's quantization operators into annotations, as far as they stand for a value on a grid: a constant
/// behind DequantizeLinear, and pairs of QuantizeLinear and DequantizeLinear with one grid. Returns how many values were
/// annotated; what is left (a pair that changes the grid, block-wise scales) stays as operators and computes the same.
///
/// # Errors
/// Whatever a constant that cannot be read reports.
pub fn lift(model: &mut Model) -> Result<usize> {
    let dequantizers: Vec<Node> = model.graph.nodes.iter().filter(|n| n.op_type == "DequantizeLinear" && n.is_onnx()).cloned().collect();
    let mut lifted = 0;
    for node in &dequantizers {
        lifted += usize::from(lift_constant(model, node)? || lift_pair(model, node)?);
    }
    model.remove_dead();
    model.graph.sort(&model.values)?;
    Ok(lifted)
}

/// A constant behind DequantizeLinear becomes a float constant under the node's output, with an encoding.
fn lift_constant(model: &mut Model, node: &Node) -> Result<bool> {
    let (Some(input), Some(output)) = (node.input(0), node.output(0)) else { return Ok(false) };
    let Some(integers) = model.constant(input).cloned() else { return Ok(false) };
    let Some(grid) = grid(model, node, Some(&integers))? else { return Ok(false) };
    let encoding = grid.encoding()?;
    let what = |e: encodings::EncodingError| DeployError::Lower { value: model.values[output].name.clone(), what: e.to_string() };
    let real = encodings::affine::dequantize(&integers, &encoding).map_err(what)?;
    let name = model.values[output].name.clone();
    let constant = model.values.add_constant(name, real);
    model.values[output] = model.values[constant].clone();
    model.graph.nodes.retain(|n| n.output(0) != Some(output));
    model.graph.constants.push(output);
    model.annotations.entry(output).encoding = Some(encoding);
    Ok(true)
}

/// QuantizeLinear and DequantizeLinear on one grid become the encoding of the value that their readers read.
fn lift_pair(model: &mut Model, dequantize: &Node) -> Result<bool> {
    let (Some(quantized), Some(output)) = (dequantize.input(0), dequantize.output(0)) else { return Ok(false) };
    let Some(at) = model.graph.producer(quantized) else { return Ok(false) };
    let quantize = model.graph.nodes[at].clone();
    if quantize.op_type != "QuantizeLinear" || !quantize.is_onnx() {
        return Ok(false);
    }
    let Some(source) = quantize.input(0) else { return Ok(false) };
    let (Some(before), Some(after)) = (grid(model, &quantize, None)?, grid(model, dequantize, None)?) else { return Ok(false) };
    if before != after || model.graph.outputs.contains(&quantized) {
        return Ok(false);
    }
    let alone = model.graph.use_counts().get(&source) == Some(&1);
    let alone = alone && model.graph.consumers(quantized).len() == 1 && model.annotations.encoding(source).is_none();
    let made = model.graph.producer(source);
    model.graph.nodes.retain(|n| n.output(0) != Some(output));
    let annotated = match made {
        Some(_) if alone => {
            rename_output(model, source, output);
            output
        }
        None if alone && model.graph.inputs.contains(&source) && !model.graph.outputs.contains(&output) => {
            model.graph.replace_uses(output, source);
            source
        }
        // Somebody reads the value unquantized, or on another grid: the quantized reading gets a value of its own.
        _ => {
            let label = model.values[output].name.clone();
            model.graph.nodes.push(Node::new("Identity", format!("{label}_Identity"), &[source], &[output]));
            output
        }
    };
    model.annotations.entry(annotated).encoding = Some(after.encoding()?);
    Ok(true)
}

/// Makes the node that writes `from` write `to`.
fn rename_output(model: &mut Model, from: ValueId, to: ValueId) {
    for node in &mut model.graph.nodes {
        for v in node.outputs.iter_mut().flatten().filter(|v| **v == from) {
            *v = to;
        }
        // QuantizeLinear, now without readers, must not read a value that nobody makes.
        for v in node.inputs.iter_mut().flatten().filter(|v| **v == from) {
            *v = to;
        }
    }
}

/// The grid of a quantization node, if it is uniform with constant parameters.
fn grid(model: &Model, node: &Node, integers: Option<&Tensor>) -> Result<Option<Grid>> {
    let constant = |i: usize| node.input(i).and_then(|v| model.constant(v)).cloned();
    let Some(scale) = constant(1) else { return Ok(None) };
    if node.int_or("block_size", 0)? != 0 || (node.input(2).is_some() && constant(2).is_none()) {
        return Ok(None);
    }
    let dtype = match (constant(2), integers) {
        (Some(zero_point), _) => zero_point.dtype(),
        (None, Some(integers)) => integers.dtype(),
        (None, None) => tensor::DType::U8,
    };
    if !dtype.is_int() || scale.rank() > 1 {
        return Ok(None);
    }
    let zeros = || Tensor::full(0f32, scale.shape()).and_then(|z| z.cast(dtype));
    let zero_point = constant(2).map_or_else(zeros, Ok)?;
    let axis = match scale.rank() {
        0 => None,
        _ if scale.len() == 1 && integers.is_none() => None,
        _ => {
            let rank = integers.map_or(0, Tensor::rank);
            let axis = tensor::shape::axis("DequantizeLinear", node.int_or("axis", 1)?, rank);
            Some(axis.map_err(|e| DeployError::Lower { value: node.label(&model.values), what: e.to_string() })?)
        }
    };
    Ok(Some(Grid { scale, zero_point, axis }))
}
