//! Fake quantization: values as they read back from a uniform integer grid, in one pass over memory each way.
use crate::buffer::Element;
use crate::number::with_float;
use crate::parallel::{THRESHOLD, fill};
use crate::{Result, Tensor, TensorError, record, shape};
use rayon::prelude::*;

/// Where the scale of each element is: runs of `run` consecutive elements share one of `channels` scales, in turn.
#[derive(Clone, Copy)]
struct Layout {
    run: usize,
    channels: usize,
}

impl Layout {
    fn of(x: &Tensor, scale: &Tensor, axis: Option<usize>) -> Result<Layout> {
        let Some(axis) = axis else {
            return match scale.len() {
                1 => Ok(Layout { run: x.len().max(1), channels: 1 }),
                n => Err(TensorError::shape("fake_quantize", format!("{n} scales without an axis"))),
            };
        };
        let axis = shape::axis("fake_quantize", axis as i64, x.rank())?;
        if x.shape()[axis] != scale.len() {
            let what = format!("{} scales for axis {axis} of shape {:?}", scale.len(), x.shape());
            return Err(TensorError::shape("fake_quantize", what));
        }
        Ok(Layout { run: x.shape()[axis + 1..].iter().product::<usize>().max(1), channels: scale.len().max(1) })
    }

    /// Calls `f(range, channel)` for the runs that cover `start..start + len`; ranges are relative to `start`.
    fn runs(self, start: usize, len: usize, mut f: impl FnMut(std::ops::Range<usize>, usize)) {
        let mut at = 0;
        while at < len {
            let end = len.min(at + self.run - (start + at) % self.run);
            f(at..end, (start + at) / self.run % self.channels);
            at = end;
        }
    }
}

/// The arithmetic on one float type.
trait Grid: Element + Copy + Default {
    const ZERO: Self;
    fn from_f32(v: f32) -> Self;
    fn read_back(self, scale: Self, zero: Self, lo: Self, hi: Self) -> Self;
    /// Slope of the result by `self` (straight through inside the range) and by the scale (LSQ).
    fn slopes(self, scale: Self, zero: Self, lo: Self, hi: Self) -> (Self, Self);
    fn times(self, o: Self) -> Self;
    fn plus(self, o: Self) -> Self;
}

macro_rules! grid {
    ($($t:ident),*) => {$(
        impl Grid for $t {
            const ZERO: Self = 0.0;
            fn from_f32(v: f32) -> Self { v as $t }
            fn read_back(self, scale: Self, zero: Self, lo: Self, hi: Self) -> Self {
                (((self / scale).round_ties_even() + zero).clamp(lo, hi) - zero) * scale
            }
            fn slopes(self, scale: Self, zero: Self, lo: Self, hi: Self) -> (Self, Self) {
                let x = self / scale;
                let q = x.round_ties_even() + zero;
                if q < lo { (0.0, lo - zero) } else if q > hi { (0.0, hi - zero) } else { (1.0, q - zero - x) }
            }
            fn times(self, o: Self) -> Self { self * o }
            fn plus(self, o: Self) -> Self { self + o }
        }
    )*};
}
grid!(f32, f64);

fn forward<T: Grid>(x: &Tensor, scale: &Tensor, zero: &Tensor, layout: Layout, lo: T, hi: T) -> Result<Tensor> {
    let (v, s, z) = (x.as_slice::<T>()?, scale.as_slice::<T>()?, zero.as_slice::<T>()?);
    let mut out = vec![T::ZERO; v.len()];
    fill(&mut out, &|at, piece| {
        layout.runs(at, piece.len(), |range, c| {
            let (s, z) = (s[c], z[c]);
            piece[range.clone()].iter_mut().zip(&v[at + range.start..]).for_each(|(o, v)| *o = v.read_back(s, z, lo, hi));
        });
    });
    Tensor::new(out, x.shape())
}

fn backward<T: Grid>(
    x: &Tensor,
    scale: &Tensor,
    zero: &Tensor,
    layout: Layout,
    lo: T,
    hi: T,
    dy: Tensor,
    by_scale: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let (v, s, z) = (x.as_slice::<T>()?, scale.as_slice::<T>()?, zero.as_slice::<T>()?);
    let (from, mut dx) = (dy.clone(), dy);
    let from = from.as_slice::<T>()?;
    // Chunks fixed by the data's size keep the sum over a scale's elements the same for any number of threads.
    let chunk = THRESHOLD;
    let partial: Vec<Vec<T>> = dx
        .as_mut_slice::<T>()?
        .par_chunks_mut(chunk)
        .enumerate()
        .map(|(i, piece)| {
            let at = i * chunk;
            let mut sums = vec![T::ZERO; if by_scale { layout.channels } else { 0 }];
            layout.runs(at, piece.len(), |range, c| {
                let mut sum = T::ZERO;
                for (d, i) in piece[range.clone()].iter_mut().zip(at + range.start..) {
                    let (slope, scale_slope) = v[i].slopes(s[c], z[c], lo, hi);
                    *d = from[i].times(slope);
                    sum = sum.plus(from[i].times(scale_slope));
                }
                if let Some(total) = sums.get_mut(c) {
                    *total = total.plus(sum);
                }
            });
            sums
        })
        .collect();
    let ds = by_scale
        .then(|| {
            let mut sums = vec![T::ZERO; scale.len()];
            partial.iter().for_each(|p| sums.iter_mut().zip(p).for_each(|(s, p)| *s = s.plus(*p)));
            Tensor::new(sums, scale.shape())
        })
        .transpose()?;
    Ok((dx, ds))
}

impl Tensor {
    /// `(clamp(round_half_even(x / scale) + zero_point, qmin, qmax) - zero_point) * scale`: what DequantizeLinear reads of
    /// what QuantizeLinear wrote, to the bit (a division, not a product with the reciprocal).
    ///
    /// # Shapes
    /// `scale` and `zero_point`: one element, or with `axis` one for each index along it; of `self`'s type, f32 or f64.
    /// # Gradient
    /// Straight through inside the range and zero outside; to `scale`, if it is tracked, as learned step sizes have it
    /// (Esser et al. 2020, arXiv:1902.08153, eq. 3, without the gradient scale). None to `zero_point`.
    /// # Errors
    /// [`TensorError::Shape`] or [`TensorError::DType`] if the operands do not fit.
    pub fn fake_quantize(&self, scale: &Tensor, zero_point: &Tensor, axis: Option<usize>, qmin: f32, qmax: f32) -> Result<Tensor> {
        let layout = Layout::of(self, scale, axis)?;
        if zero_point.len() != scale.len() {
            let what = format!("{} scales and {} zero points", scale.len(), zero_point.len());
            return Err(TensorError::shape("fake_quantize", what));
        }
        if qmin.is_nan() || qmax.is_nan() || qmin > qmax {
            return Err(TensorError::value("fake_quantize", format!("the range {qmin} to {qmax} is empty")));
        }
        with_float!("fake_quantize", self.dtype(), T => {
            let (lo, hi) = (<T as Grid>::from_f32(qmin), <T as Grid>::from_f32(qmax));
            let out = forward::<T>(self, scale, zero_point, layout, lo, hi)?;
            let (x, s, z, by_scale) = (self.detach(), scale.detach(), zero_point.detach(), scale.is_tracked());
            Ok(record("fake_quantize", &[self, scale], out, move |dy| {
                let (dx, ds) = backward::<T>(&x, &s, &z, layout, lo, hi, dy, by_scale)?;
                Ok(vec![Some(dx), ds])
            }))
        })
    }
}
