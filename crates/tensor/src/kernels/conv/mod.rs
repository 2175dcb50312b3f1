//! Convolution kernels. [`Geometry`] describes one convolution of any spatial rank up to three as a 3-D one;
//! `direct` serves 2-D f32 (forward and backward by data), `weights` its backward by weights, `winograd` all three with fewer
//! multiplications where a kernel has three rows, `depthwise` one filter or more a channel, `merge` brings small images together
//! for 1x1 kernels, `im2col` serves everything else and every float type.
pub(crate) mod depthwise;
pub(crate) mod direct;
mod geometry;
pub(crate) mod im2col;
pub(crate) mod merge;
pub(crate) mod planes;
mod tile;
pub(crate) mod weights;
pub(crate) mod winograd;

use super::simd::{LINE, prefetch};
pub(crate) use geometry::Geometry;

/// Prefetches the input of the next block in equal parts during the computation: with few channels the arithmetic is too short to
/// hide the latency of memory.
struct Ahead<'a> {
    rest: &'a [f32],
    part: usize,
}

impl<'a> Ahead<'a> {
    fn new(what: &'a [f32], parts: usize) -> Self {
        Ahead { rest: what, part: what.len().div_ceil(parts.max(1)).next_multiple_of(LINE) }
    }

    /// Prefetches the next part.
    #[inline(always)]
    fn ask(&mut self) {
        let (now, later) = self.rest.split_at(self.part.min(self.rest.len()));
        self.rest = later;
        now.iter().step_by(LINE).for_each(|line| prefetch::<false>(line));
    }
}

#[cfg(test)]
mod tests {
    use super::winograd::Tiles;
    use super::*;
    use crate::kernels::simd::Isa;
    use crate::{ConvOptions, Tensor, random};

    fn f32s(t: &Tensor) -> &[f32] {
        t.as_slice::<f32>().unwrap()
    }

    /// Every instruction set that this processor has against the reference through patches, with and without groups,
    /// strides, dilations, padding, and with one image, where the threads share output channels.
    #[test]
    fn instruction_sets_agree_with_patches() {
        for (shape, kernel, stride, pad, dilation, groups) in [
            ([3, 16, 32, 32], [16, 16, 3, 3], 1, 1, 1, 1),
            ([2, 5, 8, 8], [17, 5, 3, 3], 1, 1, 1, 1),
            ([2, 16, 16, 24], [33, 16, 1, 1], 2, 0, 1, 1),
            ([1, 140, 7, 7], [40, 140, 3, 3], 1, 1, 1, 1),
            ([2, 6, 15, 13], [12, 3, 5, 3], 2, 2, 1, 2),
            ([2, 8, 11, 12], [16, 1, 3, 3], 2, 1, 2, 8),
            ([2, 4, 18, 17], [4, 1, 3, 3], 1, 1, 1, 4),
            ([2, 21, 10, 9], [21, 1, 5, 5], 1, 2, 1, 21),
            ([2, 18, 10, 9], [36, 1, 3, 2], 2, 0, 1, 18),
            ([1, 5, 4, 4], [5, 1, 1, 1], 1, 2, 1, 5),
            ([1, 64, 4, 12], [32, 64, 1, 1], 1, 0, 1, 1),
            ([2, 16, 25, 5], [24, 16, 1, 1], 1, 0, 1, 1),
            ([2, 700, 5, 5], [17, 700, 1, 1], 1, 0, 1, 1),
            ([2, 9, 11, 5], [5, 9, 3, 1], 1, 0, 1, 1),
            ([2, 3, 9, 9], [4, 3, 2, 2], 3, 0, 1, 1),
            ([5, 9, 8, 8], [17, 9, 3, 3], 1, 1, 1, 1),
            ([3, 16, 11, 21], [24, 8, 3, 3], 1, 2, 1, 2),
            ([2, 10, 13, 16], [8, 10, 3, 5], 1, 0, 1, 1),
        ] {
            let options = ConvOptions { strides: vec![stride; 2], pads: vec![(pad, pad); 2], dilations: vec![dilation; 2], groups };
            let g = Geometry::new(&shape, &kernel, &options).unwrap();
            // Miri runs only the small ones.
            if cfg!(miri) && g.n * g.o * g.pixels_out() * g.group_in() * g.taps() > 4_000 {
                continue;
            }
            let draw = |seed, len| random::uniform(seed, &[len], -1.0, 1.0).unwrap();
            let (x, w) = (draw(1, shape.iter().product()), draw(2, kernel.iter().product()));
            let (bias, dy) = (draw(3, g.o), draw(4, g.n * g.o * g.pixels_out()));
            let (x, w, bias, dy) = (f32s(&x), f32s(&w), f32s(&bias), f32s(&dy));
            let mut expected = [vec![0f32; dy.len()], vec![0f32; x.len()], vec![0f32; w.len()]];
            im2col::forward(&g, x, w, Some(bias), &mut expected[0]);
            im2col::backward_data(&g, dy, w, &mut expected[1]);
            im2col::backward_weights(&g, x, dy, &mut expected[2]);
            // Results start as NaN, so that an element that is never written is found.
            let mut got = expected.each_ref().map(|e| vec![f32::NAN; e.len()]);
            let agree = |isa: Isa, kernel: &str, got: &mut [Vec<f32>; 3]| {
                for (direction, (got, expected)) in got.iter_mut().zip(&expected).enumerate() {
                    let largest = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
                    let off = got.iter().zip(expected).position(|(a, b)| (a - b).abs() > 2e-5 * largest || a.is_nan());
                    assert_eq!(off, None, "{kernel} {isa:?} {g:?} direction {direction}");
                    got.fill(f32::NAN);
                }
            };
            for isa in Isa::available() {
                if g.is_depthwise() {
                    depthwise::forward(isa, &g, x, w, Some(bias), &mut got[0]);
                    depthwise::backward_data(isa, &g, dy, w, &mut got[1]);
                    depthwise::backward_weights(isa, &g, x, dy, &mut got[2]);
                    agree(isa, "depthwise", &mut got);
                    continue;
                }
                direct::forward(isa, &g, x, w, Some(bias), &mut got[0]);
                direct::backward_data(isa, &g, dy, w, &mut got[1]);
                weights::backward_weights(isa, &g, x, dy, &mut got[2]);
                agree(isa, "direct", &mut got);
                if let (Some(input), Some(gradient)) = (Tiles::of_input(&g), Tiles::of_gradient(&g)) {
                    winograd::forward(isa, input.clone(), &g, x, w, Some(bias), &mut got[0]);
                    winograd::backward_data(isa, gradient, &g, dy, w, &mut got[1]);
                    winograd::backward_weights(isa, input, &g, x, dy, &mut got[2]);
                    agree(isa, "winograd", &mut got);
                }
            }
        }
    }
}
