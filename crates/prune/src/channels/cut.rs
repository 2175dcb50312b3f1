//! Removing channels from the graph, and setting their parameters to zero instead, which must compute the same.
use super::groups::{Channel, Groups, located};
use crate::{PruneError, Result};
use encodings::affine::AffineSettings;
use graph::{Encoding, Model, ValueId, ValueType};
use ops::{CutCx, Place, Role};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tensor::Tensor;

/// The indices that each axis keeps; an axis that keeps all is not in it.
type Kept = HashMap<(ValueId, usize), Vec<usize>>;

/// Removes channels: their parameters, masks and encodings' parameters become smaller, and attributes and shape inputs follow.
///
/// # Errors
/// [`PruneError::Graph`] for an axis that would keep nothing, and a node that cannot express its new sizes; the model is unchanged then.
pub fn cut(model: &mut Model, groups: &Groups, removed: &[&Channel]) -> Result<()> {
    let kept = kept(model, groups, removed)?;
    let before = model.clone();
    let mut after = Model { source: None, ..model.clone() };
    for ((value, axis), indices) in sorted(&kept) {
        shrink(&mut after, *value, *axis, indices)?;
    }
    let mut names = after.names();
    for (at, node) in before.graph.nodes.iter().enumerate() {
        let touched = node.inputs.iter().chain(&node.outputs).flatten().any(|v| {
            let rank = groups.shapes.get(v).map_or(0, Vec::len);
            (0..rank).any(|axis| kept.contains_key(&(*v, axis)))
        });
        let Some(op) = ops::find(&node.domain, &node.op_type).filter(|_| touched) else { continue };
        let facts = groups.facts(&before, node);
        let indices = |place: Place| located(node, place).and_then(|key| kept.get(&key).cloned());
        let cx = CutCx { before: &facts, kept: &indices };
        let mut changed = node.clone();
        let (values, constants) = (&mut after.values, &mut after.graph.constants);
        op.cut(&cx, &mut changed, &mut |name, tensor| {
            let id = values.add_constant(names.fresh(&format!("{}_{name}", node.label(&before.values))), tensor);
            constants.push(id);
            id
        })?;
        after.graph.nodes[at] = changed;
    }
    after.remove_dead();
    *model = after;
    Ok(())
}

/// The model with all parameters of the channels at zero: weights, biases, and scales and shifts of normalizations.
///
/// # Errors
/// [`PruneError::Graph`] if a parameter is not f32.
pub fn zeroed(model: &Model, removed: &[&Channel]) -> Result<Model> {
    let mut out = Model { source: None, ..model.clone() };
    let mut parameters = BTreeSet::new();
    let roles = ops::Roles::of(model);
    for node in &model.graph.nodes {
        for (i, id) in node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
            if matches!(roles.role(node, i), Role::Weight | Role::Bias | Role::NormScale | Role::NormBias) && model.constant(id).is_some() {
                parameters.insert(id);
            }
        }
    }
    let mut gone: BTreeMap<(ValueId, usize), BTreeSet<usize>> = BTreeMap::new();
    for place in removed.iter().flat_map(|c| &c.places).filter(|p| parameters.contains(&p.value)) {
        gone.entry((place.value, place.axis)).or_default().insert(place.index);
    }
    for ((value, axis), gone) in gone {
        let Some(tensor) = out.values.tensor(value) else { continue };
        let (shape, mut list) = (tensor.shape().to_vec(), tensor.to_f32_vec().map_err(unreadable)?);
        let inner: usize = shape[axis + 1..].iter().product();
        for (i, element) in list.iter_mut().enumerate() {
            if gone.contains(&(i / inner.max(1) % shape[axis])) {
                *element = 0.0;
            }
        }
        out.values.set_tensor(value, Tensor::new(list, shape).map_err(unreadable)?);
    }
    Ok(out)
}

fn unreadable(error: tensor::TensorError) -> PruneError {
    PruneError::Graph(error.to_string())
}

fn sorted(kept: &Kept) -> BTreeMap<&(ValueId, usize), &Vec<usize>> {
    kept.iter().collect()
}

fn kept(model: &Model, groups: &Groups, removed: &[&Channel]) -> Result<Kept> {
    let mut gone: HashMap<(ValueId, usize), BTreeSet<usize>> = HashMap::new();
    for place in removed.iter().flat_map(|c| &c.places) {
        gone.entry((place.value, place.axis)).or_default().insert(place.index);
    }
    let keep = |((value, axis), gone): ((ValueId, usize), BTreeSet<usize>)| {
        let size = groups.shapes.get(&value).and_then(|s| s.get(axis)?.known()).unwrap_or(0);
        let left: Vec<usize> = (0..size).filter(|i| !gone.contains(i)).collect();
        if left.is_empty() {
            return Err(PruneError::Graph(format!("'{}' would keep none of its {size} channels", model.values[value].name)));
        }
        Ok(((value, axis), left))
    };
    gone.into_iter().map(keep).collect()
}

/// Keeps some indices of an axis: of a constant with its annotation, or of a computed value's declared type.
fn shrink(model: &mut Model, value: ValueId, axis: usize, kept: &[usize]) -> Result<()> {
    let indices = Tensor::vector(kept.iter().map(|i| *i as i64).collect::<Vec<_>>());
    if let Some(tensor) = model.values.tensor(value) {
        let smaller = tensor.gather(&indices, axis).map_err(unreadable)?;
        if let Some(annotation) = model.annotations.get(value).cloned() {
            let mask = annotation.mask.map(|m| m.gather(&indices, axis).map_err(unreadable)).transpose()?;
            let name = &model.values[value].name;
            let encoding = annotation.encoding.map(|e| match in_blocks(&e) {
                // Where inputs go, others come together in a group.
                true => encodings::refit(&smaller, mask.as_ref(), &e).map_err(|e| PruneError::Graph(format!("'{name}': {e}"))),
                false => shrink_encoding(name, e, axis, &indices),
            });
            let encoding = encoding.transpose()?;
            *model.annotations.entry(value) = graph::Annotation { mask, encoding };
        }
        model.values.set_tensor(value, smaller);
    } else {
        if let ValueType::Tensor { shape: Some(dims), .. } = &mut model.values[value].ty
            && let Some(dim) = dims.get_mut(axis)
        {
            *dim = graph::Dim::Known(kept.len());
        }
        // Other encodings of computed values have one set of parameters.
        if let Some(encoding) = model.annotations.encoding(value).filter(|e| AffineSettings::of(e).is_ok()).cloned() {
            let smaller = shrink_encoding(&model.values[value].name, encoding, axis, &indices)?;
            model.annotations.entry(value).encoding = Some(smaller);
        }
    }
    Ok(())
}

/// True for integers with a scale for each group of elements.
fn in_blocks(encoding: &Encoding) -> bool {
    AffineSettings::of(encoding).is_ok_and(|s| s.blocks.is_some())
}

/// Parameters with one element for each index of the axis lose those of removed indices.
fn shrink_encoding(name: &str, mut encoding: Encoding, axis: usize, indices: &Tensor) -> Result<Encoding> {
    let Ok(settings) = AffineSettings::of(&encoding) else {
        let told = encodings::describe(&encoding);
        return Err(PruneError::Graph(format!(
            "'{name}' is stored as {told}, which cannot lose channels: remove channels before quantizing"
        )));
    };
    for tensor in encoding.parameters.values_mut().filter(|t| settings.axis == Some(axis) && t.rank() == 1 && t.len() > 1) {
        *tensor = tensor.gather(indices, 0).map_err(unreadable)?;
    }
    Ok(encoding)
}
