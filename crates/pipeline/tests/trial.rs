//! What cannot be deployed is refused before anything is trained.
use espalier_pipeline::recipe::{Loaded, parse};
use espalier_pipeline::{PipelineError, Quiet, RunOptions, run};
use std::path::Path;

const RECIPE: &str = r#"
name = "trial"
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
calibration = { images = 64 }
[[stages]]
kind = "deploy"
latency_runs = 1
"#;

/// The error, and whether a stage had left anything by then.
fn refused(overrides: &[&str]) -> (PipelineError, bool) {
    let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
    let recipe = parse(RECIPE, &overrides).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let loaded = Loaded { recipe, text: RECIPE.into(), folder, overrides };
    let out = tempfile::tempdir().unwrap();
    let error = run(&loaded, &RunOptions { out: out.path().to_path_buf(), ..RunOptions::default() }, &mut Quiet).unwrap_err();
    (error, out.path().join("train.onnx").exists())
}

#[test]
fn an_operator_set_that_the_runtime_lacks_is_found_out_before_training() {
    if deploy::runtime::choose().note.is_some() {
        eprintln!("skipped: ONNX Runtime is not there");
        return;
    }
    let (error, trained) = refused(&["stages.quantize.weights.bits=2"]);
    let error = error.to_string();
    assert!(error.contains("stage 'deploy'") && error.contains("weights.bits = 2"), "{error}");
    assert!(error.contains("trial before the run") && error.contains("target = \"reference\""), "{error}");
    assert!(!trained);
}

#[test]
fn activations_of_few_bits_before_a_clip_are_found_out_before_training() {
    if deploy::runtime::choose().note.is_some() {
        eprintln!("skipped: ONNX Runtime is not there");
        return;
    }
    // Its Relu6 are Clips.
    let (error, trained) = refused(&["model.arch=\"mobilenet-v2\"", "stages.quantize.activations.bits=4"]);
    let error = error.to_string();
    assert!(error.contains("stage 'deploy'") && error.contains("what activations.bits = 4 needs"), "{error}");
    assert!(error.contains("trial before the run") && error.contains("target = \"reference\""), "{error}");
    assert!(!trained);
}

#[test]
fn statistics_that_will_still_move_are_found_out_before_training() {
    let overrides = ["stages.quantize.batch_norm=\"keep\"", "stages.quantize.epochs=1", "stages.deploy.target=\"reference\""];
    let (error, trained) = refused(&overrides);
    let error = error.to_string();
    assert!(error.contains("freeze_statistics") && error.contains("trial before the run"), "{error}");
    assert!(!trained);
}

#[test]
fn a_pattern_that_names_nothing_is_found_out_before_training() {
    let (error, trained) = refused(&["stages.quantize.skip=[\"nothing\"]", "stages.deploy.target=\"reference\""]);
    let error = error.to_string();
    assert!(error.contains("stage 'quantize'") && error.contains("'nothing' matches no node"), "{error}");
    assert!(!trained);
}
