//! `sensitivity`: what each layer alone does to the network at each width.
use super::init::Task;
use super::subject::Subject;
use crate::{Error, Result};
use pipeline::actions::{CompressOn, Sources, sensitivities};
use pipeline::recipe::Training;
use pipeline::stages::StageError;
use report::record::SensitivityRecord;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// Of what to measure, and how.
#[derive(Clone, Debug, Default)]
pub struct SensitivityOptions {
    /// A recipe with a quantize stage, or a model.
    pub of: PathBuf,
    /// For a model: the rest of its task; `model` is not used.
    pub task: Option<Task>,
    /// A folder to look in first for the recipe's files and data sets.
    pub data_root: Option<PathBuf>,
    /// Overrides of the recipe's settings.
    pub overrides: Vec<String>,
    /// The network to measure, in place of the one that the recipe begins with.
    pub model: Option<PathBuf>,
    /// Name of the quantize stage; absent: the first one.
    pub stage: Option<String>,
    /// Widths, in bits; empty: those of the stage's search.
    pub widths: Vec<u32>,
    /// Number of samples; absent: that of the stage's search.
    pub samples: Option<usize>,
    /// Files to write: .json (which a recipe can read), .csv or .html.
    pub outputs: Vec<PathBuf>,
}

/// A measured table.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct SensitivityTable(pub SensitivityRecord);

/// Measures how sensitive a network is to the width of each layer, by the settings of the recipe's quantize stage; for a model, by those
/// that `quantize` would take. Writes the outputs.
///
/// # Errors
/// If the recipe, its model or its data cannot be read, or it has no quantize stage; errors of calibrating and running the network.
pub fn sensitivity(options: &SensitivityOptions, tick: &mut dyn FnMut(u64, u64)) -> Result<SensitivityTable> {
    for path in &options.outputs {
        if !ENDINGS.iter().any(|ending| path.extension().is_some_and(|e| e == *ending)) {
            let text = format!("{}: what to write follows from the name's ending: {}", path.display(), ENDINGS.join(", "));
            return Err(Error::Input(text));
        }
    }
    let staged = |e: StageError| Error::Input(e.to_string());
    let root = options.data_root.as_deref();
    let subject = Subject {
        of: &options.of,
        task: options.task.as_ref(),
        data_root: root,
        overrides: &options.overrides,
        model: options.model.as_deref(),
        stage: options.stage.as_deref(),
    };
    let written = subject.loaded()?;
    subject.spares(&written, &options.outputs)?;
    let loaded = written.with_files(root)?;
    let recipe = &loaded.recipe;
    tensor::set_threads(recipe.threads);
    let (index, mut stage) = subject.quantize_stage(&loaded)?;
    if !options.widths.is_empty() {
        stage.search.widths = options.widths.clone();
    }
    stage.search.samples = options.samples.unwrap_or(stage.search.samples);
    stage.check_search().map_err(|fault| Error::Input(fault.to_string()))?;
    let model = subject.network(&loaded, index)?;
    let sources = Sources::open(&loaded, root).map_err(staged)?;
    let target = recipe.target_from(index);
    let on = CompressOn { sources: &sources, seed: recipe.seed, training: &Training::default(), target: &target, cache: None };
    let record = sensitivities(&model, &stage, &on, tick).map_err(staged)?;
    tick(1, 1);
    let record = SensitivityRecord { name: recipe.name.clone(), ..record };
    options.outputs.iter().try_for_each(|path| write(&record, path))?;
    Ok(SensitivityTable(record))
}

/// Endings of files that can be written.
const ENDINGS: [&str; 3] = ["json", "csv", "html"];

fn write(record: &SensitivityRecord, path: &Path) -> Result<()> {
    let text = match path.extension().and_then(|e| e.to_str()) {
        Some("csv") => record.to_csv(),
        Some("html") => report::sensitivity_page(record),
        _ => serde_json::to_string_pretty(record).map_err(|e| Error::Input(format!("{}: {e}", path.display())))?,
    };
    pipeline::run_dir::write_atomically(path, text.as_bytes()).map_err(Error::from)
}

impl fmt::Display for SensitivityTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&report::sensitivity_text(&self.0))
    }
}
