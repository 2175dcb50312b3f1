//! Quantization of a graph whose BatchNormalization stays an operator: planned, observed and fitted on the folded graph, and
//! transferred to the graph with its normalizations. Both have the same value ids, since folding replaces tensors and not values;
//! [`ops::refresh_kept_norms`] makes the unfolded graph simulate the folded weight.
//!
//! A weight that decodes from a table, or has a scale for each group, is fitted to itself instead, not to its folded form: its normalization may still change,
//! and becomes part of the channels' scales when it is folded.
use crate::error::named;
use crate::{QuantizeError, QuantizeSettings, Result};
use encodings::Decode;
use encodings::affine::AffineSettings;
use graph::{Encoding, FOLDED_SCALE, Model, ValueId};
use ops::KeptNorm;
use std::collections::BTreeSet;

/// Transfers the encodings of `folded`, which is `model` with its BatchNormalization folded and then quantized, to `model`.
/// Biases of layers with a normalization get their encoding when it is folded.
///
/// # Errors
/// [`QuantizeError::Value`] for integers without a scale for each output channel, and for a weight that several layers share: its
/// folded forms differ, so neither can be simulated on the one weight.
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
        if from_table(encoding)? {
            if unit.axis.is_none() {
                return refuse(format!("has no axis of output channels alone, so '{norm}' cannot be kept: fold BatchNormalization"));
            }
            crate::weights::refit(&mut model, unit.weight)?;
            continue;
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

/// True for a weight whose scales a factor for each channel can be multiplied into: one that decodes from a table, or with a scale for each
/// group.
fn from_table(encoding: &Encoding) -> Result<bool> {
    let decode = encodings::decode(encoding).map_err(named("weight"))?;
    Ok(matches!(decode, Decode::Table { .. } | Decode::Affine { blocks: Some(_), .. }))
}

/// The normalizations behind weights that decode from tables.
fn behind_tables(model: &Model) -> Result<Vec<KeptNorm>> {
    let mut found = vec![];
    for unit in ops::foldable_norms(model)? {
        if model.annotations.encoding(unit.weight).map(from_table).transpose()? == Some(true) {
            found.push(unit);
        }
    }
    Ok(found)
}

/// Removes a weight's encoding and replaces the weight by its decoded value. Returns the weight and the encoding of its folded
/// form.
fn taken_off(model: &mut Model, unit: &KeptNorm) -> Result<(ValueId, Encoding)> {
    let name = model.values[unit.weight].name.clone();
    let refuse = |what: &str| QuantizeError::Value { value: name.clone(), what: what.into() };
    let (Some(annotation), Some(tensor)) = (model.annotations.get(unit.weight), model.values.tensor(unit.weight)) else {
        return Err(refuse("is no constant"));
    };
    let (Some(encoding), Some(axis)) = (&annotation.encoding, unit.axis) else { return Err(refuse("has no axis of output channels")) };
    let scaled = encodings::scaled(encoding, axis, &unit.factor).map_err(named(&name))?;
    let scaled = scaled.ok_or_else(|| refuse("has tables along another axis than its output channels: fold BatchNormalization"))?;
    let simulated = encodings::simulate(tensor, annotation).map_err(named(&name))?;
    model.values.set_tensor(unit.weight, simulated);
    model.annotations.entry(unit.weight).encoding = None;
    Ok((unit.weight, scaled))
}

/// Folds the kept normalizations, and fits the resulting biases. Returns how many were folded.
///
/// # Errors
/// [`QuantizeError::Value`] for a normalization whose running statistics still changed in the last epoch: the trained weight is
/// not the one that would be stored. As [`crate::refresh_biases`].
pub fn fold_kept(model: &mut Model, settings: &QuantizeSettings) -> Result<usize> {
    let tables = behind_tables(model)?;
    if !ops::keeps_norms(model) && tables.is_empty() {
        return Ok(0);
    }
    if let Some(norm) = ops::moving_norms(model)?.into_iter().next() {
        let what = "its running statistics still moved in the last epoch, so the stored weight would not be the trained one: freeze \
                    them (freeze_statistics = 1 or more) or fold BatchNormalization"
            .to_string();
        return Err(QuantizeError::Value { value: norm, what });
    }
    let tables: Vec<(ValueId, Encoding)> = tables.iter().map(|unit| taken_off(model, unit)).collect::<Result<_>>()?;
    let folded = ops::fold_batch_norm(model)?;
    for (id, encoding) in tables {
        model.annotations.entry(id).encoding = Some(encoding);
    }
    crate::refresh_biases(model, settings)?;
    Ok(folded)
}
