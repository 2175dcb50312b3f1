//! Conversion between element types.
use crate::couples::first_elementwise;
use crate::dtypes::dtype_attribute;
use crate::shapes::typed;
use crate::simple::{Simple, one};
use crate::{EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{Dim, Node, ValueType};
use tensor::{Buffer, CastOptions, DType, PowerRounding, Tensor, bf16, f16};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("Cast", "Converts the elements to another type.", &[1, 6, 9, 13, 19, 21, 23, 24, 25, 28], cast, infer_cast)
        .couples(first_elementwise),
    &Simple::new("CastLike", "Converts the elements to the second input's type.", &[15, 19, 21, 23, 24, 25], cast_like, infer_like)
        .couples(first_elementwise),
    &Simple::new("BitCast", "Reads the elements' bits as another type of the same width.", &[26], bit_cast, infer_cast),
];

fn target(node: &Node) -> Result<DType, OpError> {
    dtype_attribute(node, "to")?.ok_or_else(|| node.attribute_error("to", "is missing").into())
}

fn options(node: &Node) -> Result<CastOptions, OpError> {
    let power_rounding = match node.string_or("round_mode", "up")? {
        "up" => PowerRounding::Up,
        "down" => PowerRounding::Down,
        "nearest" => PowerRounding::Nearest,
        other => return Err(node.attribute_error("round_mode", format!("is '{other}'; up, down or nearest is needed")).into()),
    };
    Ok(CastOptions { saturate: node.int_or("saturate", 1)? != 0, power_rounding })
}

fn cast(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    one(inputs.get(0)?.cast_with(target(cx.node)?, options(cx.node)?)?)
}

fn cast_like(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    one(inputs.get(0)?.cast_with(inputs.get(1)?.dtype(), options(cx.node)?)?)
}

fn infer_cast(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    Ok(vec![typed(Some(target(cx.node)?), cx.shape(0).map(<[Dim]>::to_vec))])
}

fn infer_like(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    Ok(vec![typed(cx.dtype(1), cx.shape(0).map(<[Dim]>::to_vec))])
}

/// The bits of each element, in the low bits of a number.
fn bits(t: &Tensor) -> Result<Vec<u64>, OpError> {
    Ok(match t.buffer() {
        Buffer::F32(v) => v.iter().map(|x| x.to_bits() as u64).collect(),
        Buffer::F64(v) => v.iter().map(|x| x.to_bits()).collect(),
        Buffer::F16(v) => v.iter().map(|x| x.to_bits() as u64).collect(),
        Buffer::BF16(v) => v.iter().map(|x| x.to_bits() as u64).collect(),
        Buffer::U64(v) => v.to_vec(),
        Buffer::Bool(v) => v.iter().map(|x| u64::from(*x)).collect(),
        // The codes of narrow floats are stored as they are.
        Buffer::U8(v) => v.iter().map(|x| *x as u64).collect(),
        _ => t.to_i64_vec()?.into_iter().map(|x| x as u64).collect(),
    })
}

fn bit_cast(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (x, to) = (inputs.get(0)?, target(cx.node)?);
    let simple = |d: DType| !matches!(d, DType::String | DType::C64 | DType::C128);
    if x.dtype().bits() != to.bits() || !simple(x.dtype()) || !simple(to) {
        return Err(OpError::unsupported(cx.node, format!("reading the bits of {} as {to}", x.dtype())));
    }
    let (bits, shape) = (bits(x)?, x.shape());
    one(match to {
        DType::Bool if bits.iter().any(|b| *b & 0xff > 1) => {
            return Err(OpError::unsupported(cx.node, "a boolean stored in a byte other than 0 and 1"));
        }
        DType::Bool => Tensor::new(bits.iter().map(|b| *b & 0xff != 0).collect::<Vec<bool>>(), shape)?,
        DType::F32 => Tensor::new(bits.iter().map(|b| f32::from_bits(*b as u32)).collect(), shape)?,
        DType::F64 => Tensor::new(bits.iter().map(|b| f64::from_bits(*b)).collect(), shape)?,
        DType::F16 => Tensor::new(bits.iter().map(|b| f16::from_bits(*b as u16)).collect(), shape)?,
        DType::BF16 => Tensor::new(bits.iter().map(|b| bf16::from_bits(*b as u16)).collect(), shape)?,
        to if to.is_int() => Tensor::new(bits, shape)?.cast(to)?,
        to => Tensor::from_buffer(to, Buffer::U8(bits.iter().map(|b| *b as u8).collect::<Vec<_>>().into()), shape)?,
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats};
    use tensor::{DType, Tensor};

    #[test]
    fn casts_by_attribute_and_by_example() {
        let x = floats(&[1.7, -2.9]);
        assert_eq!(Case::new("Cast", 13).int("to", 7).run(std::slice::from_ref(&x)), Tensor::vector(vec![1i64, -2]));
        assert_eq!(Case::new("CastLike", 15).run(&[x, Tensor::scalar(0i8)]), Tensor::vector(vec![1i8, -2]));
        let unknown = Case::new("Cast", 13).int("to", 99).run_all(&[floats(&[0.0])]).unwrap_err().to_string();
        assert!(unknown.contains("number 99"), "{unknown}");
    }

    #[test]
    fn bits_are_read_back_as_they_were() {
        let x = floats(&[1.5, -0.0]);
        let bits = Case::new("BitCast", 26).int("to", 12).run(std::slice::from_ref(&x));
        assert_eq!(bits.dtype(), DType::U32);
        assert_eq!(Case::new("BitCast", 26).int("to", 1).run(&[bits]), x);
    }
}
