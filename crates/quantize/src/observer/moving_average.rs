//! Exponential average of each batch's smallest and largest value.
use super::Statistics;
use serde::{Deserialize, Serialize};

/// `average = momentum * average + (1 - momentum) * batch`, starting at the first batch. It depends on the order of batches
/// by nature. The first batch is kept apart from the weighted sum of all, which is what makes two averages mergeable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MovingAverage {
    momentum: f64,
    first: (f64, f64),
    sum: (f64, f64),
    batches: u64,
}

impl MovingAverage {
    /// An average that keeps the share `momentum` (0..1) of the past at each batch.
    pub fn new(momentum: f64) -> Self {
        MovingAverage { momentum, first: (0.0, 0.0), sum: (0.0, 0.0), batches: 0 }
    }

    /// Takes in the range of one batch.
    pub(super) fn update(&mut self, (lo, hi): (f32, f32)) {
        let (lo, hi) = (f64::from(lo), f64::from(hi));
        let fresh = 1.0 - self.momentum;
        self.append(&MovingAverage { momentum: self.momentum, first: (lo, hi), sum: (fresh * lo, fresh * hi), batches: 1 });
    }

    /// Takes in the batches that came after.
    pub fn merge(&mut self, later: &MovingAverage) {
        if later.batches > 0 {
            self.append(later);
        }
    }

    fn append(&mut self, later: &MovingAverage) {
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

/// The range that the batches had on average.
pub fn moving_average(seen: &Statistics) -> Option<(f32, f32)> {
    seen.average().range()
}
