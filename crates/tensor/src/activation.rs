//! Activation functions.
use crate::elementary::Elementary;
use crate::map::{map, zip_onto};
use crate::number::with_float;
use crate::unary::differentiable;
use crate::{Result, Tensor};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, SQRT_2};

/// The logistic function, without overflow on either side.
macro_rules! logistic {
    ($x:expr) => {{
        let x = $x;
        let e = (-x.abs()).exponential();
        if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
    }};
}
macro_rules! softplus {
    ($x:ident) => {
        ($x.max(0.0) + (-$x.abs()).exp().ln_1p())
    };
}
macro_rules! normal_cdf {
    ($x:ident, $T:ident) => {
        (0.5 * (1.0 + ($x * FRAC_1_SQRT_2 as $T).gauss_error()))
    };
}
macro_rules! gelu_inner {
    ($x:ident, $T:ident) => {
        ((0.5 * SQRT_2 * FRAC_2_SQRT_PI) as $T * ($x + 0.044715 * $x * $x * $x))
    };
}

differentiable! {
    /// Logistic function `1 / (1 + e^-x)`.
    sigmoid() = |x| logistic!(x), slope by output |y| y * (1.0 - y);
    /// `x` above zero, `alpha x` below.
    leaky_relu(alpha: f64) = |x| if x < 0.0 { x * alpha as T } else { x }, slope by input |x| if x < 0.0 { alpha as T } else { 1.0 };
    /// `x` above zero, `alpha (e^x - 1)` below.
    elu(alpha: f64) = |x| if x < 0.0 { x.exp_m1() * alpha as T } else { x },
        slope by input |x| if x < 0.0 { x.exp() * alpha as T } else { 1.0 };
    /// `gamma x` above zero, `gamma alpha (e^x - 1)` below.
    selu(alpha: f64, gamma: f64) = |x| if x > 0.0 { x * gamma as T } else { x.exp_m1() * (alpha * gamma) as T },
        slope by input |x| if x > 0.0 { gamma as T } else { x.exp() * (alpha * gamma) as T };
    /// `x` above zero, `alpha (e^(x / alpha) - 1)` below.
    celu(alpha: f64) = |x| if x < 0.0 { (x / alpha as T).exp_m1() * alpha as T } else { x },
        slope by input |x| if x < 0.0 { (x / alpha as T).exp() } else { 1.0 };
    /// `alpha x + beta`, clipped to 0..1.
    hard_sigmoid(alpha: f64, beta: f64) = |x| (x * alpha as T + beta as T).clamp(0.0, 1.0),
        slope by output |y| if y > 0.0 && y < 1.0 { alpha as T } else { 0.0 };
    /// `x` times the hard sigmoid of slope 1/6 and offset 1/2.
    hard_swish() = |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        slope by input |x| if x <= -3.0 { 0.0 } else if x >= 3.0 { 1.0 } else { x / 3.0 + 0.5 };
    /// `ln(1 + e^x)`.
    softplus() = |x| softplus!(x), slope by input |x| logistic!(x);
    /// `x / (1 + |x|)`.
    softsign() = |x| x / (1.0 + x.abs()), slope by input |x| 1.0 / ((1.0 + x.abs()) * (1.0 + x.abs()));
    /// `x` times the normal distribution function of `x`.
    gelu_exact() = |x| x * normal_cdf!(x, T),
        slope by input |x| normal_cdf!(x, T) + x * (-0.5 * x * x).exponential() * (0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2) as T;
    /// The hyperbolic tangent approximation of [`Tensor::gelu_exact`].
    gelu_tanh() = |x| 0.5 * x * (1.0 + gelu_inner!(x, T).tanh()), slope by input |x| {
        let t = gelu_inner!(x, T).tanh();
        0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (0.5 * SQRT_2 * FRAC_2_SQRT_PI) as T * (1.0 + 3.0 * 0.044715 * x * x)
    };
    /// `x tanh(softplus(x))`.
    mish() = |x| x * softplus!(x).tanh(), slope by input |x| {
        let t = softplus!(x).tanh();
        t + x * (1.0 - t * t) * logistic!(x)
    };
    /// `x` times the logistic function of `alpha x`.
    swish(alpha: f64) = |x| x * logistic!(x * alpha as T), slope by input |x| {
        let s = logistic!(x * alpha as T);
        s + x * alpha as T * s * (1.0 - s)
    };
    /// `x` above `alpha`, zero elsewhere.
    thresholded_relu(alpha: f64) = |x| if x > alpha as T { x } else { 0.0 }, slope by input |x| if x > alpha as T { 1.0 } else { 0.0 };
}

impl Tensor {
    /// Gaussian error linear unit, exact or by the hyperbolic tangent.
    ///
    /// # Errors
    /// [`TensorError::DType`](crate::TensorError::DType) if the elements are not floats.
    pub fn gelu(&self, approximate: bool) -> Result<Tensor> {
        if approximate { self.gelu_tanh() } else { self.gelu_exact() }
    }

    /// `x - bias` above `lambda`, `x + bias` below `-lambda`, zero between.
    ///
    /// # Errors
    /// [`TensorError::DType`](crate::TensorError::DType) if the type has no arithmetic.
    pub fn shrink(&self, bias: f64, lambda: f64) -> Result<Tensor> {
        let zero = self.zeros_like()?;
        let above = self.greater(&self.scalar_like(lambda)?)?;
        let below = self.less(&self.scalar_like(-lambda)?)?;
        let inner = Tensor::where_(&below, &self.add_scalar(bias)?, &zero)?;
        Tensor::where_(&above, &self.add_scalar(-bias)?, &inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::gradcheck::check;
    use crate::random::uniform_f64;

    #[test]
    fn gradients_of_activations() {
        type F = fn(&Tensor) -> crate::Result<Tensor>;
        let all: &[F] = &[
            Tensor::sigmoid,
            |t| t.leaky_relu(0.1),
            |t| t.elu(1.3),
            |t| t.selu(1.67, 1.05),
            |t| t.celu(0.7),
            |t| t.hard_sigmoid(0.2, 0.5),
            Tensor::hard_swish,
            Tensor::softplus,
            Tensor::softsign,
            |t| t.gelu(false),
            |t| t.gelu(true),
            Tensor::mish,
            |t| t.swish(1.5),
            |t| t.thresholded_relu(0.3),
            |t| t.shrink(0.2, 0.5),
        ];
        for (i, f) in all.iter().enumerate() {
            check(&[uniform_f64(6, &[31], -4.0, 4.0)], |t| f(&t[0])).unwrap_or_else(|e| panic!("activation {i}: {e}"));
        }
    }

    #[test]
    fn extreme_inputs_stay_finite() {
        let x = Tensor::vector(vec![-1e4f32, 1e4]);
        assert_eq!(x.sigmoid().unwrap(), Tensor::vector(vec![0f32, 1.0]));
        assert_eq!(x.softplus().unwrap(), Tensor::vector(vec![0f32, 1e4]));
        assert_eq!(x.mish().unwrap().as_slice::<f32>().unwrap()[1], 1e4);
    }
}
