//! Extends grids through operators that only move elements.
use graph::{Graph, Model, Node, ValueId};
use ops::{Effect, Operator, Role};
use std::collections::BTreeSet;

/// Gives the output of each operator that moves elements its input's encoding where it has none of its own. Quantizing a value that
/// lies on the grid already changes nothing, so the simulation is unchanged. Returns the outputs that got an encoding.
pub(super) fn propagate(model: &mut Model) -> BTreeSet<ValueId> {
    let graph = model.graph.clone();
    let mut given = BTreeSet::new();
    in_graph(&graph, model, &mut given);
    given
}

fn in_graph(graph: &Graph, model: &mut Model, given: &mut BTreeSet<ValueId>) {
    for node in &graph.nodes {
        for sub in node.subgraphs() {
            in_graph(sub, model, given);
        }
        let Some(op) = ops::find(&node.domain, &node.op_type).filter(|op| op.effect(node, model) == Effect::Moves) else {
            continue;
        };
        let Some(input) = node.input(0).filter(|v| model.values.tensor(*v).is_none() || looks_up(model, op, node)) else { continue };
        let Some(encoding) = per_tensor(model, input) else { continue };
        for output in node.outputs.iter().take(op.outputs_on_grid(node)).flatten() {
            let own = &mut model.annotations.entry(*output).encoding;
            if own.is_none() {
                *own = Some(encoding.clone());
                given.insert(*output);
            }
        }
    }
}

/// True if the node looks up rows of a trained table: its output is no constant.
fn looks_up(model: &Model, op: &dyn Operator, node: &Node) -> bool {
    op.role(node, 0) == Role::Weight && node.input(1).is_some_and(|index| model.values.tensor(index).is_none())
}

/// A grid with one scale; a grid per channel would not survive a change of axes.
fn per_tensor(model: &Model, value: ValueId) -> Option<graph::Encoding> {
    let encoding = model.annotations.encoding(value)?;
    let scale = encoding.parameters.get("scale")?;
    let integers = matches!(encodings::decode(encoding), Ok(encodings::Decode::Affine { blocks: None, .. }));
    (integers && scale.len() == 1).then(|| encoding.clone())
}
