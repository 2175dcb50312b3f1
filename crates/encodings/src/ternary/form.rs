//! Ternary weights as they are used: thresholds, scales, gradients.
use super::{KIND, Threshold};
use crate::levels::{Backward, Elements, Leveled, Levels, each, finite, flag, for_each, integer, parameter};
use crate::{EncodingError, Parameters, Result};
use graph::Setting;
use std::collections::BTreeMap;
use tensor::Tensor;

/// Indices of the three levels; the fourth of two bits is not used.
const NEGATIVE: u8 = 0;
const ZERO: u8 = 1;
const POSITIVE: u8 = 2;

/// The learned scales, of positive and of negative weights.
const LEARNED: [&str; 2] = ["positive", "negative"];

/// Fixed settings of a ternary weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Form {
    /// The axis of the output channels; `None`: one threshold and scale for the tensor.
    pub(super) axis: Option<usize>,
    /// Two learned scales, `positive` and `negative`, in place of one that follows from the weight, `scale`.
    pub(super) learned: bool,
    pub(super) threshold: Threshold,
}

impl Form {
    pub(super) fn of(settings: &BTreeMap<String, Setting>) -> Result<Form> {
        let refused = |setting, what: String| EncodingError::Setting { kind: KIND, setting, what };
        let share = |name: &'static str| match settings.get(name) {
            None => Ok(None),
            Some(Setting::Float(of)) if of.is_finite() && *of >= 0.0 => Ok(Some(*of)),
            Some(Setting::Int(of)) if *of >= 0 => Ok(Some(*of as f64)),
            Some(other) => Err(refused(name, format!("is {other:?}; a number of at least 0 is needed"))),
        };
        let threshold = match (share("threshold_of_mean")?, share("threshold_of_max")?) {
            (None, None) => Threshold::Optimal,
            (Some(of), None) => Threshold::Mean(of),
            (None, Some(of)) => Threshold::Max(of),
            _ => return Err(refused("threshold_of_mean", "and threshold_of_max are both given".into())),
        };
        Ok(Form { axis: integer(KIND, settings, "axis")?, learned: flag(KIND, settings, "learned")?, threshold })
    }

    /// Threshold, and mean magnitude above it, for the magnitudes of one channel. Zero and one if no magnitude is above.
    fn threshold_and_scale(&self, mut magnitudes: Vec<f64>) -> (f64, f64) {
        let count = magnitudes.len().max(1) as f64;
        let above = |limit: f64, list: &[f64]| {
            let (n, sum) = list.iter().filter(|m| **m > limit).fold((0u64, 0f64), |(n, sum), m| (n + 1, sum + m));
            let mean = sum / n as f64;
            if n > 0 && (mean as f32).is_normal() { (limit, mean) } else { (0.0, 1.0) }
        };
        match self.threshold {
            Threshold::Mean(of) => above(f64::from((of * magnitudes.iter().sum::<f64>() / count) as f32), &magnitudes),
            Threshold::Max(of) => above(f64::from((of * magnitudes.iter().copied().fold(0.0, f64::max)) as f32), &magnitudes),
            Threshold::Optimal => {
                // The k largest with scale S_k / k leave the error sum(w^2) - S_k^2 / k; at its least the threshold is half the scale.
                magnitudes.sort_unstable_by(|a, b| b.total_cmp(a));
                let (mut sum, mut best) = (0f64, (0f64, 1f64));
                for (k, m) in magnitudes.iter().enumerate() {
                    sum += m;
                    let (gain, scale) = (sum * sum / (k + 1) as f64, sum / (k + 1) as f64);
                    if gain > best.0 && (scale as f32).is_normal() {
                        best = (gain, scale);
                    }
                }
                if best.0 > 0.0 { (f64::from(best.1 as f32 / 2.0), best.1) } else { (0.0, 1.0) }
            }
        }
    }

    /// The two scales of an element's channel, where they are learned.
    fn learned_scales(&self, parameters: &Parameters) -> Result<(Vec<f64>, Vec<f64>)> {
        let [positive, negative] = LEARNED.map(|name| parameter(KIND, parameters, name));
        let (positive, negative) = (positive?, negative?);
        if positive.len() != negative.len() {
            let what = format!("has {} numbers, 'positive' has {}", negative.len(), positive.len());
            return Err(EncodingError::Parameter { kind: KIND, parameter: "negative", what });
        }
        Ok((positive, negative))
    }

    /// The learned scales as they are.
    fn kept<'p>(parameters: &'p Parameters) -> impl Iterator<Item = (String, Tensor)> + 'p {
        LEARNED.into_iter().filter_map(|name| Some((name.to_string(), parameters.get(name)?.clone())))
    }
}

impl Leveled for Form {
    const KIND: &'static str = KIND;

    fn axis(&self) -> Option<usize> {
        self.axis
    }

    fn levels(&self, parameters: &Parameters) -> Result<Levels> {
        let levels = |table, scale| Levels { bits: 2, axis: self.axis, table, scale };
        if self.learned {
            let (positive, negative) = self.learned_scales(parameters)?;
            return Ok(levels(positive.iter().zip(&negative).flat_map(|(p, n)| [-n, 0.0, *p, *p]).collect(), None));
        }
        let scale = parameter(KIND, parameters, "scale")?;
        Ok(match self.axis {
            Some(_) => levels(vec![-1.0, 0.0, 1.0, 1.0], Some(scale)),
            None => levels(vec![-scale[0], 0.0, scale[0], scale[0]], None),
        })
    }

    fn assign(&self, elements: &Elements, parameters: &Parameters) -> Result<Vec<u8>> {
        let threshold = for_each(KIND, parameters, "threshold", elements.channels)?;
        for name in LEARNED.into_iter().filter(|_| self.learned) {
            for_each(KIND, parameters, name, elements.channels)?;
        }
        let one = |(x, c): (&f64, usize)| match threshold[c] {
            t if *x > t => POSITIVE,
            t if *x < -t => NEGATIVE,
            _ => ZERO,
        };
        Ok(elements.x.iter().zip(elements.channel()).map(one).collect())
    }

    /// Li et al. 2016, section 2.3: straight through. With learned scales Zhu et al. 2017, equations 7 and 8: each scale gets
    /// the sum over its weights, and a weight that is not zero the gradient times its scale. Their weights are normalized to
    /// [-1, 1]; these are not, so the factor is the scale's share of the mean of both.
    fn backward(&self, elements: &Elements, indices: &[u8], dy: &[f64], parameters: &Parameters, learned: bool) -> Result<Backward> {
        if !self.learned {
            return Ok(Backward::default());
        }
        let (positive, negative) = self.learned_scales(parameters)?;
        let (mut up, mut down) = (vec![0f64; positive.len()], vec![0f64; negative.len()]);
        let mut value = Vec::with_capacity(dy.len());
        for ((i, dy), c) in indices.iter().zip(dy).zip(elements.channel()) {
            let mean = (positive[c] + negative[c]) / 2.0;
            value.push(match *i {
                POSITIVE => {
                    up[c] += dy;
                    dy * positive[c] / mean
                }
                NEGATIVE => {
                    down[c] -= dy;
                    dy * negative[c] / mean
                }
                _ => *dy,
            });
        }
        Ok(Backward { value: Some(value), parameters: if learned { vec![up, down] } else { vec![] } })
    }

    fn describe(&self) -> String {
        let per = if self.axis.is_some() { "channel" } else { "tensor" };
        format!("ternary per {per}{}", if self.learned { ", learned scales" } else { "" })
    }

    fn trainable(&self) -> &'static [&'static str] {
        if self.learned { &LEARNED } else { &[] }
    }

    fn fitted(&self, weight: &Tensor, mask: Option<&Tensor>, keep: Option<&Parameters>) -> Result<Parameters> {
        let x = finite(KIND, weight)?;
        let channels = Elements::new(&x, weight.shape(), self.axis)?.live(mask)?;
        let found: Vec<(f64, f64)> = channels.iter().map(|c| self.threshold_and_scale(c.iter().map(|x| x.abs()).collect())).collect();
        let per_channel = |list: Vec<f64>| each(list, self.axis);
        let mut out = Parameters::from([("threshold".to_string(), per_channel(found.iter().map(|f| f.0).collect()))]);
        if !self.learned {
            out.insert("scale".into(), per_channel(found.iter().map(|f| f.1).collect()));
            return Ok(out);
        }
        if let Some(keep) = keep {
            out.extend(Self::kept(keep));
            return Ok(out);
        }
        for (name, sign) in [("positive", 1.0), ("negative", -1.0)] {
            let of = |(channel, (threshold, scale)): (&Vec<f64>, &(f64, f64))| {
                let above = channel.iter().map(|x| x * sign).filter(|x| x > threshold);
                let (n, sum) = above.fold((0u64, 0f64), |(n, sum), x| (n + 1, sum + x));
                if n > 0 && ((sum / n as f64) as f32).is_normal() { sum / n as f64 } else { *scale }
            };
            out.insert(name.into(), per_channel(channels.iter().zip(&found).map(of).collect()));
        }
        Ok(out)
    }

    fn follows(&self) -> bool {
        true
    }

    fn settings(&self) -> BTreeMap<String, Setting> {
        let mut out = BTreeMap::from([("learned".to_string(), Setting::Bool(self.learned))]);
        out.extend(self.axis.map(|axis| ("axis".to_string(), Setting::Int(axis as i64))));
        match self.threshold {
            Threshold::Optimal => {}
            Threshold::Mean(of) => {
                out.insert("threshold_of_mean".into(), Setting::Float(of));
            }
            Threshold::Max(of) => {
                out.insert("threshold_of_max".into(), Setting::Float(of));
            }
        }
        out
    }
}
