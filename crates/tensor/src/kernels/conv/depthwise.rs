//! Depthwise convolution (one or more filters for each input channel), f32, 2-D, in all three directions.
//!
//! Loop order: image or chunk of images, block of channels (threads) → filter → taps in register blocks → pixels. Channels
//! are the lanes: a block of channels is brought from `[channel][pixel]` to `[pixel][channel]` with zeros around, so that
//! every tap of every pixel is one whole vector whatever the width, the stride and the dilation, nothing is summed across
//! lanes, and the nine weights of a block of taps stay in registers. The two transpositions cost about as much as the taps.
//! Chunks of images have fixed bounds and are added in their order, so the result does not depend on the threads.
//!
//! Large images at stride 1 go forward and backward by data through [`super::direct`] with one output channel in a block: its
//! vectors are full there, and it needs no transposition.
use super::{Geometry, direct};
use crate::kernels::scratch;
use crate::kernels::simd::{Isa, Lanes, UNIT, dispatch};
use crate::window::reach;
use rayon::prelude::*;

/// Most chunks of images that are summed separately.
const CHUNKS: usize = 8;

/// Pixels from which on an image at stride 1 is faster with pixels as lanes.
const LARGE: usize = 256;

fn is_large(g: &Geometry) -> bool {
    g.stride == [1; 3] && g.pixels_out() >= LARGE
}

/// A padded plane and the offsets of its taps.
struct TapPlan {
    /// Size of the image copied into the plane.
    image: [usize; 2],
    /// Position of its first pixel.
    origin: [usize; 2],
    /// Pixels from one row of the plane to the next, and of the plane.
    pitch: usize,
    pixels: usize,
    /// Offset of each tap for the first position.
    taps: Vec<usize>,
    /// Positions, and their distance.
    positions: [usize; 2],
    stride: [usize; 2],
}

impl TapPlan {
    fn new(image: [usize; 2], origin: [usize; 2], positions: [usize; 2], stride: [usize; 2], taps: &[[usize; 2]]) -> Self {
        let furthest = |i: usize| taps.iter().map(|t| t[i]).max().unwrap_or(0) + (positions[i].max(1) - 1) * stride[i] + 1;
        let size: [usize; 2] = std::array::from_fn(|i| furthest(i).max(origin[i] + image[i]));
        let taps = taps.iter().map(|t| t[0] * size[1] + t[1]).collect();
        TapPlan { image, origin, pitch: size[1], pixels: size[0] * size[1], taps, positions, stride }
    }

    /// Of the input, read by the taps of each output pixel.
    fn of_input(g: &Geometry) -> Self {
        let image = [g.input[1], g.input[2]];
        TapPlan::new(image, [g.before[1], g.before[2]], [g.output[1], g.output[2]], [g.stride[1], g.stride[2]], &taps(g))
    }

    /// Of the output's gradient, read by the turned kernel of each input pixel: at stride 1, unless the padding is wider
    /// than the kernel reaches.
    fn of_gradient(g: &Geometry) -> Option<Self> {
        let reach = |i: usize| (g.kernel[i] - 1) * g.dilation[i];
        let origin = [reach(1).checked_sub(g.before[1])?, reach(2).checked_sub(g.before[2])?];
        let turned: Vec<[usize; 2]> = taps(g).iter().map(|t| [reach(1) - t[0], reach(2) - t[1]]).collect();
        (g.stride[1] == 1 && g.stride[2] == 1)
            .then(|| TapPlan::new([g.output[1], g.output[2]], origin, [g.input[1], g.input[2]], [1, 1], &turned))
    }

    fn image_pixels(&self) -> usize {
        self.image[0] * self.image[1]
    }

    /// The first pixel of each row of the image in the plane.
    fn rows(&self) -> impl Iterator<Item = usize> {
        let first = self.origin[0] * self.pitch + self.origin[1];
        (0..self.image[0]).map(move |y| first + y * self.pitch)
    }

    /// True if slices hold the plane and all positions of `lanes` channels.
    fn covers(&self, lanes: usize, plane: &[f32], positions: &[f32]) -> bool {
        let count = reach(0, &[[self.positions[0], self.positions[1]]]);
        plane.len() >= reach(0, &[[self.pixels, lanes]]) && positions.len() >= reach(0, &[[count, lanes]])
    }

    /// True if every tap of every position lies within the plane.
    fn fits(&self) -> bool {
        let last = |i: usize| reach(0, &[[self.positions[i].max(1) - 1, self.stride[i]]]);
        let tap = self.taps.iter().max().copied().unwrap_or(0);
        reach(tap, &[[last(0), self.pitch], [last(1), 1]]) < self.pixels.max(1)
    }
}

fn taps(g: &Geometry) -> Vec<[usize; 2]> {
    (0..g.kernel[1]).flat_map(|y| (0..g.kernel[2]).map(move |x| [y * g.dilation[1], x * g.dilation[2]])).collect()
}

/// Channels of one image: channel `i` of the block starts at `i * stride`.
#[derive(Clone, Copy)]
struct Channels {
    count: usize,
    stride: usize,
    pixels: usize,
}

/// `[channel][pixel]` to `[pixel][lane]`; lanes without a channel are zero.
#[inline(always)]
fn to_lanes<L: Lanes>(from: &[f32], of: Channels, to: &mut [f32]) {
    for unit in (0..L::LANES).step_by(UNIT) {
        let live = of.count.saturating_sub(unit).min(UNIT);
        let whole = if live == UNIT { of.pixels / UNIT * UNIT } else { 0 };
        assert!(whole == 0 || reach(whole, &[[unit + UNIT - 1, of.stride]]) <= from.len() && reach(0, &[[whole, L::LANES]]) <= to.len());
        for p in (0..whole).step_by(UNIT) {
            // SAFETY: the last of the eight rows ends within `from`, the last of the eight pixels within `to` (asserted).
            unsafe {
                let (from, to) = (from.as_ptr().add(unit * of.stride + p), to.as_mut_ptr().add(p * L::LANES + unit));
                L::transpose(from, to, [of.stride, L::LANES]);
            }
        }
        for p in whole..of.pixels {
            for c in 0..UNIT {
                to[p * L::LANES + unit + c] = if c < live { from[(unit + c) * of.stride + p] } else { 0.0 };
            }
        }
    }
}

/// The reverse of [`to_lanes`].
#[inline(always)]
fn from_lanes<L: Lanes>(from: &[f32], of: Channels, to: &mut [f32]) {
    for unit in (0..L::LANES).step_by(UNIT) {
        let live = of.count.saturating_sub(unit).min(UNIT);
        let whole = if live == UNIT { of.pixels / UNIT * UNIT } else { 0 };
        assert!(whole == 0 || reach(whole, &[[unit + UNIT - 1, of.stride]]) <= to.len() && reach(0, &[[whole, L::LANES]]) <= from.len());
        for p in (0..whole).step_by(UNIT) {
            // SAFETY: the last of the eight pixels ends within `from`, the last of the eight rows within `to` (asserted).
            unsafe {
                let (from, to) = (from.as_ptr().add(p * L::LANES + unit), to.as_mut_ptr().add(unit * of.stride + p));
                L::transpose(from, to, [L::LANES, of.stride]);
            }
        }
        for c in 0..live {
            for p in whole..of.pixels {
                to[(unit + c) * of.stride + p] = from[p * L::LANES + unit + c];
            }
        }
    }
}

/// Copies `[pixel][lane]` into a plane of zeros.
fn pad(plan: &TapPlan, lanes: usize, dense: &[f32], plane: &mut [f32]) {
    plane.fill(0.0);
    let width = plan.image[1] * lanes;
    for (row, at) in dense.chunks(width.max(1)).zip(plan.rows()) {
        plane[at * lanes..][..width].copy_from_slice(row);
    }
}

/// Calls `f(position, offset in the plane)` for all positions.
#[inline(always)]
fn each_position(plan: &TapPlan, mut f: impl FnMut(usize, usize)) {
    let mut position = 0;
    for y in 0..plan.positions[0] {
        let row = y * plan.stride[0] * plan.pitch;
        for x in 0..plan.positions[1] {
            f(position, row + x * plan.stride[1]);
            position += 1;
        }
    }
}

/// Runs `$body` for blocks of taps of constant size `$n`, from tap `$at` on.
macro_rules! in_blocks {
    ($count:expr, $at:ident, $n:ident => $body:expr) => {{
        let mut $at = 0;
        while $at < $count {
            match $count - $at {
                9.. => {
                    const $n: usize = 9;
                    $body;
                    $at += $n;
                }
                3.. => {
                    const $n: usize = 3;
                    $body;
                    $at += $n;
                }
                _ => {
                    const $n: usize = 1;
                    $body;
                    $at += $n;
                }
            }
        }
    }};
}

/// Everything one block of channels of one image needs.
struct BlockTask<'a> {
    plan: &'a TapPlan,
    /// `[tap][lane]`.
    weights: &'a [f32],
    /// Initial value of the sums for each lane; none: the sums are added to existing values.
    start: Option<&'a [f32]>,
}

/// `out[position] (+)= sum over taps of weights[tap] * plane[position + tap]`.
#[inline(always)]
fn gather_generic<L: Lanes>(task: &BlockTask, plane: &[f32], out: &mut [f32]) {
    let (plan, lanes) = (task.plan, L::LANES);
    assert!(plan.fits() && plan.covers(lanes, plane, out));
    assert!(task.weights.len() >= plan.taps.len() * lanes && task.start.is_none_or(|s| s.len() >= lanes));
    in_blocks!(plan.taps.len(), at, N => {
        // SAFETY: every tap of every position lies within the plane, and all slices hold the vectors that are addressed
        // (asserted above).
        unsafe {
            let mut weights = [L::zero(); N];
            let mut base = [plane.as_ptr(); N];
            for t in 0..N {
                weights[t] = L::load(task.weights.as_ptr().add((at + t) * lanes));
                base[t] = plane.as_ptr().add(plan.taps[at + t] * lanes);
            }
            let start = task.start.filter(|_| at == 0).map(|s| L::load(s.as_ptr()));
            each_position(plan, |position, offset| {
                let to = out.as_mut_ptr().add(position * lanes);
                let mut sum = match start { Some(s) => s, None => L::load(to) };
                for t in 0..N {
                    sum = weights[t].mul_add(L::load(base[t].add(offset * lanes)), sum);
                }
                sum.store(to);
            });
        }
    });
}

dispatch! {
    /// [`gather_generic`] compiled for an instruction set.
    gather = gather_generic(task: &BlockTask, plane: &[f32], out: &mut [f32])
}

/// `plane[position + tap] += weights[tap] * dy[position]`.
#[inline(always)]
fn scatter_generic<L: Lanes>(task: &BlockTask, dy: &[f32], plane: &mut [f32]) {
    let (plan, lanes) = (task.plan, L::LANES);
    assert!(plan.fits() && plan.covers(lanes, plane, dy));
    assert!(task.weights.len() >= plan.taps.len() * lanes);
    in_blocks!(plan.taps.len(), at, N => {
        // SAFETY: as in `gather_generic`.
        unsafe {
            let mut weights = [L::zero(); N];
            for t in 0..N {
                weights[t] = L::load(task.weights.as_ptr().add((at + t) * lanes));
            }
            each_position(plan, |position, offset| {
                let gradient = L::load(dy.as_ptr().add(position * lanes));
                for t in 0..N {
                    let to = plane.as_mut_ptr().add((offset + plan.taps[at + t]) * lanes);
                    weights[t].mul_add(gradient, L::load(to)).store(to);
                }
            });
        }
    });
}

dispatch! {
    /// [`scatter_generic`] compiled for an instruction set.
    scatter = scatter_generic(task: &BlockTask, dy: &[f32], plane: &mut [f32])
}

/// `sums[tap] += plane[position + tap] * dy[position]`, summed over positions.
#[inline(always)]
fn correlate_generic<L: Lanes>(plan: &TapPlan, plane: &[f32], dy: &[f32], sums: &mut [f32]) {
    let lanes = L::LANES;
    assert!(plan.fits() && plan.covers(lanes, plane, dy));
    assert!(sums.len() >= plan.taps.len() * lanes);
    in_blocks!(plan.taps.len(), at, N => {
        // SAFETY: as in `gather_generic`.
        unsafe {
            let mut acc = [L::zero(); N];
            let mut base = [plane.as_ptr(); N];
            for t in 0..N {
                acc[t] = L::load(sums.as_ptr().add((at + t) * lanes));
                base[t] = plane.as_ptr().add(plan.taps[at + t] * lanes);
            }
            each_position(plan, |position, offset| {
                let gradient = L::load(dy.as_ptr().add(position * lanes));
                for t in 0..N {
                    acc[t] = gradient.mul_add(L::load(base[t].add(offset * lanes)), acc[t]);
                }
            });
            for t in 0..N {
                acc[t].store(sums.as_mut_ptr().add((at + t) * lanes));
            }
        }
    });
}

dispatch! {
    /// [`correlate_generic`] compiled for an instruction set.
    correlate = correlate_generic(plan: &TapPlan, plane: &[f32], dy: &[f32], sums: &mut [f32])
}

dispatch! {
    /// [`to_lanes`] compiled for an instruction set.
    spread = to_lanes(from: &[f32], of: Channels, to: &mut [f32])
}

dispatch! {
    /// [`from_lanes`] compiled for an instruction set.
    collect = from_lanes(from: &[f32], of: Channels, to: &mut [f32])
}

/// The weights of filter `f` of a block of channels from `first` on, as `[tap][lane]`.
fn weights_of(g: &Geometry, w: &[f32], lanes: usize, first: usize, f: usize, to: &mut [f32]) {
    let (area, filters) = (g.taps(), g.group_out());
    to.fill(0.0);
    for lane in 0..lanes.min(g.c - first) {
        for t in 0..area {
            to[t * lanes + lane] = w[((first + lane) * filters + f) * area + t];
        }
    }
}

/// Runs `f(first channel of the block, channels in it, slice of `out`)` for the blocks of all images on all threads.
/// `per_channel` are the elements of `out` that belong to one input channel.
fn for_blocks(g: &Geometry, lanes: usize, per_channel: usize, out: &mut [f32], f: impl Fn(usize, usize, usize, &mut [f32]) + Sync) {
    if per_channel == 0 {
        return;
    }
    let image = g.c * per_channel;
    out.par_chunks_mut(image).enumerate().for_each(|(i, out)| {
        out.par_chunks_mut(lanes * per_channel).enumerate().for_each(|(block, out)| f(i, block * lanes, out.len() / per_channel, out));
    });
}

/// `y[n, o, ..]` from `x` and `w`.
pub(crate) fn forward(isa: Isa, g: &Geometry, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    if is_large(g) {
        return direct::forward(isa, g, x, w, bias, y);
    }
    let (plan, lanes, filters, pixels) = (TapPlan::of_input(g), isa.lanes(), g.group_out(), g.pixels_out());
    for_blocks(g, lanes, filters * pixels, y, |image, first, count, y| {
        let from = &x[(image * g.c + first) * plan.image_pixels()..];
        scratch::with((plan.image_pixels().max(pixels) + plan.taps.len() + 1) * lanes, |work| {
            scratch::with(plan.pixels * lanes, |plane| {
                let (weights, work) = work.split_at_mut(plan.taps.len() * lanes);
                let (start, dense) = work.split_at_mut(lanes);
                spread(isa, from, Channels { count, stride: plan.image_pixels(), pixels: plan.image_pixels() }, dense);
                pad(&plan, lanes, &dense[..plan.image_pixels() * lanes], plane);
                for f in 0..filters {
                    weights_of(g, w, lanes, first, f, weights);
                    start.fill(0.0);
                    if let Some(bias) = bias {
                        (0..count).for_each(|c| start[c] = bias[(first + c) * filters + f]);
                    }
                    gather(isa, &BlockTask { plan: &plan, weights, start: Some(start) }, plane, dense);
                    collect(isa, dense, Channels { count, stride: filters * pixels, pixels }, &mut y[f * pixels..]);
                }
            });
        });
    });
}

/// `dx[n, c, ..]` from `dy` and `w`.
pub(crate) fn backward_data(isa: Isa, g: &Geometry, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    if is_large(g) {
        return direct::backward_data(isa, g, dy, w, dx);
    }
    let (lanes, filters, pixels_in, pixels_out) = (isa.lanes(), g.group_out(), g.pixels_in(), g.pixels_out());
    let turned = TapPlan::of_gradient(g);
    let plan = TapPlan::of_input(g);
    let plane_len = turned.as_ref().map_or(plan.pixels, |t| t.pixels) * lanes;
    for_blocks(g, lanes, pixels_in, dx, |image, first, count, dx| {
        let from = &dy[(image * g.c + first) * filters * pixels_out..];
        scratch::with((pixels_in.max(pixels_out) + pixels_in + plan.taps.len()) * lanes, |work| {
            scratch::with(plane_len, |plane| {
                let (weights, work) = work.split_at_mut(plan.taps.len() * lanes);
                let (sums, dense) = work.split_at_mut(pixels_in * lanes);
                if turned.is_none() {
                    plane.fill(0.0);
                }
                sums.fill(0.0);
                for f in 0..filters {
                    weights_of(g, w, lanes, first, f, weights);
                    let of = Channels { count, stride: filters * pixels_out, pixels: pixels_out };
                    spread(isa, &from[f * pixels_out..], of, dense);
                    match &turned {
                        Some(turned) => {
                            pad(turned, lanes, &dense[..pixels_out * lanes], plane);
                            gather(isa, &BlockTask { plan: turned, weights, start: None }, plane, sums);
                        }
                        None => scatter(isa, &BlockTask { plan: &plan, weights, start: None }, dense, plane),
                    }
                }
                if turned.is_none() {
                    let width = plan.image[1] * lanes;
                    for (row, at) in sums.chunks_mut(width).zip(plan.rows()) {
                        row.copy_from_slice(&plane[at * lanes..][..width]);
                    }
                }
                collect(isa, sums, Channels { count, stride: pixels_in, pixels: pixels_in }, dx);
            });
        });
    });
}

/// `dw[o, 1, ..]` from `x` and `dy`; images in fixed chunks, added in their order.
pub(crate) fn backward_weights(isa: Isa, g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (plan, lanes, filters, pixels) = (TapPlan::of_input(g), isa.lanes(), g.group_out(), g.pixels_out());
    let (taps, blocks) = (plan.taps.len(), g.c.div_ceil(lanes));
    let per_chunk = g.n.div_ceil(CHUNKS).max(1);
    let chunks = g.n.div_ceil(per_chunk);
    let size = filters * taps * lanes;
    let mut parts = vec![0f32; chunks * blocks * size];
    parts.par_chunks_mut(size).enumerate().for_each(|(i, sums)| {
        let (chunk, first) = (i / blocks, i % blocks * lanes);
        let count = lanes.min(g.c - first);
        scratch::with(plan.image_pixels().max(pixels) * lanes, |dense| {
            scratch::with(plan.pixels * lanes, |plane| {
                for image in chunk * per_chunk..((chunk + 1) * per_chunk).min(g.n) {
                    let from = &x[(image * g.c + first) * plan.image_pixels()..];
                    spread(isa, from, Channels { count, stride: plan.image_pixels(), pixels: plan.image_pixels() }, dense);
                    pad(&plan, lanes, &dense[..plan.image_pixels() * lanes], plane);
                    for (f, sums) in sums.chunks_mut(taps * lanes).enumerate() {
                        let dy = &dy[((image * g.c + first) * filters + f) * pixels..];
                        spread(isa, dy, Channels { count, stride: filters * pixels, pixels }, dense);
                        correlate(isa, &plan, plane, dense, sums);
                    }
                }
            });
        });
    });
    dw.fill(0.0);
    for (i, sums) in parts.chunks(size).enumerate() {
        let first = i % blocks * lanes;
        for lane in 0..lanes.min(g.c - first) {
            for f in 0..filters {
                let dw = &mut dw[((first + lane) * filters + f) * taps..][..taps];
                dw.iter_mut().enumerate().for_each(|(t, d)| *d += sums[(f * taps + t) * lanes + lane]);
            }
        }
    }
}
