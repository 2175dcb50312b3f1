//! Observers: [`Statistics`] of each value are collected in one pass, whatever the observer; an observer computes a range from
//! them. One file each.
mod auto;
mod clipping;
mod entropy;
mod histogram;
mod min_max;
mod moving_average;
mod mse;
mod percentile;
mod statistics;

pub use auto::{Auto, Chosen, choose};
pub use entropy::Entropy;
pub use histogram::Histogram;
pub use min_max::MinMax;
pub use moving_average::{AverageRange, MOMENTUM, MovingAverage};
pub use mse::Mse;
pub(crate) use mse::grid_error;
pub use percentile::Percentile;
pub use statistics::Statistics;

use encodings::affine::AffineSettings;
use rayon::prelude::*;
use technique::{Choice, Entry, Family};
use tensor::{Tensor, vectorised};

/// Elements of a tensor that one task processes.
const PIECE: usize = 1 << 15;

/// Computes the range of an activation from its statistics.
///
/// An observer is a type that holds its settings, in a file of its own, and a line in [`Observers::members`]. So many standard deviations
/// around the mean, whole but for its manual page:
/// ```
/// use encodings::affine::AffineSettings;
/// use espalier_quantize::{Observer, observer::Statistics};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct Deviations {
///     /// How many on either side.
///     count: f64,
/// }
/// impl technique::Settings for Deviations {}
/// impl Observer for Deviations {
///     fn range(&self, seen: &Statistics, _grid: &AffineSettings) -> Option<(f32, f32)> {
///         let (low, high) = seen.histogram().range()?;
///         let half = seen.histogram().width() / 2.0;
///         let moment = |f: &dyn Fn(f64) -> f64| {
///             seen.histogram().bins().map(|(edge, n)| f(edge + half) * n as f64).sum::<f64>() / seen.histogram().total() as f64
///         };
///         let mean = moment(&|x| x);
///         let reach = self.count * moment(&|x| (x - mean).powi(2)).sqrt();
///         Some((low.max((mean - reach) as f32), high.min((mean + reach) as f32)))
///     }
/// }
/// let member = technique::member!(
///     Deviations as dyn Observer,
///     technique::Manual { name: "deviations", summary: "", details: "", source: "", example: "" }
/// );
/// let observer = (member.build)(serde_json::from_str(r#"{ "count": 3.0 }"#).unwrap()).unwrap();
/// let mut seen = Statistics::new(observer.momentum());
/// seen.update(&tensor::random::normal(1, &[100_000], 0.0, 1.0).unwrap()).unwrap();
/// let (low, high) = observer.range(&seen, &AffineSettings::activation(8)).unwrap();
/// assert!((low + 3.0).abs() < 0.05 && (high - 3.0).abs() < 0.05);
/// ```
pub trait Observer: Send + Sync {
    /// The range of a grid: smallest and largest real that is not clipped; `None` without data.
    fn range(&self, seen: &Statistics, grid: &AffineSettings) -> Option<(f32, f32)>;

    /// Momentum of the average of each batch's range in the statistics. Statistics with the same momentum serve every observer.
    fn momentum(&self) -> f64 {
        MOMENTUM
    }

    /// The observers that [`choose`] chooses from; empty for an observer that needs no choice.
    fn candidates(&self) -> &[Choice<Observers>] {
        &[]
    }

    /// Number of samples to hold back for the choice.
    fn held(&self) -> usize {
        0
    }
}

/// The family: how ranges of activations are found.
pub struct Observers;

impl Family for Observers {
    type Member = dyn Observer;
    const NAME: &'static str = "observer";
    const SUMMARY: &'static str = "How the ranges of activations are found from calibration data.";
    const DEFAULT: Option<&'static str> = Some("auto");
    fn members() -> &'static [Entry<dyn Observer>] {
        static LIST: &[Entry<dyn Observer>] =
            &[min_max::ENTRY, moving_average::ENTRY, percentile::ENTRY, entropy::ENTRY, mse::ENTRY, auto::ENTRY];
        LIST
    }
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
