//! Depthwise convolution (one or more filters of its own for each input channel), f32, 2-D: forward, by data, by weights.
//!
//! Loop order: channel of an image (threads) → filter → output row → taps → pixels. There is no sum over channels to
//! reuse registers for, so each row is kept in the first-level cache and every tap adds a scaled, shifted row of the
//! padded planes to it; the compiler sees plain slices of equal length. Backward by weights multiplies the same pairs of
//! rows and sums them in eight lanes.
use super::Geometry;
use super::planes::Planes;
use crate::kernels::scratch;
use crate::kernels::simd::{LANES, Lanes, dispatch, has_avx2};
use rayon::prelude::*;

/// Images of which one task computes the weight gradient of one channel.
const CHUNKS: usize = 8;

/// Planes of one channel, and where each tap reads.
struct Layout {
    planes: Planes,
    taps: Vec<usize>,
}

fn layout(g: &Geometry) -> Layout {
    let extent = std::array::from_fn(|i| {
        let reach = (g.output[i + 1] - 1) * g.stride[i + 1] + (g.kernel[i + 1] - 1) * g.dilation[i + 1] + 1;
        reach.max(g.input[i + 1] + g.before[i + 1])
    });
    let planes = Planes::new(extent, [g.stride[1], g.stride[2]], [g.before[1], g.before[2]]);
    let taps = (0..g.kernel[1] * g.kernel[2])
        .map(|t| planes.offset(0, t / g.kernel[2] * g.dilation[1], t % g.kernel[2] * g.dilation[2]))
        .collect();
    Layout { planes, taps }
}

/// `row[x] += weight * from[x]`.
#[inline(always)]
fn add_scaled<L: Lanes>(row: &mut [f32], from: &[f32], weight: f32) {
    let n = row.len().min(from.len());
    let w = L::splat(weight);
    let whole = n / LANES * LANES;
    for i in (0..whole).step_by(LANES) {
        // SAFETY: `i + 8 <= whole`, which is within both slices.
        unsafe { w.mul_add(L::load(from.as_ptr().add(i)), L::load(row.as_ptr().add(i))).store(row.as_mut_ptr().add(i)) };
    }
    for i in whole..n {
        row[i] += weight * from[i];
    }
}

fn channel_forward_generic<L: Lanes>(l: &Layout, size: [usize; 2], planes: &[f32], w: &[f32], bias: f32, y: &mut [f32]) {
    for (r, row) in y.chunks_mut(size[1]).enumerate() {
        row.fill(bias);
        for (tap, weight) in l.taps.iter().zip(w) {
            add_scaled::<L>(row, &planes[tap + r * l.planes.pitch..], *weight);
        }
    }
}

dispatch! {
    /// One output channel.
    channel_forward = channel_forward_generic(l: &Layout, size: [usize; 2], planes: &[f32], w: &[f32], bias: f32, y: &mut [f32])
}

/// `y = conv(x, w) + bias` where `w` is `[o, 1, ..]`.
pub(crate) fn forward(g: &Geometry, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let l = layout(g);
    let (size, taps, filters) = ([g.output[1], g.output[2]], l.taps.len(), g.group_out());
    let (pixels_in, pixels_out) = (g.pixels_in(), g.pixels_out());
    y.par_chunks_mut(filters * pixels_out).enumerate().for_each(|(i, y)| {
        let c = i % g.c;
        scratch::with(l.planes.len(1), |planes| {
            l.planes.fill(&x[i * pixels_in..(i + 1) * pixels_in], [g.input[1], g.input[2]], planes);
            for (f, y) in y.chunks_mut(pixels_out).enumerate() {
                let o = c * filters + f;
                channel_forward(has_avx2(), &l, size, planes, &w[o * taps..(o + 1) * taps], bias.map_or(0.0, |b| b[o]), y);
            }
        });
    });
}

fn channel_data_generic<L: Lanes>(l: &Layout, size: [usize; 2], dy: &[f32], w: &[f32], planes: &mut [f32]) {
    for (r, row) in dy.chunks(size[1]).enumerate() {
        for (tap, weight) in l.taps.iter().zip(w) {
            let at = tap + r * l.planes.pitch;
            add_scaled::<L>(&mut planes[at..at + size[1]], row, *weight);
        }
    }
}

dispatch! {
    /// Scatters one output channel's gradient into the planes.
    channel_data = channel_data_generic(l: &Layout, size: [usize; 2], dy: &[f32], w: &[f32], planes: &mut [f32])
}

/// `dx` from `dy`: each tap adds to the planes what the forward pass read from them.
pub(crate) fn backward_data(g: &Geometry, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let l = layout(g);
    let (size, taps, filters) = ([g.output[1], g.output[2]], l.taps.len(), g.group_out());
    let (pixels_in, pixels_out) = (g.pixels_in(), g.pixels_out());
    dx.par_chunks_mut(pixels_in).enumerate().for_each(|(i, dx)| {
        let c = i % g.c;
        scratch::with(l.planes.len(1), |planes| {
            planes.fill(0.0);
            for f in 0..filters {
                let o = c * filters + f;
                let at = (i * filters + f) * pixels_out;
                channel_data(has_avx2(), &l, size, &dy[at..at + pixels_out], &w[o * taps..(o + 1) * taps], planes);
            }
            for (y, row) in dx.chunks_mut(g.input[2]).enumerate() {
                for phase in 0..g.stride[2].min(g.input[2]) {
                    let at = l.planes.offset(0, y + g.before[1], g.before[2] + phase);
                    for (to, from) in row[phase..].iter_mut().step_by(g.stride[2]).zip(&planes[at..]) {
                        *to = *from;
                    }
                }
            }
        });
    });
}

fn channel_weights_generic<L: Lanes>(l: &Layout, size: [usize; 2], planes: &[f32], dy: &[f32], dw: &mut [f32]) {
    for (tap, dw) in l.taps.iter().zip(dw) {
        let mut lanes = L::zero();
        let mut rest = 0f32;
        for (r, row) in dy.chunks(size[1]).enumerate() {
            let from = &planes[tap + r * l.planes.pitch..][..row.len()];
            let whole = row.len() / LANES * LANES;
            for i in (0..whole).step_by(LANES) {
                // SAFETY: `i + 8 <= whole`, which is within both slices.
                lanes = unsafe { L::load(from.as_ptr().add(i)).mul_add(L::load(row.as_ptr().add(i)), lanes) };
            }
            rest += from[whole..].iter().zip(&row[whole..]).map(|(a, b)| a * b).sum::<f32>();
        }
        *dw += lanes.sum() + rest;
    }
}

dispatch! {
    /// Adds one output channel's weight gradient of one image.
    channel_weights = channel_weights_generic(l: &Layout, size: [usize; 2], planes: &[f32], dy: &[f32], dw: &mut [f32])
}

/// `dw[o, 1, ..]` from `x` and `dy`; images in fixed chunks, added in their order.
pub(crate) fn backward_weights(g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let l = layout(g);
    let (size, taps, filters) = ([g.output[1], g.output[2]], l.taps.len(), g.group_out());
    let (pixels_in, pixels_out) = (g.pixels_in(), g.pixels_out());
    let per_chunk = g.n.div_ceil(CHUNKS).max(1);
    let chunks = g.n.div_ceil(per_chunk);
    let mut parts = vec![0f32; chunks * g.o * taps];
    parts.par_chunks_mut(filters * taps).enumerate().for_each(|(i, part)| {
        let (chunk, c) = (i / g.c, i % g.c);
        scratch::with(l.planes.len(1), |planes| {
            for image in chunk * per_chunk..((chunk + 1) * per_chunk).min(g.n) {
                let at = image * g.c + c;
                l.planes.fill(&x[at * pixels_in..(at + 1) * pixels_in], [g.input[1], g.input[2]], planes);
                for (f, dw) in part.chunks_mut(taps).enumerate() {
                    let from = (at * filters + f) * pixels_out;
                    channel_weights(has_avx2(), &l, size, planes, &dy[from..from + pixels_out], dw);
                }
            }
        });
    });
    dw.fill(0.0);
    for part in parts.chunks(g.o * taps) {
        for (d, p) in dw.iter_mut().zip(part) {
            *d += p;
        }
    }
}
