//! Normalizations over other axes than the batch, composed of tensor operations.
use crate::{Result, Tensor, TensorError};

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
    use crate::random::uniform_f64;

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
}
