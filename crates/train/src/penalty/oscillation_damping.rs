//! Damping of oscillations: weights are pulled to the grid points that they are rounded to.
use super::{Penalized, Penalty};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;
use technique::{Entry, Fault, Manual, Settings, member, within};
use tensor::Tensor;

pub(super) const ENTRY: Entry<dyn Penalty> = member!(
    OscillationDamping as dyn Penalty,
    Manual {
        name: "oscillation_damping",
        summary: "Pulls each weight to the grid point that it is rounded to, so that it does not jump between two of them.",
        details: "\
A weight that the straight-through gradient drives to the middle between two grid points jumps from one to the other in every few steps, to
the end of the training. The penalty on the latent weights w with their grid points w_q, which count as fixed,

  factor(t) * sum (w_q - clip(w))^2

keeps them away from the middles; clip(w) ends where the grid does. factor(t) rises from 0 to `factor` along half a cosine over the share
of the training behind `start`, so that weights move freely at first.

For training with 2 to 4 bits, above all with depthwise convolutions and with BatchNormalization, whose statistics the jumps disturb.
Weights on grids of integers alone have it; masked ones stay zero. The loss that is shown leaves it out.",
        source: "M. Nagel et al., Overcoming Oscillations in Quantization-Aware Training (2022), arXiv:2203.11086, equation 5",
        example: "epochs = 6\npenalties = [{ kind = \"oscillation_damping\", factor = 0.01 }]\n",
    }
);

/// Settings of `oscillation_damping`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OscillationDamping {
    /// Factor of the squared distances at the end of the training.
    pub factor: f64,
    /// Share of the training before the factor begins to rise, 0..1.
    pub start: f64,
}

impl Default for OscillationDamping {
    fn default() -> Self {
        OscillationDamping { factor: 0.01, start: 0.0 }
    }
}

impl Settings for OscillationDamping {
    fn check(&self) -> Result<(), Fault> {
        within("factor", self.factor, 0.0, 1e6, "it is a factor of squares")?;
        within("start", self.start, 0.0, 1.0, "it is a share of the training")
    }
}

impl OscillationDamping {
    /// The factor at a share of the training.
    fn at(&self, progress: f64) -> f64 {
        let over = ((progress - self.start) / (1.0 - self.start).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
        self.factor * (1.0 - (PI * over).cos()) / 2.0
    }
}

impl Penalty for OscillationDamping {
    fn gradient(&self, of: &Penalized) -> encodings::Result<Option<Tensor>> {
        let (factor, annotation) = (self.at(of.progress), of.annotation);
        let Some(encoding) = annotation.and_then(|a| a.encoding.as_ref()).filter(|_| factor > 0.0) else { return Ok(None) };
        let live = encodings::live(of.weight, annotation.and_then(|a| a.mask.as_ref()))?;
        let distance = encodings::affine::distance(&live, encoding)?;
        distance.map(|d| Ok(d.mul_scalar(2.0 * factor)?)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use encodings::affine::AffineSettings;
    use graph::Annotation;
    use tensor::{gradcheck, random};

    #[test]
    fn the_factor_rises_along_half_a_cosine() {
        let damping = OscillationDamping { factor: 2.0, start: 0.5 };
        for (progress, factor) in [(0.0, 0.0), (0.5, 0.0), (0.625, 2.0 * 0.146_446_609_4), (0.75, 1.0), (1.0, 2.0)] {
            assert!((damping.at(progress) - factor).abs() < 1e-9, "{progress}: {}", damping.at(progress));
        }
        assert_eq!(OscillationDamping { factor: 2.0, start: 1.0 }.at(0.5), 0.0);
    }

    /// Between the middles of a grid the penalty is a smooth function of the weights.
    #[test]
    fn its_gradient_is_that_of_the_squared_distances() {
        let settings = AffineSettings::weight(3, Some(0));
        let scale = Tensor::vector(vec![0.2f32, 0.5]);
        let encoding = settings.encoding(scale, Tensor::vector(vec![0f32; 2]));
        // Within 0.4 steps of a grid point, or beyond the ends at -3 and 3.
        let grid = [-3.3f64, -2.6, -1.0, 0.3, 1.6, 4.0, 2.9, -0.4];
        let w = Tensor::new(grid.iter().enumerate().map(|(i, g)| g * if i < 4 { 0.2 } else { 0.5 }).collect::<Vec<_>>(), [2, 4]).unwrap();
        let points =
            encodings::simulate(&w.cast(tensor::DType::F32).unwrap(), &Annotation { mask: None, encoding: Some(encoding.clone()) });
        let points = points.unwrap().cast(tensor::DType::F64).unwrap();
        let ends = Tensor::new(vec![0.6f64, 1.5], [2, 1]).unwrap();
        let penalty = |w: &Tensor| {
            let d = w.min(&ends)?.max(&ends.neg()?)?.sub(&points)?;
            d.mul(&d)?.mul_scalar(0.3)?.sum(&[0, 1], false)
        };
        gradcheck::check(std::slice::from_ref(&w), |t| penalty(&t[0])).unwrap();
        let leaf = w.tracked().unwrap();
        let expected = penalty(&leaf).unwrap().backward().unwrap().take(&leaf).unwrap().to_f64_vec().unwrap();
        let weight = w.cast(tensor::DType::F32).unwrap();
        let annotation = Annotation { mask: None, encoding: Some(encoding) };
        let of = Penalized { weight: &weight, annotation: Some(&annotation), progress: 1.0 };
        let found = OscillationDamping { factor: 0.3, start: 0.0 }.gradient(&of).unwrap().unwrap().to_f64_vec().unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "{found} against {expected}");
        }
        assert!(expected[0] == 0.0 && expected[5] == 0.0 && expected[1] != 0.0);
    }

    #[test]
    fn only_live_weights_on_grids_have_it() {
        let weight = random::uniform(1, &[4], 0.1, 0.4).unwrap();
        let damping = OscillationDamping { factor: 1.0, start: 0.0 };
        let gradient =
            |annotation: Option<&Annotation>, progress: f64| damping.gradient(&Penalized { weight: &weight, annotation, progress });
        assert_eq!(gradient(None, 1.0).unwrap(), None);
        let encoding = AffineSettings::weight(2, None).encoding(Tensor::scalar(1f32), Tensor::scalar(0f32));
        let mask = Some(Tensor::vector(vec![true, false, true, false]));
        let masked = Annotation { mask, encoding: Some(encoding) };
        let found = gradient(Some(&masked), 1.0).unwrap().unwrap().to_f32_vec().unwrap();
        let w = weight.to_f32_vec().unwrap();
        assert_eq!(found, [2.0 * w[0], 0.0, 2.0 * w[2], 0.0]);
        assert_eq!(gradient(Some(&masked), 0.0).unwrap(), None);
    }
}
