//! Depthwise convolution (one or more filters for each input channel), f32, 2-D: backward by weights. The other two
//! directions are [`super::direct`] with one output channel a block.
//!
//! Loop order: chunk of images and channel (threads) → image → filter → block of taps → vectors of pixels. The output's
//! gradient is copied to the pitch of the planes with zeros between its rows, so that a whole channel is one run of
//! pixels: each vector of the gradient is multiplied with nine shifted vectors of the planes into nine accumulators, whose
//! lanes are added once for all images of a chunk.
use super::Geometry;
use super::planes::Planes;
use crate::kernels::scratch;
use crate::kernels::simd::{Isa, Lanes, dispatch};
use rayon::prelude::*;

/// Images are summed in this many chunks at most.
const CHUNKS: usize = 8;
/// Taps of a register block.
const TAPS: usize = 9;

/// Adds the products of one channel's planes and one filter's gradient (at the pitch of the planes) to `dw`.
#[inline(always)]
fn accumulate_generic<L: Lanes>(taps: &[usize], planes: &[f32], dy: &[f32], dw: &mut [f32]) {
    let furthest = taps.iter().max().copied().unwrap_or(0) + dy.len();
    assert!(dy.len().is_multiple_of(L::LANES) && furthest <= planes.len() && dw.len() == taps.len());
    for (taps, dw) in taps.chunks(TAPS).zip(dw.chunks_mut(TAPS)) {
        let mut base = [planes.as_ptr(); TAPS];
        let mut acc = [L::zero(); TAPS];
        // SAFETY: the last vector of the furthest tap lies within `planes` and the last one of `dy` ends with it
        // (asserted above). A last group of fewer taps repeats its last one; the copies are not read back.
        unsafe {
            for t in 0..TAPS {
                base[t] = base[t].add(taps[t.min(taps.len() - 1)]);
            }
            for i in (0..dy.len()).step_by(L::LANES) {
                let gradient = L::load(dy.as_ptr().add(i));
                for t in 0..TAPS {
                    acc[t] = gradient.mul_add(L::load(base[t].add(i)), acc[t]);
                }
            }
        }
        dw.iter_mut().zip(acc).for_each(|(d, a)| *d += a.sum());
    }
}

dispatch! {
    /// [`accumulate_generic`] compiled for an instruction set.
    accumulate = accumulate_generic(taps: &[usize], planes: &[f32], dy: &[f32], dw: &mut [f32])
}

/// `dw[o, 1, ..]` from `x` and `dy`; images in fixed chunks, added in their order.
pub(crate) fn backward_weights(isa: Isa, g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let planes = Planes::of_input(g);
    let offsets = planes.taps(g, 1);
    let (taps, filters) = (offsets.len(), g.group_out());
    let (pixels_in, pixels_out, width) = (g.pixels_in(), g.pixels_out(), g.output[2]);
    let run = ((g.output[1] - 1) * planes.pitch + width).next_multiple_of(isa.lanes());
    let per_chunk = g.n.div_ceil(CHUNKS).max(1);
    let chunks = g.n.div_ceil(per_chunk);
    let mut parts = vec![0f32; chunks * g.o * taps];
    parts.par_chunks_mut(filters * taps).enumerate().for_each(|(i, part)| {
        let (chunk, c) = (i / g.c, i % g.c);
        scratch::with(planes.len(1), |image_planes| {
            scratch::with(run.max(g.output[1] * planes.pitch), |spread| {
                spread.fill(0.0);
                // Behind the last plane a vector may meet whatever was there before; it must be a number.
                image_planes.fill(0.0);
                for image in chunk * per_chunk..((chunk + 1) * per_chunk).min(g.n) {
                    let at = image * g.c + c;
                    planes.fill(&x[at * pixels_in..(at + 1) * pixels_in], [g.input[1], g.input[2]], image_planes);
                    for (f, dw) in part.chunks_mut(taps).enumerate() {
                        let dy = &dy[(at * filters + f) * pixels_out..][..pixels_out];
                        spread.chunks_mut(planes.pitch).zip(dy.chunks(width)).for_each(|(to, row)| to[..width].copy_from_slice(row));
                        accumulate(isa, &offsets, image_planes, &spread[..run], dw);
                    }
                }
            });
        });
    });
    dw.fill(0.0);
    for part in parts.chunks(g.o * taps) {
        dw.iter_mut().zip(part).for_each(|(d, p)| *d += p);
    }
}
