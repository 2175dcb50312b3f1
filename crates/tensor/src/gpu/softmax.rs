//! Softmax along the last axis.
use super::context::{Context, MOST_GROUPS};
use super::elementwise::FUNCTIONS;
use super::storage::{DeviceData, on_device};
use crate::{DType, Result, Tensor};
use std::sync::Arc;

/// Softmax of rows of `width` elements, or its logarithm.
pub(crate) fn softmax(x: &Tensor, width: usize, log: bool) -> Result<Option<Tensor>> {
    let run = || {
        let context = Context::get()?;
        let (source, out) = (on_device(context, x)?, DeviceData::new(context, DType::F32, x.len())?);
        let rows = u32::try_from(x.len() / width).ok()?;
        let across = rows.min(MOST_GROUPS);
        let kernel = context.kernel("softmax", 1, 1, || [FUNCTIONS, include_str!("softmax.wgsl")].concat());
        let parameters = [rows, width as u32, u32::from(log), f32::NEG_INFINITY.to_bits()];
        context.run(&kernel, &parameters, &[source.memory()], &[out.memory()], [across, rows.div_ceil(across), 1]);
        Some(Tensor::from_device(DType::F32, Arc::new(out), x.shape()))
    };
    Ok(if x.on_device() && x.dtype() == DType::F32 && !x.is_empty() { run() } else { None })
}
