//! The targets: for each its seeds, how they are changed, and the properties that must hold.
mod archives;
mod datasets;
mod models;
mod texts;

use crate::case::Case;
use crate::random::Random;
use std::path::{Path, PathBuf};

/// Name of a file that is never changed: arrays that a changed model is run on.
pub(crate) const INPUTS: &str = "inputs.npz";

/// Code that reads files from outside.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// A short description.
    pub(crate) what: &'static str,
    /// Well-formed cases.
    pub(crate) seeds: fn() -> Result<Vec<Case>, String>,
    /// Changes one file (its name, its bytes); the last argument is another seed's file.
    pub(crate) mutate: fn(&mut Random, &mut (String, Vec<u8>), &[u8]),
    /// Runs a case. The error is a violated property. An error that the reader reports for a bad file is none.
    pub(crate) run: fn(&Case, &Path) -> Result<(), String>,
}

/// All targets.
pub(crate) const ALL: &[&Target] = &[
    &models::ONNX,
    &models::EXTERNAL,
    &models::PASSES,
    &models::INTERPRETER,
    &models::GRADIENTS,
    &models::LOWERING,
    &archives::ARCHIVE,
    &datasets::NPZ,
    &datasets::NPY,
    &datasets::IMAGES,
    &datasets::SOUNDS,
    &datasets::IDX,
    &datasets::CIFAR,
    &datasets::PARQUET,
    &texts::RECIPE,
    &texts::WIDTHS,
    &texts::RECORD,
    &texts::STAGE,
    &texts::CHECKPOINT,
];

/// The repository's fixtures, and files made for this.
fn here(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// The files of a folder with an ending, by name.
fn with_ending(folder: &str, ending: &str) -> Result<Vec<(String, PathBuf)>, String> {
    let entries = std::fs::read_dir(here(folder)).map_err(|e| format!("{folder}: {e}"))?;
    let mut found: Vec<(String, PathBuf)> = entries
        .flatten()
        .map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()))
        .filter(|(name, _)| name.ends_with(ending))
        .collect();
    found.sort();
    Ok(found)
}
