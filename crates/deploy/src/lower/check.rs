//! Checks before lowering.
use crate::{DeployError, Result};
use graph::{Encoding, FOLDED_SCALE, Model};

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

/// The oldest operator set in which every annotation can be written down.
///
/// # Errors
/// [`DeployError::Lower`] for an encoding that has no form in any.
pub(super) fn needed_opset(model: &Model) -> Result<i64> {
    let mut needed = 0;
    for (id, annotation) in model.annotations.iter() {
        if let Some(encoding) = &annotation.encoding {
            let error = |e: encodings::EncodingError| DeployError::Lower { value: model.values[id].name.clone(), what: e.to_string() };
            needed = needed.max(super::constants::opset(&encodings::decode(encoding).map_err(error)?));
        }
    }
    Ok(needed)
}
