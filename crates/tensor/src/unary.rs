//! Functions of one element: elementary functions, trigonometry, rounding.
use crate::device::{device_or, on_device};
use crate::elementary::Elementary;
use crate::kernels::simd::vectorised;
use crate::map::{map, rewrite, zip_onto};
use crate::number::{Number, with_float, with_number};
use crate::parallel::CHUNK;
use crate::{DType, Result, Tensor, record};

/// Defines methods that apply a differentiable function to each element, written once for f32 and f64 (`T`); 16-bit floats are
/// computed in f32. The slope is given in terms of the input (`by input`) or of the output (`by output`): the backward pass keeps
/// only that one.
macro_rules! differentiable {
    ($( $(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) = |$x:ident| $value:expr, slope by $kept:ident |$s:ident| $slope:expr; )*) => {
        impl $crate::Tensor {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`TensorError::DType`](crate::TensorError::DType) if the elements are not floats.
            pub fn $name(&self, $($arg: $ty),*) -> $crate::Result<$crate::Tensor> {
                if self.is_half() {
                    return self.cast($crate::DType::F32)?.$name($($arg),*)?.cast(self.dtype());
                }
                let name = stringify!($name);
                #[allow(clippy::unnecessary_cast)]
                let output = $crate::device::device_or!(
                    $crate::gpu::unary(name, &[$($arg),*], self),
                    with_float!(name, self.dtype(), T => map(self, |$x: T| -> T { $value }))?
                );
                let kept = differentiable!(@keep $kept self output);
                Ok($crate::record(name, &[self], output, move |dy| {
                    #[allow(clippy::unnecessary_cast)]
                    let dx = $crate::device::device_or!(
                        $crate::gpu::slope(name, &[$($arg),*], &kept, &dy),
                        with_float!(name, dy.dtype(), T => zip_onto(name, dy, &kept, |dy: T, $s: T| -> T { ($slope) * dy }))?
                    );
                    Ok(vec![Some(dx)])
                }))
            }
        )*}
    };
    (@keep input $input:ident $output:ident) => { $input.detach() };
    (@keep output $input:ident $output:ident) => { $output.clone() };
}
pub(crate) use differentiable;

differentiable! {
    /// Square root. Its slope at zero, which is infinite, counts as zero: an argument that quantization rounds to zero, or a norm
    /// of zeros, gets no gradient instead of ending the training.
    sqrt() = |x| x.sqrt(), slope by output |y| if y == 0.0 { 0.0 } else { 0.5 / y };
    /// `e` to the power of each element.
    exp() = |x| x.exp(), slope by output |y| y;
    /// Natural logarithm.
    log() = |x| x.ln(), slope by input |x| 1.0 / x;
    /// Sine.
    sin() = |x| x.sin(), slope by input |x| x.cos();
    /// Cosine.
    cos() = |x| x.cos(), slope by input |x| -x.sin();
    /// Tangent.
    tan() = |x| x.tan(), slope by output |y| 1.0 + y * y;
    /// Inverse sine. Its slope at -1 and 1, which is infinite, counts as zero.
    asin() = |x| x.asin(), slope by input |x| if x * x == 1.0 { 0.0 } else { 1.0 / (1.0 - x * x).sqrt() };
    /// Inverse cosine. Its slope at -1 and 1, which is infinite, counts as zero.
    acos() = |x| x.acos(), slope by input |x| if x * x == 1.0 { 0.0 } else { -1.0 / (1.0 - x * x).sqrt() };
    /// Inverse tangent.
    atan() = |x| x.atan(), slope by input |x| 1.0 / (1.0 + x * x);
    /// Hyperbolic sine.
    sinh() = |x| x.sinh(), slope by input |x| x.cosh();
    /// Hyperbolic cosine.
    cosh() = |x| x.cosh(), slope by input |x| x.sinh();
    /// Hyperbolic tangent.
    tanh() = |x| x.tanh(), slope by output |y| 1.0 - y * y;
    /// Inverse hyperbolic sine.
    asinh() = |x| x.asinh(), slope by input |x| 1.0 / (x * x + 1.0).sqrt();
    /// Inverse hyperbolic cosine. Its slope at 1, which is infinite, counts as zero.
    acosh() = |x| x.acosh(), slope by input |x| if x * x == 1.0 { 0.0 } else { 1.0 / (x * x - 1.0).sqrt() };
    /// Inverse hyperbolic tangent.
    atanh() = |x| x.atanh(), slope by input |x| 1.0 / (1.0 - x * x);
    /// Gauss error function.
    erf() = |x| x.gauss_error(), slope by input |x| (-x * x).exponential() * std::f64::consts::FRAC_2_SQRT_PI as T;
    /// Reciprocal (1 / x) of each element.
    reciprocal() = |x| 1.0 / x, slope by output |y| -y * y;
    /// Largest integer not above each element.
    floor() = |x| x.floor(), slope by input |_x| 0.0;
    /// Smallest integer not below each element.
    ceil() = |x| x.ceil(), slope by input |_x| 0.0;
    /// Each element without its fraction.
    trunc() = |x| x.trunc(), slope by input |_x| 0.0;
    /// Nearest integer; halves go to the even one.
    round() = |x| x.round_ties_even(), slope by input |_x| 0.0;
}

/// Applies a function that is also defined for integers.
macro_rules! any_number {
    ($t:expr, $op:literal, $f:expr) => {
        device_or!(crate::gpu::unary($op, &[], $t), with_number!($op, $t.dtype(), T => map($t, $f))?)
    };
}

/// An element clipped to two bounds; NaN stays NaN.
fn hold<T: Number>(min: Option<f64>, max: Option<f64>) -> impl Fn(T) -> T + Copy + Sync {
    let low = min.map_or(T::LOWEST, T::from_f64);
    let high = max.map_or(T::HIGHEST, T::from_f64);
    move |x| {
        let x = if x < low { low } else { x };
        if x > high { high } else { x }
    }
}

/// Both bounds as the device's kernels take them.
#[cfg(feature = "gpu")]
fn bounds(min: Option<f64>, max: Option<f64>) -> [f64; 2] {
    [min.unwrap_or(f64::NEG_INFINITY), max.unwrap_or(f64::INFINITY)]
}

/// The output alone tells where the gradient passes: strictly between the bounds.
fn record_clip(x: &Tensor, out: Tensor, min: Option<f64>, max: Option<f64>) -> Tensor {
    let y = out.clone();
    record("clip", &[x], out, move |dy| {
        on_device!(crate::gpu::slope("clip", &bounds(min, max), &y, &dy).map(|dx| dx.map(|dx| vec![Some(dx)])));
        let dx = with_float!("clip", dy.dtype(), T => {
            let low = min.map_or(T::LOWEST, T::from_f64);
            let high = max.map_or(T::HIGHEST, T::from_f64);
            zip_onto("clip", dy, &y, move |dy: T, y: T| if y > low && y < high { dy } else { 0.0 })
        })?;
        Ok(vec![Some(dx)])
    })
}

impl Tensor {
    /// Each element with its sign changed; integers wrap.
    ///
    /// # Errors
    /// [`TensorError::DType`](crate::TensorError::DType) if the type has no arithmetic (so for all below).
    pub fn neg(&self) -> Result<Tensor> {
        if self.is_half() {
            return self.cast(DType::F32)?.neg()?.cast(self.dtype());
        }
        let out = any_number!(self, "neg", T::negated);
        Ok(record("neg", &[self], out, |dy| Ok(vec![Some(dy.neg()?)])))
    }

    /// Magnitude; integers wrap. The slope at zero is zero.
    pub fn abs(&self) -> Result<Tensor> {
        if self.is_half() {
            return self.cast(DType::F32)?.abs()?.cast(self.dtype());
        }
        let out = any_number!(self, "abs", T::magnitude);
        let x = self.detach();
        Ok(record("abs", &[self], out, move |dy| Ok(vec![Some(dy.mul(&x.sign()?)?)])))
    }

    /// -1, 0 or 1 by the sign of each element; NaN of NaN. Its slope is zero.
    pub fn sign(&self) -> Result<Tensor> {
        if self.is_half() {
            return self.cast(DType::F32)?.sign()?.cast(self.dtype());
        }
        let out = any_number!(self, "sign", <T as Number>::signum);
        Ok(record("sign", &[self], out, |dy| Ok(vec![Some(dy.zeros_like()?)])))
    }

    /// Each element or zero, whichever is larger.
    pub fn relu(&self) -> Result<Tensor> {
        self.clip(Some(0.0), None)
    }

    /// Each element clipped to two bounds. Outside and on them the gradient is zero.
    pub fn clip(&self, min: Option<f64>, max: Option<f64>) -> Result<Tensor> {
        if self.is_half() {
            return self.cast(DType::F32)?.clip(min, max)?.cast(self.dtype());
        }
        let out = device_or!(
            crate::gpu::unary("clip", &bounds(min, max), self),
            with_number!("clip", self.dtype(), T => {
                let hold = hold(min, max);
                map(self, move |x: T| hold(x))
            })?
        );
        Ok(record_clip(self, out, min, max))
    }

    /// [`Tensor::clip`] in this tensor's own storage, if there is no other reference.
    pub fn clip_owned(self, min: Option<f64>, max: Option<f64>) -> Result<Tensor> {
        if self.is_half() || self.on_device() {
            return self.clip(min, max);
        }
        let input = self.stand_in();
        let out = with_number!("clip", self.dtype(), T => {
            let hold = hold::<T>(min, max);
            rewrite(self, CHUNK, |_, piece: &mut [T]| vectorised!(piece.iter_mut().for_each(|v| *v = hold(*v))))
        })?;
        Ok(record_clip(&input, out.0, min, max))
    }

    /// A tensor of zeros of this tensor's type and shape.
    ///
    /// # Errors
    /// [`TensorError::DType`](crate::TensorError::DType) if the type is not numeric.
    pub fn zeros_like(&self) -> Result<Tensor> {
        Tensor::zeros(self.dtype(), self.shape())
    }

    /// A tensor of zeros (of empty strings, of `false`).
    ///
    /// # Errors
    /// [`TensorError::Shape`](crate::TensorError::Shape) if the element count overflows.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Tensor> {
        use std::sync::Arc;
        macro_rules! zeros {
            ($($variant:ident: $($dtype:ident)|+ => $zero:expr),*) => {
                match dtype {
                    $($(DType::$dtype)|+ => {
                        // The variant gives the type of the zero.
                        let zero = [$zero];
                        let n = crate::memory::room_of("zeros", crate::memory::of_each(&zero), shape)?;
                        let [zero] = zero;
                        crate::Buffer::$variant(Arc::new(vec![zero; n]))
                    })*
                }
            };
        }
        let buffer = zeros! {
            F32: F32 => 0.0, F64: F64 => 0.0, F16: F16 => half::f16::ZERO, BF16: BF16 => half::bf16::ZERO,
            I8: I8 | I4 | I2 => 0, I16: I16 => 0, I32: I32 => 0, I64: I64 => 0,
            U8: U8 | U4 | U2 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1 => 0,
            U16: U16 => 0, U32: U32 => 0, U64: U64 => 0,
            Bool: Bool => false, String: String => String::new(), C64: C64 => [0.0; 2], C128: C128 => [0.0; 2]
        };
        Tensor::from_buffer(dtype, buffer, shape)
    }

    /// A tensor of ones of this tensor's type and shape.
    ///
    /// # Errors
    /// [`TensorError::DType`](crate::TensorError::DType) if the type is not numeric.
    pub fn ones_like(&self) -> Result<Tensor> {
        self.scalar_like(1.0)?.expand(self.shape())
    }

    /// True where an element is NaN.
    pub fn isnan(&self) -> Result<Tensor> {
        if self.is_half() {
            return self.cast(DType::F32)?.isnan();
        }
        on_device!(crate::gpu::test("is_nan(x)", self));
        with_float!("isnan", self.dtype(), T => map(self, T::is_nan))
    }

    /// True where an element is infinite, of the signs asked for.
    pub fn isinf(&self, positive: bool, negative: bool) -> Result<Tensor> {
        if self.is_half() {
            return self.cast(DType::F32)?.isinf(positive, negative);
        }
        on_device!(crate::gpu::test(&format!("is_infinite(x) && ((x > 0.0 && {positive}) || (x < 0.0 && {negative}))"), self));
        with_float!("isinf", self.dtype(), T => map(self, move |x: T| (positive && x == T::INFINITY) || (negative && x == T::NEG_INFINITY)))
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::gradcheck::check;
    use crate::random::uniform_f64;

    #[test]
    fn zero_has_no_sign() {
        let x = Tensor::vector(vec![-2f32, -0.0, 0.0, 3.0]);
        assert_eq!(x.sign().unwrap().to_f32_vec().unwrap(), [-1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn gradients_of_unary_functions() {
        type F = fn(&Tensor) -> crate::Result<Tensor>;
        let anywhere: &[F] = &[
            Tensor::exp,
            Tensor::sin,
            Tensor::cos,
            Tensor::atan,
            Tensor::sinh,
            Tensor::cosh,
            Tensor::tanh,
            Tensor::asinh,
            Tensor::erf,
            Tensor::neg,
            Tensor::abs,
            Tensor::relu,
            Tensor::sign,
            |t| t.clip(Some(-0.4), Some(0.55)),
        ];
        let inside: &[F] = &[Tensor::tan, Tensor::asin, Tensor::acos, Tensor::atanh, Tensor::sqrt, Tensor::log, Tensor::reciprocal];
        for f in anywhere {
            check(&[uniform_f64(3, &[17], -1.5, 1.5)], |t| f(&t[0])).unwrap();
        }
        for f in inside {
            check(&[uniform_f64(4, &[17], 0.1, 0.9)], |t| f(&t[0])).unwrap();
        }
        check(&[uniform_f64(5, &[17], 1.2, 3.0)], |t| t[0].acosh()).unwrap();
    }

    #[test]
    fn an_infinite_slope_counts_as_zero() {
        type F = fn(&Tensor) -> crate::Result<Tensor>;
        let all: [(F, &[f32], &[f32]); 7] = [
            (Tensor::sqrt, &[0.0, -0.0, 4.0], &[0.0, 0.0, 0.25]),
            (Tensor::asin, &[1.0, -1.0, 0.0], &[0.0, 0.0, 1.0]),
            (Tensor::acos, &[1.0, -1.0, 0.0], &[0.0, 0.0, -1.0]),
            (Tensor::acosh, &[1.0], &[0.0]),
            (|x| x.pow(&Tensor::scalar(0.5f32)), &[0.0, 4.0], &[0.0, 0.25]),
            (|x| x.l2(&[0], false), &[0.0, 0.0], &[0.0, 0.0]),
            (|x| x.pow(&Tensor::scalar(1f32)), &[0.0, 4.0], &[1.0, 1.0]),
        ];
        for (i, (f, at, expected)) in all.into_iter().enumerate() {
            let x = Tensor::vector(at.to_vec()).tracked().unwrap();
            let y = f(&x).unwrap();
            let dx = y.backward_from(Tensor::full(1f32, y.shape()).unwrap()).unwrap().take(&x).unwrap();
            assert_eq!(dx.to_f32_vec().unwrap(), expected, "function {i}");
        }
        // Where there is no real value, there is no slope.
        let x = Tensor::vector(vec![-1f32]).tracked().unwrap();
        let y = x.sqrt().unwrap();
        assert!(y.backward_from(Tensor::vector(vec![1f32])).unwrap().take(&x).unwrap().to_f32_vec().unwrap()[0].is_nan());
    }

    #[test]
    fn halves_round_to_even_and_sixteen_bits_go_through_f32() {
        let x = Tensor::vector(vec![0.5f32, 1.5, -2.5, 2.4]);
        assert_eq!(x.round().unwrap(), Tensor::vector(vec![0.0f32, 2.0, -2.0, 2.0]));
        let h = Tensor::vector(vec![half::f16::from_f32(2.0)]);
        assert_eq!(h.exp().unwrap(), Tensor::vector(vec![half::f16::from_f32(2f32.exp())]));
    }
}
