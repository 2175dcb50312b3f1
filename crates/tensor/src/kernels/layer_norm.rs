//! Normalization of rows (layer and root-mean-square normalization) with scale and bias, f32.
//!
//! Loop order: chunks of rows (threads) → row → its elements. A row is read from memory once: the passes over it for its
//! mean, its deviation and its result find it in the first-level cache. The backward pass visits each row twice in the same
//! way, and adds the gradients by scale and bias of a chunk's rows in the cache; chunks are cut by the data's size alone and
//! added in order, so that results do not depend on the number of threads.
use super::simd::vectorised;
use crate::map::rewrite;
use crate::parallel::CHUNK;
use crate::{Result, Tensor, recycle};
use rayon::prelude::*;

/// Lanes that the sums of a row are interleaved over.
const LANES: usize = 32;
/// Elements that a lane adds up before it is moved to f64.
const BLOCK: usize = 64;

/// `[mean, inverse deviation]` of a row.
type Statistics = [f32; 2];

/// Rows of one task.
fn rows_per_chunk(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

#[inline(always)]
fn total(lanes: [f32; LANES]) -> f64 {
    let halves: [f32; LANES / 2] = std::array::from_fn(|k| lanes[k] + lanes[k + LANES / 2]);
    let quarters: [f32; LANES / 4] = std::array::from_fn(|k| halves[k] + halves[k + LANES / 4]);
    quarters.iter().map(|v| f64::from(*v)).sum()
}

/// The sum of `f` over the elements of a row.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    x.chunks(LANES * BLOCK)
        .map(|block| {
            let mut lanes = [0f32; LANES];
            let (whole, rest) = block.as_chunks::<LANES>();
            for x in whole {
                for k in 0..LANES {
                    lanes[k] += f(x[k]);
                }
            }
            rest.iter().zip(&mut lanes).for_each(|(x, lane)| *lane += f(*x));
            total(lanes)
        })
        .sum()
}

/// Mean and inverse deviation of a row; where it is not `centred`, zero and one over the root mean square.
#[inline(always)]
fn statistics(x: &[f32], eps: f64, centred: bool) -> Statistics {
    let m = x.len().max(1) as f64;
    let mean = if centred { (sum(x, |v| v) / m) as f32 } else { 0.0 };
    let variance = sum(x, |v| (v - mean) * (v - mean)) / m;
    [mean, (1.0 / (variance + eps).sqrt()) as f32]
}

/// `(x - mean) * inv * scale + bias` for each row of `scale.len()` elements, and the statistics of each row.
pub(crate) fn forward(x: &[f32], scale: &[f32], bias: &[f32], eps: f64, centred: bool) -> (Vec<f32>, Vec<Statistics>) {
    let width = scale.len().max(1);
    let rows = rows_per_chunk(width);
    let mut y = recycle::take(x.len());
    let mut kept = vec![[0f32; 2]; x.len() / width];
    y.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width)).zip(kept.par_chunks_mut(rows)).for_each(|((y, x), kept)| {
        vectorised!({
            for ((y, x), kept) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(kept) {
                *kept = statistics(x, eps, centred);
                let [mean, inv] = *kept;
                for (((y, x), s), b) in y.iter_mut().zip(x).zip(scale).zip(bias) {
                    *y = (x - mean) * inv * s + b;
                }
            }
        });
    });
    (y, kept)
}

/// Values of the forward pass that the backward pass needs, and the gradients by each row's mean and inverse deviation, if any.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) scale: &'a [f32],
    pub(crate) kept: &'a [Statistics],
    pub(crate) centred: bool,
    pub(crate) d_mean: Option<&'a [f32]>,
    pub(crate) d_inv: Option<&'a [f32]>,
}

/// Sums of `dy * scale` and of `dy * scale * x_hat` over a row, which is added to the gradients by scale and bias.
#[inline(always)]
fn visit(x: &[f32], dy: &[f32], scale: &[f32], [mean, inv]: Statistics, d_scale: &mut [f32], d_bias: &mut [f32]) -> [f64; 2] {
    let mut sums = [0f64; 2];
    let mut at = 0;
    while at < x.len() {
        let end = x.len().min(at + LANES * BLOCK);
        let mut lanes = [[0f32; LANES]; 2];
        let (x, x_rest) = x[at..end].as_chunks::<LANES>();
        let (dy, dy_rest) = dy[at..end].as_chunks::<LANES>();
        let (scale, scale_rest) = scale[at..end].as_chunks::<LANES>();
        let (d_scale, d_scale_rest) = d_scale[at..end].as_chunks_mut::<LANES>();
        let (d_bias, d_bias_rest) = d_bias[at..end].as_chunks_mut::<LANES>();
        for ((((x, dy), scale), d_scale), d_bias) in x.iter().zip(dy).zip(scale).zip(d_scale).zip(d_bias) {
            for k in 0..LANES {
                let x_hat = (x[k] - mean) * inv;
                let g = dy[k] * scale[k];
                lanes[0][k] += g;
                lanes[1][k] += g * x_hat;
                d_scale[k] += dy[k] * x_hat;
                d_bias[k] += dy[k];
            }
        }
        for (k, (x, dy)) in x_rest.iter().zip(dy_rest).enumerate() {
            let x_hat = (x - mean) * inv;
            let g = dy * scale_rest[k];
            lanes[0][k] += g;
            lanes[1][k] += g * x_hat;
            d_scale_rest[k] += dy * x_hat;
            d_bias_rest[k] += dy;
        }
        sums.iter_mut().zip(lanes).for_each(|(s, lanes)| *s += total(lanes));
        at = end;
    }
    sums
}

/// Turns `dy` into the gradient by x, and returns it with those by scale and bias.
pub(crate) fn backward(of: Rows, dy: Tensor) -> Result<(Tensor, Vec<f32>, Vec<f32>)> {
    let width = of.scale.len().max(1);
    let rows = rows_per_chunk(width);
    let m = width as f64;
    let (dx, partial) = rewrite(dy, rows * width, |at, piece: &mut [f32]| {
        let (mut d_scale, mut d_bias) = (vec![0f32; width], vec![0f32; width]);
        vectorised!({
            for (i, d) in piece.chunks_exact_mut(width).enumerate() {
                let row = at / width + i;
                let x = &of.x[row * width..(row + 1) * width];
                let [mean, inv] = of.kept[row];
                let [g, g_hat] = visit(x, d, of.scale, of.kept[row], &mut d_scale, &mut d_bias);
                let by = |list: Option<&[f32]>| list.map_or(0.0, |l| f64::from(l[row]));
                let i = f64::from(inv);
                // dx = inv * (g - mean(g) - x_hat * mean(g * x_hat)), plus the gradients through mean and inverse deviation.
                let k = if of.centred { ((by(of.d_mean) - i * g) / m) as f32 } else { 0.0 };
                let b = (-(i * g_hat + by(of.d_inv) * i * i) / m) as f32;
                for ((d, x), s) in d.iter_mut().zip(x).zip(of.scale) {
                    *d = *d * s * inv + (x - mean) * inv * b + k;
                }
            }
        });
        [d_scale, d_bias]
    })?;
    let add = |which: usize| {
        let mut sums = vec![0f64; width];
        partial.iter().for_each(|p| sums.iter_mut().zip(&p[which]).for_each(|(s, v)| *s += f64::from(*v)));
        sums.into_iter().map(|s| s as f32).collect()
    };
    Ok((dx, add(0), add(1)))
}
