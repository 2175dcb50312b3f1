//! `runtime`: finding and fetching ONNX Runtime.
use crate::{Error, Result};
use deploy::runtime::{by_name, user_folder};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release to fetch: the one that the project is tested with.
const VERSION: &str = "1.32.0";

/// The ONNX Runtime library that was found or fetched.
#[derive(Clone, Debug, Serialize)]
pub struct FoundRuntime {
    /// Version of the library.
    pub version: String,
    /// The library, if it was fetched just now.
    pub library: Option<PathBuf>,
}

/// Loads ONNX Runtime from the usual places.
///
/// # Errors
/// If it is not found or cannot be loaded, with the places that were looked at.
pub fn find_runtime() -> Result<FoundRuntime> {
    let runtime = by_name("onnxruntime")?;
    Ok(FoundRuntime { version: runtime.version(), library: None })
}

/// Fetches the library with Python's pip into `folder`, by default the user's own folder that [`find_runtime`] searches.
///
/// # Errors
/// If there is no Python with pip, the package cannot be had for this platform, or the folder cannot be written.
pub fn fetch_runtime(folder: Option<&Path>) -> Result<FoundRuntime> {
    let own = user_folder().ok_or_else(|| Error::Input("no home folder is set: name one with --output".into()));
    let folder = folder.map_or(own, |f| Ok(f.to_path_buf()))?;
    let io = |path: &Path, e: std::io::Error| Error::Input(format!("{}: {e}", path.display()));
    std::fs::create_dir_all(&folder).map_err(|e| io(&folder, e))?;
    let work = folder.join(format!("fetch.{}.partial", std::process::id()));
    std::fs::create_dir_all(&work).map_err(|e| io(&work, e))?;
    let found = fetch(&work, &folder);
    std::fs::remove_dir_all(&work).ok();
    Ok(FoundRuntime { version: VERSION.into(), library: Some(found?) })
}

fn fetch(work: &Path, folder: &Path) -> Result<PathBuf> {
    let package = format!("onnxruntime=={VERSION}");
    python(&["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", "."], &package, work)?;
    let wheel = std::fs::read_dir(work)
        .ok()
        .into_iter()
        .flatten()
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.extension().is_some_and(|e| e == "whl"));
    let wheel = wheel.and_then(|p| p.to_str().map(str::to_string)).ok_or_else(|| Error::Input("pip gave no package".into()))?;
    python(&["-m", "zipfile", "-e", &wheel], "wheel", work)?;
    let inside = work.join("wheel/onnxruntime/capi");
    let library = std::fs::read_dir(&inside).ok().into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).find(|p| {
        let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with(&format!("{}onnxruntime.", std::env::consts::DLL_PREFIX)) && name.contains(std::env::consts::DLL_SUFFIX)
    });
    let library = library.ok_or_else(|| Error::Input(format!("the package onnxruntime {VERSION} for this platform holds no library")))?;
    let target = folder.join(library.file_name().unwrap_or_default());
    std::fs::rename(&library, &target).map_err(|e| Error::Input(format!("{}: {e}", target.display())))?;
    Ok(target)
}

fn python(arguments: &[&str], last: &str, folder: &Path) -> Result<()> {
    let done = Command::new("python3").args(arguments).arg(last).current_dir(folder).output();
    let done = done.map_err(|e| {
        Error::Input(format!(
            "python3 cannot be started ({e}): it is needed to fetch the library; or get ONNX Runtime {VERSION} from its releases and name \
             its library in ORT_DYLIB_PATH"
        ))
    })?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(Error::Input(format!("python3 {} {last}: {}", arguments.join(" "), said.trim().lines().last().unwrap_or("failed"))))
}

impl fmt::Display for FoundRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.library {
            Some(path) => writeln!(f, "ONNX Runtime {}: {}", self.version, path.display()),
            None => writeln!(f, "ONNX Runtime {} is found", self.version),
        }
    }
}
