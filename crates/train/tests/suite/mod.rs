//! Reading, running and judging the node cases of ONNX's backend suite.
use espalier_train::{Executor, Mode, Named, TrainError};
use graph::{Model, ValueType};
use ops::OpError;
use std::path::{Path, PathBuf};
use tensor::{DType, Tensor};

const DEBIAN: &str = "/usr/share/libonnx-testdata/data/node";

/// The suite's own tolerances; every type but the floating-point ones must match exactly.
const ABSOLUTE: f64 = 1e-7;
fn relative(dtype: DType) -> f64 {
    match dtype {
        // Two units in the last place: the suite's 1e-3 is less than one, and its sums were rounded at every step.
        DType::BF16 => 2f64.powi(-6),
        DType::F16 => 2f64.powi(-9),
        _ => 1e-3,
    }
}

/// `Err` holds the reason, the same for all cases with one cause.
pub(crate) type Verdict = Result<(), String>;

/// The folder of the node cases, or `None` with the reason printed.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("ONNX_TESTDATA").map_or_else(|| PathBuf::from(DEBIAN), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is not there (install libonnx-testdata, or set ONNX_TESTDATA to the folder of node cases)", folder.display());
    None
}

/// The model of a case, if its inputs and outputs are tensors.
pub(crate) fn load(case: &Path) -> Result<Model, String> {
    // From bytes: an error without the path, which depends on the suite's folder.
    let bytes = std::fs::read(case.join("model.onnx")).map_err(|e| e.to_string())?;
    let model = onnx::from_bytes(&bytes, Some(case)).map_err(|e| e.to_string())?;
    let types = model.graph.inputs.iter().chain(&model.graph.outputs).map(|v| &model.values[*v].ty);
    if types.into_iter().any(|t| matches!(t, ValueType::Other(_))) {
        return Err("sequence and optional types are not supported".into());
    }
    Ok(model)
}

/// Runs every data set of a case through the model.
pub(crate) fn run(model: &Model, case: &Path) -> Verdict {
    let executor = Executor::new(model).map_err(|e| reason(&e))?;
    let mut sets: Vec<PathBuf> = std::fs::read_dir(case).unwrap().flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    sets.sort();
    sets.iter().try_for_each(|set| run_set(model, &executor, set))
}

fn run_set(model: &Model, executor: &Executor, set: &Path) -> Verdict {
    let name = |v: &graph::ValueId| model.values[*v].name.clone();
    let mut inputs = Named::new();
    for (i, v) in model.graph.inputs.iter().enumerate() {
        if let Some(t) = tensor_file(model, *v, set, "input", i)? {
            inputs.insert(name(v), t);
        }
    }
    let outputs = executor.run(&inputs, Mode::FLOAT).map_err(|e| reason(&e))?;
    for (i, v) in model.graph.outputs.iter().enumerate() {
        if let Some(expected) = tensor_file(model, *v, set, "output", i)? {
            compare(&outputs[&name(v)], &expected).map_err(|what| format!("output {i}: {what}"))?;
        }
    }
    Ok(())
}

/// The stored value of a graph input or output, if the set has it.
fn tensor_file(model: &Model, v: graph::ValueId, set: &Path, kind: &str, i: usize) -> Result<Option<Tensor>, String> {
    let Ok(bytes) = std::fs::read(set.join(format!("{kind}_{i}.pb"))) else { return Ok(None) };
    let t = onnx::read_tensor(&bytes).map_err(|e| e.to_string())?;
    // NumPy has no bfloat16: the suite stores its bits as uint16.
    match (model.values[v].dtype(), t.as_slice::<u16>()) {
        (Some(DType::BF16), Ok(bits)) => {
            let values = bits.iter().map(|b| tensor::bf16::from_bits(*b)).collect();
            Tensor::new::<tensor::bf16>(values, t.shape()).map(Some).map_err(|e| e.to_string())
        }
        _ => Ok(Some(t)),
    }
}

fn compare(got: &Tensor, expected: &Tensor) -> Verdict {
    if got.dtype() != expected.dtype() {
        return Err(format!("has type {}, not {}", got.dtype(), expected.dtype()));
    }
    if got.shape() != expected.shape() {
        return Err("has another shape".into());
    }
    if got == expected {
        return Ok(());
    }
    if got.dtype().is_int() || matches!(got.dtype(), DType::Bool | DType::String) {
        return Err("has other values".into());
    }
    let relative = relative(expected.dtype());
    let (got, expected) = (numbers(got)?, numbers(expected)?);
    let close = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= ABSOLUTE + relative * b.abs();
    match got.iter().zip(&expected).all(|(a, b)| close(*a, *b)) {
        true => Ok(()),
        false => Err("has other values".into()),
    }
}

fn numbers(t: &Tensor) -> Result<Vec<f64>, String> {
    match t.dtype() {
        DType::C64 => Ok(t.as_slice::<[f32; 2]>().map_err(|e| e.to_string())?.iter().flatten().map(|v| f64::from(*v)).collect()),
        DType::C128 => Ok(t.as_slice::<[f64; 2]>().map_err(|e| e.to_string())?.iter().flatten().copied().collect()),
        _ => t.to_f64_vec().map_err(|e| e.to_string()),
    }
}

/// The cause without the names of one case's nodes, so that cases with one cause have the same text.
fn reason(e: &TrainError) -> String {
    let text = match e {
        TrainError::UnknownOperator { op_type, domain, .. } if domain.is_empty() => format!("operator {op_type} is not known"),
        TrainError::UnknownOperator { op_type, domain, .. } => format!("operator {domain}.{op_type} is not known"),
        TrainError::Node { source: source @ OpError::Unsupported { .. }, .. } => source.to_string(),
        TrainError::Node { op_type, source, .. } => format!("{op_type}: {source}"),
        other => other.to_string(),
    };
    text.lines().next().unwrap_or_default().to_string()
}
