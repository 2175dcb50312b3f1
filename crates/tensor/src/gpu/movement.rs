//! Moving elements: strided views read and written, joining, padding with zeros.
use super::context::Context;
use super::elementwise::{FUNCTIONS, axes, groups};
use super::storage::{DeviceData, on_device};
use crate::strided::Strided;
use crate::{DType, Result, Tensor, shape};
use std::sync::Arc;

const READ: &str = include_str!("read_view.wgsl");
const WRITE: &str = include_str!("write_view.wgsl");

fn moves(t: &Tensor) -> bool {
    t.on_device() && matches!(t.dtype(), DType::F32 | DType::Bool) && !t.is_empty()
}

/// The elements of `x` that a view of this shape reads.
pub(crate) fn read_view(x: &Tensor, space: &Strided<1>, to: &[usize]) -> Result<Option<Tensor>> {
    let run = || {
        let context = Context::get()?;
        let n = shape::count(to).ok().filter(|n| *n > 0)?;
        let (source, out) = (on_device(context, x)?, DeviceData::new(context, x.dtype(), n)?);
        let kernel = context.kernel("read view", 1, 1, || [FUNCTIONS, READ].concat());
        context.run(&kernel, &parameters(space, n), &[source.memory()], &[out.memory()], groups(n)?);
        Some(Tensor::from_device(x.dtype(), Arc::new(out), to))
    };
    Ok(if moves(x) { run() } else { None })
}

/// Broadcast to a shape.
pub(crate) fn expand(x: &Tensor, to: &[usize]) -> Result<Option<Tensor>> {
    read_view(x, &Strided::broadcast(to, [x.shape()]), to)
}

fn parameters(space: &Strided<1>, n: usize) -> Vec<u32> {
    let [start] = space.start();
    let mut words = vec![n as u32, start as u32];
    words.extend(axes(space));
    words
}

fn write(context: &Context, from: &Tensor, space: &Strided<1>, onto: &DeviceData) -> Option<()> {
    let source = on_device(context, from)?;
    let kernel = context.kernel("write view", 1, 1, || [FUNCTIONS, WRITE].concat());
    context.run(&kernel, &parameters(space, from.len()), &[source.memory()], &[onto.memory()], groups(from.len())?);
    Some(())
}

/// Zeros of shape `to` with `from` written into a view.
pub(crate) fn scatter_view(from: &Tensor, space: &Strided<1>, to: &[usize]) -> Result<Option<Tensor>> {
    let run = || {
        let context = Context::get()?;
        let out = DeviceData::new(context, from.dtype(), shape::count(to).ok()?)?;
        context.clear(out.memory());
        write(context, from, space, &out)?;
        Some(Tensor::from_device(from.dtype(), Arc::new(out), to))
    };
    Ok(if moves(from) { run() } else { None })
}

/// [`scatter_view`] where elements around the view may have a value other than zero.
pub(crate) fn pad(x: &Tensor, space: &Strided<1>, to: &[usize], value: Option<&Tensor>) -> Result<Option<Tensor>> {
    match value {
        // A copy here would cost more than it saves.
        Some(v) if v.on_device() || v.to_f64_vec()? != [0.0] => Ok(None),
        _ => scatter_view(x, space, to),
    }
}

/// Tensors joined along an axis into shape `to`.
pub(crate) fn concat(list: &[Tensor], axis: usize, to: &[usize]) -> Result<Option<Tensor>> {
    let Some(dtype) = list.iter().find(|t| moves(t)).map(Tensor::dtype) else { return Ok(None) };
    let run = || {
        let context = Context::get()?;
        let out = DeviceData::new(context, dtype, shape::count(to).ok()?)?;
        let strides: Vec<isize> = shape::strides(to).into_iter().map(|s| s as isize).collect();
        let mut at = 0;
        for t in list {
            if !t.is_empty() {
                write(context, t, &Strided::new(t.shape(), [&strides], [at * strides[axis]]), &out)?;
            }
            at += t.shape()[axis] as isize;
        }
        Some(Tensor::from_device(dtype, Arc::new(out), to))
    };
    Ok(run())
}
