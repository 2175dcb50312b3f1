//! Operators on quantized tensors: ConvInteger, QLinearConv, QLinearMatMul.
use crate::conv::{conv_shape, options};
use crate::quantize_linear::to_grid;
use crate::saturation;
use crate::shapes::typed;
use crate::simple::{Simple, one};
use crate::window::{Window, spatial};
use crate::{Effect, EvalCx, Inputs, IntegerForm, OpError, Operator, ShapeCx, Slot};
use graph::{Node, ValueType};
use tensor::{DType, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("ConvInteger", "Convolution of 8-bit integers into 32-bit ones.", &[10], conv_integer, |cx| {
        Ok(vec![typed(Some(DType::I32), conv_shape(cx, 0, 1)?)])
    })
    .effect(INTEGERS),
    &Simple::new("QLinearConv", "Convolution of quantized tensors into a quantized tensor.", &[10], qlinear_conv, |cx| {
        Ok(vec![typed(cx.dtype(7), conv_shape(cx, 0, 3)?)])
    })
    .effect(INTEGERS)
    .integer_form(&CONV),
    &Simple::new("QLinearMatMul", "Matrix product of quantized tensors into a quantized tensor.", &[10, 21], qlinear_matmul, infer_matmul)
        .effect(INTEGERS)
        .integer_form(&MATMUL),
];

const INTEGERS: fn(&Node) -> Effect = |_| Effect::AlreadyQuantized("it computes on integers already");

const CONV: IntegerForm = IntegerForm {
    of: "Conv",
    slots: &[
        Slot::Integers(0),
        Slot::Scale(0),
        Slot::ZeroPoint(0),
        Slot::Integers(1),
        Slot::Scale(1),
        Slot::ZeroPoint(1),
        Slot::OutputScale,
        Slot::OutputZeroPoint,
        Slot::Bias(2),
    ],
    weight: Some(1),
    attributes: &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"],
    opset: false,
};

const MATMUL: IntegerForm = IntegerForm { of: "MatMul", slots: IntegerForm::PAIR, weight: Some(1), attributes: &[], opset: false };

/// Elements minus zero point, exact as f64; the zero point may have one element for each index of `axis`.
pub(crate) fn centred(node: &Node, x: &Tensor, zero_point: Option<&Tensor>, axis: usize) -> Result<Tensor, OpError> {
    let values = x.cast(DType::F64)?;
    match zero_point {
        None => Ok(values),
        Some(z) => Ok(values.sub(&along(node, &z.cast(DType::F64)?, x.rank(), axis)?)?),
    }
}

/// A scalar, a vector laid along an axis, or a tensor of full rank as it is.
pub(crate) fn along(node: &Node, v: &Tensor, rank: usize, axis: usize) -> Result<Tensor, OpError> {
    match v.rank() {
        _ if v.len() == 1 => Ok(v.reshape(vec![])?),
        1 if axis < rank => {
            let mut shape = vec![1; rank];
            shape[axis] = v.len();
            Ok(v.reshape(shape)?)
        }
        r if r == rank => Ok(v.clone()),
        _ => Err(OpError::unsupported(node, format!("scales or zero points of shape {:?}", v.shape()))),
    }
}

/// The convolution's sums, integers held as f64 (8-bit products fit with room for 2^37 of them), from data and weight with their
/// zero points.
fn integer_conv(cx: &EvalCx, (x, zx): (&Tensor, Option<&Tensor>), (w, zw): (&Tensor, Option<&Tensor>)) -> Result<Tensor, OpError> {
    let window = Window::of_weight(cx.node, w.shape())?.padded_for(cx.node, spatial(cx.node, x.shape())?)?;
    let sums = centred(cx.node, x, zx, 1)?.conv(&centred(cx.node, w, zw, 0)?, None, &options(cx.node, &window)?)?;
    match saturation::of_conv(cx, x, zx, w, &window)? {
        Some(lost) => Ok(sums.add(&lost)?),
        None => Ok(sums),
    }
}

fn conv_integer(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    one(integer_conv(cx, (inputs.get(0)?, inputs.opt(2)), (inputs.get(1)?, inputs.opt(3)))?.cast(DType::I32)?)
}

fn qlinear_conv(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let mut sums = integer_conv(cx, (x, inputs.opt(2)), (inputs.get(3)?, inputs.opt(5)))?;
    if let Some(bias) = inputs.opt(8) {
        sums = sums.add(&along(cx.node, &bias.cast(DType::F64)?, x.rank(), 1)?)?;
    }
    // One division at the end, so that a sum halfway between two integers stays exactly halfway.
    let scale = inputs.get(1)?.cast(DType::F64)?.mul(&inputs.get(4)?.cast(DType::F64)?)?;
    let real = sums.mul(&along(cx.node, &scale, x.rank(), 1)?)?;
    requantize(cx, &real.div(&along(cx.node, &inputs.get(6)?.cast(DType::F64)?, x.rank(), 1)?)?, inputs.get(7)?, 1)
}

fn qlinear_matmul(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (rank_a, rank_b) = (inputs.get(0)?.rank(), inputs.get(3)?.rank());
    let (row, column) = (rank_a.saturating_sub(2), rank_b.saturating_sub(1));
    let scale = |i: usize, rank: usize, axis: usize| along(cx.node, &inputs.get(i + 1)?.cast(DType::F64)?, rank, axis);
    let side = |i: usize, rank: usize, axis: usize| -> Result<Tensor, OpError> {
        Ok(centred(cx.node, inputs.get(i)?, inputs.opt(i + 2), axis)?.mul(&scale(i, rank, axis)?)?)
    };
    let mut y = side(0, rank_a, row)?.matmul(&side(3, rank_b, column)?)?;
    if let Some(lost) = saturation::of_product(cx, inputs.get(0)?, inputs.get(3)?)? {
        y = y.add(&lost.mul(&scale(0, rank_a, row)?)?.mul(&scale(3, rank_b, column)?)?)?;
    }
    let scale = inputs.get(6)?.cast(DType::F64)?;
    let axis = y.rank().saturating_sub(1);
    requantize(cx, &y.div(&along(cx.node, &scale, y.rank(), axis)?)?, inputs.get(7)?, axis)
}

/// Rounds values in units of the output's step onto the grid of the zero point's type.
pub(crate) fn requantize(cx: &EvalCx, steps: &Tensor, zero_point: &Tensor, axis: usize) -> Result<Vec<Tensor>, OpError> {
    let shift = along(cx.node, &zero_point.cast(DType::F64)?, steps.rank(), axis)?;
    one(to_grid(cx.node, &steps.round()?.add(&shift)?, zero_point.dtype())?)
}

fn infer_matmul(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    Ok(vec![typed(cx.dtype(7), None)])
}
