//! Observers: what they keep of all values they have seen, in bounded memory, and the range they conclude. One file each.
mod histogram;
mod mean_squared_error;
mod min_max;
mod moving_average;
mod percentile;

pub use histogram::Histogram;
pub use mean_squared_error::MeanSquaredError;
pub use min_max::MinMax;
pub use moving_average::MovingAverage;
pub use percentile::Percentile;

use crate::{ObserverSettings, QuantizeError, Result};
use tensor::Tensor;

/// Statistics of one value over a stream of tensors.
pub trait Observer: Send {
    /// Takes in the elements of one tensor (f32); an empty one changes nothing.
    ///
    /// # Errors
    /// A sentence if an element is NaN or infinite, or the tensor is not f32.
    fn update(&mut self, tensor: &Tensor) -> std::result::Result<(), String>;

    /// Takes in what another observer of the same settings has seen.
    fn merge(&mut self, other: &Self)
    where
        Self: Sized;

    /// The range to quantize; `None` if nothing was seen.
    fn range(&self) -> Option<(f32, f32)>;
}

/// One observer for recipes and manuals.
pub struct ObserverEntry {
    /// Its name.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    make: fn(&ObserverSettings, levels: u32) -> Box<dyn Observer>,
}

/// All observers.
pub fn all() -> &'static [ObserverEntry] {
    static LIST: &[ObserverEntry] = &[
        ObserverEntry { name: "min_max", summary: "Smallest and largest value seen.", make: |_, _| Box::new(MinMax::default()) },
        ObserverEntry {
            name: "moving_average",
            summary: "Exponential average of each batch's smallest and largest value.",
            make: |s, _| Box::new(MovingAverage::new(s.momentum)),
        },
        ObserverEntry {
            name: "percentile",
            summary: "The range that holds a percentage of all elements; half of the rest lies on either side.",
            make: |s, _| Box::new(Percentile::new(s.percentile)),
        },
        ObserverEntry {
            name: "mse",
            summary: "The range whose grid is nearest to all elements in the mean of squares.",
            make: |_, levels| Box::new(MeanSquaredError::new(levels)),
        },
    ];
    LIST
}

/// A new observer for a grid of `levels` integers.
///
/// # Errors
/// [`QuantizeError::Setting`] for an unknown name, with the known ones.
pub fn observer(settings: &ObserverSettings, levels: u32) -> Result<Box<dyn Observer>> {
    match all().iter().find(|e| e.name == settings.kind) {
        Some(entry) => Ok((entry.make)(settings, levels)),
        None => {
            let known: Vec<&str> = all().iter().map(|e| e.name).collect();
            Err(QuantizeError::Setting {
                setting: "observer.kind",
                what: format!("is '{}'; known are: {}", settings.kind, known.join(", ")),
            })
        }
    }
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
