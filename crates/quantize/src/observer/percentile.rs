//! The range that holds a percentage of all elements.
use super::Statistics;

/// Cuts half of the rest on either side; the bounds are edges of bins, so they are off by at most 1/1024 of the largest
/// magnitude, outwards.
pub fn percentile(seen: &Statistics, percent: f64) -> Option<(f32, f32)> {
    let histogram = seen.histogram();
    let (lo, hi) = histogram.range()?;
    let cut = ((100.0 - percent) / 200.0 * histogram.total() as f64) as u64;
    let below = beyond(histogram.bins(), cut);
    let above = beyond(histogram.bins().rev(), cut);
    let low = below.map_or(lo, |edge| lo.max(edge as f32));
    let high = above.map_or(hi, |edge| hi.min((edge + histogram.width()) as f32));
    Some((low, high))
}

/// The edge of the first bin with which more than `cut` elements are passed.
fn beyond(mut bins: impl Iterator<Item = (f64, u64)>, cut: u64) -> Option<f64> {
    let mut passed = 0;
    bins.find(|(_, n)| {
        passed += n;
        passed > cut
    })
    .map(|(edge, _)| edge)
}
