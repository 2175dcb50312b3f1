//! Attaching quantizers as the recipe asks for them.
use crate::StageError;
use crate::recipe::QuantizeStage;
use graph::Model;

/// A note with the number of parameters without a grid, if it is at least one in a hundred.
///
/// # Errors
/// Errors of listing the parameters.
pub fn stay_float(model: &Model) -> Result<Option<String>, StageError> {
    let (mut total, mut float) = (0, vec![]);
    for parameter in train::parameters::trainable(model, &[], false)? {
        let elements = model.values.tensor(parameter.id.value).map_or(0, |t| t.len());
        total += elements;
        if model.annotations.encoding(parameter.id.value).is_none() {
            float.push((elements, parameter.name));
        }
    }
    let elements: usize = float.iter().map(|(n, _)| n).sum();
    if elements == 0 || elements * 100 < total {
        return Ok(None);
    }
    float.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    let more = if float.len() > 3 { format!(" and {} more", float.len() - 3) } else { String::new() };
    let names = float.into_iter().take(3).map(|(_, name)| name).collect::<Vec<_>>().join(", ");
    Ok(Some(format!("{elements} of {total} parameters stay float: {names}{more}")))
}

/// Updates the biases' scales after the scales that they depend on were trained. If BatchNormalization is kept, biases get their
/// scales when it is folded.
///
/// # Errors
/// Errors of the settings or the weights.
pub fn settle_biases(model: &mut Model, stage: &QuantizeStage, target: &target::Choice) -> Result<(), StageError> {
    if !ops::keeps_norms(model) {
        quantize::refresh_biases(model, &stage.settings(target))?;
    }
    Ok(())
}

/// Folds the normalizations that a quantize stage kept, before the graph is lowered. Returns how many.
///
/// # Errors
/// For one whose running statistics still moved in the last epoch.
pub fn settle_norms(model: &mut Model, stage: Option<&QuantizeStage>, target: &target::Choice) -> Result<usize, StageError> {
    Ok(quantize::fold_kept(model, &stage.map(|stage| stage.settings(target)).unwrap_or_default())?)
}
