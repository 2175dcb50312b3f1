//! Smallest and largest value seen.
use super::{Observer, bounds};
use tensor::Tensor;

/// See the module. Merging is exact and independent of order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MinMax {
    range: Option<(f32, f32)>,
}

impl MinMax {
    fn widen(&mut self, seen: Option<(f32, f32)>) {
        self.range = match (self.range, seen) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (a, b) => a.or(b),
        };
    }
}

impl Observer for MinMax {
    fn update(&mut self, tensor: &Tensor) -> Result<(), String> {
        self.widen(bounds(tensor)?);
        Ok(())
    }
    fn merge(&mut self, other: &Self) {
        self.widen(other.range);
    }
    fn range(&self) -> Option<(f32, f32)> {
        self.range
    }
}
