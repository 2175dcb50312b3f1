//! Fitting the grids of constants to their own elements.
use crate::bias::is_bias;
use crate::error::named;
use crate::{QuantPlan, QuantizeSettings, Result};
use encodings::affine::{AffineSettings, Precision, fit_weight};
use graph::{Annotation, Model, ValueId};
use std::collections::BTreeMap;

/// Fits the scale of every encoded constant again to its present elements under its mask, as precise as its scales are, then
/// the biases'. To be called after training or pruning has changed the weights.
///
/// # Errors
/// [`crate::QuantizeError::Value`] for a weight that is not finite; as [`crate::plan`].
pub fn refit_weights(model: &mut Model, settings: &QuantizeSettings) -> Result<()> {
    let encoded = model.annotations.iter().filter_map(|(id, a)| Some((id, a.encoding.as_ref()?)));
    let constants: Vec<(ValueId, AffineSettings, Precision)> = encoded
        .filter(|(id, e)| e.kind == encodings::affine::KIND && !is_bias(e) && model.values.tensor(*id).is_some())
        .filter_map(|(id, e)| Some((id, AffineSettings::of(e).ok()?, Precision::of(&e.parameters.get("scale")?.to_f32_vec().ok()?))))
        .collect();
    for (id, settings, precision) in constants {
        fit(model, id, &settings, precision, 0.0)?;
    }
    crate::refresh_biases(model, settings)?;
    Ok(())
}

/// Fits the grid of one encoded constant to its present elements, as precise as its scales are.
pub(crate) fn refit(model: &mut Model, id: ValueId) -> Result<()> {
    let Some(encoding) = model.annotations.encoding(id) else { return Ok(()) };
    let settings = AffineSettings::of(encoding).map_err(named(&model.values[id].name))?;
    let scales = encoding.parameters.get("scale").and_then(|s| s.to_f32_vec().ok());
    let precision = scales.map_or(Precision::WEIGHT, |s| Precision::of(&s));
    fit(model, id, &settings, precision, 0.0)
}

/// Fits the grids of a plan's constants; `precisions` says how precise the scales of each may be, and what it does not name
/// is in no sum.
pub(crate) fn fit_constants(
    model: &mut Model,
    plan: &QuantPlan,
    precisions: &BTreeMap<ValueId, Precision>,
    other: Precision,
    evenness: &BTreeMap<ValueId, f64>,
) -> Result<()> {
    plan.constants.iter().try_for_each(|(id, settings)| {
        fit(model, *id, settings, precisions.get(id).copied().unwrap_or(other), evenness.get(id).copied().unwrap_or(0.0))
    })
}

fn fit(model: &mut Model, id: ValueId, settings: &AffineSettings, precision: Precision, evenness: f64) -> Result<()> {
    let name = model.values[id].name.clone();
    let Some(tensor) = model.values.tensor(id) else { return Ok(()) };
    let mask = Annotation { mask: model.annotations.mask(id).cloned(), encoding: None };
    let live = encodings::simulate(tensor, &mask).map_err(named(&name))?;
    let encoding = fit_weight(&live, settings, precision, evenness).map_err(named(&name))?;
    model.annotations.entry(id).encoding = Some(encoding);
    Ok(())
}
