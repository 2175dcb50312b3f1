//! Operators from grid to grid: each reads integers with scales and zero points and rounds its result to an output grid. All of
//! them compute as the float operator between DequantizeLinear and QuantizeLinear.
use super::DOMAIN;
use crate::qlinear::requantize;
use crate::shapes::{broadcast_inputs, same, typed};
use crate::simple::{Eval, Infer, Simple};
use crate::{Effect, EvalCx, Inputs, IntegerForm, OpError, Operator, ShapeCx, Slot};
use graph::ValueType;
use tensor::{DType, Tensor, shape};

const fn quantized(op_type: &'static str, summary: &'static str, eval: Eval, infer: Infer) -> Simple {
    Simple::new(op_type, summary, &[1], eval, infer).domain(DOMAIN).effect(|_| Effect::AlreadyQuantized("it computes on integers already"))
}

const fn form(of: &'static str, slots: &'static [Slot], attributes: &'static [&'static str]) -> IntegerForm {
    IntegerForm { of, slots, weight: None, attributes, opset: false }
}

const ADD: IntegerForm = form("Add", IntegerForm::PAIR, &[]);
const MUL: IntegerForm = form("Mul", IntegerForm::PAIR, &[]);
const LEAKY_RELU: IntegerForm = form("LeakyRelu", IntegerForm::ONE, &["alpha"]);
const SIGMOID: IntegerForm = form("Sigmoid", IntegerForm::ONE, &[]);
const SOFTMAX: IntegerForm = IntegerForm { opset: true, ..form("Softmax", IntegerForm::ONE, &["axis"]) };
const AVERAGE_POOL: IntegerForm =
    form("AveragePool", IntegerForm::ONE, &["auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"]);
const GLOBAL_AVERAGE_POOL: IntegerForm = form("GlobalAveragePool", IntegerForm::ONE, &[]);
const CONCAT: IntegerForm = form("Concat", &[Slot::OutputScale, Slot::OutputZeroPoint, Slot::EachInput], &["axis"]);
const WHERE: IntegerForm = form(
    "Where",
    &[
        Slot::Plain(0),
        Slot::Integers(1),
        Slot::Scale(1),
        Slot::ZeroPoint(1),
        Slot::Integers(2),
        Slot::Scale(2),
        Slot::ZeroPoint(2),
        Slot::OutputScale,
        Slot::OutputZeroPoint,
    ],
    &[],
);

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &quantized("QLinearAdd", "Sum of two quantized tensors.", |cx, i| pair(cx, i, Tensor::add), infer_pair).integer_form(&ADD),
    &quantized("QLinearMul", "Product of two quantized tensors, element by element.", |cx, i| pair(cx, i, Tensor::mul), infer_pair)
        .integer_form(&MUL),
    &quantized(
        "QLinearLeakyRelu",
        "LeakyRelu of a quantized tensor.",
        |cx, i| map(cx, i, |cx, x| Ok(x.leaky_relu(f64::from(cx.node.float_or("alpha", 0.01)?))?)),
        same,
    )
    .integer_form(&LEAKY_RELU),
    &quantized("QLinearSigmoid", "Sigmoid of a quantized tensor.", |cx, i| map(cx, i, |_, x| Ok(x.sigmoid()?)), same)
        .integer_form(&SIGMOID),
    &quantized("QLinearSoftmax", "Softmax of a quantized tensor.", |cx, i| map(cx, i, softmax), same).integer_form(&SOFTMAX),
    &quantized("QLinearAveragePool", "AveragePool of a quantized tensor.", |cx, i| map(cx, i, average), crate::pool::infer_pool)
        .integer_form(&AVERAGE_POOL),
    &quantized(
        "QLinearGlobalAveragePool",
        "Mean of a quantized tensor over all spatial axes.",
        |cx, i| map(cx, i, global),
        crate::pool::infer_global,
    )
    .integer_form(&GLOBAL_AVERAGE_POOL),
    &quantized("QLinearConcat", "Joins quantized tensors along an axis.", concat, |cx| Ok(vec![typed(cx.dtype(1), None)]))
        .integer_form(&CONCAT),
    &quantized("QLinearWhere", "Elements of one of two quantized tensors by a condition.", choose, infer_where).integer_form(&WHERE),
];

/// The tensor at `at` as floats, by the scale and the zero point behind it.
fn real(inputs: &Inputs, at: usize) -> Result<Tensor, OpError> {
    let mut x = inputs.get(at)?.cast(DType::F32)?;
    if let Some(zero) = inputs.opt(at + 2) {
        x = x.sub(&scalar(zero)?)?;
    }
    Ok(x.mul(&scalar(inputs.get(at + 1)?)?)?)
}

fn scalar(t: &Tensor) -> Result<Tensor, OpError> {
    Ok(t.cast(DType::F32)?.reshape([])?)
}

/// A result on the grid whose scale is at `at`, with its zero point behind it.
fn stored(cx: &EvalCx, inputs: &Inputs, y: &Tensor, at: usize) -> Result<Vec<Tensor>, OpError> {
    let steps = y.div(&scalar(inputs.get(at)?)?)?.cast(DType::F64)?;
    match inputs.opt(at + 1) {
        Some(zero) => requantize(cx, &steps, zero, 0),
        None => requantize(cx, &steps, &Tensor::scalar(0u8).cast(inputs.get(0)?.dtype())?, 0),
    }
}

fn pair(cx: &EvalCx, inputs: Inputs, f: fn(&Tensor, &Tensor) -> tensor::Result<Tensor>) -> Result<Vec<Tensor>, OpError> {
    let y = f(&real(&inputs, 0)?, &real(&inputs, 3)?)?;
    stored(cx, &inputs, &y, 6)
}

fn map(cx: &EvalCx, inputs: Inputs, f: fn(&EvalCx, Tensor) -> Result<Tensor, OpError>) -> Result<Vec<Tensor>, OpError> {
    let y = f(cx, real(&inputs, 0)?)?;
    stored(cx, &inputs, &y, 3)
}

fn softmax(cx: &EvalCx, x: Tensor) -> Result<Tensor, OpError> {
    let as_of = cx.at_opset(cx.node.int_or("opset", 13)?);
    Ok(crate::softmax::along(&as_of, Inputs::new(vec![Some(x)]), Tensor::softmax)?.remove(0))
}

fn channels_first(cx: &EvalCx) -> Result<(), OpError> {
    match cx.node.int_or("channels_last", 0)? {
        0 => Ok(()),
        _ => Err(OpError::unsupported(cx.node, "channels on the last axis")),
    }
}

fn average(cx: &EvalCx, x: Tensor) -> Result<Tensor, OpError> {
    channels_first(cx)?;
    Ok(x.average_pool(&crate::pool::options(cx, &x)?)?)
}

fn global(cx: &EvalCx, x: Tensor) -> Result<Tensor, OpError> {
    channels_first(cx)?;
    Ok(x.mean(&(2..x.rank()).collect::<Vec<_>>(), true)?)
}

fn concat(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let parts = (2..inputs.len()).step_by(3).map(|at| real(&inputs, at)).collect::<Result<Vec<_>, _>>()?;
    let rank = parts.first().map_or(0, Tensor::rank);
    let axis = shape::axis("axis", cx.node.int_or("axis", 0)?, rank)?;
    let y = Tensor::concat(&parts, axis)?;
    stored(cx, &inputs, &y, 0)
}

fn choose(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let y = Tensor::where_(inputs.get(0)?, &real(&inputs, 1)?, &real(&inputs, 4)?)?;
    stored(cx, &inputs, &y, 7)
}

fn infer_pair(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    Ok(vec![typed(cx.dtype(0), broadcast_inputs(cx, [0, 3].into_iter())?)])
}

fn infer_where(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    Ok(vec![typed(cx.dtype(1), broadcast_inputs(cx, [0, 1, 4].into_iter())?)])
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;
    use tensor::Tensor;

    fn grid(scale: f32, zero: u8) -> [Tensor; 2] {
        [Tensor::scalar(scale), Tensor::scalar(zero)]
    }

    fn run(op: &str, list: &[&[Tensor]], change: impl Fn(Case) -> Case) -> Vec<i64> {
        change(Case::of("com.microsoft", op, 1)).run(&list.concat()).to_i64_vec().unwrap()
    }

    #[test]
    fn results_are_rounded_to_their_own_grid() {
        let x = || [Tensor::new(vec![10u8, 20, 30, 255], [1, 1, 2, 2]).unwrap()];
        let (a, b, out) = (grid(0.5, 10), grid(1.0, 0), grid(2.0, 3));
        let same = |c: Case| c;
        // 0, 5, 10, 122.5 and 10, 20, 30, 255.
        assert_eq!(run("QLinearAdd", &[&x(), &a, &x(), &b, &out], same), [8, 15, 23, 192]);
        assert_eq!(run("QLinearMul", &[&x(), &a, &x(), &b, &out], same), [3, 53, 153, 255]);
        assert_eq!(run("QLinearGlobalAveragePool", &[&x(), &a, &out], same), [20]);
        assert_eq!(run("QLinearSigmoid", &[&x(), &a, &grid(1.0 / 256.0, 0)], same), [128, 254, 255, 255]);
        assert_eq!(run("QLinearConcat", &[&out, &x(), &a, &x(), &b], |c| c.int("axis", 1)), [3, 5, 8, 64, 8, 13, 18, 131]);
        let pool = |c: Case| c.ints("kernel_shape", &[1, 2]);
        assert_eq!(run("QLinearAveragePool", &[&x(), &a, &out], pool), [4, 36]);
        let condition = [Tensor::new(vec![true, false, true, false], [1, 1, 2, 2]).unwrap()];
        assert_eq!(run("QLinearWhere", &[&condition, &x(), &a, &x(), &b, &out], same), [3, 13, 8, 131]);
    }

    #[test]
    fn negative_slopes_and_softmax() {
        let x = [Tensor::new(vec![0u8, 10, 20], [1, 3]).unwrap()];
        assert_eq!(run("QLinearLeakyRelu", &[&x, &grid(1.0, 10), &grid(1.0, 10)], |c| c.float("alpha", 0.5)), [5, 10, 20]);
        let half = [Tensor::new(vec![7u8, 7], [1, 2]).unwrap()];
        assert_eq!(run("QLinearSoftmax", &[&half, &grid(1.0, 0), &grid(1.0 / 256.0, 0)], |c| c.int("axis", -1)), [128, 128]);
    }
}
