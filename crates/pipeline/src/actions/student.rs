//! A fresh student, and the compression policy it inherits: policy is data, so it can be applied to another network.
use super::{Sources, Tick, calibrate, prune_weights};
use crate::recipe::{PruneStage, QuantizeStage, Student};
use crate::run_dir::Cache;
use crate::stages::StageError;
use graph::{Dim, Model};
use zoo::ZooOptions;

/// What the stages so far have asked for, in their order.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Policy {
    /// Each step, later ones replacing what earlier ones said of the same value.
    pub steps: Vec<PolicyStep>,
}

/// One step of a policy.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyStep {
    /// Masks.
    Prune(PruneStage),
    /// Quantizers.
    Quantize(QuantizeStage),
}

impl Policy {
    /// Applies the policy to a trained network: pruned first (importance is read from whole weights), then calibrated.
    /// Returns a sentence for each step.
    ///
    /// # Errors
    /// As the stages themselves.
    pub fn apply(
        &self,
        model: &mut Model,
        sources: &Sources,
        seed: u64,
        cache: Option<Cache>,
        tick: Tick,
    ) -> Result<Vec<String>, StageError> {
        let mut notes = vec![];
        for step in &self.steps {
            if let PolicyStep::Prune(stage) = step {
                let report = prune_weights(model, stage)?;
                notes.push(format!("inherited: pruned to a sparsity of {:.1} %", report.sparsity * 100.0));
            }
        }
        for step in &self.steps {
            if let PolicyStep::Quantize(stage) = step {
                let calibrated = calibrate(model, stage, sources, seed, cache, tick)?;
                notes.extend(calibrated.note().map(String::from));
                let report = calibrated.report;
                notes.push(format!(
                    "inherited: {} weights and {} activations quantized, calibrated on {} images",
                    report.constants,
                    report.activations.len(),
                    report.samples
                ));
            }
        }
        Ok(notes)
    }
}

/// A freshly initialised student with the teacher's input and classes.
///
/// # Errors
/// If the teacher's input or output shape is not declared; what the zoo reports.
pub fn student(of: &Student, teacher: &Model, seed: u64) -> Result<Model, StageError> {
    let wrong = |what: &str| StageError::from(format!("the teacher's {what} shape is not declared, so no student can be built for it"));
    let input = teacher.free_inputs().first().and_then(|v| teacher.values[*v].shape()).ok_or_else(|| wrong("input"))?;
    let input = input.iter().skip(1).map(Dim::known).collect::<Option<Vec<usize>>>().ok_or_else(|| wrong("input"))?;
    let classes = train::classes(teacher).ok_or_else(|| wrong("output"))?;
    let options = ZooOptions { width: of.width, classes, input, seed };
    Ok(zoo::build(&of.arch, &options)?)
}
