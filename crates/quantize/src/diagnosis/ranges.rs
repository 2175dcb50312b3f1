//! What another range of the data, or a scale for each channel of a weight, would leave of the error.
use crate::Result;
use crate::error::named;
use encodings::affine::{AffineSettings, Grid, Precision, fit_weight};
use graph::{Encoding, Model, ValueId};
use ops::LayerChannels;
use tensor::{Tensor, TensorError};

/// Ranges that are tried, as multiples of the present one.
const FACTORS: [f32; 12] = [0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0];

/// The place of the present range among them.
const PRESENT: usize = 6;

/// Most elements of a batch that are looked at.
const MOST: usize = 1 << 16;

/// The range that would suit the data best.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BetterRange {
    /// Its width over that of the present one: below 1 the present range is wider than the data need, above 1 it cuts too much off.
    pub factor: f64,
    /// What it leaves of the squared error of the data, 0..1.
    pub leaves: f64,
}

/// Squared errors of data at several ranges.
pub(super) struct Ranges {
    scale: f32,
    zero_point: f32,
    ends: (f32, f32),
    errors: [f64; FACTORS.len()],
}

impl Ranges {
    /// For the grid of an activation; `None` where it has no one scale.
    pub(super) fn of(encoding: &Encoding) -> Option<Ranges> {
        let grid = Grid::of(encoding).ok()?;
        let (scale, zero) = (grid.scale().item::<f32>().ok()?, grid.zero_point().ok()?.to_i64_vec().ok()?);
        let zero_point = *zero.first()? as f32;
        let ends = (grid.settings().qmin() as f32, grid.settings().qmax() as f32);
        Some(Ranges { scale, zero_point, ends, errors: [0.0; FACTORS.len()] })
    }

    pub(super) fn add(&mut self, x: &Tensor) -> Result<(), TensorError> {
        let x = x.to_f32_vec()?;
        let (low, high) = (self.ends.0 - self.zero_point, self.ends.1 - self.zero_point);
        for v in x.iter().step_by(x.len().div_ceil(MOST).max(1)) {
            for (factor, sum) in FACTORS.iter().zip(&mut self.errors) {
                let step = self.scale * factor;
                *sum += f64::from(v - (v / step).round_ties_even().clamp(low, high) * step).powi(2);
            }
        }
        Ok(())
    }

    /// The squared error of the present range, the least one, and the factor that it takes.
    fn least(&self) -> (f64, f64, f64) {
        let present = self.errors[PRESENT];
        let least = self.errors.iter().enumerate().filter(|(_, e)| **e < present).min_by(|a, b| a.1.total_cmp(b.1));
        least.map_or((present, present, 1.0), |(at, least)| (present, *least, f64::from(FACTORS[at])))
    }
}

/// The best range of the data of which most error would go, and what the best ranges of all leave; `None` where there is no error.
pub(super) fn better<'r>(data: impl Iterator<Item = &'r Ranges>) -> Option<BetterRange> {
    let all: Vec<(f64, f64, f64)> = data.map(Ranges::least).collect();
    let sum = |pick: fn(&(f64, f64, f64)) -> f64| all.iter().map(pick).sum::<f64>();
    let (present, left) = (sum(|d| d.0), sum(|d| d.1));
    let most = all.iter().max_by(|a, b| (a.0 - a.1).total_cmp(&(b.0 - b.1)))?;
    (present > 0.0).then(|| BetterRange { factor: most.2, leaves: left / present })
}

/// What a scale for each output channel would leave of the squared error of a node's weight, 0..1; `None` for a weight that has them, or
/// that has no channels. `float` has the weight as it was, `quantized` as it is stored.
pub(super) fn by_channel(at: usize, weight: ValueId, float: &Model, quantized: &Model) -> Result<Option<f64>> {
    let node = &float.graph.nodes[at];
    let (Some(right), Some(kept), Some(annotation)) =
        (float.values.tensor(weight), quantized.values.tensor(weight), quantized.annotations.get(weight))
    else {
        return Ok(None);
    };
    let settings = annotation.encoding.as_ref().and_then(|e| AffineSettings::of(e).ok()).filter(|s| s.axis.is_none() && s.blocks.is_none());
    let channels = LayerChannels::of(node, right.shape()).filter(|channels| node.input(channels.weight) == Some(weight));
    let (Some(settings), Some(axis)) = (settings, channels.and_then(|channels| channels.output_axis())) else { return Ok(None) };
    let fail = named(&float.values[weight].name);
    let right = encodings::live(right, annotation.mask.as_ref()).map_err(&fail)?;
    let fitted = fit_weight(&right, &AffineSettings { axis: Some(axis), ..settings }, Precision::WEIGHT, 0.0).map_err(&fail)?;
    let better = graph::Annotation { mask: None, encoding: Some(fitted) };
    let error = |stored: Tensor| Ok(tensor::SignalToNoise::of(&right, &stored)?.noise);
    let present = encodings::simulate(kept, annotation).and_then(error).map_err(&fail)?;
    let then = encodings::simulate(&right, &better).and_then(error).map_err(&fail)?;
    Ok((present > 0.0).then(|| (then / present).min(1.0)))
}
