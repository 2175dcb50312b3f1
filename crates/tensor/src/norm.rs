//! Normalizations over other axes than the batch. Those over the last axes have a kernel for f32; their definition in tensor
//! operations is used for other types and is the kernel's reference.
use crate::kernels::layer_norm::{Rows, backward, forward};
use crate::{DType, Result, Tensor, TensorError, record_many};

impl Tensor {
    /// Normalization over the axes from `axis` on: `scale * (x - mean) / sqrt(var + eps) + bias`. Returns y, the mean and
    /// one over the standard deviation.
    ///
    /// # Errors
    /// [`TensorError::Shape`] where they do not fit.
    ///
    /// # Source
    /// Ba et al. 2016, arXiv:1607.06450, eq. 4.
    pub fn layer_norm(&self, scale: Option<&Tensor>, bias: Option<&Tensor>, axis: usize, eps: f64) -> Result<(Tensor, Tensor, Tensor)> {
        if let Some(out) = self.normalized_rows("layer_norm", scale, bias, axis, eps, true)? {
            return Ok(out);
        }
        self.layer_norm_composed(scale, bias, axis, eps)
    }

    fn layer_norm_composed(
        &self,
        scale: Option<&Tensor>,
        bias: Option<&Tensor>,
        axis: usize,
        eps: f64,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let axes: Vec<usize> = (axis..self.rank()).collect();
        let mean = self.mean(&axes, true)?;
        let centred = self.sub(&mean)?;
        let inv = centred.mul(&centred)?.mean(&axes, true)?.add_scalar(eps)?.sqrt()?.reciprocal()?;
        let y = scale_and_shift(centred.mul(&inv)?, scale, bias)?;
        Ok((y, mean, inv))
    }

    /// The f32 kernel: y, mean and inverse deviation; `None` if it does not apply (other types, parameters that do not have the
    /// shape of a row).
    fn normalized_rows(
        &self,
        name: &'static str,
        scale: Option<&Tensor>,
        bias: Option<&Tensor>,
        axis: usize,
        eps: f64,
        centred: bool,
    ) -> Result<Option<(Tensor, Tensor, Tensor)>> {
        let Some(row) = self.shape().get(axis..) else { return Ok(None) };
        // On the device the composed operations run there.
        if self.on_device() || [scale, bias].into_iter().flatten().any(Tensor::on_device) {
            return Ok(None);
        }
        let fits = |t: &Tensor| t.dtype() == DType::F32 && t.shape() == row;
        if self.dtype() != DType::F32 || self.is_empty() || ![scale, bias].into_iter().flatten().all(fits) {
            return Ok(None);
        }
        let width: usize = row.iter().product();
        let all = |t: Option<&Tensor>, v: f32| t.map_or_else(|| Tensor::full(v, row), |t| Ok(t.detach()));
        let (s, b) = (all(scale, 1.0)?, all(bias, 0.0)?);
        let (y, kept) = forward(self.as_slice()?, s.as_slice()?, b.as_slice()?, eps, centred);
        let mut statistic = self.shape()[..axis].to_vec();
        statistic.resize(self.rank(), 1);
        let column = |i: usize| Tensor::new(kept.iter().map(|k| k[i]).collect::<Vec<f32>>(), statistic.clone());
        let outputs = vec![Tensor::new(y, self.shape())?, column(0)?, column(1)?];
        let inputs: Vec<&Tensor> = [Some(self), scale, bias].into_iter().flatten().collect();
        let (x, with_scale, with_bias, row) = (self.detach(), scale.is_some(), bias.is_some(), row.to_vec());
        let outputs = record_many(name, &inputs, outputs, move |mut dy| {
            let (d_inv, d_mean) = (dy.pop().flatten(), dy.pop().flatten());
            let dy = dy.pop().flatten().map_or_else(|| x.zeros_like(), Ok)?;
            let slice = |t: &'_ Option<Tensor>| t.as_ref().map(|t| t.to_f32_vec()).transpose();
            let (d_mean, d_inv) = (slice(&d_mean)?, slice(&d_inv)?);
            let of =
                Rows { x: x.as_slice()?, scale: s.as_slice()?, kept: &kept, centred, d_mean: d_mean.as_deref(), d_inv: d_inv.as_deref() };
            let (dx, d_scale, d_bias) = backward(of, dy)?;
            debug_assert_eq!(d_scale.len(), width);
            let mut gradients = vec![Some(dx)];
            if with_scale {
                gradients.push(Some(Tensor::new(d_scale, row.clone())?));
            }
            if with_bias {
                gradients.push(Some(Tensor::new(d_bias, row)?));
            }
            Ok(gradients)
        });
        let mut outputs = outputs.into_iter();
        Ok(match (outputs.next(), outputs.next(), outputs.next()) {
            (Some(y), Some(mean), Some(inv)) => Some((y, mean, inv)),
            _ => None,
        })
    }

    /// `scale * x / sqrt(mean(x^2) + eps)` over the axes from `axis` on.
    ///
    /// # Errors
    /// [`TensorError::Shape`] where they do not fit.
    ///
    /// # Source
    /// Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4.
    pub fn rms_norm(&self, scale: Option<&Tensor>, axis: usize, eps: f64) -> Result<Tensor> {
        if let Some((y, _, _)) = self.normalized_rows("rms_norm", scale, None, axis, eps, false)? {
            return Ok(y);
        }
        self.rms_norm_composed(scale, axis, eps)
    }

    fn rms_norm_composed(&self, scale: Option<&Tensor>, axis: usize, eps: f64) -> Result<Tensor> {
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
        let (Some(&n), Some(&c)) = (self.shape().first(), self.shape().get(1)) else {
            return Err(TensorError::shape("group_norm", format!("input {:?} has no channel axis", self.shape())));
        };
        if let Some(p) = [scale, bias].iter().find(|p| p.shape() != [c]) {
            return Err(TensorError::shape("group_norm", format!("a parameter of shape {:?} for {c} channels", p.shape())));
        }
        if groups == 0 || !c.is_multiple_of(groups) {
            return Err(TensorError::shape("group_norm", format!("{c} channels do not fall into {groups} groups")));
        }
        let inner: usize = self.shape()[2..].iter().product();
        let grouped = self.reshape([n, groups, c / groups * inner])?;
        let y = grouped.layer_norm(None, None, 2, eps)?.0.reshape(self.shape())?;
        let column = column_shape(self.rank(), c);
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
            _ => return Err(TensorError::unsupported("lp_norm", format!("p = {p}, neither 1 nor 2"))),
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

/// The shape that spreads one value a channel over `[n, c, ..]`.
pub(crate) fn column_shape(rank: usize, c: usize) -> Vec<usize> {
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

#[cfg(test)]
mod tests {
    use crate::gradcheck::check;
    use crate::random::{uniform, uniform_f64};
    use crate::{DType, Tensor};
    use proptest::prelude::*;

    #[test]
    fn gradients_of_normalizations() {
        let x = || uniform_f64(1, &[3, 4, 2, 3], -1.0, 1.0);
        let c = |s| uniform_f64(s, &[4], 0.5, 1.5);
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

    /// Values and all gradients of `f`, whose inputs are x, scale and bias; each of its outputs gets a gradient.
    fn all(dtype: DType, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Vec<Tensor>) -> Vec<Vec<f64>> {
        let leaves: Vec<Tensor> = inputs.iter().map(|t| t.cast(dtype).unwrap().tracked().unwrap()).collect();
        let outputs = f(&leaves);
        let weigh = |(i, y): (usize, &Tensor)| {
            y.mul(&uniform(70 + i as u64, y.shape(), -1.0, 1.0).unwrap().cast(dtype).unwrap()).unwrap().sum_all().unwrap()
        };
        let loss = outputs.iter().enumerate().map(weigh).reduce(|a, b| a.add(&b).unwrap()).unwrap();
        let mut gradients = loss.backward().unwrap();
        let gradients: Vec<Tensor> = leaves.iter().filter_map(|l| gradients.take(l)).collect();
        outputs.iter().chain(&gradients).map(|t| t.to_f64_vec().unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        /// The f32 kernel against its definition in f64: values, statistics, and gradients through each of them.
        #[test]
        fn kernel_agrees_with_its_meaning(n in 1usize..6, rows in 1usize..40, width in 1usize..300, parameters in 0usize..3, root_mean_square: bool, statistics: bool, seed: u64) {
            let mut inputs = vec![uniform(seed, &[n, rows, width], 0.5, 3.0).unwrap()];
            if parameters > 0 { inputs.push(uniform(seed ^ 1, &[width], 0.5, 1.5).unwrap()); }
            if parameters > 1 { inputs.push(uniform(seed ^ 2, &[width], -1.0, 1.0).unwrap()); }
            let f = |t: &[Tensor]| if root_mean_square {
                let y = if t[0].dtype() == DType::F32 { t[0].rms_norm(t.get(1), 2, 1e-3) } else { t[0].rms_norm_composed(t.get(1), 2, 1e-3) };
                vec![y.unwrap()]
            } else {
                let run = if t[0].dtype() == DType::F32 { Tensor::layer_norm } else { Tensor::layer_norm_composed };
                let (y, mean, inv) = run(&t[0], t.get(1), t.get(2), 2, 1e-3).unwrap();
                if statistics { vec![y, mean, inv] } else { vec![y] }
            };
            for (a, b) in all(DType::F32, &inputs, f).iter().zip(&all(DType::F64, &inputs, f)) {
                let largest = b.iter().fold(1f64, |m, v| m.max(v.abs()));
                prop_assert_eq!(a.len(), b.len());
                for (a, b) in a.iter().zip(b) { prop_assert!((a - b).abs() < 1e-4 * largest, "{} against {}", a, b); }
            }
        }
    }

    /// The plain body's statistics have gradients too, and the kernel serves rows of several axes.
    #[test]
    fn gradients_through_mean_and_inverse_deviation() {
        let x = || uniform_f64(1, &[3, 4, 5], -1.0, 1.0);
        check(&[x()], |i| Ok(i[0].layer_norm(None, None, 1, 1e-3)?.1)).unwrap();
        check(&[x()], |i| Ok(i[0].layer_norm(None, None, 1, 1e-3)?.2)).unwrap();
    }
}
