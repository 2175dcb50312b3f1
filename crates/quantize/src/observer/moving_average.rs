//! Exponential average of each batch's smallest and largest value.
use super::{Observer, Statistics};
use encodings::affine::AffineSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Observer> = member!(
    MovingAverage as dyn Observer,
    Manual {
        name: "moving_average",
        summary: "Exponential average of each batch's smallest and largest value.",
        details: "\
average = momentum * average + (1 - momentum) * batch, for the smallest and the largest value, starting at the first batch. A batch's
extremes are those of fewer samples than all there are, so outliers count less than with min_max. It depends on the size of a batch.

Statistics are collected with one momentum: another one than the default runs the data again.",
        source: "B. Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference (2018), \
             arXiv:1712.05877, section 3.1",
        example: "calibration = { observer = { kind = \"moving_average\", momentum = 0.9 } }",
    }
);

/// The momentum of the statistics unless an observer asks for another.
pub const MOMENTUM: f64 = 0.9;

/// Settings of `moving_average`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MovingAverage {
    /// Weight of the past, at least 0 and below 1.
    pub momentum: f64,
}

impl Default for MovingAverage {
    fn default() -> Self {
        MovingAverage { momentum: MOMENTUM }
    }
}

impl Settings for MovingAverage {
    fn check(&self) -> Result<(), Fault> {
        match (0.0..1.0).contains(&self.momentum) {
            true => Ok(()),
            false => Err(Fault::new("momentum", format!("momentum = {}: at least 0 and below 1 is possible", self.momentum))),
        }
    }
}

impl Observer for MovingAverage {
    fn range(&self, seen: &Statistics, _grid: &AffineSettings) -> Option<(f32, f32)> {
        seen.average().range()
    }

    fn momentum(&self) -> f64 {
        self.momentum
    }
}

/// `average = momentum * average + (1 - momentum) * batch`, starting at the first batch. It depends on the order of batches. The
/// first batch is kept apart from the weighted sum of all, so that two averages can be merged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AverageRange {
    momentum: f64,
    first: (f64, f64),
    sum: (f64, f64),
    batches: u64,
}

impl AverageRange {
    /// An average that keeps the share `momentum` (0..1) of the past at each batch.
    pub fn new(momentum: f64) -> Self {
        AverageRange { momentum, first: (0.0, 0.0), sum: (0.0, 0.0), batches: 0 }
    }

    /// Adds the range of one batch.
    pub(super) fn update(&mut self, (lo, hi): (f32, f32)) {
        let (lo, hi) = (f64::from(lo), f64::from(hi));
        let fresh = 1.0 - self.momentum;
        self.append(&AverageRange { momentum: self.momentum, first: (lo, hi), sum: (fresh * lo, fresh * hi), batches: 1 });
    }

    /// Adds the batches of a later average.
    pub fn merge(&mut self, later: &AverageRange) {
        if later.batches > 0 {
            self.append(later);
        }
    }

    fn append(&mut self, later: &AverageRange) {
        if self.batches == 0 {
            self.first = later.first;
        }
        let keep = self.momentum.powf(later.batches as f64);
        self.sum = (keep * self.sum.0 + later.sum.0, keep * self.sum.1 + later.sum.1);
        self.batches += later.batches;
    }

    /// The average of both bounds; `None` if there was no batch.
    pub fn range(&self) -> Option<(f32, f32)> {
        let left = self.momentum.powf(self.batches as f64);
        let mix = |first: f64, sum: f64| (left * first + sum) as f32;
        (self.batches > 0).then(|| (mix(self.first.0, self.sum.0), mix(self.first.1, self.sum.1)))
    }
}
