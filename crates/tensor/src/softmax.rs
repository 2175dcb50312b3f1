//! Softmax and its logarithm.
use crate::device::on_device;
use crate::elementary::Elementary;
use crate::kernels::simd::vectorised;
use crate::number::with_float;
use crate::parallel::fill_rows;
use crate::recycle::storage;
use crate::reduce::around;
use crate::{DType, Result, Tensor, record};
use num_traits::Float;

/// Brings an axis to the last place, applies `f` to the rows, and brings it back.
fn on_rows(t: &Tensor, axis: usize, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    if axis + 1 == t.rank() {
        return f(t);
    }
    let mut order: Vec<usize> = (0..t.rank()).collect();
    order.swap(axis, t.rank() - 1);
    f(&t.transpose(&order)?)?.transpose(&order)
}

#[inline(always)]
fn softmax_row<T: Float + Elementary>(x: &[T], y: &mut [T], log: bool) {
    const LANES: usize = 16;
    let (whole, rest) = x.as_chunks::<LANES>();
    let mut lanes = [T::neg_infinity(); LANES];
    whole.iter().for_each(|x| lanes.iter_mut().zip(x).for_each(|(m, x)| *m = if *x > *m { *x } else { *m }));
    let largest = lanes.iter().chain(rest).copied().fold(T::neg_infinity(), T::max);
    y.iter_mut().zip(x).for_each(|(y, x)| *y = (*x - largest).exponential());
    let mut sums = [T::zero(); LANES];
    let (whole, rest) = y.as_chunks::<LANES>();
    whole.iter().for_each(|y| sums.iter_mut().zip(y).for_each(|(s, y)| *s = *s + *y));
    let sum = sums.iter().chain(rest).fold(T::zero(), |s, y| s + *y);
    if log {
        let shift = sum.ln();
        y.iter_mut().zip(x).for_each(|(y, x)| *y = *x - largest - shift);
    } else {
        let scale = sum.recip();
        y.iter_mut().for_each(|v| *v = *v * scale);
    }
}

fn forward(t: &Tensor, axis: usize, log: bool) -> Result<Tensor> {
    on_rows(t, axis, |t| {
        let width = t.shape().last().copied().unwrap_or(1);
        on_device!(crate::gpu::softmax(t, width, log));
        with_float!("softmax", t.dtype(), T => {
            let x = t.as_slice::<T>()?;
            let mut out = storage::<T>(x.len());
            fill_rows(&mut out, width, width * 8, &|row, y| {
                vectorised(|| softmax_row(&x[row * width..(row + 1) * width], y, log));
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
        Ok(record(name, &[self], out, move |dy| {
            let dx = match log {
                true => dy.sub(&y.exp()?.mul(&dy.sum(&[axis], true)?)?)?,
                false => {
                    let weighted = dy.mul(&y)?;
                    let total = weighted.sum(&[axis], true)?;
                    weighted.sub(&y.mul(&total)?)?
                }
            };
            Ok(vec![Some(dx)])
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::uniform_f64;

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
}
