//! Fake quantization, forward and backward.
use super::context::Context;
use super::elementwise::{FUNCTIONS, groups};
use super::storage::{DeviceData, on_device};
use crate::{DType, Result, Tensor};
use std::sync::Arc;

const FORWARD: &str = include_str!("fake_quant.wgsl");
const BACKWARD: &str = include_str!("fake_quant_gradient.wgsl");

/// A grid: runs of `run` elements share one of `channels` scales, in turn; integers from `lo` to `hi`.
#[derive(Clone, Copy)]
pub(crate) struct Grid<'a> {
    pub(crate) scale: &'a Tensor,
    pub(crate) zero: &'a Tensor,
    pub(crate) run: usize,
    pub(crate) channels: usize,
    pub(crate) bounds: (f32, f32),
}

impl Grid<'_> {
    fn words(&self, n: usize) -> Vec<u32> {
        vec![n as u32, self.run as u32, self.channels as u32, self.bounds.0.to_bits(), self.bounds.1.to_bits()]
    }

    fn serves(&self, x: &Tensor) -> bool {
        [x, self.scale, self.zero].iter().all(|t| t.dtype() == DType::F32 && !t.is_empty())
    }
}

/// The values after quantization and dequantization.
pub(crate) fn fake_quantize(x: &Tensor, grid: Grid) -> Result<Option<Tensor>> {
    let run = || {
        let context = Context::get()?;
        let (source, scale, zero) = (on_device(context, x)?, on_device(context, grid.scale)?, on_device(context, grid.zero)?);
        let out = DeviceData::new(context, DType::F32, x.len())?;
        let kernel = context.kernel("fake_quant", 3, 1, || [FUNCTIONS, FORWARD].concat());
        let inputs = [source.memory(), scale.memory(), zero.memory()];
        context.run(&kernel, &grid.words(x.len()), &inputs, &[out.memory()], groups(x.len())?);
        Some(Tensor::from_device(DType::F32, Arc::new(out), x.shape()))
    };
    Ok(if grid.serves(x) { run() } else { None })
}

/// Gradients by x, and by scale and zero point if requested.
pub(crate) fn fake_quantize_backward(x: &Tensor, grid: Grid, dy: &Tensor, wanted: [bool; 2]) -> Result<Option<Vec<Option<Tensor>>>> {
    let run = || {
        let context = Context::get()?;
        let (n, on) = (x.len(), |t: &Tensor| on_device(context, t));
        let (source, scale, zero, d) = (on(x)?, on(grid.scale)?, on(grid.zero)?, on(dy)?);
        let make = |wanted: bool| DeviceData::new(context, DType::F32, if wanted { n } else { 1 });
        let (dx, by_scale, by_zero) = (make(true)?, make(wanted[0])?, make(wanted[1])?);
        let kernel = context.kernel("fake_quant gradient", 4, 3, || [FUNCTIONS, BACKWARD].concat());
        let mut words = grid.words(n);
        words.extend(wanted.map(u32::from));
        let inputs = [source.memory(), scale.memory(), zero.memory(), d.memory()];
        context.run(&kernel, &words, &inputs, &[dx.memory(), by_scale.memory(), by_zero.memory()], groups(n)?);
        let tensor = |data: DeviceData, shape: &[usize]| Tensor::from_device(DType::F32, Arc::new(data), shape);
        // [outer, channels, run]
        let grouped = [n / (grid.channels * grid.run).max(1), grid.channels, grid.run];
        Some((
            tensor(dx, x.shape()),
            tensor(by_scale, &if wanted[0] { grouped } else { [1; 3] }),
            tensor(by_zero, &if wanted[1] { grouped } else { [1; 3] }),
        ))
    };
    if !grid.serves(x) || dy.dtype() != DType::F32 {
        return Ok(None);
    }
    let Some((dx, by_scale, by_zero)) = run() else { return Ok(None) };
    let sum = |wanted: bool, t: &Tensor, like: &Tensor| wanted.then(|| t.sum(&[0, 2], false)?.reshape(like.shape())).transpose();
    let (ds, dz) = (sum(wanted[0], &by_scale, grid.scale)?, sum(wanted[1], &by_zero, grid.zero)?);
    Ok(Some(vec![Some(dx), ds, dz]))
}
