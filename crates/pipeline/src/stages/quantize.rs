//! `quantize`: quantizers on weights and activations, calibrated, then trained with if the recipe asks for epochs.
use super::lesson::{given, measured, train};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{calibrate, stay_float};
use crate::recipe::QuantizeStage;
use graph::Model;
use report::record::FloatPart;

/// The stage.
pub(super) struct Quantize(pub(super) QuantizeStage);

impl StageBody for Quantize {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        sources.calibration_notes(&model)?.into_iter().for_each(|note| cx.note(false, note));
        let seed = cx.loaded.recipe.seed;
        let calibrated = calibrate(&mut model, &self.0, &sources, seed, Some(cx.cache), &mut cx.tick("calibrate"))?;
        calibrated.notes().into_iter().for_each(|note| cx.note(false, note));
        let report = calibrated.report;
        let (constants, activations) = (report.constants, report.activations.len());
        if constants == 0 && (activations == 0 || computes_on_integers(&model)) {
            let reasons = report.float_parts.iter().take(3).map(|p| format!("'{}' ({}): {}", p.node, p.op_type, p.reason));
            let reasons = reasons.collect::<Vec<_>>().join("; ");
            let why = if reasons.is_empty() { "no operator in it runs on integers".to_string() } else { reasons };
            return Err(format!("nothing in the graph was quantized, so there is no need for this stage: {why}").into());
        }
        cx.note(
            false,
            format!(
                "{constants} weights, {} biases and {activations} activations quantized, calibrated on {} samples",
                report.biases, report.samples
            ),
        );
        report.warnings.iter().for_each(|warning| cx.note(true, warning.clone()));
        if let Some(note) = stay_float(&model)? {
            cx.note(false, note);
        }
        let epochs = train(cx, &mut model, &self.0.training(), None, true, &sources)?;
        let mut output = measured(cx, model, epochs, &sources)?;
        output.float_parts =
            report.float_parts.into_iter().map(|p| FloatPart { node: p.node, op_type: p.op_type, reason: p.reason }).collect();
        Ok(output)
    }
}

/// True for a file whose layers another tool has put on integers, without quantizers that could be lifted.
fn computes_on_integers(model: &Model) -> bool {
    const ALREADY: &[&str] =
        &["MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "QGemm", "MatMulNBits", "DynamicQuantizeLSTM"];
    let mut found = false;
    model.graph.visit(&mut |node| found |= ALREADY.contains(&node.op_type.as_str()));
    found
}
