//! Exponential average of each batch's smallest and largest value.
use super::{Observer, bounds};
use tensor::Tensor;

/// `average = momentum * average + (1 - momentum) * batch`, from the first batch on. It depends on the order of batches by
/// nature; merging weighs two averages by their numbers of batches.
#[derive(Clone, Debug, PartialEq)]
pub struct MovingAverage {
    momentum: f64,
    average: (f64, f64),
    batches: u64,
}

impl MovingAverage {
    /// An average that keeps the share `momentum` (0..1) of the past at each batch.
    pub fn new(momentum: f64) -> Self {
        MovingAverage { momentum, average: (0.0, 0.0), batches: 0 }
    }

    fn mix(&mut self, (lo, hi): (f64, f64), keep: f64) {
        let (a, b) = self.average;
        self.average = (keep * a + (1.0 - keep) * lo, keep * b + (1.0 - keep) * hi);
    }
}

impl Observer for MovingAverage {
    fn update(&mut self, tensor: &Tensor) -> Result<(), String> {
        if let Some((lo, hi)) = bounds(tensor)? {
            let keep = if self.batches == 0 { 0.0 } else { self.momentum };
            self.mix((f64::from(lo), f64::from(hi)), keep);
            self.batches += 1;
        }
        Ok(())
    }
    fn merge(&mut self, other: &Self) {
        let all = self.batches + other.batches;
        if all > 0 {
            self.mix(other.average, self.batches as f64 / all as f64);
            self.batches = all;
        }
    }
    fn range(&self) -> Option<(f32, f32)> {
        (self.batches > 0).then_some((self.average.0 as f32, self.average.1 as f32))
    }
}
