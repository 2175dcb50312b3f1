//! Convolution of any spatial rank up to three in f32 or f64 as a matrix product over gathered patches: the reference for the
//! direct kernels, and the code for shapes that they do not support.
//!
//! Loop order: image (threads) → group → one product of `[outputs, channels * taps]` with `[channels * taps, pixels]`.
use super::Geometry;
use crate::kernels::gemm::{Gemm, Matrix};
use rayon::prelude::*;
use std::ops::AddAssign;

/// Floats that convolve.
pub(crate) trait Real: Gemm + Default + AddAssign + 'static {}
impl Real for f32 {}
impl Real for f64 {}

/// [`Gemm::product`] of matrices that lie within their slices.
fn multiply<T: Real>(out: &mut [T], a: Matrix<T>, b: Matrix<T>, m: usize, k: usize, n: usize) {
    assert!(T::product(out, a, b, m, k, n, false), "matrices are larger than their slices");
}

impl Geometry {
    /// Calls `f(row of the patch matrix, output pixel, input pixel)` for every pair that is not padding.
    fn each_patch(&self, mut f: impl FnMut(usize, usize, usize)) {
        let [kd, kh, kw] = self.kernel;
        let place = |axis: usize, out: usize, k: usize| {
            (out * self.stride[axis] + k * self.dilation[axis]).checked_sub(self.before[axis]).filter(|i| *i < self.input[axis])
        };
        for channel in 0..self.group_in() {
            for (z, y, x) in (0..kd).flat_map(|z| (0..kh).flat_map(move |y| (0..kw).map(move |x| (z, y, x)))) {
                let row = ((channel * kd + z) * kh + y) * kw + x;
                for od in 0..self.output[0] {
                    let Some(id) = place(0, od, z) else { continue };
                    for oh in 0..self.output[1] {
                        let Some(ih) = place(1, oh, y) else { continue };
                        for ow in 0..self.output[2] {
                            let Some(iw) = place(2, ow, x) else { continue };
                            let input = ((channel * self.input[0] + id) * self.input[1] + ih) * self.input[2] + iw;
                            f(row, (od * self.output[1] + oh) * self.output[2] + ow, input);
                        }
                    }
                }
            }
        }
    }

    fn patch_rows(&self) -> usize {
        self.group_in() * self.taps()
    }
}

fn gather<T: Real>(g: &Geometry, x: &[T]) -> Vec<T> {
    let pixels = g.pixels_out();
    let mut patches = vec![T::default(); g.patch_rows() * pixels];
    g.each_patch(|row, out, input| patches[row * pixels + out] = x[input]);
    patches
}

/// `y = conv(x, w) + bias`.
pub(crate) fn forward<T: Real>(g: &Geometry, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let (pixels, rows, outputs) = (g.pixels_out(), g.patch_rows(), g.group_out());
    let image_in = g.group_in() * g.pixels_in();
    y.par_chunks_mut(outputs * pixels).enumerate().for_each(|(i, y)| {
        let group = i % g.groups;
        let patches = gather(g, &x[i * image_in..(i + 1) * image_in]);
        let w = &w[group * outputs * rows..][..outputs * rows];
        multiply(y, Matrix::row_major(w, rows, false), Matrix::row_major(&patches, pixels, false), outputs, rows, pixels);
        if let Some(bias) = bias {
            for (row, b) in y.chunks_mut(pixels).zip(&bias[group * outputs..]) {
                row.iter_mut().for_each(|v| *v += *b);
            }
        }
    });
}

/// `dx` from `dy`.
pub(crate) fn backward_data<T: Real>(g: &Geometry, dy: &[T], w: &[T], dx: &mut [T]) {
    let (pixels, rows, outputs) = (g.pixels_out(), g.patch_rows(), g.group_out());
    dx.par_chunks_mut(g.group_in() * g.pixels_in()).enumerate().for_each(|(i, dx)| {
        let w = &w[i % g.groups * outputs * rows..][..outputs * rows];
        let dy = &dy[i * outputs * pixels..(i + 1) * outputs * pixels];
        let mut patches = vec![T::default(); rows * pixels];
        multiply(&mut patches, Matrix::row_major(w, rows, true), Matrix::row_major(dy, pixels, false), rows, outputs, pixels);
        dx.fill(T::default());
        g.each_patch(|row, out, input| dx[input] += patches[row * pixels + out]);
    });
}

/// `dw` from `x` and `dy`; images are added in their order.
pub(crate) fn backward_weights<T: Real>(g: &Geometry, x: &[T], dy: &[T], dw: &mut [T]) {
    let (pixels, rows, outputs) = (g.pixels_out(), g.patch_rows(), g.group_out());
    let image_in = g.group_in() * g.pixels_in();
    dw.par_chunks_mut(outputs * rows).enumerate().for_each(|(group, dw)| {
        dw.fill(T::default());
        let mut part = vec![T::default(); outputs * rows];
        for i in (0..g.n).map(|n| n * g.groups + group) {
            let patches = gather(g, &x[i * image_in..(i + 1) * image_in]);
            let dy = &dy[i * outputs * pixels..(i + 1) * outputs * pixels];
            multiply(&mut part, Matrix::row_major(dy, pixels, false), Matrix::row_major(&patches, pixels, true), outputs, pixels, rows);
            dw.iter_mut().zip(&part).for_each(|(d, p)| *d += *p);
        }
    });
}
