//! Runtimes: what executes a deployed file. One file a runtime; each refuses by name what it cannot do.
mod convert;
mod locate;
mod messages;
mod onnxruntime;
mod reference;
#[cfg(feature = "rten")]
mod rten;

pub use locate::user_folder;
pub use messages::take as take_messages;
pub use onnxruntime::OnnxRuntime;
pub use reference::Reference;
#[cfg(feature = "rten")]
pub use rten::Rten;

use crate::{DeployError, Result};
use graph::Model;
use std::collections::BTreeMap;
use std::path::Path;
use tensor::{DType, Tensor};

/// How a session computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Threads that work on one operator.
    pub threads: usize,
    /// True for the runtime's defaults; false for *literal* arithmetic: every node exactly as the file says (graph
    /// optimizations off), which is the reference for correctness of quantized arithmetic.
    pub optimize: bool,
}

impl SessionOptions {
    /// Literal arithmetic.
    pub fn literal(threads: usize) -> Self {
        SessionOptions { threads, optimize: false }
    }

    /// The runtime's defaults.
    pub fn default_arithmetic(threads: usize) -> Self {
        SessionOptions { threads, optimize: true }
    }
}

/// A deployed model: the bytes of an ONNX file, or its path (needed where tensors lie in files beside it).
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The whole file.
    Bytes(&'a [u8]),
    /// Where it lies.
    File(&'a Path),
}

/// An input or output of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Its name in the graph.
    pub name: String,
    /// Element type, if it is a tensor's.
    pub dtype: Option<DType>,
    /// Size along each axis, `None` where it is dynamic.
    pub shape: Option<Vec<Option<usize>>>,
}

/// Something that executes ONNX files.
pub trait Runtime: Send + Sync {
    /// Its name, as recipes and reports write it.
    fn name(&self) -> &'static str;

    /// Version of the runtime's library.
    fn version(&self) -> String;

    /// Prepares a model for running.
    ///
    /// # Errors
    /// [`DeployError::Runtime`] with the runtime's own message if it refuses the model.
    fn load(&self, source: Source, options: SessionOptions) -> Result<Box<dyn Session>>;

    /// The graph that the runtime runs by default, after its own optimizations; `None` where it does not tell.
    ///
    /// # Errors
    /// As [`Runtime::load`], and if what it wrote cannot be read.
    fn optimized(&self, _source: Source) -> Result<Option<Model>> {
        Ok(None)
    }
}

/// A loaded model.
pub trait Session: Send {
    /// Inputs that must be fed.
    fn inputs(&self) -> &[Slot];

    /// Outputs that it computes.
    fn outputs(&self) -> &[Slot];

    /// Runs the model once. Inputs and outputs go by their names in the graph; inputs that the graph does not have are
    /// an error, so that a misspelt name is not silently ignored.
    ///
    /// # Errors
    /// [`DeployError::Input`] for an input that is missing, unknown or of another type; [`DeployError::Runtime`] with
    /// the runtime's own message.
    fn run(&mut self, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>>;
}

/// A runtime in the list.
pub struct RuntimeEntry {
    /// Its name, as recipes and reports write it.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub summary: &'static str,
    open: fn() -> Result<Box<dyn Runtime>>,
}

/// All runtimes, also those that were not compiled into this build.
pub fn all() -> &'static [RuntimeEntry] {
    #[cfg(feature = "rten")]
    const RTEN: RuntimeEntry = rten::ENTRY;
    #[cfg(not(feature = "rten"))]
    const RTEN: RuntimeEntry = RuntimeEntry {
        name: "rten",
        summary: "RTen, in builds with the feature of that name",
        open: || Err(DeployError::RuntimeAbsent { runtime: "rten", what: "this build is without it; build with `--features rten`".into() }),
    };
    &[onnxruntime::ENTRY, reference::ENTRY, RTEN]
}

/// The runtime of this name.
///
/// # Errors
/// [`DeployError::RuntimeAbsent`] if it is not installed, or no runtime has this name.
pub fn by_name(name: &str) -> Result<Box<dyn Runtime>> {
    match all().iter().find(|entry| entry.name == name) {
        Some(entry) => (entry.open)(),
        None => {
            let known: Vec<&str> = all().iter().map(|entry| entry.name).collect();
            Err(DeployError::RuntimeAbsent {
                runtime: "the runtime",
                what: format!("'{name}' is not known; there are {}", known.join(", ")),
            })
        }
    }
}

/// A runtime to measure deployed files in.
pub struct Choice {
    /// The runtime to measure in.
    pub runtime: Box<dyn Runtime>,
    /// Why it is not the first choice, for the report.
    pub note: Option<String>,
}

/// ONNX Runtime where it is installed, else the reference interpreter, with a note that says so.
pub fn choose() -> Choice {
    choose_for(false)
}

/// As [`choose`]; `int8`: for files with signed activations.
fn choose_for(int8: bool) -> Choice {
    match OnnxRuntime::find() {
        Ok(runtime) if int8 => Choice { runtime: Box::new(runtime.keeping_int8()), note: None },
        Ok(runtime) => Choice { runtime: Box::new(runtime), note: None },
        Err(e) => Choice { runtime: Box::new(Reference), note: Some(format!("measured in the reference interpreter, because {e}")) },
    }
}

/// The runtime in which files for a target are measured; for ONNX Runtime as [`choose`] says.
///
/// # Errors
/// [`DeployError::RuntimeAbsent`] for another one that is not installed.
pub fn of_target(target: &dyn target::Target) -> Result<Choice> {
    match target.runtime() {
        onnxruntime::NAME => Ok(choose_for(target.signed_activations())),
        name => Ok(Choice { runtime: by_name(name)?, note: None }),
    }
}

/// Checks fed inputs against a session's own list.
fn check_inputs(slots: &[Slot], inputs: &BTreeMap<String, Tensor>) -> Result<()> {
    let error = |input: &str, what: String| Err(DeployError::Input { input: input.to_string(), what });
    for slot in slots {
        let Some(tensor) = inputs.get(&slot.name) else { return error(&slot.name, "is not given".into()) };
        if let Some(dtype) = slot.dtype
            && dtype != tensor.dtype()
        {
            return error(&slot.name, format!("is {}, the model wants {dtype}", tensor.dtype()));
        }
    }
    match inputs.keys().find(|k| slots.iter().all(|s| s.name != **k)) {
        Some(unknown) => {
            let known: Vec<&str> = slots.iter().map(|s| s.name.as_str()).collect();
            error(unknown, format!("is not an input of the model; it has {}", known.join(", ")))
        }
        None => Ok(()),
    }
}
