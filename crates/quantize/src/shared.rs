//! Constants that integer nodes share with float nodes.
use crate::QuantizeSettings;
use crate::plan::{Planner, is_data};
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use tensor::DType;

/// If a float constant is read both as quantized data and in float, the integer nodes get a copy: on their grid a 1 might be 0.98
/// for the float nodes. Weights stay one constant, with all their readers.
pub(crate) fn unshare(model: &mut Model, settings: &QuantizeSettings) {
    let mut readers: BTreeMap<ValueId, (Vec<(usize, usize)>, bool)> = BTreeMap::new();
    let planner = Planner::new(model, &ops::Roles::of(model), settings);
    for (n, node) in model.graph.nodes.iter().enumerate() {
        let rule = planner.rule(node);
        for (i, id) in node.inputs.iter().enumerate().filter_map(|(i, id)| Some((i, (*id)?))) {
            let held = readers.entry(id).or_default();
            match is_data(&rule, i) {
                true => held.0.push((n, i)),
                false => held.1 = true,
            }
        }
        for id in node.subgraphs().flat_map(|g| g.use_counts().into_keys()) {
            readers.entry(id).or_default().1 = true;
        }
    }
    for (id, (integer, float)) in readers {
        let whole = model.values.tensor(id).filter(|t| t.dtype() == DType::F32).cloned();
        let Some(tensor) = whole.filter(|_| float && !integer.is_empty() && !model.graph.inputs.contains(&id)) else { continue };
        let name = model.fresh_name(&model.values[id].name.clone());
        let copy = model.values.add_constant(name, tensor);
        model.graph.constants.push(copy);
        for (n, i) in integer {
            model.graph.nodes[n].inputs[i] = Some(copy);
        }
    }
}
