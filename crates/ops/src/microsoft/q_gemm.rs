//! QGemm: a fully connected layer on integers.
use super::DOMAIN;
use crate::qlinear::{along, centred, requantize};
use crate::saturation;
use crate::shapes::typed;
use crate::simple::{Simple, one};
use crate::{Effect, EvalCx, Inputs, IntegerForm, OpError, Operator, ShapeCx, Slot};
use graph::{Dim, ValueType};
use tensor::{DType, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] =
    &[&Simple::new("QGemm", "Gemm of quantized tensors, into a quantized or a float one.", &[1], eval, infer)
        .domain(DOMAIN)
        .effect(|_| Effect::AlreadyQuantized("it computes on integers already"))
        .integer_form(&FORM)];

const FORM: IntegerForm = IntegerForm {
    of: "Gemm",
    slots: &[
        Slot::Integers(0),
        Slot::Scale(0),
        Slot::ZeroPoint(0),
        Slot::Integers(1),
        Slot::Scale(1),
        Slot::ZeroPoint(1),
        Slot::Bias(2),
        Slot::OutputScale,
        Slot::OutputZeroPoint,
    ],
    weight: Some(1),
    attributes: &["transA", "transB"],
    opset: false,
};

fn eval(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let node = cx.node;
    let flag = |name: &str| node.int_or(name, 0).map(|v| v != 0);
    let (turn_a, turn_b) = (flag("transA")?, flag("transB")?);
    let column = if turn_b { 0 } else { 1 };
    let a = centred(node, inputs.get(0)?, inputs.opt(2), 0)?;
    let b = centred(node, inputs.get(3)?, inputs.opt(5), column)?;
    let turned = |t: Tensor, turn: bool| if turn { t.transpose(&[1, 0]) } else { Ok(t) };
    let mut sums = turned(a, turn_a)?.matmul(&turned(b, turn_b)?)?;
    if let Some(lost) = saturation::of_product(cx, &turned(inputs.get(0)?.clone(), turn_a)?, &turned(inputs.get(3)?.clone(), turn_b)?)? {
        sums = sums.add(&lost)?;
    }
    if let Some(c) = inputs.opt(6) {
        sums = sums.add(&c.cast(DType::F64)?)?;
    }
    let scale = inputs.get(1)?.cast(DType::F64)?.mul(&inputs.get(4)?.cast(DType::F64)?)?;
    let y = sums.mul(&along(node, &scale, 2, 1)?)?.mul_scalar(f64::from(node.float_or("alpha", 1.0)?))?;
    let Some(out) = inputs.opt(7) else { return one(y.cast(inputs.get(1)?.dtype())?) };
    let steps = y.div(&along(node, &out.cast(DType::F64)?, 2, 1)?)?;
    match inputs.opt(8) {
        Some(zero_point) => requantize(cx, &steps, zero_point, 1),
        None => requantize(cx, &steps, &Tensor::scalar(0u8).cast(inputs.get(0)?.dtype())?, 1),
    }
}

fn infer(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let dtype = match (cx.node.input(7), cx.node.input(8)) {
        (None, _) => cx.dtype(1),
        (_, Some(_)) => cx.dtype(8),
        _ => cx.dtype(0),
    };
    let side = |i: usize, name: &str, plain: usize| -> Result<Dim, OpError> {
        let turned = cx.node.int_or(name, 0)? != 0;
        Ok(cx.shape(i).and_then(|s| s.get(if turned { 1 - plain } else { plain })).cloned().unwrap_or(Dim::Unknown))
    };
    Ok(vec![typed(dtype, Some(vec![side(0, "transA", 0)?, side(3, "transB", 1)?]))])
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats};
    use tensor::Tensor;

    #[test]
    fn sums_are_scaled_by_column() {
        let a = Tensor::new(vec![3u8, 5], [1, 2]).unwrap();
        let b = Tensor::new(vec![1i8, -2, 3, 4], [2, 2]).unwrap();
        let scalar = |v: f32| Tensor::scalar(v);
        let list = vec![
            Some(a),
            Some(scalar(0.5)),
            Some(Tensor::scalar(1u8)),
            Some(b),
            Some(floats(&[1.0, 2.0])),
            Some(Tensor::vector(vec![0i8, 0])),
            Some(Tensor::vector(vec![10i32, 20])),
        ];
        let case = || Case::of("com.microsoft", "QGemm", 1).int("transB", 1);
        // (2, 4) by the rows (1, -2) and (3, 4): -6 and 22, then the bias.
        let y = case().run_optional(list.clone()).unwrap().remove(0);
        assert_eq!(y.to_f32_vec().unwrap(), [2.0, 42.0]);
        let mut quantized = list;
        quantized.extend([Some(scalar(2.0)), Some(Tensor::scalar(7u8))]);
        let y = case().run_optional(quantized).unwrap().remove(0);
        assert_eq!(y, Tensor::new(vec![8u8, 28], [1, 2]).unwrap());
    }
}
