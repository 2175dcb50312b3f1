//! Checks before lowering.
use super::rewrite::wide_enough;
use crate::{DeployError, Result};
use encodings::Decode;
use graph::{Encoding, FOLDED_SCALE, Model};
use target::Target;

/// Refuses a weight that is simulated as its folded form before a BatchNormalization that is still an operator: what is stored
/// must be the folded weight.
///
/// # Errors
/// [`DeployError::Lower`], naming the weight.
pub(super) fn weights_are_folded(model: &Model) -> Result<()> {
    let unfolded = |e: &Encoding| e.parameters.contains_key(FOLDED_SCALE);
    match model.annotations.iter().find(|(_, a)| a.encoding.as_ref().is_some_and(unfolded)) {
        None => Ok(()),
        Some((weight, _)) => Err(DeployError::Lower {
            value: model.values[weight].name.clone(),
            what: "is simulated with the BatchNormalization behind it folded in, and that is an operator still: fold it first \
                   (quantize::fold_kept)"
                .to_string(),
        }),
    }
}

/// The oldest operator set in which every annotation can be written down for a target.
///
/// # Errors
/// [`DeployError::Lower`] for an encoding that has no form in any.
pub(super) fn needed_opset(model: &Model, target: &dyn Target) -> Result<i64> {
    let mut needed = 0;
    for (id, annotation) in model.annotations.iter() {
        if let Some(encoding) = &annotation.encoding {
            let error = |e: encodings::EncodingError| DeployError::Lower { value: model.values[id].name.clone(), what: e.to_string() };
            let mut decode = encodings::decode(encoding).map_err(error)?;
            if let (Decode::Affine { zero_point, .. }, None) = (&mut decode, model.values.tensor(id)) {
                *zero_point = zero_point.cast(wide_enough(zero_point.dtype(), target))?;
            }
            needed = needed.max(super::constants::opset(&decode));
        }
    }
    Ok(needed)
}
