//! Values that are proved to be never negative, from the operators that compute them.
use graph::{Links, Model, ValueId};
use ops::NeverNegative;

/// How many nodes back are searched.
const DEEPEST: usize = 12;

/// How many values are searched.
const MOST: usize = 1000;

/// True if the value of the main graph is proved to have no negative element.
pub(crate) fn never_negative(model: &Model, links: &Links, value: ValueId) -> bool {
    within(model, links, value, DEEPEST, &mut 0)
}

fn within(model: &Model, links: &Links, value: ValueId, left: usize, seen: &mut usize) -> bool {
    *seen += 1;
    if *seen > MOST {
        return false;
    }
    if let Some(t) = model.constant(value) {
        return t.to_f64_vec().is_ok_and(|list| list.iter().all(|v| *v >= 0.0));
    }
    if begins_at_zero(model, value) {
        return true;
    }
    let Some(node) = links.producer(value).map(|at| &model.graph.nodes[at]).filter(|_| left > 0) else { return false };
    let mut of = |i: usize| node.input(i).is_some_and(|v| within(model, links, v, left - 1, seen));
    match ops::never_negative(model, node) {
        NeverNegative::Always => true,
        NeverNegative::IfAll => (0..node.inputs.len()).all(of),
        NeverNegative::IfAny => (0..node.inputs.len()).any(of),
        NeverNegative::IfFirst => of(0),
        NeverNegative::Unknown => false,
    }
}

fn begins_at_zero(model: &Model, value: ValueId) -> bool {
    let Some(grid) = model.annotations.encoding(value).and_then(|e| encodings::affine::Grid::of(e).ok()) else { return false };
    let lowest = grid.settings().qmin();
    grid.zero_point().ok().and_then(|z| z.to_i64_vec().ok()).is_some_and(|z| z.iter().all(|z| *z <= lowest))
}
