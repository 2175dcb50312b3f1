//! Encodings of an earlier quantization, which layers keep that the present one leaves out.
use crate::calibrate::CalibrationReport;
use crate::rules::Rules;
use crate::weights::refit;
use crate::{QuantizeSettings, Result};
use graph::{Encoding, FOLDED_SCALE, Graph, Linked, Model, ValueId};
use ops::Effect;
use std::collections::BTreeMap;
use target::QuantRule;

/// The encodings that a model had before it was prepared for another calibration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Earlier(BTreeMap<ValueId, Encoding>);

impl Earlier {
    /// Removes all encodings from a model and returns them.
    pub(crate) fn take(model: &mut Model) -> Self {
        Earlier(model.annotations.iter_mut().filter_map(|(id, a)| Some((id, a.encoding.take()?))).collect())
    }
}

/// Restores the encodings of weights, inputs and results in the layers that `skip` leaves out, if an earlier quantization had
/// given them some and the present one gives none; their biases follow the present grids. The report lists these layers as kept,
/// no longer as float.
///
/// # Errors
/// As [`crate::refresh_biases`].
pub fn keep_earlier(model: &mut Model, settings: &QuantizeSettings, earlier: &Earlier, report: &mut CalibrationReport) -> Result<()> {
    if earlier.0.is_empty() || !settings.all_rules().iter().any(|r| r.skip) {
        return Ok(());
    }
    let (mut values, mut kept) = (vec![], vec![]);
    collect(model, &model.graph, (settings, &Rules::of(model, settings)), earlier, &mut values, &mut kept);
    for id in values {
        let Some(encoding) = earlier.0.get(&id).filter(|_| model.annotations.encoding(id).is_none()) else { continue };
        model.annotations.entry(id).encoding = Some(encoding.clone());
        // Its normalization has been folded since, which changed the weight.
        if encoding.parameters.contains_key(FOLDED_SCALE) && model.values.tensor(id).is_some() {
            refit(model, id)?;
        }
    }
    crate::refresh_biases(model, settings)?;
    report.float_parts.retain(|part| !kept.contains(&part.node));
    report.kept = kept;
    model.verify()?;
    Ok(())
}

fn collect(
    model: &Model,
    graph: &Graph,
    (settings, rules): (&QuantizeSettings, &Rules),
    earlier: &Earlier,
    values: &mut Vec<ValueId>,
    kept: &mut Vec<String>,
) {
    let here = graph.linked();
    for node in &graph.nodes {
        for sub in node.subgraphs() {
            collect(model, sub, (settings, rules), earlier, values, kept);
        }
        let label = node.label(&model.values);
        if !rules.scheme(model, node).skip || ops::find(&node.domain, &node.op_type).is_none() {
            continue;
        }
        values.extend(node.inputs.iter().flatten().map(|id| grid(model, &here, *id, earlier)));
        values.extend(node.outputs.iter().flatten());
        if let QuantRule::Integer { weight: Some(rule), .. } = settings.target.rule(node, model)
            && node.input(rule.input).is_some_and(|w| earlier.0.contains_key(&w))
        {
            kept.push(label);
        }
    }
}

/// The value with the earlier grid of a value: back through operators that only move elements.
fn grid(model: &Model, here: &Linked, value: ValueId, earlier: &Earlier) -> ValueId {
    let mut at = value;
    while !earlier.0.contains_key(&at)
        && let Some(node) = here.maker(at)
        && ops::find(&node.domain, &node.op_type).is_some_and(|op| op.effect(node, model) == Effect::Moves)
        && let Some(from) = node.input(0)
    {
        at = from;
    }
    at
}
