//! What must hold before a model is lowered.
use crate::{DeployError, Result};
use graph::{Graph, Model};

/// Refuses an encoded weight whose output a BatchNormalization still scales: what is stored must be the folded weight,
/// else a runtime that folds computes on another grid than the one that was simulated.
///
/// # Errors
/// [`DeployError::Lower`], naming weight and node.
pub(super) fn weights_are_folded(model: &Model) -> Result<()> {
    in_graph(model, &model.graph)
}

fn in_graph(model: &Model, graph: &Graph) -> Result<()> {
    for norm in &graph.nodes {
        for sub in norm.subgraphs() {
            in_graph(model, sub)?;
        }
        if norm.op_type != "BatchNormalization" || !norm.is_onnx() {
            continue;
        }
        let Some(unit) = norm.input(0).and_then(|v| graph.producer(v)).map(|i| &graph.nodes[i]) else { continue };
        let encoded =
            unit.inputs.iter().flatten().find(|v| model.values.tensor(**v).is_some() && model.annotations.encoding(**v).is_some());
        if let Some(weight) = encoded {
            return Err(DeployError::Lower {
                value: model.values[*weight].name.clone(),
                what: format!(
                    "'{}' normalizes its layer's output; fold BatchNormalization before weights are quantized (quantize::fold_kept, \
                     where it was kept)",
                    norm.label(&model.values)
                ),
            });
        }
    }
    Ok(())
}

/// The oldest operator set in which every annotation can be written down.
///
/// # Errors
/// [`DeployError::Lower`] for an encoding that has no form in any.
pub(super) fn needed_opset(model: &Model) -> Result<i64> {
    let mut needed = 0;
    for (id, annotation) in model.annotations.iter() {
        if let Some(encoding) = &annotation.encoding {
            needed = needed.max(crate::grid::Grid::of(&model.values[id].name, encoding)?.opset());
        }
    }
    Ok(needed)
}
