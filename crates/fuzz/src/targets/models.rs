//! Model files: reading, passes, interpreter, lowering.
use super::{INPUTS, Target, here, read, with_ending};
use crate::case::Case;
use crate::random::Random;
use crate::{mutate, protobuf};
use graph::Model;
use std::collections::BTreeMap;
use std::path::Path;
use tensor::{DType, Tensor};
use train::{Executor, Mode, Overrides, TrainError};

pub(super) const ONNX: Target =
    Target { name: "onnx", what: "a model file, read and written back", seeds: fixtures, mutate: model, run: read_and_write };
pub(super) const EXTERNAL: Target =
    Target { name: "external", what: "a model with its elements in another file", seeds: external, mutate: model, run: read_external };
pub(super) const PASSES: Target =
    Target { name: "passes", what: "convert --clean --opset, and inspect", seeds: fixtures, mutate: model, run: passes };
pub(super) const INTERPRETER: Target =
    Target { name: "interpreter", what: "a model run on its inputs", seeds: with_inputs, mutate: structure, run: execute };
pub(super) const GRADIENTS: Target = Target {
    name: "gradients",
    what: "a model trained on its inputs: the way back",
    seeds: with_inputs,
    mutate: structure,
    run: differentiate,
};
pub(super) const LOWERING: Target = Target {
    name: "lowering",
    what: "lifting, quantizing by the file's annotations, lowering",
    seeds: fixtures,
    mutate: model,
    run: lower,
};

fn model(r: &mut Random, (name, bytes): &mut (String, Vec<u8>), other: &[u8]) {
    match name.ends_with(".onnx") && r.chance(85) {
        true => protobuf::message(r, bytes, other),
        false => mutate::bytes(r, bytes, other),
    }
}

/// A model for the interpreter. Damage that its reader finds belongs to another target.
fn structure(r: &mut Random, (_, bytes): &mut (String, Vec<u8>), other: &[u8]) {
    protobuf::message(r, bytes, other);
}

pub(super) fn fixtures() -> Result<Vec<Case>, String> {
    with_ending("tests/fixtures", ".onnx")?.into_iter().map(|(name, path)| Ok(Case::one(name, "model.onnx", read(&path)?))).collect()
}

fn with_inputs() -> Result<Vec<Case>, String> {
    let mut cases = fixtures()?;
    for case in &mut cases {
        let inputs = here("tests/fixtures").join(&case.of).with_extension("npz");
        if inputs.exists() {
            case.files.push((INPUTS.to_string(), read(&inputs)?));
        }
    }
    Ok(cases)
}

fn external() -> Result<Vec<Case>, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut m = Model::new(17);
    for (name, n) in [("w", 6usize), ("v", 3)] {
        let t = Tensor::vector((0..n).map(|i| i as f32).collect::<Vec<_>>());
        let id = m.values.add_constant(name, t);
        if let Some(c) = m.values[id].constant.as_mut() {
            c.origin = graph::Origin::External { location: "data".into(), offset: 0, entries: vec![("checksum".into(), "0".into())] };
        }
        m.graph.constants.push(id);
    }
    let path = folder.path().join("model.onnx");
    onnx::save(&m, &path).map_err(|e| e.to_string())?;
    let files =
        vec![("model.onnx".to_string(), read(&path)?), ("model.onnx.data".to_string(), read(&folder.path().join("model.onnx.data"))?)];
    Ok(vec![Case { of: "external".into(), files }])
}

fn read_and_write(case: &Case, _: &Path) -> Result<(), String> {
    let Ok(m) = onnx::from_bytes(case.bytes(), None) else { return Ok(()) };
    check_written(&m, case.bytes())
}

fn read_external(case: &Case, folder: &Path) -> Result<(), String> {
    let path = case.write(folder).map_err(|e| e.to_string())?;
    let Ok(m) = onnx::load(&path) else { return Ok(()) };
    let outside = tempfile::tempdir().map_err(|e| e.to_string())?;
    let to = outside.path().join("copy.onnx");
    onnx::save(&m, &to).map_err(|e| format!("a model that was read is not written: {e}"))?;
    onnx::load(&to).map_err(|e| format!("what was written is not read: {e}"))?;
    onnx::save(&m, &folder.join("again.onnx")).map_err(|e| format!("a model that was read is not written at home: {e}"))?;
    match read(&folder.join("again.onnx"))? == case.bytes() {
        true => Ok(()),
        false => Err("an unedited model is written differently".into()),
    }
}

/// An unedited model is written byte for byte; an edited one has the same content when it is read again.
fn check_written(m: &Model, bytes: &[u8]) -> Result<(), String> {
    m.verify().map_err(|e| format!("a model that was read is not well formed: {e}"))?;
    let again = onnx::to_bytes(m).map_err(|e| format!("a model that was read is not written: {e}"))?;
    if again != bytes {
        // A few bytes can stand for a large sparse tensor. Where there is no room to read the file once more, it cannot be compared.
        let readable = onnx::from_bytes(bytes, None).is_ok();
        return if readable { Err("an unedited model is written differently".into()) } else { Ok(()) };
    }
    let mut edited = m.clone();
    edited.metadata_set("fuzz", "edited");
    let written = onnx::to_bytes(&edited).map_err(|e| format!("an edited model is not written: {e}"))?;
    let mut back = onnx::from_bytes(&written, None).map_err(|e| format!("an edited model is not read: {e}"))?;
    back.source = None;
    match onnx::to_bytes(&back) {
        Ok(twice) if twice == written => Ok(()),
        Ok(_) => Err("an edited model says something else when it is read again".into()),
        Err(e) => Err(format!("an edited model is not written again: {e}")),
    }
}

/// An internal error that was caught is a finding; other errors are the model's fault.
fn no_defect<T>(result: Result<T, TrainError>) -> Result<Option<T>, String> {
    match result {
        Ok(t) => Ok(Some(t)),
        Err(TrainError::Internal { node, what }) => Err(format!("internal error at '{node}': {what}")),
        Err(_) => Ok(None),
    }
}

fn passes(case: &Case, folder: &Path) -> Result<(), String> {
    let path = case.write(folder).map_err(|e| e.to_string())?;
    if onnx::load(&path).is_err() {
        return Ok(());
    }
    if let Ok(seen) = espalier::commands::inspect(&path, &BTreeMap::new()) {
        seen.to_string();
    }
    let to = folder.join("clean.onnx");
    for opset in [None, Some(onnx::NEWEST_OPSET)] {
        let options = espalier::commands::ConvertOptions { clean: true, opset, float32: false };
        if espalier::commands::convert(&path, &to, &options).is_ok() {
            onnx::load(&to).map_err(|e| format!("a cleaned model is not read: {e}"))?;
        }
    }
    Ok(())
}

/// The fixture's inputs.
fn inputs(case: &Case, folder: &Path) -> Result<Option<BTreeMap<String, Tensor>>, String> {
    if case.file(INPUTS).is_none() {
        return Ok(None);
    }
    case.write(folder).map_err(|e| e.to_string())?;
    let arrays = data::npz::read(&folder.join(INPUTS)).unwrap_or_default();
    Ok(Some(arrays.into_iter().filter_map(|(k, v)| Some((k.strip_prefix("in__")?.to_string(), v))).collect()))
}

/// Gradients of all outputs by all inputs and constants of floats.
fn differentiate(case: &Case, folder: &Path) -> Result<(), String> {
    let Ok(m) = onnx::from_bytes(case.bytes(), None) else { return Ok(()) };
    let (Some(executor), Some(mut inputs)) = (no_defect(Executor::new(&m))?, inputs(case, folder)?) else { return Ok(()) };
    for t in inputs.values_mut().filter(|t| t.dtype() == DType::F32) {
        *t = t.tracked().map_err(|e| e.to_string())?;
    }
    let mut overrides = Overrides::default();
    for (id, v) in m.values.iter() {
        if let Some(c) = v.constant.as_ref().filter(|c| c.tensor.dtype() == DType::F32) {
            overrides.constants.insert(id, c.tensor.tracked().map_err(|e| e.to_string())?);
        }
    }
    let mode = Mode { training: true, simulate: false, seed: 1 };
    let Some(out) = no_defect(executor.run_with(&inputs, &overrides, mode, None))? else { return Ok(()) };
    for t in out.values.values().filter(|t| t.dtype() == DType::F32 && t.is_tracked()) {
        if let Ok(seed) = Tensor::full(1f32, t.shape()) {
            t.backward_from(seed).ok();
        }
    }
    Ok(())
}

fn execute(case: &Case, folder: &Path) -> Result<(), String> {
    let Ok(m) = onnx::from_bytes(case.bytes(), None) else { return Ok(()) };
    let Some(executor) = no_defect(Executor::new(&m))? else { return Ok(()) };
    if let Some(inputs) = inputs(case, folder)? {
        no_defect(executor.run(&inputs, Mode::SIMULATED))?;
        no_defect(executor.run(&inputs, Mode { training: true, simulate: true, seed: 1 }))?;
    }
    if let Ok(inputs) = espalier::commands::example_inputs(&m, &BTreeMap::new()) {
        no_defect(executor.run(&inputs, Mode::FLOAT))?;
    }
    Ok(())
}

fn lower(case: &Case, _: &Path) -> Result<(), String> {
    let Ok(mut m) = onnx::from_bytes(case.bytes(), None) else { return Ok(()) };
    if deploy::lift(&mut m).is_err() {
        return Ok(());
    }
    m.verify().map_err(|e| format!("a lifted model is not well formed: {e}"))?;
    if let Ok(lowered) = deploy::lower(&m, &deploy::LowerOptions::default()) {
        lowered.model.verify().map_err(|e| format!("a lowered model is not well formed: {e}"))?;
    }
    Ok(())
}
