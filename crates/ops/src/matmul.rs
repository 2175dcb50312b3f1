//! Matrix products: MatMul, Gemm, MatMulInteger.
use crate::conv::product;
use crate::couples::{
    Couples, CouplesCx, Place,
    Place::{Input, Output},
    broadcast,
};
use crate::saturation;
use crate::shapes::{broadcast_dims, like_first, typed};
use crate::simple::{Simple, one};
use crate::{Effect, EvalCx, Inputs, MacsCx, OpError, Operator, Role, ShapeCx, WeightRule};
use graph::{Dim, Model, Node, ValueType};
use tensor::{DType, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("MatMul", "Matrix product, batched as NumPy does.", &[1, 9, 13], |_, i| one(i.get(0)?.matmul(i.get(1)?)?), infer_matmul)
        .role(weight_and_bias)
        .effect_within(matmul_rule)
        .macs(matmul_macs)
        .couples(matmul_couples),
    &Simple::new("Gemm", "alpha*A*B + beta*C with optional transposes: a fully connected layer.", &[1, 6, 7, 9, 11, 13], gemm, infer_gemm)
        .role(weight_and_bias)
        .effect(gemm_rule)
        .macs(gemm_macs)
        .couples(gemm_couples),
    &Simple::new("MatMulInteger", "Matrix product of 8-bit integers into 32 bits.", &[10], matmul_integer, infer_matmul_integer)
        .effect(|_| Effect::AlreadyQuantized("it computes on integers already"))
        .macs(matmul_macs),
];

fn weight_and_bias(_: &Node, input: usize) -> Role {
    match input {
        0 => Role::Data,
        1 => Role::Weight,
        _ => Role::Bias,
    }
}

fn integer(axis: Option<usize>, bias: Option<usize>) -> Effect {
    Effect::Computes { data: vec![0], weight: Some(WeightRule { input: 1, axis, bias }) }
}

/// The channels of a MatMul are the last axis of its weight, whatever its rank; a vector has none.
fn matmul_rule(node: &Node, model: &Model) -> Effect {
    let rank = node.input(1).and_then(|v| model.values[v].shape()).map_or(2, |s| s.len());
    integer(rank.checked_sub(1).filter(|axis| *axis > 0), None)
}

fn gemm_rule(node: &Node) -> Effect {
    let transposed = node.int_or("transB", 0).is_ok_and(|t| t != 0);
    integer(Some(if transposed { 0 } else { 1 }), node.input(2).map(|_| 2))
}

fn infer_matmul(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    like_first(cx, matmul_dims(cx)?)
}

fn infer_matmul_integer(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    Ok(vec![typed(Some(DType::I32), matmul_dims(cx)?)])
}

fn matmul_dims(cx: &ShapeCx) -> Result<Option<Vec<Dim>>, OpError> {
    let (Some(a), Some(b)) = (cx.shape(0), cx.shape(1)) else { return Ok(None) };
    let clash = || cx.node.error(format!("{a:?} by {b:?}"));
    let (batch_a, m, k) = match a {
        [] => return Err(clash().into()),
        [k] => (&[][..], None, k),
        [batch @ .., m, k] => (batch, Some(m), k),
    };
    let (batch_b, k2, n) = match b {
        [] => return Err(clash().into()),
        [k] => (&[][..], k, None),
        [batch @ .., k, n] => (batch, k, Some(n)),
    };
    if let (Some(x), Some(y)) = (k.known(), k2.known())
        && x != y
    {
        return Err(clash().into());
    }
    let mut dims = broadcast_dims(cx, batch_a, batch_b)?;
    dims.extend(m.into_iter().chain(n).cloned());
    Ok(Some(dims))
}

/// MACs: elements of the output times the length of the inner axis.
fn matmul_macs(cx: &MacsCx) -> u64 {
    let shape = |list: &[Option<Vec<usize>>], i: usize| list.get(i).cloned().flatten().unwrap_or_default();
    let inner = shape(&cx.inputs, 0).last().copied().unwrap_or(0);
    product(&shape(&cx.outputs, 0)).saturating_mul(inner as u64)
}

fn gemm_macs(cx: &MacsCx) -> u64 {
    let transposed = cx.node.int_or("transA", 0).is_ok_and(|t| t != 0);
    match (cx.inputs.first(), cx.outputs.first()) {
        (Some(Some(a)), Some(Some(y))) if a.len() == 2 => product(y).saturating_mul(a[usize::from(!transposed)] as u64),
        _ => 0,
    }
}

fn gemm(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let factor = |name: &str| cx.node.float_or(name, 1.0).map(f64::from);
    let flag = |name: &str| cx.node.int_or(name, 0).map(|v| v != 0);
    let (alpha, beta) = (factor("alpha")?, factor("beta")?);
    one(Tensor::gemm(inputs.get(0)?, inputs.get(1)?, inputs.opt(2), alpha, beta, flag("transA")?, flag("transB")?)?)
}

fn infer_gemm(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let (Some([a0, a1]), Some([b0, b1])) = (cx.shape(0), cx.shape(1)) else { return like_first(cx, None) };
    let m = if cx.node.int_or("transA", 0)? != 0 { a1 } else { a0 };
    let n = if cx.node.int_or("transB", 0)? != 0 { b0 } else { b1 };
    like_first(cx, Some(vec![m.clone(), n.clone()]))
}

/// Subtracts a zero point: one number, or one for each row of the left operand or each column of the right.
fn centred(x: &Tensor, zero_point: Option<&Tensor>, left: bool) -> Result<Tensor, OpError> {
    let wide = x.cast(DType::I32)?;
    let Some(z) = zero_point else { return Ok(wide) };
    let z = z.cast(DType::I32)?;
    let z = if left && z.rank() == 1 && z.len() > 1 { z.unsqueeze(&[1])? } else { z };
    let z = if z.len() == 1 { z.reshape([])? } else { z };
    Ok(wide.sub(&z)?)
}

fn matmul_integer(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let a = centred(inputs.get(0)?, inputs.opt(2), true)?;
    let b = centred(inputs.get(1)?, inputs.opt(3), false)?;
    let sums = a.matmul(&b)?;
    match saturation::of_product(cx, inputs.get(0)?, inputs.get(1)?)? {
        Some(lost) => one(sums.add(&lost.cast(sums.dtype())?)?),
        None => one(sums),
    }
}

/// The axis that is summed over: it loses indices in both factors. If no parameter decides either, a channel that is removed would have
/// to be zero in the data.
fn contracted(cx: &CouplesCx, out: &mut Couples, a: Place, b: Place) {
    if cx.computed[..2].contains(&false) {
        out.tie(a, b);
    } else {
        out.reason = Some("it multiplies two computed tensors along this axis".into());
    }
}

fn matmul_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let (Some(a), Some(b), Some(y)) = (cx.input(0), cx.input(1), cx.output(0)) else { return Ok(()) };
    let (a, b, y) = (a.len(), b.len(), y.len());
    if a == 0 || b == 0 {
        return Ok(());
    }
    contracted(cx, out, Input(0, a - 1), Input(1, b.saturating_sub(2)));
    if b > 1 && y > 0 {
        out.tie(Input(1, b - 1), Output(0, y - 1));
    }
    if a > 1 && y + 1 > b.min(2) {
        out.tie(Input(0, a - 2), Output(0, y - b.min(2)));
    }
    if a > 1 && b > 1 {
        batches(cx, out);
    }
    Ok(())
}

/// The leading axes are broadcast.
fn batches(cx: &CouplesCx, out: &mut Couples) {
    broadcast(cx, out, 0..2, 2);
}

fn gemm_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let flag = |name: &str| cx.node.int_or(name, 0).map(|v| v != 0);
    let (m, k) = if flag("transA")? { (1, 0) } else { (0, 1) };
    let (inner, n) = if flag("transB")? { (1, 0) } else { (0, 1) };
    contracted(cx, out, Input(0, k), Input(1, inner));
    out.tie(Input(0, m), Output(0, 0));
    out.tie(Input(1, n), Output(0, 1));
    broadcast(cx, out, 2..3, 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, floats, iota};

    #[test]
    fn gemm_transposes_scales_and_adds() {
        let y = Case::new("Gemm", 13).int("transB", 1).float("beta", 2.0).run(&[iota(&[1, 2]), iota(&[3, 2]), floats(&[1.0, 1.0, 1.0])]);
        assert_eq!(y, Tensor::new(vec![3f32, 5.0, 7.0], [1, 3]).unwrap());
        assert!(Case::new("Gemm", 13).run_all(&[iota(&[1, 2]), iota(&[3, 2])]).is_err());
    }

    #[test]
    fn integer_products_take_zero_points() {
        let a = Tensor::new(vec![11u8, 7, 3, 10, 6, 2], [2, 3]).unwrap();
        let b = Tensor::new(vec![1u8, 4, 2, 5, 3, 6], [3, 2]).unwrap();
        let y = Case::new("MatMulInteger", 10).run(&[a, b, Tensor::scalar(12u8), Tensor::scalar(0u8)]);
        assert_eq!(y, Tensor::new(vec![-38i32, -83, -44, -98], [2, 2]).unwrap());
    }

    #[test]
    fn macs_are_counted() {
        let node = Node::new("Gemm", "g", &[], &[]);
        let cx = MacsCx { node: &node, inputs: vec![Some(vec![1, 64]), Some(vec![64, 10])], outputs: vec![Some(vec![1, 10])] };
        assert_eq!(crate::find("", "Gemm").unwrap().macs(&cx), 640);
        assert_eq!(crate::find("", "MatMul").unwrap().macs(&cx), 640);
    }
}
