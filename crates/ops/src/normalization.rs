//! Normalizations by the data's own statistics.
use crate::couples::{Couples, CouplesCx, Place::Input, pass};
use crate::shapes::{same, typed};
use crate::simple::{Simple, one};
use crate::{EvalCx, Inputs, OpError, Operator, Role, ShapeCx};
use graph::{Dim, Node, ValueId, ValueType};
use tensor::{DType, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("LayerNormalization", "Normalizes over the last axes.", &[17], layer_norm, infer_layer).role(scaled).couples(leading),
    &Simple::new("RMSNormalization", "Divides by the root mean square over the last axes.", &[23], rms_norm, same)
        .role(scaled)
        .couples(leading),
    &Simple::new("InstanceNormalization", "Normalizes each channel of each image.", &[1, 6, 22], instance_norm, same)
        .role(scaled)
        .couples(instance),
    &Simple::new("GroupNormalization", "Normalizes groups of channels of each image.", &[18, 21], group_norm, same)
        .role(scaled)
        .upgrade(upgrade_group),
    &Simple::new("LpNormalization", "Divides vectors along an axis by their p-norm.", &[1, 22], lp_norm, same),
    &Simple::new("MeanVarianceNormalization", "Subtracts the mean and divides by the standard deviation.", &[9, 13], mean_variance, same),
    &Simple::new("LRN", "Local response normalization over neighbouring channels.", &[1, 13], lrn, same),
];

fn scaled(_: &Node, input: usize) -> Role {
    match input {
        1 => Role::NormScale,
        2 => Role::NormBias,
        _ => Role::Data,
    }
}

fn epsilon(node: &Node) -> Result<f64, OpError> {
    Ok(f64::from(node.float_or("epsilon", 1e-5)?))
}

/// The type in which statistics are computed: `stash_type`, at least f32.
fn stash(node: &Node, dtype: DType) -> Result<DType, OpError> {
    match (node.int_or("stash_type", 1)?, dtype) {
        (_, DType::F64) => Ok(DType::F64),
        (1 | 10 | 16, _) => Ok(DType::F32),
        (11, _) => Ok(DType::F64),
        (other, _) => Err(OpError::unsupported(node, format!("stash_type = {other}"))),
    }
}

fn first_axis(node: &Node, x: &Tensor) -> Result<usize, OpError> {
    Ok(tensor::shape::axis("axis", node.int_or("axis", -1)?, x.rank())?)
}

fn layer_norm(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (x, node) = (inputs.get(0)?, cx.node);
    let inner = stash(node, x.dtype())?;
    let (scale, bias, axis) = (inputs.get(1)?, inputs.opt(2), first_axis(node, x)?);
    if inner == x.dtype() && scale.dtype() == inner && bias.is_none_or(|b| b.dtype() == inner) {
        let (y, mean, inverse) = x.layer_norm(Some(scale), bias, axis, epsilon(node)?)?;
        return Ok(vec![y, mean, inverse]);
    }
    let (mut y, mean, inverse) = x.cast(inner)?.layer_norm(None, None, axis, epsilon(node)?)?;
    y = y.cast(x.dtype())?.mul(scale)?;
    if let Some(bias) = bias {
        y = y.add(bias)?;
    }
    Ok(vec![y, mean, inverse])
}

fn infer_layer(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let x = cx.shape(0);
    let reduced = match x {
        None => None,
        Some(x) => {
            let axis = tensor::shape::axis("axis", cx.node.int_or("axis", -1)?, x.len())?;
            Some(x.iter().enumerate().map(|(i, d)| if i < axis { d.clone() } else { Dim::Known(1) }).collect::<Vec<_>>())
        }
    };
    let statistic = cx.dtype(0).map(|d| stash(cx.node, d)).transpose()?;
    Ok(vec![typed(cx.dtype(0), x.map(<[Dim]>::to_vec)), typed(statistic, reduced.clone()), typed(statistic, reduced)])
}

fn rms_norm(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (x, node) = (inputs.get(0)?, cx.node);
    let (inner, scale) = (stash(node, x.dtype())?, inputs.get(1)?);
    if inner == x.dtype() && scale.dtype() == inner {
        return one(x.rms_norm(Some(scale), first_axis(node, x)?, epsilon(node)?)?);
    }
    let y = x.cast(inner)?.rms_norm(None, first_axis(node, x)?, epsilon(node)?)?;
    one(y.cast(x.dtype())?.mul(&scale.cast(x.dtype())?)?)
}

fn instance_norm(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let channels = x.shape().get(1).copied().unwrap_or(0);
    one(grouped(cx, x, inputs.get(1)?, inputs.get(2)?, channels)?)
}

fn group_norm(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (x, node) = (inputs.get(0)?, cx.node);
    let groups = node.int_required("num_groups")?;
    let groups = usize::try_from(groups).map_err(|_| node.attribute_error("num_groups", "must be positive"))?;
    let (mut scale, mut bias) = (inputs.get(1)?.clone(), inputs.get(2)?.clone());
    let channels = x.shape().get(1).copied().unwrap_or(0);
    // Before operator set 21, scale and bias were given for each group.
    if cx.opset < 21 && groups > 0 && scale.len() == groups && bias.len() == groups {
        let owner = Tensor::vector((0..channels).map(|c| (c * groups / channels) as i64).collect());
        (scale, bias) = (scale.gather(&owner, 0)?, bias.gather(&owner, 0)?);
    }
    one(grouped(cx, x, &scale, &bias, groups)?)
}

/// Normalizes groups in at least f32, then scales and shifts each channel.
fn grouped(cx: &EvalCx, x: &Tensor, scale: &Tensor, bias: &Tensor, groups: usize) -> Result<Tensor, OpError> {
    let inner = stash(cx.node, x.dtype())?;
    Ok(x.cast(inner)?.group_norm(&scale.cast(inner)?, &bias.cast(inner)?, groups, epsilon(cx.node)?)?.cast(x.dtype())?)
}

/// Scale and bias for each group become one for each channel, which needs the channel count and constants: refused.
fn upgrade_group(node: &mut Node, to: i64, types: &[ValueType], _: &mut dyn FnMut(&str, Tensor) -> ValueId) -> Result<(), OpError> {
    let size = |i: usize, axis: usize| match types.get(i) {
        Some(ValueType::Tensor { shape: Some(s), .. }) => s.get(axis).and_then(Dim::known),
        _ => None,
    };
    if to == 21 && (size(1, 0).is_none() || size(1, 0) != size(0, 1)) {
        return Err(OpError::unsupported(node, "scale and bias for each group cannot be expressed from operator set 21 on"));
    }
    Ok(())
}

fn lp_norm(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    one(x.lp_norm(first_axis(cx.node, x)?, cx.node.int_or("p", 2)?)?)
}

fn mean_variance(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let axes = crate::shapes::axes(&cx.node.ints_or("axes", vec![0, 2, 3])?, x.rank())?;
    let mean = x.mean(&axes, true)?;
    let variance = x.mul(x)?.mean(&axes, true)?.sub(&mean.mul(&mean)?)?;
    one(x.sub(&mean)?.div(&variance.sqrt()?.add_scalar(1e-9)?)?)
}

fn lrn(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (x, node) = (inputs.get(0)?, cx.node);
    let size = usize::try_from(node.int_required("size")?).map_err(|_| node.attribute_error("size", "must be positive"))?;
    let float = |name, default| node.float_or(name, default).map(f64::from);
    one(x.lrn(size, float("alpha", 1e-4)?, float("beta", 0.75)?, float("bias", 1.0)?)?)
}

/// The axes before those that are normalized over.
fn leading(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let rank = cx.input(0).map_or(0, <[Dim]>::len);
    if rank > 0 {
        pass(out, 0..tensor::shape::axis("axis", cx.node.int_or("axis", -1)?, rank)?);
    }
    out.reason = Some("it normalizes over this axis".into());
    Ok(())
}

fn instance(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    if cx.input(0).is_some_and(|s| s.len() > 1) {
        pass(out, 0..2);
        (1..3).for_each(|i| out.tie(Input(0, 1), Input(i, 0)));
    }
    Ok(())
}
