//! The run record, `run.json`: all measurements of a run, with the exact command and the environment.
mod cuts;
mod deploy;
mod diagnosis;
mod sparsities;
mod stage;
mod widths;

pub use crate::task::{Better, MetricRecord, TaskRecord};
pub use cuts::CutRecord;
pub use deploy::{Arithmetic, DeployRecord, Latency, NodeCount, OriginalRecord, OutputRecord, PlacementRecord, RuntimeRecord};
pub use diagnosis::{CauseRecord, DiagnosisRecord, EffectRecord, FixRecord, LayerErrorRecord, SuggestionRecord, TrialRecord};
pub use sparsities::{PruneSensitivityRecord, PrunedLayer, SharesRecord, SparsityEffect};
pub use stage::{ClassRecord, ClassesRecord, Confused, EpochPoint, FloatPart, LayerRecord, Metrics, Note, StageRecord, Status};
pub use widths::{GroupRecord, LimitRecord, PlanRecord, SensitivityRecord, WidthRecord};

use crate::task::ACCURACY;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Signal to noise in decibels of a power of the change over that of what changes; `None` where nothing does.
pub(crate) fn decibels(noise: f64) -> Option<f64> {
    (noise > 0.0).then(|| -10.0 * noise.log10())
}

/// Harm that a record can hold: JSON has no infinity and no NaN, which become a number beyond all that are measured.
pub fn readable(harm: f64) -> f64 {
    const WORST: f64 = 1e30;
    if harm.is_finite() { harm.min(WORST) } else { WORST }
}

/// Version of the record's layout. Readers refuse newer versions. Since version 2, the sizes of stages before deploy are those of
/// their graph as a deployed file, and a deployed file is recorded beside the model that the run began with.
pub const SCHEMA_VERSION: u32 = 2;

/// The record of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The recipe's name.
    pub name: String,
    /// The command line, argument by argument.
    pub command: Vec<String>,
    /// Start, in seconds since 1970 (UTC).
    pub started_unix: u64,
    /// Seconds of this call, which may have reused earlier results; [`RunRecord::work_seconds`] has the sum of all work.
    pub seconds: f64,
    /// The machine and the software.
    pub environment: Environment,
    /// The recipe's text and what was changed on the command line.
    pub recipe: RecipeRecord,
    /// The task; absent: classification.
    #[serde(default, skip_serializing_if = "TaskRecord::is_default")]
    pub task: TaskRecord,
    /// The files and folders that the run read, each with the hash of its content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputRecord>,
    /// The model file that the run begins with, measured as it is; absent if the run builds its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StageRecord>,
    /// The stages, in the order in which they ran.
    pub stages: Vec<StageRecord>,
    /// The goals with their verdicts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub goals: Vec<GoalRecord>,
}

/// The machine and the software.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of Espalier.
    pub espalier: String,
    /// Model name of the processor.
    pub cpu: String,
    /// Number of threads that computed.
    pub threads: usize,
    /// Operating system and processor architecture.
    pub os: String,
    /// Versions of the runtimes that files were measured in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runtimes: BTreeMap<String, String>,
}

/// The recipe as it was used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecipeRecord {
    /// The file's text.
    pub text: String,
    /// The overrides given on the command line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<String>,
    /// Every setting, defaults included.
    pub settings: serde_json::Value,
}

/// A file or folder that a run read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InputRecord {
    /// Its key in the recipe (`data.train`, `model.file`).
    pub role: String,
    /// Its path as written in the recipe.
    pub path: String,
    /// BLAKE3 of the file, or of all files of a folder with their names, in hex.
    pub blake3: String,
}

/// A goal and its verdict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GoalRecord {
    /// Key of the goal in the recipe.
    pub goal: String,
    /// The wanted value.
    pub wanted: f64,
    /// The measured value; absent: there is none, and the goal counts as missed.
    pub measured: Option<f64>,
    /// Whether it was reached.
    pub met: bool,
    /// The verdict as a plain sentence.
    pub sentence: String,
}

/// A record that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}")]
pub struct RecordError {
    /// Path of the `run.json`.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

impl RunRecord {
    /// Reads a record; `path` is the file, or the run's folder.
    ///
    /// # Errors
    /// [`RecordError`] if it cannot be read, is not a record, or is newer than this release knows.
    pub fn load(path: &Path) -> Result<RunRecord, RecordError> {
        let file = if path.is_dir() { path.join("run.json") } else { path.to_path_buf() };
        let error = |what: String| RecordError { path: file.display().to_string(), what };
        let text = std::fs::read_to_string(&file).map_err(|e| error(format!("no run record can be read: {e}")))?;
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| error(format!("not a run record: {e}")))?;
        match json.get("schema_version").and_then(serde_json::Value::as_u64) {
            None => return Err(error("not a run record: schema_version is missing".into())),
            Some(v) if v > u64::from(SCHEMA_VERSION) => {
                return Err(error(format!("written by a newer Espalier (layout {v}, this one reads up to {SCHEMA_VERSION})")));
            }
            Some(_) => {}
        }
        serde_json::from_value(json).map_err(|e| error(format!("not a run record: {e}")))
    }

    /// The record as indented JSON, ending in a newline.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// All measured records in order: the model file that the run begins with, then each stage.
    pub fn measured(&self) -> impl Iterator<Item = &StageRecord> {
        self.start.iter().chain(&self.stages)
    }

    /// The last deploy stage's record.
    pub fn deployed(&self) -> Option<(&StageRecord, &DeployRecord)> {
        self.stages.iter().rev().find_map(|s| Some((s, s.deploy.as_ref()?)))
    }

    /// Seconds of all work in this record, earlier calls included.
    pub fn work_seconds(&self) -> f64 {
        self.measured().map(|s| s.seconds).sum()
    }

    /// Warnings of all stages, each with its stage's name.
    pub fn warnings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.measured().flat_map(|s| s.notes.iter().filter(|n| n.warning).map(move |n| (s.name.as_str(), n.text.as_str())))
    }

    /// Median latency of a stage's result, if it was measured: of a deployed file, or of the model that the last one is compared
    /// with.
    pub fn latency_of<'r>(&'r self, stage: &'r StageRecord) -> Option<&'r Latency> {
        if let Some(deploy) = &stage.deploy {
            return deploy.runtimes.iter().find_map(|r| r.latency.as_ref());
        }
        let original = self.deployed()?.1.original.as_ref()?;
        original.latency.as_ref().filter(|_| original.stage == stage.name)
    }

    /// True if a goal was missed.
    pub fn missed_a_goal(&self) -> bool {
        self.goals.iter().any(|g| !g.met)
    }
}

/// A metric by its key; accuracy has a field of its own.
fn figure(key: &str, accuracy: Option<f64>, figures: &BTreeMap<String, f64>) -> Option<f64> {
    if key == ACCURACY { accuracy } else { figures.get(key).copied() }
}

/// Stores metrics by their keys, accuracy in its own field.
fn keep(accuracy: &mut Option<f64>, figures: &mut BTreeMap<String, f64>, new: &BTreeMap<&'static str, f64>) {
    for (key, value) in new {
        match *key {
            ACCURACY => *accuracy = Some(*value),
            other => {
                figures.insert(other.to_string(), *value);
            }
        }
    }
}
