//! Arithmetic on elements: Add to Mean, and the elementary functions of one input.
use crate::couples::elementwise;
use crate::shapes::{broadcast, same};
use crate::simple::{Simple, one};
use crate::{EvalCx, Inputs, OpError, Operator};
use tensor::{DType, Tensor};

/// An operator of one input that is one tensor method.
macro_rules! unary {
    ($name:literal, $summary:literal, $versions:expr, $method:ident) => {
        Simple::new($name, $summary, &$versions, |_, i| one(i.get(0)?.$method()?), same).couples(elementwise)
    };
}

/// An operator of two inputs that is one tensor method.
macro_rules! binary {
    ($name:literal, $summary:literal, $versions:expr, $method:ident) => {
        Simple::new($name, $summary, &$versions, |_, i| one(i.get(0)?.$method(i.get(1)?)?), broadcast).couples(elementwise)
    };
}

/// An operator that combines any number of inputs, two at a time.
macro_rules! variadic {
    ($name:literal, $summary:literal, $versions:expr, $method:ident) => {
        Simple::new($name, $summary, &$versions, |_, i| one(fold(i, Tensor::$method)?), broadcast).couples(elementwise)
    };
}

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("Add", "Adds two tensors, broadcast.", &[1, 6, 7, 13, 14], add, broadcast).all_data().couples(elementwise),
    &binary!("Sub", "Subtracts the second tensor from the first, broadcast.", [1, 6, 7, 13, 14], sub),
    &binary!("Mul", "Multiplies two tensors element by element, broadcast.", [1, 6, 7, 13, 14], mul).all_data(),
    &binary!("Div", "Divides the first tensor by the second, broadcast; integers truncate.", [1, 6, 7, 13, 14], div),
    &Simple::new("Pow", "Raises the first tensor to the power of the second, broadcast.", &[1, 7, 12, 13, 15], pow, broadcast)
        .couples(elementwise),
    &Simple::new(
        "Mod",
        "Remainder of a division, with the sign of the divisor or (fmod=1) of the dividend.",
        &[10, 13, 28],
        modulo,
        broadcast,
    )
    .couples(elementwise),
    &variadic!("Max", "Largest of its inputs, element by element, broadcast.", [1, 6, 8, 12, 13], max),
    &variadic!("Min", "Smallest of its inputs, element by element, broadcast.", [1, 6, 8, 12, 13], min),
    &variadic!("Sum", "Sum of its inputs, broadcast.", [1, 6, 8, 13], add),
    &Simple::new("Mean", "Mean of its inputs, element by element, broadcast.", &[1, 6, 8, 13], mean, broadcast).couples(elementwise),
    &unary!("Neg", "Changes the sign of each element.", [1, 6, 13], neg),
    &unary!("Abs", "Magnitude of each element.", [1, 6, 13], abs),
    &unary!("Sqrt", "Square root of each element.", [1, 6, 13], sqrt),
    &unary!("Exp", "e to the power of each element.", [1, 6, 13], exp),
    &unary!("Log", "Natural logarithm of each element.", [1, 6, 13], log),
    &unary!("Reciprocal", "Reciprocal (1 / x) of each element.", [1, 6, 13], reciprocal),
    &unary!("Sign", "-1, 0 or 1 by the sign of each element.", [9, 13], sign),
    &unary!("Floor", "Largest integer not above each element.", [1, 6, 13], floor),
    &unary!("Ceil", "Smallest integer not below each element.", [1, 6, 13], ceil),
    &unary!("Round", "Nearest integer of each element; halves go to the even one.", [11, 22], round),
    &unary!("Erf", "Gauss error function of each element.", [9, 13], erf),
    &unary!("Sin", "Sine of each element.", [7, 22], sin),
    &unary!("Cos", "Cosine of each element.", [7, 22], cos),
    &unary!("Tan", "Tangent of each element.", [7, 22], tan),
    &unary!("Asin", "Inverse sine of each element.", [7, 22], asin),
    &unary!("Acos", "Inverse cosine of each element.", [7, 22], acos),
    &unary!("Atan", "Inverse tangent of each element.", [7, 22], atan),
    &unary!("Sinh", "Hyperbolic sine of each element.", [9, 22], sinh),
    &unary!("Cosh", "Hyperbolic cosine of each element.", [9, 22], cosh),
    &unary!("Asinh", "Inverse hyperbolic sine of each element.", [9, 22], asinh),
    &unary!("Acosh", "Inverse hyperbolic cosine of each element.", [9, 22], acosh),
    &unary!("Atanh", "Inverse hyperbolic tangent of each element.", [9, 22], atanh),
];

/// Works in the storage of an operand without other readers, if there is one.
fn add(_: &EvalCx, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (a, b) = (inputs.take(0)?, inputs.take(1)?);
    one(a.add_owned(b)?)
}

fn fold(inputs: Inputs, f: fn(&Tensor, &Tensor) -> tensor::Result<Tensor>) -> Result<Tensor, OpError> {
    let first = inputs.get(0)?.clone();
    Ok((1..inputs.len()).try_fold(first, |so_far, i| f(&so_far, inputs.get(i)?))?)
}

fn mean(_: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let count = inputs.len() as f64;
    one(fold(inputs, Tensor::add)?.mul_scalar(1.0 / count)?)
}

/// The exponent may have another type; the result has the base's. If either is a float, the computation is in float.
fn pow(_: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (base, exponent) = (inputs.get(0)?, inputs.get(1)?);
    if !base.dtype().is_float() && exponent.dtype().is_float() {
        return one(base.cast(DType::F64)?.pow(&exponent.cast(DType::F64)?)?.cast(base.dtype())?);
    }
    one(base.pow(&exponent.cast(base.dtype())?)?)
}

fn modulo(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    one(inputs.get(0)?.modulo(inputs.get(1)?, cx.node.int_or("fmod", 0)? != 0)?)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats, ints};
    use tensor::Tensor;

    #[test]
    fn pow_with_mixed_types() {
        let y = Case::new("Pow", 15).run(&[ints(&[2, 3, -2]), floats(&[3.0, 2.0, 2.0])]);
        assert_eq!(y, ints(&[8, 9, 4]));
        let y = Case::new("Pow", 15).run(&[floats(&[2.0, 3.0]), ints(&[3, 2])]);
        assert_eq!(y, floats(&[8.0, 9.0]));
    }

    #[test]
    fn integer_division_by_zero_is_an_error_by_name() {
        let error = Case::new("Div", 14).run_all(&[ints(&[1]), ints(&[0])]).unwrap_err().to_string();
        assert!(error.contains("division by zero"), "{error}");
    }

    #[test]
    fn variadic_operators_broadcast() {
        let inputs = [floats(&[1.0, 5.0]), Tensor::scalar(3f32), floats(&[2.0, 10.0])];
        assert_eq!(Case::new("Max", 13).run(&inputs), floats(&[3.0, 10.0]));
        assert_eq!(Case::new("Sum", 13).run(&inputs), floats(&[6.0, 18.0]));
        assert_eq!(Case::new("Mean", 13).run(&inputs), floats(&[2.0, 6.0]));
        assert_eq!(Case::new("Mod", 13).run(&[ints(&[-4, 7]), ints(&[3, -3])]), ints(&[2, -2]));
    }
}
