//! Attention and RotaryEmbedding.
use crate::dtypes::dtype_attribute;
use crate::shapes::{same, typed};
use crate::simple::{Simple, one};
use crate::{EvalCx, Inputs, MacsCx, OpError, Operator, ShapeCx};
use graph::{Dim, Node, ValueType};
use tensor::{DType, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new(
        "Attention",
        "Scaled dot-product attention with grouped heads, masks and a key-value cache.",
        &[23, 24, 25],
        attention,
        infer,
    )
    .role(|_, _| crate::Role::Data)
    .macs(macs),
    &Simple::new("RotaryEmbedding", "Rotates pairs of features by an angle that depends on the position.", &[23], rotary, same),
];

pub(crate) fn heads(node: &Node, name: &str) -> Result<usize, OpError> {
    let n = node.int_required(name)?;
    usize::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| node.attribute_error(name, "must be positive").into())
}

/// `[batch, sequence, heads * size]` as `[batch, heads, sequence, size]`; four axes stay.
pub(crate) fn split_heads(node: &Node, x: &Tensor, attribute: &str) -> Result<Tensor, OpError> {
    match x.shape() {
        [_, _, _, _] => Ok(x.clone()),
        [batch, sequence, width] => {
            let heads = heads(node, attribute)?;
            if width % heads != 0 {
                return Err(node.attribute_error(attribute, format!("does not divide {width} features")).into());
            }
            Ok(x.reshape([*batch, *sequence, heads, width / heads])?.transpose(&[0, 2, 1, 3])?)
        }
        other => Err(node.error(format!("needs three or four axes, not {other:?}")).into()),
    }
}

/// Repeats each key or value head for the query heads of its group.
pub(crate) fn repeat_heads(x: &Tensor, groups: usize) -> Result<Tensor, OpError> {
    if groups == 1 {
        return Ok(x.clone());
    }
    let index = Tensor::vector((0..x.shape()[1] * groups).map(|i| (i / groups) as i64).collect());
    Ok(x.gather(&index, 1)?)
}

fn attention(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let node = cx.node;
    let q = split_heads(node, inputs.get(0)?, "q_num_heads")?;
    let mut k = split_heads(node, inputs.get(1)?, "kv_num_heads")?;
    let mut v = split_heads(node, inputs.get(2)?, "kv_num_heads")?;
    let past = inputs.opt(4).map_or(0, |p| p.shape().get(2).copied().unwrap_or(0));
    match (inputs.opt(4), inputs.opt(5)) {
        (Some(pk), Some(pv)) => {
            k = Tensor::concat(&[pk.clone(), k], 2)?;
            v = Tensor::concat(&[pv.clone(), v], 2)?;
        }
        (None, None) => {}
        _ => return Err(node.error("past_key and past_value must be given together").into()),
    }
    let (present_k, present_v) = (k.clone(), v.clone());
    let (query_heads, key_heads) = (q.shape()[1], k.shape()[1]);
    if key_heads == 0 || query_heads % key_heads != 0 {
        return Err(node.error(format!("{query_heads} query heads do not fall into {key_heads} groups")).into());
    }
    let groups = query_heads / key_heads;
    let (k, v) = (repeat_heads(&k, groups)?, repeat_heads(&v, groups)?);
    let scale = node.float("scale")?.map_or(1.0 / (q.shape()[3] as f64).sqrt(), f64::from);
    if scale < 0.0 {
        return Err(OpError::unsupported(node, format!("scale = {scale}")));
    }
    let bias = bias(cx, &inputs, &q, k.shape()[2], past)?;
    let softcap = f64::from(node.float_or("softcap", 0.0)?);
    let plain = softcap == 0.0 && node.output(3).is_none() && node.int_or("softmax_precision", 0)? == 0;
    // Narrow types need the split scale below.
    let wide = matches!(q.dtype(), DType::F32 | DType::F64);
    if plain && wide && v.dtype() == q.dtype() && !has_dead_rows(bias.as_ref())? {
        let y = q.attention(&k, &v, bias.as_ref(), tensor::AttentionOptions { scale, keys_transposed: false })?;
        let y = joined(node, &inputs, y)?;
        return Ok(vec![y, present_k, present_v]);
    }
    // As ONNX defines it, half of the scale goes to each side, against overflow in narrow types.
    let half = scale.sqrt();
    let raw = q.mul_scalar(half)?.matmul(&k.mul_scalar(half)?.transpose_last()?)?;
    let capped = if softcap > 0.0 { raw.mul_scalar(1.0 / softcap)?.tanh()?.mul_scalar(softcap)? } else { raw.clone() };
    let biased = match &bias {
        Some(b) => capped.add(b)?,
        None => capped.clone(),
    };
    let precision = match node.int_or("softmax_precision", 0)? {
        0 => biased.dtype(),
        _ => dtype_attribute(node, "softmax_precision")?.unwrap_or(biased.dtype()),
    };
    let weights = masked_softmax(&biased.cast(precision)?)?.cast(q.dtype())?;
    let y = joined(node, &inputs, weights.cast(v.dtype())?.matmul(&v)?.cast(q.dtype())?)?;
    let shown = match node.int_or("qk_matmul_output_mode", 0)? {
        0 => raw,
        1 => capped,
        2 => biased,
        3 => weights,
        other => return Err(OpError::unsupported(node, format!("qk_matmul_output_mode = {other}"))),
    };
    Ok(vec![y, present_k, present_v, shown])
}

/// `[batch, heads, sequence, size]` as the queries were given.
fn joined(node: &Node, inputs: &Inputs, y: Tensor) -> Result<Tensor, OpError> {
    match (inputs.get(0)?.rank(), y.shape()) {
        (3, &[batch, heads, sequence, size]) => Ok(y.transpose(&[0, 2, 1, 3])?.reshape([batch, sequence, heads * size])?),
        (3, _) => Err(node.error("lost an axis").into()),
        _ => Ok(y),
    }
}

/// True if a query may see no key at all: its row becomes zeros, where a plain softmax gives NaN.
fn has_dead_rows(bias: Option<&Tensor>) -> Result<bool, OpError> {
    let Some(bias) = bias.filter(|b| !b.is_empty()) else { return Ok(false) };
    let top = bias.detach().max_reduce(&[bias.rank().saturating_sub(1)], true)?;
    Ok(top.to_f64_vec()?.contains(&f64::NEG_INFINITY))
}

/// Softmax over the last axis; a row whose every element is -inf becomes zeros.
fn masked_softmax(x: &Tensor) -> Result<Tensor, OpError> {
    let last = x.rank().saturating_sub(1);
    let top = x.detach().max_reduce(&[last], true)?;
    let dead = top.isinf(false, true)?;
    // Rows without keys get finite scores, so that neither they nor their gradient become NaN.
    let safe = Tensor::where_(&dead, &x.scalar_like(0.0)?, x)?;
    Ok(Tensor::where_(&dead, &x.scalar_like(0.0)?, &safe.softmax(last)?)?)
}

/// The sum of mask, causal limit, window and padding that is added to the scores; `None` if there is none.
fn bias(cx: &EvalCx, inputs: &Inputs, q: &Tensor, keys: usize, past: usize) -> Result<Option<Tensor>, OpError> {
    let node = cx.node;
    let (batch, queries) = (q.shape()[0], q.shape()[2]);
    let minus_infinity = q.scalar_like(f64::NEG_INFINITY)?;
    let zero = q.scalar_like(0.0)?;
    let mut sum: Option<Tensor> = None;
    if let Some(mask) = inputs.opt(3) {
        let additive = match mask.dtype() {
            DType::Bool => Tensor::where_(mask, &zero, &minus_infinity)?,
            _ => mask.cast(q.dtype())?,
        };
        let short = keys.checked_sub(additive.shape().last().copied().unwrap_or(keys));
        let missing = short.ok_or_else(|| node.error(format!("a mask of shape {:?} for {keys} keys", mask.shape())))?;
        let mut pads = vec![(0, 0); additive.rank()];
        if let Some(last) = pads.last_mut() {
            *last = (0, missing as i64);
        }
        sum = Some(additive.pad(&pads, tensor::PadMode::Constant, Some(&minus_infinity))?);
    }
    let valid = inputs.opt(6).map(Tensor::to_i64_vec).transpose()?;
    if valid.as_ref().is_some_and(|v| v.len() != batch) {
        return Err(node.error("nonpad_kv_seqlen needs one length for each sequence").into());
    }
    if let Some(n) = valid.iter().flatten().find(|n| !(0..=keys as i64).contains(*n)) {
        return Err(node.error(format!("nonpad_kv_seqlen says {n} of {keys} keys")).into());
    }
    let causal = node.int_or("is_causal", 0)? != 0;
    let (left, right) = (node.int_or("left_window_size", -1)?, node.int_or("right_window_size", -1)?);
    if causal || left >= 0 || right >= 0 || valid.is_some() {
        let rows = if valid.is_some() { batch } else { 1 };
        let mut allowed = Vec::with_capacity(tensor::memory::room::<bool>("attention", &[rows, queries, keys])?);
        for b in 0..rows {
            let length = valid.as_ref().map(|v| v[b]);
            let offset = length.filter(|_| inputs.opt(4).is_none()).map_or(past as i64, |n| n - queries as i64);
            for i in 0..queries as i64 {
                for j in 0..keys as i64 {
                    let at = i + offset;
                    let inside = (!causal || j <= at) && (left < 0 || at - j <= left) && (right < 0 || j - at <= right);
                    allowed.push(inside && length.is_none_or(|n| j < n));
                }
            }
        }
        let allowed = Tensor::new(allowed, [rows, 1, queries, keys])?;
        let frontier = Tensor::where_(&allowed, &zero, &minus_infinity)?;
        sum = Some(match sum {
            Some(mask) => mask.add(&frontier)?,
            None => frontier,
        });
    }
    Ok(sum)
}

/// MACs of scores and weighted sum: `queries x keys x size` each, for every head.
fn macs(cx: &MacsCx) -> u64 {
    let shape = |i: usize| cx.inputs.get(i).and_then(|s| s.as_deref());
    let (Some(q), Some(k), Some(v)) = (shape(0), shape(1), shape(2)) else { return 0 };
    let past = shape(4).and_then(|p| p.get(2)).copied().unwrap_or(0);
    let all = crate::conv::product;
    match (q, k, v) {
        ([b, hq, n, d], [_, _, s, _], [.., dv]) => all(&[*b, *hq, *n, s.saturating_add(past), d.saturating_add(*dv)]),
        ([b, n, wide], [_, s, kw], [_, _, vw]) => {
            // The ratio of value width to key width is the same for one head and for all.
            let both = wide.saturating_add(wide.saturating_mul(*vw) / (*kw).max(1));
            all(&[*b, *n, s.saturating_add(past), both])
        }
        _ => 0,
    }
}

fn infer(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let y = match (cx.shape(0), cx.shape(2)) {
        (Some([b, h, n, _]), Some([.., d])) => Some(vec![b.clone(), h.clone(), n.clone(), d.clone()]),
        (Some([b, n, _]), Some([.., v])) => {
            let width = match (v.known(), cx.node.int("q_num_heads")?, cx.node.int("kv_num_heads")?) {
                (Some(v), Some(q), Some(kv)) if q > 0 && kv > 0 => {
                    (v / kv as usize).checked_mul(q as usize).map_or(Dim::Unknown, Dim::Known)
                }
                _ => Dim::Unknown,
            };
            Some(vec![b.clone(), n.clone(), width])
        }
        _ => None,
    };
    Ok(vec![typed(cx.dtype(0), y), typed(cx.dtype(1), None), typed(cx.dtype(2), None), typed(cx.dtype(0), None)])
}

fn rotary(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, x) = (cx.node, inputs.get(0)?);
    let split = split_heads(node, x, "num_heads")?;
    let size = split.shape()[3];
    let rotated = match node.int_or("rotary_embedding_dim", 0)? {
        0 => size,
        n => usize::try_from(n)
            .ok()
            .filter(|n| *n <= size)
            .ok_or_else(|| node.attribute_error("rotary_embedding_dim", "does not fit the heads"))?,
    };
    let half = rotated / 2;
    if rotated % 2 != 0 {
        return Err(node.error(format!("rotates an odd number of features, {rotated}")).into());
    }
    // Angles as [batch, 1, sequence, half].
    let angles = |i: usize| -> Result<Tensor, OpError> {
        let cache = inputs.get(i)?;
        let cache = match inputs.opt(3) {
            Some(positions) => cache.gather(positions, 0)?,
            None => cache.clone(),
        };
        match cache.shape() {
            [_, _, width] if *width == half => Ok(cache.unsqueeze(&[1])?),
            other => Err(node.error(format!("a cache of shape {other:?} for {half} pairs")).into()),
        }
    };
    let (cos, sin) = (angles(1)?, angles(2)?);
    let part = split.narrow(3, 0, rotated)?;
    let interleaved = node.int_or("interleaved", 0)? != 0;
    let (a, b) = match interleaved {
        true => (part.slice(&[0], &[rotated as i64], &[3], &[2])?, part.slice(&[1], &[rotated as i64], &[3], &[2])?),
        false => (part.narrow(3, 0, half)?, part.narrow(3, half, half)?),
    };
    let (real, imaginary) = (cos.mul(&a)?.sub(&sin.mul(&b)?)?, sin.mul(&a)?.add(&cos.mul(&b)?)?);
    let turned = match interleaved {
        true => Tensor::concat(&[real.unsqueeze(&[4])?, imaginary.unsqueeze(&[4])?], 4)?.reshape(part.shape())?,
        false => Tensor::concat(&[real, imaginary], 3)?,
    };
    let y = Tensor::concat(&[turned, split.narrow(3, rotated, size - rotated)?], 3)?;
    one(if x.rank() == 3 { y.transpose(&[0, 2, 1, 3])?.reshape(x.shape())? } else { y })
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;
    use tensor::{gradcheck, random::uniform_f64};

    #[test]
    fn a_length_that_no_sequence_has() {
        let u = |shape: &[usize]| Some(uniform_f64(1, shape, -1.0, 1.0));
        for length in [i64::MIN, -1, 4, i64::MAX] {
            let lengths = Some(tensor::Tensor::vector(vec![length]));
            let inputs = vec![u(&[1, 1, 2, 2]), u(&[1, 1, 3, 2]), u(&[1, 1, 3, 2]), None, None, None, lengths];
            let error = Case::new("Attention", 24).int("is_causal", 1).run_optional(inputs).unwrap_err().to_string();
            assert!(error.contains(&format!("nonpad_kv_seqlen says {length} of 3 keys")), "{error}");
        }
    }

    #[test]
    fn gradients_with_grouped_heads_and_a_fully_masked_row() {
        let u = |seed, shape: &[usize]| uniform_f64(seed, shape, -1.0, 1.0);
        let mask = tensor::Tensor::new(vec![true, false, true, false, false, false], [2, 3]).unwrap();
        let inputs = [u(1, &[1, 2, 2, 2]), u(2, &[1, 1, 3, 2]), u(3, &[1, 1, 3, 2])];
        gradcheck::check(&inputs, |t| {
            let list = [t[0].clone(), t[1].clone(), t[2].clone(), mask.clone()];
            Ok(Case::new("Attention", 23).float("softcap", 3.0).run(&list))
        })
        .unwrap();
    }
}
