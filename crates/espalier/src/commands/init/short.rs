//! `quantize`, `prune` and `distill`: the recipe is made, shown and run.
use super::recipe::is_file;
use super::{Purpose, Task, draft};
use crate::commands::RunResult;
use crate::{Error, Result};
use pipeline::recipe::{Loaded, parse};
use pipeline::{Listener, RunOptions};
use std::path::{Path, PathBuf};

/// What to run.
#[derive(Clone, Debug)]
pub struct Shortcut {
    /// The model and its data.
    pub task: Task,
    /// The compression to run: quantize, prune or distil.
    pub purpose: Purpose,
    /// The deployed file to write.
    pub output: PathBuf,
    /// Overrides of the recipe's settings.
    pub overrides: Vec<String>,
}

/// Makes the recipe, passes it to `told` together with warnings, runs it, and writes the deployed file.
///
/// # Errors
/// As [`super::init`] and [`pipeline::run`]; if the output is the model itself.
pub fn shortcut(
    what: &Shortcut,
    mut options: RunOptions,
    told: &mut dyn FnMut(&str, &[String]),
    listener: &mut dyn Listener,
) -> Result<RunResult> {
    let read = [Some(&what.task.model), Some(&what.task.data), what.task.test.as_ref()].into_iter().flatten().map(PathBuf::as_path);
    if let Some(lost) = files::destroyed(&what.output, read) {
        let which = if lost == what.task.model { "the model itself" } else { "the data" };
        return Err(Error::Input(format!("{} is {which}: name another file with --output", what.output.display())));
    }
    let folder = what.output.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Error::Input(format!("{}: there is no folder {}", what.output.display(), folder.display())));
    }
    if let Purpose::Distill { student, width, .. } = &what.purpose
        && is_file(student)
        && *width != 1.0
    {
        let what = format!("width = {width} is for an architecture of the zoo; the student {student} is a file, whose width is fixed");
        return Err(Error::Input(what));
    }
    let written = draft(&what.task, &what.purpose, Path::new(""))?;
    let recipe = parse(&written.text, &what.overrides)?;
    // The text that is shown, and stored in the run's folder, is the recipe that runs.
    let text = match what.overrides.as_slice() {
        [] => written.text,
        some => format!("# With {}.\n{}", report::text::line(&some.join(", ")), recipe.to_text()?),
    };
    told(&text, &written.notes);
    let loaded = Loaded { recipe, text, folder: PathBuf::from("."), overrides: what.overrides.clone() };
    if options.out.as_os_str().is_empty() {
        // Each command has its own folder, so that no command replaces another's report.
        options.out = Path::new("runs").join(format!("{}-{}", loaded.recipe.name, what.purpose.name()));
    }
    let record = pipeline::run(&loaded, &options, listener)?;
    let file = record.stages.iter().rev().find_map(|s| s.deploy.as_ref()).map(|d| options.out.join(&d.file));
    let file = file.ok_or_else(|| Error::Input("nothing was deployed".into()))?;
    let bytes = std::fs::read(&file).map_err(|e| Error::Input(format!("{}: {e}", file.display())))?;
    pipeline::run_dir::write_atomically(&what.output, &bytes).map_err(Error::from)?;
    Ok(RunResult { record, out: options.out })
}
