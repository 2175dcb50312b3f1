//! Direct convolution, f32, 2-D: forward, and backward by data as a convolution of the output's gradient for each phase
//! of the input.
//!
//! Loop order: image (threads) → 4 output channels → 3 vectors of 8 pixels → taps. The innermost body keeps 4 x 3
//! accumulators in registers; each tap costs three loads from the padded planes and four broadcasts of packed weights
//! for twelve multiply-adds. Weights are packed `[o / 4][tap][4]`, so they stream; the three pixel vectors of all taps
//! of a channel lie in a few rows that stay in the first-level cache. Rows whose width is no multiple of 8 are computed
//! at the pitch of the planes, waste included, and compacted.
use super::Geometry;
use super::planes::Planes;
use crate::kernels::scratch;
use crate::kernels::simd::{LANES, Lanes, dispatch, has_avx2};
use rayon::prelude::*;

/// Output channels of one register block.
const ROWS: usize = 4;
/// Pixel vectors of one register block.
const VECTORS: usize = 3;

/// A convolution on planes, reduced to what the inner loop needs.
struct Pass {
    planes: Planes,
    /// Input channels a pass reads.
    channels: usize,
    /// Size of the image that is copied into the planes.
    image: [usize; 2],
    /// Output channels of a pass.
    outputs: usize,
    /// Offset of each tap in the planes.
    taps: Vec<usize>,
    /// Weights packed `[outputs / 4][taps][4]`.
    packed: Vec<f32>,
    /// Size of the output.
    size: [usize; 2],
    /// Offset of each vector of pixels.
    vectors: Vec<usize>,
    /// Pixels from one computed row to the next: the output's width, or the pitch of the planes.
    pitch: usize,
}

impl Pass {
    fn new(
        planes: Planes,
        channels: usize,
        image: [usize; 2],
        outputs: usize,
        size: [usize; 2],
        taps: Vec<usize>,
        weight: impl Fn(usize, usize) -> f32,
    ) -> Self {
        let exact = size[1].is_multiple_of(LANES);
        let pitch = if exact { size[1] } else { planes.pitch };
        let vectors = match exact {
            true => (0..size[0] * size[1] / LANES).map(|v| v * LANES / size[1] * planes.pitch + v * LANES % size[1]).collect(),
            false => (0..((size[0].max(1) - 1) * pitch + size[1]).div_ceil(LANES)).map(|v| v * LANES).collect(),
        };
        let mut packed = vec![0f32; outputs.div_ceil(ROWS) * taps.len() * ROWS];
        for o in 0..outputs {
            for t in 0..taps.len() {
                packed[(o / ROWS * taps.len() + t) * ROWS + o % ROWS] = weight(o, t);
            }
        }
        Pass { planes, channels, image, outputs, taps, packed, size, vectors, pitch }
    }

    /// Elements of one computed channel.
    fn computed(&self) -> usize {
        self.vectors.len() * LANES
    }

    fn is_exact(&self) -> bool {
        self.size[1].is_multiple_of(LANES)
    }

    /// Computes the given blocks of output channels of one image into `out`, which starts at the first of them.
    fn run(&self, planes: &[f32], bias: Option<&[f32]>, blocks: std::ops::Range<usize>, out: &mut [f32]) {
        let first = blocks.start * ROWS;
        let count = (blocks.end * ROWS).min(self.outputs) - first;
        let pixels = self.size[0] * self.size[1];
        if self.is_exact() {
            return image(has_avx2(), self, planes, bias, blocks, out);
        }
        scratch::with(count * self.computed(), |wide| {
            image(has_avx2(), self, planes, bias, blocks, wide);
            for (o, wide) in wide.chunks(self.computed()).enumerate() {
                for y in 0..self.size[0] {
                    let at = o * pixels + y * self.size[1];
                    out[at..at + self.size[1]].copy_from_slice(&wide[y * self.pitch..y * self.pitch + self.size[1]]);
                }
            }
        });
    }

    fn blocks(&self) -> usize {
        self.outputs.div_ceil(ROWS)
    }
}

/// `out[o][pixel] = bias[o] + sum over taps of packed[o][tap] * planes[taps[tap] + pixel]` for some output channels.
fn image_generic<L: Lanes>(pass: &Pass, planes: &[f32], bias: Option<&[f32]>, blocks: std::ops::Range<usize>, out: &mut [f32]) {
    let (count, width) = (pass.vectors.len(), pass.computed());
    let reach = pass.taps.iter().max().copied().unwrap_or(0) + pass.vectors.iter().max().copied().unwrap_or(0) + LANES;
    assert!(reach <= planes.len(), "a tap reads {reach} of {} elements", planes.len());
    for (i, block) in blocks.enumerate() {
        let rows = (pass.outputs - block * ROWS).min(ROWS);
        let weights = &pass.packed[block * pass.taps.len() * ROWS..][..pass.taps.len() * ROWS];
        let start: [f32; ROWS] = std::array::from_fn(|r| bias.map_or(0.0, |b| if r < rows { b[block * ROWS + r] } else { 0.0 }));
        let out = &mut out[i * ROWS * width..][..rows * width];
        let mut v = 0;
        while v < count {
            let n = (count - v).min(VECTORS);
            let at = &pass.vectors[v..v + n];
            // SAFETY: every tap of every vector lies within `planes` (asserted above), `weights` has four for each tap,
            // and `out` has `rows` rows of `count` vectors.
            unsafe {
                let to = out.as_mut_ptr().add(v * LANES);
                match n {
                    3 => block_of::<L, 3>(planes.as_ptr(), &pass.taps, weights.as_ptr(), at, start, to, width, rows),
                    2 => block_of::<L, 2>(planes.as_ptr(), &pass.taps, weights.as_ptr(), at, start, to, width, rows),
                    _ => block_of::<L, 1>(planes.as_ptr(), &pass.taps, weights.as_ptr(), at, start, to, width, rows),
                }
            }
            v += n;
        }
    }
}

/// One register block: four output channels by `V` vectors.
///
/// # Safety
/// `planes + taps[t] + at[v]` must be readable for a vector, `weights` for four f32 a tap, and `out + r * width + v * 8`
/// writable for a vector for each of the `rows` rows.
#[inline(always)]
unsafe fn block_of<L: Lanes, const V: usize>(
    planes: *const f32,
    taps: &[usize],
    weights: *const f32,
    at: &[usize],
    start: [f32; ROWS],
    out: *mut f32,
    width: usize,
    rows: usize,
) {
    let mut sums: [[L; V]; ROWS] = std::array::from_fn(|r| [L::splat(start[r]); V]);
    let at: [usize; V] = std::array::from_fn(|v| at[v]);
    let mut w = weights;
    for tap in taps {
        // SAFETY: as the function's own contract says.
        unsafe {
            let from = planes.add(*tap);
            let pixels: [L; V] = std::array::from_fn(|v| L::load(from.add(at[v])));
            for (r, sums) in sums.iter_mut().enumerate() {
                let weight = L::splat(*w.add(r));
                for (sum, pixels) in sums.iter_mut().zip(pixels) {
                    *sum = weight.mul_add(pixels, *sum);
                }
            }
            w = w.add(ROWS);
        }
    }
    for (r, sums) in sums.iter().enumerate().take(rows) {
        for (v, sum) in sums.iter().enumerate() {
            // SAFETY: as the function's own contract says.
            unsafe { sum.store(out.add(r * width + v * LANES)) };
        }
    }
}

dispatch! {
    /// [`image_generic`] on the best instructions of the processor.
    image = image_generic(pass: &Pass, planes: &[f32], bias: Option<&[f32]>, blocks: std::ops::Range<usize>, out: &mut [f32])
}

/// Runs `pass` of each group over all images: `x` is `[n, groups * channels, image]`, `out` `[n, groups * outputs, size]`.
fn run_all(passes: &[Pass], x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    let Some(first) = passes.first() else { return };
    let (image_in, image_out) = (first.channels * first.image[0] * first.image[1], first.outputs * first.size[0] * first.size[1]);
    if image_in == 0 || image_out == 0 {
        return;
    }
    let groups = passes.len();
    let one = |i: usize, out: &mut [f32]| {
        let (pass, group) = (&passes[i % groups], i % groups);
        let bias = bias.map(|b| &b[group * pass.outputs..(group + 1) * pass.outputs]);
        scratch::with(pass.planes.len(pass.channels), |planes| {
            pass.planes.fill(&x[i * image_in..(i + 1) * image_in], pass.image, planes);
            pass.run(planes, bias, 0..pass.blocks(), out);
        });
    };
    let images = out.len() / image_out;
    if images > 1 {
        out.par_chunks_mut(image_out).enumerate().for_each(|(i, out)| one(i, out));
        return;
    }
    // One image: the threads share its output channels.
    let pass = first;
    scratch::with(pass.planes.len(pass.channels), |planes| {
        pass.planes.fill(x, pass.image, planes);
        let planes = &*planes;
        let per_task = pass.blocks().div_ceil(rayon::current_num_threads() * 2).max(1);
        let pixels = pass.size[0] * pass.size[1];
        out.par_chunks_mut(per_task * ROWS * pixels).enumerate().for_each(|(task, out)| {
            let from = task * per_task;
            pass.run(planes, bias, from..(from + per_task).min(pass.blocks()), out);
        });
    });
}

/// `y[n, o, ..] = conv(x, w) + bias`.
pub(crate) fn forward(g: &Geometry, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let (size, kernel, stride, dilation) =
        ([g.output[1], g.output[2]], [g.kernel[1], g.kernel[2]], [g.stride[1], g.stride[2]], [g.dilation[1], g.dilation[2]]);
    // The planes must hold the image itself and everything a tap reads.
    let extent =
        std::array::from_fn(|i| ((size[i] - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1).max(g.input[i + 1] + g.before[i + 1]));
    let planes = Planes::new(extent, stride, [g.before[1], g.before[2]]);
    let (channels, outputs, taps) = (g.group_in(), g.group_out(), kernel[0] * kernel[1]);
    let offsets: Vec<usize> =
        (0..channels * taps).map(|t| planes.offset(t / taps, t % taps / kernel[1] * dilation[0], t % kernel[1] * dilation[1])).collect();
    let passes: Vec<Pass> = (0..g.groups)
        .map(|group| {
            let w = &w[group * outputs * channels * taps..];
            Pass::new(planes, channels, [g.input[1], g.input[2]], outputs, size, offsets.clone(), |o, t| w[o * channels * taps + t])
        })
        .collect();
    run_all(&passes, x, bias, y);
}

/// Taps of one axis that reach a phase of the input: kernel position, and the output pixel relative to the phase's own.
fn reaching(phase: usize, kernel: usize, dilation: usize, before: usize, stride: usize) -> Vec<(usize, isize)> {
    (0..kernel)
        .filter_map(|k| {
            let d = phase as isize + before as isize - (k * dilation) as isize;
            (d.rem_euclid(stride as isize) == 0).then(|| (k, d.div_euclid(stride as isize)))
        })
        .collect()
}

/// `dx[n, c, ..]`: for each of the `stride x stride` phases of the input, a stride-1 convolution of `dy`.
pub(crate) fn backward_data(g: &Geometry, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let (channels, outputs, taps) = (g.group_in(), g.group_out(), g.kernel[1] * g.kernel[2]);
    let axis = |i: usize, phase: usize| reaching(phase, g.kernel[i], g.dilation[i], g.before[i], g.stride[i]);
    let stride = [g.stride[1], g.stride[2]];
    let phases: Vec<(usize, usize)> =
        (0..stride[0] * stride[1]).map(|p| (p / stride[1], p % stride[1])).filter(|(y, x)| *y < g.input[1] && *x < g.input[2]).collect();
    for (py, px) in &phases {
        let (rows, columns) = (axis(1, *py), axis(2, *px));
        let size = [(g.input[1] - py).div_ceil(stride[0]), (g.input[2] - px).div_ceil(stride[1])];
        let before: [usize; 2] = [&rows, &columns].map(|l| l.iter().map(|(_, d)| (-d).max(0) as usize).max().unwrap_or(0));
        let extent = std::array::from_fn(|i| {
            let furthest = [&rows, &columns][i].iter().map(|(_, d)| (d + before[i] as isize) as usize).max().unwrap_or(0);
            (size[i] + furthest).max(g.output[i + 1] + before[i])
        });
        let planes = Planes::new(extent, [1, 1], before);
        let mut list: Vec<(usize, usize, usize)> = vec![];
        for o in 0..outputs {
            for (ky, dy) in &rows {
                for (kx, dx) in &columns {
                    let at = planes.offset(o, (dy + before[0] as isize) as usize, (dx + before[1] as isize) as usize);
                    list.push((o, ky * g.kernel[2] + kx, at));
                }
            }
        }
        let passes: Vec<Pass> = (0..g.groups)
            .map(|group| {
                let w = &w[group * outputs * channels * taps..];
                let offsets = list.iter().map(|t| t.2).collect();
                Pass::new(planes, outputs, [g.output[1], g.output[2]], channels, size, offsets, |c, t| {
                    w[(list[t].0 * channels + c) * taps + list[t].1]
                })
            })
            .collect();
        if stride == [1, 1] {
            return run_all(&passes, dy, None, dx);
        }
        spread_phase(g, &passes, dy, (*py, *px), size, dx);
    }
}

/// Computes one phase image by image and writes it to every `stride`-th pixel.
fn spread_phase(g: &Geometry, passes: &[Pass], dy: &[f32], phase: (usize, usize), size: [usize; 2], dx: &mut [f32]) {
    let (channels, outputs) = (g.group_in(), g.group_out());
    let image_in = outputs * g.output[1] * g.output[2];
    let pixels = size[0] * size[1];
    let (height, width) = (g.input[1], g.input[2]);
    dx.par_chunks_mut(channels * height * width).enumerate().for_each(|(i, dx)| {
        let pass = &passes[i % g.groups];
        scratch::with(channels * pixels, |phase_dx| {
            if pass.taps.is_empty() {
                phase_dx.fill(0.0);
            } else {
                scratch::with(pass.planes.len(pass.channels), |planes| {
                    pass.planes.fill(&dy[i * image_in..(i + 1) * image_in], pass.image, planes);
                    pass.run(planes, None, 0..pass.blocks(), phase_dx);
                });
            }
            for (row, from) in phase_dx.chunks(size[1]).enumerate() {
                let (c, y) = (row / size[0], row % size[0] * g.stride[1] + phase.0);
                let to = &mut dx[(c * height + y) * width + phase.1..(c * height + y + 1) * width];
                for (to, from) in to.iter_mut().step_by(g.stride[2]).zip(from) {
                    *to = *from;
                }
            }
        });
    });
}
