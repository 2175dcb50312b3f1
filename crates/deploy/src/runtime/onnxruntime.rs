//! ONNX Runtime through the `ort` crate. The shared library is found and loaded at run time, so that the binary neither
//! links to it nor ships it; whatever is wrong with the library is an error here, never a panic.
use super::{Runtime, RuntimeEntry, Session, SessionOptions, Slot, Source, check_inputs, convert, locate, messages};
use crate::{DeployError, Result};
use graph::Model;
use ort::logging::LogLevel;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session as OrtSession, SessionInputValue};
use ort::value::{Outlet, ValueType};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tensor::Tensor;

/// The runtime's name.
pub(super) const NAME: &str = "onnxruntime";

pub(super) const ENTRY: RuntimeEntry = RuntimeEntry {
    name: NAME,
    summary: "ONNX Runtime, its library found and loaded at run time",
    open: || Ok(Box::new(OnnxRuntime::find()?)),
};

/// ONNX Runtime, loaded. One library serves the whole process: the first that works.
pub struct OnnxRuntime {
    environment: ort::environment::Environment,
    version: String,
    int8: bool,
}

impl OnnxRuntime {
    /// Finds and loads the library: `ORT_DYLIB_PATH` or `ESPALIER_ORT` (a file or a folder) if set, else
    /// `.espalier/onnxruntime/` in the working directory, the executable's folder, the system's library folders.
    ///
    /// # Errors
    /// [`DeployError::RuntimeAbsent`] with what was tried and why each try failed.
    pub fn find() -> Result<Self> {
        static LOADED: OnceLock<std::result::Result<(ort::environment::Environment, String), String>> = OnceLock::new();
        match LOADED.get_or_init(load_first) {
            Ok((environment, version)) => Ok(OnnxRuntime { environment: environment.clone(), version: version.clone(), int8: false }),
            Err(what) => Err(DeployError::RuntimeAbsent { runtime: NAME, what: what.clone() }),
        }
    }

    /// Leaves signed activations signed. By default it makes unsigned ones of those with one reader on x86 processors, and where a node then
    /// has both kinds it computes in float.
    pub fn keeping_int8(self) -> Self {
        OnnxRuntime { int8: true, ..self }
    }

    /// A session; `write_to`: where the runtime writes the graph that it made of the model.
    fn build(&self, source: Source, options: SessionOptions, write_to: Option<&Path>) -> ort::Result<OrtSession> {
        let level = if options.optimize { GraphOptimizationLevel::All } else { GraphOptimizationLevel::Disable };
        let mut builder = OrtSession::builder(&self.environment)?
            .with_optimization_level(level)?
            .with_intra_threads(options.threads)?
            .with_inter_threads(1)?
            .with_log_level(LogLevel::Error)?;
        if self.int8 {
            builder = builder.with_config_entry("session.qdqisint8allowed", "1")?;
        }
        if let Some(path) = write_to {
            builder = builder.with_optimized_model_path(path)?;
        }
        match source {
            Source::Bytes(bytes) => builder.commit_from_memory(bytes),
            Source::File(path) => builder.commit_from_file(path),
        }
    }
}

fn load_first() -> std::result::Result<(ort::environment::Environment, String), String> {
    let mut tried = vec![];
    for path in locate::candidates() {
        match guarded(|| load(&path)) {
            Ok(loaded) => return Ok(loaded),
            Err(why) => tried.push(format!("{}: {why}", path.display())),
        }
    }
    let hint = format!(
        "fetch it with espalier runtime fetch (or scripts/fetch_onnxruntime.sh, which puts it into {}), or set {} to the library's path (version 1.{} or newer)",
        locate::FETCHED,
        locate::VARIABLES[0],
        ort::MINOR_VERSION
    );
    match tried.is_empty() {
        true => Err(format!("no library was found; {hint}")),
        false => Err(format!("{}; {hint}", tried.join("; "))),
    }
}

fn load(path: &Path) -> std::result::Result<(ort::environment::Environment, String), String> {
    // dlopen would search its own folders for a bare name; the path found must be the file loaded.
    let path = std::fs::canonicalize(path).map_err(|e| e.to_string())?;
    let builder = ort::init_from(&path).map_err(|e| e.to_string())?.with_telemetry(false);
    // The runtime's own log would go to stderr, in colour, once for each session.
    let log = |level: LogLevel, _: &str, _: &str, _: &str, message: &str| {
        if matches!(level, LogLevel::Error | LogLevel::Fatal) {
            messages::keep(message);
        }
    };
    let environment = builder.with_logger(Arc::new(log)).build().map_err(|e| e.to_string())?;
    // A logger of its own would first get every message of the start.
    environment.set_log_level(LogLevel::Error);
    Ok((environment, version(&path)))
}

/// The library's version, by its file name (`libonnxruntime.so.1.32.0`); else the commit it was built from.
fn version(library: &Path) -> String {
    let name = library.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let numbers: Vec<&str> = name.split('.').filter(digits).collect();
    let commit = || ort::info().split([',', ' ']).find_map(|word| word.strip_prefix("git-commit-id="));
    match numbers.len() {
        0 | 1 => commit().unwrap_or("of unknown version").to_string(),
        _ => numbers.join("."),
    }
}

/// `ort` asserts where a library does not behave; a foreign file must not bring the process down.
fn guarded<T>(run: impl FnOnce() -> std::result::Result<T, String>) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
        Err(format!("the library failed: {}", text.unwrap_or_default()))
    })
}

impl Runtime for OnnxRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn load(&self, source: Source, options: SessionOptions) -> Result<Box<dyn Session>> {
        let session = guarded(|| self.build(source, options, None).map_err(|e| e.to_string())).map_err(refused)?;
        let slots = |list: &[Outlet]| list.iter().map(slot).collect();
        Ok(Box::new(Loaded { inputs: slots(session.inputs()), outputs: slots(session.outputs()), session }))
    }

    fn optimized(&self, source: Source) -> Result<Option<Model>> {
        let file = Scratch::new();
        let options = SessionOptions::default_arithmetic(1);
        guarded(|| self.build(source, options, Some(&file.0)).map(drop).map_err(|e| e.to_string())).map_err(refused)?;
        let model = onnx::load(&file.0).map_err(|e| refused(format!("the graph it runs cannot be read: {e}")))?;
        Ok(Some(model))
    }
}

fn refused(what: String) -> DeployError {
    messages::told_by(&what);
    DeployError::Runtime { runtime: NAME, step: "cannot load the model", what }
}

/// A file in the system's temporary folder, deleted on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("espalier-{}-{}.onnx", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Scratch(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

fn slot(outlet: &Outlet) -> Slot {
    let (dtype, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => (convert::dtype(*ty), Some(shape.iter().map(|d| usize::try_from(*d).ok()).collect())),
        _ => (None, None),
    };
    Slot { name: outlet.name().to_string(), dtype, shape }
}

struct Loaded {
    session: OrtSession,
    inputs: Vec<Slot>,
    outputs: Vec<Slot>,
}

impl Loaded {
    fn run_checked(&mut self, inputs: &BTreeMap<String, Tensor>) -> std::result::Result<BTreeMap<String, Tensor>, String> {
        let mut feeds: Vec<(&str, SessionInputValue)> = vec![];
        for (name, tensor) in inputs {
            feeds.push((name, convert::to_ort(tensor).map_err(|e| format!("input '{name}': {e}"))?));
        }
        let values = self.session.run(feeds).map_err(|e| e.to_string())?;
        let mut outputs = BTreeMap::new();
        for (name, value) in values.iter() {
            outputs.insert(name.to_string(), convert::from_ort(&value).map_err(|e| format!("output '{name}': {e}"))?);
        }
        Ok(outputs)
    }
}

impl Session for Loaded {
    fn inputs(&self) -> &[Slot] {
        &self.inputs
    }

    fn outputs(&self) -> &[Slot] {
        &self.outputs
    }

    fn run(&mut self, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        check_inputs(&self.inputs, inputs)?;
        guarded(|| self.run_checked(inputs)).map_err(|what| {
            messages::told_by(&what);
            DeployError::Runtime { runtime: NAME, step: "cannot run the model", what }
        })
    }
}
