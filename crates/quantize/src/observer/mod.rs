//! Observers: [`Statistics`] are kept of each value in one pass, whatever the observer; an observer concludes a range from
//! them. One file each.
mod clipping;
mod entropy;
mod histogram;
mod min_max;
mod moving_average;
mod mse;
mod percentile;
mod statistics;

pub use entropy::entropy;
pub use histogram::Histogram;
pub use min_max::min_max;
pub use moving_average::{MovingAverage, moving_average};
pub use mse::mse;
pub use percentile::percentile;
pub use statistics::Statistics;

use crate::{ObserverSettings, QuantizeError, Result};
use encodings::affine::AffineSettings;
use tensor::Tensor;

/// The range that an observer concludes for a grid; `None` if nothing was seen.
pub type Conclude = fn(&Statistics, &ObserverSettings, &AffineSettings) -> Option<(f32, f32)>;

/// One observer for recipes and manuals.
pub struct ObserverEntry {
    /// Its name.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// The range it concludes.
    pub range: Conclude,
}

/// All observers.
pub fn all() -> &'static [ObserverEntry] {
    static LIST: &[ObserverEntry] = &[
        ObserverEntry { name: "min_max", summary: "Smallest and largest value seen.", range: |seen, _, _| min_max(seen) },
        ObserverEntry {
            name: "moving_average",
            summary: "Exponential average of each batch's smallest and largest value.",
            range: |seen, _, _| moving_average(seen),
        },
        ObserverEntry {
            name: "percentile",
            summary: "The range that holds a percentage of all elements; half of the rest lies on either side.",
            range: |seen, s, _| percentile(seen, s.percentile),
        },
        ObserverEntry {
            name: "entropy",
            summary: "The range that loses least information, by the Kullback-Leibler divergence (TensorRT's method).",
            range: |seen, _, grid| entropy(seen, grid),
        },
        ObserverEntry {
            name: "mse",
            summary: "The range whose grid is nearest to all elements in the mean of squares.",
            range: |seen, _, grid| mse(seen, grid),
        },
    ];
    LIST
}

/// The observer of that name.
///
/// # Errors
/// [`QuantizeError::Setting`] for an unknown name, with the known ones.
pub fn find(name: &str) -> Result<&'static ObserverEntry> {
    all().iter().find(|e| e.name == name).ok_or_else(|| {
        let known: Vec<&str> = all().iter().map(|e| e.name).collect();
        QuantizeError::Setting { setting: "observer.kind", what: format!("is '{name}'; known are: {}", known.join(", ")) }
    })
}

/// Smallest and largest element; `None` for an empty tensor.
fn bounds(tensor: &Tensor) -> std::result::Result<Option<(f32, f32)>, String> {
    let x = tensor.as_slice::<f32>().map_err(|e| e.to_string())?;
    let (mut lo, mut hi, mut finite) = (f32::INFINITY, f32::NEG_INFINITY, true);
    for v in x {
        lo = if *v < lo { *v } else { lo };
        hi = if *v > hi { *v } else { hi };
        finite &= v.is_finite();
    }
    if !finite {
        let at = x.iter().position(|v| !v.is_finite()).unwrap_or(0);
        return Err(format!("element {at} of {:?} is {}; its range has no bounds", tensor.shape(), x[at]));
    }
    Ok((!x.is_empty()).then_some((lo, hi)))
}

#[cfg(test)]
mod tests;
