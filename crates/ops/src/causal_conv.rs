//! CausalConvWithState: a depthwise convolution over time that carries its last inputs to the next call.
use crate::shapes::{like_first, typed};
use crate::simple::Simple;
use crate::{EvalCx, Inputs, MacsCx, OpError, Operator, Role, ShapeCx};
use graph::{Dim, ValueType};
use tensor::{ConvOptions, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] = &[&Simple::new(
    "CausalConvWithState",
    "Depthwise convolution over the past and the present, whose last inputs are its state.",
    &[27],
    evaluate,
    infer,
)
.role(|_, i| match i {
    1 => Role::Weight,
    2 => Role::Bias,
    _ => Role::Data,
})
.weight_axis(|_, i| (i == 1).then_some(0))
.macs(macs)];

fn evaluate(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, x, w) = (cx.node, inputs.get(0)?, inputs.get(1)?);
    let (&[batch, channels, length], &[_, 1, kernel]) = (x.shape(), w.shape()) else {
        return Err(node.error(format!("data of shape {:?} and a weight of shape {:?}", x.shape(), w.shape())).into());
    };
    let kept = kernel.checked_sub(1).ok_or_else(|| node.error("has a kernel without elements"))?;
    let carried = [batch, channels, kept];
    let past = match inputs.opt(3) {
        Some(past) if past.shape() != carried => {
            return Err(node.error(format!("past_state of shape {:?}, not {carried:?}", past.shape())).into());
        }
        Some(past) => past.clone(),
        None => x.scalar_like(0.0)?.expand(&carried)?,
    };
    let all = Tensor::concat(&[past, x.clone()], 2)?;
    let options = ConvOptions { strides: vec![1], pads: vec![(0, 0)], dilations: vec![1], groups: channels };
    let y = all.conv(w, inputs.opt(2), &options)?;
    let y = match node.string_or("activation", "none")? {
        "none" => y,
        "silu" | "swish" => y.mul(&y.sigmoid()?)?,
        other => return Err(OpError::unsupported(node, format!("activation = '{other}'"))),
    };
    Ok(vec![y, all.narrow(2, length, kept)?])
}

fn infer(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let state = match (cx.shape(0), cx.shape(1)) {
        (Some([b, c, _]), Some([_, _, k])) => {
            let carried = k.known().and_then(|k| k.checked_sub(1)).map_or(Dim::Unknown, Dim::Known);
            Some(vec![b.clone(), c.clone(), carried])
        }
        _ => None,
    };
    let mut types = like_first(cx, cx.shape(0).map(<[Dim]>::to_vec))?;
    types.push(typed(cx.dtype(0), state));
    Ok(types)
}

/// MACs: one for each output and element of its channel's kernel.
fn macs(cx: &MacsCx) -> u64 {
    let (Some(Some(w)), Some(Some(y))) = (cx.inputs.get(1), cx.outputs.first()) else { return 0 };
    crate::conv::product(y).saturating_mul(w.last().copied().unwrap_or(0) as u64)
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;
    use tensor::{Tensor, gradcheck, random::uniform_f64};

    #[test]
    fn two_calls_with_a_state_equal_one_without() {
        let (x, w) = (uniform_f64(1, &[1, 2, 5], -1.0, 1.0), uniform_f64(2, &[2, 1, 3], -1.0, 1.0));
        let case = || Case::new("CausalConvWithState", 27).outputs(2);
        let whole = case().run_all(&[x.clone(), w.clone()]).unwrap();
        let first = case().run_all(&[x.narrow(2, 0, 1).unwrap(), w.clone()]).unwrap();
        let second = case().run_optional(vec![Some(x.narrow(2, 1, 4).unwrap()), Some(w), None, Some(first[1].clone())]).unwrap();
        assert_eq!(Tensor::concat(&[first[0].clone(), second[0].clone()], 2).unwrap(), whole[0]);
        assert_eq!(second[1], whole[1]);
    }

    #[test]
    fn gradients() {
        let u = |seed, shape: &[usize]| uniform_f64(seed, shape, -1.0, 1.0);
        gradcheck::check(&[u(1, &[2, 2, 3]), u(2, &[2, 1, 3]), u(3, &[2]), u(4, &[2, 2, 2])], |t| {
            Ok(Case::new("CausalConvWithState", 27).string("activation", "silu").run(t))
        })
        .unwrap();
    }
}
