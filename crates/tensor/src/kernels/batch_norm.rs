//! Batch normalization with the residual addition and the activation after it, f32.
//!
//! Loop order: channel (threads) → two passes over the channel's pieces, one for each image: first for its sums, then for its
//! result. A channel of all images usually fits the second-level cache, so that memory is read once. Sums are kept in interleaved
//! lanes over all pieces (a piece of a late layer has only a few elements) and are moved to f64 often enough that precision does
//! not fall with the size of the channel.
use super::simd::{LINE, prefetch, vectorised};
use crate::recycle;
use rayon::prelude::*;
use std::ops::Range;

/// Lanes that sums are interleaved over.
const LANES: usize = 32;
/// Prefetch distance in elements of a channel.
const AHEAD: usize = 1 << 10;
/// Largest size in elements of a piece that is prefetched.
const ASKED: Range<usize> = 48..513;
/// Elements that a lane adds up before it is moved to f64.
const BLOCK: usize = 64;

/// `[n, c, inner]`: images, channels and elements of a channel of one image.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) n: usize,
    pub(crate) c: usize,
    pub(crate) inner: usize,
}

impl Layout {
    /// The positions of one channel's pieces.
    pub(crate) fn pieces(self, channel: usize) -> impl Iterator<Item = Range<usize>> {
        (0..self.n).map(move |i| {
            let at = (i * self.c + channel) * self.inner;
            at..at + self.inner
        })
    }

    /// Prefetches the piece that comes [`AHEAD`] elements of its channel after this one: pieces lie far apart, so the hardware
    /// does not prefetch them by itself. Pieces of other lengths than [`ASKED`] gain nothing: the hardware detects long ones soon
    /// enough, and prefetching short ones costs as much as waiting.
    #[inline(always)]
    fn ask(self, of: *const f32, piece: &Range<usize>) {
        if !ASKED.contains(&self.inner) {
            return;
        }
        let further = AHEAD.div_ceil(self.inner.max(1)) * self.c * self.inner;
        piece.clone().step_by(LINE).for_each(|at| prefetch::<true>(of.wrapping_add(at + further)));
    }

    /// Elements of one channel in all images.
    pub(crate) fn count(self) -> usize {
        self.n * self.inner
    }
}

/// A slice that tasks write disjoint parts of.
struct Shared<'a>(*mut f32, usize, std::marker::PhantomData<&'a mut [f32]>);
// SAFETY: tasks only reach it through `part`, whose contract makes the parts disjoint.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    fn new(slice: &'a mut [f32]) -> Self {
        Shared(slice.as_mut_ptr(), slice.len(), std::marker::PhantomData)
    }

    /// # Safety
    /// No two live parts may overlap.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, range: Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.1);
        // SAFETY: within the slice (asserted), and disjoint from other parts by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}

/// Two sums in interleaved lanes, in a fixed order.
struct Sums {
    lanes: [[f32; LANES]; 2],
    total: [f64; 2],
    /// Elements a lane holds at most.
    held: usize,
}

impl Sums {
    fn new() -> Self {
        Sums { lanes: [[0.0; LANES]; 2], total: [0.0; 2], held: 0 }
    }

    /// Moves the lanes to f64.
    fn flush(&mut self) {
        for (total, lanes) in self.total.iter_mut().zip(&mut self.lanes) {
            *total += lanes.iter().map(|s| f64::from(*s)).sum::<f64>();
            *lanes = [0.0; LANES];
        }
        self.held = 0;
    }

    /// Adds `f` of the elements of slices of one length.
    #[inline(always)]
    fn add<const N: usize>(&mut self, of: [&[f32]; N], f: impl Fn([f32; N]) -> [f32; 2]) {
        let len = of[0].len();
        let whole = of.map(|s| s[..len].as_chunks::<LANES>().0);
        self.blocks(len / LANES, |range, lanes| {
            for i in range {
                let rows: [&[f32; LANES]; N] = std::array::from_fn(|j| &whole[j][i]);
                for k in 0..LANES {
                    let [a, b] = f(std::array::from_fn(|j| rows[j][k]));
                    lanes[0][k] += a;
                    lanes[1][k] += b;
                }
            }
        });
        for (k, i) in (len / LANES * LANES..len).enumerate() {
            let [a, b] = f(std::array::from_fn(|j| of[j][i]));
            self.lanes[0][k] += a;
            self.lanes[1][k] += b;
        }
    }

    /// As [`Sums::add`], and replaces each element of `d` by the first part of `f`'s result.
    #[inline(always)]
    fn replace<const N: usize>(&mut self, d: &mut [f32], of: [&[f32]; N], f: impl Fn(f32, [f32; N]) -> (f32, [f32; 2])) {
        let len = d.len();
        let whole = of.map(|s| s[..len].as_chunks::<LANES>().0);
        let (d, d_rest) = d.as_chunks_mut::<LANES>();
        self.blocks(len / LANES, |range, lanes| {
            for i in range {
                let rows: [&[f32; LANES]; N] = std::array::from_fn(|j| &whole[j][i]);
                let d = &mut d[i];
                for k in 0..LANES {
                    let (v, [a, b]) = f(d[k], std::array::from_fn(|j| rows[j][k]));
                    d[k] = v;
                    lanes[0][k] += a;
                    lanes[1][k] += b;
                }
            }
        });
        for (k, i) in (len / LANES * LANES..len).enumerate() {
            let (v, [a, b]) = f(d_rest[k], std::array::from_fn(|j| of[j][i]));
            d_rest[k] = v;
            self.lanes[0][k] += a;
            self.lanes[1][k] += b;
        }
    }

    /// Cuts `0..count` at the points where the lanes are full, with space for the remainder.
    #[inline(always)]
    fn blocks(&mut self, count: usize, mut f: impl FnMut(Range<usize>, &mut [[f32; LANES]; 2])) {
        let mut at = 0;
        while at < count || self.held >= BLOCK {
            if self.held >= BLOCK {
                self.flush();
            }
            let end = count.min(at + BLOCK - self.held);
            let mut lanes = self.lanes;
            f(at..end, &mut lanes);
            self.lanes = lanes;
            self.held += end - at;
            at = end;
        }
        self.held += 1;
    }

    fn finish(mut self) -> [f64; 2] {
        self.flush();
        self.total
    }
}

/// Mean and biased variance of one channel.
///
/// Sums are taken relative to one element, so that a large mean does not cancel the variance.
pub(crate) fn moments(l: Layout, x: &[f32], channel: usize) -> [f64; 2] {
    let k = l.pieces(channel).next().and_then(|p| x.get(p.start)).copied().unwrap_or(0.0);
    let mut sums = Sums::new();
    vectorised!({
        for piece in l.pieces(channel) {
            l.ask(x.as_ptr(), &piece);
            sums.add([&x[piece]], |[x]| {
                let v = x - k;
                [v, v * v]
            });
        }
    });
    let m = l.count().max(1) as f64;
    let [s, q] = sums.finish();
    let d = s / m;
    [f64::from(k) + d, (q / m - d * d).max(0.0)]
}

/// `y = clamp(x * a[c] + b[c] + residual)` for each channel, where `coefficients` returns a and b from the channel's own data,
/// and the values to keep of the channel.
pub(crate) fn forward<K: Send>(
    l: Layout,
    x: &[f32],
    residual: Option<&[f32]>,
    (lo, hi): (f32, f32),
    coefficients: impl Fn(usize) -> ([f32; 2], K) + Sync,
) -> (Vec<f32>, Vec<K>) {
    let mut y = recycle::take(x.len());
    let shared = Shared::new(&mut y);
    let kept = (0..l.c)
        .into_par_iter()
        .map(|c| {
            let ([a, b], kept) = coefficients(c);
            vectorised!({
                for piece in l.pieces(c) {
                    l.ask(shared.0, &piece);
                    // SAFETY: pieces of different channels and images do not overlap.
                    let y = unsafe { shared.part(piece.clone()) };
                    let x = &x[piece.clone()];
                    match residual.map(|r| &r[piece]) {
                        None => y.iter_mut().zip(x).for_each(|(y, x)| *y = clamp(x * a + b, lo, hi)),
                        Some(r) => y.iter_mut().zip(x).zip(r).for_each(|((y, x), r)| *y = clamp(x * a + b + r, lo, hi)),
                    }
                }
            });
            kept
        })
        .collect();
    (y, kept)
}

/// `v` between bounds; a NaN stays one. (Two comparisons vectorise where `f32::max` and `min` need care for NaN.)
#[inline(always)]
fn clamp(v: f32, lo: f32, hi: f32) -> f32 {
    let v = if v < lo { lo } else { v };
    if v > hi { hi } else { v }
}

/// What tells where the gradient passes an activation: strictly between its bounds.
#[derive(Clone, Copy)]
pub(crate) enum Activated<'a> {
    No,
    /// By the output.
    Output(&'a [f32], (f32, f32)),
    /// The input of the activation, `x * a + b` with a and b of each channel: without a residual it is computed again as fast as
    /// the output is read.
    Affine(&'a [[f32; 2]], (f32, f32)),
}

/// Values of the forward pass that the backward pass needs.
#[derive(Clone, Copy)]
pub(crate) struct Normalized<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) activated: Activated<'a>,
    pub(crate) scale: &'a [f32],
    pub(crate) mean: &'a [f32],
    /// One over the standard deviation.
    pub(crate) inv: &'a [f32],
    /// Mean and variance depend on x (training; Ioffe & Szegedy 2015, arXiv:1502.03167, section 3).
    pub(crate) through_statistics: bool,
}

/// Backward of [`forward`] with `x_hat = (x - mean) * inv`. With `dx`, an activation must be given by its output: `dy` becomes
/// the gradient by the residual and `dx` that by x. Without it, `dy` becomes the gradient by x. Returns the gradients by scale
/// and bias.
pub(crate) fn backward(l: Layout, of: Normalized, dy: &mut [f32], dx: Option<&mut [f32]>) -> (Vec<f32>, Vec<f32>) {
    let m = l.count() as f64;
    let (to_dy, to_dx) = (Shared::new(dy), dx.map(Shared::new));
    (0..l.c)
        .into_par_iter()
        .map(|c| {
            let (mu, inv) = (of.mean[c], of.inv[c]);
            let passed = |d: f32, v: f32, (lo, hi): (f32, f32)| if v > lo && v < hi { d } else { 0.0 };
            let mut sums = Sums::new();
            vectorised!({
                for piece in l.pieces(c) {
                    l.ask(of.x.as_ptr(), &piece);
                    l.ask(to_dy.0, &piece);
                    if let Activated::Output(y, _) = of.activated {
                        l.ask(y.as_ptr(), &piece);
                    }
                    // SAFETY: pieces of different channels and images do not overlap.
                    let d = unsafe { to_dy.part(piece.clone()) };
                    let x = &of.x[piece.clone()];
                    match of.activated {
                        Activated::No => sums.add([d, x], |[d, x]| [d, d * (x - mu)]),
                        Activated::Output(y, bounds) => sums.replace(d, [x, &y[piece]], |d, [x, y]| {
                            let d = passed(d, y, bounds);
                            (d, [d, d * (x - mu)])
                        }),
                        Activated::Affine(coefficients, bounds) => {
                            let [a, b] = coefficients[c];
                            sums.add([d, x], |[d, x]| {
                                let d = passed(d, x * a + b, bounds);
                                [d, d * (x - mu)]
                            });
                        }
                    }
                }
            });
            let [s, q] = sums.finish();
            let q = q * f64::from(inv);
            let a = of.scale[c] * inv;
            // dx = a * (dy - mean(dy) - x_hat * mean(dy * x_hat))
            let (b, k) =
                if of.through_statistics { ((-f64::from(a * inv) * q / m) as f32, (-f64::from(a) * s / m) as f32) } else { (0.0, 0.0) };
            vectorised!({
                for piece in l.pieces(c) {
                    // SAFETY: as above.
                    let d = unsafe { to_dy.part(piece.clone()) };
                    let x = &of.x[piece.clone()];
                    match (&to_dx, of.activated) {
                        (None, Activated::Affine(coefficients, bounds)) => {
                            let [slope, offset] = coefficients[c];
                            let dx = |d, x| passed(d, x * slope + offset, bounds) * a + (x - mu) * b + k;
                            d.iter_mut().zip(x).for_each(|(d, x)| *d = dx(*d, *x));
                        }
                        (None, _) => d.iter_mut().zip(x).for_each(|(d, x)| *d = *d * a + (x - mu) * b + k),
                        (Some(to), _) => {
                            // SAFETY: as above.
                            let g = unsafe { to.part(piece) };
                            g.iter_mut().zip(&*d).zip(x).for_each(|((g, d), x)| *g = d * a + (x - mu) * b + k);
                        }
                    }
                }
            });
            (q as f32, s as f32)
        })
        .unzip()
}
