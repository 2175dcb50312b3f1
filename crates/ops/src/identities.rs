//! Removal of Identity nodes.
use graph::{Annotations, Graph, Model, Node, ValueId};
use std::collections::{HashMap, HashSet};

/// Removes Identity nodes without an annotation of their own. One whose output is a graph output stays if its input is a graph
/// input, a constant or has other readers. Returns how many were removed.
pub fn remove_identities(model: &mut Model) -> usize {
    fn in_graph(graph: &mut Graph, annotations: &Annotations) -> usize {
        let mut removed = 0;
        for node in &mut graph.nodes {
            for sub in node.subgraphs_mut() {
                removed += in_graph(sub, annotations);
            }
        }
        let plain = |v: ValueId| annotations.get(v).is_none_or(|a| a.is_empty());
        let ends = |node: &Node| {
            let ends = (node.op_type == "Identity" && node.is_onnx()).then(|| node.input(0).zip(node.output(0))).flatten();
            ends.filter(|(_, output)| plain(*output))
        };
        let named: HashSet<ValueId> = graph.outputs.iter().copied().collect();
        let mut replaced: HashMap<ValueId, ValueId> = HashMap::new();
        graph.nodes.retain(|node| match ends(node).filter(|(_, output)| !named.contains(output)) {
            Some((input, output)) => {
                replaced.insert(output, input);
                false
            }
            None => true,
        });
        graph.replace_all_uses(&replaced);
        // An Identity that computes a graph output: the producer of its input computes the output instead.
        let (uses, links) = (graph.use_counts(), graph.links());
        let mut renamed: HashMap<ValueId, ValueId> = HashMap::new();
        graph.nodes.retain(|node| {
            let own = |input: ValueId| plain(input) && links.producer(input).is_some() && uses.get(&input) == Some(&1);
            match ends(node).filter(|(input, _)| own(*input)) {
                Some((input, output)) => {
                    renamed.insert(input, output);
                    false
                }
                None => true,
            }
        });
        for made in graph.nodes.iter_mut().flat_map(|n| n.outputs.iter_mut().flatten()) {
            *made = renamed.get(made).copied().unwrap_or(*made);
        }
        let made: HashSet<ValueId> = graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
        let touched: HashSet<ValueId> = replaced.iter().chain(&renamed).flat_map(|(a, b)| [*a, *b]).collect();
        graph.value_info.retain(|v| !touched.contains(v) || made.contains(v));
        removed + replaced.len() + renamed.len()
    }
    in_graph(&mut model.graph, &model.annotations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_go_and_output_names_stay() {
        let mut m = Model::new(17);
        let ids: Vec<ValueId> = ["x", "a", "b", "c", "y"].map(|n| m.values.add_named(n)).to_vec();
        m.graph.inputs.push(ids[0]);
        for (i, op) in ["Identity", "Relu", "Identity", "Identity"].into_iter().enumerate() {
            m.graph.nodes.push(Node::new(op, "", &[ids[i]], &[ids[i + 1]]));
        }
        m.graph.outputs.push(ids[4]);
        assert_eq!(remove_identities(&mut m), 3);
        m.verify().unwrap();
        assert_eq!(m.graph.nodes, vec![Node::new("Relu", "", &[ids[0]], &[ids[4]])]);
        m.graph.nodes[0].op_type = "Identity".into();
        assert_eq!(remove_identities(&mut m), 0);
    }
}
