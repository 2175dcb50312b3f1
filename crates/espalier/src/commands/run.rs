//! `run` and `report`.
use crate::{Error, Result};
use pipeline::{Listener, RunOptions, recipe};
use report::RunRecord;
use std::path::{Path, PathBuf};

/// A finished run.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// The run's record, as in `run.json`.
    pub record: RunRecord,
    /// Path of the run's folder.
    pub out: PathBuf,
}

/// Runs a recipe. Without a folder in `options.out`, `runs/NAME` is taken.
///
/// # Errors
/// As [`pipeline::run`].
pub fn run(path: &Path, overrides: &[String], mut options: RunOptions, listener: &mut dyn Listener) -> Result<RunResult> {
    let loaded = recipe::load(path, overrides)?;
    if options.out.as_os_str().is_empty() {
        options.out = Path::new("runs").join(&loaded.recipe.name);
    }
    let record = pipeline::run(&loaded, &options, listener)?;
    Ok(RunResult { record, out: options.out })
}

/// Reads a run's record and writes its page again, beside it.
///
/// # Errors
/// If the record cannot be read or the page not written.
pub fn report(run: &Path) -> Result<(RunRecord, PathBuf)> {
    let record = RunRecord::load(run)?;
    // A record under another name than `run.json` gets a page of its own name: the folder may hold another run's page.
    let page = match run.file_name() {
        _ if run.is_dir() => run.join("report.html"),
        Some(name) if name == "run.json" => run.with_file_name("report.html"),
        _ => run.with_extension("html"),
    };
    if std::fs::read_to_string(&page).is_ok_and(|text| !text.contains(::report::PAGE_MARK)) {
        return Err(Error::Input(format!("{}: is not a report that Espalier wrote, and would be lost: move it away", page.display())));
    }
    pipeline::run_dir::write_atomically(&page, ::report::html(&record).as_bytes()).map_err(Error::from)?;
    Ok((record, page))
}
