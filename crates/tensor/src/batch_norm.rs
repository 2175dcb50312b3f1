//! Batch normalization: one kernel with the residual addition and the activation after it.
use crate::device::on_device;
use crate::kernels::batch_norm::{Activated, Layout, Normalized, backward, forward, moments};
use crate::norm::column_shape;
use crate::{DType, Result, Tensor, TensorError, record_many, recycle};

/// The activation after a normalization, in the same pass over memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, min), max)`.
    Clip {
        /// Lower bound.
        min: f32,
        /// Upper bound.
        max: f32,
    },
}

impl Activation {
    pub(crate) fn bounds(self) -> (f32, f32) {
        match self {
            Activation::None => (f32::NEG_INFINITY, f32::INFINITY),
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Clip { min, max } => (min, max),
        }
    }

    /// The activation alone.
    ///
    /// # Errors
    /// [`TensorError::DType`] if the elements have no order.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::None => Ok(x.clone()),
            Activation::Relu => x.relu(),
            Activation::Clip { min, max } => x.clip(Some(f64::from(min)), Some(f64::from(max))),
        }
    }
}

/// Images, channels and elements of `[n, c, rest..]`.
fn layout(x: &Tensor, parameters: &[&Tensor]) -> Result<Layout> {
    let wrong = |what: String| TensorError::shape("batch_norm", what);
    let (Some(&n), Some(&c)) = (x.shape().first(), x.shape().get(1)) else {
        return Err(wrong(format!("input {:?} has no channel axis", x.shape())));
    };
    if let Some(p) = parameters.iter().find(|p| p.shape() != [c]) {
        return Err(wrong(format!("a parameter of shape {:?} for {c} channels", p.shape())));
    }
    Ok(Layout { n, c, inner: x.shape()[2..].iter().product() })
}

impl Tensor {
    /// Batch normalization with the statistics of this batch, then an optional residual, then an optional activation:
    /// `y = act(scale * (x - mean) / sqrt(var + eps) + bias + residual)`. Returns y, the mean and the biased variance
    /// (the latter two outside the record).
    ///
    /// # Shapes
    /// - `self`, `residual`: `[n, c, ..]`; `scale`, `bias`: `[c]`; mean, variance: `[c]`
    ///
    /// # Errors
    /// [`TensorError::Shape`] where they do not fit.
    ///
    /// # Source
    /// Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1.
    pub fn batch_norm_train(
        &self,
        scale: &Tensor,
        bias: &Tensor,
        eps: f32,
        residual: Option<&Tensor>,
        activation: Activation,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let l = layout(self, &[scale, bias])?;
        check_residual(self, residual)?;
        if self.dtype() != DType::F32 {
            let axes: Vec<usize> = (0..self.rank()).filter(|a| *a != 1).collect();
            let mean = self.mean(&axes, true)?;
            let centred = self.sub(&mean)?;
            let var = centred.mul(&centred)?.mean(&axes, true)?;
            let y = plain(self, &centred, &var, scale, bias, eps, residual, activation)?;
            return Ok((y, mean.detach().reshape([l.c])?, var.detach().reshape([l.c])?));
        }
        #[cfg(feature = "gpu")]
        let parts = device_parts(l, [self, scale, bias], residual, activation);
        on_device!(crate::gpu::batch_norm_train(parts, eps));
        let (x, gamma, beta) = (self.as_slice::<f32>()?, scale.as_slice::<f32>()?, bias.as_slice::<f32>()?);
        let r = residual.map(|r| r.as_slice::<f32>()).transpose()?;
        let (y, kept) = forward(l, x, r, activation.bounds(), |c| {
            let [mean, var] = moments(l, x, c);
            let a = f64::from(gamma[c]) / (var + f64::from(eps)).sqrt();
            let coefficients = [a as f32, (f64::from(beta[c]) - mean * a) as f32];
            (coefficients, (coefficients, (mean as f32, var as f32)))
        });
        let y = Tensor::new(y, self.shape())?;
        let (coefficients, statistics): (Vec<[f32; 2]>, Vec<(f32, f32)>) = kept.into_iter().unzip();
        let (mean, var): (Vec<f32>, Vec<f32>) = statistics.into_iter().unzip();
        let inv: Vec<f32> = var.iter().map(|v| (1.0 / (f64::from(*v) + f64::from(eps)).sqrt()) as f32).collect();
        let out = record_affine(l, self, scale, bias, residual, y, activation, coefficients, mean.clone(), inv, true);
        Ok((out, Tensor::vector(mean), Tensor::vector(var)))
    }

    /// Batch normalization with given statistics (which get no gradient), then an optional residual and activation.
    ///
    /// # Shapes
    /// As [`Tensor::batch_norm_train`]; `mean` and `var`: `[c]`.
    ///
    /// # Errors
    /// [`TensorError::Shape`] where they do not fit.
    pub fn batch_norm(
        &self,
        scale: &Tensor,
        bias: &Tensor,
        mean: &Tensor,
        var: &Tensor,
        eps: f32,
        residual: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor> {
        let l = layout(self, &[scale, bias, mean, var])?;
        check_residual(self, residual)?;
        if [self, scale, bias, mean, var].iter().any(|t| t.dtype() != DType::F32) {
            if self.is_half() {
                let up = |t: &Tensor| t.cast(DType::F32);
                let residual = residual.map(up).transpose()?;
                let y = up(self)?.batch_norm(&up(scale)?, &up(bias)?, &up(mean)?, &up(var)?, eps, residual.as_ref(), activation)?;
                return y.cast(self.dtype());
            }
            let column = column_shape(self.rank(), l.c);
            let centred = self.sub(&mean.detach().cast(self.dtype())?.reshape(column.clone())?)?;
            return plain(self, &centred, &var.detach().cast(self.dtype())?.reshape(column)?, scale, bias, eps, residual, activation);
        }
        #[cfg(feature = "gpu")]
        let parts = device_parts(l, [self, scale, bias], residual, activation);
        on_device!(crate::gpu::batch_norm(parts, mean, var, eps));
        let (x, gamma, beta) = (self.as_slice::<f32>()?, scale.as_slice::<f32>()?, bias.as_slice::<f32>()?);
        let (mean, var) = (mean.as_slice::<f32>()?, var.as_slice::<f32>()?);
        let inv: Vec<f32> = var.iter().map(|v| (1.0 / (f64::from(*v) + f64::from(eps)).sqrt()) as f32).collect();
        let r = residual.map(|r| r.as_slice::<f32>()).transpose()?;
        let (y, coefficients) = forward(l, x, r, activation.bounds(), |c| {
            let a = f64::from(gamma[c]) * f64::from(inv[c]);
            let coefficients = [a as f32, (f64::from(beta[c]) - f64::from(mean[c]) * a) as f32];
            (coefficients, coefficients)
        });
        let y = Tensor::new(y, self.shape())?;
        Ok(record_affine(l, self, scale, bias, residual, y, activation, coefficients, mean.to_vec(), inv, false))
    }
}

#[cfg(feature = "gpu")]
fn device_parts<'a>(
    layout: Layout,
    [x, scale, bias]: [&'a Tensor; 3],
    residual: Option<&'a Tensor>,
    activation: Activation,
) -> crate::gpu::Parts<'a> {
    crate::gpu::Parts { layout, x, scale, bias, residual, bounds: activation.bounds(), activated: activation != Activation::None }
}

fn check_residual(x: &Tensor, residual: Option<&Tensor>) -> Result<()> {
    match residual {
        Some(r) if r.shape() != x.shape() || r.dtype() != x.dtype() => {
            Err(TensorError::shape("batch_norm", format!("residual {:?} is added to {:?}", r.shape(), x.shape())))
        }
        _ => Ok(()),
    }
}

/// The definition in tensor operations: the kernel's reference, and the code for other types.
fn plain(
    x: &Tensor,
    centred: &Tensor,
    var: &Tensor,
    scale: &Tensor,
    bias: &Tensor,
    eps: f32,
    residual: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let column = column_shape(x.rank(), scale.len());
    let y = centred.div(&var.add_scalar(f64::from(eps))?.sqrt()?)?;
    let as_x = |t: &Tensor| if t.dtype() == x.dtype() { Ok(t.clone()) } else { t.cast(x.dtype()) };
    let y = y.mul(&as_x(scale)?.reshape(column.clone())?)?.add(&as_x(bias)?.reshape(column)?)?;
    let y = match residual {
        Some(r) => y.add(r)?,
        None => y,
    };
    activation.apply(&y)
}

fn record_affine(
    l: Layout,
    x: &Tensor,
    scale: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    y: Tensor,
    activation: Activation,
    coefficients: Vec<[f32; 2]>,
    mean: Vec<f32>,
    inv: Vec<f32>,
    through_statistics: bool,
) -> Tensor {
    let inputs: Vec<&Tensor> = [x, scale, bias].into_iter().chain(residual).collect();
    let (x, scale, with_residual) = (x.detach(), scale.detach(), residual.is_some_and(Tensor::is_tracked));
    // The output shows where the activation is flat; it is kept only if a residual went into it too.
    let kept = (activation != Activation::None && residual.is_some()).then(|| y.clone());
    let mut out = record_many("batch_norm", &inputs, vec![y], move |mut dy| {
        let Some(mut dy) = dy.pop().flatten() else { return Ok(vec![]) };
        let activated = match (&kept, activation) {
            (_, Activation::None) => Activated::No,
            (Some(y), _) => Activated::Output(y.as_slice()?, activation.bounds()),
            (None, _) => Activated::Affine(&coefficients, activation.bounds()),
        };
        let of = Normalized { x: x.as_slice()?, activated, scale: scale.as_slice()?, mean: &mean, inv: &inv, through_statistics };
        let mut dx = with_residual.then(|| recycle::take(x.len()));
        let (d_scale, d_bias) = backward(l, of, dy.as_mut_slice::<f32>()?, dx.as_deref_mut());
        let (dx, d_residual) = match dx {
            Some(dx) => (Tensor::new(dx, x.shape())?, Some(dy)),
            None => (dy, None),
        };
        Ok(vec![Some(dx), Some(Tensor::vector(d_scale)), Some(Tensor::vector(d_bias)), d_residual])
    });
    out.remove(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::{uniform, uniform_f64};
    use proptest::prelude::*;

    fn all(i: &[Tensor], activation: Activation) -> Result<Tensor> {
        i[0].batch_norm_train(&i[1], &i[2], 1e-3, i.get(3), activation).map(|r| r.0)
    }

    #[test]
    fn gradients() {
        let x = || uniform_f64(1, &[3, 4, 2, 3], -1.0, 1.0);
        let c = |s| uniform_f64(s, &[4], 0.5, 1.5);
        for activation in [Activation::None, Activation::Relu, Activation::Clip { min: -0.5, max: 0.7 }] {
            check(&[x(), c(2), c(3)], |i| all(i, activation)).unwrap();
            check(&[x(), c(2), c(3), uniform_f64(4, &[3, 4, 2, 3], -1.0, 1.0)], |i| all(i, activation)).unwrap();
        }
        let (mean, var) = (uniform_f64(5, &[4], -0.5, 0.5), uniform_f64(6, &[4], 0.5, 2.0));
        check(&[x(), c(2), c(3)], |i| i[0].batch_norm(&i[1], &i[2], &mean, &var, 1e-3, None, Activation::Relu)).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        /// The fused f32 kernel against its definition in f64, values and gradients.
        #[test]
        fn fused_kernel_agrees_with_its_meaning(n in 1usize..5, c in 1usize..5, h in 1usize..40, with_residual: bool, training: bool, kind in 0usize..3, seed: u64) {
            prop_assume!(n * h > 1);
            let activation = [Activation::None, Activation::Relu, Activation::Clip { min: -0.3, max: 0.8 }][kind];
            let shape = [n, c, h];
            let mut inputs = vec![uniform(seed, &shape, 4.0, 6.0).unwrap(), uniform(seed ^ 1, &[c], 0.5, 1.5).unwrap(), uniform(seed ^ 2, &[c], -1.0, 1.0).unwrap()];
            if with_residual { inputs.push(uniform(seed ^ 3, &shape, -1.0, 1.0).unwrap()); }
            let (mean, var) = (uniform(seed ^ 4, &[c], 4.0, 6.0).unwrap(), uniform(seed ^ 5, &[c], 0.2, 1.0).unwrap());
            let forward = |leaves: &[Tensor], activation, dtype: DType| match training {
                true => all(leaves, activation).unwrap(),
                false => leaves[0].batch_norm(&leaves[1], &leaves[2], &mean.cast(dtype).unwrap(), &var.cast(dtype).unwrap(), 1e-3, leaves.get(3), activation).unwrap(),
            };
            // At a corner of the activation f32 and f64 may fall on different sides, which the statistics spread through the
            // channel.
            let wide: Vec<Tensor> = inputs.iter().map(|t| t.cast(DType::F64).unwrap()).collect();
            let corners = [&[][..], &[0.0], &[-0.3, 0.8]][kind];
            let apart = |v: &f64| corners.iter().all(|corner: &f64| (v - corner).abs() > 1e-4);
            prop_assume!(forward(&wide, Activation::None, DType::F64).to_f64_vec().unwrap().iter().all(apart));
            let run = |dtype: DType| {
                let leaves: Vec<Tensor> = inputs.iter().map(|t| t.cast(dtype).unwrap().tracked().unwrap()).collect();
                let y = forward(&leaves, activation, dtype);
                let dy = uniform(seed ^ 6, &shape, -1.0, 1.0).unwrap().cast(dtype).unwrap();
                let mut g = y.backward_from(dy).unwrap();
                let mut out = vec![y.to_f64_vec().unwrap()];
                out.extend(leaves.iter().map(|l| g.take(l).unwrap().to_f64_vec().unwrap()));
                out
            };
            for (a, b) in run(DType::F32).iter().zip(&run(DType::F64)) {
                let largest = b.iter().fold(1f64, |m, v| m.max(v.abs()));
                let off = a.iter().zip(b).filter(|(a, b)| (*a - *b).abs() > 2e-3 * largest).count();
                prop_assert!(off == 0, "{} of {} elements differ", off, b.len());
            }
        }
    }
}
