//! Weights that are stored and decoded inside the bodies of control flow become those of the main graph, where lifting finds them.
use crate::table;
use graph::{Graph, Model, Node, ValueId};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Moves constants of a body that are decoded there ([`table::is_decoded`]) to the main graph, with the nodes that decode them. What
/// has a name that another value has too stays where it is.
pub(crate) fn decoded_constants(model: &mut Model) {
    if model.graph.nodes.iter().all(|n| n.subgraphs().next().is_none()) {
        return;
    }
    let mut named: HashMap<&str, usize> = HashMap::new();
    model.values.iter().for_each(|(_, value)| *named.entry(value.name.as_str()).or_default() += 1);
    let makers = table::makers(&model.graph);
    let constant = |v: ValueId| model.constant(v);
    let (mut moved, mut constants) = (HashSet::new(), BTreeSet::new());
    let mut bodies = vec![];
    collect(&model.graph, &mut bodies);
    for body in bodies {
        let own: HashSet<ValueId> = body.constants.iter().copied().collect();
        let made: HashSet<ValueId> = body.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
        for weight in body.nodes.iter().filter_map(|n| n.output(0)).filter(|v| !body.outputs.contains(v)) {
            if !table::is_decoded(weight, &makers, &constant) {
                continue;
            }
            let (mut parts, mut read, mut open) = (HashSet::new(), BTreeSet::new(), vec![weight]);
            while let Some(value) = open.pop() {
                match makers.get(&value).filter(|_| made.contains(&value)) {
                    Some(maker) if parts.insert(value) => open.extend(maker.inputs.iter().flatten()),
                    Some(_) => {}
                    None => drop(read.insert(value)),
                }
            }
            let inside: Vec<ValueId> = read.iter().filter(|v| own.contains(v)).copied().collect();
            let outputs = parts.iter().flat_map(|v| makers[v].outputs.iter().flatten());
            let unique = inside.iter().chain(outputs).all(|v| named.get(model.values[*v].name.as_str()) == Some(&1));
            if unique && !inside.is_empty() && read.iter().all(|v| constant(*v).is_some()) {
                moved.extend(parts);
                constants.extend(inside);
            }
        }
    }
    let mut nodes = vec![];
    for sub in model.graph.nodes.iter_mut().flat_map(Node::subgraphs_mut) {
        take_out(sub, &moved, &constants, &mut nodes);
    }
    model.graph.nodes.splice(0..0, nodes);
    model.graph.constants.extend(constants);
}

fn collect<'g>(graph: &'g Graph, into: &mut Vec<&'g Graph>) {
    for sub in graph.nodes.iter().flat_map(Node::subgraphs) {
        into.push(sub);
        collect(sub, into);
    }
}

fn take_out(graph: &mut Graph, moved: &HashSet<ValueId>, constants: &BTreeSet<ValueId>, out: &mut Vec<Node>) {
    let goes = |n: &Node| n.outputs.iter().flatten().any(|v| moved.contains(v));
    let (taken, kept): (Vec<Node>, Vec<Node>) = std::mem::take(&mut graph.nodes).into_iter().partition(goes);
    out.extend(taken);
    graph.nodes = kept;
    graph.constants.retain(|v| !constants.contains(v));
    for sub in graph.nodes.iter_mut().flat_map(Node::subgraphs_mut) {
        take_out(sub, moved, constants, out);
    }
}
