//! The search for a clipping threshold, shared by the observers that minimize a cost.
use super::histogram::{HALF, Histogram};

/// Most thresholds to try.
const TRIED: usize = 128;

/// The range of the smallest cost among ranges clipped at a magnitude of whole bins, the widest of equals; the observed range if
/// every cost is infinite. `cost` gets the number of bins below the threshold and the range, which contains zero: `lo <= 0 <=
/// hi`.
pub(super) fn cheapest(histogram: &Histogram, cost: impl Fn(usize, (f32, f32)) -> f64) -> Option<(f32, f32)> {
    let (lo, hi) = histogram.range()?;
    let (lo, hi) = (lo.min(0.0), hi.max(0.0));
    let width = histogram.width();
    let all = ((f64::from(hi.max(-lo)) / width).floor() as usize + 1).min(HALF);
    let clipped = |bins: usize| {
        let threshold = (bins as f64 * width) as f32;
        (lo.max(-threshold), hi.min(threshold))
    };
    let mut best = (f64::INFINITY, (lo, hi));
    for bins in (1..=all).rev().step_by(all.div_ceil(TRIED)) {
        let range = clipped(bins);
        let cost = cost(bins, range);
        if cost < best.0 {
            best = (cost, range);
        }
    }
    Some(best.1)
}
