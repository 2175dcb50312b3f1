//! Operators that generate tensors: Constant, ConstantOfShape, Range, EyeLike.
use crate::dtypes::dtype_attribute;
use crate::layout::sizes;
use crate::shapes::{known_ints, typed, unknown, vector_length};
use crate::simple::{Simple, one};
use crate::{EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{AttributeValue, Dim, Node, ValueType};
use tensor::{DType, Tensor, memory, shape};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("Constant", "A tensor held by the node.", &[1, 9, 11, 12, 13, 19, 21, 23, 24, 25], constant, infer_constant),
    &Simple::new("ConstantOfShape", "A shape filled with one value.", &[9, 20, 21, 23, 24, 25], constant_of_shape, infer_constant_of_shape),
    &Simple::new("Range", "Numbers from a start by a step up to a limit.", &[11, 27], range, infer_range),
    &Simple::new("EyeLike", "Ones on a diagonal of a matrix of zeros.", &[9, 22], eye_like, infer_eye_like),
];

/// The tensor that a Constant node holds.
fn held(node: &Node) -> Result<Tensor, OpError> {
    let text = |s: &[u8]| String::from_utf8(s.to_vec()).map_err(|_| node.error("its string is not UTF-8"));
    let found = node.attributes.list.iter().find(|a| a.name.starts_with("value") || a.name == "sparse_value");
    match found.map(|a| &a.value) {
        Some(AttributeValue::Tensor(t)) => Ok(t.clone()),
        Some(AttributeValue::Float(v)) => Ok(Tensor::scalar(*v)),
        Some(AttributeValue::Floats(v)) => Ok(Tensor::vector(v.clone())),
        Some(AttributeValue::Int(v)) => Ok(Tensor::scalar(*v)),
        Some(AttributeValue::Ints(v)) => Ok(Tensor::vector(v.clone())),
        Some(AttributeValue::String(s)) => Ok(Tensor::scalar(text(s)?)),
        Some(AttributeValue::Strings(v)) => Ok(Tensor::vector(v.iter().map(|s| text(s)).collect::<Result<Vec<_>, _>>()?)),
        Some(_) => Err(OpError::unsupported(node, "a value of this kind")),
        None => Err(node.error("it holds no value").into()),
    }
}

fn constant(cx: &EvalCx, _: Inputs) -> Result<Vec<Tensor>, OpError> {
    one(held(cx.node)?)
}

fn infer_constant(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let t = held(cx.node)?;
    Ok(vec![typed(Some(t.dtype()), Some(t.shape().iter().map(|d| Dim::Known(*d)).collect()))])
}

/// The fill value: f32 zero unless the node has one.
fn filling(node: &Node) -> Result<Tensor, OpError> {
    match node.attributes.get("value") {
        None => Ok(Tensor::scalar(0f32)),
        Some(AttributeValue::Tensor(t)) => Ok(t.reshape([])?),
        Some(_) => Err(node.attribute_error("value", "is not a tensor").into()),
    }
}

fn constant_of_shape(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let to = sizes(cx.node, &inputs.get(0)?.to_i64_vec()?)?;
    one(filling(cx.node)?.expand(&to)?)
}

fn infer_constant_of_shape(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let dims = match known_ints(cx, 0) {
        Some(list) => Some(sizes(cx.node, &list)?.into_iter().map(Dim::Known).collect()),
        None => vector_length(cx, 0).map(unknown),
    };
    Ok(vec![typed(Some(filling(cx.node)?.dtype()), dims)])
}

/// The number of elements, checked before memory is allocated.
fn range_count(node: &Node, start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<usize, OpError> {
    let one =
        |t: &Tensor| t.to_f64_vec()?.first().copied().ok_or_else(|| OpError::from(node.error("start, limit and delta must be numbers")));
    let count = if start.dtype().is_int() {
        let int = |t: &Tensor| Ok::<i128, OpError>(t.to_i64_vec()?.first().copied().unwrap_or(0) as i128);
        let (s, l, d) = (int(start)?, int(limit)?, int(delta)?);
        if d == 0 {
            return Err(node.error("a step of zero").into());
        }
        ((l - s + d - d.signum()) / d) as f64
    } else {
        ((one(limit)? - one(start)?) / one(delta)?).ceil()
    };
    if count.is_nan() || count > shape::MAX_ELEMENTS as f64 {
        return Err(node.error(format!("from {start:?} to {limit:?} by {delta:?}: {count} numbers")).into());
    }
    Ok(count.max(0.0) as usize)
}

fn range(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (start, limit, delta) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
    let count = memory::room::<f64>("range", &[range_count(cx.node, start, limit, delta)?])?;
    let dtype = start.dtype();
    if dtype.is_int() {
        let (s, d) = (start.to_i64_vec()?[0], delta.to_i64_vec()?[0]);
        let numbers = (0..count as i64).map(|i| s.wrapping_add(i.wrapping_mul(d))).collect::<Vec<_>>();
        return one(Tensor::vector(numbers).cast(dtype)?);
    }
    let (s, d) = (start.to_f64_vec()?[0], delta.to_f64_vec()?[0]);
    one(Tensor::vector((0..count).map(|i| s + i as f64 * d).collect::<Vec<_>>()).cast(dtype)?)
}

fn infer_range(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let value = |i: usize| cx.values.get(i).and_then(Option::as_ref);
    let count = match (value(0), value(1), value(2)) {
        (Some(s), Some(l), Some(d)) => Dim::Known(range_count(cx.node, s, l, d)?),
        _ => Dim::Unknown,
    };
    Ok(vec![typed(cx.dtype(0), Some(vec![count]))])
}

fn eye_like(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let [rows, columns] = *x.shape() else {
        return Err(cx.node.error(format!("a matrix is needed, not {:?}", x.shape())).into());
    };
    let dtype = dtype_attribute(cx.node, "dtype")?.unwrap_or(x.dtype());
    memory::room::<bool>("eye_like", &[rows, columns])?;
    let k = cx.node.int_or("k", 0)?;
    let ones = (0..rows as i64).flat_map(|r| (0..columns as i64).map(move |c| c.checked_sub(r) == Some(k)));
    one(Tensor::new(ones.collect::<Vec<_>>(), [rows, columns])?.cast(dtype)?)
}

fn infer_eye_like(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let dtype: Option<DType> = dtype_attribute(cx.node, "dtype")?.or(cx.dtype(0));
    Ok(vec![typed(dtype, cx.shape(0).map(<[Dim]>::to_vec))])
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats, ints};
    use graph::AttributeValue;
    use tensor::{DType, Tensor};

    #[test]
    fn ranges_count_their_numbers_first() {
        let r = |a: i64, b: i64, c: i64| Case::new("Range", 11).run_all(&[Tensor::scalar(a), Tensor::scalar(b), Tensor::scalar(c)]);
        assert_eq!(r(1, 8, 3).unwrap()[0], ints(&[1, 4, 7]));
        assert_eq!(r(5, 0, -2).unwrap()[0], ints(&[5, 3, 1]));
        assert_eq!(r(0, 5, -1).unwrap()[0], ints(&[]));
        assert!(r(0, 1, 0).is_err() && r(0, i64::MAX, 1).is_err());
        let y = Case::new("Range", 11).run(&[Tensor::scalar(1f32), Tensor::scalar(2f32), Tensor::scalar(0.3f32)]);
        assert_eq!(y.len(), 4);
    }

    #[test]
    fn absurd_shapes_are_refused() {
        assert!(Case::new("ConstantOfShape", 9).run_all(&[ints(&[1 << 40, 1 << 40])]).is_err());
        assert!(Case::new("ConstantOfShape", 9).run_all(&[ints(&[-1])]).is_err());
        let value = AttributeValue::Tensor(Tensor::vector(vec![7i64]));
        assert_eq!(Case::new("ConstantOfShape", 9).with("value", value).run(&[ints(&[2])]), ints(&[7, 7]));
    }

    #[test]
    fn constants_and_diagonals() {
        assert_eq!(Case::new("Constant", 13).with("value_floats", AttributeValue::Floats(vec![1.0, 2.0])).run(&[]), floats(&[1.0, 2.0]));
        let y = Case::new("EyeLike", 9).int("k", 1).int("dtype", 7).run(&[Tensor::full(0f32, [2, 3]).unwrap()]);
        assert_eq!((y.dtype(), y.to_i64_vec().unwrap()), (DType::I64, vec![0, 1, 0, 0, 0, 1]));
    }
}
