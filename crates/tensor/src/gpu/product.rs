//! Matrix products and convolutions: each is a problem (the operands of a matrix product) combined with one of three ways to
//! compute it.
use super::context::{Context, MOST_GROUPS};
use super::elementwise::{FUNCTIONS, axes, groups};
use super::reduce;
use super::storage::{DeviceData, on_device};
use crate::kernels::conv::Geometry;
use crate::strided::Strided;
use crate::{DType, Result, Tensor, shape};
use std::sync::Arc;

const TILE: &str = include_str!("product_tile.wgsl");
const THREAD: &str = include_str!("product_thread.wgsl");
const GROUP: &str = include_str!("product_group.wgsl");
const GEOMETRY: &str = include_str!("conv_geometry.wgsl");

/// With fewer rows or columns most of a tile would be empty.
const SMALLEST_SIDE: usize = 6;
/// Columns of a tile.
const COLUMNS: usize = 64;
/// Workgroups that keep a device busy: with fewer, the sum over k is split between several.
const BUSY: usize = 64;
/// Length of k from which splitting pays, and the shortest length of a split.
const SPLIT: usize = 256;
/// Length of k from which one element gets a workgroup of its own.
const LONG: usize = 1024;

/// `z` products of `rows x k` and `k x columns`.
#[derive(Clone, Copy)]
struct Size {
    rows: usize,
    columns: usize,
    k: usize,
    z: usize,
}

/// Runs a problem: its name and source, its own parameters, its operands.
fn product(name: &str, source: &str, size: Size, own: &[u32], operands: &[&DeviceData]) -> Option<DeviceData> {
    let context = Context::get()?;
    let Size { rows, columns, k, z } = size;
    let elements = rows.checked_mul(columns)?.checked_mul(z)?;
    if elements == 0 || k == 0 {
        return None;
    }
    let word = |v: usize| u32::try_from(v).ok().filter(|v| *v < 1 << 31);
    let (row_tile, column_tiles) = (
        if rows <= 16 {
            16
        } else if rows <= 32 {
            32
        } else {
            64
        },
        columns.div_ceil(COLUMNS),
    );
    let tiles = column_tiles * rows.div_ceil(row_tile) * z;
    let tiled = rows >= SMALLEST_SIDE && columns >= SMALLEST_SIDE;
    let splits = if tiled && tiles < BUSY && k >= 2 * SPLIT { (BUSY / tiles).min(k / SPLIT).max(1) } else { 1 };
    // A multiple of the tile's step, so that no split ends inside one.
    let length = k.div_ceil(splits).next_multiple_of(16);
    let splits = k.div_ceil(length);
    let (way, text, grid) = if tiled {
        let text = TILE.replace("ROWS", &row_tile.to_string());
        (row_tile, text, [word(column_tiles)?, word(rows.div_ceil(row_tile))?, word(z * splits)?])
    } else if k >= LONG {
        let x = elements.min(MOST_GROUPS as usize);
        (1, GROUP.to_string(), [word(x)?, word(elements.div_ceil(x))?, 1])
    } else {
        (0, THREAD.to_string(), groups(elements)?)
    };
    if grid.iter().any(|g| *g > MOST_GROUPS) {
        return None;
    }
    let mut parameters = vec![word(rows)?, word(columns)?, word(k)?, word(z)?, word(splits)?, word(length)?, word(elements)?, 0];
    parameters.extend_from_slice(own);
    let out = DeviceData::new(context, DType::F32, elements.checked_mul(splits)?)?;
    let kernel = context.kernel(&format!("{name} {way}"), operands.len(), 1, || [FUNCTIONS, source, &text].concat());
    let inputs: Vec<_> = operands.iter().map(|d| d.memory()).collect();
    context.run(&kernel, &parameters, &inputs, &[out.memory()], grid);
    if splits == 1 { Some(out) } else { reduce::sum_middle(context, &out, 1, splits, elements) }
}

fn f32s(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F32 && !t.is_empty())
}

fn finish(data: Option<DeviceData>, to: &[usize]) -> Result<Option<Tensor>> {
    Ok(data.map(|d| Tensor::from_device(DType::F32, Arc::new(d), to)))
}

/// `[batch.., m, k]` by `[batch.., k, n]`, or their transposes, into shape `to`.
pub(crate) fn matmul(a: &Tensor, b: &Tensor, [transpose_a, transpose_b]: [bool; 2], k: usize, to: &[usize]) -> Result<Option<Tensor>> {
    let run = || {
        let context = Context::get()?;
        let (m, n) = (to[to.len() - 2], to[to.len() - 1]);
        let strides = |transposed: bool, width: usize| if transposed { [1, width as u32] } else { [width as u32, 1] };
        let mut own = Vec::new();
        own.extend(strides(transpose_a, if transpose_a { m } else { k }));
        own.extend(strides(transpose_b, if transpose_b { k } else { n }));
        let batch = &to[..to.len() - 2];
        let along = |t: &Tensor| -> Vec<isize> {
            let (own, size) = t.shape().split_at(t.rank() - 2);
            shape::broadcast_strides(own, batch).into_iter().map(|s| (s * size[0] * size[1]) as isize).collect()
        };
        own.extend(axes(&Strided::new(batch, [&along(a), &along(b)], [0; 2])));
        let size = Size { rows: m, columns: n, k, z: batch.iter().product() };
        product("matmul", include_str!("matmul.wgsl"), size, &own, &[&*on_device(context, a)?, &*on_device(context, b)?])
    };
    finish(if f32s(&[a, b]) { run() } else { None }, to)
}

fn geometry(g: &Geometry) -> Vec<u32> {
    let sizes = [g.c, g.o, g.groups];
    let lists = [g.input, g.output, g.kernel, g.stride, g.dilation, g.before];
    sizes.iter().chain(lists.iter().flatten()).map(|v| *v as u32).collect()
}

/// The kernels' arithmetic is in 32 bits.
fn fits(g: &Geometry) -> bool {
    (0..3).all(|i| (g.output[i] * g.stride[i]).saturating_add(g.kernel[i] * g.dilation[i]).saturating_add(g.before[i]) < 1 << 30)
}

/// Convolution into shape `to`.
pub(crate) fn conv_forward(g: &Geometry, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, to: &[usize]) -> Result<Option<Tensor>> {
    let run = || {
        let context = Context::get()?;
        let (x, w) = (on_device(context, x)?, on_device(context, w)?);
        let b = bias.map_or_else(|| Some(w.clone()), |b| on_device(context, b))?;
        let mut own = geometry(g);
        own.push(u32::from(bias.is_some()));
        let size = Size { rows: g.group_out(), columns: g.n * g.pixels_out(), k: g.group_in() * g.taps(), z: g.groups };
        let source = [GEOMETRY, include_str!("conv_forward.wgsl")].concat();
        product("conv forward", &source, size, &own, &[&*x, &*w, &*b])
    };
    finish(if f32s(&[x, w]) && bias.is_none_or(|b| f32s(&[b])) && fits(g) { run() } else { None }, to)
}

/// Gradient of a convolution by its input, of shape `to`.
pub(crate) fn conv_backward_data(g: &Geometry, dy: &Tensor, w: &Tensor, to: &[usize]) -> Result<Option<Tensor>> {
    let run = || {
        let context = Context::get()?;
        let size = Size { rows: g.group_in(), columns: g.n * g.pixels_in(), k: g.group_out() * g.taps(), z: g.groups };
        let source = [GEOMETRY, include_str!("conv_data.wgsl")].concat();
        product("conv data", &source, size, &geometry(g), &[&*on_device(context, dy)?, &*on_device(context, w)?])
    };
    finish(if f32s(&[dy, w]) && fits(g) { run() } else { None }, to)
}

/// Gradient of a convolution by its weights, of shape `to`.
pub(crate) fn conv_backward_weights(g: &Geometry, x: &Tensor, dy: &Tensor, to: &[usize]) -> Result<Option<Tensor>> {
    let run = || {
        let context = Context::get()?;
        let size = Size { rows: g.group_out(), columns: g.group_in() * g.taps(), k: g.n * g.pixels_out(), z: g.groups };
        let source = [GEOMETRY, include_str!("conv_weights.wgsl")].concat();
        product("conv weights", &source, size, &geometry(g), &[&*on_device(context, x)?, &*on_device(context, dy)?])
    };
    finish(if f32s(&[x, dy]) && fits(g) { run() } else { None }, to)
}
