//! TopK, CumSum, CumProd.
use crate::shapes::{known_ints, same, typed};
use crate::simple::{Constants, Simple, one, set_input};
use crate::{EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{Dim, Node, ValueType};
use tensor::{DType, Tensor, shape};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("TopK", "The k largest (or smallest) elements along an axis, and their positions.", &[1, 10, 11, 24], top_k, infer_top_k)
        .upgrade(upgrade_top_k),
    &Simple::new("CumSum", "Running sum along an axis.", &[11, 14], |cx, i| running(cx, i, Tensor::cumsum), same),
    &Simple::new("CumProd", "Running product along an axis.", &[26], |cx, i| running(cx, i, Tensor::cumprod), same),
];

fn running(cx: &EvalCx, inputs: Inputs, f: fn(&Tensor, usize, bool, bool) -> tensor::Result<Tensor>) -> Result<Vec<Tensor>, OpError> {
    let (x, axis) = (inputs.get(0)?, inputs.get(1)?.to_i64_vec()?);
    let [axis] = axis[..] else { return Err(cx.node.error("its axis must be one number").into()) };
    let axis = shape::axis("axis", axis, x.rank())?;
    one(f(x, axis, cx.node.int_or("exclusive", 0)? != 0, cx.node.int_or("reverse", 0)? != 0)?)
}

/// `k` is an attribute in opset 1, an input since 10.
fn top_k(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let k = match inputs.opt(1) {
        Some(k) => k.to_i64_vec()?.first().copied().unwrap_or(-1),
        None => cx.node.int_required("k")?,
    };
    let k = usize::try_from(k).map_err(|_| cx.node.error(format!("k is {k}")))?;
    let axis = shape::axis("axis", cx.node.int_or("axis", -1)?, x.rank())?;
    let (values, indices) = x.top_k(k, axis, cx.node.int_or("largest", 1)? != 0)?;
    Ok(vec![values, indices])
}

fn infer_top_k(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let k = match cx.node.input(1) {
        Some(_) => known_ints(cx, 1).and_then(|k| k.first().copied()),
        None => cx.node.int("k")?,
    };
    let dims = match cx.shape(0) {
        Some(s) => {
            let axis = shape::axis("axis", cx.node.int_or("axis", -1)?, s.len())?;
            let mut dims = s.to_vec();
            dims[axis] = k.and_then(|k| usize::try_from(k).ok()).map_or(Dim::Unknown, Dim::Known);
            Some(dims)
        }
        None => None,
    };
    Ok(vec![typed(cx.dtype(0), dims.clone()), typed(Some(DType::I64), dims)])
}

fn upgrade_top_k(node: &mut Node, to: i64, _: &[ValueType], constants: Constants) -> Result<(), OpError> {
    if to == 10 {
        let k = node.int_required("k")?;
        node.attributes.remove("k");
        set_input(node, 1, constants("k", Tensor::vector(vec![k])));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats, ints};
    use tensor::Tensor;

    #[test]
    fn largest_and_smallest() {
        let x = floats(&[3.0, 1.0, 4.0, 1.0, 5.0]);
        let y = Case::new("TopK", 11).outputs(2).run_all(&[x.clone(), ints(&[2])]).unwrap();
        assert_eq!(y, [floats(&[5.0, 4.0]), ints(&[4, 2])]);
        let y = Case::new("TopK", 11).outputs(2).int("largest", 0).run_all(&[x.clone(), ints(&[2])]).unwrap();
        assert_eq!(y, [floats(&[1.0, 1.0]), ints(&[1, 3])]);
        assert!(Case::new("TopK", 11).run_all(&[x, ints(&[9])]).is_err());
    }

    #[test]
    fn running_totals() {
        let x = floats(&[1.0, 2.0, 3.0]);
        let axis = Tensor::scalar(0i32);
        assert_eq!(Case::new("CumSum", 14).int("reverse", 1).run(&[x.clone(), axis.clone()]), floats(&[6.0, 5.0, 3.0]));
        assert_eq!(Case::new("CumProd", 26).int("exclusive", 1).run(&[x, axis]), floats(&[1.0, 1.0, 2.0]));
    }
}
