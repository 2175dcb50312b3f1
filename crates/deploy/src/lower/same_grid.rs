//! Grids pass through operators that only move elements.
use graph::{Graph, Model, ValueId};
use ops::QuantRule;

/// Gives the output of each `SameGrid` operator its input's encoding where it has none of its own. Quantizing a value that
/// lies on the grid already changes nothing, so the simulation stays what it was.
pub(super) fn propagate(model: &mut Model) {
    let graph = std::mem::take(&mut model.graph);
    in_graph(&graph, model);
    model.graph = graph;
}

fn in_graph(graph: &Graph, model: &mut Model) {
    for node in &graph.nodes {
        for sub in node.subgraphs() {
            in_graph(sub, model);
        }
        let same = ops::find(&node.domain, &node.op_type).is_some_and(|op| op.quantization(node) == QuantRule::SameGrid);
        let (Some(input), [Some(output)]) = (node.input(0), node.outputs.as_slice()) else { continue };
        if !same || model.annotations.encoding(*output).is_some() {
            continue;
        }
        if let Some(encoding) = per_tensor(model, input) {
            model.annotations.entry(*output).encoding = Some(encoding);
        }
    }
}

/// A grid with one scale; a grid per channel would not survive a change of axes.
fn per_tensor(model: &Model, value: ValueId) -> Option<graph::Encoding> {
    let encoding = model.annotations.encoding(value)?;
    let scale = encoding.parameters.get("scale")?;
    (scale.len() == 1).then(|| encoding.clone())
}
