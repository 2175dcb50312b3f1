//! Batch normalization with residual and activation: statistics, application, and both passes of the gradient.
use super::context::{Context, MOST_GROUPS};
use super::elementwise::{FUNCTIONS, groups};
use super::storage::{DeviceData, on_device};
use crate::kernels::batch_norm::Layout;
use crate::{DType, Result, Tensor, record_many};
use std::sync::Arc;

const STATISTICS: &str = include_str!("batch_norm_statistics.wgsl");
const APPLY: &str = include_str!("batch_norm_apply.wgsl");
const SUMS: &str = include_str!("batch_norm_sums.wgsl");
const GRADIENT: &str = include_str!("batch_norm_gradient.wgsl");

/// Parameters of one normalization.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) layout: Layout,
    pub(crate) x: &'a Tensor,
    pub(crate) scale: &'a Tensor,
    pub(crate) bias: &'a Tensor,
    pub(crate) residual: Option<&'a Tensor>,
    pub(crate) bounds: (f32, f32),
    pub(crate) activated: bool,
}

impl Parts<'_> {
    fn serves(&self) -> bool {
        let mut all = [self.x, self.scale, self.bias].into_iter().chain(self.residual);
        all.all(|t| t.dtype() == DType::F32 && !t.is_empty()) && self.layout.c <= MOST_GROUPS as usize
    }

    fn words(&self, flag: bool) -> Vec<u32> {
        let l = self.layout;
        vec![self.x.len() as u32, l.c as u32, l.inner as u32, self.bounds.0.to_bits(), self.bounds.1.to_bits(), u32::from(flag)]
    }
}

fn f32_tensor(data: DeviceData, shape: &[usize]) -> Tensor {
    Tensor::from_device(DType::F32, Arc::new(data), shape)
}

/// With the statistics of the batch; gives y, mean and variance.
pub(crate) fn batch_norm_train(parts: Parts, eps: f32) -> Result<Option<(Tensor, Tensor, Tensor)>> {
    let run = || {
        let (context, l) = (Context::get()?, parts.layout);
        let source = on_device(context, parts.x)?;
        let make = || DeviceData::new(context, DType::F32, l.c);
        let (mean, variance, inverse) = (make()?, make()?, make()?);
        let kernel = context.kernel("batch_norm statistics", 1, 3, || [FUNCTIONS, STATISTICS].concat());
        let parameters = [l.n as u32, l.c as u32, l.inner as u32, eps.to_bits()];
        let to = [mean.memory(), variance.memory(), inverse.memory()];
        context.run(&kernel, &parameters, &[source.memory()], &to, [l.c as u32, 1, 1]);
        let (mean, variance, inverse) = (f32_tensor(mean, &[l.c]), f32_tensor(variance, &[l.c]), f32_tensor(inverse, &[l.c]));
        let y = apply(parts, &mean, &inverse, true)?;
        Some((y, mean, variance))
    };
    Ok(if parts.serves() { run() } else { None })
}

/// With given statistics.
pub(crate) fn batch_norm(parts: Parts, mean: &Tensor, var: &Tensor, eps: f32) -> Result<Option<Tensor>> {
    if !parts.serves() || !parts.x.on_device() {
        return Ok(None);
    }
    let Some(var) = super::to_device(&var.detach())? else { return Ok(None) };
    let inverse = var.add_scalar(f64::from(eps))?.sqrt()?.reciprocal()?;
    Ok(apply(parts, &mean.detach(), &inverse, false))
}

/// The output, recorded.
fn apply(parts: Parts, mean: &Tensor, inverse: &Tensor, through_statistics: bool) -> Option<Tensor> {
    let context = Context::get()?;
    let on = |t: &Tensor| on_device(context, t);
    let (x, scale, bias) = (on(parts.x)?, on(parts.scale)?, on(parts.bias)?);
    let (mean, inverse) = (on(mean)?, on(inverse)?);
    let residual = parts.residual.map_or_else(|| Some(x.clone()), on)?;
    let out = DeviceData::new(context, DType::F32, parts.x.len())?;
    let kernel = context.kernel("batch_norm apply", 6, 1, || [FUNCTIONS, APPLY].concat());
    let inputs = [&x, &mean, &inverse, &scale, &bias, &residual].map(|d| d.memory());
    context.run(&kernel, &parts.words(parts.residual.is_some()), &inputs, &[out.memory()], groups(parts.x.len())?);
    let y = f32_tensor(out, parts.x.shape());
    let inputs: Vec<&Tensor> = [parts.x, parts.scale, parts.bias].into_iter().chain(parts.residual).collect();
    // Without an activation the output is not read: x takes its place.
    let kept = if parts.activated { y.device.clone()? } else { x.clone() };
    let (l, words, shape) = (parts.layout, parts.words(parts.activated), parts.x.shape().to_vec());
    let with_residual = parts.residual.is_some_and(Tensor::is_tracked);
    let mut out = record_many("batch_norm", &inputs, vec![y], move |mut dy| {
        let Some(dy) = dy.pop().flatten() else { return Ok(vec![]) };
        let gone = || crate::TensorError::value("batch_norm", "its gradient does not fit on the device");
        let run = || {
            let dy = on_device(context, &dy)?;
            let make = |n: usize| DeviceData::new(context, DType::F32, n);
            let (d_scale, d_bias, dx) = (make(l.c)?, make(l.c)?, make(dy.len())?);
            let kernel = context.kernel("batch_norm sums", 5, 2, || [FUNCTIONS, SUMS].concat());
            let mut own = words.clone();
            own[0] = l.n as u32;
            let inputs = [&x, &kept, &dy, &mean, &inverse].map(|d| d.memory());
            context.run(&kernel, &own, &inputs, &[d_scale.memory(), d_bias.memory()], [l.c as u32, 1, 1]);
            let dz = make(if with_residual { dy.len() } else { 1 })?;
            let kernel = context.kernel("batch_norm gradient", 8, 2, || [FUNCTIONS, GRADIENT].concat());
            let mut own = words.clone();
            let share = if through_statistics { 1.0 / l.count() as f32 } else { 0.0 };
            own.extend([share.to_bits(), u32::from(with_residual)]);
            let inputs = [
                x.memory(),
                kept.memory(),
                dy.memory(),
                mean.memory(),
                inverse.memory(),
                scale.memory(),
                d_scale.memory(),
                d_bias.memory(),
            ];
            context.run(&kernel, &own, &inputs, &[dx.memory(), dz.memory()], groups(dy.len())?);
            let d_residual = with_residual.then(|| f32_tensor(dz, &shape));
            Some(vec![Some(f32_tensor(dx, &shape)), Some(f32_tensor(d_scale, &[l.c])), Some(f32_tensor(d_bias, &[l.c])), d_residual])
        };
        run().ok_or_else(gone)
    });
    Some(out.remove(0))
}
