//! The interpreter gives the outputs that ONNX Runtime computed for the small graphs in `tests/fixtures`, which show every
//! change of meaning after operator set 17: `opset_changes.txt` there lists them.
use espalier_train as train;
use std::collections::BTreeMap;
use std::path::Path;
use tensor::{DType, Tensor};
use test_support::folders::{files, fixtures};
use train::{Executor, Mode};

/// Largest difference over the output's largest absolute value; f16 has 11 bits of precision and sums in another order.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F16 { 4e-3 } else { 1e-4 }
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
    let paths = files(&fixtures(), "onnx");
    assert!(paths.len() > 100, "only {} fixtures", paths.len());
    let failures: Vec<String> =
        paths.iter().filter_map(|p| Some(format!("{}: {}", p.file_stem()?.to_string_lossy(), check(p).err()?))).collect();
    assert!(failures.is_empty(), "{} of {} fixtures fail:\n{}", failures.len(), paths.len(), failures.join("\n"));
}

/// Lines are `OPERATOR VERSION WHAT: FIXTURE...`, `OPERATOR VERSION types only` or `OPERATOR VERSION refused by name: WHY`.
#[test]
fn every_version_after_operator_set_17_is_listed_with_its_fixtures() {
    let text = std::fs::read_to_string(fixtures().join("opset_changes.txt")).unwrap();
    let (mut listed, mut refused) = (vec![], vec![]);
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let mut words = line.splitn(3, ' ');
        let (op, version, what) = (words.next().unwrap(), words.next().unwrap().parse::<i64>().unwrap(), words.next().unwrap());
        if what.starts_with("refused by name") {
            refused.push(op);
            continue;
        }
        listed.push((op, version));
        let names = what.rsplit_once(": ").map_or("", |(_, names)| names);
        assert!(what.starts_with("types only") || !names.is_empty(), "{line}");
        for name in names.split(' ').filter(|n| !n.is_empty()) {
            assert!(fixtures().join(format!("{}.onnx", name.trim_end_matches('*'))).is_file(), "{op} {version}: no fixture {name}");
        }
    }
    for op in ops::all().filter(|op| op.domain().is_empty()) {
        assert!(!refused.contains(&op.op_type()), "{} is implemented and listed as refused", op.op_type());
        for version in op.versions().iter().filter(|v| **v > 17) {
            assert!(listed.contains(&(op.op_type(), *version)), "{} {version} is not listed", op.op_type());
        }
    }
}
