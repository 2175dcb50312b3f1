//! Backward by weights, f32, 2-D, direct.
//!
//! Loop order: chunk of images (threads) → image → band of rows → block of output channels → block of taps → pixels.
//! Vectorised over output channels, so no sum is ever taken across lanes: with 6 taps x 2 vectors each pixel costs two loads
//! of the transposed output gradient (`[pixel][output channel]`) and six broadcasts from the padded planes for twelve
//! multiply-adds; where one vector holds all output channels it is 12 taps x 1. A band is as many rows as keep its part of
//! the transposed gradient in the first-level cache while all taps pass over it. Chunks have fixed bounds and are added in
//! their order, so the result does not depend on the threads.
use super::planes::Planes;
use super::{Ahead, Geometry};
use crate::kernels::scratch;
use crate::kernels::simd::{Isa, Lanes, UNIT, dispatch};
use crate::window::reach;
use rayon::prelude::*;
use std::ops::Range;

/// Accumulators of a register block: taps by vectors of output channels.
const BLOCK: usize = 12;
/// Most chunks of images that are summed separately.
const CHUNKS: usize = 16;
/// Number of chunks that is allowed if images have few pixels or groups many weights, since each chunk has sums of its own.
const FEW_CHUNKS: usize = 8;
/// Number of a group's weights that counts as many.
const MANY: usize = 1 << 20;
/// Number of pixels that justifies separate sums.
const PIXELS: usize = 512;
/// Most output channels of a block: two of the widest vectors.
const CHANNELS: usize = 4 * UNIT;
/// Elements of the transposed gradient in one band of rows: half of a common first-level cache.
const BAND: usize = 4 << 10;

/// How pixels are summed for each tap and output channel of a group.
pub(super) struct Job {
    /// Offset of each tap in the planes.
    taps: Vec<usize>,
    /// Elements of the planes from one row of pixels to the next, and pixels of a row.
    pitch: usize,
    width: usize,
    /// Elements of the transposed gradient from one row of pixels to the next.
    stride: usize,
    /// Output channels, rounded up to whole blocks.
    pub(super) padded: usize,
    /// Vectors of output channels in a block, 1 or 2, and their channels.
    vectors: usize,
    channels: usize,
}

impl Job {
    /// The gradient of `outputs` channels has `apart` rows from one row that counts to the next.
    pub(super) fn new(isa: Isa, outputs: usize, taps: Vec<usize>, [pitch, width]: [usize; 2], apart: usize) -> Self {
        let vectors = if outputs <= isa.lanes() { 1 } else { 2 };
        let channels = vectors * isa.lanes();
        let padded = outputs.next_multiple_of(channels);
        Job { taps, pitch, width, stride: apart * width * padded, padded, vectors, channels }
    }

    /// Taps of a block, and blocks of taps.
    fn groups(&self) -> [usize; 2] {
        let block = BLOCK / self.vectors;
        [block, self.taps.len().div_ceil(block)]
    }

    /// Elements of the sums.
    pub(super) fn len(&self) -> usize {
        let [taps, groups] = self.groups();
        self.padded * groups * taps
    }

    /// Adds up sums of `P` kinds (for each chunk `parts`, one after another for the groups), and passes them to `write` with a
    /// row of `dw` (the weights of an output channel) and a tap.
    pub(super) fn reduce<const P: usize>(
        &self,
        g: &Geometry,
        parts: &[Vec<f32>],
        dw: &mut [f32],
        write: impl Fn(&mut [f32], usize, [f32; P]) + Sync,
    ) {
        let row = g.group_in() * g.taps();
        let [block_taps, groups] = self.groups();
        dw.par_chunks_mut(g.group_out() * row).enumerate().for_each(|(group, dw)| {
            dw.par_chunks_mut(self.channels * row).enumerate().for_each(|(block, rows)| {
                for t in 0..self.taps.len() {
                    let at = ((block * groups + t / block_taps) * block_taps + t % block_taps) * self.channels;
                    let mut totals = [[0f32; CHANNELS]; P];
                    for sums in parts.iter().skip(group).step_by(g.groups) {
                        for (p, total) in totals.iter_mut().enumerate() {
                            let sums = &sums[p * self.len() + at..][..self.channels];
                            total.iter_mut().zip(sums).for_each(|(total, v)| *total += v);
                        }
                    }
                    for (o, row) in rows.chunks_mut(row).enumerate() {
                        write(row, t, std::array::from_fn(|p| totals[p][o]));
                    }
                }
            });
        });
    }
}

/// Adds some rows of pixels (planes and transposed gradient) to `sums[channel block][tap block][tap][channel]`. Meanwhile the
/// `next` image and gradient are prefetched.
#[inline(always)]
fn accumulate_generic<L: Lanes>(job: &Job, planes: &[f32], dy: &[f32], rows: usize, sums: &mut [f32], next: [&[f32]; 2]) {
    let per_band = (BAND / (job.width * job.channels).max(1)).max(1);
    let parts = rows.div_ceil(per_band) * job.groups()[1] * (job.padded / job.channels);
    let mut ahead = next.map(|next| Ahead::new(next, parts));
    for from in (0..rows).step_by(per_band) {
        let band = from..(from + per_band).min(rows);
        match job.vectors {
            1 => accumulate_blocks::<L, BLOCK, 1>(job, planes, dy, band, sums, &mut ahead),
            _ => accumulate_blocks::<L, { BLOCK / 2 }, 2>(job, planes, dy, band, sums, &mut ahead),
        }
    }
}

#[inline(always)]
fn accumulate_blocks<L: Lanes, const TAPS: usize, const V: usize>(
    job: &Job,
    planes: &[f32],
    dy: &[f32],
    band: Range<usize>,
    sums: &mut [f32],
    ahead: &mut [Ahead; 2],
) {
    let ([_, groups], channels) = (job.groups(), V * L::LANES);
    let last = band.end.max(1) - 1;
    let furthest = reach(job.taps.iter().max().copied().unwrap_or(0), &[[last, job.pitch], [job.width, 1]]);
    assert!(job.padded.is_multiple_of(channels) && furthest <= planes.len());
    assert!(dy.len() >= reach(0, &[[last, job.stride], [job.width, job.padded]]));
    for block in 0..job.padded / channels {
        for (group, taps) in job.taps.chunks(TAPS).enumerate() {
            let sums = &mut sums[(block * groups + group) * TAPS * channels..][..TAPS * channels];
            ahead.iter_mut().for_each(Ahead::ask);
            let mut acc = [[L::zero(); V]; TAPS];
            let mut base = [planes.as_ptr(); TAPS];
            // SAFETY: the last pixel of the furthest tap and the last row of `dy` lie within their slices (asserted
            // above), `sums` holds the whole block. Plain indices: iterators make the compiler spill accumulators.
            unsafe {
                for t in 0..TAPS {
                    // A last group of fewer taps repeats its last one; the copies are not read back.
                    base[t] = base[t].add(taps[t.min(taps.len() - 1)]);
                    for v in 0..V {
                        acc[t][v] = L::load(sums.as_ptr().add(t * channels + v * L::LANES));
                    }
                }
                for y in band.clone() {
                    let mut gradient = dy.as_ptr().add(y * job.stride + block * channels);
                    let row = y * job.pitch;
                    for x in row..row + job.width {
                        let mut dy = [L::zero(); V];
                        for v in 0..V {
                            dy[v] = L::load(gradient.add(v * L::LANES));
                        }
                        gradient = gradient.wrapping_add(job.padded);
                        for t in 0..TAPS {
                            let pixel = L::splat(*base[t].add(x));
                            for v in 0..V {
                                acc[t][v] = pixel.mul_add(dy[v], acc[t][v]);
                            }
                        }
                    }
                }
                for t in 0..TAPS {
                    for v in 0..V {
                        acc[t][v].store(sums.as_mut_ptr().add(t * channels + v * L::LANES));
                    }
                }
            }
        }
    }
}

dispatch! {
    /// [`accumulate_generic`] compiled for an instruction set.
    pub(super) accumulate = accumulate_generic(job: &Job, planes: &[f32], dy: &[f32], rows: usize, sums: &mut [f32], next: [&[f32]; 2])
}

/// Images of a chunk.
pub(super) fn per_chunk(g: &Geometry) -> usize {
    let few = g.n.div_ceil(FEW_CHUNKS);
    let wanted = if g.group_out() * g.group_in() * g.taps() > MANY { few } else { PIXELS.div_ceil(g.pixels_out().max(1)) };
    g.n.div_ceil(CHUNKS).max(wanted.min(few))
}

/// Runs `f` on each chunk of images and each group, and returns the results, the groups of a chunk one after another.
pub(super) fn chunks<R: Send>(g: &Geometry, f: impl Fn(Range<usize>, usize) -> R + Sync) -> Vec<R> {
    let per_chunk = per_chunk(g);
    let images = |chunk: usize| chunk * per_chunk..((chunk + 1) * per_chunk).min(g.n);
    let work: Vec<(usize, usize)> = (0..g.n.div_ceil(per_chunk)).flat_map(|chunk| (0..g.groups).map(move |group| (chunk, group))).collect();
    work.par_iter().map(|(chunk, group)| f(images(*chunk), *group)).collect()
}

/// `dw[o, c / groups, ..]` from `x` and `dy`.
pub(crate) fn backward_weights(isa: Isa, g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let planes = Planes::of_input(g);
    let (channels, outputs, pixels) = (g.group_in(), g.group_out(), g.pixels_out());
    let job = Job::new(isa, outputs, planes.taps(g, channels), [planes.pitch, g.output[2]], 1);
    let (image_in, image_out) = (channels * g.pixels_in(), outputs * pixels);
    let copied = !planes.is_image([g.input[1], g.input[2]]);
    let parts = chunks(g, |images, group| {
        let mut sums = vec![0f32; job.len()];
        scratch::with(if copied { planes.len(channels) } else { 0 }, |padded_image| {
            scratch::with(pixels * job.padded, |transposed| {
                if job.padded > outputs {
                    transposed.fill(0.0);
                }
                for image in images {
                    let at = image * g.groups + group;
                    let image = &x[at * image_in..(at + 1) * image_in];
                    if copied {
                        planes.fill(image, [g.input[1], g.input[2]], padded_image);
                    }
                    let dy_image = &dy[at * image_out..(at + 1) * image_out];
                    transpose(isa, dy_image, [outputs, pixels], pixels, job.padded, transposed);
                    let next = [(x, image_in), (dy, image_out)]
                        .map(|(of, len)| of.get((at + g.groups) * len..(at + g.groups + 1) * len).unwrap_or(&[]));
                    accumulate(isa, &job, if copied { padded_image } else { image }, transposed, g.output[1], &mut sums, next);
                }
            });
        });
        sums
    });
    job.reduce(g, &parts, dw, |row, tap, [total]: [f32; 1]| row[tap] = total);
}

/// `[channel][pixel]`, `stride` elements from channel to channel, to `[pixel][channel]`.
#[inline(always)]
fn transpose_generic<L: Lanes>(dy: &[f32], [channels, stride]: [usize; 2], pixels: usize, padded: usize, out: &mut [f32]) {
    for first in (0..channels).step_by(UNIT) {
        let (rows, count) = (&dy[first * stride..], (channels - first).min(UNIT));
        let whole = if count == UNIT { pixels / UNIT * UNIT } else { 0 };
        let covered = reach(0, &[[whole, padded]]) <= out.len() && reach(pixels, &[[UNIT - 1, stride]]) <= rows.len();
        assert!(whole == 0 || covered && first + UNIT <= padded);
        for p in (0..whole).step_by(UNIT) {
            // SAFETY: `rows` holds eight rows of `pixels`, and the last of the eight pixels ends within `out` (asserted).
            unsafe { L::transpose(rows.as_ptr().add(p), out.as_mut_ptr().add(p * padded + first), [stride, padded]) };
        }
        for p in whole..pixels {
            let to = &mut out[p * padded + first..][..count];
            for (c, v) in to.iter_mut().enumerate() {
                *v = rows[c * stride + p];
            }
        }
    }
}

dispatch! {
    /// [`transpose_generic`] compiled for an instruction set.
    pub(super) transpose = transpose_generic(dy: &[f32], layout: [usize; 2], pixels: usize, padded: usize, out: &mut [f32])
}
