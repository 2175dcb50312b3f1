//! `deploy`: lowered, written, measured on the file.
use super::lesson::given;
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{DeployOn, deploy, keep, layers, settle_norms, weigh};
use crate::recipe::DeployStage;
use graph::Model;

/// The stage.
pub(super) struct Deploy(pub(super) DeployStage);

impl StageBody for Deploy {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        let folded = settle_norms(&mut model, cx.quantize_stage().as_ref())?;
        if folded > 0 {
            cx.note(false, format!("{folded} BatchNormalization operators, kept so far, were folded"));
        }
        let file = format!("{}.deployed.onnx", cx.name);
        let original = cx.original()?;
        cx.begin("measure");
        let probe = cx.memory_probe()?;
        let float_reasons = std::mem::take(&mut cx.float_reasons);
        let on = DeployOn {
            file: &file,
            threads: cx.threads,
            sources: &sources,
            original: original.as_ref(),
            probe: probe.as_ref(),
            float_reasons: &float_reasons,
        };
        let deployment = deploy(&model, &self.0, &on, &mut cx.tick("measure"))?;
        for note in deployment.notes {
            cx.note(note.warning, note.text);
        }
        let mut metrics = weigh(&model, &sources)?;
        if let Some(figures) = &deployment.figures {
            keep(&mut metrics, figures);
            // The file's own figures stand with its runtimes; these are the simulation's.
            metrics.accuracy = deployment.record.simulation_accuracy;
            metrics.figures.clone_from(&deployment.record.simulation_figures);
        }
        metrics.file_bytes = Some(deployment.bytes.len() as u64);
        let mut output = StageOutput { metrics, layers: layers(&model)?, classes: deployment.classes, ..StageOutput::new(model) };
        output.float_parts = deployment.float_parts;
        output.deploy = Some(deployment.record);
        output.files.insert(file, deployment.bytes);
        Ok(output)
    }
}
