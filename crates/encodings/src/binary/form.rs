//! Binary weights as they are used: sign, scale, the two estimators.
use super::{Estimator, KIND};
use crate::levels::{Backward, Elements, Leveled, Levels, PROGRESS, each, finite, for_each, integer, parameter};
use crate::{EncodingError, Parameters, Result};
use graph::Setting;
use std::collections::BTreeMap;
use tensor::Tensor;

/// Sharpness of the hyperbolic tangent at the beginning and at the end of a training, as powers of ten (IR-Net's code; the
/// paper, section 3.3, begins at 0.1).
const SHARPNESS: (f64, f64) = (-2.0, 1.0);

/// Fixed settings of a binary weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// The axis of the output channels; `None`: one scale for the tensor.
    pub(super) axis: Option<usize>,
    pub(super) estimator: Estimator,
}

/// Sharpness `t` of the hyperbolic tangent after so much of a training, 0 to 1, and its factor `k = max(1 / t, 1)`.
pub(super) fn sharpness(progress: f64) -> (f64, f64) {
    let t = 10f64.powf(SHARPNESS.0 + (SHARPNESS.1 - SHARPNESS.0) * progress);
    (t, (1.0 / t).max(1.0))
}

/// Mean and standard deviation of a channel.
#[derive(Clone, Copy)]
struct Moments {
    mean: f64,
    deviation: f64,
}

impl Form {
    pub(super) fn of(settings: &BTreeMap<String, Setting>) -> Result<Form> {
        let estimator = match settings.get("estimator") {
            None => Estimator::StraightThrough,
            Some(Setting::Text(name)) if name == "straight_through" => Estimator::StraightThrough,
            Some(Setting::Text(name)) if name == "ir_net" => Estimator::IrNet,
            Some(other) => {
                let what = format!("is {other:?}; known are straight_through, ir_net");
                return Err(EncodingError::Setting { kind: KIND, setting: "estimator", what });
            }
        };
        Ok(Form { axis: integer(KIND, settings, "axis")?, estimator })
    }

    fn centred(&self) -> bool {
        self.estimator == Estimator::IrNet
    }

    /// Moments of each channel; a channel of one value has deviation 1.
    fn moments(channels: &[Vec<f64>]) -> Vec<Moments> {
        let of = |x: &Vec<f64>| {
            let n = x.len().max(1) as f64;
            let mean = x.iter().sum::<f64>() / n;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
            let deviation = variance.sqrt();
            Moments { mean, deviation: if deviation > 0.0 { deviation } else { 1.0 } }
        };
        channels.iter().map(of).collect()
    }

    /// IR-Net, equations 5 and 10 to 12: the gradient of `s k tanh(t z)` for the standardized weight `z = (w - mean) / deviation`,
    /// with `t` growing geometrically and `k = max(1 / t, 1)`. The mean and the deviation depend on the weight and take part; the
    /// scale counts as fixed. It is the mean magnitude of the centred weight, which the paper rounds to a power of two.
    fn information_retention(&self, elements: &Elements, dy: &[f64], parameters: &Parameters) -> Result<Vec<f64>> {
        let scale = for_each(KIND, parameters, "scale", elements.channels)?;
        let progress = parameter(KIND, parameters, PROGRESS)?[0].clamp(0.0, 1.0);
        let (t, k) = sharpness(progress);
        let channels = elements.live(None)?;
        let moments = Self::moments(&channels);
        let standardized = |x: f64, c: usize| (x - moments[c].mean) / moments[c].deviation;
        // The gradient by the standardized weight, and the sums that mean and deviation pass on.
        let mut sums = vec![(0f64, 0f64); elements.channels];
        let mut inner = Vec::with_capacity(dy.len());
        for ((x, dy), c) in elements.x.iter().zip(dy).zip(elements.channel()) {
            let z = standardized(*x, c);
            let g = dy * scale[c] * k * t * (1.0 - (t * z).tanh().powi(2));
            sums[c] = (sums[c].0 + g, sums[c].1 + g * z);
            inner.push(g);
        }
        let by_weight = |((g, x), c): ((&f64, &f64), usize)| {
            let n = channels[c].len() as f64;
            (g - sums[c].0 / n - standardized(*x, c) * sums[c].1 / (n - 1.0).max(1.0)) / moments[c].deviation
        };
        Ok(inner.iter().zip(elements.x).zip(elements.channel()).map(by_weight).collect())
    }
}

impl Leveled for Form {
    const KIND: &'static str = KIND;

    fn axis(&self) -> Option<usize> {
        self.axis
    }

    fn levels(&self, parameters: &Parameters) -> Result<Levels> {
        let scale = parameter(KIND, parameters, "scale")?;
        let levels = |table, scale| Levels { bits: 1, axis: self.axis, table, scale };
        Ok(match self.axis {
            Some(_) => levels(vec![-1.0, 1.0], Some(scale)),
            None => levels(vec![-scale[0], scale[0]], None),
        })
    }

    fn assign(&self, elements: &Elements, parameters: &Parameters) -> Result<Vec<u8>> {
        let centre = match self.centred() {
            true => for_each(KIND, parameters, "centre", elements.channels)?,
            false => vec![0.0; elements.channels],
        };
        Ok(elements.x.iter().zip(elements.channel()).map(|(x, c)| u8::from(*x >= centre[c])).collect())
    }

    fn backward(&self, elements: &Elements, _: &[u8], dy: &[f64], parameters: &Parameters, _: bool) -> Result<Backward> {
        let value = match self.estimator {
            Estimator::StraightThrough => elements.x.iter().zip(dy).map(|(x, dy)| if x.abs() <= 1.0 { *dy } else { 0.0 }).collect(),
            Estimator::IrNet => self.information_retention(elements, dy, parameters)?,
        };
        Ok(Backward { value: Some(value), parameters: vec![] })
    }

    fn describe(&self) -> String {
        format!("binary per {}", if self.axis.is_some() { "channel" } else { "tensor" })
    }

    fn keeps_zero(&self) -> bool {
        false
    }

    fn fitted(&self, weight: &Tensor, _: Option<&Tensor>, keep: Option<&Parameters>) -> Result<Parameters> {
        let x = finite(KIND, weight)?;
        let channels = Elements::new(&x, weight.shape(), self.axis)?.live(None)?;
        let moments = Self::moments(&channels);
        let centre = |c: usize| if self.centred() { f64::from(moments[c].mean as f32) } else { 0.0 };
        let magnitude = |(c, x): (usize, &Vec<f64>)| {
            let mean = x.iter().map(|x| (x - centre(c)).abs()).sum::<f64>() / x.len().max(1) as f64;
            if (mean as f32).is_normal() { mean } else { 1.0 }
        };
        let scale = each(channels.iter().enumerate().map(magnitude).collect(), self.axis);
        let mut out = Parameters::from([("scale".to_string(), scale)]);
        if self.centred() {
            out.insert("centre".into(), each((0..channels.len()).map(centre).collect(), self.axis));
            let progress = keep.and_then(|p| p.get(PROGRESS)).cloned();
            out.insert(PROGRESS.into(), progress.unwrap_or_else(|| Tensor::scalar(0f32)));
        }
        Ok(out)
    }

    fn follows(&self) -> bool {
        true
    }

    fn settings(&self) -> BTreeMap<String, Setting> {
        let estimator = if self.centred() { "ir_net" } else { "straight_through" };
        let mut out = BTreeMap::from([("estimator".to_string(), Setting::Text(estimator.into()))]);
        out.extend(self.axis.map(|axis| ("axis".to_string(), Setting::Int(axis as i64))));
        out
    }
}
