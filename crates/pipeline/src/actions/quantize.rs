//! Attaching quantizers as the recipe asks for them.
use crate::StageError;
use crate::recipe::QuantizeStage;
use graph::Model;

/// How many of the parameters have no grid, where it is at least one in a hundred.
///
/// # Errors
/// What listing the parameters reports.
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

/// Sets the biases' scales again after the scales they follow from were trained. Where BatchNormalization is kept, biases
/// are settled when it is folded.
///
/// # Errors
/// What the settings or the weights report.
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
