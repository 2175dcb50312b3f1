//! `batch_norm = "keep"`: trained through its own statistics, deployed folded, and refused while the statistics move.
use espalier_pipeline::recipe::{Loaded, parse};
use espalier_pipeline::{PipelineError, Quiet, RunOptions, run};
use report::RunRecord;
use std::path::Path;

const RECIPE: &str = r#"
name = "keep"
seed = 1
[data]
train = "data/digits"
test = "data/digits"
[data.preprocess]
scale = 0.0625
[model]
arch = "resnet8"
input = [1, 8, 8]
width = 0.5
[[stages]]
kind = "train"
epochs = 1
optimizer = { kind = "adamw", lr = 0.01 }
[[stages]]
kind = "quantize"
batch_norm = "keep"
calibration = { images = 128 }
epochs = 2
optimizer = { kind = "adamw", lr = 0.001 }
freeze_statistics = 1
[[stages]]
kind = "prune"
sparsity = 0.3
[[stages]]
kind = "finetune"
epochs = 1
optimizer = { kind = "adamw", lr = 0.001 }
freeze_statistics = 1
[[stages]]
kind = "deploy"
target = "reference"
latency_runs = 1
"#;

fn deployed(overrides: &[&str]) -> Result<RunRecord, PipelineError> {
    let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
    let recipe = parse(RECIPE, &overrides).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let loaded = Loaded { recipe, text: RECIPE.into(), folder, overrides };
    let out = tempfile::tempdir().unwrap();
    run(&loaded, &RunOptions { out: out.path().to_path_buf(), ..RunOptions::default() }, &mut Quiet)
}

#[test]
fn a_normalization_that_was_kept_is_deployed_folded() {
    let record = deployed(&[]).unwrap();
    let (stage, deploy) = record.deployed().unwrap();
    let literal = &deploy.runtimes[0];
    assert_eq!((literal.agreement, literal.accuracy), (Some(1.0), deploy.simulation_accuracy));
    assert!(stage.notes.iter().any(|n| n.text.contains("BatchNormalization operators, kept so far, were folded")));
    assert!(!stage.notes.iter().any(|n| n.warning), "{:?}", stage.notes);
    // The graph before it, with its normalizations, was simulated as the file computes.
    let tuned = record.stages[3].metrics.accuracy.unwrap();
    let file = literal.accuracy.unwrap();
    assert!(file > 0.5 && (tuned - file).abs() < 0.01, "{tuned} {file}");
}

#[test]
fn statistics_that_moved_in_the_last_epoch_are_refused() {
    let error = deployed(&["stages.finetune.freeze_statistics=0"]).unwrap_err().to_string();
    assert!(error.contains("deploy") && error.contains("freeze_statistics"), "{error}");
}
