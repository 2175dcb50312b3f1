//! Common code of encodings whose levels are a fixed symmetric set in [-1, 1], times a scale at which weights are clipped: powers
//! of two and sums of them.
use crate::levels::{Backward, Elements, Leveled, Levels, each, finite, flag, for_each, integer, parameter};
use crate::{EncodingError, Parameters, Result};
use graph::Setting;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use tensor::Tensor;

/// Scales to try around the largest magnitude, as shares of it, before the best one is refined.
const TRIED: std::ops::RangeInclusive<u32> = 6..=26;

/// How often a scale and its levels are fitted to each other.
const ROUNDS: usize = 8;

/// A set of levels.
pub(crate) trait LevelSet: std::fmt::Debug + Clone + Copy + Send + Sync + PartialEq + 'static {
    /// Name of the encoding.
    const KIND: &'static str;
    /// Its name in a sentence.
    const WORDS: &'static str;
    /// The magnitudes for a number of bits, ascending from 0 to 1; at most `2^(bits - 1)`.
    fn magnitudes(bits: u32) -> Vec<f64>;
}

/// Fixed settings of a weight on such a set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Clipped<S> {
    pub(crate) bits: u32,
    /// The axis of the output channels; `None`: one scale for the tensor.
    pub(crate) axis: Option<usize>,
    /// The weight is centred and divided by its standard deviation first; the scale is in units of that.
    pub(crate) normalize: bool,
    /// Scales are powers of two and are not trained.
    pub(crate) shifts: bool,
    pub(crate) set: PhantomData<S>,
}

/// Levels in ascending order, with the midpoints between them.
struct SortedLevels {
    levels: Vec<f64>,
    middles: Vec<f64>,
}

impl SortedLevels {
    /// Index of the nearest level; the lower one at a midpoint.
    fn nearest(&self, z: f64) -> usize {
        self.middles.partition_point(|m| *m < z)
    }

    /// Squared error at a scale, and the scale of least error for the levels that the elements have at this scale.
    fn error(&self, x: &[f64], scale: f64) -> (f64, f64) {
        let (mut error, mut xl, mut ll) = (0f64, 0f64, 0f64);
        for x in x {
            let level = self.levels[self.nearest(x / scale)];
            error += (x - level * scale).powi(2);
            (xl, ll) = (xl + x * level, ll + level * level);
        }
        (error, if ll > 0.0 { xl / ll } else { scale })
    }

    /// The scale with the least squared error found; 1 for zeros alone.
    fn fit(&self, x: &[f64], shifts: bool) -> f64 {
        let largest = x.iter().fold(0f64, |m, x| m.max(x.abs()));
        if !((largest as f32).is_normal()) {
            return 1.0;
        }
        let mut best = (f64::INFINITY, largest);
        let mut attempt = |scale: f64| {
            let (error, next) = self.error(x, scale);
            if error < best.0 {
                best = (error, scale);
            }
            next
        };
        if shifts {
            let top = largest.log2().ceil() as i32 + 1;
            (top - 6..=top).for_each(|e| {
                attempt(2f64.powi(e));
            });
            return best.1;
        }
        for share in TRIED {
            let mut scale = largest * f64::from(share) / 20.0;
            for _ in 0..ROUNDS {
                let next = attempt(scale);
                if next == scale || !((next as f32).is_normal() && next > 0.0) {
                    break;
                }
                scale = next;
            }
        }
        best.1
    }
}

/// Centre and divisor of each channel's elements.
struct Frame {
    scale: Vec<f64>,
    deviation: Vec<f64>,
    centre: Vec<f64>,
}

impl<S: LevelSet> Clipped<S> {
    pub(crate) fn of(settings: &BTreeMap<String, Setting>) -> Result<Self> {
        let flag = |name| flag(S::KIND, settings, name);
        let bits = integer(S::KIND, settings, "bits")?.unwrap_or(4) as u32;
        if !(2..=5).contains(&bits) {
            let what = format!("is {bits}; 2 to 5 are possible");
            return Err(EncodingError::Setting { kind: S::KIND, setting: "bits", what });
        }
        let axis = integer(S::KIND, settings, "axis")?;
        Ok(Clipped { bits, axis, normalize: flag("normalize")?, shifts: flag("shifts")?, set: PhantomData })
    }

    fn steps(&self) -> SortedLevels {
        let magnitudes = S::magnitudes(self.bits);
        let levels: Vec<f64> = magnitudes.iter().skip(1).rev().map(|m| -m).chain(magnitudes.iter().copied()).collect();
        SortedLevels { middles: levels.windows(2).map(|l| (l[0] + l[1]) / 2.0).collect(), levels }
    }

    fn frame(&self, parameters: &Parameters, channels: usize) -> Result<Frame> {
        let of = |name| for_each(S::KIND, parameters, name, channels);
        let (deviation, centre) = match self.normalize {
            true => (of("deviation")?, of("centre")?),
            false => (vec![1.0; channels], vec![0.0; channels]),
        };
        Ok(Frame { scale: of("scale")?, deviation, centre })
    }
}

impl<S: LevelSet> Leveled for Clipped<S> {
    const KIND: &'static str = S::KIND;

    fn axis(&self) -> Option<usize> {
        self.axis
    }

    fn levels(&self, parameters: &Parameters) -> Result<Levels> {
        let mut table = self.steps().levels;
        table.resize(1 << self.bits, 1.0);
        let mut scale = parameter(S::KIND, parameters, "scale")?;
        if self.normalize {
            let deviation = for_each(S::KIND, parameters, "deviation", scale.len())?;
            scale.iter_mut().zip(deviation).for_each(|(s, d)| *s *= d);
        }
        Ok(match self.axis {
            Some(_) => Levels { bits: self.bits, axis: self.axis, table, scale: Some(scale) },
            None => Levels { bits: self.bits, axis: None, table: table.iter().map(|l| l * scale[0]).collect(), scale: None },
        })
    }

    fn assign(&self, elements: &Elements, parameters: &Parameters) -> Result<Vec<u8>> {
        let (steps, frame) = (self.steps(), self.frame(parameters, elements.channels)?);
        let one = |(x, c): (&f64, usize)| steps.nearest((x - frame.centre[c]) / (frame.deviation[c] * frame.scale[c])) as u8;
        Ok(elements.x.iter().zip(elements.channel()).map(one).collect())
    }

    /// Li, Dong and Wang 2020, equation 6: with `z = w / s` the scale gets `level - z` where |z| <= 1, else the sign of `z`; the
    /// weight's gradient passes straight through. Of a normalized weight the centre takes its share; the deviation counts as fixed.
    fn backward(&self, elements: &Elements, indices: &[u8], dy: &[f64], parameters: &Parameters, learned: bool) -> Result<Backward> {
        let mut out = Backward::default();
        if self.normalize {
            let (mut sums, mut counts) = (vec![0f64; elements.channels], vec![0f64; elements.channels]);
            for (dy, c) in dy.iter().zip(elements.channel()) {
                (sums[c], counts[c]) = (sums[c] + dy, counts[c] + 1.0);
            }
            out.value = Some(dy.iter().zip(elements.channel()).map(|(dy, c)| dy - sums[c] / counts[c]).collect());
        }
        if learned {
            let (steps, frame) = (self.steps(), self.frame(parameters, elements.channels)?);
            let mut by_scale = vec![0f64; elements.channels];
            for (((x, i), dy), c) in elements.x.iter().zip(indices).zip(dy).zip(elements.channel()) {
                let z = (x - frame.centre[c]) / (frame.deviation[c] * frame.scale[c]);
                let slope = if z.abs() <= 1.0 { steps.levels[usize::from(*i)] - z } else { z.signum() };
                by_scale[c] += dy * frame.deviation[c] * slope;
            }
            out.parameters = vec![by_scale];
        }
        Ok(out)
    }

    fn describe(&self) -> String {
        let per = if self.axis.is_some() { "channel" } else { "tensor" };
        format!("{}-bit {} per {per}{}", self.bits, S::WORDS, if self.normalize { ", normalized" } else { "" })
    }

    fn trainable(&self) -> &'static [&'static str] {
        if self.shifts { &[] } else { &["scale"] }
    }

    fn keeps_zero(&self) -> bool {
        !self.normalize
    }

    fn fitted(&self, weight: &Tensor, mask: Option<&Tensor>, keep: Option<&Parameters>) -> Result<Parameters> {
        let x = finite(S::KIND, weight)?;
        let mut channels = Elements::new(&x, weight.shape(), self.axis)?.live(mask)?;
        let mut out = Parameters::new();
        if self.normalize {
            let (mut centre, mut deviation) = (vec![], vec![]);
            for x in &mut channels {
                let n = x.len().max(1) as f64;
                let mean = f64::from((x.iter().sum::<f64>() / n) as f32);
                let spread = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt() as f32;
                let spread = if spread.is_normal() { f64::from(spread) } else { 1.0 };
                x.iter_mut().for_each(|x| *x = (*x - mean) / spread);
                centre.push(mean);
                deviation.push(spread);
            }
            out.extend([("centre".to_string(), each(centre, self.axis)), ("deviation".to_string(), each(deviation, self.axis))]);
        }
        let steps = self.steps();
        let scale = match keep.and_then(|p| p.get("scale")) {
            Some(scale) => scale.clone(),
            None => each(channels.iter().map(|x| steps.fit(x, self.shifts)).collect(), self.axis),
        };
        out.insert("scale".into(), scale);
        Ok(out)
    }

    /// Whether the scale is trained.
    fn follows(&self) -> bool {
        self.normalize
    }

    fn settings(&self) -> BTreeMap<String, Setting> {
        let mut out = BTreeMap::from([
            ("bits".to_string(), Setting::Int(i64::from(self.bits))),
            ("normalize".to_string(), Setting::Bool(self.normalize)),
            ("shifts".to_string(), Setting::Bool(self.shifts)),
        ]);
        out.extend(self.axis.map(|axis| ("axis".to_string(), Setting::Int(axis as i64))));
        out
    }
}

#[cfg(test)]
mod tests;
