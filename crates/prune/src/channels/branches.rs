//! Branches that no longer depend on the data leave the graph: the sum that joins them reads the other side alone.
use super::still::{moving, still};
use crate::Result;
use graph::{Model, ValueId};
use std::collections::{HashMap, HashSet};
use tensor::Tensor;
use train::{Executor, Mode, Named};

/// Removes the branches whose result is the same whatever the network is given, since masks or zeros have emptied a layer in them. If it is zero,
/// the sum goes too, and what read it reads the other side (a shortcut); else the sum adds a constant, one element for each channel, or one in
/// all if they are equal. A branch with another result than one element for each channel stays. What else reads a branch still does. Returns
/// how many left.
///
/// # Errors
/// Errors of running the network on `sample`; [`crate::PruneError::Tensor`] for a weight that cannot be read.
pub fn drop_branches(model: &mut Model, sample: &Named) -> Result<usize> {
    let moving = moving(model)?;
    let (mut candidates, mut values) = (vec![], HashSet::new());
    for (at, node) in model.graph.nodes.iter().enumerate() {
        let Some([a, b]) = ops::summands(node) else { continue };
        let (Some(a), Some(b), Some(out)) = (node.input(a), node.input(b), node.output(0)) else { continue };
        let (branch, other) = match (moving.contains(&a), moving.contains(&b)) {
            (false, true) => (a, b),
            (true, false) => (b, a),
            _ => continue,
        };
        // A constant that is added is no branch.
        if model.values.tensor(branch).is_none() && [branch, out].iter().all(|v| model.annotations.encoding(*v).is_none()) {
            candidates.push((at, branch, other, out));
            values.extend([branch]);
        }
    }
    if candidates.is_empty() {
        return Ok(0);
    }
    let (known, shapes) = (still(model, sample, &values)?, shapes(model, sample, &candidates)?);
    let (mut passed, mut dropped) = (HashMap::new(), 0);
    for (at, branch, other, out) in candidates {
        let (Some(own), Some(whole)) = (shapes.get(&branch), shapes.get(&out)) else { continue };
        let Some((axis, mut constants)) = per_channel(&known, branch, own.len()) else { continue };
        if shapes.get(&other) != Some(whole) {
            continue;
        }
        if constants.iter().all(|c| *c == 0.0) && !model.graph.outputs.contains(&out) {
            passed.insert(out, other);
        } else {
            // Equal elements say nothing of the axis, which may be one whose length is the sample's.
            if constants.windows(2).all(|pair| pair[0] == pair[1]) {
                constants.truncate(1);
            }
            let mut shape = vec![1; own.len()];
            shape[axis] = constants.len();
            let name = model.fresh_name(&format!("{}_constant", model.values[branch].name));
            let tensor = Tensor::new(constants, shape).map_err(train::TrainError::from)?;
            let id = model.values.add_constant(name, tensor);
            model.graph.constants.push(id);
            model.graph.nodes[at].inputs.iter_mut().flatten().filter(|v| **v == branch).for_each(|v| *v = id);
        }
        dropped += 1;
    }
    if dropped > 0 {
        model.source = None;
        model.graph.replace_all_uses(&passed);
        model.remove_dead();
    }
    Ok(dropped)
}

/// The axis along which a value has one element for each index, with these elements: of several the first behind the batch.
fn per_channel(known: &HashMap<(ValueId, usize), Vec<Option<f32>>>, value: ValueId, rank: usize) -> Option<(usize, Vec<f32>)> {
    (1..rank).find_map(|axis| Some((axis, known.get(&(value, axis))?.iter().copied().collect::<Option<Vec<f32>>>()?)))
}

/// The shapes that the candidates' values have in a run.
fn shapes(model: &Model, sample: &Named, candidates: &[(usize, ValueId, ValueId, ValueId)]) -> Result<HashMap<ValueId, Vec<usize>>> {
    let wanted: HashSet<ValueId> = candidates.iter().flat_map(|(_, a, b, out)| [*a, *b, *out]).collect();
    let mut found = HashMap::new();
    Executor::unfused(model)?.run_observed(sample, Mode::SIMULATED, &mut |id, tensor| {
        if wanted.contains(&id) {
            found.insert(id, tensor.shape().to_vec());
        }
    })?;
    for (name, tensor) in sample {
        model.find(name).into_iter().for_each(|id| drop(found.insert(id, tensor.shape().to_vec())));
    }
    Ok(found)
}
