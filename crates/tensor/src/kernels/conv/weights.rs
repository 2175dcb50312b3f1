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
use rayon::prelude::*;
use std::ops::Range;

/// Accumulators of a register block: taps by vectors of output channels.
const BLOCK: usize = 12;
/// Images are summed in this many chunks at most.
const CHUNKS: usize = 16;
/// Chunks that stay where they have few pixels.
const FEW_CHUNKS: usize = 8;
/// Pixels that are worth sums of their own.
const PIXELS: usize = 512;
/// Output channels of a block at most: two of the widest vectors.
const CHANNELS: usize = 4 * UNIT;
/// Elements of the transposed gradient in one band of rows: half of a common first-level cache.
const BAND: usize = 4 << 10;

struct Job<'a> {
    planes: Planes,
    /// Offset of each tap in the planes.
    taps: &'a [usize],
    /// Output size.
    size: [usize; 2],
    /// Output channels, rounded up to whole blocks.
    padded: usize,
    /// Vectors of output channels in a block: 1 or 2.
    vectors: usize,
}

impl Job<'_> {
    /// Blocks of taps.
    fn groups(&self) -> usize {
        self.taps.len().div_ceil(BLOCK / self.vectors)
    }
}

/// Adds one image (planes and transposed gradient) to `sums[channel block][tap block][tap][channel]`. Meanwhile the `next`
/// image and gradient are asked for.
#[inline(always)]
fn accumulate_generic<L: Lanes>(job: &Job, planes: &[f32], dy: &[f32], sums: &mut [f32], next: [&[f32]; 2]) {
    let rows = (BAND / (job.size[1] * job.vectors * L::LANES).max(1)).max(1);
    let bands = job.size[0].div_ceil(rows);
    let parts = bands * job.groups() * (job.padded / (job.vectors * L::LANES));
    let mut ahead = next.map(|next| Ahead::new(next, parts));
    for from in (0..job.size[0]).step_by(rows) {
        let band = from..(from + rows).min(job.size[0]);
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
    let (groups, channels) = (job.groups(), V * L::LANES);
    let pixels = job.size[0] * job.size[1];
    let furthest = job.taps.iter().max().copied().unwrap_or(0) + (job.size[0].max(1) - 1) * job.planes.pitch + job.size[1];
    assert!(job.padded.is_multiple_of(channels) && furthest <= planes.len() && dy.len() >= pixels * job.padded);
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
                let mut gradient = dy.as_ptr().add(band.start * job.size[1] * job.padded + block * channels);
                for y in band.clone() {
                    let row = y * job.planes.pitch;
                    for x in row..row + job.size[1] {
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
    accumulate = accumulate_generic(job: &Job, planes: &[f32], dy: &[f32], sums: &mut [f32], next: [&[f32]; 2])
}

/// `dw[o, c / groups, ..]` from `x` and `dy`.
pub(crate) fn backward_weights(isa: Isa, g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let planes = Planes::of_input(g);
    let (channels, outputs) = (g.group_in(), g.group_out());
    let taps = planes.taps(g, channels);
    let vectors = if outputs <= isa.lanes() { 1 } else { 2 };
    let block_channels = vectors * isa.lanes();
    let padded = outputs.next_multiple_of(block_channels);
    let job = Job { planes, taps: &taps, size: [g.output[1], g.output[2]], padded, vectors };
    let (image_in, image_out, pixels) = (channels * g.pixels_in(), outputs * g.pixels_out(), g.pixels_out());
    let copied = !planes.is_image([g.input[1], g.input[2]]);
    let per_chunk = g.n.div_ceil(CHUNKS).max(PIXELS.div_ceil(pixels.max(1)).min(g.n.div_ceil(FEW_CHUNKS)));
    let (tap_block, groups) = (BLOCK / vectors, job.groups());
    let work: Vec<(usize, usize)> = (0..g.n.div_ceil(per_chunk)).flat_map(|chunk| (0..g.groups).map(move |group| (chunk, group))).collect();
    let parts: Vec<Vec<f32>> = work
        .par_iter()
        .map(|(chunk, group)| {
            let mut sums = vec![0f32; padded * groups * tap_block];
            scratch::with(if copied { planes.len(channels) } else { 0 }, |padded_image| {
                scratch::with(pixels * padded, |transposed| {
                    if padded > outputs {
                        transposed.fill(0.0);
                    }
                    for image in chunk * per_chunk..((chunk + 1) * per_chunk).min(g.n) {
                        let at = image * g.groups + group;
                        let image = &x[at * image_in..(at + 1) * image_in];
                        if copied {
                            planes.fill(image, [g.input[1], g.input[2]], padded_image);
                        }
                        transpose(isa, &dy[at * image_out..(at + 1) * image_out], pixels, padded, transposed);
                        let next = [(x, image_in), (dy, image_out)]
                            .map(|(of, len)| of.get((at + g.groups) * len..(at + g.groups + 1) * len).unwrap_or(&[]));
                        accumulate(isa, &job, if copied { padded_image } else { image }, transposed, &mut sums, next);
                    }
                });
            });
            sums
        })
        .collect();
    let n_taps = taps.len();
    dw.par_chunks_mut(outputs * n_taps).enumerate().for_each(|(group, dw)| {
        dw.par_chunks_mut(block_channels * n_taps).enumerate().for_each(|(block, rows)| {
            for t in 0..n_taps {
                let at = ((block * groups + t / tap_block) * tap_block + t % tap_block) * block_channels;
                let mut total = [0f32; CHANNELS];
                for sums in parts.iter().skip(group).step_by(g.groups) {
                    total.iter_mut().zip(&sums[at..at + block_channels]).for_each(|(total, v)| *total += v);
                }
                rows.chunks_mut(n_taps).zip(total).for_each(|(row, v)| row[t] = v);
            }
        });
    });
}

/// `[channel][pixel]` to `[pixel][channel]`.
#[inline(always)]
fn transpose_generic<L: Lanes>(dy: &[f32], pixels: usize, padded: usize, out: &mut [f32]) {
    for (block, rows) in dy.chunks(UNIT * pixels).enumerate() {
        let channels = rows.len() / pixels;
        let whole = if channels == UNIT { pixels / UNIT * UNIT } else { 0 };
        assert!(whole == 0 || whole * padded <= out.len() && block * UNIT + UNIT <= padded);
        for p in (0..whole).step_by(UNIT) {
            // SAFETY: `rows` holds eight rows of `pixels`, and the last of the eight pixels ends within `out` (asserted).
            unsafe { L::transpose(rows.as_ptr().add(p), out.as_mut_ptr().add(p * padded + block * UNIT), [pixels, padded]) };
        }
        for p in whole..pixels {
            let to = &mut out[p * padded + block * UNIT..][..channels];
            for (c, v) in to.iter_mut().enumerate() {
                *v = rows[c * pixels + p];
            }
        }
    }
}

dispatch! {
    /// [`transpose_generic`] compiled for an instruction set.
    transpose = transpose_generic(dy: &[f32], pixels: usize, padded: usize, out: &mut [f32])
}
