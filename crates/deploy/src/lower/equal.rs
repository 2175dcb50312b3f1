//! Constants that hold the same are stored once.
use graph::{Model, ValueId};
use std::collections::{BTreeMap, HashMap};
use tensor::Tensor;

/// Elements from which on it pays.
const SMALLEST: usize = 64;

/// Elements by which constants are told apart before they are compared whole.
const LOOKED_AT: usize = 16;

/// Lets the readers of constants of the main graph that are equal to the bit read one of them. Folding makes such: the weights of a
/// recurrent layer that both branches of an If read, each through a node of its own.
pub(super) fn share(model: &mut Model) {
    let mut groups: BTreeMap<(String, Vec<usize>, Vec<u64>), Vec<ValueId>> = BTreeMap::new();
    for id in &model.graph.constants {
        let fed = model.graph.inputs.contains(id) || model.graph.outputs.contains(id);
        if let Some(tensor) = model.values.tensor(*id).filter(|t| !fed && t.len() >= SMALLEST)
            && let Ok(some) = some_elements(tensor)
        {
            groups.entry((tensor.dtype().to_string(), tensor.shape().to_vec(), some)).or_default().push(*id);
        }
    }
    let mut replaced: HashMap<ValueId, ValueId> = HashMap::new();
    for group in groups.into_values() {
        let mut kept: Vec<ValueId> = vec![];
        for id in group {
            let same = kept.iter().find(|other| model.values.tensor(**other).zip(model.values.tensor(id)).is_some_and(|(a, b)| a == b));
            match same {
                Some(other) => drop(replaced.insert(id, *other)),
                None => kept.push(id),
            }
        }
    }
    model.graph.replace_all_uses(&replaced);
    model.graph.constants.retain(|id| !replaced.contains_key(id));
}

/// The bits of elements that are evenly spread. Strings have none.
fn some_elements(tensor: &Tensor) -> tensor::Result<Vec<u64>> {
    let count = tensor.len();
    let at = (0..LOOKED_AT).map(|i| (i * count / LOOKED_AT) as i64).collect::<Vec<i64>>();
    let picked = tensor.reshape([count])?.gather(&Tensor::vector(at), 0)?;
    Ok(picked.to_f64_vec()?.into_iter().map(f64::to_bits).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::Node;

    #[test]
    fn equal_constants_are_stored_once_and_others_stay() {
        let mut model = Model::new(17);
        let tensor = |from: f32| Tensor::new((0..64).map(|i| i as f32 + from).collect::<Vec<_>>(), [64]).unwrap();
        let x = model.values.add_named("x");
        model.graph.inputs.push(x);
        let mut last = x;
        for (name, from) in [("a", 0.0), ("b", 1.0), ("c", 0.0), ("d", 1.0)] {
            let constant = model.values.add_constant(name, tensor(from));
            model.graph.constants.push(constant);
            let sum = model.values.add_named(format!("{name}_sum"));
            model.graph.nodes.push(Node::new("Add", name, &[last, constant], &[sum]));
            last = sum;
        }
        model.graph.outputs.push(last);
        share(&mut model);
        model.verify().unwrap();
        let read: Vec<&str> = model.graph.nodes.iter().map(|n| model.values[n.input(1).unwrap()].name.as_str()).collect();
        assert_eq!(read, ["a", "b", "a", "b"]);
        assert_eq!(model.graph.constants.len(), 2);
    }
}
