//! `sensitivity`: what each layer alone does to the network at each width.
use super::init::{Purpose, Task, draft};
use crate::{Error, Result};
use graph::Model;
use pipeline::actions::{CompressOn, Sources, sensitivities};
use pipeline::recipe::{Loaded, ModelSource, QuantizeStage, Stage, Training, load, parse};
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
    let written = loaded(options)?;
    let inputs = written.inputs(root);
    if let Some(path) = options.outputs.iter().find(|path| files::destroyed(path, inputs.iter().map(PathBuf::as_path)).is_some()) {
        return Err(Error::Input(format!("{} is read, and would be lost: name another file with --output", path.display())));
    }
    let loaded = written.with_files(root)?;
    let recipe = &loaded.recipe;
    tensor::set_threads(recipe.threads);
    let (index, mut stage) = quantize_stage(&loaded, options.stage.as_deref())?;
    if !options.widths.is_empty() {
        stage.search.widths = options.widths.clone();
    }
    stage.search.samples = options.samples.unwrap_or(stage.search.samples);
    stage.check_search().map_err(|fault| Error::Input(fault.to_string()))?;
    let model = network(&loaded, index, options)?;
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

/// The recipe, or the one that `quantize` would make for the model.
fn loaded(options: &SensitivityOptions) -> Result<Loaded> {
    let is_recipe = options.of.extension().is_some_and(|e| e == "toml");
    match &options.task {
        None if is_recipe => Ok(load(&options.of, &options.overrides)?),
        None => {
            let text = format!("{}: a model needs --data with its data set; a recipe ends in .toml", options.of.display());
            Err(Error::Input(text))
        }
        Some(_) if is_recipe => Err(Error::Input("--data goes with a model: a recipe names its own data".into())),
        Some(task) => {
            let task = Task { model: options.of.clone(), ..task.clone() };
            let written = draft(&task, &Purpose::Quantize { epochs: 0 }, Path::new(""))?;
            let recipe = parse(&written.text, &options.overrides)?;
            Ok(Loaded { recipe, text: written.text, folder: PathBuf::from("."), overrides: options.overrides.clone() })
        }
    }
}

/// The position and the settings of the quantize stage.
fn quantize_stage(loaded: &Loaded, name: Option<&str>) -> Result<(usize, QuantizeStage)> {
    let found = |(i, stage): (usize, &Stage)| Some((i, stage.get::<QuantizeStage>()?.clone()));
    let mut stages = loaded.recipe.stages.iter().enumerate().filter(|(_, s)| name.is_none_or(|name| s.name() == name));
    stages.find_map(found).ok_or_else(|| match name {
        Some(name) => Error::Input(format!("the recipe has no quantize stage of the name '{name}'")),
        None => Error::Input("the recipe has no quantize stage, whose settings say how layers are stored".into()),
    })
}

/// The network before the stage.
fn network(loaded: &Loaded, index: usize, options: &SensitivityOptions) -> Result<Model> {
    let recipe = &loaded.recipe;
    let place = |p: &str| loaded.resolve(p, options.data_root.as_deref());
    let source = match (&options.model, recipe.begins_with()) {
        (Some(file), _) => {
            let file = Some(file.display().to_string());
            let source = ModelSource { file, arch: None, width: 1.0, classes: None, input: None };
            return Ok(pipeline::stages::start(&source, recipe.seed, |p| PathBuf::from(p)).map_err(|e| Error::Input(e.to_string()))?.0);
        }
        (None, Some(source)) if index == 0 => source,
        (None, None) if index == 0 => return Err(Error::Input("the recipe names no model: name one with --model".into())),
        _ => {
            let before = &recipe.stages[index - 1];
            return Err(Error::Input(format!(
                "stage '{0}' comes before the quantize stage: run the recipe, and name its result with --model (RUN/{0}.onnx)",
                before.name()
            )));
        }
    };
    Ok(pipeline::stages::start(source, recipe.seed, place).map_err(|e| Error::Input(e.to_string()))?.0)
}

impl fmt::Display for SensitivityTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&report::sensitivity_text(&self.0))
    }
}
