//! The interpreter gives the outputs that ONNX Runtime computed for the small graphs in `tests/fixtures`.
use espalier_train as train;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tensor::{DType, Tensor};
use train::{Executor, Mode};

/// Largest difference over the output's largest absolute value; f16 has 11 bits of precision and sums in another order.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F16 { 4e-3 } else { 1e-4 }
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures"))
}

fn with_prefix(arrays: &BTreeMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    arrays.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_string(), v.clone()))).collect()
}

fn check(path: &Path) -> Result<(), String> {
    let model = onnx::load(path).map_err(|e| e.to_string())?;
    let arrays = data::npz::read(&path.with_extension("npz")).map_err(|e| e.to_string())?;
    let executor = Executor::new(&model).map_err(|e| e.to_string())?;
    let outputs = executor.run(&with_prefix(&arrays, "in__"), Mode::FLOAT).map_err(|e| e.to_string())?;
    for (name, expected) in with_prefix(&arrays, "out__") {
        let got = outputs.get(&name).ok_or_else(|| format!("no output {name}"))?;
        if (got.dtype(), got.shape()) != (expected.dtype(), expected.shape()) {
            return Err(format!("{name} is {} {:?}, expected {} {:?}", got.dtype(), got.shape(), expected.dtype(), expected.shape()));
        }
        let (a, b) = (got.to_f64_vec().map_err(|e| e.to_string())?, expected.to_f64_vec().map_err(|e| e.to_string())?);
        let largest = b.iter().filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs()));
        let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance(expected.dtype()) * largest;
        if let Some(i) = (0..a.len()).find(|i| !same(a[*i], b[*i])) {
            return Err(format!("{name}[{i}] is {}, expected {} (largest {largest})", a[i], b[i]));
        }
    }
    Ok(())
}

#[test]
fn every_fixture_gives_the_outputs_of_onnx_runtime() {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "onnx"))
        .collect();
    paths.sort();
    assert!(paths.len() > 100, "only {} fixtures", paths.len());
    let failures: Vec<String> =
        paths.iter().filter_map(|p| Some(format!("{}: {}", p.file_stem()?.to_string_lossy(), check(p).err()?))).collect();
    assert!(failures.is_empty(), "{} of {} fixtures fail:\n{}", failures.len(), paths.len(), failures.join("\n"));
}
