//! A fresh student, and the compression policy it inherits: policy is data, so it can be applied to another network.
use super::{Sources, Tick, calibrate, prune_notes, prune_weights};
use crate::recipe::{ModelSource, PruneStage, QuantizeStage, Student};
use crate::run_dir::Cache;
use crate::stages::StageError;
use graph::{Dim, Model};
use std::path::PathBuf;
use zoo::ZooOptions;

/// What stages have asked for, in the order in which it is applied.
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
    /// Applies the policy to a trained network, step by step. Returns a sentence for each step, warnings told apart.
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
    ) -> Result<Vec<(bool, String)>, StageError> {
        let mut notes = vec![];
        for step in &self.steps {
            match step {
                PolicyStep::Prune(stage) => {
                    let report = prune_weights(model, stage)?;
                    notes.extend(prune_notes(&report).into_iter().map(|(warning, text)| (warning, format!("inherited: {text}"))));
                }
                PolicyStep::Quantize(stage) => {
                    let calibrated = calibrate(model, stage, sources, seed, cache, &mut *tick)?;
                    notes.extend(calibrated.notes().into_iter().map(|note| (false, note)));
                    let report = calibrated.report;
                    notes.extend(report.warnings.into_iter().map(|warning| (true, warning)));
                    let text = format!(
                        "inherited: {} weights and {} activations quantized, calibrated on {} samples",
                        report.constants,
                        report.activations.len(),
                        report.samples
                    );
                    notes.push((false, text));
                }
            }
        }
        Ok(notes)
    }
}

/// A student: its file, or an architecture, freshly initialised, with the teacher's input and classes. `own` is the model
/// that the recipe begins with, whose architecture is taken where the student names none.
///
/// # Errors
/// If the file cannot be read; if the teacher's input or output shape is not declared; what the zoo reports.
pub fn student(
    of: &Student,
    own: Option<&ModelSource>,
    teacher: &Model,
    seed: u64,
    place: impl Fn(&str) -> PathBuf,
) -> Result<Model, StageError> {
    if of.file.is_some() {
        let source = ModelSource { file: of.file.clone(), arch: None, width: 1.0, classes: None, input: None };
        return crate::stages::start(&source, seed, place).map(|(model, _)| model);
    }
    let (arch, width) = match (&of.arch, own) {
        (Some(arch), _) => (arch, of.width),
        (None, Some(ModelSource { arch: Some(arch), width, .. })) => (arch, of.width * width),
        _ => return Err("the student has neither an arch nor a file".into()),
    };
    let wrong = |what: &str| StageError::from(format!("the teacher's {what} shape is not declared, so no student can be built for it"));
    let input = teacher.free_inputs().first().and_then(|v| teacher.values[*v].shape()).ok_or_else(|| wrong("input"))?;
    let input = input.iter().skip(1).map(Dim::known).collect::<Option<Vec<usize>>>().ok_or_else(|| wrong("input"))?;
    let classes = train::classes(teacher).ok_or_else(|| wrong("output"))?;
    let options = ZooOptions { width, classes, input, seed };
    Ok(zoo::build(arch, &options)?)
}
