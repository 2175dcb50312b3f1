//! Smallest and largest value seen.
use super::Statistics;

/// The range that clips nothing.
pub fn min_max(seen: &Statistics) -> Option<(f32, f32)> {
    seen.histogram().range()
}
