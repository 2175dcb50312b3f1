//! The range whose grid is nearest to all elements in the mean of squares.
use super::{Histogram, Observer};
use tensor::Tensor;

/// Ranges that are tried: the whole one, and each 1/STEPS narrower.
const STEPS: u32 = 100;

/// Shrinks the observed range evenly towards zero and takes the range with the smallest sum of squared rounding and
/// clipping errors over the histogram. Merging is exact and independent of order.
#[derive(Clone, Debug, PartialEq)]
pub struct MeanSquaredError {
    levels: u32,
    histogram: Histogram,
}

impl MeanSquaredError {
    /// For a grid of `levels` integers (256 for 8 bits).
    pub fn new(levels: u32) -> Self {
        MeanSquaredError { levels: levels.max(2), histogram: Histogram::default() }
    }

    /// Sum of squared errors on the grid from `lo` to `hi`, an element standing at its bin's middle.
    fn error(&self, lo: f64, hi: f64) -> f64 {
        let scale = (hi - lo) / f64::from(self.levels - 1);
        if scale <= 0.0 {
            return f64::INFINITY;
        }
        let middle = self.histogram.width() / 2.0;
        // Rounding within a grid costs scale^2 / 12 on average where a bin is finer than a step.
        let rounding = scale * scale / 12.0;
        let one = |x: f64| if x < lo { (lo - x).powi(2) } else { (x - hi).max(0.0).powi(2) };
        self.histogram.bins().map(|(edge, n)| (one(edge + middle) + rounding) * n as f64).sum()
    }
}

impl Observer for MeanSquaredError {
    fn update(&mut self, tensor: &Tensor) -> Result<(), String> {
        self.histogram.update(tensor)
    }
    fn merge(&mut self, other: &Self) {
        self.histogram.merge(&other.histogram);
    }
    fn range(&self) -> Option<(f32, f32)> {
        let (lo, hi) = self.histogram.range()?;
        let (lo, hi) = (lo.min(0.0), hi.max(0.0));
        let tried = (1..=STEPS).rev().map(|step| f64::from(step) / f64::from(STEPS));
        let costs = tried.map(|share| (self.error(f64::from(lo) * share, f64::from(hi) * share), share));
        // The first of equals is the widest.
        let best = costs.fold((f64::INFINITY, 1.0), |best, c| if c.0 < best.0 { c } else { best }).1;
        Some(((f64::from(lo) * best) as f32, (f64::from(hi) * best) as f32))
    }
}
