//! Statistics of a value: enough for every observer, so that one pass over the data serves all of them.
use super::moving_average::AverageRange;
use super::{Histogram, bounds};
use serde::{Deserialize, Serialize};
use tensor::Tensor;

/// Statistics of one value over a stream of tensors: its range, the moving average of each tensor's range, and a histogram.
/// Memory: 4,096 counters, however many elements are seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    histogram: Histogram,
    average: AverageRange,
}

impl Statistics {
    /// Empty statistics; the moving average keeps the share `momentum` (0..1) of the past at each tensor.
    pub fn new(momentum: f64) -> Self {
        Statistics { histogram: Histogram::default(), average: AverageRange::new(momentum) }
    }

    /// Adds the elements of one tensor (f32); an empty one changes nothing.
    ///
    /// # Errors
    /// A sentence if an element is NaN or infinite, or the tensor is not f32; then nothing is changed.
    pub fn update(&mut self, tensor: &Tensor) -> Result<(), String> {
        let Some(range) = bounds(tensor)? else { return Ok(()) };
        self.average.update(range);
        self.histogram.update(tensor.as_slice::<f32>().map_err(|e| e.to_string())?, range);
        Ok(())
    }

    /// Adds later statistics with the same momentum: the result equals one pass over both, except for the moving average's last
    /// bits.
    pub fn merge(&mut self, later: &Statistics) {
        self.histogram.merge(&later.histogram);
        self.average.merge(&later.average);
    }

    /// Counts of elements by value, with the smallest and the largest.
    pub fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// The moving average.
    pub fn average(&self) -> &AverageRange {
        &self.average
    }
}
