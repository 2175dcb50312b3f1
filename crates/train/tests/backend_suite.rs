//! ONNX's own backend suite (Debian's `libonnx-testdata`, or the folder in `ONNX_TESTDATA`): every node case is run and
//! its verdict compared with the checked-in manifest, so that neither a regression nor a gain goes unnoticed.
//!
//! `ESPALIER_UPDATE_MANIFEST=1 cargo test -p espalier-train --test backend_suite` writes the manifest anew.
use espalier_train::{Executor, Mode, Named, TrainError};
use graph::{Model, ValueType};
use ops::OpError;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tensor::{DType, Tensor};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/backend_suite.txt");
const DEBIAN: &str = "/usr/share/libonnx-testdata/data/node";

/// The suite's own tolerances; every type but the floating-point ones must match exactly.
const RELATIVE: f64 = 1e-3;
const ABSOLUTE: f64 = 1e-7;

/// Cases that cannot pass, by the beginning of their names, and why.
const KNOWN: &[(&str, &str)] = &[
    ("test_bernoulli", "random outputs cannot be compared"),
    ("test_cast_FLOAT_to_BFLOAT16", "the expected values are truncated: the specification has since asked for rounding"),
    ("test_castlike_", "the stored input does not have the shape that the graph declares"),
    ("test_training_dropout", "random outputs cannot be compared"),
    ("test_resize_downsample_scales_cubic_align_corners", "the expected values predate a correction of the specification"),
    ("test_resize_downsample_scales_linear_align_corners", "the expected values predate a correction of the specification"),
];

/// `Err` holds the reason, the same for all cases of one cause.
type Verdict = Result<(), String>;

#[test]
fn verdicts_are_those_of_the_manifest() {
    let Some(folder) = suite() else { return };
    let verdicts = run_all(&folder);
    let passed = verdicts.values().filter(|v| v.is_ok()).count();
    println!("{passed} of {} cases pass", verdicts.len());
    if std::env::var_os("ESPALIER_UPDATE_MANIFEST").is_some() {
        std::fs::write(MANIFEST, render(&verdicts)).unwrap();
        return;
    }
    let expected = parse(&std::fs::read_to_string(MANIFEST).unwrap());
    let mut wrong = String::new();
    for (case, verdict) in &verdicts {
        match (expected.get(case), verdict) {
            (Some(true), Err(why)) => writeln!(wrong, "{case} passed and now fails: {why}").unwrap(),
            (Some(false), Ok(())) => writeln!(wrong, "{case} is listed as failing and passes").unwrap(),
            (None, _) => println!("{case} is not in the manifest: another release of the suite"),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong}ESPALIER_UPDATE_MANIFEST=1 writes the manifest anew");
}

/// The folder of the node cases, or `None` with the reason printed.
fn suite() -> Option<PathBuf> {
    let folder = std::env::var_os("ONNX_TESTDATA").map_or_else(|| PathBuf::from(DEBIAN), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is not there (install libonnx-testdata, or set ONNX_TESTDATA to the folder of node cases)", folder.display());
    None
}

fn run_all(folder: &Path) -> BTreeMap<String, Verdict> {
    std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .filter(|e| e.path().join("model.onnx").is_file())
        .map(|e| {
            let case = e.file_name().to_string_lossy().into_owned();
            let known = KNOWN.iter().find(|(prefix, _)| case.starts_with(prefix));
            let verdict = run_case(&e.path()).map_err(|why| known.map_or(why, |(_, known)| known.to_string()));
            (case, verdict)
        })
        .collect()
}

fn run_case(case: &Path) -> Verdict {
    let model = onnx::load(&case.join("model.onnx")).map_err(|e| e.to_string())?;
    let types = model.graph.inputs.iter().chain(&model.graph.outputs).map(|v| &model.values[*v].ty);
    if types.into_iter().any(|t| matches!(t, ValueType::Other(_))) {
        return Err("sequence and optional types are not supported".into());
    }
    let executor = Executor::new(&model).map_err(|e| reason(&e))?;
    let mut sets: Vec<PathBuf> = std::fs::read_dir(case).unwrap().flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    sets.sort();
    sets.iter().try_for_each(|set| run_set(&model, &executor, set))
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
    let (got, expected) = (numbers(got)?, numbers(expected)?);
    let close = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= ABSOLUTE + RELATIVE * b.abs();
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

/// The cause without the names of one case's nodes, so that cases of one cause read alike.
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

fn render(verdicts: &BTreeMap<String, Verdict>) -> String {
    let mut text = String::new();
    for (case, verdict) in verdicts {
        match verdict {
            Ok(()) => writeln!(text, "{case} pass").unwrap(),
            Err(why) => writeln!(text, "{case} fail {why}").unwrap(),
        }
    }
    text
}

/// Whether each listed case passes.
fn parse(manifest: &str) -> BTreeMap<String, bool> {
    manifest.lines().filter_map(|l| l.split_once(' ')).map(|(case, verdict)| (case.to_string(), verdict == "pass")).collect()
}
