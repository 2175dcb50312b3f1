//! Quantization of a graph whose BatchNormalization stays an operator: planned, observed and fitted on the folded graph,
//! and carried over to the one that keeps its normalizations. Both have the same value ids, for folding replaces tensors
//! and not values; [`ops::refresh_kept_norms`] says how the folded weight is simulated on the graph as it is.
use crate::{QuantizeError, QuantizeSettings, Result};
use encodings::affine::AffineSettings;
use graph::{FOLDED_SCALE, Model};
use std::collections::BTreeSet;

/// Carries the encodings of `folded`, which is `model` with its BatchNormalization folded and then quantized, over to
/// `model`. Biases of layers with a normalization get theirs when it is folded.
///
/// # Errors
/// [`QuantizeError::Value`] for a weight without a scale for each output channel, or shared by several layers: its folded
/// forms differ, so neither can be simulated on the one weight.
pub fn keep_norms(mut model: Model, folded: &Model) -> Result<Model> {
    let units = ops::foldable_norms(&model)?;
    let uses = model.graph.use_counts();
    let biases: BTreeSet<_> = units.iter().filter_map(|u| u.bias).collect();
    for (id, annotation) in folded.annotations.iter() {
        if let Some(encoding) = annotation.encoding.as_ref().filter(|_| model.value(id).is_ok() && !biases.contains(&id)) {
            model.annotations.entry(id).encoding = Some(encoding.clone());
        }
    }
    for unit in &units {
        let Some(encoding) = model.annotations.encoding(unit.weight) else { continue };
        let refuse = |what: String| Err(QuantizeError::Value { value: model.values[unit.weight].name.clone(), what });
        let norm = &unit.norm;
        if uses.get(&unit.weight) != Some(&1) {
            return refuse(format!("is shared by several layers, so '{norm}' cannot be kept: fold BatchNormalization"));
        }
        let whole = AffineSettings::of(encoding).is_ok_and(|s| s.axis.is_some());
        let Some(scale) = encoding.parameters.get("scale").filter(|s| whole && s.len() == unit.factor.len()).cloned() else {
            return refuse(format!(
                "has no scale for each output channel, so '{norm}' cannot be kept: store the weight as integers with granularity = \"channel\", or fold BatchNormalization"
            ));
        };
        if let Some(encoding) = &mut model.annotations.entry(unit.weight).encoding {
            encoding.parameters.insert(FOLDED_SCALE.into(), scale);
        }
    }
    ops::refresh_kept_norms(&mut model)?;
    ops::mark_kept_norms(&mut model, true);
    model.verify()?;
    Ok(model)
}

/// Folds the normalizations that were kept, and fits the biases that come out. Returns how many were folded.
///
/// # Errors
/// [`QuantizeError::Value`] for one whose running statistics still moved in the last epoch: what was trained is not what
/// would be stored. As [`crate::refresh_biases`].
pub fn fold_kept(model: &mut Model, settings: &QuantizeSettings) -> Result<usize> {
    if !ops::keeps_norms(model) {
        return Ok(0);
    }
    if let Some(norm) = ops::moving_norms(model)?.into_iter().next() {
        let what = "its running statistics still moved in the last epoch, so what was trained is not what would be stored: freeze \
                    them (freeze_statistics = 1 or more) or fold BatchNormalization"
            .to_string();
        return Err(QuantizeError::Value { value: norm, what });
    }
    let folded = ops::fold_batch_norm(model)?;
    crate::refresh_biases(model, settings)?;
    Ok(folded)
}
