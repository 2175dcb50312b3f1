//! Divisions by a positive number: on a grid they change only the scale.
use graph::{Model, ValueId};

/// A Div by a positive constant number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Division {
    /// The dividend; it has no other reader.
    pub dividend: ValueId,
    /// Value that holds the quotient.
    pub quotient: ValueId,
    /// The constant divisor.
    pub by: f32,
}

/// The main graph's divisions of a computed value by a positive f32 number.
pub fn divisions(model: &Model) -> Vec<Division> {
    let uses = model.graph.use_counts();
    let found = model.graph.nodes.iter().filter(|n| n.op_type == "Div" && n.is_onnx()).filter_map(|node| {
        let (dividend, quotient) = (node.input(0)?, node.output(0)?);
        let by = model.constant(node.input(1)?).filter(|t| t.len() == 1)?;
        let rank = model.values[dividend].shape().map_or(0, |s| s.len());
        let by = Some(by).filter(|t| t.rank() <= rank)?.as_slice::<f32>().ok()?[0];
        let alone = uses.get(&dividend) == Some(&1) && model.values.tensor(dividend).is_none() && !model.graph.inputs.contains(&dividend);
        (alone && by.is_finite() && by > 0.0).then_some(Division { dividend, quotient, by })
    });
    found.collect()
}
