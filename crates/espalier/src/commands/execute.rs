//! `execute`: runs a model on arrays.
use crate::{Error, Result};
use deploy::runtime::{self, Session, SessionOptions, Source};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use tensor::Tensor;
use train::{Executor, Mode};

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Execution {
    /// Name of the runtime.
    pub runtime: String,
    /// Outputs by name: type and shape.
    pub outputs: BTreeMap<String, String>,
}

/// Runs a model on the arrays of an npz file, named after its inputs, and writes its outputs to another. `literal`
/// switches a runtime's graph optimizations off; the reference interpreter has none, and simulates annotations.
///
/// # Errors
/// If a file cannot be read or written, an input does not fit, or the runtime is not there.
pub fn execute(model: &Path, input: &Path, output: Option<&Path>, runtime: &str, literal: bool, threads: usize) -> Result<Execution> {
    if let Some(path) = output
        && let Some(lost) = files::destroyed(path, [model, input])
    {
        return Err(Error::Input(format!("--output {}: this is an input and would be lost: choose another file", lost.display())));
    }
    let inputs = data::npz::read(input)?;
    let outputs = run_file(model, &inputs, runtime, literal, threads)?;
    if let Some(path) = output {
        data::npz::write(path, &outputs)?;
    }
    let shapes = outputs.iter().map(|(name, t)| (name.clone(), format!("{}{:?}", t.dtype(), t.shape()))).collect();
    Ok(Execution { runtime: runtime.to_string(), outputs: shapes })
}

fn run_file(
    model: &Path,
    inputs: &BTreeMap<String, Tensor>,
    runtime: &str,
    literal: bool,
    threads: usize,
) -> Result<BTreeMap<String, Tensor>> {
    if runtime == "reference" {
        let model = onnx::load(model)?;
        return Ok(Executor::new(&model)?.run(inputs, Mode::SIMULATED)?);
    }
    Ok(session(Source::File(model), runtime, literal, threads)?.run(inputs)?)
}

/// A model loaded into the runtime of this name.
pub(super) fn session(model: Source, runtime: &str, literal: bool, threads: usize) -> Result<Box<dyn Session>> {
    if !super::runtimes().any(|known| known == runtime) {
        let known: Vec<&str> = super::runtimes().collect();
        return Err(Error::Input(format!("no runtime is named '{runtime}'; there are {}", known.join(", "))));
    }
    let options = if literal { SessionOptions::literal(threads) } else { SessionOptions::default_arithmetic(threads) };
    Ok(runtime::by_name(runtime)?.load(model, options)?)
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, shape) in &self.outputs {
            writeln!(f, "{}: {shape}", report::text::line(name))?;
        }
        Ok(())
    }
}
