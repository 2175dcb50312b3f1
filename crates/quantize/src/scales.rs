//! Arithmetic on scales in files that quantize at run time: `Cast(integer sums) * (scale of the data * scale of the weight)`.
use graph::{Graph, Node, ValueId};
use std::collections::BTreeSet;

/// First outputs of the Mul nodes that multiply such scales, or sums with them.
pub(crate) fn of_integers(graph: &Graph) -> BTreeSet<ValueId> {
    let (mut scales, mut sums, mut found) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for node in &graph.nodes {
        node.subgraphs().for_each(|g| found.append(&mut of_integers(g)));
        let reads = |set: &BTreeSet<ValueId>, node: &Node| node.inputs.iter().flatten().any(|v| set.contains(v));
        match node.op_type.as_str() {
            "DynamicQuantizeLinear" => scales.extend(node.output(1)),
            "ConvInteger" | "MatMulInteger" => sums.extend(node.output(0)),
            "Cast" if reads(&sums, node) => sums.extend(node.output(0)),
            "Mul" if reads(&sums, node) => found.extend(node.output(0)),
            "Mul" if reads(&scales, node) => {
                scales.extend(node.output(0));
                found.extend(node.output(0));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::Values;

    #[test]
    fn scales_and_what_they_scale_are_found_and_what_comes_behind_is_not() {
        let mut values = Values::default();
        let mut v = |name: &str| values.add_named(name);
        let [x, q, s, z, w, sums, cast, ws, both, y, b, out] =
            ["x", "q", "s", "z", "w", "sums", "cast", "ws", "both", "y", "b", "out"].map(&mut v);
        let nodes = vec![
            Node::new("DynamicQuantizeLinear", "", &[x], &[q, s, z]),
            Node::new("MatMulInteger", "", &[q, w, z], &[sums]),
            Node::new("Cast", "", &[sums], &[cast]),
            Node::new("Mul", "", &[s, ws], &[both]),
            Node::new("Mul", "", &[cast, both], &[y]),
            Node::new("Mul", "", &[y, b], &[out]),
        ];
        assert_eq!(of_integers(&Graph { nodes, ..Graph::default() }), BTreeSet::from([both, y]));
    }
}
