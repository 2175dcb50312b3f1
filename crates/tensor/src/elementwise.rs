//! Arithmetic on two tensors, broadcast as NumPy does.
use crate::device::on_device;
use crate::map::{zip, zip_onto};
use crate::number::{Number, with_float, with_number};
use crate::{DType, Result, Tensor, TensorError, record};

fn same_dtype(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dtype() == b.dtype() {
        return Ok(());
    }
    Err(TensorError::dtype(op, b.dtype(), format!("where the other operand has {}", a.dtype())))
}

/// Computes in f32 on 16-bit floats and rounds the result back.
pub(crate) fn in_f32<const N: usize>(inputs: [&Tensor; N], f: impl FnOnce([Tensor; N]) -> Result<Tensor>) -> Result<Tensor> {
    let dtype = inputs.first().map_or(DType::F32, |t| t.dtype());
    let mut wide = inputs.map(Tensor::clone);
    for t in &mut wide {
        *t = t.cast(DType::F32)?;
    }
    f(wide)?.cast(dtype)
}

macro_rules! kernel {
    ($name:ident, $op:literal, $with:ident, $f:expr) => {
        fn $name(a: &Tensor, b: &Tensor) -> Result<Tensor> {
            same_dtype($op, a, b)?;
            if a.is_half() {
                return in_f32([&a.detach(), &b.detach()], |[a, b]| $name(&a, &b));
            }
            on_device!(crate::gpu::binary(stringify!($name), a, b));
            $with!($op, a.dtype(), T => zip::<T, T, T>($op, a, b, $f))
        }
    };
}
kernel!(add_values, "add", with_number, T::plus);
kernel!(sub_values, "sub", with_number, T::minus);
kernel!(mul_values, "mul", with_number, T::times);
kernel!(div_values, "div", with_number, T::over);
kernel!(pow_values, "pow", with_number, T::power);
kernel!(min_values, "min", with_number, T::smaller);
kernel!(max_values, "max", with_number, T::larger);
kernel!(fmod_values, "modulo", with_number, T::remainder);
kernel!(modulo_values, "modulo", with_number, T::modulo);
// Derivatives of a^b by a and by b. A base of zero or less has no real logarithm: its exponent gets no gradient.
// At a base of zero the slope of an exponent below one, which is infinite, counts as zero (as that of the square root).
kernel!(pow_by_base, "pow", with_float, |a: T, b: T| if b == 0.0 || a == 0.0 && b < 1.0 { 0.0 } else { b * a.powf(b - 1.0) });
kernel!(pow_by_exponent, "pow", with_float, |a: T, b: T| if a > 0.0 { a.powf(b) * a.ln() } else { 0.0 });
// Share of the gradient for the first of two operands: a tie is split evenly.
kernel!(share_of_larger, "max", with_float, |a: T, b: T| if a > b {
    1.0
} else if a == b {
    0.5
} else {
    0.0
});

fn refuse_zero_divisor(op: &'static str, b: &Tensor) -> Result<()> {
    if !b.dtype().is_int() {
        return Ok(());
    }
    with_number!(op, b.dtype(), T => match b.as_slice::<T>()?.iter().position(|v| *v == T::ZERO) {
        Some(i) => Err(TensorError::value(op, format!("integer division by zero: element {i} of the divisor"))),
        None => Ok(()),
    })
}

impl Tensor {
    /// True for f16 and bf16, whose arithmetic goes through f32.
    pub(crate) fn is_half(&self) -> bool {
        matches!(self.dtype(), DType::F16 | DType::BF16)
    }

    /// Records a broadcasting operation of two inputs; `by_a` and `by_b` turn the gradient of the output into those by
    /// each input in the output's shape.
    fn record_binary(
        name: &'static str,
        a: &Tensor,
        b: &Tensor,
        out: Tensor,
        by_a: impl FnOnce(Tensor) -> Result<Tensor> + Send + 'static,
        by_b: impl FnOnce(Tensor) -> Result<Tensor> + Send + 'static,
    ) -> Tensor {
        let shape_a = a.is_tracked().then(|| a.shape().to_vec());
        let shape_b = b.is_tracked().then(|| b.shape().to_vec());
        record(name, &[a, b], out, move |dy| {
            // The last user of the gradient gets it without a copy.
            let Some(shape_b) = shape_b else { return Ok(vec![shape_a.map(|s| by_a(dy)?.sum_to(&s)).transpose()?, None]) };
            let da = shape_a.map(|s| by_a(dy.clone())?.sum_to(&s)).transpose()?;
            Ok(vec![da, Some(by_b(dy)?.sum_to(&shape_b)?)])
        })
    }

    /// Sum.
    ///
    /// # Errors
    /// [`TensorError`] if the types differ or have no arithmetic, or the shapes do not broadcast (so for all below).
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        let out = add_values(self, other)?;
        Ok(Self::record_binary("add", self, other, out, Ok, Ok))
    }

    /// [`Tensor::add`] in the storage of either operand, if it has the result's shape and no other reference.
    pub fn add_owned(mut self, mut other: Tensor) -> Result<Tensor> {
        same_dtype("add", &self, &other)?;
        let to = crate::shape::broadcast("add", self.shape(), other.shape())?;
        let (onto_self, onto_other) = (self.shape() == to, other.shape() == to);
        if self.on_device() || other.on_device() {
            return self.add(&other);
        }
        if self.dtype() != DType::F32 || !(onto_self && self.unshared::<f32>().is_some() || onto_other && other.unshared::<f32>().is_some())
        {
            return self.add(&other);
        }
        let (a, b) = (self.stand_in(), other.stand_in());
        let out = match onto_self && self.unshared::<f32>().is_some() {
            true => zip_onto("add", self, &other, f32::plus)?,
            false => zip_onto("add", other, &self, f32::plus)?,
        };
        Ok(Self::record_binary("add", &a, &b, out, Ok, Ok))
    }

    /// Difference.
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        let out = sub_values(self, other)?;
        Ok(Self::record_binary("sub", self, other, out, Ok, |dy| dy.neg()))
    }

    /// Product.
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        let out = mul_values(self, other)?;
        // Each closure keeps the other operand, and only if its own gradient is needed.
        let a = other.is_tracked().then(|| self.detach());
        let b = self.is_tracked().then(|| other.detach());
        let times = |dy: Tensor, t: Option<Tensor>| match t {
            Some(t) if dy.dtype() == DType::F32 && !dy.on_device() && !t.on_device() => zip_onto("mul", dy, &t, f32::times),
            Some(t) => dy.mul(&t),
            None => Ok(dy),
        };
        Ok(Self::record_binary("mul", self, other, out, move |dy| times(dy, b), move |dy| times(dy, a)))
    }

    /// Quotient; integers truncate towards zero.
    ///
    /// # Errors
    /// As [`Tensor::add`], and [`TensorError::Value`] on integer division by zero.
    pub fn div(&self, other: &Tensor) -> Result<Tensor> {
        refuse_zero_divisor("div", other)?;
        let out = div_values(self, other)?;
        let (b, b2, y) = (other.detach(), other.detach(), out.clone());
        let by_b = move |dy: Tensor| dy.mul(&y)?.div(&b2)?.neg();
        Ok(Self::record_binary("div", self, other, out, move |dy| dy.div(&b), by_b))
    }

    /// `self` to the power `exponent`. If the base is zero or less, the exponent gets no gradient; if it is zero and the exponent
    /// is below one, the base gets none.
    pub fn pow(&self, exponent: &Tensor) -> Result<Tensor> {
        let out = pow_values(self, exponent)?;
        let (a, b) = (self.detach(), exponent.detach());
        let (a2, b2) = (a.clone(), b.clone());
        let by_a = move |dy: Tensor| dy.mul(&pow_by_base(&a, &b)?);
        let by_b = move |dy: Tensor| dy.mul(&pow_by_exponent(&a2, &b2)?);
        Ok(Self::record_binary("pow", self, exponent, out, by_a, by_b))
    }

    /// The larger of each pair; NaN if either is NaN. The gradient of a tie is split evenly.
    pub fn max(&self, other: &Tensor) -> Result<Tensor> {
        let out = max_values(self, other)?;
        Ok(Self::record_choice("max", self, other, out, self, other))
    }

    /// The smaller of each pair; NaN if either is NaN. The gradient of a tie is split evenly.
    pub fn min(&self, other: &Tensor) -> Result<Tensor> {
        let out = min_values(self, other)?;
        // The smaller of a and b gets the share that the larger would get with the roles swapped.
        Ok(Self::record_choice("min", self, other, out, other, self))
    }

    fn record_choice(name: &'static str, a: &Tensor, b: &Tensor, out: Tensor, first: &Tensor, second: &Tensor) -> Tensor {
        let (f, s) = (first.detach(), second.detach());
        let (f2, s2) = (f.clone(), s.clone());
        let by_a = move |dy: Tensor| dy.mul(&share_of_larger(&f, &s)?);
        let by_b = move |dy: Tensor| dy.mul(&share_of_larger(&s2, &f2)?);
        Self::record_binary(name, a, b, out, by_a, by_b)
    }

    /// Remainder: with the dividend's sign (C's `fmod`) or with the divisor's (Python's `%`).
    ///
    /// # Errors
    /// As [`Tensor::div`].
    pub fn modulo(&self, divisor: &Tensor, fmod: bool) -> Result<Tensor> {
        refuse_zero_divisor("modulo", divisor)?;
        let out = if fmod { fmod_values(self, divisor)? } else { modulo_values(self, divisor)? };
        let (a, b) = (self.detach(), divisor.detach());
        let by_b = move |dy: Tensor| {
            let quotient = a.div(&b)?;
            let whole = if fmod { quotient.trunc()? } else { quotient.floor()? };
            dy.mul(&whole)?.neg()
        };
        Ok(Self::record_binary("modulo", self, divisor, out, Ok, by_b))
    }

    /// A rank-0 tensor of this tensor's type.
    ///
    /// # Errors
    /// [`TensorError::DType`] if the type is not numeric.
    pub fn scalar_like(&self, value: f64) -> Result<Tensor> {
        Tensor::scalar(value).cast(self.dtype())
    }

    /// Adds a number to every element.
    pub fn add_scalar(&self, value: f64) -> Result<Tensor> {
        self.add(&self.scalar_like(value)?)
    }

    /// Multiplies every element by a number.
    pub fn mul_scalar(&self, value: f64) -> Result<Tensor> {
        self.mul(&self.scalar_like(value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::uniform_f64;

    #[test]
    fn gradients_of_broadcasting_binary_operations() {
        let a = uniform_f64(1, &[2, 3, 4], 0.5, 2.0);
        for shape in [vec![2, 3, 4], vec![3, 1], vec![], vec![1, 4]] {
            let b = uniform_f64(2, &shape, 0.6, 1.7);
            let both = [a.clone(), b];
            check(&both, |t| t[0].add(&t[1])).unwrap();
            check(&both, |t| t[1].sub(&t[0])).unwrap();
            check(&both, |t| t[0].mul(&t[1])).unwrap();
            check(&both, |t| t[0].div(&t[1])).unwrap();
            check(&both, |t| t[0].pow(&t[1])).unwrap();
            check(&both, |t| t[0].max(&t[1])).unwrap();
            check(&both, |t| t[1].min(&t[0])).unwrap();
            check(&both, |t| t[0].modulo(&t[1], true)).unwrap();
        }
    }

    #[test]
    fn integers_wrap_and_refuse_division_by_zero() {
        let a = Tensor::vector(vec![i32::MIN, 7, -7]);
        let b = Tensor::vector(vec![-1, 2, 2]);
        assert_eq!(a.div(&b).unwrap(), Tensor::vector(vec![i32::MIN, 3, -3]));
        assert_eq!(a.modulo(&b, false).unwrap(), Tensor::vector(vec![0, 1, 1]));
        assert_eq!(a.modulo(&b, true).unwrap(), Tensor::vector(vec![0, 1, -1]));
        assert!(a.div(&Tensor::vector(vec![1, 0, 1])).is_err());
        assert_eq!(Tensor::vector(vec![3i64, -2]).pow(&Tensor::vector(vec![4i64, 3])).unwrap(), Tensor::vector(vec![81i64, -8]));
    }

    #[test]
    fn large_broadcasts_equal_small_ones() {
        let a = Tensor::new((0..4 * 3 * 70 * 91).map(|i| i as f32).collect(), [4, 3, 70, 91]).unwrap();
        let b = Tensor::new(vec![1f32, 2.0, 3.0], [3, 1, 1]).unwrap();
        let y = a.mul(&b).unwrap();
        let y = y.as_slice::<f32>().unwrap();
        assert!((0..a.len()).all(|i| y[i] == i as f32 * ((i / (70 * 91)) % 3 + 1) as f32));
    }
}
