//! `deploy`: lowers the graph, writes the file and measures it.
use super::kind::{StageEntry, StageKind, stage};
use super::training::given;
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::actions::{DeployOn, Rows, deploy, keep, layers, settle_norms, weigh};
use crate::recipe::Recipe;
use crate::trial::Trial;
use deploy::format::Formats;
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Choice, Fault, Manual};

/// `deploy`: the deployed file and its measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployStage {
    /// The runtime the file is made for and measured in.
    #[serde(default)]
    pub target: target::Choice,
    /// How the file is written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub format: Choice<Formats>,
    /// Timed runs of one sample.
    #[serde(default = "latency_runs")]
    pub latency_runs: usize,
    /// Threads of the runtime; absent: the recipe's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Operator set of the file; absent: that of the graph, raised if its encodings need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opset: Option<i64>,
    /// Keep what the exporter noted for itself: stack traces, paths and other doc strings and metadata of nodes and values.
    #[serde(default)]
    pub exporter_notes: bool,
    /// Note the size that `espalier pack` makes of the file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pack: bool,
    /// Number of test samples to measure the file on; absent: all. Useful if a runtime is slow; the report gives the number.
    #[serde(default, alias = "samples", skip_serializing_if = "Option::is_none")]
    pub images: Option<usize>,
}

impl Default for DeployStage {
    fn default() -> Self {
        DeployStage {
            target: target::Choice::default(),
            format: Choice::default(),
            latency_runs: latency_runs(),
            threads: None,
            opset: None,
            exporter_notes: false,
            pack: false,
            images: None,
        }
    }
}

fn latency_runs() -> usize {
    100
}

/// The default format is left out of the record as it may be left out of the recipe, so that results of earlier runs are found.
fn is_default(format: &Choice<Formats>) -> bool {
    *format == Choice::default()
}

pub(super) const ENTRY: StageEntry = stage!(
    DeployStage,
    epochs: None,
    Manual {
        name: "deploy",
        summary: "Lowers the graph to a standard ONNX file and measures that file.",
        details: "",
        source: "",
        example: "target = \"onnxruntime\"\nformat = \"qdq\"\nthreads = 1\n",
    }
);

impl StageKind for DeployStage {
    fn deploys(&self) -> bool {
        true
    }

    fn check(&self, _: &Recipe, _: usize) -> Result<(), Fault> {
        if self.threads == Some(0) {
            return Err(Fault::new("threads", "threads = 0: at least one is needed"));
        }
        if self.images == Some(0) {
            return Err(Fault::new("images", "images = 0: at least one is needed; absent: all"));
        }
        if self.latency_runs == 0 {
            return Err(Fault::new("latency_runs", "latency_runs = 0: at least one run is needed"));
        }
        match self.opset {
            Some(opset) if !(onnx::OLDEST_OPSET..=onnx::NEWEST_OPSET).contains(&opset) => {
                let message = format!("opset {opset} is not within {}..={}", onnx::OLDEST_OPSET, onnx::NEWEST_OPSET);
                Err(Fault::new("opset", message))
            }
            _ => Ok(()),
        }
    }

    /// Runs of the simulation, and of the file in both arithmetics.
    fn samples(&self, rows: &Rows) -> f64 {
        3.0 * self.images.unwrap_or(rows.test).min(rows.test) as f64
    }

    fn trial(&self, trial: &mut Trial, index: usize) -> Result<(), StageError> {
        trial.deploy(index, self)
    }
}

impl StageBody for DeployStage {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let mut model = given(input)?;
        let folded = settle_norms(&mut model, cx.quantize_stage().as_ref(), &self.target)?;
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
        let deployment = deploy(&model, self, &on, &mut cx.tick("measure"))?;
        for note in deployment.notes {
            cx.note(note.warning, note.text);
        }
        let mut metrics = weigh(&model, &sources)?;
        if let Some(figures) = &deployment.figures {
            keep(&mut metrics, figures);
            // The file's own metrics are stored with its runtimes; these are the simulation's.
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
