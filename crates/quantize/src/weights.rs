//! Fitting the grids of constants to their own elements.
use crate::bias::is_bias;
use crate::error::named;
use crate::{QuantPlan, QuantizeSettings, Result};
use encodings::affine::{AffineSettings, fit_weight};
use graph::{Annotation, Model, ValueId};

/// Fits the scale of every encoded constant again to its present elements under its mask, then the biases'. To be called
/// after training or pruning has changed the weights.
///
/// # Errors
/// [`crate::QuantizeError::Value`] for a weight that is not finite; as [`crate::plan`].
pub fn refit_weights(model: &mut Model, settings: &QuantizeSettings) -> Result<()> {
    let encoded = model.annotations.iter().filter_map(|(id, a)| Some((id, a.encoding.as_ref()?)));
    let constants: Vec<(ValueId, AffineSettings)> = encoded
        .filter(|(id, e)| e.kind == encodings::affine::KIND && !is_bias(e) && model.values.tensor(*id).is_some())
        .filter_map(|(id, e)| Some((id, AffineSettings::of(e).ok()?)))
        .collect();
    for (id, settings) in constants {
        fit(model, id, &settings)?;
    }
    crate::refresh_biases(model, settings)?;
    Ok(())
}

/// Fits the grid of one encoded constant to its present elements.
pub(crate) fn refit(model: &mut Model, id: ValueId) -> Result<()> {
    let Some(encoding) = model.annotations.encoding(id) else { return Ok(()) };
    let settings = AffineSettings::of(encoding).map_err(named(&model.values[id].name))?;
    fit(model, id, &settings)
}

/// Fits the grids of a plan's constants.
pub(crate) fn fit_constants(model: &mut Model, plan: &QuantPlan) -> Result<()> {
    plan.constants.iter().try_for_each(|(id, settings)| fit(model, *id, settings))
}

fn fit(model: &mut Model, id: ValueId, settings: &AffineSettings) -> Result<()> {
    let name = model.values[id].name.clone();
    let Some(tensor) = model.values.tensor(id) else { return Ok(()) };
    let mask = Annotation { mask: model.annotations.mask(id).cloned(), encoding: None };
    let live = encodings::simulate(tensor, &mask).map_err(named(&name))?;
    let encoding = fit_weight(&live, settings).map_err(named(&name))?;
    model.annotations.entry(id).encoding = Some(encoding);
    Ok(())
}
