//! Equal constants are stored once.
use graph::{Model, ValueId};
use std::collections::{HashMap, HashSet};
use tensor::{DType, Tensor};

/// Bytes from which on a constant is looked at: a smaller one costs about as much as its name.
const LEAST: usize = 1024;

/// Makes the readers of equal large constants read one of them: a weight that several layers had as their own while the model was prepared
/// and trained (the branches of an If), if it ended with the same numbers. Constants that are inputs or outputs keep their names.
pub(super) fn equal_constants(model: &mut Model) {
    let named: HashSet<ValueId> = model.graph.inputs.iter().chain(&model.graph.outputs).copied().collect();
    let mut first: HashMap<(DType, &[usize]), Vec<(ValueId, &Tensor)>> = HashMap::new();
    let mut same = HashMap::new();
    for id in model.graph.constants.iter().filter(|id| !named.contains(id)) {
        let Some(tensor) = model.values.tensor(*id).filter(|t| t.len() * t.dtype().bits() >= 8 * LEAST) else { continue };
        let alike = first.entry((tensor.dtype(), tensor.shape())).or_default();
        match alike.iter().find(|(_, other)| *other == tensor) {
            Some((other, _)) => drop(same.insert(*id, *other)),
            None => alike.push((*id, tensor)),
        }
    }
    if !same.is_empty() {
        model.graph.replace_all_uses(&same);
        model.graph.constants.retain(|id| !same.contains_key(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::Node;

    #[test]
    fn equal_constants_are_stored_once_and_small_or_named_ones_stay() {
        let mut model = Model::new(17);
        let mut constant = |name: &str, count: usize, value: f32| {
            let id = model.values.add_constant(name, Tensor::vector(vec![value; count]));
            model.graph.constants.push(id);
            id
        };
        let [a, b, other] = [("a", 1.0), ("b", 1.0), ("other", 2.0)].map(|(name, value)| constant(name, 256, value));
        let [s, t] = ["s", "t"].map(|name| constant(name, 255, 1.0));
        let output = constant("output", 256, 1.0);
        let y = ["y0", "y1", "y2", "y3", "y4"].map(|name| model.values.add_named(name));
        model.graph.nodes = [a, b, other, s, t].iter().zip(y).map(|(c, y)| Node::new("Relu", "", &[*c], &[y])).collect();
        model.graph.outputs = vec![output];
        equal_constants(&mut model);
        let read: Vec<ValueId> = model.graph.nodes.iter().flat_map(|n| n.input(0)).collect();
        assert_eq!(read, [a, a, other, s, t]);
        assert_eq!(model.graph.constants, [a, other, s, t, output]);
    }
}
