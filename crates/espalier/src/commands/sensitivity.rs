//! `sensitivity`: what each layer alone does to the network at each width, or at each sparsity.
use super::init::{Purpose, Task};
use super::subject::Subject;
use crate::{Error, Result};
use pipeline::actions::{CompressOn, Sources, prune_sensitivities, sensitivities};
use pipeline::recipe::{Loaded, Training};
use pipeline::stages::StageError;
use prune::{Measure, SensitivityShares};
use report::record::{PruneSensitivityRecord, SensitivityRecord};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// Of what to measure, and how.
#[derive(Clone, Debug, Default)]
pub struct SensitivityOptions {
    /// A recipe with a quantize or prune stage, or a model.
    pub of: PathBuf,
    /// For a model: the rest of its task; `model` is not used.
    pub task: Option<Task>,
    /// A folder to look in first for the recipe's files and data sets.
    pub data_root: Option<PathBuf>,
    /// Overrides of the recipe's settings.
    pub overrides: Vec<String>,
    /// The network to measure, in place of the one that the recipe begins with.
    pub model: Option<PathBuf>,
    /// Name of the stage; absent: the first quantize or prune stage.
    pub stage: Option<String>,
    /// What is done to each layer.
    pub levels: Levels,
    /// Number of samples; absent: that of the stage's search or scope.
    pub samples: Option<usize>,
    /// Files to write: .json (which a recipe can read), .csv or .html.
    pub outputs: Vec<PathBuf>,
}

/// What is done to each layer alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Levels {
    /// It is stored in these widths, in bits; empty: those of the quantize stage's search.
    Widths(Vec<u32>),
    /// It is pruned to these sparsities; empty: those of the prune stage's scope, or 0.3, 0.5, 0.7, 0.8 and 0.9.
    Sparsities(Vec<f64>),
}

impl Default for Levels {
    fn default() -> Self {
        Levels::Widths(vec![])
    }
}

/// A measured table.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum SensitivityTable {
    /// By width.
    Widths(SensitivityRecord),
    /// By sparsity.
    Sparsities(PruneSensitivityRecord),
}

/// Measures how sensitive a network is to the width of each layer, by the settings of the recipe's quantize stage; or to its sparsity, by
/// those of the prune stage. For a model, by those that `quantize` or `prune` would take. Writes the outputs.
///
/// # Errors
/// If the recipe, its model or its data cannot be read, or it has no such stage; errors of calibrating and running the network.
pub fn sensitivity(options: &SensitivityOptions, tick: &mut dyn FnMut(u64, u64)) -> Result<SensitivityTable> {
    for path in &options.outputs {
        if !ENDINGS.iter().any(|ending| path.extension().is_some_and(|e| e == *ending)) {
            let text = format!("{}: what to write follows from the name's ending: {}", path.display(), ENDINGS.join(", "));
            return Err(Error::Input(text));
        }
    }
    let root = options.data_root.as_deref();
    let subject = Subject {
        of: &options.of,
        task: options.task.as_ref(),
        data_root: root,
        overrides: &options.overrides,
        model: options.model.as_deref(),
        stage: options.stage.as_deref(),
        purpose: match options.levels {
            Levels::Widths(_) => Purpose::Quantize { epochs: 0 },
            Levels::Sparsities(_) => Purpose::Prune { sparsity: 0.5, epochs: 0 },
        },
    };
    let written = subject.loaded()?;
    subject.spares(&written, &options.outputs)?;
    let loaded = written.with_files(root)?;
    tensor::set_threads(loaded.recipe.threads);
    let table = match &options.levels {
        Levels::Widths(widths) => SensitivityTable::Widths(by_width(&subject, &loaded, root, widths, options.samples, tick)?),
        Levels::Sparsities(shares) => SensitivityTable::Sparsities(by_sparsity(&subject, &loaded, root, shares, options.samples, tick)?),
    };
    tick(1, 1);
    options.outputs.iter().try_for_each(|path| write(&table, path))?;
    Ok(table)
}

fn staged(e: StageError) -> Error {
    Error::Input(e.to_string())
}

fn by_width(
    subject: &Subject,
    loaded: &Loaded,
    root: Option<&Path>,
    widths: &[u32],
    samples: Option<usize>,
    tick: &mut dyn FnMut(u64, u64),
) -> Result<SensitivityRecord> {
    let (index, mut stage) = subject.quantize_stage(loaded)?;
    if !widths.is_empty() {
        stage.search.widths = widths.to_vec();
    }
    stage.search.samples = samples.unwrap_or(stage.search.samples);
    stage.check_search().map_err(|fault| Error::Input(fault.to_string()))?;
    let (recipe, model) = (&loaded.recipe, subject.network(loaded, index)?);
    let target = recipe.target_from(index);
    let sources = Sources::open(loaded, root).map_err(staged)?;
    let on = CompressOn { sources: &sources, seed: recipe.seed, training: &Training::default(), target: &target, cache: None };
    let record = sensitivities(&model, &stage, &on, tick).map_err(staged)?;
    Ok(SensitivityRecord { name: recipe.name.clone(), ..record })
}

fn by_sparsity(
    subject: &Subject,
    loaded: &Loaded,
    root: Option<&Path>,
    sparsities: &[f64],
    samples: Option<usize>,
    tick: &mut dyn FnMut(u64, u64),
) -> Result<PruneSensitivityRecord> {
    let (index, stage) = subject.prune_stage(loaded)?;
    let (own, of_scope) = match stage.settings.scope.measure() {
        Some(wanted) => (wanted.sparsities.to_vec(), wanted.samples),
        None => (Measure::SPARSITIES.to_vec(), SensitivityShares::default().samples),
    };
    let sparsities = if sparsities.is_empty() { own } else { sparsities.to_vec() };
    Measure::check(&sparsities).map_err(|fault| Error::Input(fault.to_string()))?;
    let samples = samples.unwrap_or(of_scope);
    if samples == 0 {
        return Err(Error::Input("samples = 0: at least one sample is needed to measure on".into()));
    }
    let (recipe, model) = (&loaded.recipe, subject.network(loaded, index)?);
    let (target, training) = (recipe.target_from(index), recipe.stages[index].training().cloned().unwrap_or_default());
    let sources = Sources::open(loaded, root).map_err(staged)?;
    let on = CompressOn { sources: &sources, seed: recipe.seed, training: &training, target: &target, cache: None };
    let record = prune_sensitivities(&model, &stage.settings, (&sparsities, samples), &on, tick);
    Ok(PruneSensitivityRecord { name: recipe.name.clone(), ..record.map_err(staged)? })
}

/// Endings of files that can be written.
const ENDINGS: [&str; 3] = ["json", "csv", "html"];

fn write(table: &SensitivityTable, path: &Path) -> Result<()> {
    let text = match (path.extension().and_then(|e| e.to_str()), table) {
        (Some("csv"), SensitivityTable::Widths(record)) => record.to_csv(),
        (Some("csv"), SensitivityTable::Sparsities(record)) => record.to_csv(),
        (Some("html"), SensitivityTable::Widths(record)) => report::sensitivity_page(record),
        (Some("html"), SensitivityTable::Sparsities(record)) => report::prune_sensitivity_page(record),
        _ => serde_json::to_string_pretty(table).map_err(|e| Error::Input(format!("{}: {e}", path.display())))?,
    };
    pipeline::run_dir::write_atomically(path, text.as_bytes()).map_err(Error::from)
}

impl fmt::Display for SensitivityTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            SensitivityTable::Widths(record) => report::sensitivity_text(record),
            SensitivityTable::Sparsities(record) => report::prune_sensitivity_text(record),
        })
    }
}
