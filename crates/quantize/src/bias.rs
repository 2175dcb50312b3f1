//! Biases: int32 on the grid of the accumulator they are added to, or on a finer one where that counts in few steps.
use crate::error::named;
use crate::{QuantPlan, QuantizeSettings, Result};
use encodings::affine::{AffineSettings, fit_bias, refine_bias};
use graph::{Model, ValueId};
use tensor::Tensor;

/// The values that a bias' scale depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BiasPart {
    /// The activation whose grid the layer reads.
    pub input: ValueId,
    /// The layer's weight.
    pub weight: ValueId,
}

/// Sets the scales of all biases from those of input and weight. Call it after either has changed (learned scales, weights fitted
/// anew) and before lowering.
///
/// # Errors
/// As [`crate::plan`]; [`crate::QuantizeError::Value`] for a bias that is not finite.
pub fn refresh_biases(model: &mut Model, settings: &QuantizeSettings) -> Result<usize> {
    let plan = crate::plan(model, settings)?;
    fit_biases(model, &plan, settings.exact)
}

/// As [`refresh_biases`], for a plan. Returns how many biases have an encoding; a bias whose input or weight has none, or one of more than
/// 8 bits, stays float.
pub(crate) fn fit_biases(model: &mut Model, plan: &QuantPlan, exact: bool) -> Result<usize> {
    let mut fitted = 0;
    for (bias, part) in &plan.biases {
        let scale = |id: ValueId| model.annotations.encoding(id).and_then(|e| e.parameters.get("scale")).cloned();
        // Data of two levels have a scale, but no grid of integers that a kernel could add a bias to.
        let on_grid = model.annotations.encoding(part.input).is_some_and(|e| AffineSettings::of(e).is_ok());
        // Nor has a sum of products whose scale changes on the way.
        let blocks = model.annotations.encoding(part.weight).is_some_and(|e| AffineSettings::of(e).is_ok_and(|s| s.blocks.is_some()));
        // Nor have products of 16-bit integers: 32 bits do not hold their sums.
        let wide = [part.input, part.weight].into_iter().any(|id| bits(model, id) > 8);
        let (Some(input), Some(weight), true) = (scale(part.input), scale(part.weight), on_grid && !blocks && !wide) else { continue };
        let name = model.values[*bias].name.clone();
        let fail = named(&name);
        let Some(tensor) = model.values.tensor(*bias) else { continue };
        let input = input.item::<f32>().map_err(|e| fail(e.into()))?;
        let (encoding, raised) = fit_bias(tensor, input, &weight, exact).map_err(&fail)?;
        let encoding = refine_bias(tensor, encoding, largest_product(model, part)).map_err(&fail)?;
        if raised != weight {
            raise(model, part.weight, raised);
        }
        model.annotations.entry(*bias).encoding = Some(encoding);
        fitted += 1;
    }
    Ok(fitted)
}

/// Bits of a value's integers; 0 where it has none.
fn bits(model: &Model, id: ValueId) -> u32 {
    model.annotations.encoding(id).and_then(|e| AffineSettings::of(e).ok()).map_or(0, |s| s.bits)
}

/// The largest product of an integer of the data, counted from its zero point, and one of the weight.
fn largest_product(model: &Model, part: &BiasPart) -> i64 {
    let settings = |id: ValueId| model.annotations.encoding(id).and_then(|e| AffineSettings::of(e).ok());
    let steps = settings(part.input).map_or(1, |s| s.qmax() - s.qmin());
    // Other weights than integers have their largest magnitude as scale.
    let magnitude = settings(part.weight).map_or(1, |s| s.qmax().max(-s.qmin()));
    steps * magnitude
}

fn raise(model: &mut Model, weight: ValueId, scale: Tensor) {
    if let Some(encoding) = &mut model.annotations.entry(weight).encoding {
        encoding.parameters.insert("scale".into(), scale);
    }
}

/// True for the encoding of a bias.
pub(crate) fn is_bias(encoding: &graph::Encoding) -> bool {
    AffineSettings::of(encoding).is_ok_and(|s| s.is_bias())
}
