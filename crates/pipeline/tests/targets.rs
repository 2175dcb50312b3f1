//! Targets and formats, named by a recipe.
use espalier_pipeline::recipe::{Loaded, parse};
use espalier_pipeline::{Quiet, RunOptions, run};
use graph::Model;
use report::RunRecord;
use std::path::Path;

const RECIPE: &str = r#"
name = "targets"
seed = 1
[data]
train = "data/digits"
test = "data/digits"
[data.preprocess]
scale = 0.0625
[model]
arch = "resnet8"
input = [1, 8, 8]
width = 0.25
[[stages]]
kind = "train"
epochs = 1
[[stages]]
kind = "quantize"
calibration = { images = 64, observer = "min_max" }
[[stages]]
kind = "deploy"
latency_runs = 1
"#;

/// The record and the deployed model.
fn deployed(overrides: &[&str]) -> (RunRecord, Model) {
    let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
    let recipe = parse(RECIPE, &overrides).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let loaded = Loaded { recipe, text: RECIPE.into(), folder, overrides };
    let out = tempfile::tempdir().unwrap();
    let record = run(&loaded, &RunOptions { out: out.path().to_path_buf(), ..RunOptions::default() }, &mut Quiet).unwrap();
    let model = onnx::load(&out.path().join("deploy.deployed.onnx")).unwrap();
    (record, model)
}

fn count(model: &Model, op_type: &str) -> usize {
    model.graph.nodes.iter().filter(|n| n.op_type == op_type).count()
}

#[test]
fn a_recipe_names_the_format_and_the_file_agrees_with_the_simulation() {
    for target in ["onnxruntime", "reference"] {
        let (record, model) = deployed(&["stages.deploy.format=\"qoperator\"", &format!("stages.deploy.target=\"{target}\"")]);
        assert_eq!((count(&model, "Conv"), count(&model, "Gemm"), count(&model, "QGemm")), (0, 0, 1));
        assert!(count(&model, "QLinearConv") == 9 && count(&model, "QLinearAdd") == 3, "{:?}", model.graph.nodes);
        assert_eq!((count(&model, "QuantizeLinear"), count(&model, "DequantizeLinear")), (1, 1));
        let (stage, deploy) = record.deployed().unwrap();
        assert!(deploy.runtimes[0].agreement.unwrap() > 0.99, "{:?}", deploy.runtimes);
        let notes: Vec<&str> = stage.notes.iter().map(|n| n.text.as_str()).collect();
        assert!(notes.iter().any(|n| n.contains("format qoperator")), "{notes:?}");
        assert!(!stage.notes.iter().any(|n| n.warning && n.text.contains("simulation")), "{notes:?}");
    }
}

#[test]
fn an_unknown_target_or_format_is_refused_with_the_known_ones() {
    let error = |text: &str| parse(RECIPE, &[text.to_string()]).unwrap_err().to_string();
    let target = error("stages.deploy.target=\"onnxrunntime\"");
    assert!(target.contains("there is no target 'onnxrunntime'") && target.contains("did you mean 'onnxruntime'?"), "{target}");
    let format = error("stages.deploy.format=\"tflite\"");
    assert!(format.contains("there is no format 'tflite'") && format.contains("known: qdq, qoperator"), "{format}");
}

#[test]
fn a_file_for_integers_only_has_none_but_signed_ones() {
    let (record, model) = deployed(&["stages.deploy.target=\"integer_only\"", "stages.deploy.format=\"qoperator\""]);
    assert_eq!((count(&model, "QuantizeLinear"), count(&model, "DequantizeLinear")), (1, 1), "{:?}", model.graph.nodes);
    let unsigned = model.graph.constants.iter().filter(|v| model.values.tensor(**v).is_some_and(|t| t.dtype() == tensor::DType::U8));
    assert_eq!(unsigned.count(), 0);
    let (stage, deploy) = record.deployed().unwrap();
    assert!(stage.float_parts.is_empty(), "{:?}", stage.float_parts);
    assert!(deploy.runtimes[0].agreement.unwrap() > 0.99, "{:?}", deploy.runtimes);
}

#[test]
fn what_a_target_cannot_run_is_found_out_before_training() {
    let overrides = ["stages.deploy.target=\"integer_only\"", "stages.quantize.weights.bits=4"].map(String::from);
    let recipe = parse(RECIPE, &overrides).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let loaded = Loaded { recipe, text: RECIPE.into(), folder, overrides: overrides.to_vec() };
    let out = tempfile::tempdir().unwrap();
    let error = run(&loaded, &RunOptions { out: out.path().to_path_buf(), ..RunOptions::default() }, &mut Quiet).unwrap_err().to_string();
    assert!(error.contains("target 'integer_only'") && error.contains("is stored as int4"), "{error}");
    assert!(error.contains("found by a trial before the run") && !out.path().join("train.onnx").exists(), "{error}");
}
