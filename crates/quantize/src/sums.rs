//! How precise the scales of a layer may be for its sums to stay exact in f32.
//!
//! In units of the two scales' powers of two a product is an integer, and so is a sum: it is exact in any order as long as it and
//! its partial sums stay below 2^24. The size of the sums comes from calibration: the largest result of each output channel, and
//! for sums that cancel four standard deviations of as many independent products; never more than the largest possible sum. The
//! remaining room up to 2^24 is shared between the scales of data and weight. The weight gets the larger part, since it has a
//! scale for each channel and the data one scale for all readers.
use crate::observer::Statistics;
use crate::{QuantPlan, Result};
use encodings::affine::{Precision, channels, unit};
use graph::{Model, ValueId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tensor::Tensor;

/// Integers that f32 counts exactly.
const EXACT: f64 = (1u64 << 24) as f64;

/// Ratio of the largest partial sum to the largest result.
const ON_THE_WAY: f64 = 1.5;

/// Standard deviations of a sum of independent products that are covered.
const DEVIATIONS: f64 = 4.0;

/// The data's share of the room, as an exponent.
const SHARE: f64 = 3.0 / 7.0;

/// A node whose results are sums of products of quantized numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct SumPart {
    /// The node's name.
    pub node: String,
    /// Value that holds the sum.
    pub output: ValueId,
    /// Origin of the grids of its data: one value, or the two factors of a product.
    pub data: Vec<ValueId>,
    /// A constant weight with the axis of its output channels, and the axis of the result they become, from the last.
    pub weight: Option<(ValueId, Option<usize>)>,
    /// Axes of the result behind the channels.
    pub behind: usize,
    /// A constant bias.
    pub bias: Option<ValueId>,
    /// For a mean: the number of summed elements; 0: all of a channel.
    pub mean_of: Option<usize>,
}

/// The largest results of a sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Largest {
    /// Largest magnitude in each channel, or over all.
    results: Vec<f32>,
    /// Largest number of elements of the data for each of the results.
    elements: usize,
}

impl Largest {
    /// Adds results of shape `[.., channels, behind..]`, from data of `elements` elements.
    pub(crate) fn update(&mut self, results: &Tensor, part: &SumPart, elements: Option<usize>) {
        let Ok(x) = results.as_slice::<f32>() else { return };
        let axis = results.rank().checked_sub(part.behind + 1).filter(|_| part.weight.is_some_and(|w| w.1.is_some()));
        let (count, run) = match axis {
            Some(axis) => (results.shape()[axis], results.shape()[axis + 1..].iter().product::<usize>().max(1)),
            None => (1, x.len().max(1)),
        };
        if self.results.len() != count {
            self.results = vec![0.0; count];
        }
        for (i, piece) in x.chunks(run).enumerate() {
            let largest = &mut self.results[i % count];
            *largest = piece.iter().fold(*largest, |a, v| a.max(v.abs()));
        }
        self.elements = self.elements.max(elements.unwrap_or(0) / x.len().max(1));
    }
}

/// Observed sums and data of a model.
pub(crate) struct Sums<'a> {
    pub(crate) model: &'a Model,
    pub(crate) plan: &'a QuantPlan,
    pub(crate) largest: &'a BTreeMap<u32, Largest>,
    pub(crate) values: &'a BTreeMap<u32, Statistics>,
}

impl Sums<'_> {
    /// True if it sums up products of integers of more than 8 bits: those are exact in f32 with no scales, and no kernel computes on them.
    fn is_wide(&self, part: &SumPart) -> bool {
        let weight = part.weight.and_then(|(id, _)| self.plan.constants.get(&id)?.grid());
        let data = part.data.iter().filter_map(|v| self.plan.activations.get(v));
        data.chain(&weight).any(|grid| grid.bits > 8)
    }

    /// For each value whose grid sums depend on, the precision of its scale. `steps` are the scales that would cover the ranges
    /// exactly.
    pub(crate) fn of_data(&self, steps: &BTreeMap<ValueId, f64>) -> Result<BTreeMap<ValueId, Precision>> {
        let mut limits: BTreeMap<ValueId, f64> = BTreeMap::new();
        for part in self.plan.sums.iter().filter(|part| !self.is_wide(part)) {
            let scales: Vec<f64> = part.data.iter().filter_map(|v| steps.get(v)).copied().collect();
            if scales.len() != part.data.len() {
                continue;
            }
            let room = match part.weight {
                None => EXACT * scales.iter().product::<f64>() / self.longest(part)?.first().copied().unwrap_or(0.0),
                Some((weight, _)) => {
                    let covering = self.covering(weight)?;
                    let units = self.longest(part)?.into_iter().zip(covering.iter().cycle());
                    EXACT * scales[0] / units.map(|(sum, scale)| sum / scale).filter(|u| u.is_finite()).fold(0.0, f64::max)
                }
            };
            let share = match (part.weight, scales.len()) {
                (Some(_), _) => SHARE,
                (None, n) => 1.0 / n as f64,
            };
            for value in &part.data {
                let limit = limits.entry(*value).or_insert(f64::INFINITY);
                *limit = limit.min(room.max(1.0).powf(share));
            }
        }
        Ok(limits.into_iter().map(|(id, limit)| (id, Precision::up_to(limit))).collect())
    }

    /// For each constant weight, the precision of its scales given those of its data, and the nodes whose sums are not exact with
    /// any precision.
    pub(crate) fn of_weights(&self) -> Result<(BTreeMap<ValueId, Precision>, Vec<String>)> {
        let mut limits: BTreeMap<ValueId, f64> = BTreeMap::new();
        let mut inexact = vec![];
        for part in self.plan.sums.iter().filter(|part| !self.is_wide(part)) {
            let scale = |id: &ValueId| self.model.annotations.encoding(*id)?.parameters.get("scale")?.item::<f32>().ok();
            let scales: Vec<f32> = part.data.iter().filter_map(scale).collect();
            if scales.len() != part.data.len() {
                continue;
            }
            let units = scales.iter().map(|s| unit(*s)).product::<f64>();
            let longest = self.longest(part)?;
            let limit = match part.weight {
                None => EXACT * units / longest.first().copied().unwrap_or(0.0),
                Some((weight, _)) => {
                    let covering = self.covering(weight)?;
                    let room = longest.iter().zip(covering.iter().cycle()).map(|(sum, scale)| EXACT * units * scale / sum);
                    let limit = room.filter(|r| !r.is_nan()).fold(f64::INFINITY, f64::min);
                    let held = limits.entry(weight).or_insert(f64::INFINITY);
                    *held = held.min(limit);
                    limit
                }
            };
            // A scale may be up to twice as fine as the power of two above it.
            if limit < 0.5 {
                inexact.push(part.node.clone());
            }
        }
        Ok((limits.into_iter().map(|(id, limit)| (id, Precision::up_to(limit))).collect(), inexact))
    }

    /// The longest sum of each channel, bias included, if the bias is not the larger part: [`encodings::affine::fit_bias`] makes
    /// room for a larger one.
    fn longest(&self, part: &SumPart) -> Result<Vec<f64>> {
        let Some(seen) = self.largest.get(&part.output.0) else { return Ok(vec![]) };
        let data: Vec<(f64, f64)> = part.data.iter().map(|v| self.magnitudes(*v)).collect();
        if let Some(count) = part.mean_of {
            let count = if count == 0 { seen.elements } else { count } as f64;
            return Ok(seen.results.iter().map(|r| f64::from(*r) * count).collect());
        }
        let Some((weight, axis)) = part.weight else {
            return Ok(seen.results.iter().map(|r| ON_THE_WAY * f64::from(*r)).collect());
        };
        let weights = self.channels(weight, axis)?;
        let bias = part.bias.and_then(|b| self.model.values.tensor(b)).and_then(|b| b.to_f32_vec().ok());
        let (largest, root) = data.first().copied().unwrap_or((0.0, 0.0));
        let longest = weights.iter().enumerate().map(|(c, w)| {
            let own = |list: &[f32]| list.get(c).or(list.first()).map_or(0.0, |v| f64::from(v.abs()));
            let bias = bias.as_deref().map_or(0.0, own);
            let possible = w.iter().map(|w| f64::from(w.abs())).sum::<f64>() * largest;
            let independent = DEVIATIONS * w.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt() * root;
            let products = possible.min(independent.max(ON_THE_WAY * (own(&seen.results) - bias).abs()));
            if bias > products { products } else { products + bias }
        });
        let longest: Vec<f64> = longest.collect();
        // One scale for all channels: the longest sum of all.
        Ok(if axis.is_none() { vec![longest.into_iter().fold(0.0, f64::max)] } else { longest })
    }

    /// For each constant weight the squared mean of its data divided by their variance: how much errors of one sign count beside
    /// errors that cancel.
    pub(crate) fn evenness(&self) -> BTreeMap<ValueId, f64> {
        let of = |part: &SumPart| {
            let histogram = self.values.get(&part.data.first()?.0)?.histogram();
            let (middle, total) = (histogram.width() / 2.0, (histogram.total() as f64).max(1.0));
            let moment = |power: i32| histogram.bins().map(|(edge, n)| n as f64 * (edge + middle).powi(power)).sum::<f64>() / total;
            let (mean, square) = (moment(1), moment(2));
            let variance = square - mean * mean;
            (variance > 0.0).then_some((part.weight?.0, mean * mean / variance))
        };
        self.plan.sums.iter().filter_map(of).collect()
    }

    /// Largest magnitude and root mean square of a value's elements.
    fn magnitudes(&self, value: ValueId) -> (f64, f64) {
        let Some(histogram) = self.values.get(&value.0).map(Statistics::histogram) else { return (0.0, 0.0) };
        let (lo, hi) = histogram.range().unwrap_or((0.0, 0.0));
        let middle = histogram.width() / 2.0;
        let squares: f64 = histogram.bins().map(|(edge, n)| n as f64 * (edge + middle).powi(2)).sum();
        (f64::from(hi.max(-lo)), (squares / (histogram.total() as f64).max(1.0)).sqrt())
    }

    /// The scales that cover a weight's channels exactly.
    fn covering(&self, weight: ValueId) -> Result<Vec<f64>> {
        let Some(settings) = self.plan.constants.get(&weight).and_then(|c| c.grid()) else { return Ok(vec![]) };
        let largest = |x: &Vec<f32>| x.iter().fold(0f64, |a, v| a.max(f64::from(v.abs())));
        Ok(self.channels(weight, settings.axis)?.iter().map(|x| largest(x) / settings.qmax() as f64).collect())
    }

    fn channels(&self, weight: ValueId, axis: Option<usize>) -> Result<Vec<Vec<f32>>> {
        let Some(tensor) = self.model.values.tensor(weight) else { return Ok(vec![]) };
        let name = &self.model.values[weight].name;
        let live = encodings::live(tensor, self.model.annotations.mask(weight)).map_err(crate::error::named(name))?;
        channels(&live, axis).map_err(crate::error::named(name))
    }
}
