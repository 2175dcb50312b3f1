//! Folding axes: sum, product, largest, smallest.
use super::context::{Context, MOST_GROUPS};
use super::elementwise::{FUNCTIONS, groups};
use super::storage::{DeviceData, on_device};
use crate::{DType, Result, Tensor};
use std::sync::Arc;

const COLUMNS: &str = include_str!("reduce_columns.wgsl");
const ROWS: &str = include_str!("reduce_rows.wgsl");

/// `(operation, fold in x and y, neutral element)`.
const FOLDS: &[(&str, &str, f32)] = &[
    ("sum", "x + y", 0.0),
    ("prod", "x * y", 1.0),
    ("max_reduce", "larger(x, y)", f32::NEG_INFINITY),
    ("min_reduce", "smaller(x, y)", f32::INFINITY),
];

/// Rows at least this long get a workgroup each.
const LONG_ROW: usize = 64;
/// Elements that one invocation folds where there are too few results to keep the device busy.
const PART: usize = 256;
/// Results that keep the device busy.
const MANY: usize = 4096;

/// Folds the marked axes; `to` is the result's shape.
pub(crate) fn reduce(op: &str, x: &Tensor, marked: &[bool], to: &[usize]) -> Result<Option<Tensor>> {
    let Some((_, join, start)) = FOLDS.iter().find(|f| f.0 == op).filter(|_| x.on_device() && x.dtype() == DType::F32 && !x.is_empty())
    else {
        return Ok(None);
    };
    let run = || {
        let context = Context::get()?;
        let mut data = on_device(context, x)?;
        let mut axes: Vec<(bool, usize)> = Vec::new();
        for (dim, mark) in x.shape().iter().zip(marked) {
            match axes.last_mut() {
                Some((m, size)) if m == mark => *size *= dim,
                _ => axes.push((*mark, *dim)),
            }
        }
        let mut inner = 1;
        while let Some((mark, size)) = axes.pop() {
            match mark {
                true => data = Arc::new(fold(context, join, *start, &data, axes.iter().map(|a| a.1).product(), size, inner)?),
                false => inner *= size,
            }
        }
        Some(Tensor::from_device(DType::F32, data, to))
    };
    Ok(run())
}

/// Folds `[outer, count, inner]` to `[outer, inner]`.
fn fold(context: &Context, join: &str, start: f32, data: &DeviceData, outer: usize, count: usize, inner: usize) -> Option<DeviceData> {
    if inner == 1 && count >= LONG_ROW && (outer > 16 || count <= 256 * PART) {
        let out = DeviceData::new(context, DType::F32, outer)?;
        let kernel = context.kernel(&format!("rows {join}"), 1, 1, || [FUNCTIONS, &ROWS.replace("JOIN", join)].concat());
        let x = u32::try_from(outer).ok()?.min(MOST_GROUPS);
        let grid = [x, u32::try_from(outer).ok()?.div_ceil(x), 1];
        context.run(&kernel, &[outer as u32, count as u32, start.to_bits()], &[data.memory()], &[out.memory()], grid);
        return Some(out);
    }
    let parts = if outer * inner < MANY && count > 2 * PART { count.div_ceil(PART) } else { 1 };
    let length = count.div_ceil(parts);
    let n = outer * parts * inner;
    let out = DeviceData::new(context, DType::F32, n)?;
    let kernel = context.kernel(&format!("columns {join}"), 1, 1, || [FUNCTIONS, &COLUMNS.replace("JOIN", join)].concat());
    let parameters = [n as u32, count as u32, inner as u32, parts as u32, length as u32, start.to_bits()];
    context.run(&kernel, &parameters, &[data.memory()], &[out.memory()], groups(n)?);
    if parts == 1 { Some(out) } else { fold(context, join, start, &out, outer, parts, inner) }
}

/// Sums the middle of `[outer, count, inner]`.
pub(super) fn sum_middle(context: &Context, data: &DeviceData, outer: usize, count: usize, inner: usize) -> Option<DeviceData> {
    fold(context, "x + y", 0.0, data, outer, count, inner)
}
