//! Fake quantization: values as they read back from a uniform integer grid, in one pass over memory each way.
use crate::buffer::Element;
use crate::device::{device_or, on_device};
use crate::kernels::simd::{vectorised, widely_vectorised};
use crate::map::rewrite;
use crate::number::with_float;
use crate::parallel::{CHUNK, fill};
use crate::recycle::storage;
use crate::{Activation, Result, Tensor, TensorError, record, shape};

/// Which scale each element has: runs of `run` consecutive elements share one of `channels` scales, in turn.
#[derive(Clone, Copy)]
struct ScaleLayout {
    run: usize,
    channels: usize,
}

impl ScaleLayout {
    fn of(x: &Tensor, scale: &Tensor, axis: Option<usize>) -> Result<ScaleLayout> {
        let Some(axis) = axis else {
            return match scale.len() {
                1 => Ok(ScaleLayout { run: x.len().max(1), channels: 1 }),
                n => Err(TensorError::shape("fake_quantize", format!("{n} scales without an axis"))),
            };
        };
        let axis = shape::axis("fake_quantize", axis as i64, x.rank())?;
        if x.shape()[axis] != scale.len() {
            let what = format!("{} scales for axis {axis} of shape {:?}", scale.len(), x.shape());
            return Err(TensorError::shape("fake_quantize", what));
        }
        Ok(ScaleLayout { run: x.shape()[axis + 1..].iter().product::<usize>().max(1), channels: scale.len().max(1) })
    }

    /// True if the runs are so short that switching between them costs more than the elements.
    fn is_short(self, run: usize) -> bool {
        self.channels > 1 && self.run < run
    }

    /// The values of `of` for the first elements from `start` on, until they repeat or `len` elements are reached.
    fn pattern<T: Copy>(self, of: &[T], start: usize, len: usize) -> Vec<T> {
        let n = len.min(self.run * self.channels);
        let mut out = Vec::with_capacity(n);
        let (mut channel, mut left) = (start / self.run % self.channels, self.run - start % self.run);
        while out.len() < n {
            if self.run == 1 {
                out.extend_from_slice(&of[channel..of.len().min(channel + n - out.len())]);
                channel = 0;
            } else {
                out.resize(out.len() + left.min(n - out.len()), of[channel]);
                (channel, left) = ((channel + 1) % self.channels, self.run);
            }
        }
        out
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
trait GridFloat: Element + Copy + Default {
    const ZERO: Self;
    fn from_f32(v: f32) -> Self;
    fn read_back(self, scale: Self, zero: Self, lo: Self, hi: Self) -> Self;
    /// `self` clipped to two bounds; NaN stays NaN.
    fn hold(self, lo: Self, hi: Self) -> Self;
    /// Strictly between two bounds.
    fn is_within(self, lo: Self, hi: Self) -> bool;
    /// Slopes of the result by `self` (straight through inside the range), by the scale (LSQ) and by the zero point.
    fn slopes(self, scale: Self, zero: Self, lo: Self, hi: Self) -> [Self; 3];
    /// The same with bounds applied to `self` before the grid.
    #[inline(always)]
    fn held_slopes(self, (least, most): (Self, Self), scale: Self, zero: Self, lo: Self, hi: Self) -> [Self; 3] {
        let [by_x, by_scale, by_zero] = self.hold(least, most).slopes(scale, zero, lo, hi);
        [if self.is_within(least, most) { by_x } else { Self::ZERO }, by_scale, by_zero]
    }
    fn times(self, o: Self) -> Self;
    fn plus(self, o: Self) -> Self;
}

macro_rules! grid {
    ($($t:ident),*) => {$(
        impl GridFloat for $t {
            const ZERO: Self = 0.0;
            fn from_f32(v: f32) -> Self { v as $t }
            #[inline(always)]
            fn read_back(self, scale: Self, zero: Self, lo: Self, hi: Self) -> Self {
                let q = (self / scale).round_ties_even() + zero;
                // As `clamp`, NaN included, without its check of the bounds.
                let q = if q < lo { lo } else { q };
                let q = if q > hi { hi } else { q };
                (q - zero) * scale
            }
            #[inline(always)]
            fn hold(self, lo: Self, hi: Self) -> Self {
                let v = if self < lo { lo } else { self };
                if v > hi { hi } else { v }
            }
            #[inline(always)]
            fn is_within(self, lo: Self, hi: Self) -> bool { (self > lo) & (self < hi) }
            #[inline(always)]
            fn slopes(self, scale: Self, zero: Self, lo: Self, hi: Self) -> [Self; 3] {
                let x = self / scale;
                let q = x.round_ties_even() + zero;
                // Selections rather than branches (no `&&` either), so that the loop vectorises.
                let inside = (q >= lo) & (q <= hi);
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

/// The bounds of an activation before the grid, if there is one.
type Bounds<T> = Option<(T, T)>;

fn forward<T: GridFloat>(
    x: &Tensor,
    bounds: Bounds<T>,
    scale: &Tensor,
    zero: &Tensor,
    layout: ScaleLayout,
    lo: T,
    hi: T,
) -> Result<Tensor> {
    let (v, s, z) = (x.as_slice::<T>()?, scale.as_slice::<T>()?, zero.as_slice::<T>()?);
    let mut out = storage::<T>(crate::memory::room::<T>("fake_quantize", x.shape())?);
    fill(&mut out, &|at, piece| {
        if layout.is_short(SHORT) {
            let (s, z) = (layout.pattern(s, at, piece.len()), layout.pattern(z, at, piece.len()));
            for (o, v) in piece.chunks_mut(s.len()).zip(v[at..].chunks(s.len())) {
                let all = o.iter_mut().zip(v).zip(s.iter().zip(&z));
                match bounds {
                    None => vectorised!(all.for_each(|((o, v), (s, z))| *o = v.read_back(*s, *z, lo, hi))),
                    Some((least, most)) => {
                        vectorised!(all.for_each(|((o, v), (s, z))| *o = v.hold(least, most).read_back(*s, *z, lo, hi)))
                    }
                }
            }
            return;
        }
        layout.runs(at, piece.len(), |range, c| {
            let (s, z) = (s[c], z[c]);
            let from = &v[at + range.start..at + range.end];
            let pairs = piece[range].iter_mut().zip(from);
            match bounds {
                None => vectorised!(pairs.for_each(|(o, v)| *o = v.read_back(s, z, lo, hi))),
                Some((least, most)) => vectorised!(pairs.for_each(|(o, v)| *o = v.hold(least, most).read_back(s, z, lo, hi))),
            }
        });
    });
    Tensor::new(out, x.shape())
}

#[cfg(feature = "gpu")]
fn device_grid<'a>(scale: &'a Tensor, zero: &'a Tensor, layout: ScaleLayout, bounds: (f32, f32)) -> crate::gpu::Grid<'a> {
    crate::gpu::Grid { scale, zero, run: layout.run, channels: layout.channels, bounds }
}

/// Which parameters of the grid need a gradient.
#[derive(Clone, Copy)]
struct Wanted {
    scale: bool,
    zero: bool,
}

/// Gradients by x, scale and zero point in one pass.
fn backward<T: GridFloat>(
    x: &Tensor,
    bounds: Bounds<T>,
    scale: &Tensor,
    zero: &Tensor,
    layout: ScaleLayout,
    lo: T,
    hi: T,
    dy: Tensor,
    wanted: Wanted,
) -> Result<Vec<Option<Tensor>>> {
    let (v, s, z) = (x.as_slice::<T>()?, scale.as_slice::<T>()?, zero.as_slice::<T>()?);
    let sums_len = if wanted.scale || wanted.zero { layout.channels } else { 0 };
    // Pieces fixed by the data's size keep the sum over a scale's elements the same for any number of threads.
    let (dx, partial) = rewrite(dy, CHUNK, |at, piece: &mut [T]| {
        // Only the channels in this piece, from its first one on.
        let first = at / layout.run;
        let met = (at + piece.len()).div_ceil(layout.run) - first;
        let mut sums = vec![[T::ZERO; 2]; met.min(sums_len)];
        if layout.is_short(SUMS) {
            let short = Short { layout, scale: s, zero: z, bounds, lo, hi, zeros: wanted.zero };
            short.piece(at, piece, &v[at..], first, &mut sums);
            return (first, sums);
        }
        layout.runs(at, piece.len(), |range, c| {
            let (s, z) = (s[c], z[c]);
            let which = if sums.is_empty() { 0 } else { ((at + range.start) / layout.run - first) % sums.len() };
            let x = &v[at + range.start..at + range.end];
            let dy = &mut piece[range];
            let slopes = |x: T| x.slopes(s, z, lo, hi);
            let held = |x: T, b: (T, T)| x.held_slopes(b, s, z, lo, hi);
            match (sums.get_mut(which), wanted.zero, bounds) {
                (None, _, None) => vectorised!(dy.iter_mut().zip(x).for_each(|(d, x)| *d = d.times(slopes(*x)[0]))),
                (None, _, Some(b)) => vectorised!(dy.iter_mut().zip(x).for_each(|(d, x)| *d = d.times(held(*x, b)[0]))),
                (Some(total), false, None) => widely_vectorised!(sum_slopes::<T, 1>(dy, x, slopes, total)),
                (Some(total), false, Some(b)) => widely_vectorised!(sum_slopes::<T, 1>(dy, x, |x| held(x, b), total)),
                (Some(total), true, None) => widely_vectorised!(sum_slopes::<T, 2>(dy, x, slopes, total)),
                (Some(total), true, Some(b)) => widely_vectorised!(sum_slopes::<T, 2>(dy, x, |x| held(x, b), total)),
            }
        });
        (first, sums)
    })?;
    let by = |wanted: bool, which: usize, like: &Tensor| {
        wanted
            .then(|| {
                let mut sums = vec![T::ZERO; like.len()];
                for (first, part) in &partial {
                    // Up to the last channel, then from the first one.
                    let at = first % layout.channels;
                    let (early, late) = part.split_at(part.len().min(layout.channels - at));
                    for (from, part) in [(at, early), (0, late)] {
                        sums[from..].iter_mut().zip(part).for_each(|(sum, p)| *sum = sum.plus(p[which]));
                    }
                }
                Tensor::new(sums, like.shape())
            })
            .transpose()
    };
    let (ds, dz) = (by(wanted.scale, 0, scale)?, by(wanted.zero, 1, zero)?);
    Ok(vec![Some(dx), ds, dz])
}

/// Interleaved sums of a run. Shorter runs of the backward pass are processed side by side, which adds up in the same order.
const SUMS: usize = 16;
/// Run length below which the forward pass processes runs side by side.
const SHORT: usize = 128;

/// A grid whose runs are short: scales and sums are laid out element by element, for loops over many runs at a time.
struct Short<'a, T> {
    layout: ScaleLayout,
    scale: &'a [T],
    zero: &'a [T],
    bounds: Bounds<T>,
    lo: T,
    hi: T,
    /// The zero points need a gradient, too.
    zeros: bool,
}

impl<T: GridFloat> Short<'_, T> {
    /// Turns a piece of `dy`, from element `at` on, into the gradient by `x`, and adds the gradients by scale and zero point to
    /// `sums`, if given, whose first entry belongs to run `first`.
    fn piece(&self, at: usize, dy: &mut [T], x: &[T], first: usize, sums: &mut [[T; 2]]) {
        let layout = self.layout;
        let (s, z) = (layout.pattern(self.scale, at, dy.len()), layout.pattern(self.zero, at, dy.len()));
        let period = s.len();
        // Infinite bounds have no effect.
        let b = self.bounds.unwrap_or((T::from_f32(f32::NEG_INFINITY), T::from_f32(f32::INFINITY)));
        let count = if sums.is_empty() { 0 } else { 1 + usize::from(self.zeros) };
        let mut by = [1, 2].map(|least| vec![T::ZERO; if count >= least { period } else { 0 }]);
        let [by_scale, by_zero] = &mut by;
        for (dy, x) in dy.chunks_mut(period).zip(x.chunks(period)) {
            match count {
                0 => widely_vectorised!(self.period::<0>(dy, x, &s, &z, b, by_scale, by_zero)),
                1 => widely_vectorised!(self.period::<1>(dy, x, &s, &z, b, by_scale, by_zero)),
                _ => widely_vectorised!(self.period::<2>(dy, x, &s, &z, b, by_scale, by_zero)),
            }
        }
        if count == 0 {
            return;
        }
        let mut run = (at / layout.run - first) % sums.len();
        let mut left = layout.run - at % layout.run;
        for (i, by_scale) in by_scale.iter().enumerate() {
            if left == 0 {
                (run, left) = ((run + 1) % sums.len(), layout.run);
            }
            left -= 1;
            sums[run][0] = sums[run][0].plus(*by_scale);
            if self.zeros {
                sums[run][1] = sums[run][1].plus(by_zero[i]);
            }
        }
    }

    /// Turns `dy`, whose elements each have another position in the pattern, into the gradient by `x`, and adds the first `COUNT`
    /// of the gradients by scale and zero point to the pattern's sums, element by element.
    #[inline(always)]
    fn period<const COUNT: usize>(
        &self,
        dy: &mut [T],
        x: &[T],
        scale: &[T],
        zero: &[T],
        bounds: (T, T),
        by_scale: &mut [T],
        by_zero: &mut [T],
    ) {
        let n = dy.len();
        let (x, scale, zero) = (&x[..n], &scale[..n], &zero[..n]);
        let (to_scale, to_zero) = (&mut by_scale[..if COUNT > 0 { n } else { 0 }], &mut by_zero[..if COUNT > 1 { n } else { 0 }]);
        for i in 0..n {
            let [by_x, by_scale, by_zero] = x[i].held_slopes(bounds, scale[i], zero[i], self.lo, self.hi);
            if COUNT > 0 {
                to_scale[i] = to_scale[i].plus(dy[i].times(by_scale));
            }
            if COUNT > 1 {
                to_zero[i] = to_zero[i].plus(dy[i].times(by_zero));
            }
            dy[i] = dy[i].times(by_x);
        }
    }
}

/// Turns `dy` into the gradient by x and adds the first `COUNT` (1 or 2) of the gradients by scale and zero point to `total`, in
/// interleaved sums.
#[inline(always)]
fn sum_slopes<T: GridFloat, const COUNT: usize>(dy: &mut [T], x: &[T], slopes: impl Fn(T) -> [T; 3], total: &mut [T; 2]) {
    let mut sums = [[T::ZERO; SUMS]; 2];
    let mut add = |dy: &mut [T; SUMS], x: &[T; SUMS]| {
        for k in 0..SUMS {
            let [by_x, by_scale, by_zero] = slopes(x[k]);
            sums[0][k] = sums[0][k].plus(dy[k].times(by_scale));
            if COUNT > 1 {
                sums[1][k] = sums[1][k].plus(dy[k].times(by_zero));
            }
            dy[k] = dy[k].times(by_x);
        }
    };
    let (whole, rest) = dy.as_chunks_mut::<SUMS>();
    let (x_whole, x_rest) = x.as_chunks::<SUMS>();
    whole.iter_mut().zip(x_whole).for_each(|(dy, x)| add(dy, x));
    if !rest.is_empty() {
        // Zeros at the end do not change the sums.
        let (mut last, mut x_last) = ([T::ZERO; SUMS], [T::ZERO; SUMS]);
        last[..rest.len()].copy_from_slice(rest);
        x_last[..rest.len()].copy_from_slice(x_rest);
        add(&mut last, &x_last);
        rest.copy_from_slice(&last[..rest.len()]);
    }
    for (total, sums) in total.iter_mut().zip(&sums).take(COUNT) {
        *total = sums.iter().fold(*total, |a, b| a.plus(*b));
    }
}

impl Tensor {
    /// `(clamp(round_half_even(x / scale) + zero_point, qmin, qmax) - zero_point) * scale`: the result of DequantizeLinear after
    /// QuantizeLinear, to the bit (a division, not a product with the reciprocal).
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
        self.fake_quantize_activated(Activation::None, scale, zero_point, axis, qmin, qmax)
    }

    /// [`Tensor::fake_quantize`] of an activation of `self`, in one pass over memory each way.
    ///
    /// # Errors
    /// As [`Tensor::fake_quantize`].
    pub fn fake_quantize_activated(
        &self,
        activation: Activation,
        scale: &Tensor,
        zero_point: &Tensor,
        axis: Option<usize>,
        qmin: f32,
        qmax: f32,
    ) -> Result<Tensor> {
        let layout = ScaleLayout::of(self, scale, axis)?;
        if zero_point.len() != scale.len() {
            let what = format!("{} scales and {} zero points", scale.len(), zero_point.len());
            return Err(TensorError::shape("fake_quantize", what));
        }
        if qmin.is_nan() || qmax.is_nan() || qmin > qmax {
            return Err(TensorError::value("fake_quantize", format!("the range {qmin} to {qmax} is empty")));
        }
        // The device's kernel has no activation.
        #[cfg(feature = "gpu")]
        if crate::gpu::active() && activation != Activation::None && self.dtype() == crate::DType::F32 {
            return activation.apply(self)?.fake_quantize(scale, zero_point, axis, qmin, qmax);
        }
        with_float!("fake_quantize", self.dtype(), T => {
            let (lo, hi) = (<T as GridFloat>::from_f32(qmin), <T as GridFloat>::from_f32(qmax));
            let (least, most) = activation.bounds();
            let bounds = (activation != Activation::None).then(|| (<T as GridFloat>::from_f32(least), <T as GridFloat>::from_f32(most)));
            let out = device_or!(
                crate::gpu::fake_quantize(self, device_grid(scale, zero_point, layout, (qmin, qmax))),
                forward::<T>(self, bounds, scale, zero_point, layout, lo, hi)?
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
                backward::<T>(&x, bounds, &s, &z, layout, lo, hi, dy, wanted)
            }))
        })
    }

    /// The elements where `mask` is true, zero elsewhere; the gradient is masked in the same way.
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
                let mut out = storage::<T>(crate::memory::room::<T>("apply_mask", self.shape())?);
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
    use proptest::prelude::*;

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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(80))]
        /// One pass over activation and grid against two passes in sequence, with gradients by x, scale and zero point, whatever
        /// the runs' length and whether or not the gradient is shared.
        #[test]
        fn activated_agrees_with_its_parts(
            outer in 1usize..6, channels in 1usize..5, inner in 1usize..6000, per_channel: bool, relu: bool, shared: bool, learned: bool, seed: u64
        ) {
            let activation = if relu { Activation::Relu } else { Activation::Clip { min: -0.5, max: 0.6 } };
            let shape = [outer, channels, inner];
            let x = uniform(seed, &shape, -1.0, 1.0).unwrap();
            let dy = uniform(seed ^ 1, &shape, -1.0, 1.0).unwrap();
            let n = if per_channel { channels } else { 1 };
            let (scale, zero) = (uniform(seed ^ 2, &[n], 0.005, 0.02).unwrap(), Tensor::full(-20f32, [n]).unwrap());
            let axis = per_channel.then_some(1);
            let run = |together: bool| {
                let x = x.tracked().unwrap();
                let leaves = if learned { vec![x.clone(), scale.tracked().unwrap(), zero.tracked().unwrap()] } else { vec![x.clone(), scale.clone(), zero.clone()] };
                let y = match together {
                    true => x.fake_quantize_activated(activation, &leaves[1], &leaves[2], axis, -60.0, 30.0),
                    false => activation.apply(&x).and_then(|x| x.fake_quantize(&leaves[1], &leaves[2], axis, -60.0, 30.0)),
                }.unwrap();
                let own = dy.add_scalar(0.0).unwrap();
                let held = shared.then(|| own.clone());
                let mut gradients = y.backward_from(own).unwrap();
                drop(held);
                // Compared as numbers: where there is no gradient, zero may have either sign.
                let mut out = vec![y.to_f32_vec().unwrap()];
                out.extend(leaves.iter().filter_map(|l| gradients.take(l)).map(|g| g.to_f32_vec().unwrap()));
                out
            };
            let (together, apart) = (run(true), run(false));
            prop_assert_eq!(together.len(), if learned { 4 } else { 2 });
            prop_assert_eq!(together, apart);
        }

        /// Scales along any axis, runs short and long: values and the gradient by x to the bit of a plain loop, those by scale and
        /// zero point near a plain sum in f64, and to the bit of a sum in the order of elements where each scale has one short run.
        #[test]
        fn every_axis_agrees_with_a_plain_loop(
            dims in proptest::array::uniform3(prop_oneof![1usize..8, 8usize..60]), axis in 0usize..3, bounded: bool, seed: u64
        ) {
            let (x, dy) = (uniform(seed, &dims, -1.0, 1.0).unwrap(), uniform(seed ^ 1, &dims, -1.0, 1.0).unwrap());
            let n = dims[axis];
            let (scale, zero) = (uniform(seed ^ 2, &[n], 0.005, 0.02).unwrap(), uniform(seed ^ 3, &[n], -9.0, 9.0).unwrap().round().unwrap());
            let activation = if bounded { Activation::Clip { min: -0.4, max: 0.7 } } else { Activation::None };
            let leaves = [x.tracked().unwrap(), scale.tracked().unwrap(), zero.tracked().unwrap()];
            let y = leaves[0].fake_quantize_activated(activation, &leaves[1], &leaves[2], Some(axis), -60.0, 30.0).unwrap();
            let mut got = y.backward_from(dy.clone()).unwrap();
            let [dx, ds, dz] = leaves.each_ref().map(|l| got.take(l).unwrap().to_f32_vec().unwrap());
            let (y, run) = (y.to_f32_vec().unwrap(), dims[axis + 1..].iter().product::<usize>());
            let (xs, ds_in, s, z) = (x.to_f32_vec().unwrap(), dy.to_f32_vec().unwrap(), scale.to_f32_vec().unwrap(), zero.to_f32_vec().unwrap());
            let (least, most) = activation.bounds();
            let mut sums = vec![[0f64; 2]; n];
            // Summed in pieces, as in the kernel.
            let mut in_order = vec![[0f32; 2]; n];
            for (piece, range) in (0..xs.len()).step_by(CHUNK).map(|at| (at, at..(at + CHUNK).min(xs.len()))) {
                let mut part = vec![[0f32; 2]; n];
                for i in range {
                    let c = i / run % n;
                    let v = xs[i].hold(least, most);
                    prop_assert_eq!(y[i], v.read_back(s[c], z[c], -60.0, 30.0), "value {} of the piece at {}", i, piece);
                    let [by_x, by_scale, by_zero] = v.slopes(s[c], z[c], -60.0, 30.0);
                    let passed = if bounded && !xs[i].is_within(least, most) { 0.0 } else { by_x };
                    prop_assert_eq!(dx[i], ds_in[i] * passed);
                    for (k, by) in [by_scale, by_zero].into_iter().enumerate() {
                        sums[c][k] += f64::from(ds_in[i]) * f64::from(by);
                        part[c][k] += ds_in[i] * by;
                    }
                }
                in_order.iter_mut().zip(&part).for_each(|(all, part)| (0..2).for_each(|k| all[k] += part[k]));
            }
            for (k, got) in [&ds, &dz].into_iter().enumerate() {
                for c in 0..n {
                    let most = 1e-5 * (xs.len() / n) as f64;
                    prop_assert!((f64::from(got[c]) - sums[c][k]).abs() <= most, "channel {} of {}: {} against {}", c, k, got[c], sums[c][k]);
                    if (n > 1 && run < SUMS) && dims[..axis].iter().all(|d| *d == 1) {
                        prop_assert_eq!(got[c], in_order[c][k]);
                    }
                }
            }
        }

        /// The gradient by a scale against a plain sum in f64.
        #[test]
        fn scale_gradients_agree_with_a_plain_sum(outer in 1usize..6, channels in 1usize..5, inner in 1usize..9000, seed: u64) {
            let shape = [outer, channels, inner];
            let x = uniform(seed, &shape, -1.0, 1.0).unwrap();
            let dy = uniform(seed ^ 1, &shape, -1.0, 1.0).unwrap();
            let scale = uniform(seed ^ 2, &[channels], 0.005, 0.02).unwrap();
            let zero = Tensor::full(3f32, [channels]).unwrap();
            let leaf = scale.tracked().unwrap();
            let got = x.fake_quantize(&leaf, &zero, Some(1), -60.0, 30.0).unwrap().backward_from(dy.clone()).unwrap().take(&leaf).unwrap();
            let mut plain = vec![0f64; channels];
            for (i, (x, d)) in x.as_slice::<f32>().unwrap().iter().zip(dy.as_slice::<f32>().unwrap()).enumerate() {
                let c = i / inner % channels;
                let [_, by_scale, _] = x.slopes(scale.as_slice::<f32>().unwrap()[c], 3.0, -60.0, 30.0);
                plain[c] += f64::from(*d) * f64::from(by_scale);
            }
            for (a, b) in got.as_slice::<f32>().unwrap().iter().zip(&plain) {
                prop_assert!((f64::from(*a) - b).abs() < 1e-5 * (inner * outer) as f64, "{} against {}", a, b);
            }
        }
    }
}
