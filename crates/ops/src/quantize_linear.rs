//! QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.
//!
//! Integers have no gradient: to train through a quantizer, it is first lifted to an encoding, whose simulation has a
//! straight-through gradient.
use crate::dtypes::dtype_attribute;
use crate::shapes::typed;
use crate::simple::{Simple, one};
use crate::{Effect, EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{Dim, Node, ValueType};
use tensor::{CastOptions, DType, Tensor};

/// The ONNX operator set version that the quantizers of `com.microsoft` correspond to.
const NEWER: i64 = 21;

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new(
        "QuantizeLinear",
        "Rounds x / scale + zero_point to a low-precision type, per tensor, per axis or per block.",
        &[10, 13, 19, 21, 23, 24, 25, 28],
        quantize,
        infer_quantize,
    )
    .effect(|_| Effect::NotQuantizable("it is a quantizer itself")),
    &Simple::new(
        "DequantizeLinear",
        "(x - zero_point) * scale, per tensor, per axis or per block.",
        &[10, 13, 19, 21, 23, 24, 25, 28],
        dequantize,
        infer_dequantize,
    )
    .effect(|_| Effect::NotQuantizable("it is a quantizer itself")),
    // ONNX Runtime's own operators, which its tools write for types that the model's operator set lacks.
    &Simple::new(
        "QuantizeLinear",
        "The ONNX operator of this name, for types that older operator sets lack.",
        &[1],
        |cx, i| quantize(&cx.at_opset(NEWER), i),
        infer_quantize,
    )
    .domain(crate::microsoft::DOMAIN)
    .effect(|_| Effect::NotQuantizable("it is a quantizer itself")),
    &Simple::new(
        "DequantizeLinear",
        "The ONNX operator of this name, for types that older operator sets lack.",
        &[1],
        |cx, i| dequantize(&cx.at_opset(NEWER), i),
        infer_dequantize,
    )
    .domain(crate::microsoft::DOMAIN)
    .effect(|_| Effect::NotQuantizable("it is a quantizer itself")),
    &Simple::new("DynamicQuantizeLinear", "Quantizes to uint8 with a scale from the data's own range.", &[11], dynamic, |cx| {
        let scalar = |d| typed(Some(d), Some(vec![]));
        Ok(vec![typed(Some(DType::U8), cx.shape(0).map(<[Dim]>::to_vec)), scalar(DType::F32), scalar(DType::U8)])
    }),
];

/// Smallest and largest integer of a type that values are quantized to.
fn range(dtype: DType) -> Option<(f64, f64)> {
    use DType::*;
    Some(match dtype {
        I2 => (-2., 1.),
        U2 => (0., 3.),
        I4 => (-8., 7.),
        U4 => (0., 15.),
        I8 => (-128., 127.),
        U8 => (0., 255.),
        I16 => (-32768., 32767.),
        U16 => (0., 65535.),
        I32 => (i32::MIN as f64, i32::MAX as f64),
        _ => return None,
    })
}

fn is_small_float(dtype: DType) -> bool {
    use DType::*;
    matches!(dtype, F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1)
}

/// Saturates rounded values and stores them as an integer type.
pub(crate) fn to_grid(node: &Node, values: &Tensor, dtype: DType) -> Result<Tensor, OpError> {
    let Some((lo, hi)) = range(dtype) else {
        return Err(OpError::unsupported(node, format!("quantizing to {dtype}")));
    };
    Ok(values.clip(Some(lo), Some(hi))?.cast(dtype)?)
}

/// Scales or zero points in a shape that broadcasts to the data.
fn granular(node: &Node, opset: i64, v: &Tensor, shape: &[usize]) -> Result<Tensor, OpError> {
    let block = node.int_or("block_size", 0)?;
    if v.len() == 1 && v.rank() <= 1 && block == 0 {
        return Ok(v.reshape(vec![])?);
    }
    if opset < 13 {
        return Err(OpError::unsupported(node, "scales for each axis before operator set 13"));
    }
    let axis = tensor::shape::axis("axis", node.int_or("axis", 1)?, shape.len())?;
    if block == 0 {
        if v.rank() != 1 || v.len() != shape[axis] {
            return Err(node.error(format!("scales of shape {:?} for axis {axis} of data of shape {shape:?}", v.shape())).into());
        }
        let mut laid = vec![1; shape.len()];
        laid[axis] = v.len();
        return Ok(v.reshape(laid)?);
    }
    let size = usize::try_from(block).ok().filter(|b| *b > 0).ok_or_else(|| node.attribute_error("block_size", "must be positive"))?;
    let fits = v.rank() == shape.len()
        && v.shape().iter().enumerate().all(|(i, d)| *d == if i == axis { shape[i].div_ceil(size) } else { shape[i] });
    if !fits {
        return Err(node.error(format!("scales of shape {:?} for blocks of {size} along axis {axis} of {shape:?}", v.shape())).into());
    }
    let index = Tensor::vector((0..shape[axis]).map(|i| (i / size) as i64).collect());
    Ok(v.gather(&index, axis)?)
}

fn quantize(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, x, scale) = (cx.node, inputs.get(0)?, inputs.get(1)?);
    let zero_point = inputs.opt(2);
    let asked = dtype_attribute_or_none(node, "output_dtype")?;
    let to = zero_point.map(Tensor::dtype).or(asked).unwrap_or(DType::U8);
    if asked.is_some_and(|d| d != to) {
        return Err(node.attribute_error("output_dtype", format!("is not the zero point's type, {to}")).into());
    }
    // ONNX divides in the type of the scale by default.
    let precision = dtype_attribute_or_none(node, "precision")?.unwrap_or(scale.dtype());
    let precision = if precision.is_float() { precision } else { DType::F32 };
    let scale = granular(node, cx.opset, &scale.cast(precision)?, x.shape())?;
    let steps = x.cast(precision)?.div(&scale)?;
    if is_small_float(to) {
        let saturate = node.int_or("saturate", 1)? != 0;
        let shifted = match zero_point {
            Some(z) => steps.add(&granular(node, cx.opset, &z.cast(precision)?, x.shape())?)?,
            None => steps,
        };
        return one(shifted.cast_with(to, CastOptions { saturate, ..CastOptions::default() })?);
    }
    // Adding in f64 keeps 16-bit zero points exact whatever the precision of the division.
    let mut rounded = steps.round()?.cast(DType::F64)?;
    if let Some(z) = zero_point {
        rounded = rounded.add(&granular(node, cx.opset, &z.cast(DType::F64)?, x.shape())?)?;
    }
    one(to_grid(node, &rounded, to)?)
}

/// An element type attribute; 0 means absent.
fn dtype_attribute_or_none(node: &Node, name: &str) -> Result<Option<DType>, OpError> {
    if node.int_or(name, 0)? == 0 { Ok(None) } else { dtype_attribute(node, name) }
}

fn dequantize(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, x, scale) = (cx.node, inputs.get(0)?, inputs.get(1)?);
    if range(x.dtype()).is_none() && !is_small_float(x.dtype()) {
        return Err(OpError::unsupported(node, format!("dequantizing {}", x.dtype())));
    }
    let to = dtype_attribute_or_none(node, "output_dtype")?.unwrap_or(scale.dtype());
    let compute = if to == DType::F64 { DType::F64 } else { DType::F32 };
    let mut values = x.cast(DType::F64)?;
    if let Some(z) = inputs.opt(2) {
        values = values.sub(&granular(node, cx.opset, &z.cast(DType::F64)?, x.shape())?)?;
    }
    let scale = granular(node, cx.opset, &scale.cast(compute)?, x.shape())?;
    one(values.cast(compute)?.mul(&scale)?.cast(to)?)
}

/// Scale and zero point of a grid of 256 steps that covers the values and zero.
pub(crate) fn dynamic_range(values: &[f32]) -> (f32, f32) {
    let (lo, hi) = values.iter().fold((0f32, 0f32), |(lo, hi), v| (lo.min(*v), hi.max(*v)));
    let scale = if hi == lo { 1.0 } else { (hi - lo) / 255.0 };
    (scale, (0.0 - lo / scale).clamp(0.0, 255.0).round_ties_even())
}

fn dynamic(_: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let values = x.to_f32_vec()?;
    let (scale, zero) = dynamic_range(&values);
    let y: Vec<u8> = values.iter().map(|v| ((v / scale).round_ties_even() + zero).clamp(0.0, 255.0) as u8).collect();
    Ok(vec![Tensor::new(y, x.shape())?, Tensor::scalar(scale), Tensor::scalar(zero as u8)])
}

fn infer_quantize(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let asked = dtype_attribute_or_none(cx.node, "output_dtype")?;
    let dtype = if cx.node.input(2).is_some() { cx.dtype(2) } else { Some(asked.unwrap_or(DType::U8)) };
    Ok(vec![typed(dtype, cx.shape(0).map(<[Dim]>::to_vec))])
}

fn infer_dequantize(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let dtype = dtype_attribute_or_none(cx.node, "output_dtype")?.or(cx.dtype(1));
    Ok(vec![typed(dtype, cx.shape(0).map(<[Dim]>::to_vec))])
}
