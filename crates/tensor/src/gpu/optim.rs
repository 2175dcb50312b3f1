//! Optimizer updates. They write new tensors instead of changing the old ones: a tensor is a value, and its memory is reused in
//! the next step.
use super::context::Context;
use super::elementwise::{FUNCTIONS, groups};
use super::storage::{DeviceData, on_device};
use crate::{AdamWOptions, DType, Result, SgdOptions, Tensor};
use std::sync::Arc;

fn serves(parts: &[&Tensor]) -> bool {
    parts.iter().all(|t| t.dtype() == DType::F32 && !t.is_empty()) && parts.iter().any(|t| t.on_device())
}

/// Runs an update: `name` and `source` of the kernel, its parameters, its inputs, and the tensors that it replaces.
fn update(name: &str, source: &str, words: &[u32], gradient: &Tensor, state: &mut [&mut Tensor]) -> Option<()> {
    let (context, n) = (Context::get()?, gradient.len());
    let mut read = state.iter().map(|t| on_device(context, t)).collect::<Option<Vec<_>>>()?;
    read.insert(1, on_device(context, gradient)?);
    let new = state.iter().map(|_| DeviceData::new(context, DType::F32, n)).collect::<Option<Vec<_>>>()?;
    let kernel = context.kernel(name, read.len(), new.len(), || [FUNCTIONS, source].concat());
    let inputs: Vec<_> = read.iter().map(|d| d.memory()).collect();
    let outputs: Vec<_> = new.iter().map(DeviceData::memory).collect();
    let mut parameters = vec![n as u32];
    parameters.extend_from_slice(words);
    context.run(&kernel, &parameters, &inputs, &outputs, groups(n)?);
    for (old, new) in state.iter_mut().zip(new) {
        **old = Tensor::from_device(DType::F32, Arc::new(new), gradient.shape());
    }
    Some(())
}

/// See [`crate::sgd_step`].
pub(crate) fn sgd_step(parameter: &mut Tensor, gradient: &Tensor, velocity: &mut Tensor, o: &SgdOptions) -> Result<Option<()>> {
    if !serves(&[&*parameter, gradient, &*velocity]) {
        return Ok(None);
    }
    let words = [o.lr.to_bits(), o.momentum.to_bits(), o.weight_decay.to_bits(), u32::from(o.nesterov)];
    Ok(update("sgd", include_str!("sgd.wgsl"), &words, gradient, &mut [parameter, velocity]))
}

/// See [`crate::adamw_step`]; `corrections` are those of the first moment and of the root of the second.
pub(crate) fn adamw_step(
    parameter: &mut Tensor,
    gradient: &Tensor,
    [first, second]: [&mut Tensor; 2],
    o: &AdamWOptions,
    corrections: [f32; 2],
) -> Result<Option<()>> {
    if !serves(&[&*parameter, gradient, &*first, &*second]) {
        return Ok(None);
    }
    let words = [o.lr, o.beta1, o.beta2, o.eps, o.weight_decay, corrections[0], corrections[1]].map(f32::to_bits);
    Ok(update("adamw", include_str!("adamw.wgsl"), &words, gradient, &mut [parameter, first, second]))
}

/// The sum of squares of each tensor, read back together; `None` if one is not on the device.
pub(crate) fn sum_squares(tensors: &[&Tensor]) -> Result<Option<Vec<f32>>> {
    if tensors.is_empty() || !tensors.iter().all(|t| serves(&[t])) {
        return Ok(None);
    }
    let sums = tensors.iter().map(|t| t.detach().sum_square(&(0..t.rank()).collect::<Vec<_>>(), false)?.reshape([1]));
    Ok(Some(Tensor::concat(&sums.collect::<Result<Vec<_>>>()?, 0)?.to_f32_vec()?))
}
