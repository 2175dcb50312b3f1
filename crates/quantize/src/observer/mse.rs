//! The range whose grid is nearest to all elements in the mean of squares.
use super::clipping::cheapest;
use super::{Histogram, Observer, Statistics};
use encodings::affine::{AffineSettings, fit_range};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Observer> = member!(
    Mse as dyn Observer,
    Manual {
        name: "mse",
        summary: "The range whose grid is nearest to all elements in the mean of squares.",
        details: "\
128 thresholds are tried, from the largest magnitude down; for each the sum of squared errors of rounding and clipping over the
histogram, on the grid that the range would be given. For few bits, where a step saved counts more than a tail that is cut.",
        source: "",
        example: "calibration = { observer = \"mse\" }",
    }
);

/// The settings: none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mse {}

impl Settings for Mse {}

impl Observer for Mse {
    fn range(&self, seen: &Statistics, grid: &AffineSettings) -> Option<(f32, f32)> {
        mse(seen, grid)
    }
}

/// Tries clipping at 128 magnitudes and takes the range with the smallest sum of squared rounding and clipping errors over the
/// histogram, on the grid that the range will get.
fn mse(seen: &Statistics, grid: &AffineSettings) -> Option<(f32, f32)> {
    cheapest(seen.histogram(), |_, range| error(seen, range, grid).unwrap_or(f64::INFINITY))
}

/// Sum of squared errors on the grid of a range, with each element at its bin's middle, and exact zeros at zero.
fn error(seen: &Statistics, (lo, hi): (f32, f32), grid: &AffineSettings) -> Option<f64> {
    let encoding = fit_range(lo, hi, grid).ok()?;
    let parameter = |name: &str| Some(f64::from(encoding.parameters.get(name)?.item::<f32>().ok()?));
    Some(grid_error(seen.histogram(), parameter("scale")?, parameter("zero_point")?, grid, 1.0))
}

/// Sum of squared errors of the histogram on a grid of this scale and zero point; errors beyond its ends count `clipped` times.
pub(crate) fn grid_error(histogram: &Histogram, scale: f64, zero_point: f64, grid: &AffineSettings, clipped: f64) -> f64 {
    let (bottom, top) = ((grid.qmin() as f64 - zero_point) * scale, (grid.qmax() as f64 - zero_point) * scale);
    let middle = histogram.width() / 2.0;
    // If the steps are finer than the bins, the place of a bin's elements between two steps is not known.
    let unresolved = scale < histogram.width();
    let one = |x: f64| match x {
        x if x < bottom => clipped * (bottom - x).powi(2),
        x if x > top => clipped * (x - top).powi(2),
        _ if unresolved => scale * scale / 12.0,
        x => (x - (x / scale).round_ties_even() * scale).powi(2),
    };
    let zeros = histogram.zeros() as f64 * one(middle);
    histogram.bins().map(|(edge, n)| one(edge + middle) * n as f64).sum::<f64>() - zeros
}
