//! Pooling: MaxPool, AveragePool, LpPool, their global forms, MaxUnpool.
use crate::couples::channelwise;
use crate::shapes::{like_first, typed, unknown};
use crate::simple::{Simple, one};
use crate::window::{Window, spatial};
use crate::{Effect, EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{Dim, Node, ValueType};
use tensor::{DType, PoolOptions, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("MaxPool", "Largest element of each window, and where it was.", &[1, 8, 10, 11, 12, 22], max_pool, infer_max)
        .couples(channelwise)
        .moves(),
    &Simple::new("AveragePool", "Mean of each window.", &[1, 7, 10, 11, 19, 22], average_pool, infer_pool)
        .couples(channelwise)
        .effect(integer),
    &Simple::new("LpPool", "p-norm of each window.", &[1, 2, 11, 18, 22], lp_pool, infer_pool).couples(channelwise),
    &Simple::new("GlobalAveragePool", "Mean over all spatial axes.", &[1, 22], global_average, infer_global)
        .couples(channelwise)
        .effect(integer),
    &Simple::new("GlobalMaxPool", "Largest element over all spatial axes.", &[1, 22], global_max, infer_global)
        .couples(channelwise)
        .moves(),
    &Simple::new("GlobalLpPool", "p-norm over all spatial axes.", &[1, 2, 22], global_lp, infer_global).couples(channelwise),
    &Simple::new("MaxUnpool", "Puts elements back where MaxPool found them, zeros elsewhere.", &[9, 11, 22], max_unpool, infer_unpool),
];

/// For a mean over windows: most elements in a sum; 0 for all of a channel.
pub fn mean_of(node: &Node) -> Option<usize> {
    match node.op_type.as_str() {
        "GlobalAveragePool" if node.is_onnx() => Some(0),
        "AveragePool" if node.is_onnx() => {
            let kernel = node.ints_or("kernel_shape", vec![]).ok()?;
            Some(kernel.iter().fold(1usize, |n, k| n.saturating_mul(usize::try_from(*k).unwrap_or(1).max(1))))
        }
        _ => None,
    }
}

fn integer(_: &Node) -> Effect {
    Effect::Computes { data: vec![0], weight: None }
}

pub(crate) fn options(cx: &EvalCx, x: &Tensor) -> Result<PoolOptions, OpError> {
    let w = Window::of_pool(cx.node)?.padded_for(cx.node, spatial(cx.node, x.shape())?)?;
    Ok(PoolOptions {
        kernel: w.kernel,
        strides: w.strides,
        pads: w.pads,
        dilations: w.dilations,
        ceil_mode: w.ceil_mode,
        count_include_pad: cx.node.int_or("count_include_pad", 0)? != 0,
    })
}

fn max_pool(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let options = options(cx, x)?;
    if cx.node.output(1).is_none() {
        return one(x.max_pool_values(&options)?);
    }
    let (y, indices) = x.max_pool(&options)?;
    match cx.node.int_or("storage_order", 0)? {
        0 => Ok(vec![y, indices]),
        1 => {
            let columns = column_major(&indices, spatial(cx.node, x.shape())?)?;
            Ok(vec![y, columns])
        }
        other => Err(OpError::unsupported(cx.node, format!("storage_order = {other}"))),
    }
}

/// Row-major indices as indices into planes stored with the first spatial axis fastest.
fn column_major(indices: &Tensor, spatial: &[usize]) -> Result<Tensor, OpError> {
    let area: usize = spatial.iter().product();
    let turned = indices.to_i64_vec()?.into_iter().map(|i| {
        let (plane, mut rest) = (i as usize / area.max(1), i as usize % area.max(1));
        let (mut index, mut stride) = (0, area);
        for size in spatial.iter().rev() {
            stride /= size;
            index += rest % size * stride;
            rest /= size;
        }
        (plane * area + index) as i64
    });
    Ok(Tensor::new(turned.collect::<Vec<i64>>(), indices.shape())?)
}

fn average_pool(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    if cx.opset < 19 && cx.node.ints("dilations")?.is_some_and(|d| d.iter().any(|v| *v != 1)) {
        return Err(OpError::unsupported(cx.node, "dilations before operator set 19"));
    }
    one(x.average_pool(&options(cx, x)?)?)
}

fn lp_pool(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    one(x.lp_pool(&options(cx, x)?, p(cx)?)?)
}

/// The norm's order (a float attribute in operator set 1).
fn p(cx: &EvalCx) -> Result<i64, OpError> {
    let p = if cx.opset < 2 { cx.node.float_or("p", 2.0)? as i64 } else { cx.node.int_or("p", 2)? };
    if p < 1 { Err(cx.node.attribute_error("p", "must be positive").into()) } else { Ok(p) }
}

fn spatial_axes(cx: &EvalCx, x: &Tensor) -> Result<Vec<usize>, OpError> {
    spatial(cx.node, x.shape())?;
    Ok((2..x.rank()).collect())
}

fn global_average(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    one(x.mean(&spatial_axes(cx, x)?, true)?)
}

fn global_max(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    one(x.max_reduce(&spatial_axes(cx, x)?, true)?)
}

fn global_lp(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let axes = spatial_axes(cx, x)?;
    one(match p(cx)? {
        1 => x.l1(&axes, true)?,
        2 => x.l2(&axes, true)?,
        p => {
            let powers = x.abs()?.pow(&x.scalar_like(p as f64)?)?.sum(&axes, true)?;
            powers.pow(&x.scalar_like(1.0 / p as f64)?)?
        }
    })
}

fn unpooled_size(node: &Node, window: &Window, shape: &[usize]) -> Result<Vec<usize>, OpError> {
    let mut out = shape[..2].to_vec();
    for (i, size) in shape[2..].iter().enumerate() {
        let steps = size.saturating_sub(1).checked_mul(window.strides[i]).and_then(|s| s.checked_add(window.kernel[i]));
        let full = steps.ok_or_else(|| node.attribute_error("strides", format!("spread {size} elements further than can be counted")))?;
        let (begin, end) = window.pads[i];
        out.push(full.checked_sub(begin + end).ok_or_else(|| node.attribute_error("pads", "is larger than the output"))?);
    }
    Ok(out)
}

fn max_unpool(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (x, indices) = (inputs.get(0)?, inputs.get(1)?);
    spatial(cx.node, x.shape())?;
    let window = Window::of_pool(cx.node)?;
    if window.kernel.len() + 2 != x.rank() {
        return Err(cx.node.attribute_error("kernel_shape", format!("has {} axes, the input {:?}", window.kernel.len(), x.shape())).into());
    }
    let own = unpooled_size(cx.node, &window, x.shape())?;
    let out = match inputs.opt(2) {
        None => own.clone(),
        Some(t) => {
            let list: Option<Vec<usize>> = t.to_i64_vec()?.iter().map(|v| usize::try_from(*v).ok()).collect();
            list.filter(|l| l.len() == x.rank()).ok_or_else(|| cx.node.error("output_shape does not fit the input's rank"))?
        }
    };
    // Indices refer to the size that the attributes give; a larger output only adds zeros at the end.
    let flat = Tensor::zeros(x.dtype(), &[tensor::shape::count(&own)?])?;
    let placed = flat.scatter_elements(&indices.reshape([indices.len()])?, &x.reshape([x.len()])?, 0, tensor::Reduction::None)?;
    let y = placed.reshape(own.clone())?;
    let mut pads = vec![];
    for (own, wanted) in own.iter().zip(&out) {
        let more = wanted.checked_sub(*own).ok_or_else(|| OpError::unsupported(cx.node, "an output_shape below the windows' size"))?;
        pads.push((0, more as i64));
    }
    one(y.pad(&pads, tensor::PadMode::Constant, None)?)
}

fn pooled(cx: &ShapeCx) -> Result<Option<Vec<Dim>>, OpError> {
    let Some(x) = cx.shape(0) else { return Ok(None) };
    let window = Window::of_pool(cx.node)?;
    if x.len() != window.kernel.len() + 2 {
        return Err(cx.node.error(format!("an input of rank {} for a kernel of rank {}", x.len(), window.kernel.len())).into());
    }
    let mut out = x[..2].to_vec();
    for (i, dim) in x[2..].iter().enumerate() {
        out.push(window.inferred(cx.node, i, dim)?);
    }
    Ok(Some(out))
}

pub(crate) fn infer_pool(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    like_first(cx, pooled(cx)?)
}

fn infer_max(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let shape = pooled(cx)?;
    Ok(vec![typed(cx.dtype(0), shape.clone()), typed(Some(DType::I64), shape)])
}

pub(crate) fn infer_global(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let shape = cx.shape(0).map(|x| x.iter().enumerate().map(|(i, d)| if i < 2 { d.clone() } else { Dim::Known(1) }).collect());
    like_first(cx, shape)
}

fn infer_unpool(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    like_first(cx, cx.shape(0).map(|x| unknown(x.len())))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, iota};

    #[test]
    fn a_kernel_of_another_rank_than_the_input() {
        let inputs = [iota(&[1, 1, 2, 2, 2]), crate::testing::ints(&[0])];
        let error = Case::new("MaxUnpool", 11).ints("kernel_shape", &[2, 2]).run_all(&inputs).unwrap_err().to_string();
        assert!(error.contains("kernel_shape") && error.contains("has 2 axes"), "{error}");
    }

    #[test]
    fn maxima_go_back_where_they_came_from() {
        let x = iota(&[1, 1, 4, 4]);
        let pool = |c: Case| c.ints("kernel_shape", &[2, 2]).ints("strides", &[2, 2]);
        let out = pool(Case::new("MaxPool", 12)).outputs(2).run_all(std::slice::from_ref(&x)).unwrap();
        assert_eq!(out[1].to_i64_vec().unwrap(), [5, 7, 13, 15]);
        let columns = pool(Case::new("MaxPool", 12)).int("storage_order", 1).outputs(2).run_all(&[x]).unwrap();
        assert_eq!(columns[1].to_i64_vec().unwrap(), [5, 13, 7, 15]);
        let back = pool(Case::new("MaxUnpool", 11)).run(&out);
        assert_eq!(back.shape(), [1, 1, 4, 4]);
        assert_eq!(back.to_f32_vec().unwrap()[..8], [0., 0., 0., 0., 0., 5., 0., 7.]);
    }
}
