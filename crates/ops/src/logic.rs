//! Comparisons, logic, selection and bits.
use crate::couples::elementwise;
use crate::shapes::{broadcast, broadcast_bool, broadcast_inputs, same, same_bool, typed};
use crate::simple::{Simple, one};
use crate::{EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::ValueType;
use tensor::{DType, Tensor};

macro_rules! pairwise {
    ($name:literal, $summary:literal, $versions:expr, $method:ident, $infer:ident) => {
        Simple::new($name, $summary, &$versions, |_, i| one(i.get(0)?.$method(i.get(1)?)?), $infer).couples(elementwise)
    };
}

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &pairwise!("Equal", "True where the inputs are equal, broadcast.", [1, 7, 11, 13, 19], equal, broadcast_bool),
    &pairwise!("Less", "True where the first input is smaller, broadcast.", [1, 7, 9, 13], less, broadcast_bool),
    &pairwise!("Greater", "True where the first input is larger, broadcast.", [1, 7, 9, 13], greater, broadcast_bool),
    &pairwise!("LessOrEqual", "True where the first input is not larger, broadcast.", [12, 16], less_or_equal, broadcast_bool),
    &pairwise!("GreaterOrEqual", "True where the first input is not smaller, broadcast.", [12, 16], greater_or_equal, broadcast_bool),
    &pairwise!("And", "True where both inputs are, broadcast.", [1, 7], and, broadcast_bool),
    &pairwise!("Or", "True where either input is, broadcast.", [1, 7], or, broadcast_bool),
    &pairwise!("Xor", "True where exactly one input is, broadcast.", [1, 7], xor, broadcast_bool),
    &Simple::new("Not", "Logical negation of each element.", &[1], |_, i| one(i.get(0)?.not()?), same).couples(elementwise),
    &pairwise!("BitwiseAnd", "Bits that both integers have, broadcast.", [18], bitwise_and, broadcast),
    &pairwise!("BitwiseOr", "Bits that either integer has, broadcast.", [18], bitwise_or, broadcast),
    &pairwise!("BitwiseXor", "Bits that exactly one integer has, broadcast.", [18], bitwise_xor, broadcast),
    &Simple::new("BitwiseNot", "Inverts every bit of each integer.", &[18], |_, i| one(i.get(0)?.bitwise_not()?), same),
    &Simple::new("BitShift", "Moves bits left or right by a count for each element.", &[11, 28], bit_shift, broadcast),
    &Simple::new("IsNaN", "True where an element is not a number.", &[9, 13, 20], |_, i| one(as_float(i.get(0)?)?.isnan()?), same_bool)
        .couples(elementwise),
    &Simple::new("IsInf", "True where an element is infinite, of the signs asked for.", &[10, 20], is_inf, same_bool).couples(elementwise),
    &Simple::new("Where", "Elements of the second or third input by a condition, broadcast.", &[9, 16], choose, infer_choose)
        .couples(elementwise),
];

/// 8-bit floats as f32; other types as they are.
fn as_float(t: &Tensor) -> tensor::Result<Tensor> {
    if t.dtype().is_float() { Ok(t.clone()) } else { t.cast(DType::F32) }
}

fn is_inf(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let positive = cx.node.int_or("detect_positive", 1)? != 0;
    let negative = cx.node.int_or("detect_negative", 1)? != 0;
    one(as_float(inputs.get(0)?)?.isinf(positive, negative)?)
}

fn bit_shift(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let left = match cx.node.string_or("direction", "")? {
        "LEFT" => true,
        "RIGHT" => false,
        other => return Err(cx.node.attribute_error("direction", format!("is '{other}'; 'LEFT' or 'RIGHT' is needed")).into()),
    };
    one(inputs.get(0)?.bit_shift(inputs.get(1)?, left)?)
}

fn choose(_: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    one(Tensor::where_(inputs.get(0)?, inputs.get(1)?, inputs.get(2)?)?)
}

fn infer_choose(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    Ok(vec![typed(cx.dtype(1).or(cx.dtype(2)), broadcast_inputs(cx, 0..3)?)])
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats};
    use tensor::Tensor;

    #[test]
    fn comparisons_and_choice() {
        let (a, b) = (floats(&[1.0, 5.0, f32::NAN]), floats(&[2.0, 2.0, 2.0]));
        let less = Case::new("Less", 13).run(&[a.clone(), b.clone()]);
        assert_eq!(less, Tensor::vector(vec![true, false, false]));
        let y = Case::new("Where", 16).run(&[less, a.clone(), b]);
        assert_eq!(y, floats(&[1.0, 2.0, 2.0]));
        assert_eq!(Case::new("IsNaN", 13).run(&[a]), Tensor::vector(vec![false, false, true]));
    }

    #[test]
    fn infinities_of_one_sign() {
        let x = floats(&[f32::INFINITY, f32::NEG_INFINITY, 0.0]);
        assert_eq!(Case::new("IsInf", 10).int("detect_negative", 0).run(&[x]), Tensor::vector(vec![true, false, false]));
    }

    #[test]
    fn a_shift_needs_its_direction() {
        let one = Tensor::vector(vec![1u8]);
        assert!(Case::new("BitShift", 11).run_all(&[one.clone(), one.clone()]).is_err());
        assert_eq!(Case::new("BitShift", 11).string("direction", "LEFT").run(&[one.clone(), one]), Tensor::vector(vec![2u8]));
    }
}
