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
pub(crate) use mse::grid_error;
pub use mse::mse;
pub use percentile::percentile;
pub use statistics::Statistics;

use crate::{ObserverSettings, QuantizeError, Result};
use encodings::affine::AffineSettings;
use rayon::prelude::*;
use tensor::{Tensor, vectorised};

/// Elements of a tensor that one task looks at.
const PIECE: usize = 1 << 15;

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
    let both = |(a, b, finite): (f32, f32, bool), (c, d, too): (f32, f32, bool)| (a.min(c), b.max(d), finite && too);
    let pieces = x.par_chunks(PIECE).map(|piece| vectorised!(piece_bounds(piece)));
    let (lo, hi, finite) = pieces.reduce(|| (f32::INFINITY, f32::NEG_INFINITY, true), both);
    if !finite {
        let at = x.iter().position(|v| !v.is_finite()).unwrap_or(0);
        return Err(format!("element {at} of {:?} is {}; its range has no bounds", tensor.shape(), x[at]));
    }
    Ok((!x.is_empty()).then_some((lo, hi)))
}

/// Smallest and largest element, and whether all are finite.
#[inline(always)]
fn piece_bounds(x: &[f32]) -> (f32, f32, bool) {
    const LANES: usize = 16;
    let (mut lo, mut hi, mut infinite) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES], [0u32; LANES]);
    let (whole, rest) = x.as_chunks::<LANES>();
    let mut see = |k: usize, v: f32| {
        lo[k] = if v < lo[k] { v } else { lo[k] };
        hi[k] = if v > hi[k] { v } else { hi[k] };
        infinite[k] |= u32::from(!v.is_finite());
    };
    whole.iter().for_each(|x| x.iter().enumerate().for_each(|(k, v)| see(k, *v)));
    rest.iter().enumerate().for_each(|(k, v)| see(k, *v));
    let first = |all: [f32; LANES], pick: fn(f32, f32) -> f32| all.into_iter().fold(all[0], pick);
    (first(lo, f32::min), first(hi, f32::max), infinite == [0; LANES])
}

#[cfg(test)]
mod tests;
