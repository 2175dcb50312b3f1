//! Whole runs of a recipe.
use crate::folders;
use graph::Model;
use pipeline::recipe::{Loaded, parse};
use pipeline::{PipelineError, Quiet, RunOptions};
use report::RunRecord;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A run and its folder, which is deleted when this is dropped.
pub struct Run {
    /// The run's record, as in `run.json`.
    pub record: RunRecord,
    folder: TempDir,
}

impl Run {
    /// A file of the run's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A model of the run's folder.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn model(&self, name: &str) -> Model {
        onnx::load(&self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

/// Runs a recipe, with overrides (`stages.quantize.weights.bits=4`), into the folder `out`; paths in it are relative to `folder`.
///
/// # Errors
/// Errors of reading the recipe and running it.
pub fn run_in(folder: &Path, out: &Path, text: &str, overrides: &[&str]) -> Result<RunRecord, PipelineError> {
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    let loaded = Loaded { recipe: parse(text, &overrides)?, text: text.to_string(), folder: folder.to_path_buf(), overrides };
    pipeline::run(&loaded, &RunOptions { out: out.to_path_buf(), ..RunOptions::default() }, &mut Quiet)
}

/// Runs a recipe on the data that comes with the repository, into a folder of its own.
///
/// # Errors
/// As [`run_in`].
pub fn run(text: &str, overrides: &[&str]) -> Result<Run, PipelineError> {
    let folder = tempfile::tempdir().expect("a folder");
    Ok(Run { record: run_in(&folders::recipes(), folder.path(), text, overrides)?, folder })
}

/// The error of a run that must fail, on the data in the repository, and whether its stage `train` had a result by then.
///
/// # Panics
/// If it succeeds.
pub fn refused(text: &str, overrides: &[&str]) -> (String, bool) {
    let out = tempfile::tempdir().expect("a folder");
    let error = run_in(&folders::recipes(), out.path(), text, overrides).expect_err("a run that is refused");
    (error.to_string(), out.path().join("train.onnx").exists())
}

/// The error of a recipe that must be invalid.
///
/// # Panics
/// If the recipe is valid.
pub fn unreadable(text: &str, overrides: &[&str]) -> String {
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    parse(text, &overrides).expect_err("a recipe that cannot be read").to_string()
}
