//! Uniform affine encoding: `real = (integer - zero_point) * scale`, as QuantizeLinear and DequantizeLinear compute it.
//!
//! An integer is `clamp(round_half_even(x / scale) + zero_point, qmin, qmax)`: a division, not a product with the
//! reciprocal, so that simulation, stored file and any runtime that follows ONNX literally agree to the bit.
//! The zero point is an integer of the grid, so zero stays exactly zero.
mod blocks;
mod fit;
mod grid;
mod learned;
mod member;
mod scale;
mod settings;
#[cfg(test)]
mod tests;

pub(crate) use blocks::scaled as scaled_blocks;
pub use blocks::{BlockLayout, Blocks};
pub use fit::{channels, fit_bias, fit_least, fit_range, fit_weight, refine_bias};
pub use grid::Grid;
pub use learned::{CLIP, with_clip, with_offset, with_tanh};
pub use member::Affine;
pub use scale::{Precision, odd_part, unit};
pub use settings::AffineSettings;

use crate::{Codec, Decode, Parameters, Result, Stored};
use graph::Encoding;
use tensor::{Activation, Tensor};

/// The encoding's name.
pub const KIND: &str = "affine";

impl Codec for AffineSettings {
    fn simulate(&self, value: &Tensor, parameters: &Parameters) -> Result<Tensor> {
        Grid::new(*self, parameters)?.simulate(value, Activation::None)
    }

    fn simulate_activated(&self, value: &Tensor, activation: Activation, parameters: &Parameters) -> Result<Tensor> {
        Grid::new(*self, parameters)?.simulate(value, activation)
    }

    fn store(&self, value: &Tensor, parameters: &Parameters) -> Result<Stored> {
        let grid = Grid::new(*self, parameters)?;
        Ok(Stored { data: grid.quantize(value)?, decode: grid.decode()? })
    }

    fn decode(&self, parameters: &Parameters) -> Result<Decode> {
        Grid::new(*self, parameters)?.decode()
    }

    fn read(&self, data: &Tensor, parameters: &Parameters) -> Result<Tensor> {
        Grid::new(*self, parameters)?.dequantize(data)
    }

    fn describe(&self, _: &Parameters) -> String {
        let sign = if self.signed { "" } else { "u" };
        let per = match (self.blocks, self.axis) {
            (Some(blocks), _) => format!("group of {}", blocks.size),
            (None, Some(_)) => "channel".to_string(),
            (None, None) => "tensor".to_string(),
        };
        let used = if self.reduce_range { format!(" ({} used)", self.bits - 1) } else { String::new() };
        format!("{sign}int{}{used} per {per}", self.bits)
    }

    /// The scale; what stands in its place where the grid is in another form (see [`with_clip`], [`with_offset`] and [`with_tanh`]). A bias trains none,
    /// since its scale follows from those of input and weight; nor does a weight whose BatchNormalization is kept, since its scale
    /// follows from the running statistics.
    fn trainable(&self, parameters: &Parameters) -> &'static [&'static str] {
        if self.is_bias() || parameters.contains_key(graph::FOLDED_SCALE) {
            return &[];
        }
        learned::parameters(parameters)
    }

    /// A scale and a bound stay positive: a step reduces them to half of their value at most. Esser et al. 2020 (arXiv:1902.08153) rely
    /// on the gradient's factor for small steps, which fails at a large learning rate.
    fn project(&self, parameter: &str, before: &Tensor, after: Tensor) -> Result<Tensor> {
        if parameter == learned::OFFSET { Ok(after) } else { crate::positive_scale(before, &after) }
    }

    fn settle(&self, parameters: &Parameters) -> Result<Option<(Parameters, bool)>> {
        learned::settle(self, parameters)
    }

    /// An encoding with the precision of its scales.
    fn refit(&self, weight: &Tensor, _: Option<&Tensor>, parameters: &Parameters) -> Result<Encoding> {
        let scales = parameters.get("scale").and_then(|s| s.to_f32_vec().ok());
        let precision = scales.map_or(Precision::WEIGHT, |s| Precision::of(&s));
        fit_weight(weight, self, precision, 0.0)
    }
}

/// The stored integers of a value, of the type [`AffineSettings::dtype`].
///
/// # Errors
/// If the encoding is not well formed or does not fit the value, or the value holds a NaN.
pub fn quantize_to_int(value: &Tensor, encoding: &Encoding) -> Result<Tensor> {
    Grid::of(encoding)?.quantize(value)
}

/// How far each element lies from the grid point that it is rounded to, zero beyond the ends of the grid: f32, of the value's shape. `None`
/// for an encoding that is no grid of integers, for a bias, and for a weight that trains as a hyperbolic tangent.
///
/// # Errors
/// If the encoding does not fit the value.
pub fn distance(value: &Tensor, encoding: &Encoding) -> Result<Option<Tensor>> {
    if encoding.kind != KIND || AffineSettings::of(encoding)?.is_bias() || encoding.parameters.contains_key(learned::BOUND) {
        return Ok(None);
    }
    Grid::of(encoding)?.distance(value).map(Some)
}

/// The real values (f32) of stored integers, as DequantizeLinear computes them.
///
/// # Errors
/// If the encoding is not well formed or does not fit the integers.
pub fn dequantize(stored: &Tensor, encoding: &Encoding) -> Result<Tensor> {
    Grid::of(encoding)?.dequantize(stored)
}
