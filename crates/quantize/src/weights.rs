//! Fitting constants to their own elements.
use crate::bias::is_bias;
use crate::error::named;
use crate::plan::StoredConstant;
use crate::{QuantPlan, QuantizeSettings, Result};
use encodings::Slot;
use encodings::affine::{Precision, fit_weight};
use graph::{Model, ValueId};
use std::collections::BTreeMap;

/// Fits every encoded constant again to its present elements under its mask, then the biases. To be called after training or pruning
/// has changed the weights.
///
/// # Errors
/// [`crate::QuantizeError::Value`] for a weight that is not finite; as [`crate::plan`].
pub fn refit_weights(model: &mut Model, settings: &QuantizeSettings) -> Result<()> {
    let encoded = model.annotations.iter().filter_map(|(id, a)| Some((id, a.encoding.as_ref()?)));
    let constants = encoded.filter(|(id, e)| !is_bias(e) && model.values.tensor(*id).is_some());
    for id in constants.map(|(id, _)| id).collect::<Vec<ValueId>>() {
        refit(model, id)?;
    }
    crate::refresh_biases(model, settings)?;
    Ok(())
}

/// Fits one encoded constant to its present elements.
pub(crate) fn refit(model: &mut Model, id: ValueId) -> Result<()> {
    let (Some(encoding), Some(tensor)) = (model.annotations.encoding(id), model.values.tensor(id)) else { return Ok(()) };
    let fitted = encodings::refit(tensor, model.annotations.mask(id), encoding).map_err(named(&model.values[id].name))?;
    model.annotations.entry(id).encoding = Some(fitted);
    Ok(())
}

/// Fits a plan's constants; `precisions` says how precise the scales of each may be, and what it does not name is in no sum.
pub(crate) fn fit_constants(
    model: &mut Model,
    plan: &QuantPlan,
    precisions: &BTreeMap<ValueId, Precision>,
    other: Precision,
    evenness: &BTreeMap<ValueId, f64>,
) -> Result<()> {
    for (id, stored) in &plan.constants {
        let name = model.values[*id].name.clone();
        let Some(tensor) = model.values.tensor(*id) else { continue };
        let mask = model.annotations.mask(*id);
        let live = encodings::live(tensor, mask).map_err(named(&name))?;
        let precision = precisions.get(id).copied().unwrap_or(other);
        let evenness = evenness.get(id).copied().unwrap_or(0.0);
        let fitted = match stored {
            StoredConstant::Data(settings) => fit_weight(&live, settings, precision, evenness),
            StoredConstant::Weight { encoding, axis } => encoding.fit(&live, Slot { axis: *axis, mask, precision, evenness }),
        };
        let encoding = fitted.map_err(named(&name))?;
        model.annotations.entry(*id).encoding = Some(encoding);
    }
    Ok(())
}
