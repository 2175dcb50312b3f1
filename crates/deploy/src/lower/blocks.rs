//! Weights with a scale for each block of elements: DequantizeLinear with `block_size`, or Cast and Mul.
//!
//! A weight whose blocks run along several axes (the inputs of a convolution and its kernel) is stored with these as one, and a Reshape gives it its
//! shape. Behind Cast the integers are stored as `[outer, blocks, size, inner]` beside scales `[outer, blocks, 1, inner]`; where the last block is
//! shorter the scales are repeated for each element and cut off instead.
use super::decode_nodes::DecodeNodes;
use crate::grid::Grid;
use crate::{DeployError, Result};
use encodings::EncodingError;
use encodings::affine::Blocks;
use graph::{AttributeValue, Node, ValueId, code_of_dtype};
use tensor::{DType, Tensor};

/// DequantizeLinear with `block_size`, and a Reshape where the weight is flattened.
///
/// # Errors
/// Whatever the reshaping reports.
pub(super) fn dequantize(mut work: DecodeNodes, id: ValueId, data: &Tensor, (grid, blocks): (&Grid, &Blocks)) -> Result<Vec<Node>> {
    let name = work.to.name(id);
    let fail = |e: EncodingError| DeployError::Lower { value: name.clone(), what: e.to_string() };
    let stored = blocks.stored_shape(data.shape()).map_err(fail)?;
    let scales = blocks.scale_shape(data.shape()).map_err(fail)?;
    let size = blocks.layout(data.shape()).map_err(fail)?.size;
    let mut inputs = vec![work.constant("quantized", data.reshape(stored.as_slice())?)];
    inputs.push(work.constant("scale", grid.scale.reshape(scales.as_slice())?));
    if !grid.is_symmetric() {
        inputs.push(work.constant("zero_point", grid.zero_point.reshape(scales)?));
    }
    let flat = stored != data.shape();
    let decoded = if flat { work.step("DequantizeLinear", &inputs) } else { id };
    if !flat {
        work.last("DequantizeLinear", &inputs, id);
    }
    work.with("axis", AttributeValue::Int(blocks.along.axis as i64));
    // No more than what is there: ONNX Runtime refuses a block that is longer than the axis.
    work.with("block_size", AttributeValue::Int(size as i64));
    if flat {
        reshape(&mut work, decoded, data.shape(), id);
    }
    Ok(work.nodes)
}

/// Cast and Mul: what DequantizeLinear computes, and a runtime that folds constants computes once. Scales that f16 holds exactly are stored
/// in it.
///
/// # Errors
/// Whatever the reshaping reports.
pub(super) fn cast_and_scale(mut work: DecodeNodes, id: ValueId, data: &Tensor, (grid, blocks): (&Grid, &Blocks)) -> Result<Vec<Node>> {
    let name = work.to.name(id);
    let l = blocks.layout(data.shape()).map_err(|e| DeployError::Lower { value: name, what: e.to_string() })?;
    let whole = l.length.is_multiple_of(l.size);
    let parts = if whole { vec![l.outer, l.count(), l.size, l.inner] } else { vec![l.outer, l.length, l.inner] };
    let integers = work.constant("quantized", data.reshape(parts.as_slice())?);
    let scales = grid.scale.reshape([l.outer, l.count(), 1, l.inner])?;
    let half = scales.cast(DType::F16)?;
    let mut scale = match half.cast(DType::F32)? == scales {
        true => {
            let half = work.constant("scale", half);
            work.cast(half, code_of_dtype(DType::F32))
        }
        false => work.constant("scale", scales),
    };
    let float = work.cast(integers, code_of_dtype(DType::F32));
    if !whole {
        let shape = |dims: &[usize]| Tensor::vector(dims.iter().map(|d| *d as i64).collect::<Vec<i64>>());
        let repeated = work.constant("repeated", shape(&[l.outer, l.count(), l.size, l.inner]));
        scale = work.step("Expand", &[scale, repeated]);
        let rows = work.constant("rows", shape(&[l.outer, l.count() * l.size, l.inner]));
        scale = work.step("Reshape", &[scale, rows]);
        let [from, to, axis] = [("from", 0), ("to", l.length), ("axis", 1)].map(|(name, n)| work.constant(name, shape(&[n])));
        scale = work.step("Slice", &[scale, from, to, axis]);
    }
    if parts == data.shape() {
        work.last("Mul", &[float, scale], id);
    } else {
        let product = work.step("Mul", &[float, scale]);
        reshape(&mut work, product, data.shape(), id);
    }
    Ok(work.nodes)
}

fn reshape(work: &mut DecodeNodes, from: ValueId, shape: &[usize], to: ValueId) {
    let shape = work.constant("shape", Tensor::vector(shape.iter().map(|d| *d as i64).collect::<Vec<i64>>()));
    work.last("Reshape", &[from, shape], to);
}
