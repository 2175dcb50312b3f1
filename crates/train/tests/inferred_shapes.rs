//! Inferred types hold in a run: element type, rank and every known size, of the real models and of the small graphs.
use espalier_train as train;
use graph::{Model, ValueType};
use std::collections::BTreeMap;
use tensor::Tensor;
use test_support::folders::{self, files, fixtures, shared_files};
use train::{Executor, Mode};

/// Number of values with a known rank, and of all values.
fn check(model: &Model, arrays: BTreeMap<String, Tensor>) -> Result<(usize, usize), String> {
    let inputs = arrays.into_iter().filter_map(|(k, v)| Some((k.strip_prefix("in__")?.to_string(), v))).collect();
    let executor = Executor::unfused(model).map_err(|e| e.to_string())?;
    let model = executor.model();
    let types = ops::infer_types(model).map_err(|e| e.to_string())?;
    let (mut ranked, mut seen, mut wrong) = (0, 0, None);
    let mut compare = |id, t: &Tensor| {
        let Some(ty) = types.get(&id) else { return };
        seen += 1;
        let ValueType::Tensor { dtype, shape } = ty else { return };
        ranked += usize::from(shape.is_some());
        let fits = |s: &Vec<graph::Dim>| s.len() == t.rank() && s.iter().zip(t.shape()).all(|(d, n)| d.known().is_none_or(|k| k == *n));
        if *dtype != t.dtype() || shape.as_ref().is_some_and(|s| !fits(s)) {
            wrong.get_or_insert(format!("'{}' is inferred {ty:?}, runs as {} {:?}", model.values[id].name, t.dtype(), t.shape()));
        }
    };
    executor.run_observed(&inputs, Mode::FLOAT, &mut compare).map_err(|e| e.to_string())?;
    wrong.map_or(Ok((ranked, seen)), Err)
}

#[test]
fn small_graphs() {
    let mut failures = vec![];
    for path in files(&fixtures(), "onnx") {
        let (model, arrays) = (onnx::load(&path).unwrap(), data::npz::read(&path.with_extension("npz")).unwrap());
        failures.extend(check(&model, arrays).err().map(|e| format!("{}: {e}", path.display())));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn real_models() {
    for path in shared_files("models", "onnx") {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let golden = data::npz::read(&folders::data().join(format!("golden/{name}.npz"))).unwrap();
        let (ranked, seen) = check(&onnx::load(&path).unwrap(), golden).unwrap_or_else(|e| panic!("{name}: {e}"));
        println!("{name}: {ranked} of {seen} values have a known rank");
        // The voice detector's ranks depend on which branch of an If is taken.
        assert!(ranked == seen || name.starts_with("silero"), "{name}: {ranked} of {seen} values have a known rank");
    }
}
