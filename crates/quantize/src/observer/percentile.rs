//! The range that holds a percentage of all elements.
use super::{Observer, Statistics};
use encodings::affine::AffineSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Observer> = member!(
    Percentile as dyn Observer,
    Manual {
        name: "percentile",
        summary: "The range that holds a percentage of all elements; half of the rest lies on either side.",
        details: "\
From a histogram of 4,096 bins over all batches. For activations with a few outliers; 100 is min_max.",
        source: "H. Wu et al., Integer Quantization for Deep Learning Inference (2020), arXiv:2004.09602, section 4.2",
        example: "calibration = { observer = { kind = \"percentile\", percent = 99.9 } }",
    }
);

/// Settings of `percentile`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Percentile {
    /// Percent of the elements within the range, above 50 and at most 100.
    pub percent: f64,
}

impl Default for Percentile {
    fn default() -> Self {
        Percentile { percent: 99.99 }
    }
}

impl Settings for Percentile {
    fn check(&self) -> Result<(), Fault> {
        match self.percent > 50.0 && self.percent <= 100.0 {
            true => Ok(()),
            false => Err(Fault::new("percent", format!("percent = {}: above 50 and at most 100 is possible", self.percent))),
        }
    }
}

impl Observer for Percentile {
    fn range(&self, seen: &Statistics, _grid: &AffineSettings) -> Option<(f32, f32)> {
        percentile(seen, self.percent)
    }
}

/// Cuts half of the rest on either side. The bounds are edges of bins, so they are too wide by at most 1/1024 of the largest
/// magnitude.
fn percentile(seen: &Statistics, percent: f64) -> Option<(f32, f32)> {
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
