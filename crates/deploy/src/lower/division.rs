//! Divisions by a number that change only the scale.
use graph::{Encoding, Model, ValueId};
use std::collections::BTreeMap;

/// Quotients, each with what is divided, whose grids hold the same integers: a DequantizeLinear with the quotient's scale reads the
/// integers of the dividend.
pub(super) fn find(model: &Model) -> BTreeMap<ValueId, ValueId> {
    let encoding = |v| model.annotations.encoding(v);
    let same = |d: &ops::Division| {
        let unmasked = model.annotations.mask(d.quotient).is_none() && model.annotations.mask(d.dividend).is_none();
        unmasked && encoding(d.dividend).zip(encoding(d.quotient)).is_some_and(|(of, quotient)| multiplied(of, quotient, d.by))
    };
    ops::divisions(model).into_iter().filter(same).map(|d| (d.quotient, d.dividend)).collect()
}

/// True if `of` is `quotient` with `by` times its one scale.
fn multiplied(of: &Encoding, quotient: &Encoding, by: f32) -> bool {
    let scale = |e: &Encoding| e.parameters.get("scale").filter(|s| s.len() == 1).and_then(|s| s.item::<f32>().ok());
    let rest = |e: &Encoding| {
        let mut rest = e.clone();
        rest.parameters.remove("scale");
        rest
    };
    scale(of).zip(scale(quotient)).is_some_and(|(of, quotient)| of == (f64::from(quotient) * f64::from(by)) as f32)
        && rest(of) == rest(quotient)
}
