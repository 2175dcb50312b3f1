//! Learnable rounding: whether each weight is rounded up or down.
use encodings::affine::{AffineSettings, Grid};
use graph::Annotation;
use tensor::{DType, Result, Tensor, TensorError};

/// Ends of the stretched sigmoid, zeta and gamma of equation 23: above 1 and below 0, so that clamping reaches both.
const STRETCH: (f64, f64) = (1.1, -0.1);

/// One weight between the grid points below and above each of its elements.
///
/// `w(v) = scale * (clamp(floor(w / scale) + h(v) + zero_point, qmin, qmax) - zero_point)` with
/// `h(v) = clamp(sigmoid(v) * (zeta - gamma) + gamma, 0, 1)`: equations 22 and 23.
#[derive(Clone, Debug)]
pub(super) struct Rounding {
    /// `floor(w / scale) + zero_point`, of the weight's shape.
    floor: Tensor,
    /// Scale and zero point in a shape that broadcasts to the weight's.
    scale: Tensor,
    zero_point: Tensor,
    /// The grid's ends.
    ends: (f64, f64),
    mask: Option<Tensor>,
    /// Number of elements that can be rounded either way.
    free: usize,
}

impl Rounding {
    /// For a weight (f32 or f64) with its annotation. Also returns the `v` for which `w(v)` is the weight itself, where the grid
    /// covers it.
    ///
    /// # Errors
    /// If the annotation is no grid of the weight.
    pub(super) fn new(weight: &Tensor, annotation: &Annotation) -> Result<(Rounding, Tensor)> {
        let refuse = |what: String| TensorError::value("rounding", what);
        let encoding = annotation.encoding.as_ref().ok_or_else(|| refuse("the weight has no grid".into()))?;
        let settings = AffineSettings::of(encoding).map_err(|e| refuse(e.to_string()))?;
        let grid = Grid::new(settings, &encoding.parameters).map_err(|e| refuse(e.to_string()))?;
        let [scale, zero_point] = grid.spread(weight).map_err(|e| refuse(e.to_string()))?;
        let (scale, zero_point) = (scale.cast(weight.dtype())?, zero_point.cast(weight.dtype())?);
        let mask = annotation.mask.clone();
        let live = match &mask {
            Some(mask) => Tensor::where_(mask, weight, &weight.zeros_like()?)?,
            None => weight.clone(),
        };
        let units = live.div(&scale)?;
        let floor = units.floor()?;
        // The inverse of h for the share that lies above the lower point.
        let (zeta, gamma) = STRETCH;
        let share = units.sub(&floor)?;
        let v = share.add_scalar(-gamma)?.mul_scalar(1.0 / (zeta - gamma))?;
        let v = v.div(&v.neg()?.add_scalar(1.0)?)?.log()?;
        let floor = floor.add(&zero_point)?;
        let ends = (settings.qmin() as f64, settings.qmax() as f64);
        let free = free(&floor, ends, mask.as_ref())?;
        Ok((Rounding { floor, scale, zero_point, ends, mask, free }, v))
    }

    /// `h(v)`: 0 is down, 1 is up.
    fn share(&self, v: &Tensor) -> Result<Tensor> {
        let (zeta, gamma) = STRETCH;
        v.sigmoid()?.mul_scalar(zeta - gamma)?.add_scalar(gamma)?.clip(Some(0.0), Some(1.0))
    }

    /// `w(v)`, differentiable by `v`. Masked elements are zero.
    pub(super) fn soft(&self, v: &Tensor) -> Result<Tensor> {
        self.weight(&self.share(v)?)
    }

    fn weight(&self, share: &Tensor) -> Result<Tensor> {
        let integer = self.floor.add(share)?.clip(Some(self.ends.0), Some(self.ends.1))?;
        let weight = integer.sub(&self.zero_point)?.mul(&self.scale)?;
        match &self.mask {
            Some(mask) => Tensor::where_(mask, &weight, &weight.zeros_like()?),
            None => Ok(weight),
        }
    }

    /// The weight with each element rounded to the grid point that `v` is closer to.
    pub(super) fn hard(&self, v: &Tensor) -> Result<Tensor> {
        let up = self.share(&v.detach())?.greater_or_equal(&v.scalar_like(0.5)?)?.cast(v.dtype())?;
        self.weight(&up)
    }

    /// Regularization: `sum of 1 - |2 h(v) - 1|^beta` (equation 24), the distance from a decision; differentiable by `v`.
    pub(super) fn undecided(&self, v: &Tensor, beta: f64) -> Result<Tensor> {
        let distance = self.share(v)?.mul_scalar(2.0)?.add_scalar(-1.0)?.abs()?;
        let undecided = distance.pow(&distance.scalar_like(beta)?)?.neg()?.add_scalar(1.0)?;
        match &self.mask {
            Some(mask) => Tensor::where_(mask, &undecided, &undecided.zeros_like()?)?.sum_all(),
            None => undecided.sum_all(),
        }
    }

    /// The `v` of an earlier decision: `hard` of it is `weight`, which lies on the grid, and `h` has this distance from 0 or 1.
    pub(super) fn decided(&self, weight: &Tensor, undecided: f64) -> Result<Tensor> {
        let integer = weight.div(&self.scale)?.add(&self.zero_point)?;
        let up = integer.sub(&self.floor)?.greater_or_equal(&weight.scalar_like(0.5)?)?.cast(weight.dtype())?;
        let (zeta, gamma) = STRETCH;
        let share = up.mul_scalar(1.0 - 2.0 * undecided)?.add_scalar(undecided - gamma)?.mul_scalar(1.0 / (zeta - gamma))?;
        share.div(&share.neg()?.add_scalar(1.0)?)?.log()
    }

    /// How many elements `hard` rounds to another point than the nearest, and how many can be rounded.
    pub(super) fn turned(&self, v: &Tensor, start: &Tensor) -> Result<(usize, usize)> {
        let (learned, nearest) = (self.hard(v)?.to_f32_vec()?, self.hard(start)?.to_f32_vec()?);
        Ok((learned.iter().zip(&nearest).filter(|(a, b)| a != b).count(), self.free))
    }
}

/// Elements that are not masked and whose two grid points both exist.
fn free(floor: &Tensor, (low, high): (f64, f64), mask: Option<&Tensor>) -> Result<usize> {
    let inside = |v: &f64| *v >= low && *v < high;
    let floor = floor.cast(DType::F64)?.to_f64_vec()?;
    Ok(match mask {
        Some(mask) => floor.iter().zip(mask.as_slice::<bool>()?).filter(|(v, live)| **live && inside(v)).count(),
        None => floor.iter().filter(|v| inside(v)).count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use encodings::affine::fit_weight;
    use tensor::gradcheck::check;
    use tensor::random::{uniform, uniform_f64};

    fn annotated(weight: &Tensor, bits: u32, mask: Option<Tensor>) -> Annotation {
        let settings = AffineSettings::weight(bits, Some(0));
        let encoding = fit_weight(weight, &settings, encodings::affine::Precision::WEIGHT, 0.0).unwrap();
        Annotation { mask, encoding: Some(encoding) }
    }

    /// Every third element is masked.
    fn mask(shape: &[usize]) -> Tensor {
        Tensor::new((0..shape.iter().product()).map(|i| i % 3 != 0).collect::<Vec<bool>>(), shape).unwrap()
    }

    #[test]
    fn it_starts_at_the_weight_and_ends_on_its_grid() {
        let weight = uniform(1, &[4, 3, 2, 2], -1.0, 1.0).unwrap();
        for mask in [None, Some(mask(&[4, 3, 2, 2]))] {
            let annotation = annotated(&weight, 4, mask);
            let (rounding, v) = Rounding::new(&weight, &annotation).unwrap();
            let float = encodings::live(&weight, annotation.mask.as_ref()).unwrap();
            let nearest = encodings::simulate(&weight, &annotation).unwrap().to_f32_vec().unwrap();
            let (float, soft) = (float.to_f32_vec().unwrap(), rounding.soft(&v).unwrap().to_f32_vec().unwrap());
            let scale = annotation.encoding.as_ref().unwrap().parameters["scale"].to_f32_vec().unwrap();
            for (i, (f, s)) in float.iter().zip(&soft).enumerate() {
                // For elements that the grid covers.
                assert!((f - s).abs() < 1e-5 || f.abs() > 7.0 * scale[i / 12], "element {i}: {s} for {f}");
            }
            // At the start, h is the share above the lower point, so `hard` rounds to nearest.
            let hard = rounding.hard(&v).unwrap();
            for (i, (h, n)) in hard.to_f32_vec().unwrap().iter().zip(&nearest).enumerate() {
                assert!(h == n || (float[i] / scale[i / 12]).fract().abs() == 0.5, "element {i}: {h}, nearest {n}");
            }
            assert_eq!(rounding.turned(&v, &v).unwrap().0, 0);
            // Values on the grid stay as they are when they are stored.
            let away = rounding.hard(&v.neg().unwrap()).unwrap();
            assert_eq!(encodings::simulate(&away, &annotation).unwrap(), away);
            assert_ne!(away, hard);
            let decided = rounding.decided(&away, 0.1).unwrap();
            assert_eq!(rounding.hard(&decided).unwrap(), away);
        }
    }

    #[test]
    fn gradients_of_the_weight_and_of_what_is_undecided() {
        let weight = uniform_f64(3, &[3, 5], -1.0, 1.0);
        for mask in [None, Some(mask(&[3, 5]))] {
            let annotation = annotated(&weight.cast(DType::F32).unwrap(), 3, mask);
            let (rounding, start) = Rounding::new(&weight, &annotation).unwrap();
            // Away from the kinks at h = 0, 1/2 and 1.
            let v = start.add_scalar(0.05).unwrap().clip(Some(-2.0), Some(2.0)).unwrap();
            check(std::slice::from_ref(&v), |t| rounding.soft(&t[0])).unwrap();
            check(&[v], |t| rounding.undecided(&t[0], 3.0)).unwrap();
        }
    }

    #[test]
    fn what_is_decided_costs_nothing() {
        let weight = uniform(5, &[2, 6], -1.0, 1.0).unwrap();
        let (rounding, v) = Rounding::new(&weight, &annotated(&weight, 4, None)).unwrap();
        let undecided = |v: &Tensor| rounding.undecided(v, 2.0).unwrap().item::<f32>().unwrap();
        let halves = v.zeros_like().unwrap();
        assert_eq!(undecided(&halves), 12.0);
        assert_eq!(undecided(&halves.add_scalar(9.0).unwrap()), 0.0);
    }
}
