//! Softmax, LogSoftmax, Hardmax. Up to opset 12 they work on the input flattened to a matrix at `axis`.
use crate::couples::{Couples, CouplesCx, pass};
use crate::shapes::same;
use crate::simple::{Constants, Simple, one};
use crate::{EvalCx, Inputs, OpError, Operator, Parts};
use graph::{AttributeValue, Dim, Node, ValueType};
use tensor::{Tensor, shape};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("Softmax", "e^x over its sum along an axis.", &[1, 11, 13], |cx, i| along(cx, i, Tensor::softmax), same)
        .all_data()
        .probabilities()
        .couples(couples)
        .upgrade(upgrade)
        .rewrite(rewrite),
    &Simple::new("LogSoftmax", "Logarithm of Softmax.", &[1, 11, 13], |cx, i| along(cx, i, Tensor::log_softmax), same)
        .probabilities()
        .couples(couples)
        .upgrade(upgrade)
        .rewrite(rewrite),
    &Simple::new(
        "Hardmax",
        "1 at the first largest element along an axis, 0 elsewhere.",
        &[1, 11, 13],
        |cx, i| along(cx, i, hardmax),
        same,
    )
    .upgrade(upgrade)
    .rewrite(rewrite),
];

pub(crate) fn along(cx: &EvalCx, inputs: Inputs, f: fn(&Tensor, usize) -> tensor::Result<Tensor>) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    if cx.opset >= 13 {
        let axis = shape::axis("axis", cx.node.int_or("axis", -1)?, x.rank())?;
        return one(f(x, axis)?);
    }
    let axis = shape::axis("axis", cx.node.int_or("axis", 1)?, x.rank())?;
    let rows: usize = x.shape()[..axis].iter().product();
    let columns: usize = x.shape()[axis..].iter().product();
    one(f(&x.reshape([rows, columns])?, 1)?.reshape(x.shape())?)
}

fn hardmax(x: &Tensor, axis: usize) -> tensor::Result<Tensor> {
    let first = x.arg_max(axis, false, false)?;
    first.one_hot(x.shape()[axis], axis, &x.scalar_like(0.0)?, &x.scalar_like(1.0)?)
}

/// The equivalent axis from operator set 13 on: flattening has the same meaning if only one axis is left from `axis` on, apart
/// from sizes of 1.
fn new_axis(node: &Node, types: &[ValueType]) -> Result<Option<i64>, OpError> {
    let axis = node.int_or("axis", 1)?;
    Ok(match types.first() {
        _ if axis == -1 => Some(-1),
        Some(ValueType::Tensor { shape: Some(dims), .. }) => {
            let start = shape::axis("axis", axis, dims.len())?;
            let mut wide = (start..dims.len()).filter(|i| dims[*i] != Dim::Known(1));
            let one = wide.next().unwrap_or(start);
            wide.next().is_none().then_some(one as i64)
        }
        _ => None,
    })
}

fn upgrade(node: &mut Node, to: i64, types: &[ValueType], _: Constants) -> Result<(), OpError> {
    if to != 13 {
        return Ok(());
    }
    let Some(new_axis) = new_axis(node, types)? else {
        let what = "before operator set 13 it flattens its input at a negative axis; the input's rank must be known";
        return Err(OpError::unsupported(node, what.to_string()));
    };
    node.attributes.set("axis", AttributeValue::Int(new_axis));
    Ok(())
}

/// Flattens from the axis on, applies the operator to the last axis, and restores the shape.
fn rewrite(node: &Node, to: i64, types: &[ValueType], parts: &mut Parts) -> Result<Option<Vec<Node>>, OpError> {
    if to != 13 || new_axis(node, types)?.is_some() {
        return Ok(None);
    }
    let rank = match types.first() {
        Some(ValueType::Tensor { shape: Some(dims), .. }) => Some(dims.len()),
        _ => None,
    };
    let axis = match (node.int_or("axis", 1)?, rank) {
        (axis, Some(rank)) => shape::axis("axis", axis, rank)?,
        (axis @ 0.., None) => axis as usize,
        _ => return Ok(None),
    };
    let (Some(x), Some(y)) = (node.input(0), node.output(0)) else { return Ok(None) };
    // A 0 keeps the size of the axis, -1 takes the rest.
    let target: Vec<i64> = std::iter::repeat_n(0, axis).chain([-1]).collect();
    let target = parts.constant("flat_shape", Tensor::vector(target));
    let [full, flat] = ["shape", "flat"].map(|part| parts.value(part));
    let applied = parts.value_stored_as("applied", y);
    let mut inner = Node { name: parts.label(), inputs: vec![Some(flat)], outputs: vec![Some(applied)], ..node.clone() };
    inner.attributes.set("axis", AttributeValue::Int(-1));
    Ok(Some(vec![
        Node::new("Shape", parts.node("shape"), &[x], &[full]),
        Node::new("Reshape", parts.node("flat"), &[x, target], &[flat]),
        inner,
        Node::new("Reshape", parts.node("back"), &[applied, full], &[y]),
    ]))
}

/// All axes but those that are summed over.
fn couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    out.reason = Some("it divides by the sum over this axis".into());
    let Some(rank) = cx.input(0).map(<[Dim]>::len).filter(|r| *r > 0) else { return Ok(()) };
    let axis = shape::axis("axis", cx.node.int_or("axis", if cx.opset >= 13 { -1 } else { 1 })?, rank)?;
    pass(out, (0..rank).filter(|i| if cx.opset >= 13 { *i != axis } else { *i < axis }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, floats, iota};
    use tensor::DType;

    #[test]
    fn the_flattening_meaning_ends_with_opset_12() {
        let x = iota(&[1, 2, 2]);
        let old = Case::new("Softmax", 11).run(std::slice::from_ref(&x));
        assert!((old.sum_all().unwrap().item::<f32>().unwrap() - 1.0).abs() < 1e-6);
        let new = Case::new("Softmax", 13).run(&[x]);
        assert!((new.sum_all().unwrap().item::<f32>().unwrap() - 2.0).abs() < 1e-6);
        assert_eq!(Case::new("Hardmax", 13).run(&[floats(&[1.0, 3.0, 3.0])]), floats(&[0.0, 1.0, 0.0]));
    }

    #[test]
    fn upgrades_where_the_meaning_is_the_same() {
        let with = |dims: &[usize]| {
            let mut node = Node::new("Softmax", "s", &[], &[]);
            let shape = Some(dims.iter().map(|d| Dim::Known(*d)).collect());
            let result = upgrade(&mut node, 13, &[ValueType::Tensor { dtype: DType::F32, shape }], &mut |_, _| graph::ValueId(0));
            result.map(|()| node.int("axis").unwrap())
        };
        assert_eq!(with(&[2, 10]).unwrap(), Some(1));
        assert_eq!(with(&[2, 10, 1, 1]).unwrap(), Some(1));
        assert!(new_axis(&Node::new("Softmax", "s", &[], &[]), &[ValueType::Unknown]).unwrap().is_none());
    }
}
