//! Reductions over axes: ReduceSum and its kin, ArgMax, ArgMin.
use crate::couples::{
    Couples, CouplesCx,
    Place::{Input, Output},
};
use crate::shapes::{axes, axes_if_known, like_first, typed, unknown};
use crate::simple::{Constants, Simple, attribute_to_input, one};
use crate::{EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{Dim, Node, ValueType};
use tensor::{DType, Tensor};

macro_rules! reduction {
    ($name:literal, $summary:literal, $versions:expr, $method:ident, $moved:literal) => {
        Simple::new($name, $summary, &$versions, |cx, i| reduce(cx, i, Tensor::$method), infer)
            .couples(couples)
            .upgrade(|node, to, _, constants| if to == $moved { axes_to_input(node, constants) } else { Ok(()) })
    };
}

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &reduction!("ReduceSum", "Sum over axes.", [1, 11, 13], sum, 13),
    &reduction!("ReduceMean", "Mean over axes.", [1, 11, 13, 18], mean, 18),
    &reduction!("ReduceProd", "Product over axes.", [1, 11, 13, 18], prod, 18),
    &reduction!("ReduceMax", "Largest element over axes.", [1, 11, 12, 13, 18, 20], max_reduce, 18),
    &reduction!("ReduceMin", "Smallest element over axes.", [1, 11, 12, 13, 18, 20], min_reduce, 18),
    &reduction!("ReduceL1", "Sum of magnitudes over axes.", [1, 11, 13, 18], l1, 18),
    &reduction!("ReduceL2", "Root of the sum of squares over axes.", [1, 11, 13, 18], l2, 18),
    &reduction!("ReduceLogSum", "Logarithm of the sum over axes.", [1, 11, 13, 18, 28], log_sum, 18),
    &reduction!("ReduceLogSumExp", "Logarithm of the sum of exponentials over axes.", [1, 11, 13, 18, 28], log_sum_exp, 18),
    &reduction!("ReduceSumSquare", "Sum of squares over axes.", [1, 11, 13, 18], sum_square, 18),
    &Simple::new(
        "ArgMax",
        "Position of the largest element along an axis.",
        &[1, 11, 12, 13],
        |cx, i| arg(cx, i, Tensor::arg_max),
        infer_arg,
    ),
    &Simple::new(
        "ArgMin",
        "Position of the smallest element along an axis.",
        &[1, 11, 12, 13],
        |cx, i| arg(cx, i, Tensor::arg_min),
        infer_arg,
    ),
];

fn axes_to_input(node: &mut Node, constants: Constants) -> Result<(), OpError> {
    attribute_to_input(node, "axes", 1, constants)
}

/// An empty list of axes means all axes, unless the node says that it means none.
fn resolve(node: &Node, given: Option<Vec<i64>>, rank: usize) -> Result<Vec<usize>, OpError> {
    match given {
        Some(list) if !list.is_empty() => axes(&list, rank),
        _ if node.int_or("noop_with_empty_axes", 0)? != 0 => Ok(vec![]),
        _ => Ok((0..rank).collect()),
    }
}

fn reduce(cx: &EvalCx, inputs: Inputs, f: fn(&Tensor, &[usize], bool) -> tensor::Result<Tensor>) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let given = match inputs.opt(1) {
        Some(t) => Some(t.to_i64_vec()?),
        None => cx.node.ints("axes")?,
    };
    let axes = resolve(cx.node, given, x.rank())?;
    one(f(x, &axes, cx.node.int_or("keepdims", 1)? != 0)?)
}

fn infer(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let Some(shape) = cx.shape(0) else { return like_first(cx, None) };
    let keep = cx.node.int_or("keepdims", 1)? != 0;
    let Ok(given) = axes_if_known(cx, 1, "axes")? else {
        return like_first(cx, keep.then(|| unknown(shape.len())));
    };
    let axes = resolve(cx.node, given, shape.len())?;
    like_first(cx, Some(reduced(shape, &axes, keep)))
}

fn reduced(shape: &[Dim], axes: &[usize], keep: bool) -> Vec<Dim> {
    let kept = shape.iter().enumerate().filter_map(|(i, d)| match (axes.contains(&i), keep) {
        (false, _) => Some(d.clone()),
        (true, true) => Some(Dim::Known(1)),
        (true, false) => None,
    });
    kept.collect()
}

type ArgFn = fn(&Tensor, usize, bool, bool) -> tensor::Result<Tensor>;

fn arg(cx: &EvalCx, inputs: Inputs, f: ArgFn) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let axis = tensor::shape::axis("axis", cx.node.int_or("axis", 0)?, x.rank())?;
    one(f(x, axis, cx.node.int_or("keepdims", 1)? != 0, cx.node.int_or("select_last_index", 0)? != 0)?)
}

fn infer_arg(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let Some(shape) = cx.shape(0) else { return Ok(vec![typed(Some(DType::I64), None)]) };
    let axes = axes(&[cx.node.int_or("axis", 0)?], shape.len())?;
    let keep = cx.node.int_or("keepdims", 1)? != 0;
    Ok(vec![typed(Some(DType::I64), Some(reduced(shape, &axes, keep)))])
}

/// The axes that are not reduced.
fn couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    out.reason = Some("it reduces over this axis".into());
    let given = match cx.node.input(1) {
        Some(_) => cx.ints(1),
        None => Some(cx.node.ints_or("axes", vec![])?),
    };
    let (Some(rank), Some(given)) = (cx.input(0).map(<[Dim]>::len), given) else { return Ok(()) };
    if given.is_empty() && cx.node.int_or("noop_with_empty_axes", 0)? == 0 {
        return Ok(());
    }
    let (reduced, keeps) = (axes(&given, rank)?, cx.node.int_or("keepdims", 1)? != 0);
    let mut to = 0;
    for axis in 0..rank {
        let gone = reduced.contains(&axis);
        if !gone {
            out.tie(Input(0, axis), Output(0, to));
        }
        to += usize::from(keeps || !gone);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats, ints, iota};
    use tensor::Tensor;

    #[test]
    fn axes_come_from_attribute_or_input() {
        let x = iota(&[2, 3]);
        assert_eq!(Case::new("ReduceMean", 13).ints("axes", &[-1]).int("keepdims", 0).run(std::slice::from_ref(&x)), floats(&[1.0, 4.0]));
        let y = Case::new("ReduceSum", 13).run(&[x.clone(), ints(&[0])]);
        assert_eq!(y, Tensor::new(vec![3f32, 5.0, 7.0], [1, 3]).unwrap());
        let none = ints(&[]);
        assert_eq!(Case::new("ReduceSum", 13).int("noop_with_empty_axes", 1).run(&[x.clone(), none.clone()]), x);
        assert_eq!(Case::new("ReduceSum", 13).int("keepdims", 0).run(&[x, none]), Tensor::scalar(15f32));
    }

    #[test]
    fn arg_max_selects_first_or_last() {
        let x = Tensor::new(vec![2f32, 2.0, 3.0, 10.0], [2, 2]).unwrap();
        let y = Case::new("ArgMax", 13).int("axis", 1).int("keepdims", 0).run(std::slice::from_ref(&x));
        assert_eq!(y, ints(&[0, 1]));
        let y = Case::new("ArgMax", 13).int("axis", 1).int("select_last_index", 1).run(&[x]);
        assert_eq!(y, Tensor::new(vec![1i64, 1], [2, 1]).unwrap());
    }
}
