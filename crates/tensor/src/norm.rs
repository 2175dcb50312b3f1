//! Normalizations. Batch normalization is one kernel with the residual add and the activation behind it; the others are
//! composed of tensor operations.
use crate::kernels::simd::vectorised;
use crate::{DType, Result, Tensor, TensorError, record_many, recycle};
use rayon::prelude::*;

/// What follows a normalization in the same pass over memory.
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
    fn bounds(self) -> (f32, f32) {
        match self {
            Activation::None => (f32::NEG_INFINITY, f32::INFINITY),
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Clip { min, max } => (min, max),
        }
    }

    fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::None => Ok(x.clone()),
            Activation::Relu => x.relu(),
            Activation::Clip { min, max } => x.clip(Some(f64::from(min)), Some(f64::from(max))),
        }
    }
}

/// `[n, c, rest..]` as images, channels and elements of a channel.
#[derive(Clone, Copy)]
struct Layout {
    n: usize,
    c: usize,
    inner: usize,
}

impl Layout {
    fn of(x: &Tensor, parameters: &[&Tensor]) -> Result<Layout> {
        let wrong = |what: String| TensorError::shape("batch_norm", what);
        let (Some(&n), Some(&c)) = (x.shape().first(), x.shape().get(1)) else {
            return Err(wrong(format!("input {:?} has no channel axis", x.shape())));
        };
        if let Some(p) = parameters.iter().find(|p| p.shape() != [c]) {
            return Err(wrong(format!("a parameter of shape {:?} for {c} channels", p.shape())));
        }
        Ok(Layout { n, c, inner: x.shape()[2..].iter().product() })
    }

    /// Where the pieces of one channel start.
    fn pieces(self, channel: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        (0..self.n).map(move |i| {
            let at = (i * self.c + channel) * self.inner;
            at..at + self.inner
        })
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
    unsafe fn part(&self, range: std::ops::Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.1);
        // SAFETY: within the slice (asserted), and disjoint from other parts by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(range.start), range.len()) }
    }
}

/// Sum of `f` over slices of one length, in interleaved sums so that it vectorises; a fixed order.
fn sum<const N: usize>(a: [&[f32]; N], f: impl Fn([f32; N]) -> f32) -> f64 {
    const SUMS: usize = 32;
    // Blocks keep the f32 sums short, so that precision does not fall with the size of the channel.
    const BLOCK: usize = 64 * SUMS;
    let len = a[0].len();
    let whole = len / SUMS * SUMS;
    let mut total = 0f64;
    for start in (0..whole).step_by(BLOCK) {
        let end = (start + BLOCK).min(whole);
        let parts = a.map(|a| a[start..end].as_chunks::<SUMS>().0);
        let mut sums = [0f32; SUMS];
        vectorised(|| {
            for i in 0..(end - start) / SUMS {
                let rows: [&[f32; SUMS]; N] = parts.map(|p| &p[i]);
                for (k, s) in sums.iter_mut().enumerate() {
                    *s += f(std::array::from_fn(|j| rows[j][k]));
                }
            }
        });
        total += sums.iter().map(|s| f64::from(*s)).sum::<f64>();
    }
    total + (whole..len).map(|i| f64::from(f(std::array::from_fn(|j| a[j][i])))).sum::<f64>()
}

/// `y = act(x * a[c] + b[c] + residual)` for each channel, where `coefficients` gives a and b from the channel's own data.
fn affine_forward(
    l: Layout,
    x: &[f32],
    residual: Option<&[f32]>,
    activation: Activation,
    coefficients: impl Fn(usize) -> (f32, f32, [f32; 2]) + Sync,
) -> (Vec<f32>, Vec<[f32; 2]>) {
    let mut y = recycle::take(x.len());
    let (lo, hi) = activation.bounds();
    let shared = Shared::new(&mut y);
    let statistics = (0..l.c)
        .into_par_iter()
        .map(|c| {
            let (a, b, statistics) = coefficients(c);
            for piece in l.pieces(c) {
                // SAFETY: pieces of different channels and images do not overlap.
                let y = unsafe { shared.part(piece.clone()) };
                let x = &x[piece.clone()];
                match residual.map(|r| &r[piece]) {
                    None => vectorised(|| y.iter_mut().zip(x).for_each(|(y, x)| *y = clamp(x * a + b, lo, hi))),
                    Some(r) => vectorised(|| y.iter_mut().zip(x).zip(r).for_each(|((y, x), r)| *y = clamp(x * a + b + r, lo, hi))),
                }
            }
            statistics
        })
        .collect();
    (y, statistics)
}

/// `v` between bounds; a NaN stays one. (Two comparisons vectorise where `f32::max` and `min` need care for NaN.)
#[inline(always)]
fn clamp(v: f32, lo: f32, hi: f32) -> f32 {
    let v = if v < lo { lo } else { v };
    if v > hi { hi } else { v }
}

/// Gradients of the fused kernel.
struct AffineBackward {
    dx: Vec<f32>,
    d_residual: Tensor,
    d_scale: Vec<f32>,
    d_bias: Vec<f32>,
}

/// Backward of [`affine_forward`] where `x_hat = (x - mean) * inv`. With `through_statistics`, mean and variance depend
/// on x (training; Ioffe & Szegedy 2015, arXiv:1502.03167, section 3). Overwrites `dy` with the residual's gradient.
fn affine_backward(
    l: Layout,
    mut dy: Tensor,
    x: &[f32],
    y: &[f32],
    activation: Activation,
    scale: &[f32],
    mean: &[f32],
    inv: &[f32],
    through_statistics: bool,
) -> Result<AffineBackward> {
    let (lo, hi) = activation.bounds();
    let m = (l.n * l.inner) as f64;
    let mut dx = recycle::take(x.len());
    let (to_dx, to_dy) = (Shared::new(&mut dx), Shared::new(dy.as_mut_slice::<f32>()?));
    let sums: Vec<(f32, f32)> = (0..l.c)
        .into_par_iter()
        .map(|c| {
            let (mu, inv) = (mean[c], inv[c]);
            let (mut s, mut q) = (0f64, 0f64);
            for piece in l.pieces(c) {
                // SAFETY: pieces of different channels and images do not overlap.
                let d = unsafe { to_dy.part(piece.clone()) };
                if activation != Activation::None {
                    let y = &y[piece.clone()];
                    vectorised(|| d.iter_mut().zip(y).for_each(|(d, y)| *d = if *y > lo && *y < hi { *d } else { 0.0 }));
                }
                s += sum([d], |[d]| d);
                q += sum([d, &x[piece]], |[d, x]| d * (x - mu));
            }
            let q = q * f64::from(inv);
            let a = scale[c] * inv;
            // dx = a * (dy - mean(dy) - x_hat * mean(dy * x_hat))
            let (b, k) =
                if through_statistics { ((-f64::from(a * inv) * q / m) as f32, (-f64::from(a) * s / m) as f32) } else { (0.0, 0.0) };
            for piece in l.pieces(c) {
                // SAFETY: as above.
                let (d, g) = unsafe { (to_dy.part(piece.clone()), to_dx.part(piece.clone())) };
                let x = &x[piece];
                vectorised(|| g.iter_mut().zip(&*d).zip(x).for_each(|((g, d), x)| *g = d * a + (x - mu) * b + k));
            }
            (q as f32, s as f32)
        })
        .collect();
    let (d_scale, d_bias) = sums.into_iter().unzip();
    Ok(AffineBackward { dx, d_residual: dy, d_scale, d_bias })
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
        let l = Layout::of(self, &[scale, bias])?;
        check_residual(self, residual)?;
        if self.dtype() != DType::F32 {
            let axes: Vec<usize> = (0..self.rank()).filter(|a| *a != 1).collect();
            let mean = self.mean(&axes, true)?;
            let centred = self.sub(&mean)?;
            let var = centred.mul(&centred)?.mean(&axes, true)?;
            let y = plain(self, &centred, &var, scale, bias, eps, residual, activation)?;
            return Ok((y, mean.detach().reshape([l.c])?, var.detach().reshape([l.c])?));
        }
        let (x, gamma, beta) = (self.as_slice::<f32>()?, scale.as_slice::<f32>()?, bias.as_slice::<f32>()?);
        let m = (l.n * l.inner).max(1) as f64;
        let r = residual.map(|r| r.as_slice::<f32>()).transpose()?;
        let (y, statistics) = affine_forward(l, x, r, activation, |c| {
            // Sums are taken relative to one element, so that a large mean does not cancel the variance.
            let k = l.pieces(c).next().and_then(|p| x.get(p.start)).copied().unwrap_or(0.0);
            let (mut s, mut q) = (0f64, 0f64);
            for piece in l.pieces(c) {
                s += sum([&x[piece.clone()]], |[v]| v - k);
                q += sum([&x[piece]], |[v]| (v - k) * (v - k));
            }
            let d = s / m;
            let (mean, var) = (f64::from(k) + d, (q / m - d * d).max(0.0));
            let a = f64::from(gamma[c]) / (var + f64::from(eps)).sqrt();
            (a as f32, (f64::from(beta[c]) - mean * a) as f32, [mean as f32, var as f32])
        });
        let y = Tensor::new(y, self.shape())?;
        let (mean, var): (Vec<f32>, Vec<f32>) = statistics.iter().map(|s| (s[0], s[1])).unzip();
        let inv: Vec<f32> = var.iter().map(|v| (1.0 / (f64::from(*v) + f64::from(eps)).sqrt()) as f32).collect();
        let out = record_affine(l, self, scale, bias, residual, y, activation, mean.clone(), inv, true);
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
        let l = Layout::of(self, &[scale, bias, mean, var])?;
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
        let (x, gamma, beta) = (self.as_slice::<f32>()?, scale.as_slice::<f32>()?, bias.as_slice::<f32>()?);
        let (mean, var) = (mean.as_slice::<f32>()?, var.as_slice::<f32>()?);
        let inv: Vec<f32> = var.iter().map(|v| (1.0 / (f64::from(*v) + f64::from(eps)).sqrt()) as f32).collect();
        let r = residual.map(|r| r.as_slice::<f32>()).transpose()?;
        let (y, _) = affine_forward(l, x, r, activation, |c| {
            let a = f64::from(gamma[c]) * f64::from(inv[c]);
            (a as f32, (f64::from(beta[c]) - f64::from(mean[c]) * a) as f32, [0.0; 2])
        });
        let y = Tensor::new(y, self.shape())?;
        Ok(record_affine(l, self, scale, bias, residual, y, activation, mean.to_vec(), inv, false))
    }

    /// Normalization over the axes from `axis` on: `scale * (x - mean) / sqrt(var + eps) + bias`. Returns y, the mean and
    /// one over the standard deviation.
    ///
    /// # Errors
    /// [`TensorError::Shape`] where they do not fit.
    ///
    /// # Source
    /// Ba et al. 2016, arXiv:1607.06450, eq. 4.
    pub fn layer_norm(&self, scale: Option<&Tensor>, bias: Option<&Tensor>, axis: usize, eps: f64) -> Result<(Tensor, Tensor, Tensor)> {
        let axes: Vec<usize> = (axis..self.rank()).collect();
        let mean = self.mean(&axes, true)?;
        let centred = self.sub(&mean)?;
        let inv = centred.mul(&centred)?.mean(&axes, true)?.add_scalar(eps)?.sqrt()?.reciprocal()?;
        let y = scale_and_shift(centred.mul(&inv)?, scale, bias)?;
        Ok((y, mean, inv))
    }

    /// `scale * x / sqrt(mean(x^2) + eps)` over the axes from `axis` on.
    ///
    /// # Errors
    /// [`TensorError::Shape`] where they do not fit.
    ///
    /// # Source
    /// Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4.
    pub fn rms_norm(&self, scale: Option<&Tensor>, axis: usize, eps: f64) -> Result<Tensor> {
        let axes: Vec<usize> = (axis..self.rank()).collect();
        let inv = self.mul(self)?.mean(&axes, true)?.add_scalar(eps)?.sqrt()?.reciprocal()?;
        scale_and_shift(self.mul(&inv)?, scale, None)
    }

    /// Normalization of `groups` groups of channels, each image for itself; `scale` and `bias` are `[c]`.
    ///
    /// # Errors
    /// [`TensorError::Shape`] where the groups do not divide the channels.
    ///
    /// # Source
    /// Wu & He 2018, arXiv:1803.08494, eq. 1.
    pub fn group_norm(&self, scale: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Tensor> {
        let l = Layout::of(self, &[scale, bias])?;
        if groups == 0 || !l.c.is_multiple_of(groups) {
            return Err(TensorError::shape("group_norm", format!("{} channels do not fall into {groups} groups", l.c)));
        }
        let grouped = self.reshape([l.n, groups, l.c / groups * l.inner])?;
        let y = grouped.layer_norm(None, None, 2, eps)?.0.reshape(self.shape())?;
        let column = column_shape(self.rank(), l.c);
        y.mul(&scale.reshape(column.clone())?)?.add(&bias.reshape(column)?)
    }

    /// Normalization of each channel of each image.
    ///
    /// # Errors
    /// [`TensorError::Shape`] where they do not fit.
    pub fn instance_norm(&self, scale: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
        self.group_norm(scale, bias, self.shape().get(1).copied().unwrap_or(0), eps)
    }

    /// Each vector along `axis` divided by its `p`-norm, p = 1 or 2; a zero vector stays zero.
    ///
    /// # Errors
    /// [`TensorError::Unsupported`] for another p.
    pub fn lp_norm(&self, axis: usize, p: i64) -> Result<Tensor> {
        let norm = match p {
            1 => self.l1(&[axis], true)?,
            2 => self.l2(&[axis], true)?,
            _ => return Err(TensorError::unsupported("lp_norm", format!("p = {p}; 1 and 2 are"))),
        };
        let zero = norm.equal(&norm.zeros_like()?)?;
        self.div(&Tensor::where_(&zero, &norm.ones_like()?, &norm)?)
    }

    /// Local response normalization over `size` neighbouring channels:
    /// `x / (bias + alpha / size * sum of squares)^beta`.
    ///
    /// # Errors
    /// [`TensorError::Shape`] for an input without channels.
    ///
    /// # Source
    /// Krizhevsky et al. 2012, section 3.3, with ONNX's division of alpha by the size.
    pub fn lrn(&self, size: usize, alpha: f64, beta: f64, bias: f64) -> Result<Tensor> {
        if self.rank() < 2 || size == 0 {
            return Err(TensorError::shape("lrn", format!("input {:?}, size {size}", self.shape())));
        }
        let (before, channels) = ((size - 1) / 2, self.shape()[1]);
        let mut pads = vec![(0i64, 0i64); self.rank()];
        pads[1] = (before as i64, (size - 1 - before) as i64);
        let squares = self.mul(self)?.pad(&pads, crate::PadMode::Constant, None)?;
        let mut sum = squares.narrow(1, 0, channels)?;
        for i in 1..size {
            sum = sum.add(&squares.narrow(1, i, channels)?)?;
        }
        let base = sum.mul_scalar(alpha / size as f64)?.add_scalar(bias)?;
        self.div(&base.pow(&base.scalar_like(beta)?)?)
    }
}

fn column_shape(rank: usize, c: usize) -> Vec<usize> {
    (0..rank).map(|i| if i == 1 { c } else { 1 }).collect()
}

fn scale_and_shift(mut y: Tensor, scale: Option<&Tensor>, bias: Option<&Tensor>) -> Result<Tensor> {
    if let Some(s) = scale {
        y = y.mul(s)?;
    }
    match bias {
        Some(b) => y.add(b),
        None => Ok(y),
    }
}

fn check_residual(x: &Tensor, residual: Option<&Tensor>) -> Result<()> {
    match residual {
        Some(r) if r.shape() != x.shape() || r.dtype() != x.dtype() => {
            Err(TensorError::shape("batch_norm", format!("residual {:?} is added to {:?}", r.shape(), x.shape())))
        }
        _ => Ok(()),
    }
}

/// The kernel's meaning in tensor operations: its reference, and what serves other types.
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
    mean: Vec<f32>,
    inv: Vec<f32>,
    training: bool,
) -> Tensor {
    let inputs: Vec<&Tensor> = [x, scale, bias].into_iter().chain(residual).collect();
    let (x, scale) = (x.detach(), scale.detach());
    // The output is needed only to know where the activation was flat.
    let kept = (activation != Activation::None).then(|| y.clone());
    let mut out = record_many("batch_norm", &inputs, vec![y], move |mut dy| {
        let Some(dy) = dy.pop().flatten() else { return Ok(vec![]) };
        let y = kept.as_ref().map(|y| y.as_slice::<f32>()).transpose()?.unwrap_or(&[]);
        let b = affine_backward(l, dy, x.as_slice()?, y, activation, scale.as_slice()?, &mean, &inv, training)?;
        Ok(vec![Some(Tensor::new(b.dx, x.shape())?), Some(Tensor::vector(b.d_scale)), Some(Tensor::vector(b.d_bias)), Some(b.d_residual)])
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
    fn gradients_of_normalizations() {
        let x = || uniform_f64(1, &[3, 4, 2, 3], -1.0, 1.0);
        let c = |s| uniform_f64(s, &[4], 0.5, 1.5);
        for activation in [Activation::None, Activation::Relu, Activation::Clip { min: -0.5, max: 0.7 }] {
            check(&[x(), c(2), c(3)], |i| all(i, activation)).unwrap();
            check(&[x(), c(2), c(3), uniform_f64(4, &[3, 4, 2, 3], -1.0, 1.0)], |i| all(i, activation)).unwrap();
        }
        let (mean, var) = (uniform_f64(5, &[4], -0.5, 0.5), uniform_f64(6, &[4], 0.5, 2.0));
        check(&[x(), c(2), c(3)], |i| i[0].batch_norm(&i[1], &i[2], &mean, &var, 1e-3, None, Activation::Relu)).unwrap();
        check(&[x(), uniform_f64(7, &[2, 3], 0.5, 1.5), uniform_f64(8, &[2, 3], 0.5, 1.5)], |i| {
            Ok(i[0].layer_norm(Some(&i[1]), Some(&i[2]), 2, 1e-3)?.0)
        })
        .unwrap();
        check(&[x(), c(2), c(3)], |i| i[0].group_norm(&i[1], &i[2], 2, 1e-3)).unwrap();
        check(&[x(), c(2), c(3)], |i| i[0].instance_norm(&i[1], &i[2], 1e-3)).unwrap();
        check(&[x(), uniform_f64(7, &[3], 0.5, 1.5)], |i| i[0].rms_norm(Some(&i[1]), 3, 1e-3)).unwrap();
        check(&[x()], |i| i[0].lp_norm(1, 2)).unwrap();
        check(&[x()], |i| i[0].lrn(3, 0.1, 0.75, 1.0)).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        /// The fused f32 kernel against its meaning in f64, values and gradients.
        #[test]
        fn fused_kernel_agrees_with_its_meaning(n in 1usize..5, c in 1usize..5, h in 1usize..40, with_residual: bool, training: bool, kind in 0usize..3, seed: u64) {
            prop_assume!(n * h > 1);
            let activation = [Activation::None, Activation::Relu, Activation::Clip { min: -0.3, max: 0.8 }][kind];
            let shape = [n, c, h];
            let mut inputs = vec![uniform(seed, &shape, 4.0, 6.0).unwrap(), uniform(seed ^ 1, &[c], 0.5, 1.5).unwrap(), uniform(seed ^ 2, &[c], -1.0, 1.0).unwrap()];
            if with_residual { inputs.push(uniform(seed ^ 3, &shape, -1.0, 1.0).unwrap()); }
            let (mean, var) = (uniform(seed ^ 4, &[c], 4.0, 6.0).unwrap(), uniform(seed ^ 5, &[c], 0.2, 1.0).unwrap());
            let run = |dtype: DType| {
                let leaves: Vec<Tensor> = inputs.iter().map(|t| t.cast(dtype).unwrap().tracked().unwrap()).collect();
                let y = match training {
                    true => all(&leaves, activation).unwrap(),
                    false => leaves[0].batch_norm(&leaves[1], &leaves[2], &mean.cast(dtype).unwrap(), &var.cast(dtype).unwrap(), 1e-3, leaves.get(3), activation).unwrap(),
                };
                let dy = uniform(seed ^ 6, &shape, -1.0, 1.0).unwrap().cast(dtype).unwrap();
                let mut g = y.backward_from(dy).unwrap();
                let mut out = vec![y.to_f64_vec().unwrap()];
                out.extend(leaves.iter().map(|l| g.take(l).unwrap().to_f64_vec().unwrap()));
                out
            };
            for (a, b) in run(DType::F32).iter().zip(&run(DType::F64)) {
                let largest = b.iter().fold(1f64, |m, v| m.max(v.abs()));
                // Where the activation has its corner, f32 and f64 may fall on different sides.
                let off = a.iter().zip(b).filter(|(a, b)| (*a - *b).abs() > 2e-3 * largest).count();
                prop_assert!(off <= 1, "{} of {} elements differ", off, b.len());
            }
        }
    }
}
