//! Binary activations: each element is read as one of two levels that follow from one scale `a`.
//!
//! With `v = x / a - o` an element reads as `a (sign(v) + o)`, where sign(0) = 1. Values of both signs have `o = 0`: the levels `-a`
//! and `a`. Values that are never negative (behind a ReLU) have `o = 1`: the levels `0` and `2 a`, told apart at `a`, so that zero
//! stays zero. The sign has no useful gradient; an [`ActivationEstimator`] gives one.
use super::KIND;
use crate::codebook::form::Form as Table;
use crate::levels::{PROGRESS, flag, parameter};
use crate::{Codec, Decode, EncodingError, Parameters, Result, Stored};
use graph::{Encoding, Setting};
use std::collections::BTreeMap;
use tensor::{Activation, DType, Tensor, record};

/// Setting that tells the encoding of an activation from that of a weight: true where values are never negative.
const UNSIGNED: &str = "unsigned";

/// Candidates for the scale, between zero and the largest magnitude.
const TRIED: usize = 512;

/// The estimator that replaces the gradient of an activation's sign: a function `g(v)` of the element in units of the scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivationEstimator {
    /// Straight through: 1 where |v| <= 1, else 0 (Courbariaux et al. 2016, arXiv:1602.02830, equation 4).
    #[default]
    StraightThrough,
    /// That of a parabola in each half: 2 - 2 |v| where |v| <= 1, else 0 (Liu et al. 2018, arXiv:1808.00278, equation 7).
    BiReal,
    /// `k t (1 - tanh(t v)^2)` with `t` growing from 0.01 to 10 over the training and `k = max(1 / t, 1)` (Qin et al. 2020,
    /// arXiv:1909.10788, equations 10 to 12).
    IrNet,
}

impl ActivationEstimator {
    const ALL: [(&'static str, ActivationEstimator); 3] = [
        ("straight_through", ActivationEstimator::StraightThrough),
        ("bi_real", ActivationEstimator::BiReal),
        ("ir_net", ActivationEstimator::IrNet),
    ];

    /// The name in recipes and files.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, e)| *e == self).map_or("", |(name, _)| name)
    }

    /// The gradient of `sign(v)` after so much of the training, 0 to 1.
    fn gradient(self, progress: f64) -> impl Fn(f64) -> f64 {
        let (t, k) = super::form::sharpness(progress);
        move |v: f64| match self {
            ActivationEstimator::StraightThrough => f64::from(v.abs() <= 1.0),
            ActivationEstimator::BiReal => (2.0 - 2.0 * v.abs()).max(0.0),
            ActivationEstimator::IrNet => k * t * (1.0 - (t * v).tanh().powi(2)),
        }
    }
}

/// Fixed settings of a binary activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Levels {
    unsigned: bool,
    estimator: ActivationEstimator,
}

/// The encoding of an activation from its distribution: `values` are elements (or the middles of bins) with how often they occur.
/// The scale is that of least squared error.
///
/// # Errors
/// [`EncodingError::Value`] if no element differs from zero.
pub fn fit_activation(values: &[(f64, f64)], estimator: ActivationEstimator) -> Result<Encoding> {
    let largest = values.iter().fold(0f64, |m, (x, _)| m.max(x.abs()));
    if largest <= 0.0 || !largest.is_finite() {
        return Err(EncodingError::Value { kind: KIND, what: "all elements are zero, so they have no scale".into() });
    }
    let unsigned = values.iter().all(|(x, _)| *x >= 0.0);
    let offset = f64::from(unsigned);
    let error = |a: f64| {
        let one = |(x, n): &(f64, f64)| n * (x - a * (sign(x / a - offset) + offset)).powi(2);
        values.iter().map(one).sum::<f64>()
    };
    let candidates = (1..=TRIED).map(|i| largest * i as f64 / TRIED as f64);
    let best = candidates.min_by(|a, b| error(*a).total_cmp(&error(*b))).unwrap_or(largest);
    let levels = Levels { unsigned, estimator };
    let mut parameters = Parameters::from([("scale".to_string(), Tensor::scalar((best as f32).max(f32::MIN_POSITIVE)))]);
    if levels.progresses() {
        parameters.insert(PROGRESS.into(), Tensor::scalar(0f32));
    }
    Ok(levels.encoding(parameters))
}

/// The encoding of an activation that a file stores as two levels; `None` if they are no such pair.
pub fn read_activation(low: f32, high: f32, threshold: f32) -> Option<Encoding> {
    let unsigned = low == 0.0;
    let scale = if unsigned { high / 2.0 } else { high };
    let levels = Levels { unsigned, estimator: ActivationEstimator::default() };
    let fits = scale.is_normal() && scale > 0.0 && levels.narrow_ends(f64::from(scale)) == [low, high, threshold];
    fits.then(|| levels.encoding(Parameters::from([("scale".to_string(), Tensor::scalar(scale))])))
}

/// The two levels of an activation's encoding and the least value that reads as the higher one: `[low, high, threshold]`. `None` for
/// another encoding.
///
/// # Errors
/// If the encoding is not well formed.
pub fn activation_levels(encoding: &Encoding) -> Result<Option<[f32; 3]>> {
    if encoding.kind != KIND || !Levels::are_in(&encoding.settings) {
        return Ok(None);
    }
    let levels = Levels::of(&encoding.settings)?;
    Ok(Some(levels.narrow_ends(levels.scale(&encoding.parameters)?)))
}

fn sign(v: f64) -> f64 {
    if v >= 0.0 { 1.0 } else { -1.0 }
}

impl Levels {
    /// True for the settings of an activation.
    pub(super) fn are_in(settings: &BTreeMap<String, Setting>) -> bool {
        settings.contains_key(UNSIGNED)
    }

    pub(super) fn of(settings: &BTreeMap<String, Setting>) -> Result<Levels> {
        let estimator = match settings.get("estimator") {
            None => Some(ActivationEstimator::default()),
            Some(Setting::Text(name)) => ActivationEstimator::ALL.iter().find(|(known, _)| known == name).map(|(_, e)| *e),
            Some(_) => None,
        };
        let estimator = estimator.ok_or_else(|| {
            let what = format!("is {:?}; known are straight_through, bi_real, ir_net", settings.get("estimator"));
            EncodingError::Setting { kind: KIND, setting: "estimator", what }
        })?;
        Ok(Levels { unsigned: flag(KIND, settings, UNSIGNED)?, estimator })
    }

    fn encoding(&self, parameters: Parameters) -> Encoding {
        let settings =
            [(UNSIGNED.to_string(), Setting::Bool(self.unsigned)), ("estimator".to_string(), Setting::Text(self.estimator.name().into()))];
        Encoding { kind: KIND.to_string(), settings: settings.into(), parameters }
    }

    fn progresses(&self) -> bool {
        self.estimator == ActivationEstimator::IrNet
    }

    fn scale(&self, parameters: &Parameters) -> Result<f64> {
        let list = parameter(KIND, parameters, "scale")?;
        match list.as_slice() {
            [scale] if *scale > 0.0 => Ok(*scale),
            _ => {
                let what = format!("is {list:?}; one positive number is needed");
                Err(EncodingError::Parameter { kind: KIND, parameter: "scale", what })
            }
        }
    }

    /// Lower level, higher level, and the least value that reads as the higher one.
    fn ends(&self, scale: f64) -> [f64; 3] {
        if self.unsigned { [0.0, 2.0 * scale, scale] } else { [-scale, scale, 0.0] }
    }

    /// [`Levels::ends`] in f32, exact for a scale in f32.
    fn narrow_ends(&self, scale: f64) -> [f32; 3] {
        self.ends(scale).map(|v| v as f32)
    }

    fn table(&self, parameters: &Parameters) -> Result<(Table, Parameters)> {
        let [low, high, _] = self.narrow_ends(self.scale(parameters)?);
        let table = Tensor::new(vec![low, high], [1, 2])?;
        Ok((Table { bits: 1, axis: None, group: usize::MAX }, Parameters::from([("codebook".to_string(), table)])))
    }

    /// Gradients by the value and by the scale: `y = a q(v)` with `q' = g`, so `dy/dx = g(v)` and `dy/da = q(v) - g(v) x / a`.
    fn backward(&self, x: &[f64], dy: &[f64], scale: f64, progress: f64) -> (Vec<f64>, f64) {
        let gradient = self.estimator.gradient(progress);
        let (offset, threshold) = (f64::from(self.unsigned), self.ends(scale)[2]);
        let mut by_scale = 0f64;
        let one = |(x, dy): (&f64, &f64)| {
            let level = if *x >= threshold { 1.0 } else { -1.0 };
            let g = gradient(x / scale - offset);
            by_scale += dy * (level + offset - g * x / scale);
            dy * g
        };
        let by_value = x.iter().zip(dy).map(one).collect();
        (by_value, by_scale)
    }
}

impl Codec for Levels {
    fn simulate(&self, value: &Tensor, parameters: &Parameters) -> Result<Tensor> {
        let scale = self.scale(parameters)?;
        let output = if value.dtype() == DType::F64 {
            let [low, high, threshold] = self.ends(scale);
            let read = |x: &f64| if *x >= threshold { high } else { low };
            Tensor::new(value.to_f64_vec()?.iter().map(read).collect::<Vec<f64>>(), value.shape())?
        } else {
            let [low, high, threshold] = self.narrow_ends(scale);
            let read = |x: &f32| if *x >= threshold { high } else { low };
            Tensor::new(value.to_f32_vec()?.iter().map(read).collect::<Vec<f32>>(), value.shape())?.cast(value.dtype())?
        };
        let progress = if self.progresses() { parameter(KIND, parameters, PROGRESS)?[0].clamp(0.0, 1.0) } else { 0.0 };
        let by = parameters.get("scale").ok_or(EncodingError::Parameter { kind: KIND, parameter: "scale", what: "is missing".into() })?;
        let like: [(DType, Vec<usize>); 2] = [value, by].map(|t| (t.dtype(), t.shape().to_vec()));
        let (this, x) = (*self, value.detach());
        Ok(record(KIND, &[value, by], output, move |dy| {
            let (by_value, by_scale) = this.backward(&x.to_f64_vec()?, &dy.to_f64_vec()?, scale, progress);
            let by_value = Tensor::new(by_value, like[0].1.as_slice())?.cast(like[0].0)?;
            let by_scale = Tensor::new(vec![by_scale], like[1].1.as_slice())?.cast(like[1].0)?;
            Ok(vec![Some(by_value), Some(by_scale)])
        }))
    }

    fn simulate_activated(&self, value: &Tensor, activation: Activation, parameters: &Parameters) -> Result<Tensor> {
        self.simulate(&activation.apply(value)?, parameters)
    }

    fn store(&self, value: &Tensor, parameters: &Parameters) -> Result<Stored> {
        let [_, _, threshold] = self.narrow_ends(self.scale(parameters)?);
        let indices = value.to_f32_vec()?.iter().map(|x| u8::from(*x >= threshold)).collect::<Vec<u8>>();
        Ok(Stored { data: Tensor::new(indices, value.shape())?, decode: self.decode(parameters)? })
    }

    fn decode(&self, parameters: &Parameters) -> Result<Decode> {
        let (form, table) = self.table(parameters)?;
        form.decode(&table)
    }

    fn read(&self, data: &Tensor, parameters: &Parameters) -> Result<Tensor> {
        let (form, table) = self.table(parameters)?;
        form.read(data, &table)
    }

    fn describe(&self, _: &Parameters) -> String {
        if self.unsigned { "binary, 0 or one level".into() } else { "binary, both signs".into() }
    }

    fn trainable(&self, _: &Parameters) -> &'static [&'static str] {
        &["scale"]
    }

    /// A trained scale stays positive: a step reduces it to half of its value at most.
    fn project(&self, _: &str, before: &Tensor, after: Tensor) -> Result<Tensor> {
        crate::positive_scale(before, &after)
    }

    fn keeps_zero(&self, _: &Parameters) -> bool {
        self.unsigned
    }

    fn advance(&self, progress: f64) -> Option<Parameters> {
        self.progresses().then(|| Parameters::from([(PROGRESS.to_string(), Tensor::scalar(progress as f32))]))
    }

    /// As it is: the levels of an activation do not follow from one tensor.
    fn refit(&self, _: &Tensor, _: Option<&Tensor>, parameters: &Parameters) -> Result<Encoding> {
        Ok(self.encoding(parameters.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::gradcheck;

    fn encoding(unsigned: bool, estimator: ActivationEstimator, scale: f64, progress: f64) -> Encoding {
        let parameters = [("scale", scale), (PROGRESS, progress)].map(|(name, v)| (name.to_string(), Tensor::scalar(v)));
        Levels { unsigned, estimator }.encoding(parameters.into())
    }

    fn simulate(x: &Tensor, encoding: &Encoding) -> Result<Tensor> {
        crate::simulate(x, &graph::Annotation { mask: None, encoding: Some(encoding.clone()) })
    }

    #[test]
    fn an_element_reads_as_one_of_two_levels_and_zero_stays_zero_behind_a_relu() {
        let x = Tensor::vector(vec![-1f32, -0.0, 0.0, 0.4, 0.5, 3.0]);
        let both = encoding(false, ActivationEstimator::BiReal, 0.5, 0.0);
        assert_eq!(simulate(&x, &both).unwrap(), Tensor::vector(vec![-0.5f32, 0.5, 0.5, 0.5, 0.5, 0.5]));
        let relu = encoding(true, ActivationEstimator::BiReal, 0.5, 0.0);
        assert_eq!(simulate(&x, &relu).unwrap(), Tensor::vector(vec![0f32, 0.0, 0.0, 0.0, 1.0, 1.0]));
        for e in [both, relu] {
            let stored = crate::store(&x, None, &e).unwrap();
            assert_eq!(crate::read(&stored.data, &e).unwrap(), simulate(&x, &e).unwrap());
            let [low, high, threshold] = activation_levels(&e).unwrap().unwrap();
            let again = read_activation(low, high, threshold).unwrap();
            assert_eq!(simulate(&x, &again).unwrap(), simulate(&x, &e).unwrap());
        }
        assert!(read_activation(-0.5, 0.25, 0.0).is_none() && read_activation(0.0, 1.0, 0.25).is_none());
    }

    /// The mean magnitude is the best scale for both signs; for one sign the two means of a two-means clustering with one at zero.
    #[test]
    fn the_scale_has_the_least_error() {
        let scale = |values: &[f64]| {
            let e = fit_activation(&values.iter().map(|x| (*x, 1.0)).collect::<Vec<_>>(), ActivationEstimator::default()).unwrap();
            (e.parameters["scale"].item::<f32>().unwrap(), e.settings[UNSIGNED].clone())
        };
        let (a, unsigned) = scale(&[-1.0, 0.5, 0.25, -0.25]);
        assert!((a - 0.5).abs() < 2e-3 && unsigned == Setting::Bool(false), "{a}");
        let (a, unsigned) = scale(&[0.0, 0.0, 0.1, 0.9, 1.1]);
        assert!((2.0 * a - 1.0).abs() < 4e-3 && unsigned == Setting::Bool(true), "{a}");
        let error = fit_activation(&[(0.0, 3.0)], ActivationEstimator::default()).unwrap_err().to_string();
        assert!(error.contains("zero"), "{error}");
    }

    /// Each estimator is the true gradient of a smooth function of the value, in f64 by central differences.
    #[test]
    fn the_gradient_is_that_of_the_estimators_function() {
        let x = Tensor::vector(vec![-0.9f64, -0.35, -0.1, 0.05, 0.3, 0.45, 0.7, 1.3]);
        let dy = Tensor::vector((0..8).map(|i| 0.5 + 0.1 * f64::from(i)).collect::<Vec<f64>>());
        for unsigned in [false, true] {
            for (name, estimator) in ActivationEstimator::ALL {
                for progress in [0.0, 0.5, 0.9] {
                    let (a, offset) = (0.4f64, f64::from(unsigned));
                    let (t, k) = super::super::form::sharpness(progress);
                    let function = |x: &Tensor| -> tensor::Result<Tensor> {
                        let v = x.mul_scalar(1.0 / a)?.add_scalar(-offset)?;
                        let held = |v: &Tensor| v.max(&v.scalar_like(-1.0)?)?.min(&v.scalar_like(1.0)?);
                        let y = match estimator {
                            ActivationEstimator::StraightThrough => held(&v)?,
                            // 2 v - v |v| between -1 and 1.
                            ActivationEstimator::BiReal => {
                                let v = held(&v)?;
                                v.mul_scalar(2.0)?.sub(&v.mul(&v.abs()?)?)?
                            }
                            ActivationEstimator::IrNet => v.mul_scalar(t)?.tanh()?.mul_scalar(k)?,
                        };
                        y.mul_scalar(a)
                    };
                    gradcheck::check(std::slice::from_ref(&x), |x| function(&x[0])).unwrap();
                    let tracked = x.tracked().unwrap();
                    let gradient = |y: Tensor| y.backward_from(dy.clone()).unwrap().get(&tracked).unwrap().to_f64_vec().unwrap();
                    let e = encoding(unsigned, estimator, a, progress);
                    let (ours, wanted) = (gradient(simulate(&tracked, &e).unwrap()), gradient(function(&tracked).unwrap()));
                    for (a, b) in ours.iter().zip(&wanted) {
                        assert!((a - b).abs() < 1e-9, "{name} {unsigned} {progress}: {ours:?} {wanted:?}");
                    }
                }
            }
        }
    }

    /// Where no gradient passes to the value, the output is a multiple of the scale.
    #[test]
    fn the_scales_gradient_is_exact_where_elements_are_far_from_the_threshold() {
        let x = Tensor::vector(vec![20f64, -30.0, 9.0]);
        for unsigned in [false, true] {
            gradcheck::check(&[Tensor::scalar(0.5f64)], |scale| {
                let mut e = encoding(unsigned, ActivationEstimator::StraightThrough, 0.5, 0.0);
                e.parameters.insert("scale".into(), scale[0].clone());
                simulate(&x, &e).map_err(|e| tensor::TensorError::value("simulate", e.to_string()))
            })
            .unwrap();
        }
    }

    #[test]
    fn only_the_estimator_that_sharpens_follows_the_training() {
        for (name, estimator) in ActivationEstimator::ALL {
            let e = fit_activation(&[(-1.0, 1.0), (0.5, 1.0)], estimator).unwrap();
            assert_eq!(e.settings["estimator"], Setting::Text(name.into()));
            let told = crate::advance(&e, 0.25).unwrap();
            assert_eq!(told.is_some(), estimator == ActivationEstimator::IrNet);
            assert_eq!(e.parameters.contains_key(PROGRESS), told.is_some());
        }
        let mut wrong = encoding(true, ActivationEstimator::IrNet, 1.0, 0.0);
        wrong.settings.insert("estimator".into(), Setting::Text("x".into()));
        assert!(crate::open(&wrong).unwrap_err().to_string().contains("bi_real"));
    }
}
