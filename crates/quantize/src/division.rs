//! One grid for a value and its quotient by a number: what is divided is rounded once, and a runtime divides nothing.
use crate::plan::QuantPlan;
use graph::{Annotations, Model, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Gives what is divided by a number the grid of the quotient, its scale times the number, where both have one for the whole tensor in
/// the same width. Returns the quotients. `held`: values whose grids must end where an activation cuts.
pub(crate) fn tie(model: &mut Model, plan: &QuantPlan, held: &BTreeMap<ValueId, (f32, f32)>) -> BTreeSet<ValueId> {
    let mut tied = BTreeSet::new();
    for division in ops::divisions(model) {
        let bits = |v: ValueId| plan.activations.get(&v).map(|grid| grid.bits);
        if held.contains_key(&division.dividend) || bits(division.dividend).is_none() || bits(division.dividend) != bits(division.quotient)
        {
            continue;
        }
        if let Some(encoding) = multiplied(&model.annotations, division) {
            model.annotations.entry(division.dividend).encoding = Some(encoding);
            tied.insert(division.quotient);
        }
    }
    tied
}

fn multiplied(annotations: &Annotations, division: ops::Division) -> Option<graph::Encoding> {
    annotations.encoding(division.dividend)?;
    let mut encoding = annotations.encoding(division.quotient)?.clone();
    let scale = encoding.parameters.get("scale").filter(|s| s.len() == 1)?;
    let scale = scale.mul_scalar(f64::from(division.by)).ok()?;
    let value = scale.item::<f32>().ok()?;
    encoding.parameters.insert("scale".into(), scale);
    value.is_normal().then_some(encoding)
}
