//! Softmax and its logarithm.
use crate::device::on_device;
use crate::elementary::Elementary;
use crate::kernels::simd::vectorised;
use crate::map::rewrite;
use crate::number::with_float;
use crate::parallel::{CHUNK, fill_rows};
use crate::recycle::storage;
use crate::reduce::around;
use crate::{DType, Result, Tensor, record};
use num_traits::Float;

/// Moves an axis to the end, applies `f` to the rows, and moves it back.
fn on_rows(t: &Tensor, axis: usize, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    if axis + 1 == t.rank() {
        return f(t);
    }
    let mut order: Vec<usize> = (0..t.rank()).collect();
    order.swap(axis, t.rank() - 1);
    f(&t.transpose(&order)?)?.transpose(&order)
}

/// Elements that are compared and summed side by side.
const LANES: usize = 16;

#[inline(always)]
fn largest_of<T: Float>(x: &[T]) -> T {
    let (whole, rest) = x.as_chunks::<LANES>();
    let mut lanes = [T::neg_infinity(); LANES];
    whole.iter().for_each(|x| lanes.iter_mut().zip(x).for_each(|(m, x)| *m = if *x > *m { *x } else { *m }));
    lanes.iter().chain(rest).copied().fold(T::neg_infinity(), T::max)
}

#[inline(always)]
fn sum_of<T: Float>(x: &[T]) -> T {
    let mut sums = [T::zero(); LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    whole.iter().for_each(|x| sums.iter_mut().zip(x).for_each(|(s, x)| *s = *s + *x));
    sums.iter().chain(rest).fold(T::zero(), |s, x| s + *x)
}

#[inline(always)]
fn softmax_row<T: Float + Elementary>(x: &[T], y: &mut [T], log: bool) {
    let largest = largest_of(x);
    y.iter_mut().zip(x).for_each(|(y, x)| *y = (*x - largest).exponential());
    let sum = sum_of(y);
    if log {
        let shift = sum.ln();
        y.iter_mut().zip(x).for_each(|(y, x)| *y = *x - largest - shift);
    } else {
        let scale = sum.recip();
        y.iter_mut().for_each(|v| *v = *v * scale);
    }
}

/// The softmax of a row in its place.
#[inline(always)]
pub(crate) fn softmax_in_place<T: Float + Elementary>(x: &mut [T]) {
    let largest = largest_of(x);
    x.iter_mut().for_each(|x| *x = (*x - largest).exponential());
    let scale = sum_of(x).recip();
    x.iter_mut().for_each(|x| *x = *x * scale);
}

fn forward(t: &Tensor, axis: usize, log: bool) -> Result<Tensor> {
    on_rows(t, axis, |t| {
        let width = t.shape().last().copied().unwrap_or(1);
        on_device!(crate::gpu::softmax(t, width, log));
        with_float!("softmax", t.dtype(), T => {
            let x = t.as_slice::<T>()?;
            let mut out = storage::<T>(crate::memory::room::<T>("softmax", t.shape())?);
            fill_rows(&mut out, width, width * 8, &|row, y| {
                vectorised!(softmax_row(&x[row * width..(row + 1) * width], y, log));
            });
            Tensor::new(out, t.shape())
        })
    })
}

impl Tensor {
    /// `e^x` over its sum along an axis.
    ///
    /// # Errors
    /// [`crate::TensorError`] if the axis does not exist or the elements are not floats.
    pub fn softmax(&self, axis: usize) -> Result<Tensor> {
        self.normalized_exponential("softmax", axis, false)
    }

    /// Logarithm of [`Tensor::softmax`], without overflow.
    ///
    /// # Errors
    /// As [`Tensor::softmax`].
    pub fn log_softmax(&self, axis: usize) -> Result<Tensor> {
        self.normalized_exponential("log_softmax", axis, true)
    }

    fn normalized_exponential(&self, name: &'static str, axis: usize, log: bool) -> Result<Tensor> {
        if self.is_half() {
            return self.cast(DType::F32)?.normalized_exponential(name, axis, log)?.cast(self.dtype());
        }
        around(name, self.shape(), axis)?;
        let out = forward(&self.detach(), axis, log)?;
        let y = out.clone();
        Ok(record(name, &[self], out, move |dy| Ok(vec![Some(backward(dy, &y, axis, log)?)])))
    }
}

/// The gradient by the input, from those by the output and the output itself.
fn backward(dy: Tensor, y: &Tensor, axis: usize, log: bool) -> Result<Tensor> {
    if axis + 1 != dy.rank() {
        let mut order: Vec<usize> = (0..dy.rank()).collect();
        order.swap(axis, dy.rank() - 1);
        return backward(dy.transpose(&order)?, &y.transpose(&order)?, order.len() - 1, log)?.transpose(&order);
    }
    if dy.on_device() || y.on_device() {
        let last = [axis];
        if log {
            return dy.sub(&y.exp()?.mul(&dy.sum(&last, true)?)?);
        }
        let weighted = dy.mul(y)?;
        return weighted.sub(&y.mul(&weighted.sum(&last, true)?)?);
    }
    let width = y.shape().last().copied().unwrap_or(1).max(1);
    let rows = (CHUNK / width).max(1);
    with_float!("softmax", y.dtype(), T => {
        let y = y.as_slice::<T>()?;
        let (dx, _) = rewrite(dy, rows * width, |at, piece: &mut [T]| {
            vectorised!(piece.chunks_exact_mut(width).zip(y[at..].chunks_exact(width)).for_each(|(d, y)| backward_row(d, y, log)));
        })?;
        Ok(dx)
    })
}

/// `y * (dy - sum(dy * y))`, or for the logarithm `dy - e^y * sum(dy)`, in place of dy.
#[inline(always)]
pub(crate) fn backward_row<T: Float + Elementary>(d: &mut [T], y: &[T], log: bool) {
    let mut sums = [T::zero(); LANES];
    let ((whole, rest), (y_whole, y_rest)) = (d.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let add = |s: &mut T, (d, y): (&T, &T)| *s = *s + if log { *d } else { *d * *y };
    for (d, y) in whole.iter().zip(y_whole) {
        sums.iter_mut().zip(d.iter().zip(y)).for_each(|(s, pair)| add(s, pair));
    }
    sums.iter_mut().zip(rest.iter().zip(y_rest)).for_each(|(s, pair)| add(s, pair));
    let total = sums.iter().fold(T::zero(), |a, b| a + *b);
    if log {
        d.iter_mut().zip(y).for_each(|(d, y)| *d = *d - y.exponential() * total);
    } else {
        d.iter_mut().zip(y).for_each(|(d, y)| *d = *y * (*d - total));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::{uniform, uniform_f64};
    use proptest::prelude::*;

    #[test]
    fn gradients_along_every_axis() {
        let x = [uniform_f64(1, &[3, 4, 2], -2.0, 2.0)];
        for axis in 0..3 {
            check(&x, |t| t[0].softmax(axis)).unwrap();
            check(&x, |t| t[0].log_softmax(axis)).unwrap();
        }
    }

    #[test]
    fn large_inputs_do_not_overflow() {
        let x = Tensor::vector(vec![1e4f32, 1e4 - 1.0]);
        let y = x.softmax(0).unwrap();
        assert!((y.as_slice::<f32>().unwrap()[0] - 0.731_058_6).abs() < 1e-6);
        assert!((x.log_softmax(0).unwrap().as_slice::<f32>().unwrap()[1] + 1.313_261_7).abs() < 1e-6);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        /// f32 against f64, values and gradients, on rows of odd lengths and along any axis.
        #[test]
        fn f32_agrees_with_f64(n in 1usize..40, width in 1usize..150, inner in 1usize..4, log: bool, seed: u64) {
            let x = uniform(seed, &[n, width, inner], -4.0, 4.0).unwrap();
            let dy = uniform(seed ^ 1, &[n, width, inner], -1.0, 1.0).unwrap();
            let run = |dtype: DType| {
                let leaf = x.cast(dtype).unwrap().tracked().unwrap();
                let y = if log { leaf.log_softmax(1) } else { leaf.softmax(1) }.unwrap();
                let dx = y.backward_from(dy.cast(dtype).unwrap()).unwrap().take(&leaf).unwrap();
                [y.to_f64_vec().unwrap(), dx.to_f64_vec().unwrap()].concat()
            };
            for (a, b) in run(DType::F32).iter().zip(run(DType::F64)) { prop_assert!((a - b).abs() < 2e-5 * b.abs().max(1.0), "{} against {}", a, b); }
        }
    }
}
