//! Fitting constants to their own elements.
use crate::error::named;
use crate::plan::StoredConstant;
use crate::{QuantPlan, Result};
use encodings::Slot;
use encodings::affine::{Precision, fit_weight};
use graph::{Model, ValueId};
use std::collections::BTreeMap;

/// Fits one encoded constant to its present elements.
pub(crate) fn refit(model: &mut Model, id: ValueId) -> Result<()> {
    let (Some(encoding), Some(tensor)) = (model.annotations.encoding(id), model.values.tensor(id)) else { return Ok(()) };
    let fitted = encodings::refit(tensor, model.annotations.mask(id), encoding).map_err(named(&model.values[id].name))?;
    model.annotations.entry(id).encoding = Some(fitted);
    Ok(())
}

/// Fits a plan's constants; `precisions` has the precision of each one's scales; constants that it lacks are in no sum.
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
            StoredConstant::Weight { encoding, axis, along } => {
                encoding.fit(&live, Slot { axis: *axis, along: *along, mask, precision, evenness })
            }
        };
        let encoding = fitted.map_err(named(&name))?;
        model.annotations.entry(*id).encoding = Some(encoding);
    }
    Ok(())
}
