//! LinearAttention: attention that sums keys and values into a state instead of keeping them.
use crate::attention::{heads, repeat_heads, split_heads};
use crate::shapes::typed;
use crate::simple::Simple;
use crate::{EvalCx, Inputs, OpError, Operator, Role, ShapeCx};
use graph::{Dim, Node, ValueType};
use tensor::{DType, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] =
    &[&Simple::new("LinearAttention", "Attention by a recurrent state of summed key-value products.", &[27], evaluate, infer)
        .role(|_, _| Role::Data)];

/// How a step updates the state.
struct UpdateRule {
    /// The state decays before the new product is added.
    gated: bool,
    /// The state's present output for the key is subtracted from the value (the delta rule).
    delta: bool,
}

impl UpdateRule {
    fn of(node: &Node) -> Result<UpdateRule, OpError> {
        let (gated, delta) = match node.string_or("update_rule", "gated_delta")? {
            "linear" => (false, false),
            "gated" => (true, false),
            "delta" => (false, true),
            "gated_delta" => (true, true),
            other => return Err(OpError::unsupported(node, format!("update_rule = '{other}'"))),
        };
        Ok(UpdateRule { gated, delta })
    }
}

fn evaluate(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, rule) = (cx.node, UpdateRule::of(cx.node)?);
    for (i, name, needed) in [(4, "decay", rule.gated), (5, "beta", rule.delta)] {
        if inputs.opt(i).is_some() != needed {
            let what = if needed { "needs" } else { "takes no" };
            return Err(node.error(format!("this update_rule {what} input '{name}'")).into());
        }
    }
    if (0..3).any(|i| inputs.opt(i).is_none_or(|t| t.rank() != 3)) {
        return Err(node.error("query, key and value must have three axes").into());
    }
    let outer = inputs.get(0)?.dtype();
    let inner = if outer == DType::F64 { DType::F64 } else { DType::F32 };
    let packed = |i: usize, attribute: &str| -> Result<Tensor, OpError> { split_heads(node, &inputs.get(i)?.cast(inner)?, attribute) };
    let (q, k, v) = (packed(0, "q_num_heads")?, packed(1, "kv_num_heads")?, packed(2, "kv_num_heads")?);
    let (&[batch, query_heads, steps, size], &[_, key_heads, _, _]) = (q.shape(), k.shape()) else {
        return Err(node.error("lost an axis").into());
    };
    let width = v.shape()[3];
    if query_heads % key_heads != 0 || k.shape() != [batch, key_heads, steps, size] || v.shape()[..3] != k.shape()[..3] || steps == 0 {
        return Err(node.error(format!("query {:?}, key {:?} and value {:?} do not fit", q.shape(), k.shape(), v.shape())).into());
    }
    // One number for each head and step, or one for each feature of the key.
    let gates = |i: usize, widths: &[usize]| -> Result<Option<Tensor>, OpError> {
        let Some(t) = inputs.opt(i) else { return Ok(None) };
        match *t.shape() {
            [b, s, n] if b == batch && s == steps && widths.contains(&n) => {
                let heads = if n == 1 { 1 } else { key_heads };
                Ok(Some(t.cast(inner)?.reshape([b, s, heads, n / heads])?.transpose(&[0, 2, 1, 3])?))
            }
            _ => Err(node.error(format!("input {i} of shape {:?} for {key_heads} heads of {size}", t.shape())).into()),
        }
    };
    let decay = gates(4, &[key_heads, key_heads * size])?.map(|d| d.exp()).transpose()?;
    let beta = gates(5, &[key_heads, 1])?;
    let mut state = match inputs.opt(3) {
        Some(past) if past.shape() != [batch, key_heads, size, width] => {
            return Err(node.error(format!("past_state of shape {:?}, not {:?}", past.shape(), [batch, key_heads, size, width])).into());
        }
        Some(past) => past.cast(inner)?,
        None => q.scalar_like(0.0)?.expand(&[batch, key_heads, size, width])?,
    };
    let scale = match f64::from(node.float_or("scale", 0.0)?) {
        0.0 => 1.0 / (size as f64).sqrt(),
        given => given,
    };
    let mut answers = Vec::with_capacity(steps);
    for t in 0..steps {
        let (key, mut value) = (k.narrow(2, t, 1)?, v.narrow(2, t, 1)?);
        if let Some(decay) = &decay {
            state = state.mul(&decay.narrow(2, t, 1)?.transpose_last()?)?;
        }
        if let Some(beta) = &beta {
            value = value.sub(&key.matmul(&state)?)?.mul(&beta.narrow(2, t, 1)?)?;
        }
        state = state.add(&key.transpose_last()?.matmul(&value)?)?;
        answers.push(q.narrow(2, t, 1)?.matmul(&repeat_heads(&state, query_heads / key_heads)?)?);
    }
    let y = Tensor::concat(&answers, 2)?.mul_scalar(scale)?.transpose(&[0, 2, 1, 3])?;
    let kept = inputs.opt(3).map_or(outer, Tensor::dtype);
    Ok(vec![y.reshape([batch, steps, query_heads * width])?.cast(outer)?, state.cast(kept)?])
}

fn infer(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let (q, kv) = (heads(cx.node, "q_num_heads")?, heads(cx.node, "kv_num_heads")?);
    let per_head = |d: &Dim, n: usize| d.known().map(|d| d / n);
    let (y, state) = match (cx.shape(0), cx.shape(2)) {
        (Some([b, t, wide]), Some([_, _, v])) => {
            let (size, width) = (per_head(wide, q), per_head(v, kv));
            let dim = |n: Option<usize>| n.map_or(Dim::Unknown, Dim::Known);
            let state = vec![b.clone(), Dim::Known(kv), dim(size), dim(width)];
            (Some(vec![b.clone(), t.clone(), dim(width.map(|w| w * q))]), Some(state))
        }
        _ => (None, None),
    };
    let past = cx.node.inputs.get(3).is_some_and(Option::is_some);
    Ok(vec![typed(cx.dtype(0), y), typed(cx.dtype(if past { 3 } else { 0 }), state)])
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;
    use tensor::{gradcheck, random::uniform_f64};

    #[test]
    fn gradients_of_the_gated_delta_rule_with_grouped_heads() {
        let u = |seed, shape: &[usize]| uniform_f64(seed, shape, -0.8, 0.8);
        let inputs = [u(1, &[1, 3, 8]), u(2, &[1, 3, 4]), u(3, &[1, 3, 2]), u(4, &[1, 2, 2, 1]), u(5, &[1, 3, 2]), u(6, &[1, 3, 1])];
        gradcheck::check(&inputs, |t| {
            let case = Case::new("LinearAttention", 27).int("q_num_heads", 4).int("kv_num_heads", 2).outputs(2);
            let out = case.run_all(t).map_err(|e| tensor::TensorError::value("LinearAttention", e.to_string()))?;
            out[0].sum_all()?.add(&out[1].sum_square(&[0, 1, 2, 3], false)?)
        })
        .unwrap();
    }

    #[test]
    fn a_rule_without_its_gate_is_refused() {
        let u = |shape: &[usize]| uniform_f64(1, shape, -1.0, 1.0);
        let case = Case::new("LinearAttention", 27).int("q_num_heads", 1).int("kv_num_heads", 1).string("update_rule", "gated");
        let error = case.run_all(&[u(&[1, 2, 2]), u(&[1, 2, 2]), u(&[1, 2, 2])]).unwrap_err().to_string();
        assert!(error.contains("needs input 'decay'"), "{error}");
    }
}
