//! One grid for a dividend and its quotient by a number: the dividend is rounded once, and a runtime does not divide.
use crate::plan::QuantPlan;
use graph::{Annotations, Model, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Gives a dividend the grid of its quotient, with the scale times the divisor, if both have one scale for the whole tensor and
/// the same width. Returns the quotients. `held`: values whose grids must end at an activation's bounds.
pub(crate) fn tie(model: &mut Model, plan: &QuantPlan, held: &BTreeMap<ValueId, (f32, f32)>) -> BTreeSet<ValueId> {
    let mut tied = BTreeSet::new();
    for division in ops::divisions(model) {
        let bits = |v: ValueId| plan.activations.get(&v).filter(|_| !plan.two_levels.contains_key(&v)).map(|grid| grid.bits);
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
