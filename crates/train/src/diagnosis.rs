//! Finds the node at which a failed step stopped being finite, and a remedy. The step runs once more and is checked value by
//! value.
use crate::parameters::{self, Parameter};
use crate::{Batch, Executor, Mode, Objective};
use graph::{Model, Node, ValueId};
use std::collections::{HashMap, HashSet};
use tensor::Tensor;

/// Operators with an infinite or undefined result or slope at zero.
const AT_ZERO: [&str; 6] = ["Div", "Log", "Pow", "Reciprocal", "ReduceLogSum", "Sqrt"];

/// The node at which the first value, or the first gradient, is not finite, as the end of a sentence; empty if none is found.
pub(crate) fn not_finite(
    model: &Model,
    parameters: &[Parameter],
    taps: &[ValueId],
    objective: &dyn Objective,
    batch: &Batch,
    mode: Mode,
) -> String {
    look(model, parameters, taps, objective, batch, mode).unwrap_or_default()
}

fn look(model: &Model, parameters: &[Parameter], taps: &[ValueId], objective: &dyn Objective, batch: &Batch, mode: Mode) -> Option<String> {
    let executor = Executor::with_taps(model, taps).ok()?;
    let model = executor.model();
    let (overrides, _leaves) = parameters::track(model, parameters).ok()?;
    let mut makers: HashMap<ValueId, &Node> = HashMap::new();
    model.graph.visit(&mut |node| makers.extend(node.outputs.iter().flatten().map(|v| (*v, node))));
    let (mut infinite, mut first, mut places) = (HashSet::new(), None, vec![]);
    let ran = executor.run_with(
        &batch.inputs,
        &overrides,
        mode,
        Some(&mut |v, t: &Tensor| {
            places.extend(t.recorded_at().map(|at| (at, v)));
            let Some(bad) = odd(t) else { return };
            infinite.insert(v);
            // A mask of -inf is no fault: its inputs, or the value that it is added to, are not finite either.
            let made_here = makers.get(&v).is_some_and(|node| {
                let mut inputs = node.inputs.iter().flatten().peekable();
                inputs.peek().is_some() && inputs.all(|i| !infinite.contains(i) && model.constant(*i).is_none_or(|c| odd(c).is_none()))
            });
            if made_here && first.is_none() {
                first = Some((v, bad));
            }
        }),
    );
    let node = |v: ValueId| makers.get(&v).map(|n| (n.label(&model.values), n.op_type.as_str()));
    if let Some((v, bad)) = first {
        let (name, op) = node(v)?;
        return Some(format!(": the result of node '{name}' ({op}) holds {bad}{}", remedy(&name, op)));
    }
    let values = batch.counted_values(ran.ok()?.values).ok()?;
    let at = objective.loss(&values, batch).ok()?.find_infinite_slope().ok()??;
    // The value that the operation computed, or the next one: an operator may record several.
    let (_, v) = places.into_iter().filter(|(made, _)| *made >= at).min_by_key(|(made, _)| *made)?;
    let (name, op) = node(v)?;
    Some(format!(": the gradient through node '{name}' ({op}) is not finite{}", remedy(&name, op)))
}

/// The first element that is not finite.
fn odd(t: &Tensor) -> Option<f64> {
    if !t.dtype().is_float() {
        return None;
    }
    t.to_f64_vec().ok()?.into_iter().find(|v| !v.is_finite())
}

fn remedy(name: &str, op: &str) -> String {
    if AT_ZERO.contains(&op) {
        return format!(
            "; an argument that is zero, or that quantization rounds to zero, causes this: add a small number to it in the model, or leave \
             the node in float (skip = [\"{name}\"])"
        );
    }
    String::new()
}
