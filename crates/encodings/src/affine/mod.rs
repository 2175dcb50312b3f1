//! Uniform affine encoding: `real = (integer - zero_point) * scale`, as QuantizeLinear and DequantizeLinear compute it.
//!
//! An integer is `clamp(round_half_even(x / scale) + zero_point, qmin, qmax)`: a division, not a product with the
//! reciprocal, so that simulation, stored file and any runtime that follows ONNX literally agree to the bit.
//! The zero point is an integer of the grid, so zero stays exactly zero.
mod fit;
mod grid;
mod scale;
mod settings;
#[cfg(test)]
mod tests;

pub use fit::{channels, fit_bias, fit_least, fit_range, fit_weight};
pub use grid::Grid;
pub use scale::{Precision, odd_part, unit};
pub use settings::AffineSettings;

use crate::{EncodingKind, Result};
use graph::Encoding;
use tensor::{Activation, Tensor};

/// The encoding's name.
pub const KIND: &str = "affine";

/// The uniform affine encoding.
pub struct Affine;

impl EncodingKind for Affine {
    fn name(&self) -> &'static str {
        KIND
    }

    fn summary(&self) -> &'static str {
        "Uniform n-bit integers with a scale and a zero point, per tensor or per channel (QuantizeLinear / DequantizeLinear)."
    }

    fn simulate(&self, value: &Tensor, encoding: &Encoding) -> Result<Tensor> {
        Grid::of(encoding)?.simulate(value, Activation::None)
    }

    fn simulate_activated(&self, value: &Tensor, activation: Activation, encoding: &Encoding) -> Result<Tensor> {
        Grid::of(encoding)?.simulate(value, activation)
    }

    fn store(&self, value: &Tensor, encoding: &Encoding) -> Result<Tensor> {
        quantize_to_int(value, encoding)
    }

    fn read(&self, stored: &Tensor, encoding: &Encoding) -> Result<Tensor> {
        dequantize(stored, encoding)
    }

    fn describe(&self, encoding: &Encoding) -> Result<String> {
        let settings = AffineSettings::of(encoding)?;
        let (sign, per) = (if settings.signed { "" } else { "u" }, if settings.axis.is_some() { "channel" } else { "tensor" });
        let used = if settings.reduce_range { format!(" ({} used)", settings.bits - 1) } else { String::new() };
        Ok(format!("{sign}int{}{used} per {per}", settings.bits))
    }

    /// The scale; a bias has none of its own, for its scale follows from those of input and weight, nor has a weight whose
    /// BatchNormalization is kept, for its scale follows from the running statistics.
    fn trainable(&self, encoding: &Encoding) -> &'static [&'static str] {
        match AffineSettings::of(encoding) {
            Ok(settings) if !settings.is_bias() && !encoding.parameters.contains_key(graph::FOLDED_SCALE) => &["scale"],
            _ => &[],
        }
    }

    /// A scale stays positive: a step takes it down to half of what it was at most. Esser et al. 2020 (arXiv:1902.08153) leave
    /// it to their gradient's factor that steps stay small, which fails at a large rate.
    fn held(&self, _: &str, before: &Tensor, after: Tensor) -> Result<Tensor> {
        Ok(after.max(&before.mul_scalar(0.5)?)?)
    }
}

/// The stored integers of a value, of the type [`AffineSettings::dtype`].
///
/// # Errors
/// If the encoding is not well formed or does not fit the value, or the value holds a NaN.
pub fn quantize_to_int(value: &Tensor, encoding: &Encoding) -> Result<Tensor> {
    Grid::of(encoding)?.quantize(value)
}

/// The real values (f32) of stored integers, as DequantizeLinear computes them.
///
/// # Errors
/// If the encoding is not well formed or does not fit the integers.
pub fn dequantize(stored: &Tensor, encoding: &Encoding) -> Result<Tensor> {
    Grid::of(encoding)?.dequantize(stored)
}
