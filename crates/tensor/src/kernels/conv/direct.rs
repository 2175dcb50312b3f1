//! Direct convolution, f32, 2-D: forward, and backward by data as a convolution of the output's gradient for each phase
//! of the input.
//!
//! Loop order: image (threads) → chunk of input channels → block of output channels → vectors of pixels → taps. The
//! innermost body keeps a block of accumulators in registers: 4 channels x 3 vectors with AVX2, 8 x 3 with AVX-512, so
//! that each tap costs 7 (11) loads for 12 (24) multiply-adds; with one output channel (depthwise) it is 1 x 8. Weights
//! are packed `[block][tap][channel of the block]`, so they are read in sequence. A chunk has as many input channels as keep the
//! rows that one register block reads in the first-level cache for the next block of pixels; later chunks add to the output. If
//! the pixels of a channel are contiguous, a last block that would pass their end begins earlier and computes some of them again.
//! Other rows whose width is no multiple of a vector are computed at the pitch of the planes, with unused elements, and
//! compacted. While an image is computed the next one is prefetched: with few channels the arithmetic is too short to hide the
//! latency of memory.
use super::planes::Planes;
use super::tile::Tile;
use super::{Ahead, Geometry};
use crate::kernels::scratch;
use crate::kernels::simd::{Isa, Lanes, UNIT, dispatch};
use crate::window::reach;
use rayon::prelude::*;
use std::ops::Range;

/// Most elements of the rows that a register block reads, over all channels of a chunk: three quarters of a common first-level
/// cache.
const CHUNK_ELEMENTS: usize = 6 << 10;
/// Number of taps below which another chunk costs more in output traffic than it saves.
const CHUNK_TAPS: usize = 96;

/// Number of weights from which on packing is split into tasks.
const PACKED: usize = 2 << 10;

/// A stride-1 convolution on planes of all groups, reduced to the data of the inner loop.
struct Pass {
    isa: Isa,
    /// Output channels of a group.
    outputs: usize,
    /// Output channels of a register block.
    rows: usize,
    /// Offset of each tap in the planes.
    taps: Vec<usize>,
    /// Taps of a chunk of input channels.
    chunk: usize,
    /// Weights packed `[group][outputs / rows][taps][rows]`.
    packed: Vec<f32>,
    /// Size of the output.
    size: [usize; 2],
    /// Offset of each unit of pixels, in whole vectors.
    units: Vec<usize>,
    /// True if a vector's units are contiguous.
    joined: bool,
    /// True if the result is the output itself, without compaction.
    exact: bool,
    /// True if the pixels of a channel are contiguous in the planes and in the output.
    linear: bool,
    /// Pixels from one computed row to the next: the output's width, or the pitch of the planes.
    pitch: usize,
}

impl Pass {
    /// `weight(group, output, tap)` of the convolution whose taps, of `channels` input channels, read at `taps`.
    fn new(
        isa: Isa,
        planes: &Planes,
        channels: usize,
        taps: Vec<usize>,
        [groups, outputs]: [usize; 2],
        size: [usize; 2],
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Self {
        let (lanes, pixels) = (isa.lanes(), size[0] * size[1]);
        let gapless = planes.pitch == size[1];
        let per_channel = taps.len().checked_div(channels).unwrap_or(0).max(1);
        // Rows of a channel under all taps, and the rows that the widest register block adds to them.
        let below = taps.iter().take(per_channel).max().map_or(0, |t| t / planes.pitch.max(1) + 1) + (8 * lanes).div_ceil(size[1].max(1));
        let read = planes.channel().min(below * planes.pitch);
        let chunk = (CHUNK_ELEMENTS / read.max(1)).max(CHUNK_TAPS.div_ceil(per_channel)) * per_channel;
        let whole = pixels.is_multiple_of(lanes);
        // A pixel that is computed twice must be added only once.
        let linear = gapless && pixels >= lanes && (whole || taps.len() <= chunk);
        let exact = linear || whole && size[1].is_multiple_of(UNIT);
        let joined = !exact || gapless || size[1].is_multiple_of(lanes);
        let pitch = if exact { size[1] } else { planes.pitch };
        let units = match exact && !gapless {
            true => (0..pixels / UNIT).map(|u| u * UNIT / size[1] * planes.pitch + u * UNIT % size[1]).collect(),
            false => {
                let computed = (size[0].max(1) - 1) * pitch + size[1];
                (0..computed.next_multiple_of(lanes) / UNIT).map(|u| u * UNIT).collect()
            }
        };
        let rows = match outputs {
            1 => 1,
            o if lanes == UNIT || o <= 4 => 4,
            _ => 8,
        };
        let (blocks, count) = (outputs.div_ceil(rows), taps.len());
        let mut packed = vec![0f32; groups * blocks * count * rows];
        let enough = PACKED.div_ceil((count * rows).max(1));
        packed.par_chunks_mut((count * rows).max(1)).with_min_len(enough).enumerate().for_each(|(i, block)| {
            let (group, first) = (i / blocks, i % blocks * rows);
            for o in first..(first + rows).min(outputs) {
                for t in 0..count {
                    block[t * rows + o - first] = weight(group, o, t);
                }
            }
        });
        Pass { isa, outputs, rows, taps, chunk, packed, size, units, joined, exact, linear, pitch }
    }

    fn blocks(&self) -> usize {
        self.outputs.div_ceil(self.rows)
    }

    fn pixels(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Elements of one computed channel.
    fn computed(&self) -> usize {
        if self.linear { self.pixels() } else { self.units.len() * UNIT }
    }

    /// Elements of the planes that the convolution reads.
    fn reach(&self) -> usize {
        let furthest = |offsets: &[usize]| offsets.iter().max().copied().unwrap_or(0);
        let behind = if self.linear { self.pixels() } else { reach(UNIT, &[[furthest(&self.units), 1]]) };
        reach(furthest(&self.taps), &[[behind, 1]])
    }

    /// Computes the given blocks of output channels of one image and group into `out`, which starts at the first of them.
    fn run(&self, from: Reads, bias: Option<&[f32]>, blocks: Range<usize>, out: &mut [f32]) {
        let first = blocks.start * self.rows;
        let count = (blocks.end * self.rows).min(self.outputs) - first;
        let job = Job { pass: self, from, bias, blocks };
        if self.exact {
            return image(self.isa, &job, out);
        }
        scratch::with(count * self.computed(), |wide| {
            image(self.isa, &job, wide);
            for (out, wide) in out.chunks_mut(self.pixels()).zip(wide.chunks(self.computed())) {
                for (out, wide) in out.chunks_mut(self.size[1]).zip(wide.chunks(self.pitch)) {
                    out.copy_from_slice(&wide[..out.len()]);
                }
            }
        });
    }
}

/// The input: the planes of one image and group.
#[derive(Clone, Copy)]
struct Reads<'a> {
    group: usize,
    planes: &'a [f32],
    /// The next image, to be prefetched.
    next: &'a [f32],
}

/// Some blocks of output channels of one image and group.
struct Job<'a> {
    pass: &'a Pass,
    from: Reads<'a>,
    bias: Option<&'a [f32]>,
    blocks: Range<usize>,
}

/// `out[o][pixel] = bias[o] + sum over taps of packed[o][tap] * planes[taps[tap] + pixel]`.
#[inline(always)]
fn image_generic<L: Lanes>(job: &Job, out: &mut [f32]) {
    let pass = job.pass;
    if pass.taps.is_empty() {
        for (i, row) in out.chunks_mut(pass.computed()).enumerate() {
            row.fill(job.bias.map_or(0.0, |b| b[job.blocks.start * pass.rows + i]));
        }
        return;
    }
    assert!(pass.reach() <= job.from.planes.len(), "a tap reads {} of {} elements", pass.reach(), job.from.planes.len());
    for (i, taps) in pass.taps.chunks(pass.chunk).enumerate() {
        let at = i * pass.chunk..i * pass.chunk + taps.len();
        match (pass.rows, pass.joined) {
            (1, true) => chunk::<L, 1, 8, true>(job, at, out),
            (1, false) => chunk::<L, 1, 8, false>(job, at, out),
            (4, true) if L::LANES == UNIT => chunk::<L, 4, 3, true>(job, at, out),
            (4, false) if L::LANES == UNIT => chunk::<L, 4, 3, false>(job, at, out),
            (4, true) => chunk::<L, 4, 6, true>(job, at, out),
            (4, false) => chunk::<L, 4, 6, false>(job, at, out),
            (_, true) => chunk::<L, 8, 3, true>(job, at, out),
            (_, false) => chunk::<L, 8, 3, false>(job, at, out),
        }
    }
}

/// The taps of one chunk of input channels, in blocks of `R` output channels by `V` vectors.
#[inline(always)]
fn chunk<L: Lanes, const R: usize, const V: usize, const JOINED: bool>(job: &Job, taps: Range<usize>, out: &mut [f32]) {
    let pass = job.pass;
    let (width, per_vector) = (pass.computed(), L::LANES / UNIT);
    // A remainder of the channel that fits half a wide vector is left to a narrow one.
    let narrow = pass.linear && L::LANES > UNIT && (1..=UNIT).contains(&(width % L::LANES));
    let vectors = if narrow { width / L::LANES } else { width.div_ceil(L::LANES) };
    let mut ahead = Ahead::new(if taps.start == 0 { job.from.next } else { &[] }, job.blocks.len() * vectors.div_ceil(V));
    for (i, block) in job.blocks.clone().enumerate() {
        let rows = (pass.outputs - block * R).min(R);
        let at = (job.from.group * pass.blocks() + block) * pass.taps.len() + taps.start;
        let weights = &pass.packed[at * R..][..taps.len() * R];
        let start: [f32; R] = std::array::from_fn(|r| job.bias.filter(|_| r < rows).map_or(0.0, |b| b[block * R + r]));
        let out = &mut out[i * R * width..][..rows * width];
        let mut v = 0;
        while v < vectors {
            ahead.ask();
            let count = match (vectors - v).min(width / L::LANES) {
                n if n >= V => V,
                n if n >= 4 => 4,
                n if n >= 2 => 2,
                _ => 1,
            };
            // The last block of a linear pass ends with the channel, wherever it starts.
            let (first, units) = match pass.linear {
                true => ((v * L::LANES).min(width - count * L::LANES), &pass.units[..]),
                false => (0, &pass.units[v * per_vector..]),
            };
            let to = out[if pass.linear { first } else { v * L::LANES }..].as_mut_ptr();
            let planes = job.from.planes[first..].as_ptr();
            let tile = Tile { planes, taps: &pass.taps[taps.clone()], weights, start, add: taps.start > 0, to, width, rows };
            // SAFETY: every tap of every unit, or in a linear pass of every pixel, lies within `planes` (asserted by the
            // caller), `weights` has `R` for each tap, `units` has `count` vectors, and `out` has `rows` rows of `width`
            // elements, within which the block lies.
            unsafe {
                match count {
                    n if n == V => tile.compute::<L, V, JOINED>(units),
                    4 => tile.compute::<L, 4, JOINED>(units),
                    2 => tile.compute::<L, 2, JOINED>(units),
                    _ => tile.compute::<L, 1, JOINED>(units),
                }
            }
            v += count;
        }
        if narrow {
            let first = width - UNIT;
            let (planes, to) = (job.from.planes[first..].as_ptr(), out[first..].as_mut_ptr());
            let tile = Tile { planes, taps: &pass.taps[taps.clone()], weights, start, add: taps.start > 0, to, width, rows };
            // SAFETY: as above; a unit that ends with the channel lies within it.
            unsafe { tile.compute::<L::Narrow, 1, true>(&pass.units) };
        }
    }
}

dispatch! {
    /// [`image_generic`] compiled for an instruction set.
    image = image_generic(job: &Job, out: &mut [f32])
}

/// A convolution of planes that gives every `stride`-th pixel of the output, from `phase` on.
struct Phase {
    pass: Pass,
    phase: [usize; 2],
}

/// Convolutions that read the same planes and fill one output between them.
struct Convolution {
    planes: Planes,
    groups: usize,
    /// Input channels of a group, and their size.
    channels: usize,
    image: [usize; 2],
    /// Output channels of a group, and their size.
    outputs: usize,
    size: [usize; 2],
    /// Distance of the pixels of one phase.
    stride: [usize; 2],
    phases: Vec<Phase>,
}

impl Convolution {
    /// `x` is `[n, groups * channels, image]`, `out` `[n, groups * outputs, size]`.
    fn run(&self, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        let image_in = self.channels * self.image[0] * self.image[1];
        let pixels = self.size[0] * self.size[1];
        let image_out = self.outputs * pixels;
        if image_out == 0 {
            return;
        }
        let images = out.len() / image_out;
        let blocks = self.phases.iter().map(|p| p.pass.blocks()).max().unwrap_or(1);
        let rows = self.phases.first().map_or(1, |p| p.pass.rows);
        if images > 1 {
            return out.par_chunks_mut(image_out).enumerate().for_each(|(i, out)| {
                let (image, rest) = x[i * image_in..].split_at(image_in);
                let next = &rest[..image_in.min(rest.len())];
                self.with_planes(image, |planes| self.blocks(Reads { group: i % self.groups, planes, next }, bias, 0..blocks, out));
            });
        }
        // One image of one group: the threads share its output channels.
        self.with_planes(x, |planes| {
            let per_task = blocks.div_ceil(rayon::current_num_threads() * 2).max(1);
            out.par_chunks_mut(per_task * rows * pixels).enumerate().for_each(|(task, out)| {
                let from = task * per_task;
                self.blocks(Reads { group: 0, planes, next: &[] }, bias, from..(from + per_task).min(blocks), out);
            });
        });
    }

    /// Runs `f` on the planes of an image: a padded copy, or the image itself if it needs no padding.
    fn with_planes<R: Send>(&self, image: &[f32], f: impl FnOnce(&[f32]) -> R + Send) -> R {
        if self.planes.is_image(self.image) && self.phases.iter().all(|p| p.pass.reach() <= image.len()) {
            return f(image);
        }
        scratch::with(self.planes.len(self.channels), |planes| {
            self.planes.fill(image, self.image, planes);
            f(planes)
        })
    }

    /// All phases of some blocks of output channels of one image and group.
    fn blocks(&self, mut from: Reads, bias: Option<&[f32]>, blocks: Range<usize>, out: &mut [f32]) {
        let bias = bias.map(|b| &b[from.group * self.outputs..(from.group + 1) * self.outputs]);
        for Phase { pass, phase } in &self.phases {
            if self.stride == [1, 1] {
                pass.run(from, bias, blocks.clone(), out);
                continue;
            }
            let [rows, columns] = pass.size;
            let channels = out.len() / (self.size[0] * self.size[1]);
            scratch::with(channels * pass.pixels(), |dense| {
                pass.run(from, bias, blocks.clone(), dense);
                for (i, from) in dense.chunks(columns).enumerate() {
                    let line = i / rows * self.size[0] + i % rows * self.stride[0] + phase[0];
                    let to = &mut out[line * self.size[1] + phase[1]..(line + 1) * self.size[1]];
                    to.iter_mut().step_by(self.stride[1]).zip(from).for_each(|(to, from)| *to = *from);
                }
            });
            from.next = &[];
        }
    }
}

/// `y[n, o, ..] = conv(x, w) + bias`.
pub(crate) fn forward(isa: Isa, g: &Geometry, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let planes = Planes::of_input(g);
    let (channels, outputs, size) = (g.group_in(), g.group_out(), [g.output[1], g.output[2]]);
    let taps = planes.taps(g, channels);
    let count = taps.len();
    let pass = Pass::new(isa, &planes, channels, taps, [g.groups, outputs], size, |group, o, t| w[(group * outputs + o) * count + t]);
    let phases = vec![Phase { pass, phase: [0, 0] }];
    let image = [g.input[1], g.input[2]];
    Convolution { planes, groups: g.groups, channels, image, outputs, size, stride: [1, 1], phases }.run(x, bias, y);
}

/// Taps of one axis that reach a phase of the input: kernel position, and the output pixel relative to the phase's own.
fn reaching(g: &Geometry, axis: usize, phase: usize) -> Vec<(usize, isize)> {
    let stride = g.stride[axis] as isize;
    (0..g.kernel[axis])
        .filter_map(|k| {
            let distance = (phase + g.before[axis]) as isize - (k * g.dilation[axis]) as isize;
            (distance.rem_euclid(stride) == 0).then(|| (k, distance.div_euclid(stride)))
        })
        .collect()
}

/// `dx[n, c, ..]`: for each of the `stride x stride` phases of the input, a stride-1 convolution of `dy`.
pub(crate) fn backward_data(isa: Isa, g: &Geometry, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let (channels, outputs, area) = (g.group_in(), g.group_out(), g.kernel[1] * g.kernel[2]);
    let (stride, size) = ([g.stride[1], g.stride[2]], [g.input[1], g.input[2]]);
    // For each axis and phase: the taps that reach it, and how many of its pixels there are.
    let axes: [Vec<(Vec<(usize, isize)>, usize)>; 2] = std::array::from_fn(|i| {
        (0..stride[i].min(size[i])).map(|phase| (reaching(g, i + 1, phase), (size[i] - phase).div_ceil(stride[i]))).collect()
    });
    // One padded copy of `dy` serves all phases.
    let distances = |i: usize| axes[i].iter().flat_map(|(taps, _)| taps.iter().map(|(_, d)| *d));
    let before: [usize; 2] = std::array::from_fn(|i| distances(i).map(|d| (-d).max(0) as usize).max().unwrap_or(0));
    let extent = std::array::from_fn(|i| {
        let ends = axes[i].iter().flat_map(|(taps, pixels)| taps.iter().map(move |(_, d)| *pixels as isize + d));
        (ends.max().unwrap_or(1) + before[i] as isize).max(1) as usize
    });
    let planes = Planes::unstrided(extent, before);
    let mut phases = vec![];
    for (py, (rows, height)) in axes[0].iter().enumerate() {
        for (px, (columns, width)) in axes[1].iter().enumerate() {
            let mut kernel = vec![];
            let mut taps = vec![];
            for o in 0..outputs {
                for (ky, y) in rows {
                    for (kx, x) in columns {
                        let shifted = |d: &isize, i: usize| (d + before[i] as isize) as usize;
                        taps.push(planes.offset(o, shifted(y, 0), shifted(x, 1)));
                        kernel.push((o, ky * g.kernel[2] + kx));
                    }
                }
            }
            let pass = Pass::new(isa, &planes, outputs, taps, [g.groups, channels], [*height, *width], |group, c, t| {
                let (o, k) = kernel[t];
                w[((group * outputs + o) * channels + c) * area + k]
            });
            phases.push(Phase { pass, phase: [py, px] });
        }
    }
    let image = [g.output[1], g.output[2]];
    Convolution { planes, groups: g.groups, channels: outputs, image, outputs: channels, size, stride, phases }.run(dy, None, dx);
}
