//! Clips and Relus that the grid behind them covers.
use graph::{Model, Node, ValueId};
use std::collections::BTreeSet;

/// Outputs of each Relu, and of each Clip with constant bounds, on a grid that ends exactly at those bounds. Without the node the
/// integers are the same, and a runtime has one node less between a layer and its quantizer.
pub(super) fn find(model: &Model) -> BTreeSet<ValueId> {
    let mut out = BTreeSet::new();
    model.graph.visit(&mut |node| out.extend(node.output(0).filter(|v| is_covered(model, node, *v).unwrap_or(false))));
    out
}

fn is_covered(model: &Model, node: &Node, output: ValueId) -> Option<bool> {
    let (min, max) = ops::clip_bounds(model, node)?;
    let grid = encodings::affine::Grid::of(model.annotations.encoding(output)?).ok()?;
    let scale = Some(grid.scale()).filter(|s| s.len() == 1)?.item::<f32>().ok()?;
    let zero_point = grid.zero_point().ok()?.to_f32_vec().ok()?[0];
    let (qmin, qmax) = (grid.settings().qmin() as f32, grid.settings().qmax() as f32);
    let step = |v: f32| (v / scale).round_ties_even() + zero_point;
    Some(model.annotations.mask(output).is_none() && step(min) <= qmin && step(max) >= qmax)
}
