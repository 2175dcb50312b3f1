//! `diagnose`: why a quantized network is worse than the float one, what to try, and trying it.
use super::init::{Purpose, Task};
use super::subject::Subject;
use crate::{Error, Result};
use graph::Model;
use pipeline::actions::{CompressOn, Diagnose, Sources, TryBudget};
use pipeline::recipe::{Loaded, QuantizeStage, Training, parse};
use pipeline::stages::StageError;
use report::RunRecord;
use report::record::DiagnosisRecord;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// What to diagnose, and how.
#[derive(Clone, Debug, Default)]
pub struct DiagnoseOptions {
    /// A run's folder, a recipe with a quantize stage, or a model.
    pub of: PathBuf,
    /// For a model: the rest of its task; `model` is not used.
    pub task: Option<Task>,
    /// A folder to look in first for the recipe's files and data sets; for a run by default that of its command line.
    pub data_root: Option<PathBuf>,
    /// For a recipe or a model: overrides of the recipe's settings.
    pub overrides: Vec<String>,
    /// For a recipe: the network before the stage, in place of the one that the recipe begins with.
    pub model: Option<PathBuf>,
    /// Name of the quantize stage; absent: the first one.
    pub stage: Option<String>,
    /// Number of samples; absent: that of the stage's search.
    pub samples: Option<usize>,
    /// Tries the suggestions, within this budget.
    pub fix: Option<TryBudget>,
    /// Files to write: .json, .csv (the layers), and with `fix` .toml (the recipe with what is kept).
    pub outputs: Vec<PathBuf>,
}

/// A diagnosis.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// What was found.
    #[serde(flatten)]
    pub record: DiagnosisRecord,
    /// The files that were written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<PathBuf>,
}

/// Endings of files that can be written.
const ENDINGS: [&str; 3] = ["json", "csv", RECIPE];
const RECIPE: &str = "toml";

/// Measures the error of each layer of a quantized network, what causes it and what it costs, and suggests settings; with `fix` it
/// tries them. Samples are validation samples, else training samples that are not calibration samples. A run's networks are those of
/// its folder; those of a recipe or a model are calibrated here, without epochs.
///
/// # Errors
/// If the run, the recipe, its model or its data cannot be read, or it has no quantize stage; errors of calibrating and running the
/// networks.
pub fn diagnose(options: &DiagnoseOptions, tick: &mut dyn FnMut(u64, u64)) -> Result<Diagnosis> {
    check_outputs(options)?;
    let staged = |e: StageError| Error::Input(e.to_string());
    let run = run_of(options)?;
    let subject = Subject {
        purpose: Purpose::Quantize { epochs: 0 },
        of: &options.of,
        task: options.task.as_ref(),
        data_root: options.data_root.as_deref().or(run.as_ref().and_then(|run| run.data_root.as_deref())),
        overrides: &options.overrides,
        model: options.model.as_deref(),
        stage: options.stage.as_deref(),
    };
    let written = run.as_ref().map_or_else(|| subject.loaded(), |run| Ok(run.loaded.clone()))?;
    subject.spares(&written, &options.outputs)?;
    let root = subject.data_root;
    let loaded = written.with_files(root)?;
    let recipe = &loaded.recipe;
    tensor::set_threads(recipe.threads);
    let (index, stage) = subject.quantize_stage(&loaded)?;
    let own = &recipe.stages[index];
    let (before, quantized) = match &run {
        Some(run) => run.networks(&subject, index)?,
        None => (subject.network(&loaded, index)?, None),
    };
    let sources = Sources::open(&loaded, root).map_err(staged)?;
    let target = recipe.target_from(index);
    let on = CompressOn { sources: &sources, seed: recipe.seed, training: &Training::default(), target: &target, cache: None };
    let work = Diagnose {
        before: &before,
        quantized: quantized.as_ref(),
        name: own.name(),
        stage: &stage,
        epochs: own.training().map_or(0, |t| t.epochs),
        samples: options.samples.unwrap_or(stage.search.samples).max(1),
        on: &on,
    };
    let mut found = work.run(tick).map_err(staged)?;
    if let Some(budget) = options.fix {
        let apply = |settings: &[String]| -> std::result::Result<QuantizeStage, StageError> {
            let changed = changed(&written, settings)?.with_files(root)?;
            changed.recipe.stages[index].get::<QuantizeStage>().cloned().ok_or_else(|| "the stage is gone".into())
        };
        work.fix(&mut found, budget, &apply, tick).map_err(staged)?;
    }
    let record = DiagnosisRecord { name: recipe.name.clone(), ..found.record };
    let mut files = vec![];
    for path in &options.outputs {
        if write(&record, &written, path)? {
            files.push(path.clone());
        }
    }
    Ok(Diagnosis { record, written: files })
}

fn check_outputs(options: &DiagnoseOptions) -> Result<()> {
    for path in &options.outputs {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if !ENDINGS.contains(&ending) {
            let text = format!("{}: what to write follows from the name's ending: {}", path.display(), ENDINGS.join(", "));
            return Err(Error::Input(text));
        }
        if ending == RECIPE && options.fix.is_none() {
            return Err(Error::Input(format!("{}: a recipe is written with what --fix keeps: add --fix", path.display())));
        }
    }
    Ok(())
}

/// The recipe with further settings.
fn changed(written: &Loaded, settings: &[String]) -> std::result::Result<Loaded, StageError> {
    let overrides: Vec<String> = written.overrides.iter().chain(settings).cloned().collect();
    let recipe = parse(&written.text, &overrides)?;
    Ok(Loaded { recipe, overrides, ..written.clone() })
}

/// Writes a file; the recipe only if something is kept.
fn write(record: &DiagnosisRecord, written: &Loaded, path: &Path) -> Result<bool> {
    let text = match path.extension().and_then(|e| e.to_str()) {
        Some("csv") => record.to_csv(),
        Some(RECIPE) => match record.fixed.as_ref().filter(|fix| !fix.kept.is_empty()) {
            Some(fix) => {
                let changed = changed(written, &fix.kept).map_err(|e| Error::Input(e.to_string()))?;
                let head = fix.kept.iter().map(|setting| format!("# {}\n", report::text::line(setting))).collect::<String>();
                format!("# Changed after a diagnosis:\n{head}{}", changed.recipe.to_text()?)
            }
            None => return Ok(false),
        },
        _ => serde_json::to_string_pretty(record).map_err(|e| Error::Input(format!("{}: {e}", path.display())))?,
    };
    pipeline::run_dir::write_atomically(path, text.as_bytes())?;
    Ok(true)
}

/// A finished run.
struct Finished {
    folder: PathBuf,
    loaded: Loaded,
    /// The folder of data that its command line named.
    data_root: Option<PathBuf>,
}

/// The run, if one is named.
fn run_of(options: &DiagnoseOptions) -> Result<Option<Finished>> {
    let of = &options.of;
    let record = of.file_name().is_some_and(|name| name == "run.json");
    if !of.is_dir() && !record {
        return Ok(None);
    }
    let given = [("--set", !options.overrides.is_empty()), ("--model", options.model.is_some()), ("--data", options.task.is_some())];
    if let Some((name, _)) = given.iter().find(|(_, given)| *given) {
        let text = format!("{}: a run has its own settings, networks and data, so {name} goes with a recipe or a model", of.display());
        return Err(Error::Input(text));
    }
    let folder = if record { of.parent().map(Path::to_path_buf).unwrap_or_default() } else { of.clone() };
    let run = RunRecord::load(of)?;
    let (text, overrides) = (run.recipe.text, run.recipe.overrides);
    let recipe = parse(&text, &overrides)?;
    let after = |name: &str| {
        let with = format!("{name}=");
        let mut arguments = run.command.iter();
        arguments.find_map(|a| a.strip_prefix(&with).map(PathBuf::from)).or_else(|| {
            let at = run.command.iter().position(|a| a == name)?;
            run.command.get(at + 1).map(PathBuf::from)
        })
    };
    let data_root = ["--data-root", "--data"].into_iter().find_map(after).filter(|p| p.is_dir());
    // Paths of the recipe start at its own folder; a command that wrote the recipe itself had them start here.
    let own = run.command.iter().map(PathBuf::from).find(|p| p.extension().is_some_and(|e| e == RECIPE) && p.is_file());
    let base = own.and_then(|p| p.parent().map(Path::to_path_buf)).filter(|p| !p.as_os_str().is_empty());
    let loaded = Loaded { recipe, text, folder: base.unwrap_or_else(|| PathBuf::from(".")), overrides };
    Ok(Some(Finished { folder, loaded, data_root }))
}

impl Finished {
    /// The networks before and after the stage.
    fn networks(&self, subject: &Subject, index: usize) -> Result<(Model, Option<Model>)> {
        let stages = &self.loaded.recipe.stages;
        let result = |name: &str| {
            let path = self.folder.join(format!("{name}.onnx"));
            onnx::load(&path).map_err(|e| Error::Input(format!("{}: the result of stage '{name}' cannot be read: {e}", path.display())))
        };
        let quantized = result(stages[index].name())?;
        let before = match index {
            0 => subject.network(&self.loaded, index)?,
            _ => result(stages[index - 1].name())?,
        };
        Ok((before, Some(quantized)))
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&report::diagnosis_text(&self.record))
    }
}
