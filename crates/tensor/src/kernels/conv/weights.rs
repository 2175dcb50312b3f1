//! Backward by weights, f32, 2-D, direct.
//!
//! Loop order: chunk of images (threads) → image → 16 output channels → 6 taps → pixels. Vectorised over output
//! channels, so no sum is ever taken across lanes: each pixel costs two loads of the transposed output gradient
//! (`[pixel][output channel]`) and six broadcasts from the padded planes for twelve multiply-adds into 6 x 2 registers.
//! Chunks have fixed bounds and are added in their order, so the result does not depend on the threads.
use super::Geometry;
use super::planes::Planes;
use crate::kernels::scratch;
use crate::kernels::simd::{LANES, Lanes, dispatch, has_avx2};
use rayon::prelude::*;

/// Taps of one register block.
const TAPS: usize = 6;
/// Output channels of one register block.
const CHANNELS: usize = 2 * LANES;
/// Images are summed in this many chunks at most.
const CHUNKS: usize = 8;

struct Job<'a> {
    planes: Planes,
    /// Offset of each tap in the planes.
    taps: &'a [usize],
    /// Output size.
    size: [usize; 2],
    /// Output channels, rounded up to whole blocks.
    padded: usize,
}

/// `sums[block][tap group][6][16] += sum over pixels of planes[tap + pixel] * dy[pixel][channel]` for one image.
fn accumulate_generic<L: Lanes>(job: &Job, planes: &[f32], dy: &[f32], sums: &mut [f32]) {
    let groups = job.taps.len().div_ceil(TAPS);
    let pixels = job.size[0] * job.size[1];
    let furthest = job.taps.iter().max().copied().unwrap_or(0) + (job.size[0].max(1) - 1) * job.planes.pitch + job.size[1];
    assert!(furthest <= planes.len() && dy.len() >= pixels * job.padded && sums.len() >= job.padded / CHANNELS * groups * TAPS * CHANNELS);
    for block in 0..job.padded / CHANNELS {
        for (group, taps) in job.taps.chunks(TAPS).enumerate() {
            // A last group of fewer taps repeats its last one; the copies are not read back.
            let at: [usize; TAPS] = std::array::from_fn(|t| taps[t.min(taps.len() - 1)]);
            let sums = &mut sums[(block * groups + group) * TAPS * CHANNELS..][..TAPS * CHANNELS];
            // SAFETY: the last pixel of the furthest tap, the last row of `dy` and the block of `sums` lie within their
            // slices (asserted above).
            unsafe {
                let to = sums.as_mut_ptr();
                let mut acc: [[L; 2]; TAPS] =
                    std::array::from_fn(|t| [L::load(to.add(t * CHANNELS)), L::load(to.add(t * CHANNELS + LANES))]);
                let base: [*const f32; TAPS] = std::array::from_fn(|t| planes.as_ptr().add(at[t]));
                let mut gradient = dy.as_ptr().add(block * CHANNELS);
                for y in 0..job.size[0] {
                    let row = y * job.planes.pitch;
                    for x in row..row + job.size[1] {
                        let (low, high) = (L::load(gradient), L::load(gradient.add(LANES)));
                        gradient = gradient.wrapping_add(job.padded);
                        for (acc, base) in acc.iter_mut().zip(base) {
                            let pixel = L::splat(*base.add(x));
                            acc[0] = pixel.mul_add(low, acc[0]);
                            acc[1] = pixel.mul_add(high, acc[1]);
                        }
                    }
                }
                for (t, acc) in acc.iter().enumerate() {
                    acc[0].store(to.add(t * CHANNELS));
                    acc[1].store(to.add(t * CHANNELS + LANES));
                }
            }
        }
    }
}

dispatch! {
    /// [`accumulate_generic`] on the best instructions of the processor.
    accumulate = accumulate_generic(job: &Job, planes: &[f32], dy: &[f32], sums: &mut [f32])
}

/// `dw[o, c / groups, ..]` from `x` and `dy`.
pub(crate) fn backward_weights(g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (size, kernel, stride, dilation) =
        ([g.output[1], g.output[2]], [g.kernel[1], g.kernel[2]], [g.stride[1], g.stride[2]], [g.dilation[1], g.dilation[2]]);
    let extent =
        std::array::from_fn(|i| ((size[i] - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1).max(g.input[i + 1] + g.before[i + 1]));
    let planes = Planes::new(extent, stride, [g.before[1], g.before[2]]);
    let (channels, outputs, area) = (g.group_in(), g.group_out(), kernel[0] * kernel[1]);
    let taps: Vec<usize> =
        (0..channels * area).map(|t| planes.offset(t / area, t % area / kernel[1] * dilation[0], t % kernel[1] * dilation[1])).collect();
    let padded = outputs.next_multiple_of(CHANNELS);
    let job = Job { planes, taps: &taps, size, padded };
    let (image_in, image_out, pixels) = (channels * g.pixels_in(), outputs * g.pixels_out(), g.pixels_out());
    let per_chunk = g.n.div_ceil(CHUNKS).max(1);
    let groups = taps.len().div_ceil(TAPS);
    let sums_len = padded * groups * TAPS;
    let work: Vec<(usize, usize)> = (0..g.n.div_ceil(per_chunk)).flat_map(|chunk| (0..g.groups).map(move |group| (chunk, group))).collect();
    let parts: Vec<Vec<f32>> = work
        .par_iter()
        .map(|(chunk, group)| {
            let mut sums = vec![0f32; sums_len];
            scratch::with(planes.len(channels), |padded_image| {
                scratch::with(pixels * padded, |transposed| {
                    transposed.fill(0.0);
                    for image in chunk * per_chunk..((chunk + 1) * per_chunk).min(g.n) {
                        let at = image * g.groups + group;
                        planes.fill(&x[at * image_in..(at + 1) * image_in], [g.input[1], g.input[2]], padded_image);
                        transpose(&dy[at * image_out..(at + 1) * image_out], pixels, padded, transposed);
                        accumulate(has_avx2(), &job, padded_image, transposed, &mut sums);
                    }
                });
            });
            sums
        })
        .collect();
    let n_taps = taps.len();
    dw.fill(0.0);
    for ((_, group), sums) in work.iter().zip(&parts) {
        let dw = &mut dw[group * outputs * n_taps..][..outputs * n_taps];
        for (o, row) in dw.chunks_mut(n_taps).enumerate() {
            for (t, v) in row.iter_mut().enumerate() {
                *v += sums[((o / CHANNELS * groups + t / TAPS) * TAPS + t % TAPS) * CHANNELS + o % CHANNELS];
            }
        }
    }
}

/// `[channel][pixel]` to `[pixel][channel]`, eight channels at a time so that a cache line is written whole.
fn transpose(dy: &[f32], pixels: usize, padded: usize, out: &mut [f32]) {
    for (block, rows) in dy.chunks(LANES * pixels).enumerate() {
        let channels = rows.len() / pixels;
        for p in 0..pixels {
            let to = &mut out[p * padded + block * LANES..][..channels];
            for (c, v) in to.iter_mut().enumerate() {
                *v = rows[c * pixels + p];
            }
        }
    }
}
