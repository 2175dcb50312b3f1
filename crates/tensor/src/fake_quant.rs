//! Fake quantization: values as they read back from a uniform integer grid, in one pass over memory each way.
use crate::buffer::Element;
use crate::device::{device_or, on_device};
use crate::kernels::simd::vectorised;
use crate::number::with_float;
use crate::parallel::{THRESHOLD, fill};
use crate::recycle::storage;
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
    /// Slopes of the result by `self` (straight through inside the range), by the scale (LSQ) and by the zero point.
    fn slopes(self, scale: Self, zero: Self, lo: Self, hi: Self) -> [Self; 3];
    fn times(self, o: Self) -> Self;
    fn plus(self, o: Self) -> Self;
}

macro_rules! grid {
    ($($t:ident),*) => {$(
        impl Grid for $t {
            const ZERO: Self = 0.0;
            fn from_f32(v: f32) -> Self { v as $t }
            #[inline(always)]
            fn read_back(self, scale: Self, zero: Self, lo: Self, hi: Self) -> Self {
                (((self / scale).round_ties_even() + zero).clamp(lo, hi) - zero) * scale
            }
            #[inline(always)]
            fn slopes(self, scale: Self, zero: Self, lo: Self, hi: Self) -> [Self; 3] {
                let x = self / scale;
                let q = x.round_ties_even() + zero;
                // Selections rather than branches, so that the loop vectorises.
                let inside = q >= lo && q <= hi;
                let clamped = if q < lo { lo } else { hi };
                [if inside { 1.0 } else { 0.0 }, if inside { q - zero - x } else { clamped - zero }, if inside { 0.0 } else { -scale }]
            }
            #[inline(always)]
            fn times(self, o: Self) -> Self { self * o }
            #[inline(always)]
            fn plus(self, o: Self) -> Self { self + o }
        }
    )*};
}
grid!(f32, f64);

fn forward<T: Grid>(x: &Tensor, scale: &Tensor, zero: &Tensor, layout: Layout, lo: T, hi: T) -> Result<Tensor> {
    let (v, s, z) = (x.as_slice::<T>()?, scale.as_slice::<T>()?, zero.as_slice::<T>()?);
    let mut out = storage::<T>(v.len());
    fill(&mut out, &|at, piece| {
        layout.runs(at, piece.len(), |range, c| {
            let (s, z) = (s[c], z[c]);
            let from = &v[at + range.start..at + range.end];
            vectorised(|| piece[range].iter_mut().zip(from).for_each(|(o, v)| *o = v.read_back(s, z, lo, hi)));
        });
    });
    Tensor::new(out, x.shape())
}

#[cfg(feature = "gpu")]
fn device_grid<'a>(scale: &'a Tensor, zero: &'a Tensor, layout: Layout, bounds: (f32, f32)) -> crate::gpu::Grid<'a> {
    crate::gpu::Grid { scale, zero, run: layout.run, channels: layout.channels, bounds }
}

/// Which of the grid's parameters a gradient is wanted of.
#[derive(Clone, Copy)]
struct Wanted {
    scale: bool,
    zero: bool,
}

/// Gradients by x, scale and zero point in one pass.
fn backward<T: Grid>(
    x: &Tensor,
    scale: &Tensor,
    zero: &Tensor,
    layout: Layout,
    lo: T,
    hi: T,
    dy: Tensor,
    wanted: Wanted,
) -> Result<Vec<Option<Tensor>>> {
    let (v, s, z) = (x.as_slice::<T>()?, scale.as_slice::<T>()?, zero.as_slice::<T>()?);
    let mut dx = dy;
    let sums_len = if wanted.scale || wanted.zero { layout.channels } else { 0 };
    // Chunks fixed by the data's size keep the sum over a scale's elements the same for any number of threads.
    let chunk = THRESHOLD;
    let partial: Vec<Vec<[T; 2]>> = dx
        .as_mut_slice::<T>()?
        .par_chunks_mut(chunk)
        .enumerate()
        .map(|(i, piece)| {
            let at = i * chunk;
            let mut sums = vec![[T::ZERO; 2]; sums_len];
            layout.runs(at, piece.len(), |range, c| {
                let (s, z) = (s[c], z[c]);
                let x = &v[at + range.start..at + range.end];
                let dy = &mut piece[range];
                match sums.get_mut(c) {
                    None => vectorised(|| dy.iter_mut().zip(x).for_each(|(d, x)| *d = d.times(x.slopes(s, z, lo, hi)[0]))),
                    Some(total) => vectorised(|| sum_slopes(dy, x, |x| x.slopes(s, z, lo, hi), total)),
                }
            });
            sums
        })
        .collect();
    let by = |wanted: bool, which: usize, like: &Tensor| {
        wanted
            .then(|| {
                let mut sums = vec![T::ZERO; like.len()];
                partial.iter().for_each(|p| sums.iter_mut().zip(p).for_each(|(s, p)| *s = s.plus(p[which])));
                Tensor::new(sums, like.shape())
            })
            .transpose()
    };
    let (ds, dz) = (by(wanted.scale, 0, scale)?, by(wanted.zero, 1, zero)?);
    Ok(vec![Some(dx), ds, dz])
}

/// Turns `dy` into the gradient by x and adds those by scale and zero point to `total`, in interleaved sums.
#[inline(always)]
fn sum_slopes<T: Grid>(dy: &mut [T], x: &[T], slopes: impl Fn(T) -> [T; 3], total: &mut [T; 2]) {
    const SUMS: usize = 16;
    let mut sums = [[T::ZERO; SUMS]; 2];
    let (whole, rest) = dy.as_chunks_mut::<SUMS>();
    let (x_whole, x_rest) = x.as_chunks::<SUMS>();
    let mut add = |k: usize, d: &mut T, x: &T| {
        let [by_x, by_scale, by_zero] = slopes(*x);
        sums[0][k] = sums[0][k].plus(d.times(by_scale));
        sums[1][k] = sums[1][k].plus(d.times(by_zero));
        *d = d.times(by_x);
    };
    for (dy, x) in whole.iter_mut().zip(x_whole) {
        for k in 0..SUMS {
            add(k, &mut dy[k], &x[k]);
        }
    }
    rest.iter_mut().zip(x_rest).enumerate().for_each(|(k, (d, x))| add(k, d, x));
    for (total, sums) in total.iter_mut().zip(&sums) {
        *total = sums.iter().fold(*total, |a, b| a.plus(*b));
    }
}

impl Tensor {
    /// `(clamp(round_half_even(x / scale) + zero_point, qmin, qmax) - zero_point) * scale`: what DequantizeLinear reads of
    /// what QuantizeLinear wrote, to the bit (a division, not a product with the reciprocal).
    ///
    /// # Shapes
    /// `scale` and `zero_point`: one element, or with `axis` one for each index along it; of `self`'s type, f32 or f64.
    /// # Gradient
    /// Straight through inside the range and zero outside; to `scale`, if it is tracked, as learned step sizes have it
    /// (Esser et al. 2020, arXiv:1902.08153, eq. 3, without the gradient scale); to `zero_point`, if it is tracked, minus
    /// the scale outside the range (Bhalgat et al. 2020, arXiv:2004.09576, eq. 7).
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
            let out = device_or!(
                crate::gpu::fake_quantize(self, device_grid(scale, zero_point, layout, (qmin, qmax))),
                forward::<T>(self, scale, zero_point, layout, lo, hi)?
            );
            let (x, s, z) = (self.detach(), scale.detach(), zero_point.detach());
            let wanted = Wanted { scale: scale.is_tracked(), zero: zero_point.is_tracked() };
            Ok(record("fake_quantize", &[self, scale, zero_point], out, move |dy| {
                on_device!(crate::gpu::fake_quantize_backward(
                    &x,
                    device_grid(&s, &z, layout, (qmin, qmax)),
                    &dy,
                    [wanted.scale, wanted.zero]
                ));
                backward::<T>(&x, &s, &z, layout, lo, hi, dy, wanted)
            }))
        })
    }

    /// The elements where `mask` is true, zero elsewhere; the gradient is masked alike.
    ///
    /// # Shapes
    /// `mask`: bool, of `self`'s shape.
    /// # Errors
    /// [`TensorError::Shape`] if the shapes differ, [`TensorError::DType`] if `mask` is not bool or `self` not f32 or f64.
    pub fn apply_mask(&self, mask: &Tensor) -> Result<Tensor> {
        if mask.shape() != self.shape() {
            return Err(TensorError::shape("apply_mask", format!("mask {:?} for {:?}", mask.shape(), self.shape())));
        }
        let on_host = || {
            with_float!("apply_mask", self.dtype(), T => {
                let keep = mask.as_slice::<bool>()?;
                let x = self.as_slice::<T>()?;
                let mut out = storage::<T>(x.len());
                fill(&mut out, &|at, piece| {
                    piece.iter_mut().zip(&x[at..]).zip(&keep[at..]).for_each(|((o, v), keep)| *o = if *keep { *v } else { 0.0 });
                });
                Tensor::new(out, self.shape())
            })
        };
        let out = device_or!(crate::gpu::select_elements(mask, self, &Tensor::scalar(0f32), self.shape()), on_host()?);
        let mask = mask.clone();
        Ok(record("apply_mask", &[self], out, move |dy| Ok(vec![Some(dy.apply_mask(&mask)?)])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::{uniform, uniform_f64};

    /// Outside the range the result is a smooth function of scale and zero point, so central differences apply.
    #[test]
    fn gradients_outside_the_range() {
        let x = Tensor::new(vec![50.0f64, -40.0, 30.0, -60.0], [2, 2]).unwrap();
        let inputs = [x, uniform_f64(1, &[2], 0.05, 0.1), uniform_f64(2, &[2], -3.0, 3.0)];
        check(&inputs, |t| t[0].fake_quantize(&t[1], &t[2], Some(1), -8.0, 7.0)).unwrap();
    }

    /// Inside it the gradient is the straight-through one: dy to x, dy * (q - zero - x / scale) to the scale, none to the
    /// zero point; the same whatever the length of the runs.
    #[test]
    fn gradients_inside_the_range() {
        for shape in [[3usize, 4, 1], [2, 4, 37]] {
            let x = uniform(3, &shape, -1.0, 1.0).unwrap();
            let (scale, zero) = (Tensor::full(0.1f32, [4]).unwrap(), Tensor::full(2f32, [4]).unwrap());
            let leaves = [x.tracked().unwrap(), scale.tracked().unwrap(), zero.tracked().unwrap()];
            let y = leaves[0].fake_quantize(&leaves[1], &leaves[2], Some(1), -128.0, 127.0).unwrap();
            let g = y.backward_from(Tensor::full(1f32, shape.to_vec()).unwrap()).unwrap();
            assert!(g.get(&leaves[0]).unwrap().as_slice::<f32>().unwrap().iter().all(|v| *v == 1.0));
            assert!(g.get(&leaves[2]).unwrap().as_slice::<f32>().unwrap().iter().all(|v| *v == 0.0));
            let error = y.sub(&x).unwrap().sum(&[0, 2], false).unwrap();
            for (got, e) in g.get(&leaves[1]).unwrap().as_slice::<f32>().unwrap().iter().zip(error.as_slice::<f32>().unwrap()) {
                assert!((got - e / 0.1).abs() < 1e-3, "{got} against {}", e / 0.1);
            }
        }
    }

    #[test]
    fn a_mask_holds_values_and_gradients_at_zero() {
        let mask = Tensor::new(vec![true, false, true, true], [2, 2]).unwrap();
        check(&[uniform_f64(1, &[2, 2], -1.0, 1.0)], |t| t[0].apply_mask(&mask)).unwrap();
        let y = Tensor::full(3f32, [2, 2]).unwrap().apply_mask(&mask).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap(), [3.0, 0.0, 3.0, 3.0]);
        assert!(Tensor::full(3f32, [4]).unwrap().apply_mask(&mask).is_err());
    }
}
