//! The range that holds a percentage of all elements.
use super::{Histogram, Observer};
use tensor::Tensor;

/// Cuts half of the rest on either side; the bounds are edges of bins, so they are off by at most 1/2048 of the largest
/// magnitude, outwards. Merging is exact and independent of order.
#[derive(Clone, Debug, PartialEq)]
pub struct Percentile {
    percentile: f64,
    histogram: Histogram,
}

impl Percentile {
    /// A range that holds `percentile` percent (50..100) of the elements.
    pub fn new(percentile: f64) -> Self {
        Percentile { percentile, histogram: Histogram::default() }
    }
}

impl Observer for Percentile {
    fn update(&mut self, tensor: &Tensor) -> Result<(), String> {
        self.histogram.update(tensor)
    }
    fn merge(&mut self, other: &Self) {
        self.histogram.merge(&other.histogram);
    }
    fn range(&self) -> Option<(f32, f32)> {
        let (lo, hi) = self.histogram.range()?;
        let cut = ((100.0 - self.percentile) / 200.0 * self.histogram.total() as f64) as u64;
        let mut seen = 0;
        let below = self.histogram.bins().find(|(_, n)| {
            seen += n;
            seen > cut
        });
        seen = 0;
        let above = self.histogram.bins().rev().find(|(_, n)| {
            seen += n;
            seen > cut
        });
        let low = below.map_or(lo, |(edge, _)| lo.max(edge as f32));
        let high = above.map_or(hi, |(edge, _)| hi.min((edge + self.histogram.width()) as f32));
        Some((low, high))
    }
}
